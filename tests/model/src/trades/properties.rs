//! What must always hold (the invariants of a trade), and what must be possible, lest
//! it hold only because nothing happens.

use std::collections::BTreeSet;

use domain::{ChangeNumber, Entry, Epoch, Side, StockChangeKind};
use order_core::{JournalEnd, Missing};
use stateright::Property;

use super::bounds::Bounds;
use super::world::{SHARES, World, end};

/// No core's assertion fails, and no replica believes that a ledger is damaged.
pub const UNBROKEN: &str = "nothing breaks on the way";

/// However often an order is placed.
pub const ONE_ROW: &str = "a key has one row";

/// Every member of the catalog's in-sync set holds, durably, all that was acknowledged.
pub const IN_SYNC: &str = "who is in sync holds what is acknowledged";

/// No replica says that an acknowledged order does not exist.
pub const FOUND: &str = "an acknowledged order is found";

/// An order of each epoch is acknowledged.
pub const TRADED_ON: &str = "orders are acknowledged in epoch 1, and in epoch 2";

/// An order is acknowledged again in a later epoch, with its number.
pub const RETRIED: &str = "a retry in a later epoch gets the first number";

/// A leader removes a follower from the in-sync set and takes it back.
pub const TAKEN_BACK: &str = "a follower is removed and taken back";

/// An order is acknowledged that some disk holds as a proposed row only.
pub const PROMISED: &str = "an acknowledged order is held before it is in the ledger";

/// A catalog that came back with an older database has put back what that lacked.
pub const HEALED: &str = "rows that were acknowledged and lost are put back";

/// What was proposed came to nothing, and another order got its number.
pub const REPLACED: &str = "another order gets the number of one proposed in vain";

pub fn all() -> Vec<Property<Bounds>> {
    vec![
        Property::always(UNBROKEN, |_, world: &World| world.broken.is_none()),
        Property::always("quantities add up", |_, world: &World| {
            quantities_add_up(world)
        }),
        Property::always(ONE_ROW, |_, world: &World| {
            let keys = world.journal.iter().map(|row| row.entry.key());
            keys.collect::<BTreeSet<_>>().len() == world.journal.len()
        }),
        Property::always("numbers are dense", |_, world: &World| {
            let mut numbers = world.journal.iter().map(|row| row.number.0);
            numbers.by_ref().eq(0..world.journal.len() as u64)
        }),
        Property::always("ledgers are prefixes of the journal", |_, world: &World| {
            let mut machines = world.machines.iter();
            // Where something broke before, that is what is to be told.
            world.broken.is_some()
                || machines.all(|machine| world.committed().starts_with(&machine.disk.rows))
        }),
        Property::always(
            "who is in sync holds what is acknowledged",
            |_, world: &World| {
                let term = world.catalog.leadership().term;
                // What an older copy says of it is no leader's word.
                let is_vouched = world.spent.rollbacks == 0 || term.change > ChangeNumber::NONE;
                let in_sync = term.in_sync;
                let mut members = world
                    .machines
                    .iter()
                    .filter(|it| in_sync.contains(&it.id()));
                !is_vouched
                    || world.healing.is_some()
                    || members.all(|member| member.held(&world.journal) >= world.acknowledged())
            },
        ),
        Property::always("an order has one number", |_, world: &World| {
            let orders: BTreeSet<_> = world.answered.iter().map(|it| it.order).collect();
            let answers: BTreeSet<_> = world
                .answered
                .iter()
                .map(|it| (it.order, it.number))
                .collect();
            orders.len() == answers.len()
        }),
        Property::always(FOUND, is_found),
        Property::sometimes(TRADED_ON, |_, world: &World| {
            let rows = |it: u64| {
                let mut answered = world.answered.iter();
                answered.any(|answered| {
                    let row = world.committed().get(answered.number.0 as usize);
                    answered.epoch == Epoch(it) && row.is_some_and(|row| row.epoch == Epoch(it))
                })
            };
            rows(1) && rows(2)
        }),
        Property::sometimes(RETRIED, |_, world: &World| {
            let mut answered = world.answered.iter();
            answered.any(|first| {
                let mut again = world.answered.iter();
                again.any(|again| {
                    (first.order, first.number) == (again.order, again.number)
                        && first.epoch < again.epoch
                })
            })
        }),
        Property::sometimes(TAKEN_BACK, |_, world: &World| world.taken_back),
        Property::sometimes(PROMISED, |_, world: &World| {
            let ledgers = world.machines.iter().map(|it| it.disk.rows.len() as u64);
            let held = world.machines.iter().map(|it| it.held(&world.journal));
            let acknowledged = world.acknowledged();
            ledgers
                .zip(held)
                .any(|(ledger, held)| ledger < acknowledged.0 && acknowledged <= held)
        }),
        Property::sometimes(HEALED, |_, world: &World| {
            let healed = world.spent.rollbacks > 0 && world.healing.is_none();
            let last = world.terms.last().map(|term| term.epoch);
            let mut answered = world.answered.iter();
            healed && answered.any(|before| Some(before.epoch) < last)
        }),
        Property::sometimes(REPLACED, |_, world: &World| {
            let mut kept = world.machines.iter().flat_map(|it| &it.disk.kept);
            kept.any(|kept| {
                let row = world.journal.get(kept.number.0 as usize);
                row.is_some_and(|row| row.entry.key() != kept.entry.key())
            })
        }),
    ]
}

fn quantities_add_up(world: &World) -> bool {
    let mut shares = i128::from(SHARES);
    for row in &world.journal {
        match &row.entry {
            Entry::Order(order) => {
                let traded = i128::from(order.quantity.get());
                match order.side {
                    Side::Buy => shares -= traded,
                    Side::Sell => shares += traded,
                }
            }
            Entry::StockChange(change) => {
                let StockChangeKind::Restock { quantity } = change.kind else {
                    return false;
                };
                shares += i128::from(quantity.get());
            }
        }
        if shares < 0 {
            return false;
        }
    }
    let mut stocks = world.catalog.stocks();
    stocks.all(|stock| i128::from(stock.quantity) == shares)
}

/// Whichever replica is asked, and whether it reaches the catalog or not.
fn is_found(bounds: &Bounds, world: &World) -> bool {
    if world.healing.is_some() || world.broken.is_some() {
        return true; // a catalog that heals says so, and denies nothing
    }
    world.answered.iter().all(|answered| {
        let (number, Some(known_as)) = (answered.number, answered.known_as) else {
            return true; // nobody looks for it
        };
        let mut lacking = world
            .machines
            .iter()
            .filter(|machine| end(&machine.disk.rows).rows <= number);
        lacking.all(|machine| {
            let held = end(&machine.disk.rows).rows;
            let said = JournalEnd {
                end: end(&world.journal),
                healed: true,
            };
            let mut journals = [None, Some(said)].into_iter();
            journals.all(|journal| {
                let missing = Missing::of(known_as, held, journal, bounds.order_rules());
                missing != Missing::DoesNotExist
            })
        })
    })
}
