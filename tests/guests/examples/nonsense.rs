//! Decides what no policy may on a target `/stocks/nonsense/{what}`; see `nonsense` for each
//! `what`. On `/stocks/nonsense-outcome…` it reads a stock, and answers every outcome with a retry at
//! once, for ever.

use frontend_guest::types::{
    Action, Caching, Decision, ListStocks, Outcome, ReadStock, Request, Response, Side, Take, Trade,
};
use frontend_guest::{DefaultPolicy, Policy, export};

/// More than any host takes, in bytes.
const HUGE_BYTES: usize = 100_000_000;

const PREFIX: &str = "/stocks/nonsense/";
const RETRYING_TARGET: &str = "/stocks/nonsense-outcome";

struct Nonsense;

impl Policy for Nonsense {
    fn name(&self) -> &'static str {
        "nonsense"
    }

    fn on_request(&self, request: &Request) -> Decision {
        match request
            .target
            .strip_prefix(PREFIX)
            .and_then(|what| what.split('?').next())
        {
            Some(what) => nonsense(what),
            None => DefaultPolicy.on_request(request),
        }
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        if request.target.starts_with(RETRYING_TARGET) {
            return Action::Retry(0).into();
        }
        DefaultPolicy.on_outcome(request, memo, outcome)
    }
}

export!(Nonsense);

fn nonsense(what: &str) -> Decision {
    match what {
        "status-low" => respond(|response| response.status = 99),
        "status-high" => respond(|response| response.status = 1000),
        "header-name" => respond(|response| response.headers.push(header("no name", "value"))),
        "header-value" => respond(|response| {
            response
                .headers
                .push(header("x-split", "a\r\nx-smuggled: b"))
        }),
        "headers" => {
            respond(|response| response.headers = vec![header("x-many", "value"); 100_000])
        }
        "framing" => respond(|response| response.headers.push(header("content-length", "7"))),
        "content-204" => respond(|response| with_body(response, 204)),
        "content-205" => respond(|response| with_body(response, 205)),
        "content-304" => respond(|response| with_body(response, 304)),
        "body" => respond(|response| response.body = vec![b'x'; HUGE_BYTES]),
        "memo" => Decision {
            memo: vec![0; HUGE_BYTES],
            ..list(1, None).into()
        },
        "counts-undeclared" => Decision::from(list(1, None)).counting("none", &[], 1),
        "logs-much" => Decision {
            log: vec!["x".repeat(513)],
            ..list(1, None).into()
        },
        "vary-key" => Action::ReadStock(ReadStock {
            name: "nvidia".to_owned(),
            caching: Caching {
                vary_key: vec![0; 1025],
                ..DefaultPolicy.stock_caching()
            },
        })
        .into(),
        "take-undeclared" => take(b"key"),
        "take-key-long" => take(&[0; 257]),
        "retry" => Action::Retry(0).into(),
        "stock-name-empty" => read_stock(String::new()),
        "stock-name-long" => read_stock("x".repeat(1_000_000)),
        "stock-name-control" => read_stock("a\nb".to_owned()),
        "quantity-zero" => trade(|trade| trade.quantity = 0),
        "quantity-high" => trade(|trade| trade.quantity = u64::MAX),
        "key-empty" => trade(|trade| trade.idempotency_key = Some(String::new())),
        "key-long" => trade(|trade| trade.idempotency_key = Some("k".repeat(129))),
        "key-control" => trade(|trade| trade.idempotency_key = Some("a\0b".to_owned())),
        "list-of-none" => list(0, None).into(),
        "list-of-too-many" => list(10_001, None).into(),
        "list-after-nothing" => list(1, Some("")).into(),
        "list-after-control" => list(1, Some("a\nb")).into(),
        _ => list(1, None).into(),
    }
}

fn list(limit: u32, after: Option<&str>) -> Action {
    let after = after.map(str::to_owned);
    Action::ListStocks(ListStocks { after, limit })
}

fn respond(spoil: impl FnOnce(&mut Response)) -> Decision {
    let mut response = Response {
        status: 200,
        headers: Vec::new(),
        body: Vec::new(),
        keep_ms: None,
    };
    spoil(&mut response);
    Action::Respond(response).into()
}

fn with_body(response: &mut Response, status: u16) {
    response.status = status;
    response.body = b"{}".to_vec();
}

fn header(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn take(key: &[u8]) -> Decision {
    Action::Take(Take {
        bucket: "none".to_owned(),
        key: key.to_vec(),
        cost: 1,
    })
    .into()
}

fn read_stock(name: String) -> Decision {
    Action::ReadStock(ReadStock {
        name,
        caching: DefaultPolicy.stock_caching(),
    })
    .into()
}

fn trade(spoil: impl FnOnce(&mut Trade)) -> Decision {
    let mut trade = Trade {
        name: "nvidia".to_owned(),
        side: Side::Buy,
        quantity: 1,
        idempotency_key: None,
    };
    spoil(&mut trade);
    Action::Trade(trade).into()
}
