//! What was read, and the responses that policies made of it.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::{ArcSwapOption, Guard};
use domain::time::BootTime;

use frontend_policy::decision::Reply;
use frontend_policy::{Ambient, limits};

/// What was read, and what was made of it.
pub struct CacheEntry<V> {
    /// What a backend said.
    pub value: V,
    /// When the backend was asked.
    pub fetched: BootTime,
    rendered: ArcSwapOption<Renderings>,
    budget: Arc<ByteBudget>,
}

/// The responses that were made of an entry, each of another key. Never changes: another one more is
/// another list.
struct Renderings {
    /// In its own place, for mostly there is no other.
    newest: Arc<Rendered>,
    /// The newest first.
    older: Vec<Arc<Rendered>>,
}

/// A response, and what it holds for.
pub struct Rendered {
    pub reply: Reply,
    /// When the backend was asked.
    pub fetched: BootTime,
    /// Until when it may be served.
    pub keep_until: BootTime,
    /// What the policy found beside its arguments when it made the response.
    pub ambient: Ambient,
    policy: u64,
    vary_key: Vec<u8>,
    bytes: usize,
    budget: Arc<ByteBudget>,
}

/// A response that was found, as long as it is looked at.
pub struct Found {
    renderings: Guard<Option<Arc<Renderings>>>,
    /// 0 for the newest.
    place: usize,
}

impl Deref for Found {
    type Target = Rendered;

    fn deref(&self) -> &Rendered {
        let renderings = self.renderings.as_ref().expect("it was found there");
        match self.place.checked_sub(1) {
            None => &renderings.newest,
            Some(older) => &renderings.older[older],
        }
    }
}

/// A response that a policy made.
#[derive(Clone, Copy)]
pub struct Rendering<'a> {
    pub key: RenderKey<'a>,
    pub reply: &'a Reply,
    /// What the policy found beside its arguments.
    pub ambient: Ambient,
}

impl<V> CacheEntry<V> {
    pub(super) fn new(value: V, fetched: BootTime, budget: &Arc<ByteBudget>) -> Arc<Self> {
        Arc::new(Self {
            value,
            fetched,
            rendered: ArcSwapOption::empty(),
            budget: Arc::clone(budget),
        })
    }

    /// The response that this version of the policy made of it, of the same key.
    pub fn rendered(&self, key: RenderKey<'_>) -> Option<Found> {
        let renderings = self.rendered.load();
        let place = renderings.as_ref()?.place_of(key)?;
        Some(Found { renderings, place })
    }

    /// Puts a response beside it, to be served for as long after `since` as the policy wants it
    /// kept. Does nothing where it does not, or where the budget is used up, and not by this entry's
    /// others.
    pub fn render(&self, rendering: Rendering<'_>, since: BootTime) {
        let Rendering {
            key,
            reply,
            ambient,
        } = rendering;
        let Some(keep) = reply.keep else { return };
        let bytes = size_of::<Rendered>() + key.vary_key.len() + reply.bytes();
        if !self.budget.take(bytes) {
            self.rendered.store(None);
            if !self.budget.take(bytes) {
                return;
            }
        }
        let rendered = Arc::new(Rendered {
            reply: reply.clone(),
            fetched: self.fetched,
            keep_until: since + keep,
            ambient,
            policy: key.policy,
            vary_key: key.vary_key.to_vec(),
            bytes,
            budget: Arc::clone(&self.budget),
        });
        self.rendered.rcu(|now| {
            Some(Arc::new(Renderings {
                newest: Arc::clone(&rendered),
                older: others(now.as_deref(), key),
            }))
        });
    }

    /// Lets go of the response of this key.
    pub fn forget(&self, key: RenderKey<'_>) {
        self.rendered.rcu(|now| {
            let mut others = others(now.as_deref(), key);
            let newest = (!others.is_empty()).then(|| others.remove(0));
            newest.map(|newest| {
                Arc::new(Renderings {
                    newest,
                    older: others,
                })
            })
        });
    }
}

impl Renderings {
    fn place_of(&self, key: RenderKey<'_>) -> Option<usize> {
        if self.newest.key() == key {
            return Some(0);
        }
        let older = self.older.iter().position(|other| other.key() == key)?;
        Some(older + 1)
    }
}

/// The responses of other keys, the newest first: one fewer than are kept.
fn others(renderings: Option<&Renderings>, key: RenderKey<'_>) -> Vec<Arc<Rendered>> {
    let all = renderings.into_iter().flat_map(|renderings| {
        let Renderings { newest, older } = renderings;
        std::iter::once(newest).chain(older)
    });
    let others = all.filter(|rendered| rendered.key() != key);
    others.take(limits::RENDERINGS_MAX - 1).cloned().collect()
}

/// What made a response: the same of the same value make the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderKey<'a> {
    /// The version of the policy.
    pub policy: u64,
    /// The key of its read.
    pub vary_key: &'a [u8],
}

impl Rendered {
    fn key(&self) -> RenderKey<'_> {
        RenderKey {
            policy: self.policy,
            vary_key: &self.vary_key,
        }
    }

    /// Whether it may not be served any more.
    pub fn has_expired(&self, now: BootTime) -> bool {
        now > self.keep_until
    }
}

impl Drop for Rendered {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

/// Bytes that rendered responses may still take. Entries are bounded by their number; what a
/// policy renders of each can be large.
pub struct ByteBudget(AtomicUsize);

impl ByteBudget {
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
