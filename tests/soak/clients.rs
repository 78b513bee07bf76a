//! Clients that trade and look up without a pause, look at every answer, and measure.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use fastrand::Rng;
use serde_json::Value;

use crate::harness::{KeepAlive, Latencies, Raise, no_latencies};

/// With enough shares for any number of trades.
pub const STOCKS: &str = "name,price,quantity\namc,4.5,1000000000\nmeta,194.02,1000000000\nnvidia,240.63,1000000000\ntesla,250,1000000000\n";
const NAMES: [&str; 4] = ["amc", "meta", "nvidia", "tesla"];
const QUANTITY: i64 = 1_000_000_000;

/// Wrong answers that are shown.
const SHOWN_MAX: usize = 10;

/// What clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Trade,
    /// Of an order of any age.
    Order,
    Stock,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Trade, Self::Order, Self::Stock];

    pub fn name(self) -> &'static str {
        match self {
            Self::Trade => "trades",
            Self::Order => "look-ups of orders",
            Self::Stock => "look-ups of stocks",
        }
    }
}

/// What they share.
pub struct Clients {
    to: SocketAddr,
    traders: u64,
    is_over: AtomicBool,
    placed: AtomicU64,
    /// Shares that came to each stock.
    balance: [AtomicI64; NAMES.len()],
    /// Since they were taken last, by kind.
    latencies: [Mutex<Latencies>; 3],
    wrong: Mutex<Vec<String>>,
}

impl Clients {
    pub fn new(to: SocketAddr, traders: u64) -> Self {
        Self {
            to,
            traders,
            is_over: AtomicBool::new(false),
            placed: AtomicU64::new(0),
            balance: [const { AtomicI64::new(0) }; NAMES.len()],
            latencies: [(); 3].map(|()| Mutex::new(no_latencies())),
            wrong: Mutex::default(),
        }
    }

    /// Has them ask while `meanwhile` goes on: for every eight that trade, one that looks up orders and one that looks up
    /// stocks.
    pub fn run(&self, meanwhile: impl FnOnce()) {
        let others = self.traders.div_ceil(8);
        thread::scope(|scope| {
            for (kind, count) in [
                (Kind::Trade, self.traders),
                (Kind::Order, others),
                (Kind::Stock, others),
            ] {
                for client in 0..count {
                    scope.spawn(move || {
                        if let Err(wrong) = self.ask(kind, client) {
                            self.note_wrong(wrong);
                        }
                    });
                }
            }
            let _over = Raise(&self.is_over);
            meanwhile();
        });
    }

    /// How many orders were acknowledged.
    pub fn placed(&self) -> u64 {
        self.placed.load(Ordering::Relaxed)
    }

    /// What is left of each stock.
    pub fn quantities(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let balance = self
            .balance
            .iter()
            .map(|balance| QUANTITY + balance.load(Ordering::Relaxed));
        NAMES.into_iter().zip(balance)
    }

    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    /// The median and the 99th percentile since it was asked last, in milliseconds.
    pub fn take_latencies(&self, kind: Kind) -> [f64; 2] {
        let mut latencies = self.latencies[kind as usize].lock().unwrap();
        let found = [0.5, 0.99].map(|share| latencies.value_at_quantile(share) as f64 / 1000.0);
        latencies.reset();
        found
    }

    fn note_wrong(&self, wrong: String) {
        let mut all = self.wrong.lock().unwrap();
        if all.len() < SHOWN_MAX {
            all.push(wrong);
        }
    }

    fn ask(&self, kind: Kind, client: u64) -> Result<(), String> {
        let mut random = Rng::with_seed(client);
        let mut connection = KeepAlive::connect(self.to).map_err(|error| error.to_string())?;
        while !self.is_over.load(Ordering::Relaxed) {
            let stock = random.usize(..NAMES.len());
            let is_buy = random.bool();
            let placed = self.placed();
            // The last few are not acknowledged to whom they are of.
            let settled = placed.saturating_sub(4 * self.traders);
            let order = random.u64(..settled.max(1));
            let request = match kind {
                Kind::Trade => {
                    let (name, side) = (NAMES[stock], if is_buy { "buy" } else { "sell" });
                    let body = format!(r#"{{"name":"{name}","type":"{side}","quantity":1}}"#);
                    format!(
                        "POST /orders HTTP/1.1\r\nHost: soak\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                }
                Kind::Order => format!("GET /orders/{order} HTTP/1.1\r\nHost: soak\r\n\r\n"),
                Kind::Stock => format!(
                    "GET /stocks/{} HTTP/1.1\r\nHost: soak\r\n\r\n",
                    NAMES[stock]
                ),
            };
            let began = Instant::now();
            let answer = connection
                .exchange(request.as_bytes())
                .map_err(|error| format!("{kind:?}: {error}"))?;
            let took = began.elapsed();
            let is_early = kind == Kind::Order && settled == 0;
            if answer.status != 200 {
                if !is_early {
                    self.note_wrong(format!("{kind:?}: {} {}", answer.status, answer.body));
                }
                continue;
            }
            let body: Value =
                serde_json::from_str(answer.body).map_err(|error| error.to_string())?;
            if kind == Kind::Order && body["data"]["number"] != order {
                self.note_wrong(format!("order {order}: {body}"));
            }
            if kind == Kind::Trade {
                let shares = if is_buy { -1 } else { 1 };
                self.balance[stock].fetch_add(shares, Ordering::Relaxed);
                self.placed.fetch_add(1, Ordering::Relaxed);
            }
            let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            self.latencies[kind as usize]
                .lock()
                .unwrap()
                .saturating_record(micros);
        }
        Ok(())
    }
}
