//! What was read, and the response that a policy made of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arc_swap::ArcSwapOption;
use domain::time::BootTime;

use frontend_policy::decision::Reply;

/// What was read, and what was made of it.
pub struct CacheEntry<V> {
    /// What a backend said.
    pub value: V,
    /// When the backend was asked.
    pub fetched: BootTime,
    rendered: ArcSwapOption<Rendered>,
    budget: Arc<ByteBudget>,
}

/// A response, and what it holds for.
pub struct Rendered {
    pub reply: Reply,
    /// When the backend was asked.
    pub fetched: BootTime,
    /// Until when it may be served.
    pub keep_until: BootTime,
    policy: u64,
    memo: Vec<u8>,
    bytes: usize,
    budget: Arc<ByteBudget>,
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

    /// The response that this version of the policy made of it, with the same memo.
    pub fn rendered(&self, key: RenderKey<'_>) -> Option<Arc<Rendered>> {
        let rendered = self.rendered.load();
        let rendered = rendered.as_ref()?;
        (rendered.key() == key).then(|| Arc::clone(rendered))
    }

    /// Puts a response beside it, to be served for as long after `since` as the policy wants it
    /// kept. Does nothing where it does not, or where the budget is used up.
    pub fn render(&self, key: RenderKey<'_>, reply: &Reply, since: BootTime) {
        let Some(keep) = reply.keep else { return };
        let bytes = key.memo.len() + reply.bytes();
        if self.budget.take(bytes) {
            let rendered = Rendered {
                reply: reply.clone(),
                fetched: self.fetched,
                keep_until: since + keep,
                policy: key.policy,
                memo: key.memo.to_vec(),
                bytes,
                budget: Arc::clone(&self.budget),
            };
            self.rendered.store(Some(Arc::new(rendered)));
        }
    }
}

/// What made a response: the same of the same value make the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RenderKey<'a> {
    /// The version of the policy.
    pub policy: u64,
    /// The memo that came with its operation.
    pub memo: &'a [u8],
}

impl Rendered {
    fn key(&self) -> RenderKey<'_> {
        RenderKey {
            policy: self.policy,
            memo: &self.memo,
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
