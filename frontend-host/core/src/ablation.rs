//! The protective rules that a test can take out, to show that it would notice.

/// A rule without which a cached read could be older than what a client has already seen, or a take be
/// denied although there are tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// An answer below a floor that passed by while it was asked for is not kept.
    Floor,
    /// Nothing is served from the cache once the lease may be over.
    LeaseCheck,
    /// What was kept under one session is not served under another.
    SessionCheck,
    /// What the catalog did not register is not kept as current.
    Registered,
    /// How long there are no tokens is counted from before the catalog was asked.
    DenialFromAsking,
    /// And for a little less than the catalog said, by whose clock that is.
    DenialMargin,
}

/// The rules in force.
pub type Rules = domain::Rules<Rule>;
