//! What comes of faults. A fault that is inflicted and touches nothing shows nothing: so what
//! comes of each is counted, and in enough seeds each must have come.

use crate::nemesis::Kind;
use crate::plan::Plan;

/// Something that a fault brings about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// An epoch that somebody claimed, and the catalog has not begun, was refused.
    ForgeryRefused,
    /// A replica whose disk was lost holds again what was acknowledged.
    DiskRefilled,
    /// A replica found that its disk is another bazaar's.
    ForeignDiskRefused,
    /// A request reached another bazaar's process, which refused it by name.
    StrangerRefused,
    /// A replica without a journal took another bazaar's, and was refused once it was wired well.
    StrayRefused,
    /// More rows were committed together than are proposed.
    LargeGroup,
    /// A replica lacked more rows than one answer has, and has them now.
    FarBehindCaughtUp,
    /// A leader was elected while a replica lacked more rows than one answer has.
    ElectedWhileFarBehind,
    /// A catalog without a journal did not begin another one.
    NoJournal,
    /// A catalog was rebuilt from ledgers, and served.
    CatalogRebuilt,
    /// It had rows that were in no ledger, only beside one.
    RebuiltFromBeside,
    /// It waited longer than its own lease.
    RebuiltWaitedLonger,
    /// A catalog that was restored from an older copy got back what that lacked.
    RollbackHealed,
    /// Nobody who had such a row could reach it in time: whoever operates it stops it then.
    RollbackUnnoticed,
    /// A ledger that was damaged, or must not be believed, was copied anew.
    LedgerRebuilt,
    // Of several catalogs over one database:
    /// Another catalog serves than before.
    TakenOver,
    /// One that was told to stop handed the term over.
    HandedOver,
    /// One did not answer what another one may have changed.
    AnswerWithheld,
    /// The fence kept out what somebody sent whose term is over, or who saw more than there is.
    WriterFenced,
    /// A commit's connection broke before it was made.
    CommitLost,
    /// Or after.
    CommitUnanswered,
    CommitAnsweredLate,
    /// The wait for a standby was cancelled, which succeeds with a warning.
    WaitCancelled,
    /// A primary committed that had been replaced.
    CommittedApart,
    FailedOver,
    DatabaseRestarted,
    /// The database came back without rows that it had acknowledged.
    DatabaseLostRows,
    /// And a catalog put them back before it served.
    DatabaseHealed,
    /// Nobody who had such a row could reach it in time: whoever operates it stops it then.
    LossUnnoticed,
}

/// What comes of faults only where there are several catalogs.
pub const OF_SEVERAL: [Effect; 13] = [
    Effect::TakenOver,
    Effect::HandedOver,
    Effect::AnswerWithheld,
    Effect::WriterFenced,
    Effect::CommitLost,
    Effect::CommitUnanswered,
    Effect::CommitAnsweredLate,
    Effect::WaitCancelled,
    Effect::CommittedApart,
    Effect::FailedOver,
    Effect::DatabaseRestarted,
    Effect::DatabaseLostRows,
    Effect::DatabaseHealed,
];

pub const EFFECTS: [Effect; 15] = [
    Effect::ForgeryRefused,
    Effect::DiskRefilled,
    Effect::ForeignDiskRefused,
    Effect::StrangerRefused,
    Effect::StrayRefused,
    Effect::LargeGroup,
    Effect::FarBehindCaughtUp,
    Effect::ElectedWhileFarBehind,
    Effect::NoJournal,
    Effect::CatalogRebuilt,
    Effect::RebuiltFromBeside,
    Effect::RebuiltWaitedLonger,
    Effect::RollbackHealed,
    Effect::RollbackUnnoticed,
    Effect::LedgerRebuilt,
];

impl Effect {
    /// The faults that bring it about.
    fn kinds(self) -> &'static [Kind] {
        match self {
            Self::ForgeryRefused => &[Kind::Forgery],
            Self::DiskRefilled | Self::FarBehindCaughtUp => &[Kind::LostDisk],
            Self::ForeignDiskRefused => &[Kind::ForeignDisk],
            Self::StrangerRefused => &[Kind::Miswiring],
            Self::StrayRefused => &[Kind::Miswiring, Kind::LostDisk],
            Self::LargeGroup => &[Kind::SlowDisk, Kind::Kill],
            Self::ElectedWhileFarBehind => &[Kind::LostDisk, Kind::Kill],
            Self::NoJournal
            | Self::CatalogRebuilt
            | Self::RebuiltFromBeside
            | Self::RebuiltWaitedLonger => &[Kind::LostCatalog],
            Self::RollbackHealed => &[Kind::Rollback],
            Self::RollbackUnnoticed => &[Kind::Rollback, Kind::Cut],
            Self::LedgerRebuilt => &[Kind::DamagedDisk],
            Self::TakenOver => &[Kind::Kill],
            Self::HandedOver => &[Kind::Stop],
            Self::AnswerWithheld => &[Kind::Pause, Kind::Cut],
            Self::WriterFenced => &[Kind::DatabaseLoss],
            Self::CommitLost
            | Self::CommitUnanswered
            | Self::CommitAnsweredLate
            | Self::WaitCancelled => &[Kind::CommitFate],
            Self::CommittedApart | Self::FailedOver => &[Kind::FailOver],
            Self::DatabaseRestarted => &[Kind::DatabaseRestart],
            Self::DatabaseLostRows | Self::DatabaseHealed => &[Kind::DatabaseLoss],
            Self::LossUnnoticed => &[Kind::DatabaseLoss, Kind::Cut],
        }
    }

    /// A simulation in which it comes soon.
    pub fn plan(self, seed: u64) -> Plan {
        let plan = Plan::alone(seed).with(self.kinds()).short();
        match self {
            it if OF_SEVERAL.contains(&it) || it == Self::LossUnnoticed => plan.several(),
            Self::FarBehindCaughtUp | Self::ElectedWhileFarBehind => plan.prefilled(),
            Self::LargeGroup => plan.crowded(),
            _ => plan,
        }
    }
}
