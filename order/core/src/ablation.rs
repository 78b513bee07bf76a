//! The protective rules that a test can take out, to show that it would notice.

/// A rule without which something that was promised is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A leader-elect leads only once it holds all that the catalog says is in the journal.
    ActivationCatchUp,
    /// Only the catalog can say that an order does not exist.
    ConfirmedAbsence,
    /// Only the catalog says that an epoch has begun.
    ConfirmedEpoch,
    /// A removed follower counts until the catalog has confirmed a set without it.
    ConfirmedRemoval,
    /// Before it reports to a catalog that starts, a replica lets go of what is under way, and takes nothing more
    /// before another epoch begins.
    LetGo,
}

/// The rules in force.
pub type Rules = domain::Rules<Rule>;
