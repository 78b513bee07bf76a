//! The protective rules that a test can take out, to show that it would notice.

/// A rule without which something that was promised is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Only the current epoch's leader trades and changes the in-sync set.
    EpochCheck,
    /// A key that has a row gets no other one.
    KeyCheck,
    /// No change of the in-sync set is made after a later one of the same epoch.
    ChangeOrder,
    /// An epoch in which rows may have been proposed in vain is over: nothing else gets their
    /// numbers in it.
    Succession,
    /// A durable value is shown only once nobody holds the one before it.
    DelayedVisibility,
    /// Who is told that a stock is not listed is told so once that is what is shown.
    ShownAbsence,
    /// After a restart nothing is read or traded while a session of before may be alive.
    RestartWait,
    /// Who may keep what it reads is a holder, and will be told to let go.
    Registration,
    /// After a restart, when nobody knows what was taken out of them, all buckets begin empty.
    EmptyStart,
    /// Whose bucket finds room begins with what the crowd has left, out of which it may have taken.
    CrowdsRest,
    /// Who has yet to acknowledge that it let go of a stock is not lent it again before.
    OwedFirst,
    /// A commit is part of the statement that finds the writer's term to be still its own.
    WriterFence,
    /// The active catalog answers no longer than its own writer lease.
    OwnLease,
    /// And counts that a little shorter than those who wait for its end.
    WriterMargin,
    /// No gateway's lease ends after the writer's own.
    NestedLease,
    /// A term that shows signs of life is not taken over.
    TakeOverWait,
    /// Nor one that showed one since.
    TakeOverBeat,
    /// Nothing is loaded before the take-over is acknowledged, and with it all that is behind it.
    Barrier,
    /// A commit of which nobody knows ends the term, and so does the end of its connection.
    UnknownEndsTerm,
    /// What was seen of another incarnation of the database does not count.
    Incarnation,
    /// A catalog's own last term is waited for until what it lent in it is over.
    OwnTermOver,
    /// A term is handed over once no gateway holds anything.
    ReleaseUnheld,
    /// Rows that the database lost are put back before anybody is served.
    SelfHealing,
}

/// The rules in force.
pub type Rules = domain::Rules<Rule>;
