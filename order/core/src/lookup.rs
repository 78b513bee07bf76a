//! What may be said of an order that is not in the own ledger.

use domain::LedgerEnd;
use domain::OrderNumber;

use super::ablation::{Rule, Rules};

/// Where the catalog says that its journal ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalEnd {
    pub end: LedgerEnd,
    /// Since its start the catalog has checked the ledgers of the replicas that were in sync.
    pub ledgers_checked: bool,
}

/// An order that is not here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// There is none of that number.
    DoesNotExist,
    /// The journal has it.
    InJournal {
        /// How many orders the journal has.
        rows: OrderNumber,
    },
    /// Nobody knows: the catalog did not say how long its journal is, or may have lost rows.
    Unknown,
}

impl Missing {
    /// An order that was looked up and is not here, in a ledger of `held` rows. `journal` is what
    /// the catalog said *after* that; `None` where it did not answer.
    pub fn of(
        number: OrderNumber,
        held: OrderNumber,
        journal: Option<JournalEnd>,
        rules: Rules,
    ) -> Self {
        let Some(JournalEnd {
            end,
            ledgers_checked,
        }) = journal
        else {
            return match rules.keep(Rule::ConfirmedAbsence) {
                true => Self::Unknown,
                false => Self::DoesNotExist,
            };
        };
        let rows = end.rows;
        let may_have_lost_rows = !ledgers_checked || rows < held;
        match rules.keep(Rule::ConfirmedAbsence) {
            true if number < rows => Self::InJournal { rows },
            true if may_have_lost_rows => Self::Unknown,
            _ => Self::DoesNotExist,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_catalog_that_lost_no_rows_can_say_that_an_order_does_not_exist() {
        let said = |rows, ledgers_checked| {
            let rows = OrderNumber(rows);
            let end = LedgerEnd {
                rows,
                ..LedgerEnd::default()
            };
            Some(JournalEnd {
                end,
                ledgers_checked,
            })
        };
        let in_journal = |rows| Missing::InJournal {
            rows: OrderNumber(rows),
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
            let (number, held) = (OrderNumber(number), OrderNumber(held));
            let found = Missing::of(number, held, journal, Rules::default());
            assert_eq!(found, missing, "{number} beyond {held}, of {journal:?}");
        }
    }
}
