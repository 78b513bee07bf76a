//! Requests, outcomes and elections of every kind, for a component to decide about at the check.

use std::time::Duration;

use domain::{Epoch, OrderNumber, Price, Quantity, ReplicaId, RowNumber, Side, StockName};
use http::{HeaderMap, Method};

use crate::decision::{
    Action, Listing, Operation, Order, OrderListing, OrderPage, Outcome, Page, Refusal,
    ReplicaView, Stock, Unavailability, View,
};
use crate::evaluate::input::RequestInput;
use crate::guest::instance::Ambient;
use crate::limits;

/// Noon of 1 January 2026.
pub(super) const NOW_MS: u64 = 1_767_268_800_000;

/// What a decision finds beside its arguments: always the same.
pub(super) fn ambient() -> Ambient {
    Ambient {
        now_ms: NOW_MS,
        seed: 1,
    }
}

/// Method, target and body of requests of every kind.
pub(super) fn requests() -> Vec<(Method, String, Option<Vec<u8>>)> {
    let get = |target: &str| (Method::GET, target.to_owned(), None);
    let post = |body: &[u8]| (Method::POST, "/orders".to_owned(), Some(body.to_vec()));
    vec![
        get("/"),
        get("/openapi.json"),
        get("/stocks"),
        get("/stocks?limit=10000"),
        get("/stocks?limit=0&after=%zz"),
        get("/stocks?limit=4294967297&after=nvidia"),
        get("/stocks/nvidia"),
        get("/stocks/%00%ff%zz"),
        get(&format!("/stocks/{}", "x".repeat(4096))),
        get("/orders/0"),
        get("/orders/18446744073709551615"),
        get("/orders/-1"),
        get("/orders?stock=nvidia&after=2&limit=10000"),
        get("/orders?after=-1"),
        get("/events?after=2"),
        get("/stocks/nvidia?a=b&c"),
        (Method::HEAD, "/stocks/nvidia".into(), None),
        (Method::DELETE, "/stocks/nvidia".into(), None),
        (Method::OPTIONS, "*".into(), None),
        post(br#"{"name":"meta","type":"sell","quantity":10}"#),
        post(br#"{"name":"meta","type":"buy","quantity":9223372036854775807}"#),
        post(br#"{"name":"meta","type":"buy","quantity":-1}"#),
        post(br#"{"name":"meta","type":"lend","quantity":1e999}"#),
        post(b""),
        post(b"\xff\xfe{"),
        post("[".repeat(10_000).as_bytes()),
    ]
}

/// Requests whose answers most policies keep.
pub(super) fn lookups() -> Vec<(&'static str, RequestInput)> {
    let lookup = |target: &'static str| {
        let request = RequestInput {
            id: None,
            method: Method::GET,
            target: target.to_owned(),
            headers: HeaderMap::new(),
            connection: None,
            body: None,
            takes: Vec::new(),
            outcome: None,
        };
        (target, request)
    };
    ["/stocks/nvidia", "/orders/3"].map(lookup).into()
}

fn name() -> StockName {
    StockName::new("nvidia").expect("a short name")
}

/// What can come of an action; the first is that it did what it was to do.
pub(super) fn outcomes(action: &Action) -> Vec<Outcome> {
    let stock = Stock {
        name: name(),
        price: Price::from_minor(24063).expect("a small price"),
        quantity: 1000,
    };
    let order = Order {
        number: OrderNumber(3),
        name: name(),
        side: Side::Sell,
        quantity: Quantity::new(10).expect("a small quantity"),
    };
    let Action::Perform(operation) = action else {
        return Vec::new();
    };
    match operation {
        Operation::ReadStock { .. } => vec![
            Outcome::Stock(stock),
            Outcome::Refused(Refusal::StockNotFound),
            Outcome::Unavailable(Unavailability::NoCatalog),
        ],
        Operation::ListStocks(listing) => vec![
            Outcome::Stocks(full_page(listing, &stock)),
            Outcome::Stocks(Page {
                stocks: Vec::new(),
                more: false,
            }),
            Outcome::Unavailable(Unavailability::NoCatalog),
        ],
        Operation::ReadOrder { .. } => vec![
            Outcome::Order(order),
            Outcome::Refused(Refusal::OrderNotFound),
            Outcome::Unavailable(Unavailability::NoReplica),
        ],
        Operation::ListOrders(listing) => vec![
            Outcome::Orders(full_order_page(listing, &order)),
            Outcome::Orders(OrderPage {
                orders: Vec::new(),
                next_after: Some(OrderNumber(3)),
            }),
            Outcome::Unavailable(Unavailability::NoReplica),
        ],
        Operation::FollowOrders { .. } => vec![
            Outcome::Unavailable(Unavailability::NoCatalog),
            Outcome::Unavailable(Unavailability::NoReplica),
        ],
        Operation::Take(_) => vec![
            Outcome::Granted,
            Outcome::Denied(250),
            Outcome::Unavailable(Unavailability::NoCatalog),
        ],
        Operation::Trade(_) => vec![
            Outcome::Traded(OrderNumber(0)),
            Outcome::Refused(Refusal::StockNotFound),
            Outcome::Refused(Refusal::NotEnough),
            Outcome::Refused(Refusal::KeyConflict),
            Outcome::Refused(Refusal::TooMany),
            Outcome::Unavailable(Unavailability::NoCatalog),
            Outcome::Unavailable(Unavailability::NoReplica),
        ],
    }
}

/// As many stocks as a policy asked for; of one that has no say in it, as many as it must be able
/// to answer with.
fn full_page(listing: &Listing, stock: &Stock) -> Page {
    let (stocks, more) = match listing {
        Listing::Page { limit, .. } => (*limit as usize, true),
        Listing::All => (limits::LISTED_OWED, false),
    };
    let numbered = |number: usize| Stock {
        name: StockName::new(&format!("stock {number:058}")).expect("64 bytes"),
        ..stock.clone()
    };
    Page {
        stocks: (0..stocks).map(numbered).collect(),
        more,
    }
}

/// As many orders as a policy asked for, of a stock with a long name.
fn full_order_page(listing: &OrderListing, order: &Order) -> OrderPage {
    let first = listing.after.map_or(0, |after| after.0.saturating_add(1));
    let numbered = |number: u64| Order {
        number: OrderNumber(number),
        name: StockName::new(&"x".repeat(StockName::BYTES_MAX)).expect("as long as may be"),
        ..order.clone()
    };
    let numbers = first..first.saturating_add(listing.limit.into());
    let next_after = numbers.end.saturating_sub(1);
    OrderPage {
        orders: numbers.map(numbered).collect(),
        next_after: Some(OrderNumber(next_after)),
    }
}

/// Elections: without a replica, with all healthy, and with the leader gone.
pub(super) fn views() -> Vec<View> {
    let replica = |id: u32, healthy: bool| ReplicaView {
        id: ReplicaId::new(id).expect("not 0"),
        healthy,
        reaches_catalog: healthy,
        orders: RowNumber(7),
        round_trip: Duration::from_micros(200),
        in_sync: id < 3,
    };
    let all = |healthy: bool| vec![replica(1, true), replica(2, true), replica(3, healthy)];
    vec![
        View {
            replicas: Vec::new(),
            leader: None,
            epoch: Epoch(0),
        },
        View {
            replicas: all(true),
            leader: None,
            epoch: Epoch(0),
        },
        View {
            replicas: all(true),
            leader: ReplicaId::new(2),
            epoch: Epoch(4),
        },
        View {
            replicas: all(false),
            leader: ReplicaId::new(3),
            epoch: Epoch(5),
        },
    ]
}
