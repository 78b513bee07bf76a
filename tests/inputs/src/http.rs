//! What a client sends on a connection, through HTTP and the default policy.

use std::cell::Cell;
use std::convert::Infallible;

use bytes::Bytes;
use domain::{IdempotencyKey, Quantity, StockName};
use frontend_guest::types::{
    Action, Method, Order, OrderPage, Outcome, Page, Refusal, Request, Response, Stock, Trade,
    Unavailability,
};
use frontend_guest::{Asset, DefaultPolicy, Policy as _};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// As the gateway has it: a request's head in bytes, its headers, its body in bytes.
const HEAD_BYTES_MAX: usize = 32 << 10;
const HEADERS_MAX: usize = 100;
const BODY_BYTES_MAX: usize = 64 << 10;

/// Whatever a client sends, each request that is one gets an answer of the API, and what the
/// policy has the host do is possible.
pub fn check(sent: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let answers = runtime
        .expect("a runtime without drivers needs nothing")
        .block_on(exchange(sent));
    if !answers.is_empty() {
        assert!(answers.starts_with(b"HTTP/1."), "an answer is HTTP");
    }
}

/// Serves a connection on which the client sends those bytes and no more. Returns what it gets.
async fn exchange(sent: &[u8]) -> Vec<u8> {
    let (client, server) = tokio::io::duplex(64 << 10);
    let (mut from_server, mut to_server) = tokio::io::split(client);
    let outcomes = Cell::new(sent.iter().map(|byte| usize::from(*byte)).sum());
    let service = service_fn(|request| {
        outcomes.set(outcomes.get() + 1);
        let outcome = outcomes.get();
        async move { Ok::<_, Infallible>(answer(request, outcome).await) }
    });
    let mut http1 = hyper::server::conn::http1::Builder::new();
    http1
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(true);
    let serving = http1.serve_connection(TokioIo::new(server), service);
    let sending = async {
        // Who is refused may be cut off while it sends.
        let _ = to_server.write_all(sent).await;
        let _ = to_server.shutdown().await;
    };
    let receiving = async {
        let mut answers = Vec::new();
        from_server
            .read_to_end(&mut answers)
            .await
            .expect("a connection in memory does not break");
        answers
    };
    // What the server makes of a connection that is no HTTP is for its log.
    let (_, (), answers) = tokio::join!(async { serving.await.ok() }, sending, receiving);
    answers
}

async fn answer(request: http::Request<Incoming>, outcome: usize) -> http::Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return render(413, Bytes::new());
    };
    let wanted = DefaultPolicy.describe().headers;
    let headers = wanted.iter().flat_map(|name| {
        let values = head.headers.get_all(name).into_iter();
        values.map(|value| (name.clone(), value.as_bytes().to_vec()))
    });
    let body = body.to_bytes();
    let request = Request {
        method: method(&head.method),
        target: head
            .uri
            .path_and_query()
            .map_or("/", |target| target.as_str())
            .to_owned(),
        headers: headers.collect(),
        connection: None,
        body: (!body.is_empty()).then(|| body.to_vec()),
        now_ms: 0,
    };
    let response = decide(&request, outcome);
    let body = check_response(&response);
    render(response.status, body)
}

fn method(method: &http::Method) -> Method {
    match method.as_str() {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        _ => Method::Other,
    }
}

/// Has the policy decide until it responds, with one of the outcomes that its action may have.
fn decide(request: &Request, outcome: usize) -> Response {
    let decision = DefaultPolicy.on_request(request);
    let outcomes = match &decision.action {
        Action::Respond(response) => return response.clone(),
        Action::ReadStock(read) => {
            StockName::new(&read.name).expect("a name that is looked up is one");
            vec![Outcome::Stock(stock(&read.name))]
        }
        Action::ListStocks(list) => {
            let after = list.after.as_deref().map(StockName::new);
            after
                .transpose()
                .expect("a name that a page begins after is one");
            assert!(
                (1..=10_000).contains(&list.limit),
                "a page that the host reads"
            );
            let stocks = vec![stock("amc"), stock("nvidia")];
            vec![Outcome::Stocks(Page { stocks, more: true })]
        }
        Action::ReadOrder(read) => vec![Outcome::Order(order(read.number))],
        Action::ListOrders(list) => {
            let stock = list.stock.as_deref().map(StockName::new);
            stock
                .transpose()
                .expect("a name that orders are listed by is one");
            assert!(
                (1..=10_000).contains(&list.limit),
                "a page that the host reads"
            );
            let (orders, next_after) = (vec![order(1), order(u64::MAX)], Some(u64::MAX));
            vec![Outcome::Orders(OrderPage { orders, next_after })]
        }
        Action::FollowOrders(_) => Vec::new(),
        Action::Take(_) => panic!("the default policy takes nothing"),
        Action::Trade(trade) => {
            check_trade(trade);
            vec![Outcome::Traded(u64::MAX)]
        }
        Action::Retry(_) => panic!("there is nothing yet to do again"),
    };
    let refusals = [
        Refusal::StockNotFound,
        Refusal::NotEnough,
        Refusal::OrderNotFound,
        Refusal::KeyConflict,
        Refusal::TooMany,
    ];
    let unavailable = [Unavailability::NoCatalog, Unavailability::NoReplica];
    let outcomes: Vec<Outcome> = outcomes
        .into_iter()
        .chain(refusals.map(Outcome::Refused))
        .chain(unavailable.map(Outcome::Unavailable))
        .collect();
    let outcome = &outcomes[outcome % outcomes.len()];
    match DefaultPolicy
        .on_outcome(request, &decision.memo, outcome)
        .action
    {
        Action::Respond(response) => response,
        other => panic!("the default policy answers at once: {other:?}"),
    }
}

fn order(number: u64) -> Order {
    Order {
        number,
        name: "nvidia".into(),
        side: frontend_guest::types::Side::Buy,
        quantity: 1,
    }
}

fn stock(name: &str) -> Stock {
    Stock {
        name: name.to_owned(),
        price_minor: u64::from(u32::MAX),
        quantity: Quantity::MAX,
    }
}

/// The host has nothing to refuse in a trade that the default policy wants.
fn check_trade(trade: &Trade) {
    StockName::new(&trade.name).expect("a name that is traded is one");
    Quantity::new(trade.quantity).expect("a quantity that is traded is one");
    if let Some(key) = &trade.idempotency_key {
        IdempotencyKey::new(key).expect("a key that is passed on is one");
    }
}

/// Every body but that of an asset is JSON with either data or an error, whose code is the status.
fn check_response(response: &Response) -> Bytes {
    assert!((200..600).contains(&response.status), "{response:?}");
    if Asset::ALL.iter().any(|asset| asset.response() == *response) {
        return Bytes::copy_from_slice(&response.body);
    }
    let body: serde_json::Value =
        serde_json::from_slice(&response.body).expect("every body is JSON");
    match response.status {
        200 => assert!(body.get("data").is_some(), "{body}"),
        status => assert_eq!(body["error"]["code"], status, "{body}"),
    }
    Bytes::copy_from_slice(&response.body)
}

fn render(status: u16, body: Bytes) -> http::Response<Full<Bytes>> {
    let mut response = http::Response::new(Full::new(body));
    *response.status_mut() = http::StatusCode::from_u16(status).expect("it was checked");
    response
}
