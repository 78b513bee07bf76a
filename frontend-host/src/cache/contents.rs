//! What is kept, and what had to make room for it lately, for whoever looks.

use std::collections::{BTreeSet, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::time::BootTime;
use moka::sync::Cache as Moka;

/// Entries of a kind that had to make room and are known at most, the last of all.
const EVICTED_MAX: usize = 100;

/// What there is of one kind of entry, by their keys.
#[derive(Debug)]
pub struct Contents<K> {
    /// How many are kept.
    pub entries: u64,
    /// How many are kept at most.
    pub entries_max: u32,
    /// The first of those that are kept, in the order of their keys.
    pub kept: Vec<Arc<K>>,
    /// Whether more are kept than these.
    pub more: bool,
    /// Those that had to make room, or got none, and when: the last 100, the latest at the end.
    pub evicted: Vec<(BootTime, Arc<K>)>,
}

impl<K: Ord + Hash + Send + Sync + 'static> Contents<K> {
    /// Of a table that keeps `entries_max`, with `shown_max` of its keys. Looks at all of them.
    pub(super) fn of<V: Clone + Send + Sync + 'static>(
        table: &Moka<K, V>,
        entries_max: u32,
        evicted: &LastEvicted<K>,
        shown_max: usize,
    ) -> Self {
        // It counts late otherwise, and keeps more than it may.
        table.run_pending_tasks();
        let mut first = BTreeSet::new();
        let mut more = false;
        for (key, _) in table {
            first.insert(key);
            if first.len() > shown_max {
                first.pop_last();
                more = true;
            }
        }
        Self {
            entries: table.entry_count(),
            entries_max,
            kept: first.into_iter().collect(),
            more,
            evicted: evicted.all(),
        }
    }
}

/// Which entries of one kind had to make room for others, and when: the latest at the end.
#[derive(Debug)]
pub(super) struct LastEvicted<K>(Mutex<VecDeque<(BootTime, Arc<K>)>>);

impl<K> Default for LastEvicted<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K> LastEvicted<K> {
    /// That one has made room now.
    pub(super) fn note(&self, key: Arc<K>) {
        let now = BootTime::now();
        let mut last = self.lock();
        if last.len() >= EVICTED_MAX {
            last.pop_front();
        }
        last.push_back((now, key));
    }

    fn all(&self) -> Vec<(BootTime, Arc<K>)> {
        self.lock().iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(BootTime, Arc<K>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
