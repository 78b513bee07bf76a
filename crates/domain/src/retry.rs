//! Whether a call that failed is worth another attempt.

/// What may come of another attempt, as whoever knows why a call failed says it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// The same callee may answer later: it is away, busy, or not ready.
    Later,
    /// This callee will not answer, whenever it is asked, and another one may.
    Elsewhere,
    /// Nobody will: the request itself is what is wrong. That says nothing against the callee.
    Never,
}
