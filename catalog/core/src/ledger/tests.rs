use domain::RowNumber;
use domain::{Note, OrderNumber};
use proptest::prelude::*;

use super::*;

const INITIAL: u64 = 100;

fn name(name: &str) -> StockName {
    StockName::new(name).unwrap()
}

fn replica(id: u32) -> ReplicaId {
    ReplicaId::new(id).unwrap()
}

fn change(number: u64) -> ChangeNumber {
    ChangeNumber::new(number).unwrap()
}

fn order(key: &str, stock: &str, side: Side, quantity: u64) -> Order {
    Order {
        key: IdempotencyKey::new(key).unwrap(),
        name: name(stock),
        side,
        quantity: Quantity::new(quantity).unwrap(),
    }
}

/// Two stocks, `a` and `b`, and no epoch yet.
fn unled() -> CatalogState {
    let price = Price::from_minor(250).unwrap();
    let stock = |text: &str| Stock::first(name(text), price, INITIAL);
    CatalogState::new(
        [stock("a"), stock("b")],
        LedgerEnd::default(),
        Term::default(),
    )
}

/// The same in epoch 1, led by replica 3.
fn state() -> CatalogState {
    let mut state = unled();
    let mut staged = state.stage();
    staged.elect(Epoch(0), replica(3));
    let batch = staged.into_batch();
    state.apply(batch);
    state
}

fn row(result: TradeResult) -> Row {
    match result {
        TradeResult::Row(row) => row,
        TradeResult::Refused(refusal) => panic!("refused: {refusal:?}"),
    }
}

/// Trades one order and applies it.
fn traded(state: &mut CatalogState, order: Order, known: Option<Row>) -> TradeResult {
    let mut staged = state.stage();
    let known = known.map(PriorOutcome::Row);
    let result = staged.trade(Epoch(1), order, known).unwrap();
    let batch = staged.into_batch();
    state.apply(batch);
    result
}

fn quantity(state: &CatalogState, stock: &str) -> u64 {
    state.stocks[&name(stock)].quantity
}

#[test]
fn a_buy_lowers_and_a_sell_raises_the_quantity() {
    let mut state = state();
    let first = row(traded(&mut state, order("1", "a", Side::Buy, 30), None));
    assert_eq!(quantity(&state, "a"), 70);
    let second = row(traded(&mut state, order("2", "a", Side::Sell, 5), None));
    let stock = &state.stocks[&name("a")];
    assert_eq!(
        (stock.quantity, stock.volume, stock.version),
        (75, 35, Version(3))
    );
    assert_eq!((first.number, second.number), (RowNumber(0), RowNumber(1)));
    assert_eq!((first.price.minor(), first.epoch), (250, Epoch(1)));
    assert!(second.follows(&first.chain));
    assert_eq!(
        state.end,
        LedgerEnd {
            rows: RowNumber(2),
            stock_changes: 0,
            chain: second.chain
        }
    );
    assert_eq!(quantity(&state, "b"), INITIAL);
}

#[test]
fn what_cannot_be_traded_leaves_no_row_and_keeps_its_key_good() {
    for (wrong, refusal) in [
        (order("k", "none", Side::Buy, 1), Refusal::StockNotFound),
        (order("k", "a", Side::Buy, INITIAL + 1), Refusal::NotEnough),
        (order("k", "a", Side::Sell, Quantity::MAX), Refusal::TooMany),
    ] {
        let mut state = state();
        let before = state.clone();
        assert_eq!(
            traded(&mut state, wrong, None),
            TradeResult::Refused(refusal)
        );
        assert_eq!(state, before);
        row(traded(
            &mut state,
            order("k", "a", Side::Buy, INITIAL),
            None,
        ));
        assert_eq!(quantity(&state, "a"), 0);
    }
}

#[test]
fn a_key_makes_one_row_within_a_group_and_after_it() {
    let mut state = state();
    let asked = order("k", "a", Side::Buy, 1);
    let mut staged = state.stage();
    let first = row(staged.trade(Epoch(1), asked.clone(), None).unwrap());
    let again = row(staged.trade(Epoch(1), asked.clone(), None).unwrap());
    assert_eq!(first, again);
    let batch = staged.into_batch();
    state.apply(batch);
    assert_eq!(row(traded(&mut state, asked, Some(first.clone()))), first);
    assert_eq!(
        (quantity(&state, "a"), state.end.rows),
        (INITIAL - 1, RowNumber(1))
    );
}

#[test]
fn a_key_of_another_order_is_a_conflict() {
    let mut state = state();
    let first = row(traded(&mut state, order("k", "a", Side::Buy, 1), None));
    for other in [
        order("k", "b", Side::Buy, 1),
        order("k", "a", Side::Sell, 1),
        order("k", "a", Side::Buy, 2),
        order("k", "none", Side::Buy, 1),
    ] {
        let result = traded(&mut state, other, Some(first.clone()));
        assert_eq!(result, TradeResult::Refused(Refusal::KeyConflict));
    }
    assert_eq!(
        (quantity(&state, "a"), state.end.rows),
        (INITIAL - 1, RowNumber(1))
    );
}

#[test]
fn nobody_trades_but_in_the_current_epoch() {
    let state = state();
    let mut staged = state.stage();
    for given in [0, 2] {
        let stale = staged
            .trade(Epoch(given), order("k", "a", Side::Buy, 1), None)
            .unwrap_err();
        assert_eq!(
            stale,
            StaleEpoch {
                given: Epoch(given),
                current: Epoch(1)
            }
        );
    }
    // An election within the group counts for what comes after it.
    staged
        .trade(Epoch(1), order("k", "a", Side::Buy, 1), None)
        .unwrap();
    staged.elect(Epoch(1), replica(2));
    staged
        .trade(Epoch(1), order("l", "a", Side::Buy, 1), None)
        .unwrap_err();
    staged
        .trade(Epoch(2), order("l", "a", Side::Buy, 1), None)
        .unwrap();
    unled()
        .stage()
        .trade(Epoch(0), order("k", "a", Side::Buy, 1), None)
        .unwrap_err();
}

#[test]
fn of_several_elections_one_wins_and_the_losers_learn_of_it() {
    let state = state();
    let mut staged = state.stage();
    let winner = staged.elect(Epoch(1), replica(2));
    let loser = staged.elect(Epoch(1), replica(1));
    assert_eq!((winner.epoch, winner.leader), (Epoch(2), Some(replica(2))));
    assert_eq!(loser, winner);
    assert_eq!(staged.elect(Epoch(7), replica(1)), winner);
}

#[test]
fn the_in_sync_set_is_fenced_and_outlives_an_election() {
    let state = state();
    let mut staged = state.stage();
    let all = BTreeSet::from([1, 2, 3].map(replica));
    assert_eq!(
        staged
            .set_in_sync(Epoch(1), change(1), all.clone())
            .unwrap()
            .in_sync,
        all
    );
    let without = staged
        .set_in_sync(Epoch(1), change(2), BTreeSet::from([replica(1)]))
        .unwrap_err();
    assert_eq!(without, InSyncRefused::WithoutLeader(replica(3)));
    assert_eq!(staged.elect(Epoch(1), replica(2)).in_sync, all);
    let stale = staged
        .set_in_sync(Epoch(1), change(2), BTreeSet::from([replica(3)]))
        .unwrap_err();
    assert!(matches!(stale, InSyncRefused::Stale(_)));
    assert_eq!(staged.term().in_sync, all);
}

#[test]
fn a_change_that_arrives_after_a_later_one_is_refused() {
    let mut state = state();
    let all = BTreeSet::from([1, 2, 3].map(replica));
    let alone = BTreeSet::from([replica(3)]);
    let mut staged = state.stage();
    staged
        .set_in_sync(Epoch(1), change(1), alone.clone())
        .unwrap();
    let batch = staged.into_batch();
    state.apply(batch);

    // Change 2 would add the others; change 3 leaves the set as it is.
    let mut staged = state.stage();
    staged
        .set_in_sync(Epoch(1), change(3), alone.clone())
        .unwrap();
    let overtaken = |given| InSyncRefused::Overtaken {
        given: change(given),
        made: change(3),
    };
    for given in [2, 3] {
        let refused = staged.set_in_sync(Epoch(1), change(given), all.clone());
        assert_eq!(refused, Err(overtaken(given)), "within the group");
    }
    let batch = staged.into_batch();
    assert!(!batch.is_empty(), "what overtakes is durable, too");
    state.apply(batch);
    let mut staged = state.stage();
    let refused = staged.set_in_sync(Epoch(1), change(2), all.clone());
    assert_eq!(refused, Err(overtaken(2)), "after it");
    staged.set_in_sync(Epoch(1), change(4), all).unwrap();
}

#[test]
fn each_epoch_numbers_its_changes_anew_and_takes_none_of_the_one_before() {
    let state = state();
    let mut staged = state.stage();
    let (all, alone) = (
        BTreeSet::from([1, 2, 3].map(replica)),
        BTreeSet::from([replica(2)]),
    );
    staged
        .set_in_sync(Epoch(1), change(7), all.clone())
        .unwrap();
    assert_eq!(
        staged.elect(Epoch(1), replica(2)).change,
        ChangeNumber::NONE
    );
    let late = staged.set_in_sync(Epoch(1), change(8), all.clone());
    assert!(matches!(late, Err(InSyncRefused::Stale(_))), "{late:?}");
    let first = staged.set_in_sync(Epoch(2), change(1), alone.clone());
    assert_eq!(first.unwrap().in_sync, alone);
}

#[test]
fn a_change_that_is_refused_uses_up_no_number() {
    let state = state();
    let mut staged = state.stage();
    let without_leader = BTreeSet::from([replica(1)]);
    staged
        .set_in_sync(Epoch(1), change(9), without_leader)
        .unwrap_err();
    let alone = BTreeSet::from([replica(3)]);
    staged.set_in_sync(Epoch(1), change(1), alone).unwrap();
}

#[test]
fn change_numbers_fit_the_database() {
    for wrong in [0, ChangeNumber::MAX + 1, u64::MAX] {
        ChangeNumber::new(wrong).unwrap_err();
    }
    assert_eq!(
        ChangeNumber::new(ChangeNumber::MAX).unwrap().get(),
        i64::MAX as u64
    );
}

#[test]
fn an_overlay_that_is_dropped_changes_nothing() {
    let state = state();
    let before = state.clone();
    let mut staged = state.stage();
    staged
        .trade(Epoch(1), order("k", "a", Side::Buy, 1), None)
        .unwrap();
    staged.elect(Epoch(1), replica(1));
    drop(staged);
    assert_eq!(state, before);
}

#[test]
fn what_changes_nothing_needs_no_commit() {
    let state = state();
    let mut staged = state.stage();
    staged.elect(Epoch(9), replica(1));
    assert!(staged.into_batch().is_empty());
}

#[test]
#[should_panic(expected = "does not continue the journal")]
fn a_batch_is_not_applied_twice() {
    let mut state = state();
    let mut staged = state.stage();
    staged
        .trade(Epoch(1), order("k", "a", Side::Buy, 1), None)
        .unwrap();
    let batch = staged.into_batch();
    state.apply(batch.clone());
    state.apply(batch);
}

/// A step of a random run: an order (few keys, so that they collide), or the end of a group,
/// which the disk takes or has no room for.
#[derive(Debug, Clone)]
enum Step {
    Trade(Order),
    Commit,
    DiskFull,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let side = prop_oneof![Just(Side::Buy), Just(Side::Sell)];
    let trade = (0..40_u8, "[abc]", side, 1..60_u64).prop_map(|(key, stock, side, shares)| {
        Step::Trade(order(&key.to_string(), &stock, side, shares))
    });
    let step = prop_oneof![8 => trade, 3 => Just(Step::Commit), 1 => Just(Step::DiskFull)];
    proptest::collection::vec(step, 1..200)
}

/// An earlier attempt at an order may still be on its way when its client is told no.
#[test]
fn an_order_that_was_refused_is_not_made_after_all() {
    let mut state = state();
    let asked = order("k", "a", Side::Buy, INITIAL + 1);
    let mut staged = state.stage();
    let refused = TradeResult::Refused(Refusal::NotEnough);
    let sold = order("l", "a", Side::Sell, 1);
    assert_eq!(
        staged.trade(Epoch(1), asked.clone(), None),
        Ok(refused.clone())
    );
    row(staged.trade(Epoch(1), sold, None).unwrap());
    assert_eq!(
        staged.trade(Epoch(1), asked.clone(), None),
        Ok(refused.clone())
    );
    let batch = staged.into_batch();
    let remembered = RefusedOrder {
        entry: asked.clone().into(),
        refusal: Refusal::NotEnough,
    };
    assert_eq!(batch.refused, std::slice::from_ref(&remembered), "once");
    state.apply(batch);

    let mut staged = state.stage();
    let known = || Some(PriorOutcome::Refused(remembered.clone()));
    assert_eq!(staged.trade(Epoch(1), asked, known()), Ok(refused));
    let other = order("k", "a", Side::Buy, 1);
    let conflict = TradeResult::Refused(Refusal::KeyConflict);
    assert_eq!(staged.trade(Epoch(1), other, known()), Ok(conflict));
    assert!(staged.into_batch().is_empty(), "nothing new to remember");
}

fn changed(key: &str, text: &str, kind: StockChangeKind) -> StockChange {
    StockChange {
        key: IdempotencyKey::new(key).unwrap(),
        name: name(text),
        kind,
        note: Note::new("somebody", "because"),
    }
}

#[test]
fn stocks_are_changed_in_order_with_trades_and_as_exactly_once_as_they() {
    let mut state = state();
    let price = |minor| Price::from_minor(minor).unwrap();
    let shares = |count| Quantity::new(count).unwrap();
    let add = StockChangeKind::Add {
        price: price(500),
        quantity: 3,
    };
    let mut staged = state.stage();
    let mut trade = |entry: Entry| staged.trade(Epoch(1), entry, None).unwrap();
    let not_found = TradeResult::Refused(Refusal::StockNotFound);
    assert_eq!(trade(order("1", "new", Side::Buy, 1).into()), not_found);
    let listed = row(trade(changed("2", "new", add).into()));
    assert_eq!((listed.number, listed.price), (RowNumber(0), price(500)));
    let exists = TradeResult::Refused(Refusal::StockExists);
    assert_eq!(trade(changed("3", "new", add).into()), exists);
    assert_eq!(trade(changed("4", "a", add).into()), exists);
    let bought = row(trade(order("5", "new", Side::Buy, 2).into()));
    assert_eq!(bought.order_number(), Some(OrderNumber(0)));
    assert_eq!((bought.number, bought.price), (RowNumber(1), price(500)));
    let dearer = StockChangeKind::Price { price: price(600) };
    let made_dearer = row(trade(changed("6", "new", dearer).into()));
    assert_eq!(made_dearer.price, price(600));
    let again = StockChange {
        note: Note::new("somebody else", "since nobody answered"),
        ..changed("6", "new", dearer)
    };
    let again = trade(again.into());
    assert_eq!(again, TradeResult::Row(made_dearer), "once");
    let other = StockChangeKind::Price { price: price(601) };
    let conflict = TradeResult::Refused(Refusal::KeyConflict);
    assert_eq!(trade(changed("6", "new", other).into()), conflict);
    assert_eq!(trade(order("6", "new", Side::Buy, 1).into()), conflict);
    let restock = |count| StockChangeKind::Restock {
        quantity: shares(count),
    };
    row(trade(changed("7", "new", restock(10)).into()));
    let too_many = TradeResult::Refused(Refusal::TooMany);
    let most = changed("8", "new", restock(Quantity::MAX));
    assert_eq!(trade(most.into()), too_many);
    let sold = row(trade(order("9", "new", Side::Sell, 1).into()));
    assert_eq!(
        (sold.order_number(), sold.price),
        (Some(OrderNumber(1)), price(600))
    );
    let batch = staged.into_batch();
    state.apply(batch);
    let new = state.stocks[&name("new")].clone();
    assert_eq!((new.quantity, new.volume, new.price), (12, 3, price(600)));
    assert_eq!(
        (state.end.rows, state.end.orders()),
        (RowNumber(5), OrderNumber(2))
    );

    let mut staged = state.stage();
    assert_eq!(staged.newest(&name("new")), new.version);
    let mut trade = |entry: Entry| staged.trade(Epoch(1), entry, None).unwrap();
    row(trade(changed("10", "new", StockChangeKind::Delist).into()));
    for (key, kind) in [
        ("11", StockChangeKind::Delist),
        ("12", dearer),
        ("13", restock(1)),
    ] {
        assert_eq!(trade(changed(key, "new", kind).into()), not_found);
    }
    assert_eq!(trade(order("14", "new", Side::Sell, 1).into()), not_found);
    assert!(staged.newest(&name("new")) > new.version);
    let batch = staged.into_batch();
    assert!(!batch.stocks[0].is_listed && batch.stocks[0].version > new.version);
    let delisted = batch.stocks[0].version;
    state.apply(batch);
    assert_eq!(state.stocks.len(), 2);

    let mut staged = state.stage();
    row(staged
        .trade(Epoch(1), changed("15", "new", add), None)
        .unwrap());
    let batch = staged.into_batch();
    assert!(batch.stocks[0].version > delisted, "no version comes twice");
    assert_eq!((batch.stocks[0].quantity, batch.stocks[0].volume), (3, 0));
    state.apply(batch);
    assert_eq!(state.stocks.len(), 3);
}

proptest! {
    #[test]
    fn the_in_sync_set_is_that_of_the_highest_change_whatever_comes_when(
        arrivals in proptest::collection::vec((1..20_u64, 1..8_u32), 1..30),
    ) {
        let mut state = state();
        let mut highest = (0, BTreeSet::new());
        for (number, members) in arrivals {
            let others = (1..=2).filter(|id| members & (1 << id) != 0);
            let set: BTreeSet<_> = others.chain([3]).map(replica).collect();
            let mut staged = state.stage();
            let taken = staged.set_in_sync(Epoch(1), change(number), set.clone()).is_ok();
            prop_assert_eq!(taken, number > highest.0);
            if taken {
                highest = (number, set);
            }
            let batch = staged.into_batch();
            state.apply(batch);
            prop_assert_eq!(&state.term.in_sync, &highest.1);
        }
    }

    #[test]
    fn quantities_follow_from_the_journal_and_keys_are_used_once(steps in steps()) {
        let mut state = state();
        let mut journal: Vec<Row> = Vec::new();
        for group in steps.split_inclusive(|step| !matches!(step, Step::Trade(_))) {
            let mut staged = state.stage();
            for step in group {
                if let Step::Trade(order) = step {
                    let known = journal.iter().find(|row| *row.entry.key() == order.key);
                    let known = known.cloned().map(PriorOutcome::Row);
                    staged.trade(Epoch(1), order.clone(), known).unwrap();
                }
            }
            let batch = staged.into_batch();
            if !matches!(group.last(), Some(Step::DiskFull)) {
                journal.extend(batch.rows.iter().cloned());
                state.apply(batch);
            }
        }
        for (number, row) in journal.iter().enumerate() {
            prop_assert_eq!(row.number, RowNumber(number as u64));
        }
        let keys: BTreeSet<_> = journal.iter().map(|row| row.entry.key()).collect();
        prop_assert_eq!(keys.len(), journal.len());
        for stock in state.stocks() {
            let total = |side| -> u64 {
                let orders = journal.iter().filter_map(Row::order);
                let orders = orders.filter(|order| order.name == stock.name && order.side == side);
                orders.map(|order| order.quantity.get()).sum()
            };
            prop_assert_eq!(stock.quantity, INITIAL + total(Side::Sell) - total(Side::Buy));
            prop_assert_eq!(stock.volume, total(Side::Sell) + total(Side::Buy));
        }
    }
}
