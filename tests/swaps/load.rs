//! Clients that ask at full speed, look at every reply, and measure.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::harness::{Answer, KeepAlive, Latencies, no_latencies};

/// The header that tells clients apart; the gateway is started with it.
pub const CLIENT_HEADER: &str = "x-client";

/// What is looked up.
pub const STOCKS: [&str; 4] = ["nvidia", "meta", "amazon", "nike"];

/// What springs the traps of `tests/guests`, and one request in how many it is: rare, because versions
/// are tested on what was asked lately before they may serve.
const SPRINGS: [(&str, u32); 3] = [
    ("/stocks/trap", 1_000),
    ("/stocks/eat", 4_000),
    ("/stocks/loop", 8_000),
];

/// Pause of the client that trades: enough trades that cached stocks are taken back all the time.
const TRADE_PAUSE: Duration = Duration::from_millis(5);

/// Wrong replies that are shown.
const SHOWN_MAX: usize = 10;

/// A load under way, as its clients and who watches them share it.
pub struct Load {
    to: SocketAddr,
    /// The stretch of time that it is now: an index into `stretches`.
    stretch: AtomicUsize,
    stretches: Vec<Mutex<Latencies>>,
    stop: AtomicBool,
    /// Replies so far, of lookups and of trades.
    pub replies: AtomicU64,
    /// Replies of a kept stock.
    pub hits: AtomicU64,
    wrong: Mutex<Vec<String>>,
    /// How many were wrong.
    pub wrong_count: AtomicU64,
}

impl Load {
    /// On a gateway, measured in so many stretches of time apart.
    pub fn on(to: SocketAddr, stretches: usize) -> Self {
        let stretches = (0..stretches).map(|_| Mutex::new(no_latencies()));
        Self {
            to,
            stretch: AtomicUsize::new(0),
            stretches: stretches.collect(),
            stop: AtomicBool::new(false),
            replies: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            wrong: Mutex::default(),
            wrong_count: AtomicU64::new(0),
        }
    }

    /// Has so many clients look up, and one more trade, while `meanwhile` goes on.
    pub fn run<T>(&self, clients: usize, meanwhile: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            for client in 0..clients {
                scope.spawn(move || self.look_up(client));
            }
            scope.spawn(|| self.trade());
            let _stop = crate::harness::Raise(&self.stop);
            meanwhile()
        })
    }

    /// What begins from now on belongs to that stretch.
    pub fn enter(&self, stretch: usize) {
        self.stretch.store(stretch, Ordering::Relaxed);
    }

    /// Whether the clients are to end.
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The latencies of lookups, by stretch.
    pub fn into_latencies(self) -> Vec<Latencies> {
        let latencies = self.stretches.into_iter();
        latencies
            .map(|stretch| stretch.into_inner().unwrap_or_else(PoisonError::into_inner))
            .collect()
    }

    /// What was wrong, shortened.
    pub fn wrong(&self) -> Vec<String> {
        self.wrong
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn note_wrong(&self, what: String) {
        self.wrong_count.fetch_add(1, Ordering::Relaxed);
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() < SHOWN_MAX {
            wrong.push(what);
        }
    }

    /// Asks without a pause. A connection that breaks is wrong, and the client's end.
    fn look_up(&self, client: usize) {
        let mut random = Rng::with_seed(client as u64);
        let requests = Requests::of(client);
        let mut connection = KeepAlive::connect(self.to).expect("the gateway takes connections");
        let mut measured = (0, no_latencies());
        while !self.is_over() {
            let stretch = self.stretch.load(Ordering::Relaxed);
            if stretch != measured.0 {
                self.hand_in(&mut measured, stretch);
            }
            let (request, expected) = requests.draw(&mut random);
            let begun = Instant::now();
            match connection.exchange(request) {
                Ok(answer) => {
                    measured
                        .1
                        .saturating_record(begun.elapsed().as_micros() as u64);
                    self.check(answer, expected);
                }
                Err(error) => return self.note_wrong(format!("client {client}: {error}")),
            }
        }
        self.hand_in(&mut measured, 0);
    }

    fn hand_in(&self, measured: &mut (usize, Latencies), next: usize) {
        let (stretch, latencies) = std::mem::replace(measured, (next, no_latencies()));
        let mut all = self.stretches[stretch]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        all.add(latencies).expect("both have the same bounds");
    }

    /// Buys and sells in turn, so that stocks never run out.
    fn trade(&self) {
        let mut connection = KeepAlive::connect(self.to).expect("the gateway takes connections");
        let mut round = 0;
        while !self.is_over() {
            let side = ["sell", "buy"][round % 2];
            let name = STOCKS[round / 2 % STOCKS.len()];
            let body = format!(r#"{{"name":"{name}","type":"{side}","quantity":1}}"#);
            let length = body.len();
            let request = format!(
                "POST /orders HTTP/1.1\r\nhost: bazaar\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            match connection.exchange(request.as_bytes()) {
                Ok(answer) => self.check(answer, "transaction_number"),
                Err(error) => return self.note_wrong(format!("the trader: {error}")),
            }
            round += 1;
            thread::sleep(TRADE_PAUSE);
        }
    }

    /// A reply is right where it has the status and the word that it must have, and both its marks
    /// are one version's.
    fn check(&self, answer: Answer<'_>, expected: &str) {
        self.replies.fetch_add(1, Ordering::Relaxed);
        let status = if expected == NOT_FOUND { 404 } else { 200 };
        let marks = (answer.header("x-policy"), body_mark(answer.body));
        if answer.status != status || !answer.body.contains(expected) || marks.0 != marks.1 {
            return self.note_wrong(format!("expected {expected}: {answer:?}"));
        }
        if is_hit(answer) {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What stocks that spring traps are answered with.
const NOT_FOUND: &str = "stock not found";

/// Whether a reply was kept, or made of a stock that was.
pub fn is_hit(answer: Answer<'_>) -> bool {
    answer
        .header("cache-status")
        .is_some_and(|status| status.contains("hit"))
}

/// The version that a body names; none for the versions that misbehave.
pub fn body_mark(body: &str) -> Option<&str> {
    body.strip_prefix(r#"{"policy":""#)?.split('"').next()
}

/// What a client asks, written down once.
struct Requests {
    lookups: Vec<(Vec<u8>, String)>,
    springs: Vec<(Vec<u8>, u32)>,
}

impl Requests {
    fn of(client: usize) -> Self {
        let get = |target: &str| {
            format!("GET {target} HTTP/1.1\r\nhost: bazaar\r\n{CLIENT_HEADER}: {client}\r\n\r\n")
                .into_bytes()
        };
        let lookup = |name| (get(&format!("/stocks/{name}")), format!("\"{name}\""));
        Self {
            lookups: STOCKS.into_iter().map(lookup).collect(),
            springs: SPRINGS.map(|(target, rarity)| (get(target), rarity)).into(),
        }
    }

    /// The next request, and a word of its answer.
    fn draw(&self, random: &mut Rng) -> (&[u8], &str) {
        for (request, rarity) in &self.springs {
            if random.u32(0..*rarity) == 0 {
                return (request, NOT_FOUND);
            }
        }
        let (request, word) = &self.lookups[random.usize(0..self.lookups.len())];
        (request, word)
    }
}
