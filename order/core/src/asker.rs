//! The question to the catalog: who leads, and how long is the journal?
//!
//! One is under way at a time, so that the core is told in the order in which was asked: an epoch or
//! a journal's end below the last one heard is then evidence of what was lost, not of a delay.

use std::time::Duration;

use domain::time::BootTime;
use domain::{CatalogRun, Epoch, Identity, LedgerEnd};

use crate::message::{CallFailure, Event, Heard, Status, Ticket};
use crate::timing::{
    HEAD_FAILURES_MAX, HEAD_INTERVAL, HEAD_RETRY, HEALING_RETRY, HEALING_SOON, REFUSED_RETRY,
};

/// What the asker is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Somebody says that an epoch has begun, and waits until the core may be told so.
    Claim { ticket: Ticket, epoch: Epoch },
    /// The question is wanted without waiting until it is time to.
    Hurry,
    /// What came of [`Action::Ask`].
    Answered(Result<Heard, CallFailure>),
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask the catalog, for [`HEAD_TIMEOUT`](crate::timing::HEAD_TIMEOUT) at most.
    Ask,
    /// Make durable that the catalog counts leases for so long.
    Keep(Identity),
    /// Tell the core.
    Tell(Event),
    /// The core has been told what the catalog says: it may be told what the claimant says.
    LetThrough(Ticket),
    /// The catalog cannot be asked: the claimant is to be told so.
    Refuse(Ticket),
}

/// Asks again and again, and whenever somebody speaks of an epoch that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// With the longest lease that was heard of.
    identity: Identity,
    question: Option<Question>,
    /// How many questions in a row had no answer.
    failures: u32,
    is_hurried: bool,
    ask_at: BootTime,
    /// Which run of the catalog heals, and since when.
    heals: Option<(CatalogRun, BootTime)>,
    claims: Vec<Claim>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Question {
    /// Where the ledger ended when it began.
    held: LedgerEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    ticket: Ticket,
    epoch: Epoch,
    /// The question under way began after it came.
    is_asked: bool,
}

impl Asker {
    /// For a replica whose disk knows this. It asks at once.
    pub fn new(identity: Identity, now: BootTime) -> Self {
        Self {
            identity,
            question: None,
            failures: 0,
            is_hurried: false,
            ask_at: now,
            heals: None,
            claims: Vec::new(),
        }
    }

    /// Takes in what happened, where something did, and returns what is to be done. `status` is the
    /// core's, from before that.
    ///
    /// # Panics
    /// At an answer without a question.
    pub fn step(&mut self, now: BootTime, status: &Status, input: Option<Input>) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            None => {}
            Some(Input::Claim { ticket, epoch }) => self.claims.push(Claim {
                ticket,
                epoch,
                is_asked: false,
            }),
            Some(Input::Hurry) => self.is_hurried = true,
            Some(Input::Answered(answer)) => self.answered(now, answer, &mut actions),
        }
        let known = |claim: &mut Claim| is_known(claim.epoch, status);
        for claim in self.claims.extract_if(.., known) {
            actions.push(Action::LetThrough(claim.ticket));
        }
        let is_time = self.is_hurried || !self.claims.is_empty() || self.ask_at <= now;
        if self.question.is_none() && is_time {
            self.ask(status, &mut actions);
        }
        actions
    }

    /// When to call [`step`](Self::step) even if nothing happens.
    pub fn wake(&self) -> Option<BootTime> {
        self.question.is_none().then_some(self.ask_at)
    }

    fn ask(&mut self, status: &Status, actions: &mut Vec<Action>) {
        self.is_hurried = false;
        for claim in &mut self.claims {
            claim.is_asked = true;
        }
        // What the ledger gets while the catalog answers it need not have had by then.
        self.question = Some(Question { held: status.end });
        actions.push(Action::Ask);
    }

    fn answered(
        &mut self,
        now: BootTime,
        answer: Result<Heard, CallFailure>,
        actions: &mut Vec<Action>,
    ) {
        let question = self.question.take();
        let Question { held } = question.expect("an answer is to a question");
        // An answer about another journal is none.
        let heard = answer.and_then(|heard| match heard.identity.journal {
            journal if journal == self.identity.journal => Ok(heard),
            _ => Err(CallFailure::Refused),
        });
        let heals = heard.ok().and_then(|heard| heard.heals());
        self.ask_at = now
            + match heard {
                Ok(_) if heals.is_some() => self.healing_retry(now, heals),
                Ok(_) => HEAD_INTERVAL,
                Err(CallFailure::Refused) => REFUSED_RETRY,
                Err(_) => HEAD_RETRY,
            };
        self.failures = match &heard {
            Ok(_) => 0,
            Err(CallFailure::Refused) => HEAD_FAILURES_MAX,
            Err(_) => self.failures.saturating_add(1),
        };
        if let Ok(heard) = &heard {
            self.keep(heard.identity, actions);
        }
        let head = heard.ok().filter(|_| heals.is_none());
        let head = head.map(|heard| heard.head);
        // One that was not answered may have been lost on its way.
        if let Some(run) = heals {
            actions.push(Action::Tell(Event::CatalogHeals(run)));
        } else if head.is_some() || self.failures >= HEAD_FAILURES_MAX {
            actions.push(Action::Tell(Event::JournalHead { head, held }));
        }
        // One answer does for all who came before its question. What the catalog said may be from
        // before the others were told.
        for claim in self.claims.extract_if(.., |claim| claim.is_asked) {
            actions.push(match head {
                Some(_) => Action::LetThrough(claim.ticket),
                None => Action::Refuse(claim.ticket),
            });
        }
    }

    /// Before a catalog that heals is asked again.
    fn healing_retry(&mut self, now: BootTime, heals: Option<CatalogRun>) -> Duration {
        let since = match self.heals {
            Some((run, since)) if Some(run) == heals => since,
            _ => now,
        };
        self.heals = heals.map(|run| (run, since));
        match now < since + HEALING_SOON {
            true => HEALING_RETRY,
            false => HEAD_RETRY,
        }
    }

    /// Has the longest lease that was heard of made durable: whoever takes the catalog's place
    /// after its loss is to wait for so long.
    fn keep(&mut self, heard: Identity, actions: &mut Vec<Action>) {
        if is_longer(heard, self.identity) {
            self.identity.lease_horizon = heard.lease_horizon;
            actions.push(Action::Keep(self.identity));
        }
    }
}

/// Whether the core may be told of an epoch without asking the catalog: it knows of it, or of a later
/// one, and that it may take rows of it. Whoever can reach a replica's port could claim any other.
pub fn is_known(epoch: Epoch, status: &Status) -> bool {
    status.term.epoch >= epoch && status.takes_rows
}

/// Whether a catalog counts leases for longer than is known.
pub(crate) fn is_longer(heard: Identity, known: Identity) -> bool {
    heard.lease_horizon > known.lease_horizon
}

#[cfg(test)]
mod tests {
    use domain::{CatalogRun, JournalId, ListingDigest};

    use super::*;
    use crate::tests::bench::{end, head, id, journal, term};
    use domain::Role;

    const START: BootTime = BootTime::from_millis(1_000);

    fn identity(journal: u8, lease_ms: u64) -> Identity {
        Identity {
            journal: JournalId::new([journal; JournalId::BYTES]),
            listing: ListingDigest::new([0; ListingDigest::BYTES]),
            lease_horizon: Duration::from_millis(lease_ms),
        }
    }

    /// Of a replica that knows of an epoch, and has so many rows.
    fn status(epoch: u64, rows: usize) -> Status {
        Status {
            id: id(1),
            role: Role::Follower,
            term: term(epoch, 2),
            end: end(&journal(rows)),
            reaches_catalog: true,
            takes_rows: true,
        }
    }

    fn heard(lease_ms: u64) -> Heard {
        Heard {
            identity: identity(1, lease_ms),
            head: head(5, 3, &journal(4)),
            healed: true,
            run: CatalogRun::new(7),
        }
    }

    fn answered(answer: Result<Heard, CallFailure>) -> Option<Input> {
        Some(Input::Answered(answer))
    }

    fn claim(ticket: u64, epoch: u64) -> Option<Input> {
        Some(Input::Claim {
            ticket: Ticket(ticket),
            epoch: Epoch(epoch),
        })
    }

    fn tell(answer: Option<Heard>, held: usize) -> Action {
        let head = answer.map(|heard| heard.head);
        let held = end(&journal(held));
        Action::Tell(Event::JournalHead { head, held })
    }

    fn let_through(ticket: u64) -> Action {
        Action::LetThrough(Ticket(ticket))
    }

    fn refuse(ticket: u64) -> Action {
        Action::Refuse(Ticket(ticket))
    }

    /// One that was just answered.
    fn asker() -> Asker {
        let mut asker = Asker::new(identity(1, 100), START);
        assert_eq!(asker.step(START, &status(3, 2), None), [Action::Ask]);
        let told = asker.step(START, &status(3, 2), answered(Ok(heard(100))));
        assert_eq!(told, [tell(Some(heard(100)), 2)]);
        asker
    }

    #[test]
    fn the_next_question_comes_after_a_pause_that_goes_by_the_answer() {
        let foreign = Heard {
            identity: identity(2, 100),
            ..heard(100)
        };
        for (answer, heard, pause) in [
            (Ok(heard(100)), Some(Some(heard(100))), HEAD_INTERVAL),
            (Err(CallFailure::Failed), None, HEAD_RETRY),
            (Err(CallFailure::Refused), Some(None), REFUSED_RETRY),
            (Ok(foreign), Some(None), REFUSED_RETRY),
        ] {
            let mut asker = Asker::new(identity(1, 100), START);
            assert_eq!(asker.wake(), Some(START));
            assert_eq!(asker.step(START, &status(3, 2), None), [Action::Ask]);
            assert_eq!(asker.wake(), None, "one question at a time");
            let late = START + HEAD_INTERVAL * 10;
            assert_eq!(asker.step(late, &status(3, 2), None), []);
            let told = asker.step(late, &status(3, 2), answered(answer));
            let expected: Vec<_> = heard.map(|heard| tell(heard, 2)).into_iter().collect();
            assert_eq!(told, expected, "{answer:?}");
            let next = late + pause;
            assert_eq!(asker.wake(), Some(next), "{answer:?}");
            let early = next - Duration::from_nanos(1);
            assert_eq!(asker.step(early, &status(3, 2), None), []);
            assert_eq!(asker.step(next, &status(3, 2), None), [Action::Ask]);
        }
    }

    #[test]
    fn a_catalog_is_reached_no_more_when_several_questions_in_a_row_had_no_answer() {
        let mut asker = asker();
        let known = status(3, 2);
        let mut now = START;
        let mut step = |answer: Result<Heard, CallFailure>| {
            now = now + HEAD_INTERVAL;
            assert_eq!(asker.step(now, &known, None), [Action::Ask]);
            asker.step(now, &known, answered(answer))
        };
        for _ in 0..2 {
            for _ in 1..HEAD_FAILURES_MAX {
                assert_eq!(step(Err(CallFailure::Failed)), []);
            }
            assert_eq!(step(Ok(heard(100))), [tell(Some(heard(100)), 2)]);
        }
        for _ in 1..HEAD_FAILURES_MAX {
            assert_eq!(step(Err(CallFailure::Failed)), []);
        }
        for _ in 0..2 {
            assert_eq!(step(Err(CallFailure::Failed)), [tell(None, 2)]);
        }
    }

    #[test]
    fn what_is_hurried_is_asked_at_once_or_again_after_the_question_under_way() {
        let mut asker = asker();
        let known = status(3, 2);
        assert_eq!(asker.step(START, &known, Some(Input::Hurry)), [Action::Ask]);
        for _ in 0..2 {
            assert_eq!(asker.step(START, &known, Some(Input::Hurry)), []);
        }
        let told = asker.step(START, &known, answered(Err(CallFailure::Failed)));
        assert_eq!(told, [Action::Ask]);
        let told = asker.step(START, &known, answered(Ok(heard(100))));
        assert_eq!(told, [tell(Some(heard(100)), 2)]);
        assert_eq!(asker.wake(), Some(START + HEAD_INTERVAL));
    }

    #[test]
    fn the_ledgers_end_is_from_when_the_question_began() {
        let mut asker = asker();
        assert_eq!(
            asker.step(START, &status(3, 4), Some(Input::Hurry)),
            [Action::Ask]
        );
        let told = asker.step(START, &status(3, 9), answered(Ok(heard(100))));
        assert_eq!(told, [tell(Some(heard(100)), 4)]);
    }

    #[test]
    fn an_epoch_that_somebody_claims_is_let_through_once_the_core_was_told_the_catalogs_word() {
        let mut asker = asker();
        // Whether the claim is true is for the core to say: it knows by then.
        for claimed in [4, 5, 1 << 40] {
            assert_eq!(
                asker.step(START, &status(3, 2), claim(7, claimed)),
                [Action::Ask]
            );
            let told = asker.step(START, &status(3, 2), answered(Ok(heard(100))));
            assert_eq!(told, [tell(Some(heard(100)), 2), let_through(7)]);
        }
        assert_eq!(asker.step(START, &status(3, 2), claim(7, 4)), [Action::Ask]);
        let failed = answered(Err(CallFailure::Failed));
        assert_eq!(asker.step(START, &status(3, 2), failed), [refuse(7)]);
        assert_eq!(asker.step(START, &status(3, 2), claim(7, 4)), [Action::Ask]);
        let refused = answered(Err(CallFailure::Refused));
        let told = asker.step(START, &status(3, 2), refused);
        assert_eq!(told, [tell(None, 2), refuse(7)]);
    }

    #[test]
    fn the_catalog_is_not_asked_about_an_epoch_that_is_known() {
        let mut asker = asker();
        for known in [0, 2, 3] {
            let told = asker.step(START, &status(3, 2), claim(known, known));
            assert_eq!(told, [let_through(known)]);
        }
        // Nor is anything else that it is asked waited for.
        assert_eq!(
            asker.step(START, &status(3, 2), claim(8, 10)),
            [Action::Ask]
        );
        assert_eq!(
            asker.step(START, &status(9, 2), claim(9, 9)),
            [let_through(9)]
        );
    }

    #[test]
    fn one_answer_does_for_all_who_came_before_it_was_asked_for() {
        for (answer, says) in [
            (Ok(heard(100)), let_through as fn(u64) -> Action),
            (Err(CallFailure::Refused), refuse),
        ] {
            let mut asker = asker();
            assert_eq!(asker.step(START, &status(3, 2), claim(1, 4)), [Action::Ask]);
            // These came after it: what the catalog says to it may be from before they were told.
            for late in [2, 3] {
                assert_eq!(asker.step(START, &status(3, 2), claim(late, 5)), []);
            }
            let told = asker.step(START, &status(3, 3), answered(answer));
            assert_eq!(told, [tell(answer.ok(), 2), says(1), Action::Ask]);
            let told = asker.step(START, &status(3, 3), answered(answer));
            assert_eq!(told, [tell(answer.ok(), 3), says(2), says(3)]);
        }
    }

    #[test]
    fn a_catalog_that_has_started_is_reported_to_again_and_again_and_confirms_nothing() {
        let mut asker = asker();
        let heals = Heard {
            healed: false,
            ..heard(100)
        };
        let run = CatalogRun::new(7).expect("not 0");
        let mut now = START;
        for ticket in 1..12 {
            now = now + HEAD_INTERVAL;
            assert_eq!(
                asker.step(now, &status(3, 2), claim(ticket, 4)),
                [Action::Ask]
            );
            let told = asker.step(now, &status(3, 2), answered(Ok(heals)));
            assert_eq!(
                told,
                [Action::Tell(Event::CatalogHeals(run)), refuse(ticket)]
            );
            let pause = if ticket < 9 {
                HEALING_RETRY
            } else {
                HEAD_RETRY
            };
            assert_eq!(asker.wake(), Some(now + pause));
        }
        let of_before = Heard { run: None, ..heals };
        asker.step(now, &status(3, 2), Some(Input::Hurry));
        let told = asker.step(now, &status(3, 2), answered(Ok(of_before)));
        assert_eq!(told, [tell(Some(of_before), 2)]);
    }

    #[test]
    fn a_replica_that_takes_no_rows_asks_about_every_epoch() {
        let mut asker = asker();
        let fresh = Status {
            takes_rows: false,
            ..status(3, 2)
        };
        for known in [2, 3] {
            assert_eq!(
                asker.step(START, &fresh, claim(known, known)),
                [Action::Ask]
            );
            let told = asker.step(START, &fresh, answered(Ok(heard(100))));
            assert_eq!(told, [tell(Some(heard(100)), 2), let_through(known)]);
        }
    }

    #[test]
    fn a_longer_lease_is_kept_before_the_core_hears_of_the_epoch_and_once() {
        let mut asker = asker();
        for (lease_ms, is_kept) in [(300, true), (300, false), (200, false), (301, true)] {
            asker.step(START, &status(3, 2), Some(Input::Hurry));
            let told = asker.step(START, &status(3, 2), answered(Ok(heard(lease_ms))));
            let tell = tell(Some(heard(lease_ms)), 2);
            match is_kept {
                true => assert_eq!(told, [Action::Keep(identity(1, lease_ms)), tell]),
                false => assert_eq!(told, [tell]),
            }
        }
        // What another journal's catalog says of leases is nothing to it.
        asker.step(START, &status(3, 2), Some(Input::Hurry));
        let foreign = Heard {
            identity: identity(2, 900),
            ..heard(100)
        };
        let told = asker.step(START, &status(3, 2), answered(Ok(foreign)));
        assert_eq!(told, [tell(None, 2)]);
    }
}
