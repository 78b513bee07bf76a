//! Whether a ledger is what it claims to be: the beginning of the catalog's journal.

use domain::LedgerEnd;
use domain::{Identity, RowNumber};

use super::message::Failure;
use crate::durable::Durable;
use domain::JournalHead;

/// How a ledger stands to the journal, as far as their ends tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    Holds,
    /// The journal is longer: what it has where the ledger ends is to be compared with this.
    Compare(LedgerEnd),
    /// The journal is shorter: the catalog's disk lost rows. The first of them.
    CatalogLostRows(RowNumber),
}

/// Looks at what a replica finds on its disk, and what the catalog says of its journal. Before
/// [`Claim::Holds`], or a comparison that succeeds, nothing of the ledger may be served: a disk may be
/// another bazaar's, a URL mistyped, a copy old.
///
/// # Errors
/// Where the ledger is not the journal's, or not to be believed.
pub fn claim(
    known: Option<Identity>,
    durable: &Durable,
    identity: &Identity,
    head: &JournalHead,
) -> Result<Claim, Failure> {
    let held = durable.end;
    same_journal(known, identity)?;
    if held.rows > head.end.rows {
        return match known {
            Some(_) => Ok(Claim::CatalogLostRows(head.end.rows)),
            // That the journal says nothing is no agreement.
            None => Err(refuted(known, identity, held, head)),
        };
    }
    if durable.term.epoch > head.term.epoch {
        return Err(Failure::AboveCatalog {
            own: durable.term.epoch,
            catalog: head.term.epoch,
        });
    }
    if durable.term.epoch == head.term.epoch && durable.term.leader != head.term.leader {
        return Err(Failure::OtherLeader {
            epoch: head.term.epoch,
        });
    }
    match held {
        _ if held == head.end => Ok(Claim::Holds),
        LedgerEnd { rows, .. } if rows == head.end.rows => {
            Err(refuted(known, identity, held, head))
        }
        _ => Ok(Claim::Compare(held)),
    }
}

/// Whether the catalog keeps the journal that a ledger says it is a copy of.
///
/// # Errors
/// Where it keeps another.
pub fn same_journal(known: Option<Identity>, identity: &Identity) -> Result<(), Failure> {
    match known {
        Some(known) if known.journal != identity.journal => Err(Failure::OtherJournal {
            own: known.journal,
            catalog: identity.journal,
        }),
        _ => Ok(()),
    }
}

/// What to say of a ledger that the journal does not begin with.
pub fn refuted(
    known: Option<Identity>,
    identity: &Identity,
    held: LedgerEnd,
    head: &JournalHead,
) -> Failure {
    match known {
        Some(_) => Failure::Differs { rows: held.rows },
        None => Failure::Unproven {
            catalog: identity.journal,
            held: held.rows,
            rows: head.end.rows,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use domain::{Epoch, JournalId, ListingDigest};

    use super::*;
    use crate::tests::bench::{end, head, journal, term};

    fn identity(journal: u8) -> Identity {
        Identity {
            journal: JournalId::new([journal; JournalId::BYTES]),
            listing: ListingDigest::new([0; ListingDigest::BYTES]),
            lease_horizon: Duration::from_secs(1),
        }
    }

    #[test]
    fn a_ledger_is_believed_only_where_the_journal_begins_with_it() {
        let rows = journal(3);
        let other = {
            let mut other = journal(2);
            let order = domain::Order {
                quantity: domain::Quantity::new(7).unwrap(),
                ..other[1].order().unwrap().clone()
            };
            other[1] = domain::Row::following(
                &LedgerEnd::of(&other[0]),
                other[1].epoch,
                order,
                other[1].price,
            );
            other
        };
        let ours = Some(identity(1));
        let known = |held| Ok(Claim::Compare(held));
        let unproven = |held: u64, rows: u64| {
            Err(Failure::Unproven {
                catalog: identity(1).journal,
                held: RowNumber(held),
                rows: RowNumber(rows),
            })
        };
        let foreign = Err(Failure::OtherJournal {
            own: identity(2).journal,
            catalog: identity(1).journal,
        });
        let differs = Err(Failure::Differs { rows: RowNumber(2) });
        let cases = [
            (ours, &rows[..], &rows[..], Ok(Claim::Holds)),
            (ours, &rows[..0], &rows[..], known(end(&[]))),
            (ours, &rows[..2], &rows[..], known(end(&rows[..2]))),
            (
                ours,
                &rows[..],
                &rows[..1],
                Ok(Claim::CatalogLostRows(RowNumber(1))),
            ),
            (
                ours,
                &rows[..],
                &rows[..0],
                Ok(Claim::CatalogLostRows(RowNumber(0))),
            ),
            (ours, &other[..], &rows[..2], differs),
            (Some(identity(2)), &rows[..], &rows[..], foreign),
            (Some(identity(2)), &rows[..0], &rows[..], foreign),
            (None, &rows[..], &rows[..], Ok(Claim::Holds)),
            (None, &rows[..2], &rows[..], known(end(&rows[..2]))),
            (None, &rows[..2], &rows[..0], unproven(2, 0)),
            (None, &other[..], &rows[..2], unproven(2, 2)),
        ];
        for (number, (known, held, journal, expected)) in cases.into_iter().enumerate() {
            let durable = Durable {
                term: term(4, 1),
                end: end(held),
                ..Durable::default()
            };
            let claimed = claim(known, &durable, &identity(1), &head(4, 1, journal));
            assert_eq!(claimed, expected, "case {number}");
        }
    }

    #[test]
    fn an_epoch_has_the_leader_that_the_catalog_elected() {
        let durable = Durable {
            term: term(4, 2),
            ..Durable::default()
        };
        let claimed = claim(Some(identity(1)), &durable, &identity(1), &head(4, 1, &[]));
        assert_eq!(claimed, Err(Failure::OtherLeader { epoch: Epoch(4) }));
    }

    #[test]
    fn an_epoch_that_the_catalog_has_not_begun_is_not_believed() {
        let rows = journal(1);
        let durable = Durable {
            term: term(1 << 40, 2),
            end: end(&rows),
            ..Durable::default()
        };
        let claimed = claim(
            Some(identity(1)),
            &durable,
            &identity(1),
            &head(4, 1, &rows),
        );
        let (own, catalog) = (Epoch(1 << 40), Epoch(4));
        assert_eq!(claimed, Err(Failure::AboveCatalog { own, catalog }));
    }
}
