//! Another bazaar, whose processes are at our addresses where something is wired wrongly.

use std::collections::BTreeSet;
use std::time::Duration;

use catalog_core::{Leadership, Stock, Term as CatalogTerm, TradeResult};
use domain::Role;
use domain::{
    CatalogRun, ChainHash, Epoch, IdempotencyKey, Identity, JournalId, ListingDigest, Order,
    OrderNumber, Price, Quantity, ReplicaId, Row, Side, StockName, Term,
};
use order_core::Status;
use order_core::message::Placed;
use wire::identity;

use crate::branch::end;
use crate::messages::{Failure, Node, Request, Response, Said, Told};

pub const JOURNAL: JournalId = JournalId::new([2; JournalId::BYTES]);

const EPOCH: Epoch = Epoch(9);

/// What its catalog says of its journal.
pub const IDENTITY: Identity = Identity {
    journal: JOURNAL,
    listing: ListingDigest::new([2; ListingDigest::BYTES]),
    lease_horizon: Duration::from_secs(1),
};

/// Whether a request is about the journal of whom it reaches.
pub fn check(request: &Request, named: Option<JournalId>, own: JournalId) -> Result<(), Failure> {
    let field = identity::to_wire(named);
    let checked = match request {
        Request::Status | Request::Operate(_) => return Ok(()),
        Request::ReadStock { .. } | Request::GetLeadership => identity::check_if_named(&field, own),
        _ => identity::check(&field, own),
    };
    checked.map_err(|_| Failure::OtherJournal)
}

/// The rows of its journal.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for key in ["another's", "stranger's"] {
        let order = Order {
            key: IdempotencyKey::new(key).expect("a key"),
            name: StockName::new("amc").expect("a name"),
            side: Side::Sell,
            quantity: Quantity::new(1).expect("a quantity"),
        };
        let price = Price::from_minor(1).expect("a price");
        rows.push(Row::following(&end(&rows), EPOCH, order, price));
    }
    rows
}

/// Who leads there is no replica of ours.
fn leader() -> ReplicaId {
    ReplicaId::new(99).expect("an id")
}

/// What one of its processes answers to a request that it takes for one of its own.
pub fn answer(to: Node, request: &Request) -> Told {
    let rows = rows();
    let end = end(&rows);
    Ok(match request {
        Request::ReadStock { name, .. } => Response::Stock {
            stock: Stock::first(name.clone(), Price::from_minor(1).expect("a price"), 7),
            cacheable: false,
        },
        Request::GetLeadership | Request::Elect { .. } | Request::SetInSync { .. } => {
            Response::Leadership(Said {
                leadership: Leadership {
                    term: CatalogTerm {
                        epoch: EPOCH,
                        leader: Some(leader()),
                        in_sync: BTreeSet::from([leader()]),
                        ..CatalogTerm::default()
                    },
                    end,
                },
                identity: IDENTITY,
                healed: true,
                run: CatalogRun::new(1).expect("not 0"),
            })
        }
        Request::ReadRows { from, previous, .. } => {
            let place = (from.0 as usize).min(rows.len());
            let before = place.checked_sub(1).map(|before| rows[before].chain);
            let before = before.unwrap_or(ChainHash::EMPTY);
            match previous {
                Some(_) if from.0 as usize > rows.len() => return Err(Failure::Beyond),
                Some(previous) if *previous != before => return Err(Failure::Differs),
                _ => Response::Rows(rows[place..].to_vec()),
            }
        }
        Request::Trade { orders, .. } => {
            let row = |_| TradeResult::Row(rows[0].clone());
            Response::Traded(orders.iter().map(row).collect())
        }
        Request::Place(_) => Response::Placed(Placed::Number(OrderNumber(0))),
        Request::ReadOrder(number) => {
            let row = rows.get(number.0 as usize);
            Response::Rows(row.cloned().into_iter().collect())
        }
        Request::Get(number) => match rows.get(number.0 as usize) {
            Some(row) => Response::Row(row.clone()),
            None => Response::NoSuchOrder,
        },
        Request::Announce { .. } => return Err(Failure::Fenced),
        Request::Append { .. } => Response::Held(end),
        Request::ReportMissing { .. } => return Err(Failure::NotMissing),
        Request::ReportLedger { .. } | Request::PutBack { .. } => return Err(Failure::Fenced),
        Request::Status => {
            let Node::Replica(id) = to else {
                return Err(Failure::Refused);
            };
            let term = Term {
                epoch: EPOCH,
                leader: Some(leader()),
            };
            let status = Status {
                id,
                role: Role::Follower,
                term,
                end,
                reaches_catalog: true,
                takes_rows: true,
            };
            Response::Status(status, JOURNAL)
        }
        Request::Operate(_) => return Err(Failure::Refused),
    })
}
