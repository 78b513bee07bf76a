//! A leader's followers: what each holds, and which of them acknowledgements wait for.
//!
//! A follower counts from before the catalog is asked to add it to the in-sync set, and until
//! the catalog has confirmed a set without it. The changes of the set are numbered, and the catalog
//! makes none after a later one: a change that was given up cannot undo what was confirmed since. So
//! whatever the catalog's set is, every member of it holds all that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::time::Duration;

use domain::LedgerEnd;
use domain::time::BootTime;
use domain::{ChainHash, ReplicaId, RowNumber};

use super::ablation::{Rule, Rules};
use super::catch_up::backoff;
use super::message::{CallId, Calls, Command, Report};
use domain::ChangeNumber;

/// Rows that one call to a follower carries.
pub const APPEND_ROWS_MAX: usize = 1024;

/// How often a follower in sync is asked for a sign of life when there is nothing to send.
pub const IDLE_PROBE: Duration = Duration::from_millis(250);

/// Wait before a failed follower is tried again, after the first failure and at most.
const PROBE_MIN: Duration = Duration::from_millis(100);
const PROBE_MAX: Duration = Duration::from_millis(500);

/// Wait before the catalog is asked again to change the in-sync set.
const CHANGE_RETRY_MIN: Duration = Duration::from_millis(50);
const CHANGE_RETRY_MAX: Duration = Duration::from_millis(500);

/// How long a follower that has fallen out of the in-sync set stays out at least, from its second fall on; it doubles with each
/// further one. Each fall holds trades up until it is noticed.
const STANDING_MIN: Duration = Duration::from_secs(1);

/// And at most.
pub const STANDING_MAX: Duration = Duration::from_secs(30);

/// A follower that did not fall for so long has its standing as if it never had.
const STANDING_REGAINED: Duration = Duration::from_secs(60);

/// How long followers that hold a row as a proposed one wait to be told that it is committed, where
/// no other rows are to be sent to them.
pub const TELL_DELAY: Duration = Duration::from_millis(10);

/// The followers of one leadership.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Followers {
    leader: ReplicaId,
    followers: BTreeMap<ReplicaId, Follower>,
    /// How many rows are committed.
    committed: RowNumber,
    /// When those who do not know that are to be told.
    tell_at: BootTime,
    /// The catalog's in-sync set; `None` where it is not known, as after a call that failed.
    confirmed: Option<BTreeSet<ReplicaId>>,
    /// The call under way to change it.
    change: Option<(CallId, BTreeSet<ReplicaId>)>,
    /// The number of the last change asked for.
    last_change: ChangeNumber,
    change_at: BootTime,
    change_failures: u32,
    rules: Rules,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Follower {
    /// What it held durably when it answered last, in its ledger or as proposed rows.
    held: Option<LedgerEnd>,
    /// How many rows it knows to be committed.
    commit_sent: RowNumber,
    call: Option<Call>,
    /// When it is to be called next if there is nothing to send, or if it failed.
    try_at: BootTime,
    failures: u32,
    standing: Standing,
    /// Should be in the in-sync set.
    in_sync_target: bool,
    /// Acknowledgements wait for it.
    ack_required: bool,
}

impl Hash for Follower {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            held,
            commit_sent,
            call,
            try_at,
            failures,
            standing,
            in_sync_target,
            ack_required,
        } = self;
        let held = held.map(|held| (held.rows, held.chain));
        (
            held,
            commit_sent,
            call,
            try_at,
            failures,
            standing,
            in_sync_target,
            ack_required,
        )
            .hash(state);
    }
}

/// How often a follower has fallen out of the in-sync set lately, and until when it stays out for that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
struct Standing {
    falls: u32,
    fell: BootTime,
}

impl Standing {
    fn fall(&mut self, now: BootTime) {
        let is_regained = now.since(self.fell) >= STANDING_REGAINED;
        let falls = if is_regained { 0 } else { self.falls };
        *self = Self {
            falls: falls.saturating_add(1),
            fell: now,
        };
    }

    /// When it may be put in again: after a first fall at once.
    fn is_good_at(&self) -> BootTime {
        match self.falls.checked_sub(1) {
            None | Some(0) => self.fell,
            Some(falls) => self.fell + backoff(falls, STANDING_MIN, STANDING_MAX),
        }
    }
}

/// A call to a follower that is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Call {
    id: CallId,
    /// The first row sent, if any.
    from: Option<RowNumber>,
    /// How many rows it was told are committed.
    commit_sent: RowNumber,
}

impl Followers {
    /// Of a leader whose in-sync set is itself alone, which it asked for by `last_change`.
    pub(super) fn new(
        leader: ReplicaId,
        peers: &[ReplicaId],
        last_change: ChangeNumber,
        now: BootTime,
        rules: Rules,
    ) -> Self {
        let follower = |&peer| {
            let new = Follower {
                held: None,
                commit_sent: RowNumber(0),
                call: None,
                try_at: now,
                failures: 0,
                standing: Standing::default(),
                in_sync_target: false,
                ack_required: false,
            };
            (peer, new)
        };
        Self {
            leader,
            followers: peers.iter().map(follower).collect(),
            committed: RowNumber(0),
            tell_at: now,
            confirmed: Some(BTreeSet::from([leader])),
            change: None,
            last_change,
            change_at: now,
            change_failures: 0,
            rules,
        }
    }

    /// How many orders every follower that counts holds; `own` where none counts.
    pub(super) fn acknowledged(&self, own: RowNumber) -> RowNumber {
        let at_once = !self.rules.keep(Rule::ConfirmedRemoval);
        let counting = self
            .followers
            .values()
            .filter(|follower| follower.ack_required && (follower.in_sync_target || !at_once));
        counting
            .map(|follower| follower.held.unwrap_or_default().rows)
            .fold(own, RowNumber::min)
    }

    /// So many rows are committed, which followers are told with what they are sent next.
    pub(super) fn committed(&mut self, now: BootTime, committed: RowNumber) {
        if self.committed == committed {
            return;
        }
        if self.all_are_told() {
            self.tell_at = now + TELL_DELAY;
        }
        self.committed = committed;
    }

    /// Whether every follower knows, or is about to, how many rows are committed.
    fn all_are_told(&self) -> bool {
        let mut followers = self.followers.values();
        followers.all(|follower| {
            let commit_sent = follower
                .call
                .map_or(follower.commit_sent, |call| call.commit_sent);
            follower.failures > 0 || commit_sent >= self.committed
        })
    }

    /// The next follower to call, and from which row on it is to be sent rows: `None` to ask
    /// what it holds. `tail` is how many rows there are to send.
    pub(super) fn next_call(
        &mut self,
        now: BootTime,
        tail: RowNumber,
        calls: &mut Calls,
    ) -> Option<(CallId, ReplicaId, Option<RowNumber>)> {
        let committed = self.committed;
        let tell = (self.tell_at <= now).then_some(committed);
        let (peer, follower) = self
            .followers
            .iter_mut()
            .find(|(_, follower)| follower.is_due(now, tail, tell))?;
        let id = calls.next();
        let from = follower
            .held
            .map(|held| held.rows)
            .filter(|&rows| rows < tail);
        follower.call = Some(Call {
            id,
            from,
            commit_sent: committed,
        });
        Some((id, *peer, from))
    }

    /// A follower answered what it holds. `durable` is how many rows the leader holds, and
    /// `chain_at` gives its chain hash after so many rows, where it knows it offhand.
    pub(super) fn answered(
        &mut self,
        now: BootTime,
        (call, peer): (CallId, ReplicaId),
        held: LedgerEnd,
        durable: RowNumber,
        chain_at: impl Fn(RowNumber) -> Option<ChainHash>,
        commands: &mut Vec<Command>,
    ) {
        let Some((follower, call)) = self.returned(call, peer) else {
            return;
        };
        let before = follower.held.replace(held);
        let chain = chain_at(held.rows);
        if let Some(before) = before.filter(|before| held.rows < before.rows) {
            let (acknowledged, holds) = (before.rows, held.rows);
            commands.push(Command::Report(Report::FollowerLostRows {
                peer,
                acknowledged,
                holds,
            }));
            follower.fail(now);
        } else if chain.is_some_and(|chain| chain != held.chain) {
            commands.push(Command::Report(Report::FollowerDiverged {
                peer,
                orders: held.rows,
            }));
            follower.held = before;
            follower.fail(now);
        } else if call.from.is_some_and(|from| held.rows <= from) {
            // It was sent what it lacked and took none of it.
            follower.lag(now, peer, commands);
        } else {
            follower.failures = 0;
            follower.commit_sent = call.commit_sent;
            follower.try_at = now + IDLE_PROBE;
            let is_good = follower.standing.is_good_at() <= now;
            let holds_all = held.rows >= durable && chain.is_some();
            if !follower.in_sync_target && is_good && holds_all {
                follower.in_sync_target = true;
                follower.ack_required = true;
                commands.push(Command::Report(Report::FollowerInSync { peer }));
            }
        }
    }

    /// A follower did not answer, or refused.
    pub(super) fn failed(
        &mut self,
        now: BootTime,
        call: CallId,
        peer: ReplicaId,
        commands: &mut Vec<Command>,
    ) {
        if let Some((follower, _)) = self.returned(call, peer) {
            follower.lag(now, peer, commands);
        }
    }

    /// The in-sync set that the catalog is to be given now, if any, and the change's number.
    pub(super) fn next_change(
        &mut self,
        now: BootTime,
        calls: &mut Calls,
    ) -> Option<(CallId, ChangeNumber, BTreeSet<ReplicaId>)> {
        if self.change.is_some() || now < self.change_at {
            return None;
        }
        let target = self.target();
        if self.confirmed.as_ref() == Some(&target) {
            return None;
        }
        let call = calls.next();
        self.change = Some((call, target.clone()));
        self.last_change = self.last_change.next();
        Some((call, self.last_change, target))
    }

    /// The catalog confirmed a change.
    pub(super) fn changed(&mut self, call: CallId) {
        let Some((_, set)) = self.change.take_if(|(under_way, _)| *under_way == call) else {
            return;
        };
        for (peer, follower) in &mut self.followers {
            if !set.contains(peer) && !follower.in_sync_target {
                follower.ack_required = false;
            }
        }
        self.confirmed = Some(set);
        self.change_failures = 0;
    }

    /// Whether the catalog made a change is not known.
    pub(super) fn change_failed(&mut self, now: BootTime, call: CallId) {
        if self
            .change
            .take_if(|(under_way, _)| *under_way == call)
            .is_none()
        {
            return;
        }
        self.confirmed = None;
        self.change_failures = self.change_failures.saturating_add(1);
        self.change_at = now + backoff(self.change_failures, CHANGE_RETRY_MIN, CHANGE_RETRY_MAX);
    }

    /// When something falls due that no event will bring.
    pub(super) fn wake(&self) -> Option<BootTime> {
        let calls = self
            .followers
            .values()
            .filter(|follower| follower.call.is_none())
            .map(|follower| follower.try_at);
        let change = (self.change.is_none() && self.confirmed.as_ref() != Some(&self.target()))
            .then_some(self.change_at);
        let untold = self.followers.values().any(|follower| {
            follower.call.is_none()
                && follower.failures == 0
                && follower.commit_sent < self.committed
        });
        let tell = untold.then_some(self.tell_at);
        calls.chain(change).chain(tell).min()
    }

    /// The calls under way: the change, then the followers' in the order of their ids.
    pub(super) fn awaited(&self) -> impl Iterator<Item = CallId> {
        let change = self.change.as_ref().map(|(id, _)| *id);
        let appends = self
            .followers
            .values()
            .filter_map(|follower| follower.call.map(|call| call.id));
        change.into_iter().chain(appends)
    }

    /// Whether the call is one of this leadership's.
    pub(super) fn awaits(&self, call: CallId) -> bool {
        self.awaited().any(|id| id == call)
    }

    /// The follower and its call, which is over; `None` where the call is not the one under way.
    fn returned(&mut self, id: CallId, peer: ReplicaId) -> Option<(&mut Follower, Call)> {
        let follower = self.followers.get_mut(&peer)?;
        let call = follower.call.take_if(|call| call.id == id)?;
        Some((follower, call))
    }

    fn target(&self) -> BTreeSet<ReplicaId> {
        let wanted = self
            .followers
            .iter()
            .filter(|(_, follower)| follower.in_sync_target);
        wanted.map(|(peer, _)| *peer).chain([self.leader]).collect()
    }
}

impl Follower {
    /// Whether it is to be called: to be sent rows up to `tail`, to be told how many are committed,
    /// or to be asked for a sign of life.
    fn is_due(&self, now: BootTime, tail: RowNumber, tell: Option<RowNumber>) -> bool {
        let lacks = self.held.is_some_and(|held| held.rows < tail);
        let unaware = tell.is_some_and(|committed| self.commit_sent < committed);
        let wanting = self.failures == 0 && (lacks || unaware);
        self.call.is_none() && (wanting || self.try_at <= now)
    }

    /// It failed or refused, which the operator should know if it was in sync.
    fn lag(&mut self, now: BootTime, peer: ReplicaId, commands: &mut Vec<Command>) {
        if self.in_sync_target {
            commands.push(Command::Report(Report::FollowerLagging { peer }));
        }
        self.fail(now);
    }

    fn fail(&mut self, now: BootTime) {
        if self.in_sync_target {
            self.standing.fall(now);
        }
        self.failures = self.failures.saturating_add(1);
        self.try_at = now + backoff(self.failures, PROBE_MIN, PROBE_MAX);
        self.in_sync_target = false;
    }
}
