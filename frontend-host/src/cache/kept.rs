//! An outcome that is kept, and the response that a policy made of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use domain::time::BootTime;

use frontend_policy::decision::Reply;

/// An outcome that was kept, and what was made of it.
pub struct Kept<V> {
    /// What a backend said.
    pub value: V,
    /// When the backend was asked.
    pub fetched: BootTime,
    rendered: ArcSwapOption<Rendered>,
    room: Arc<Room>,
}

/// A response, and what it holds for.
pub struct Rendered {
    /// The response.
    pub reply: Reply,
    /// When the backend was asked.
    pub fetched: BootTime,
    /// Until when it may be served.
    pub keep_until: BootTime,
    policy: u64,
    memo: Vec<u8>,
    bytes: usize,
    room: Arc<Room>,
}

impl<V> Kept<V> {
    pub(super) fn new(value: V, fetched: BootTime, room: &Arc<Room>) -> Arc<Self> {
        Arc::new(Self {
            value,
            fetched,
            rendered: ArcSwapOption::empty(),
            room: Arc::clone(room),
        })
    }

    /// The response that this version of the policy made of it, with the same memo.
    pub fn rendered(&self, policy: u64, memo: &[u8]) -> Option<Arc<Rendered>> {
        let rendered = self.rendered.load();
        let rendered = rendered.as_ref()?;
        (rendered.policy == policy && rendered.memo == memo).then(|| Arc::clone(rendered))
    }

    /// Puts a response beside it, to be served for as long after `since` as the policy wants it
    /// kept. Does nothing where it does not, or where there is no room.
    pub fn render(&self, policy: u64, memo: &[u8], reply: &Reply, since: BootTime) {
        let Some(keep) = reply.keep else { return };
        let bytes = memo.len() + reply.bytes();
        if self.room.take(bytes) {
            let rendered = Rendered {
                reply: reply.clone(),
                fetched: self.fetched,
                keep_until: since + keep,
                policy,
                memo: memo.to_vec(),
                bytes,
                room: Arc::clone(&self.room),
            };
            self.rendered.store(Some(Arc::new(rendered)));
        }
    }
}

impl Rendered {
    /// Whether it may not be served any more.
    pub fn has_expired(&self, now: BootTime) -> bool {
        now > self.keep_until
    }
}

impl Drop for Rendered {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

/// Bytes that rendered responses may still take. Entries are bounded by their number; what a
/// policy renders of each can be large.
pub struct Room(AtomicUsize);

impl Room {
    /// So much room.
    pub fn of(bytes: usize) -> Self {
        Self(AtomicUsize::new(bytes))
    }

    fn take(&self, bytes: usize) -> bool {
        let left = |left: usize| left.checked_sub(bytes);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left)
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}
