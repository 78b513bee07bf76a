//! An order that is looked for: in the own ledger, and where it is not there, in the journal.

use domain::{LedgerEnd, OrderNumber, Row, RowNumber};

use super::ablation::{Rule, Rules};
use crate::message::{CallFailure, Heard};

/// Where the catalog says that its journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalEnd {
    pub end: LedgerEnd,
    /// Since its start the catalog has checked the ledgers of the replicas that were in sync.
    pub healed: bool,
}

impl From<Heard> for JournalEnd {
    fn from(heard: Heard) -> Self {
        Self {
            end: heard.head.end,
            healed: heard.healed,
        }
    }
}

/// What a lookup is told: what came of the action before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// It starts.
    Begin,
    /// Of [`Action::ReadLedger`] and [`Action::FindRecent`].
    Found(Option<Row>),
    /// Of [`Action::AwaitCatalog`]: whether it answers.
    Reached(bool),
    /// Of [`Action::AskCatalog`].
    CatalogSaid {
        answer: Result<Heard, CallFailure>,
        /// How many rows the ledger has by now.
        held: RowNumber,
    },
    /// Of [`Action::Fetch`].
    Fetched(Result<Vec<Row>, CallFailure>),
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read the row from the ledger's file.
    ReadLedger,
    /// Ask the core for it: [`Replica::find`](crate::Replica::find).
    FindRecent,
    /// Wait until the catalog answers the replica's own question, for
    /// [`CONFIRM_TIMEOUT`](crate::timing::CONFIRM_TIMEOUT) at most: however many look for orders, a
    /// catalog that is away is asked by the replica alone.
    AwaitCatalog,
    /// Ask the catalog how long its journal is, for as long at most.
    AskCatalog,
    /// Tell the core that the journal has so many rows, and read the order's from there.
    Fetch {
        /// How many rows the journal has.
        rows: RowNumber,
    },
    /// Answer whoever looks for it.
    Answer(Result<Row, Absent>),
}

/// Why an order is not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// There is none of that number.
    DoesNotExist,
    /// It is not here, and may be in the journal.
    Unconfirmed,
    /// It is in the journal, and did not come from there.
    NotGiven,
}

/// Looks for one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    number: OrderNumber,
    /// Where it was last looked for in the ledger.
    place: Place,
    rules: Rules,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    File,
    Recent,
    /// It may get into the file between two looks.
    FileAgain,
}

impl Lookup {
    pub fn new(number: OrderNumber, rules: Rules) -> Self {
        let place = Place::File;
        Self {
            number,
            place,
            rules,
        }
    }

    /// Which order is looked for.
    pub fn number(&self) -> OrderNumber {
        self.number
    }

    /// Takes in what came of the action before, and returns the next.
    pub fn step(&mut self, input: Input) -> Action {
        match input {
            Input::Begin => Action::ReadLedger,
            Input::Found(Some(row)) => Action::Answer(Ok(row)),
            Input::Found(None) => match self.place {
                Place::File => {
                    self.place = Place::Recent;
                    Action::FindRecent
                }
                Place::Recent => {
                    self.place = Place::FileAgain;
                    Action::ReadLedger
                }
                Place::FileAgain => Action::AwaitCatalog,
            },
            Input::Reached(true) => Action::AskCatalog,
            Input::Reached(false) => self.missing(RowNumber(0), None),
            Input::CatalogSaid { answer, held } => {
                self.missing(held, answer.ok().map(JournalEnd::from))
            }
            Input::Fetched(Err(_)) => Action::Answer(Err(Absent::Unconfirmed)),
            Input::Fetched(Ok(rows)) => {
                let row = rows.into_iter().next();
                let row = row.filter(|row| row.order_number() == Some(self.number));
                Action::Answer(row.ok_or(Absent::NotGiven))
            }
        }
    }

    /// It is not in a ledger of `held` rows, and the catalog then said that, or nothing.
    fn missing(&self, held: RowNumber, journal: Option<JournalEnd>) -> Action {
        match Missing::of(self.number, held, journal, self.rules) {
            Missing::DoesNotExist => Action::Answer(Err(Absent::DoesNotExist)),
            Missing::Unknown => Action::Answer(Err(Absent::Unconfirmed)),
            Missing::InJournal { rows } => Action::Fetch { rows },
        }
    }
}

/// An order that is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// There is none of that number.
    DoesNotExist,
    /// The journal has it.
    InJournal {
        /// How many rows the journal has.
        rows: RowNumber,
    },
    /// Nobody knows: the catalog did not say how long its journal is, or may have lost rows.
    Unknown,
}

impl Missing {
    /// An order that was looked up and is not here, in a ledger of `held` rows. `journal` is what
    /// the catalog said *after* that; `None` where it did not answer.
    pub fn of(
        number: OrderNumber,
        held: RowNumber,
        journal: Option<JournalEnd>,
        rules: Rules,
    ) -> Self {
        let Some(JournalEnd { end, healed }) = journal else {
            return match rules.keep(Rule::ConfirmedAbsence) {
                true => Self::Unknown,
                false => Self::DoesNotExist,
            };
        };
        let rows = end.rows;
        let may_have_lost_rows = !healed || rows < held;
        match rules.keep(Rule::ConfirmedAbsence) {
            true if number < end.orders() => Self::InJournal { rows },
            true if may_have_lost_rows => Self::Unknown,
            _ => Self::DoesNotExist,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::{Identity, JournalId, ListingDigest};

    use super::*;
    use crate::tests::bench::{head, journal};

    fn heard(rows: usize, healed: bool) -> Result<Heard, CallFailure> {
        Ok(Heard {
            identity: Identity {
                journal: JournalId::new([1; JournalId::BYTES]),
                listing: ListingDigest::new([0; ListingDigest::BYTES]),
                lease_horizon: Duration::from_secs(1),
            },
            head: head(4, 2, &journal(rows)),
            healed,
            run: None,
        })
    }

    /// A lookup of order 2, which was not found in the ledger.
    fn not_here() -> Lookup {
        let mut lookup = Lookup::new(OrderNumber(2), Rules::default());
        assert_eq!(lookup.step(Input::Begin), Action::ReadLedger);
        assert_eq!(lookup.step(Input::Found(None)), Action::FindRecent);
        assert_eq!(lookup.step(Input::Found(None)), Action::ReadLedger);
        assert_eq!(lookup.step(Input::Found(None)), Action::AwaitCatalog);
        lookup
    }

    fn answer(absent: Absent) -> Action {
        Action::Answer(Err(absent))
    }

    #[test]
    fn a_row_is_given_wherever_in_the_ledger_it_is() {
        let row = journal(3)[2].clone();
        for misses in 0..3 {
            let mut lookup = Lookup::new(OrderNumber(2), Rules::default());
            lookup.step(Input::Begin);
            for _ in 0..misses {
                lookup.step(Input::Found(None));
            }
            let given = lookup.step(Input::Found(Some(row.clone())));
            assert_eq!(given, Action::Answer(Ok(row.clone())), "after {misses}");
        }
    }

    #[test]
    fn nobody_says_that_an_order_does_not_exist_but_the_catalog() {
        let away = not_here().step(Input::Reached(false));
        assert_eq!(away, answer(Absent::Unconfirmed));
        let fetch = Action::Fetch { rows: RowNumber(3) };
        for (says, expected) in [
            (Err(CallFailure::Failed), answer(Absent::Unconfirmed)),
            (Err(CallFailure::Refused), answer(Absent::Unconfirmed)),
            (heard(2, false), answer(Absent::Unconfirmed)),
            (heard(1, true), answer(Absent::Unconfirmed)),
            (heard(2, true), answer(Absent::DoesNotExist)),
            (heard(3, false), fetch),
        ] {
            let mut lookup = not_here();
            assert_eq!(lookup.step(Input::Reached(true)), Action::AskCatalog);
            let looked = Input::CatalogSaid {
                answer: says,
                held: RowNumber(2),
            };
            assert_eq!(lookup.step(looked), expected, "{says:?}");
        }
    }

    #[test]
    fn a_row_of_the_journal_is_given_where_it_is_the_one_that_was_asked_for() {
        let rows = journal(4);
        for (fetched, expected) in [
            (Ok(rows[2..3].to_vec()), Action::Answer(Ok(rows[2].clone()))),
            (Ok(rows[3..].to_vec()), answer(Absent::NotGiven)),
            (Ok(Vec::new()), answer(Absent::NotGiven)),
            (Err(CallFailure::Failed), answer(Absent::Unconfirmed)),
        ] {
            assert_eq!(not_here().step(Input::Fetched(fetched)), expected);
        }
    }

    #[test]
    fn an_order_is_none_of_the_rows_that_change_stocks() {
        let end = LedgerEnd {
            rows: RowNumber(9),
            stock_changes: 4,
            ..LedgerEnd::default()
        };
        let journal = Some(JournalEnd { end, healed: true });
        let missing =
            |order| Missing::of(OrderNumber(order), RowNumber(2), journal, Rules::default());
        let rows = RowNumber(9);
        assert_eq!(missing(4), Missing::InJournal { rows });
        assert_eq!(missing(5), Missing::DoesNotExist);
    }

    #[test]
    fn only_a_catalog_that_lost_no_rows_can_say_that_an_order_does_not_exist() {
        let said = |rows, healed| {
            let rows = RowNumber(rows);
            let end = LedgerEnd {
                rows,
                ..LedgerEnd::default()
            };
            Some(JournalEnd { end, healed })
        };
        let in_journal = |rows| Missing::InJournal {
            rows: RowNumber(rows),
        };
        for (number, held, journal, missing) in [
            (0, 0, None, Missing::Unknown),
            (0, 0, said(0, true), Missing::DoesNotExist),
            (6, 2, said(7, true), in_journal(7)),
            (6, 2, said(7, false), in_journal(7)),
            (7, 2, said(7, true), Missing::DoesNotExist),
            (7, 7, said(7, true), Missing::DoesNotExist),
            (7, 2, said(7, false), Missing::Unknown),
            (9, 8, said(7, true), Missing::Unknown),
        ] {
            let (number, held) = (OrderNumber(number), RowNumber(held));
            let found = Missing::of(number, held, journal, Rules::default());
            assert_eq!(found, missing, "{number} beyond {held}, of {journal:?}");
        }
    }
}
