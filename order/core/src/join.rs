//! A replica's start: its ledger is compared with the catalog's journal before anything of it is
//! served, and takes the journal's id where it has none. To a catalog that has started as well it reports
//! what it has: nothing comes to it by then.

use std::time::Duration;

use domain::{CatalogRun, Identity, LedgerEnd, RowNumber};

use crate::asker::is_longer;
use crate::claim::{Claim, claim, refuted, same_journal};
use crate::durable::Durable;
use crate::message::{CallFailure, Failure, Heard};
use crate::timing::{HEAD_RETRY, JOIN_RETRY, REFUSED_RETRY};

/// What is found on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Whose journal's copy it is, where it says.
    pub known: Option<Identity>,
    pub durable: Durable,
}

/// What a join is told: what came of the action before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// It starts, or has waited, or has set the ledger aside.
    Ready,
    /// Of [`Action::AskCatalog`].
    CatalogSaid(Result<Heard, CallFailure>),
    /// Of [`Action::Compare`].
    Compared(Result<(), CallFailure>),
    /// Of [`Action::Report`].
    Reported,
    /// Of [`Action::ShowMissing`].
    Shown(Result<(), CallFailure>),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Ask the catalog what it says of itself, for [`JOIN_TIMEOUT`](crate::timing::JOIN_TIMEOUT) at
    /// most. It is not told which journal is meant.
    AskCatalog,
    /// Ask the catalog for a row after this end of its journal. From here on it is told which
    /// journal is meant.
    Compare {
        catalog: Identity,
        held: LedgerEnd,
    },
    /// Tell a catalog that has started what is here, and show it the rows that it asks for.
    Report {
        catalog: Identity,
        run: CatalogRun,
    },
    /// Show the catalog a row that its journal lacks.
    ShowMissing {
        catalog: Identity,
        number: RowNumber,
        /// The operator is yet to be told.
        is_first: bool,
    },
    Wait(Duration),
    /// Put the ledger elsewhere, and begin an empty one.
    SetAside(Failure),
    /// The ledger is the journal's.
    Adopt(Joined),
    /// End: the ledger is not the journal's, or must not be believed.
    Fail(Failure),
}

/// A ledger that is known to be the journal's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Joined {
    /// Whose copy it is, and the longest lease that is known of.
    pub identity: Identity,
    /// The disk does not say so yet. Otherwise nothing need be written, so that a replica starts on
    /// a full disk as well.
    pub is_news: bool,
    /// How many rows the journal had, where all of them are yet to be copied: nothing is served
    /// before.
    pub copies: Option<RowNumber>,
}

/// Looks at the catalog until the ledger is known to be its journal's, or not to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// A ledger that must not be believed is set aside.
    rebuilds: bool,
    /// The ledger is an empty one in another's place.
    is_copy: bool,
    /// What the ledger is being compared with.
    heard: Option<Heard>,
    /// The row that the catalog is shown.
    shown: Option<RowNumber>,
    /// The operator was told that the catalog lost rows.
    has_reported: bool,
}

impl Join {
    /// With `rebuilds`, a ledger that must not be believed is set aside; `is_copy` where one was
    /// already.
    pub fn new(rebuilds: bool, is_copy: bool) -> Self {
        Self {
            rebuilds,
            is_copy,
            heard: None,
            shown: None,
            has_reported: false,
        }
    }

    /// Takes in what came of the action before, and returns the next.
    pub fn step(&mut self, found: &Found, input: Input) -> Action {
        match input {
            Input::Ready => Action::AskCatalog,
            Input::CatalogSaid(Ok(heard)) => self.compare(found, heard),
            Input::Compared(result) => {
                let heard = self.heard.take().expect("it was compared with that");
                match result {
                    Ok(()) => self.adopt(found, &heard),
                    Err(CallFailure::Differs) => {
                        let Heard { identity, head, .. } = heard;
                        let failure = refuted(found.known, &identity, found.durable.end, &head);
                        self.disbelieve(failure)
                    }
                    Err(failure) => wait(failure),
                }
            }
            // The row does not follow the journal's last: it went on without those that it lost.
            Input::Shown(Err(CallFailure::NotMissing)) => {
                let rows = self.shown.take().expect("it was shown one");
                self.disbelieve(Failure::Differs { rows })
            }
            Input::Shown(Ok(())) => Action::Wait(JOIN_RETRY),
            Input::Reported => Action::Wait(HEAD_RETRY),
            Input::CatalogSaid(Err(failure)) | Input::Shown(Err(failure)) => wait(failure),
        }
    }

    fn compare(&mut self, found: &Found, heard: Heard) -> Action {
        let Heard { identity, head, .. } = heard;
        if let Some(run) = heard.heals() {
            return match same_journal(found.known, &identity) {
                Err(failure) => self.disbelieve(failure),
                // Whoever asks for a copy does not believe the ledger; and one without a name may be another's.
                Ok(()) if self.rebuilds || is_nameless(found) => Action::Wait(HEAD_RETRY),
                Ok(()) => Action::Report {
                    catalog: identity,
                    run,
                },
            };
        }
        match claim(found.known, &found.durable, &identity, &head) {
            Ok(Claim::Holds) => self.adopt(found, &heard),
            Ok(Claim::Compare(held)) => {
                self.heard = Some(heard);
                Action::Compare {
                    catalog: identity,
                    held,
                }
            }
            // Whoever asks for a copy wants the journal as it is.
            Ok(Claim::CatalogLostRows(rows)) if self.rebuilds => {
                self.disbelieve(Failure::Differs { rows })
            }
            Ok(Claim::CatalogLostRows(number)) => {
                self.shown = Some(number);
                Action::ShowMissing {
                    catalog: identity,
                    number,
                    is_first: !std::mem::replace(&mut self.has_reported, true),
                }
            }
            Err(failure) => self.disbelieve(failure),
        }
    }

    fn adopt(&self, found: &Found, heard: &Heard) -> Action {
        let is_news = found
            .known
            .is_none_or(|known| is_longer(heard.identity, known));
        let known = found.known.unwrap_or(heard.identity);
        let lease_horizon = known.lease_horizon.max(heard.identity.lease_horizon);
        Action::Adopt(Joined {
            identity: Identity {
                lease_horizon,
                ..known
            },
            is_news,
            copies: self.is_copy.then_some(heard.head.end.rows),
        })
    }

    /// Makes room for a copy, where that was asked for and the ledger may be given up.
    fn disbelieve(&mut self, failure: Failure) -> Action {
        if !self.rebuilds || failure.is_foreign() {
            return Action::Fail(failure);
        }
        self.is_copy = true;
        Action::SetAside(failure)
    }
}

/// Whether a ledger that has rows does not say whose copy it is.
fn is_nameless(found: &Found) -> bool {
    found.known.is_none() && found.durable.end.rows > RowNumber(0)
}

fn wait(failure: CallFailure) -> Action {
    Action::Wait(match failure {
        CallFailure::Refused => REFUSED_RETRY,
        _ => JOIN_RETRY,
    })
}

#[cfg(test)]
mod tests {
    use domain::{Epoch, JournalId, ListingDigest};

    use super::*;
    use crate::tests::bench::{commit, end, head, journal, order, term};

    fn identity(journal: u8, lease_ms: u64) -> Identity {
        Identity {
            journal: JournalId::new([journal; JournalId::BYTES]),
            listing: ListingDigest::new([0; ListingDigest::BYTES]),
            lease_horizon: Duration::from_millis(lease_ms),
        }
    }

    fn found(known: Option<Identity>, rows: usize) -> Found {
        Found {
            known,
            durable: Durable {
                term: term(1, 1),
                end: end(&journal(rows)),
                ..Durable::default()
            },
        }
    }

    /// What the catalog of journal 1 says, which has so many rows.
    fn heard(rows: usize) -> Heard {
        Heard {
            identity: identity(1, 100),
            head: head(4, 2, &journal(rows)),
            healed: true,
            run: None,
        }
    }

    fn joined(copies: Option<u64>) -> Action {
        Action::Adopt(Joined {
            identity: identity(1, 100),
            is_news: false,
            copies: copies.map(RowNumber),
        })
    }

    fn compare(rows: usize) -> Action {
        Action::Compare {
            catalog: identity(1, 100),
            held: end(&journal(rows)),
        }
    }

    const OURS: Option<u64> = Some(100);

    /// A join that has looked at a catalog of so many rows, with so many on its own disk.
    fn looked(rebuilds: bool, held: usize, rows: usize) -> (Join, Found, Action) {
        let mut join = Join::new(rebuilds, false);
        let found = found(OURS.map(|lease| identity(1, lease)), held);
        assert_eq!(join.step(&found, Input::Ready), Action::AskCatalog);
        let action = join.step(&found, Input::CatalogSaid(Ok(heard(rows))));
        (join, found, action)
    }

    #[test]
    fn a_ledger_is_adopted_where_the_journal_was_seen_to_begin_with_it() {
        let (_, _, action) = looked(false, 3, 3);
        assert_eq!(action, joined(None));
        let (mut join, found, action) = looked(false, 2, 3);
        assert_eq!(action, compare(2));
        assert_eq!(join.step(&found, Input::Compared(Ok(()))), joined(None));
    }

    #[test]
    fn without_an_answer_it_looks_again_later_and_at_a_catalog_that_refuses_later_still() {
        for (failure, pause) in [
            (CallFailure::Failed, JOIN_RETRY),
            (CallFailure::Beyond, JOIN_RETRY),
            (CallFailure::Refused, REFUSED_RETRY),
        ] {
            let wait = Action::Wait(pause);
            let (mut join, found, _) = looked(false, 2, 3);
            assert_eq!(join.step(&found, Input::Compared(Err(failure))), wait);
            assert_eq!(join.step(&found, Input::Ready), Action::AskCatalog);
            assert_eq!(join.step(&found, Input::CatalogSaid(Err(failure))), wait);
            let (mut join, found, _) = looked(false, 3, 2);
            assert_eq!(join.step(&found, Input::Shown(Err(failure))), wait);
        }
    }

    #[test]
    fn a_ledger_that_differs_is_served_by_nobody_and_set_aside_where_a_copy_is_wanted() {
        let failure = Failure::Differs { rows: RowNumber(2) };
        for (rebuilds, given_up) in [
            (false, Action::Fail(failure)),
            (true, Action::SetAside(failure)),
        ] {
            let (mut join, found, action) = looked(rebuilds, 2, 3);
            assert_eq!(action, compare(2));
            let differs = Input::Compared(Err(CallFailure::Differs));
            assert_eq!(join.step(&found, differs), given_up);
        }
    }

    #[test]
    fn a_copy_is_served_once_it_has_what_the_journal_had() {
        let (mut join, found, _) = looked(true, 2, 3);
        join.step(&found, Input::Compared(Err(CallFailure::Differs)));
        let empty = Found {
            known: None,
            durable: Durable::default(),
        };
        assert_eq!(join.step(&empty, Input::Ready), Action::AskCatalog);
        assert_eq!(
            join.step(&empty, Input::CatalogSaid(Ok(heard(5)))),
            Action::Compare {
                catalog: identity(1, 100),
                held: LedgerEnd::default()
            }
        );
        let adopted = Action::Adopt(Joined {
            identity: identity(1, 100),
            is_news: true,
            copies: Some(RowNumber(5)),
        });
        assert_eq!(join.step(&empty, Input::Compared(Ok(()))), adopted);
        // Or where the ledger was set aside before.
        let mut join = Join::new(true, true);
        let whole = self::found(Some(identity(1, 100)), 5);
        assert_eq!(
            join.step(&whole, Input::CatalogSaid(Ok(heard(5)))),
            joined(Some(5))
        );
    }

    #[test]
    fn a_catalog_that_lost_rows_is_shown_the_first_of_them_until_it_has_gone_on_without() {
        let (mut join, found, action) = looked(false, 3, 1);
        let show = |is_first| Action::ShowMissing {
            catalog: identity(1, 100),
            number: RowNumber(1),
            is_first,
        };
        assert_eq!(action, show(true));
        let wait = Action::Wait(JOIN_RETRY);
        assert_eq!(join.step(&found, Input::Shown(Ok(()))), wait);
        assert_eq!(join.step(&found, Input::Ready), Action::AskCatalog);
        assert_eq!(
            join.step(&found, Input::CatalogSaid(Ok(heard(1)))),
            show(false),
            "the operator is told once"
        );
        let failure = Failure::Differs { rows: RowNumber(1) };
        let refused = Input::Shown(Err(CallFailure::NotMissing));
        assert_eq!(join.step(&found, refused), Action::Fail(failure));
        // Whoever asks for a copy wants the journal as it is.
        assert_eq!(looked(true, 3, 1).2, Action::SetAside(failure));
    }

    #[test]
    fn another_journals_ledger_is_not_given_up() {
        for rebuilds in [false, true] {
            let mut join = Join::new(rebuilds, false);
            let foreign = found(Some(identity(2, 100)), 2);
            let failure = Failure::OtherJournal {
                own: identity(2, 100).journal,
                catalog: identity(1, 100).journal,
            };
            let action = join.step(&foreign, Input::CatalogSaid(Ok(heard(3))));
            assert_eq!(action, Action::Fail(failure));
            // Nor is one without an id which the journal does not show to be its own.
            let mut nameless = found(None, 1);
            let mut rows = journal(1);
            commit(&mut rows, Epoch(1), order("other"));
            nameless.durable.end = end(&rows);
            let failure = Failure::Unproven {
                catalog: identity(1, 100).journal,
                held: RowNumber(2),
                rows: RowNumber(3),
            };
            join.step(&nameless, Input::CatalogSaid(Ok(heard(3))));
            let differs = Input::Compared(Err(CallFailure::Differs));
            assert_eq!(join.step(&nameless, differs), Action::Fail(failure));
        }
    }

    #[test]
    fn the_disk_is_written_where_it_lacks_the_journals_id_or_a_longer_lease() {
        for (known, is_news, lease_ms) in [
            (None, true, 100),
            (Some(50), true, 100),
            (Some(100), false, 100),
            (Some(200), false, 200),
        ] {
            let mut join = Join::new(false, false);
            let found = found(known.map(|lease| identity(1, lease)), 3);
            let adopted = Action::Adopt(Joined {
                identity: identity(1, lease_ms),
                is_news,
                copies: None,
            });
            assert_eq!(join.step(&found, Input::CatalogSaid(Ok(heard(3)))), adopted);
        }
    }

    #[test]
    fn a_catalog_that_has_started_is_told_what_the_ledger_has_until_it_serves() {
        let run = CatalogRun::new(7);
        let starts = Heard {
            healed: false,
            run,
            ..heard(1)
        };
        let ours = found(Some(identity(1, 100)), 3);
        let mut join = Join::new(false, false);
        let report = Action::Report {
            catalog: identity(1, 100),
            run: run.expect("not 0"),
        };
        for _ in 0..2 {
            let asked = join.step(&ours, Input::CatalogSaid(Ok(starts)));
            assert_eq!(asked, report);
            assert_eq!(join.step(&ours, Input::Reported), Action::Wait(HEAD_RETRY));
        }
        let asked = join.step(&ours, Input::CatalogSaid(Ok(heard(3))));
        assert_eq!(asked, joined(None));

        // A ledger that may be another's, or is not believed, is not shown; another's is refused.
        let nameless = found(None, 3);
        let asked = join.step(&nameless, Input::CatalogSaid(Ok(starts)));
        assert_eq!(asked, Action::Wait(HEAD_RETRY));
        let empty = found(None, 0);
        let asked = join.step(&empty, Input::CatalogSaid(Ok(starts)));
        assert_eq!(asked, report);
        let mut rebuilding = Join::new(true, false);
        let asked = rebuilding.step(&ours, Input::CatalogSaid(Ok(starts)));
        assert_eq!(asked, Action::Wait(HEAD_RETRY));
        let foreign = found(Some(identity(2, 100)), 3);
        let asked = join.step(&foreign, Input::CatalogSaid(Ok(starts)));
        assert!(matches!(asked, Action::Fail(failure) if failure.is_foreign()));
    }
}
