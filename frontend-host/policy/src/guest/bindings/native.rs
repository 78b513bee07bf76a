//! The default policy as native code in the place of every component, for one measurement only:
//! what deciding in a sandbox costs. See the feature `native-policy`.

use domain::Side;
use frontend_guest::types as guest;
use frontend_guest::{DefaultPolicy, Policy as _};

use super::v1_2::{self, decision_from, wit};
use super::{Answer, Decision, Outcome, PolicyRequest};
use crate::decision::{Order, Refusal, Stock, Unavailability};

/// What to do about a request.
pub(super) fn on_request(request: &PolicyRequest<'_>) -> Answer<Decision> {
    let decided = DefaultPolicy.on_request(&request_to(request));
    Ok(decision_from(decision_to(decided)))
}

/// What to do about an outcome.
pub(super) fn on_outcome(
    request: &PolicyRequest<'_>,
    memo: &[u8],
    outcome: &Outcome,
) -> Answer<Decision> {
    let decided = DefaultPolicy.on_outcome(&request_to(request), memo, &outcome_to(outcome));
    Ok(decision_from(decision_to(decided)))
}

fn request_to(request: &PolicyRequest<'_>) -> guest::Request {
    let owned = |(name, value): &(&str, &[u8])| ((*name).to_owned(), (*value).to_owned());
    guest::Request {
        method: match v1_2::request_to(request).method {
            wit::Method::Get => guest::Method::Get,
            wit::Method::Head => guest::Method::Head,
            wit::Method::Post => guest::Method::Post,
            wit::Method::Put => guest::Method::Put,
            wit::Method::Patch => guest::Method::Patch,
            wit::Method::Delete => guest::Method::Delete,
            wit::Method::Options => guest::Method::Options,
            wit::Method::Other => guest::Method::Other,
        },
        target: request.target.to_owned(),
        headers: request.headers.iter().map(owned).collect(),
        // The default policy does not ask for it.
        connection: None,
        body: request.body.map(<[u8]>::to_vec),
        now_ms: request.now_ms,
    }
}

fn stock_to(stock: &Stock) -> guest::Stock {
    guest::Stock {
        name: stock.name.as_str().to_owned(),
        price_minor: stock.price.minor(),
        quantity: stock.quantity,
    }
}

fn order_to(order: &Order) -> guest::Order {
    guest::Order {
        number: order.number.0,
        name: order.name.as_str().to_owned(),
        side: match order.side {
            Side::Buy => guest::Side::Buy,
            Side::Sell => guest::Side::Sell,
        },
        quantity: order.quantity.get(),
    }
}

fn outcome_to(outcome: &Outcome) -> guest::Outcome {
    match outcome {
        Outcome::Stock(stock) => guest::Outcome::Stock(stock_to(stock)),
        Outcome::Stocks(page) => guest::Outcome::Stocks(guest::Page {
            stocks: page.stocks.iter().map(stock_to).collect(),
            more: page.more,
        }),
        Outcome::Order(order) => guest::Outcome::Order(order_to(order)),
        Outcome::Orders(page) => guest::Outcome::Orders(guest::OrderPage {
            orders: page.orders.iter().map(order_to).collect(),
            next_after: page.next_after.map(|number| number.0),
        }),
        Outcome::Traded(number) => guest::Outcome::Traded(number.0),
        Outcome::Refused(refusal) => guest::Outcome::Refused(match refusal {
            Refusal::StockNotFound => guest::Refusal::StockNotFound,
            Refusal::NotEnough => guest::Refusal::NotEnough,
            Refusal::OrderNotFound => guest::Refusal::OrderNotFound,
            Refusal::KeyConflict => guest::Refusal::KeyConflict,
            Refusal::TooMany => guest::Refusal::TooMany,
        }),
        Outcome::Unavailable(what) => guest::Outcome::Unavailable(match what {
            Unavailability::NoCatalog => guest::Unavailability::NoCatalog,
            Unavailability::NoReplica => guest::Unavailability::NoReplica,
        }),
        Outcome::Granted => guest::Outcome::Granted,
        Outcome::Denied(retry_after_ms) => guest::Outcome::Denied(*retry_after_ms),
    }
}

fn decision_to(decision: guest::Decision) -> wit::Decision {
    let action = match decision.action {
        guest::Action::Respond(response) => wit::Action::Respond(wit::Response {
            status: response.status,
            headers: response.headers,
            body: response.body,
            keep_ms: response.keep_ms,
        }),
        guest::Action::ReadStock(read) => wit::Action::ReadStock(wit::ReadStock {
            name: read.name,
            caching: caching_to(read.caching),
        }),
        guest::Action::ListStocks(list) => wit::Action::ListStocks(wit::ListStocks {
            after: list.after,
            limit: list.limit,
        }),
        guest::Action::ReadOrder(read) => wit::Action::ReadOrder(wit::ReadOrder {
            number: read.number,
            caching: caching_to(read.caching),
        }),
        guest::Action::ListOrders(list) => wit::Action::ListOrders(wit::ListOrders {
            after: list.after,
            limit: list.limit,
            stock: list.stock,
        }),
        guest::Action::FollowOrders(follow) => wit::Action::FollowOrders(wit::FollowOrders {
            after: follow.after,
        }),
        guest::Action::Trade(trade) => wit::Action::Trade(wit::Trade {
            name: trade.name,
            side: match trade.side {
                guest::Side::Buy => wit::Side::Buy,
                guest::Side::Sell => wit::Side::Sell,
            },
            quantity: trade.quantity,
            idempotency_key: trade.idempotency_key,
        }),
        guest::Action::Take(take) => wit::Action::Take(wit::Take {
            bucket: take.bucket,
            key: take.key,
            cost: take.cost,
        }),
        guest::Action::Retry(after_ms) => wit::Action::Retry(after_ms),
    };
    wit::Decision {
        action,
        memo: decision.memo,
        // The default policy has none.
        observations: Vec::new(),
        log: Vec::new(),
    }
}

fn caching_to(caching: guest::Caching) -> wit::Caching {
    wit::Caching {
        freshness: match caching.freshness {
            guest::Freshness::Linearizable => wit::Freshness::Linearizable,
            guest::Freshness::AtMost(ms) => wit::Freshness::AtMost(ms),
            guest::Freshness::Bypass => wit::Freshness::Bypass,
        },
        stale_on_error_ms: caching.stale_on_error_ms,
        vary_key: caching.vary_key,
    }
}
