//! What may be said of an order that is not in the own ledger.

use domain::LedgerEnd;
use domain::OrderNumber;

use super::ablation::{Rule, Rules};

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
    /// Nobody knows: the catalog did not say how long its journal is.
    Unknown,
}

impl Missing {
    /// An order that was looked up and is not here. `journal` is what the catalog said *after*
    /// that of where its journal ends; `None` where it did not answer.
    pub fn of(number: OrderNumber, journal: Option<LedgerEnd>, rules: Rules) -> Self {
        match journal {
            _ if !rules.keep(Rule::ConfirmedAbsence) => Self::DoesNotExist,
            None => Self::Unknown,
            Some(LedgerEnd { rows, .. }) if number < rows => Self::InJournal { rows },
            Some(_) => Self::DoesNotExist,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_catalog_can_say_that_an_order_does_not_exist() {
        let end = |rows| LedgerEnd {
            rows: OrderNumber(rows),
            ..LedgerEnd::default()
        };
        for (number, journal, missing) in [
            (0, None, Missing::Unknown),
            (0, Some(end(0)), Missing::DoesNotExist),
            (
                6,
                Some(end(7)),
                Missing::InJournal {
                    rows: OrderNumber(7),
                },
            ),
            (7, Some(end(7)), Missing::DoesNotExist),
        ] {
            let found = Missing::of(OrderNumber(number), journal, Rules::default());
            assert_eq!(found, missing, "{number} of {journal:?}");
        }
    }
}
