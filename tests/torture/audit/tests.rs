//! The audit is right about a journal that is in order, and notices each way in which it is not.

use domain::{
    Epoch, IdempotencyKey, LedgerEnd, Order as Ordered, Price, Quantity, RowNumber, StockName,
};

use crate::harness::Order;

use super::super::history::FoundOrder;
use super::*;

const NAME: &str = "nvidia";

fn span(began: u64, over: u64) -> Span {
    Span { began, over }
}

/// One client's purchases of 1 to 3 of 10 shares, one after the other; and reads between them.
fn sound() -> (History, FinalState) {
    let mut history = History::default();
    let mut rows: Vec<Row> = Vec::new();
    for number in 0..3_u64 {
        let order = Order::buy(number as i64 + 1, NAME);
        let began = number * 100;
        let key = format!("key-{number}");
        let acknowledged = (span(began, began + 10), Attempt::Number(number));
        let trade = Trade {
            order,
            attempts: vec![acknowledged],
        };
        history.trades.insert(key.clone(), trade);
        let chain = rows.last().map_or(ChainHash::EMPTY, |row| row.chain);
        rows.push(row(&chain, number, &key, number + 1));
    }
    let quantity = |quantity| Seen::Quantity {
        name: NAME.to_owned(),
        quantity,
    };
    let found = FoundOrder {
        name: NAME.to_owned(),
        side: "buy".to_owned(),
        quantity: 2,
    };
    history.seen = vec![
        (span(20, 30), quantity(9)),
        (span(105, 130), quantity(9)),
        (
            span(20, 30),
            Seen::Order {
                number: 1,
                found: None,
            },
        ),
        (
            span(105, 109),
            Seen::Order {
                number: 1,
                found: Some(found),
            },
        ),
        (span(220, 230), quantity(4)),
    ];
    let one = |quantity| BTreeMap::from([(NAME.to_owned(), quantity)]);
    (
        history,
        FinalState {
            initial: one(10),
            quantities: one(4),
            rows,
        },
    )
}

fn row(chain: &ChainHash, number: u64, key: &str, quantity: u64) -> Row {
    let order = Ordered {
        key: IdempotencyKey::new(key).unwrap(),
        name: StockName::new(NAME).unwrap(),
        side: Side::Buy,
        quantity: Quantity::new(quantity).unwrap(),
    };
    let end = LedgerEnd {
        rows: RowNumber(number),
        stock_changes: 0,
        chain: *chain,
    };
    Row::following(&end, Epoch(1), order, Price::from_minor(100).unwrap())
}

/// Spoils what was sound; the audit complains in these words.
fn check(complaint: &str, spoil: impl FnOnce(&mut History, &mut FinalState)) {
    let (mut history, mut state) = sound();
    spoil(&mut history, &mut state);
    let wrong = audit(&history, &state);
    assert!(
        wrong.iter().any(|wrong| wrong.contains(complaint)),
        "{complaint}: {wrong:#?}"
    );
}

fn attempt(history: &mut History, key: &str, attempt: (Span, Attempt)) {
    history.trades.get_mut(key).unwrap().attempts.push(attempt);
}

#[test]
fn a_sound_run_is_found_sound() {
    let (history, state) = sound();
    assert_eq!(audit(&history, &state), Vec::<String>::new());
}

#[test]
fn a_lost_acknowledged_trade_is_noticed() {
    check("was acknowledged as 2, and its row is None", |_, state| {
        state.rows.pop();
    });
}

#[test]
fn a_gap_and_a_changed_row_are_noticed() {
    check("row 2 lies in place 1", |_, state| {
        state.rows.remove(1);
    });
    check("does not follow", |_, state| {
        state.rows.remove(1);
    });
    check("does not follow", |_, state| {
        state.rows[1].epoch = Epoch(2);
    });
    check("is of an earlier epoch", |_, state| {
        state.rows[0].epoch = Epoch(2);
    });
}

#[test]
fn a_key_with_two_rows_is_noticed() {
    check("key-0 has the rows 0 and 3", |_, state| {
        let chain = state.rows[2].chain;
        state.rows.push(row(&chain, 3, "key-0", 1));
    });
}

#[test]
fn a_row_that_nobody_asked_for_or_not_like_this_is_noticed() {
    check("nobody asked for row 3", |_, state| {
        let chain = state.rows[2].chain;
        state.rows.push(row(&chain, 3, "key-3", 1));
    });
    check("is not what key-2 asked for", |history, _| {
        history.trades.get_mut("key-2").unwrap().order.quantity = 4;
    });
}

#[test]
fn two_numbers_for_one_key_are_noticed() {
    check("key-0 was acknowledged as 7", |history, _| {
        attempt(history, "key-0", (span(20, 30), Attempt::Number(7)));
    });
}

#[test]
fn a_refusal_that_is_none_is_noticed() {
    // It was placed, before or after all.
    check("key-2 was refused, and has row", |history, _| {
        history.trades.get_mut("key-2").unwrap().attempts =
            vec![(span(200, 210), Attempt::NotEnough)];
    });
    // There was enough.
    check("refusal of key-9", |history, _| {
        let attempts = vec![(span(20, 30), Attempt::NotEnough)];
        let trade = Trade {
            order: Order::buy(5, NAME),
            attempts,
        };
        history.trades.insert("key-9".to_owned(), trade);
    });
    check("key-0 was refused, and has row", |history, _| {
        attempt(history, "key-0", (span(20, 30), Attempt::NotEnough));
    });
    let (mut history, state) = sound();
    let attempts = vec![(span(20, 30), Attempt::NotEnough)];
    let trade = Trade {
        order: Order::buy(50, NAME),
        attempts,
    };
    history.trades.insert("key-9".to_owned(), trade);
    assert_eq!(audit(&history, &state), Vec::<String>::new());
}

#[test]
fn a_stale_lookup_and_a_wrong_rest_are_noticed() {
    check("lookup of 9", |history, _| {
        history.seen[4].1 = history.seen[0].1.clone()
    });
    check("nvidia: Some(5) are left of Some(4)", |_, state| {
        state.quantities.insert(NAME.to_owned(), 5);
    });
    check("leaves -1", |_, state| {
        state.initial.insert(NAME.to_owned(), 5);
    });
}

#[test]
fn a_false_404_and_a_false_order_are_noticed() {
    check("query of order 1, found: false", |history, _| {
        history.seen.push((
            span(220, 230),
            Seen::Order {
                number: 1,
                found: None,
            },
        ));
    });
    // Another query, not an acknowledgement, has shown it before.
    check("query of order 2, found: false", |history, state| {
        history.trades.get_mut("key-2").unwrap().attempts[0] = (span(200, NEVER), Attempt::Unknown);
        let found = FoundOrder {
            name: NAME.to_owned(),
            side: "buy".to_owned(),
            quantity: 3,
        };
        history.seen.push((
            span(205, 206),
            Seen::Order {
                number: 2,
                found: Some(found),
            },
        ));
        history.seen.push((
            span(207, 208),
            Seen::Order {
                number: 2,
                found: None,
            },
        ));
        assert_eq!(state.rows.len(), 3);
    });
    check("order 1 was shown as", |history, _| {
        let found = FoundOrder {
            name: NAME.to_owned(),
            side: "sell".to_owned(),
            quantity: 2,
        };
        history.seen[3].1 = Seen::Order {
            number: 1,
            found: Some(found),
        };
    });
}
