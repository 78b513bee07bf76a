//! Clients that ask at full speed, look at every reply, and measure.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::harness::{Answer, KeepAlive, Latencies, no_latencies};

use super::gate::{Gate, State};
use super::keyless::Keyless;

/// The header that tells clients apart; the gateway is started with it.
pub const CLIENT_HEADER: &str = "x-client";

/// What is looked up.
pub const STOCKS: [&str; 4] = ["nvidia", "meta", "amazon", "nike"];

/// What springs the traps of `tests/guests`, and one request in how many it is: rare, because versions
/// are tested on what was asked lately before they may serve.
const SPRINGS: [(&str, u32); 4] = [
    ("/stocks/trap", 1_000),
    ("/stocks/nonsense-outcome", 1_000),
    ("/stocks/eat", 4_000),
    ("/stocks/loop", 8_000),
];

/// One request in how many is for what `computes` is slow at, where that is asked for at all.
const SLOW_RARITY: u32 = 4_000;

/// What lets a client in at the version that asks for a key.
pub const KEY: &str = "authorization: Bearer sesame\r\n";

/// Clients that have no key, beside those that look up.
const KEYLESS: usize = 4;

/// Pause of the client that trades: enough trades that cached stocks are taken back all the time.
const TRADE_PAUSE: Duration = Duration::from_millis(5);

/// Wrong replies that are shown.
const SHOWN_MAX: usize = 10;

/// A load under way, as its clients and who watches them share it.
pub struct Load {
    pub to: SocketAddr,
    /// What `computes` is slow at, if anybody is to ask for it.
    slow: Option<String>,
    /// Whether a version decides that asks for a key.
    pub gate: Gate,
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
    /// Replies that clients without a key were refused by, and those that let them in all the same.
    pub kept_out: AtomicU64,
    pub let_through: AtomicU64,
    /// Replies to clients with the key, by the version that asks for it.
    pub let_in: AtomicU64,
}

impl Load {
    /// On a gateway, measured in so many stretches of time apart.
    pub fn on(to: SocketAddr, stretches: usize) -> Self {
        let stretches = (0..stretches).map(|_| Mutex::new(no_latencies()));
        Self {
            to,
            slow: None,
            gate: Gate::default(),
            stretch: AtomicUsize::new(0),
            stretches: stretches.collect(),
            stop: AtomicBool::new(false),
            replies: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            wrong: Mutex::default(),
            wrong_count: AtomicU64::new(0),
            kept_out: AtomicU64::new(0),
            let_through: AtomicU64::new(0),
            let_in: AtomicU64::new(0),
        }
    }

    /// With now and then a request for what `computes` is slow at.
    pub fn asking_for(self, slow: &str) -> Self {
        Self {
            slow: Some(slow.to_owned()),
            ..self
        }
    }

    /// What `computes` is slow at, where anybody asks for it.
    pub fn slow(&self) -> &str {
        self.slow.as_deref().unwrap_or("/stocks/compute/0")
    }

    /// Has so many clients look up, some more do so without a key, and one trade, while `meanwhile` goes
    /// on.
    pub fn run<T>(&self, clients: usize, meanwhile: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            for client in 0..clients {
                scope.spawn(move || self.look_up(client));
            }
            for client in clients..clients + KEYLESS {
                scope.spawn(move || {
                    if let Err(error) = Keyless::new(client, self).ask(self) {
                        self.note_wrong(format!("client {client}, without a key: {error}"));
                    }
                });
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
    pub fn is_over(&self) -> bool {
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

    /// There is one more reply.
    pub fn note_reply(&self) {
        self.replies.fetch_add(1, Ordering::Relaxed);
    }

    /// A client without a key was refused.
    pub fn note_kept_out(&self) {
        self.kept_out.fetch_add(1, Ordering::Relaxed);
    }

    /// One was let in that was to be kept out.
    pub fn note_let_through(&self, what: String) {
        self.let_through.fetch_add(1, Ordering::Relaxed);
        self.note_wrong(what);
    }

    /// What a client asks, with further headers.
    pub fn requests(&self, client: usize, headers: &str) -> Requests {
        Requests::new(client, headers, self.slow.as_deref())
    }

    /// Asks without a pause, with the key. A connection that breaks is wrong, and the client's end.
    fn look_up(&self, client: usize) {
        let mut random = Rng::with_seed(client as u64);
        let requests = self.requests(client, KEY);
        let mut connection = KeepAlive::connect(self.to).expect("the gateway takes connections");
        let mut measured = (0, no_latencies());
        while !self.is_over() {
            let stretch = self.stretch.load(Ordering::Relaxed);
            if stretch != measured.0 {
                self.hand_in(&mut measured, stretch);
            }
            let gate = self.gate.read();
            let (request, expected) = match gate.state() {
                State::Open => requests.draw(&mut random),
                // Where that version fails, it has refused also those who have the key.
                _ => requests.draw_lookup(&mut random),
            };
            let begun = Instant::now();
            match connection.exchange(request) {
                Ok(answer) => {
                    measured
                        .1
                        .saturating_record(begun.elapsed().as_micros() as u64);
                    let is_unchanged = self.gate.read() == gate;
                    if is_unchanged && gate.state() == State::Closed {
                        self.let_in.fetch_add(1, Ordering::Relaxed);
                    }
                    if !is_unchanged && is_spring(expected) && answer.status == 500 {
                        self.note_reply();
                    } else {
                        self.check(answer, expected);
                    }
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
            match connection.exchange(&post("/orders", KEY, &body)) {
                Ok(answer) => self.check(answer, "transaction_number"),
                Err(error) => return self.note_wrong(format!("the trader: {error}")),
            }
            round += 1;
            thread::sleep(TRADE_PAUSE);
        }
    }

    /// A reply is right where it has the status and the word that it must have, and both its marks
    /// are one version's.
    pub fn check(&self, answer: Answer<'_>, expected: &str) {
        self.note_reply();
        let status = if is_spring(expected) { 404 } else { 200 };
        let marks = (answer.header("x-policy"), body_mark(answer.body));
        if answer.status != status || !answer.body.contains(expected) || marks.0 != marks.1 {
            return self.note_wrong(format!("expected {expected}: {answer:?}"));
        }
        if is_hit(answer) {
            self.hits.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What springs are answered with.
const NOT_FOUND: &str = "stock not found";
const NO_SUCH_PATH: &str = "no such path";

/// Whether it is a spring that is answered so.
fn is_spring(expected: &str) -> bool {
    [NOT_FOUND, NO_SUCH_PATH].contains(&expected)
}

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

/// A request with a body.
pub fn post(target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {target} HTTP/1.1\r\nhost: bazaar\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

/// What a client asks, written down once.
pub struct Requests {
    lookups: Vec<(Vec<u8>, String)>,
    /// One in how many it is, and a word of the answer.
    springs: Vec<(Vec<u8>, u32, &'static str)>,
}

impl Requests {
    fn new(client: usize, headers: &str, slow: Option<&str>) -> Self {
        let get = |target: &str| {
            format!(
                "GET {target} HTTP/1.1\r\nhost: bazaar\r\n{CLIENT_HEADER}: {client}\r\n{headers}\r\n"
            )
            .into_bytes()
        };
        let lookup = |name| (get(&format!("/stocks/{name}")), format!("\"{name}\""));
        let springs = SPRINGS.map(|(target, rarity)| (get(target), rarity, NOT_FOUND));
        let slow = slow.map(|target| (get(target), SLOW_RARITY, NO_SUCH_PATH));
        Self {
            lookups: STOCKS.into_iter().map(lookup).collect(),
            springs: springs.into_iter().chain(slow).collect(),
        }
    }

    /// The next request, and a word of its answer.
    pub fn draw(&self, random: &mut Rng) -> (&[u8], &str) {
        for (request, rarity, word) in &self.springs {
            if random.u32(0..*rarity) == 0 {
                return (request, word);
            }
        }
        self.draw_lookup(random)
    }

    /// The next one that no version misbehaves on.
    pub fn draw_lookup(&self, random: &mut Rng) -> (&[u8], &str) {
        let (request, word) = &self.lookups[random.usize(0..self.lookups.len())];
        (request, word)
    }
}
