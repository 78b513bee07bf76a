//! Judges a finished run: its history against the journal that it left.

use std::collections::BTreeMap;

use domain::{ChainHash, Order, Row, Side};

use super::history::{Attempt, History, Seen, Trade};
use super::judge::{NEVER, Observation, Span, judge};

/// What a run left: the catalog's journal, which every ledger equals.
pub struct FinalState {
    /// Quantities at the start.
    pub initial: BTreeMap<String, i64>,
    /// Quantities at the end.
    pub quantities: BTreeMap<String, i64>,
    /// In the order in which they lie there.
    pub rows: Vec<Row>,
}

/// Everything that is wrong, in words. Empty where all promises were kept.
pub fn audit(history: &History, state: &FinalState) -> Vec<String> {
    let mut wrong = history.wrong_answers.clone();
    wrong.extend(check_rows(history, &state.rows));
    if wrong.is_empty() {
        // The objects' chains of changes are sound.
        wrong.extend(check_journal_reads(history, &state.rows));
        for (name, initial) in &state.initial {
            let last = state.quantities.get(name);
            wrong.extend(check_stock(history, &state.rows, name, *initial, last));
        }
    }
    wrong
}

fn order(row: &Row) -> &Order {
    row.order().expect("nobody changes stocks meanwhile")
}

fn signed(row: &Row) -> i64 {
    let quantity = i64::try_from(order(row).quantity.get()).expect("tests trade few shares");
    match order(row).side {
        Side::Buy => -quantity,
        Side::Sell => quantity,
    }
}

fn is_for(row: &Row, trade: &Trade) -> bool {
    let recorded = order(row);
    let side = match recorded.side {
        Side::Buy => "buy",
        Side::Sell => "sell",
    };
    let order = &trade.order;
    recorded.name.as_str() == order.name
        && side == order.side
        && i64::try_from(recorded.quantity.get()) == Ok(order.quantity)
}

/// Numbers are dense, the chain holds, epochs rise, keys have one row, every row was asked for,
/// and every acknowledgement is true.
fn check_rows(history: &History, rows: &[Row]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut chain = ChainHash::EMPTY;
    let mut numbers = BTreeMap::new();
    for (place, row) in rows.iter().enumerate() {
        let key = row.entry.key().as_str();
        if row.number.0 != place as u64 {
            wrong.push(format!("row {} lies in place {place}", row.number.0));
        }
        if !row.follows(&chain) {
            wrong.push(format!("row {place} does not follow the one before it"));
        }
        chain = row.chain;
        if place > 0 && rows[place - 1].epoch > row.epoch {
            wrong.push(format!(
                "row {place} is of an earlier epoch than the one before it"
            ));
        }
        if let Some(other) = numbers.insert(key, row.number.0) {
            wrong.push(format!("{key} has the rows {other} and {place}"));
        }
        match history.trades.get(key) {
            None => wrong.push(format!("nobody asked for row {place}, of {key}")),
            Some(trade) if !is_for(row, trade) => {
                wrong.push(format!(
                    "row {place} is not what {key} asked for: {trade:?}"
                ));
            }
            Some(_) => {}
        }
    }
    for (key, trade) in &history.trades {
        wrong.extend(check_answers(
            key,
            trade,
            numbers.get(key.as_str()).copied(),
        ));
    }
    wrong
}

/// Every acknowledgement names the order's row, and an order of which any attempt was refused has
/// none.
fn check_answers(key: &str, trade: &Trade, row: Option<u64>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (_, attempt) in &trade.attempts {
        if let Attempt::Number(number) = attempt
            && Some(*number) != row
        {
            wrong.push(format!(
                "{key} was acknowledged as {number}, and its row is {row:?}"
            ));
        }
    }
    let refused = |(_, attempt): &(Span, Attempt)| *attempt == Attempt::NotEnough;
    if row.is_some() && trade.attempts.iter().any(refused) {
        wrong.push(format!("{key} was refused, and has row {row:?}"));
    }
    wrong
}

fn span_of(history: &History, row: &Row) -> Span {
    history.trades.get(row.entry.key().as_str()).map_or(
        Span {
            began: 0,
            over: NEVER,
        },
        Trade::span,
    )
}

/// The journal as a log that grows: orders are found from when they are there, and as they are.
fn check_journal_reads(history: &History, rows: &[Row]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut observations = Vec::new();
    for (span, seen) in &history.seen {
        let Seen::Order { number, found } = seen else {
            continue;
        };
        let row = rows.get(*number as usize);
        if let Some(found) = found {
            let as_it_is = row.is_some_and(|row| {
                let order = order(row);
                order.name.as_str() == found.name
                    && (order.side == Side::Buy) == (found.side == "buy")
                    && i64::try_from(order.quantity.get()) == Ok(found.quantity)
            });
            if !as_it_is {
                wrong.push(format!(
                    "order {number} was shown as {found:?}, and its row is {row:?}"
                ));
            }
        }
        let (number, is_found) = (*number as usize, found.is_some());
        observations.push(Observation {
            span: *span,
            fits: Box::new(move |length| (number < length) == is_found),
            what: format!("query of order {number}, found: {is_found}, {span:?}"),
        });
    }
    let changes: Vec<Span> = rows.iter().map(|row| span_of(history, row)).collect();
    let violations = judge(&changes, &observations);
    wrong.extend(
        violations
            .iter()
            .map(|violation| format!("journal: {violation}")),
    );
    wrong
}

/// One stock: lookups and refusals, and what is left of it.
fn check_stock(
    history: &History,
    rows: &[Row],
    name: &str,
    initial: i64,
    last: Option<&i64>,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let own: Vec<&Row> = rows
        .iter()
        .filter(|row| row.entry.name().as_str() == name)
        .collect();
    let mut quantities = vec![initial];
    for row in &own {
        let quantity = quantities[quantities.len() - 1] + signed(row);
        if quantity < 0 {
            wrong.push(format!("{name}: row {} leaves {quantity}", row.number.0));
        }
        quantities.push(quantity);
    }
    if last != quantities.last() {
        wrong.push(format!(
            "{name}: {last:?} are left of {:?}",
            quantities.last()
        ));
    }
    let mut observations = lookups(history, name, &quantities);
    observations.extend(refusals(history, name, &quantities));
    let changes: Vec<Span> = own.iter().map(|row| span_of(history, row)).collect();
    let violations = judge(&changes, &observations);
    wrong.extend(
        violations
            .iter()
            .map(|violation| format!("{name}: {violation}")),
    );
    wrong
}

fn lookups<'a>(history: &'a History, of: &str, quantities: &'a [i64]) -> Vec<Observation<'a>> {
    let lookup = |(span, seen): &'a (Span, Seen)| match seen {
        Seen::Quantity { name, quantity } if name == of => Some(Observation {
            span: *span,
            fits: Box::new(move |place| quantities[place] == *quantity),
            what: format!("lookup of {quantity}, {span:?}"),
        }),
        _ => None,
    };
    history.seen.iter().filter_map(lookup).collect()
}

/// A refusal observes that there was too little when it, or an attempt before it, was made: sent
/// again, an order gets its first answer.
fn refusals<'a>(history: &'a History, of: &str, quantities: &'a [i64]) -> Vec<Observation<'a>> {
    let mut observations = Vec::new();
    for (key, trade) in history
        .trades
        .iter()
        .filter(|(_, trade)| trade.order.name == of)
    {
        let wanted = trade.order.quantity;
        let refused = trade
            .attempts
            .iter()
            .filter(|(_, attempt)| *attempt == Attempt::NotEnough);
        let began = trade.span().began;
        observations.extend(refused.map(|(span, _)| Observation {
            span: Span { began, ..*span },
            fits: Box::new(move |place| quantities[place] < wanted),
            what: format!("refusal of {key}, {wanted} shares, {span:?}"),
        }));
    }
    observations
}

#[cfg(test)]
mod tests;
