//! Clients without the key of the version that asks for one: who is let in while it decides.

use std::io;

use fastrand::Rng;

use crate::harness::{Answer, KeepAlive};

use super::gate::{Reading, State};
use super::load::{CLIENT_HEADER, Load, Requests, STOCKS, post};

/// What is sent in place of the key.
const NO_KEYS: [&str; 5] = [
    "",
    "authorization: Bearer sesam\r\n",
    "authorization: Bearer\r\n",
    "x-authorization: Bearer sesame\r\n",
    "authorization: Bearer sesame\r\nauthorization: Bearer sesame\r\n",
];

/// What the version fails at, and one request in how many it is: loops are rare, since each holds a worker
/// up for as long as a decision may take.
const SPRINGS: [(&str, u32); 4] = [
    ("/stocks/trap", 20),
    ("/stocks/nonsense", 20),
    ("/stocks/eat", 400),
    ("/stocks/loop", 2_000),
];

/// Paths of each kind.
const PATHS: usize = 4;

/// One request in so many is an order, and one a body that is nested deeper than the version can count.
const RARE: u32 = 50;
const BRACKETS: usize = 60_000;

/// A client, and how it has fared.
pub struct Keyless {
    client: usize,
    random: Rng,
    requests: Requests,
    /// When it was let in last, and refused last, where it is always the same clients who are.
    let_in: Option<Reading>,
    refused: Option<Reading>,
    /// It placed an order to sell, and none to buy since.
    owes: bool,
}

impl Keyless {
    pub fn new(client: usize, load: &Load) -> Self {
        Self {
            client,
            random: Rng::with_seed(client as u64),
            requests: load.requests(client, ""),
            let_in: None,
            refused: None,
            owes: false,
        }
    }

    /// Asks without a pause: what all ask while nobody is asked for a key, and else whatever may get it in.
    pub fn ask(mut self, load: &Load) -> io::Result<()> {
        let mut connection = KeepAlive::connect(load.to)?;
        while !load.is_over() {
            let before = load.gate.read();
            if before.state() == State::Open {
                let (request, expected) = self.requests.draw(&mut self.random);
                let answer = connection.exchange(request)?;
                match load.gate.read() != before && is_refusal(answer) {
                    true => load.note_reply(),
                    false => load.check(answer, expected),
                }
                continue;
            }
            let (request, is_order) = self.attack();
            let answer = connection.exchange(&request)?;
            self.judge(answer, before, load);
            if is_order && answer.status == 200 {
                self.owes = !self.owes;
            }
            if answer.header("connection") == Some("close") {
                connection = KeepAlive::connect(load.to)?;
            }
        }
        Ok(())
    }

    /// A request without the key; whether it is an order.
    fn attack(&mut self) -> (Vec<u8>, bool) {
        let key = NO_KEYS[self.random.usize(0..NO_KEYS.len())];
        let headers = format!("{CLIENT_HEADER}: {}\r\n{key}", self.client);
        let path = self.random.usize(0..PATHS);
        if self.random.u32(0..RARE) == 0 {
            // Sold first, so that stocks never run out.
            let side = if self.owes { "buy" } else { "sell" };
            let order = format!(r#"{{"name":"{}","type":"{side}","quantity":1}}"#, STOCKS[0]);
            return (post("/orders", &headers, &order), true);
        }
        if self.random.u32(0..RARE) == 0 {
            return (
                post("/orders", &headers, &"[".repeat(BRACKETS + path)),
                false,
            );
        }
        let sprung = SPRINGS
            .iter()
            .find(|(_, rarity)| self.random.u32(0..*rarity) == 0);
        let target = match sprung {
            Some((spring, _)) => format!("{spring}{path}"),
            None => format!("/stocks/{}", STOCKS[path % STOCKS.len()]),
        };
        let request = format!("GET {target} HTTP/1.1\r\nhost: bazaar\r\n{headers}\r\n");
        (request.into_bytes(), false)
    }

    /// Nobody is let in between two changes between which the version decides for all; nor, where it does for
    /// some, who was refused before.
    fn judge(&mut self, answer: Answer<'_>, before: Reading, load: &Load) {
        load.note_reply();
        let is_refused = is_refusal(answer);
        if load.gate.read() != before {
            return; // either version may have decided
        }
        if is_refused {
            load.note_kept_out();
        }
        match before.state() {
            State::Closed if !is_refused => load.note_let_through(format!("closed: {answer:?}")),
            // One of 503 may be no version's doing: a trade that found no leader.
            State::Partly if answer.status != 503 => {
                let (one, other) = match is_refused {
                    true => (&mut self.refused, self.let_in),
                    false => (&mut self.let_in, self.refused),
                };
                *one = Some(before);
                if other == *one {
                    let what = format!(
                        "client {}, now refused and now not: {answer:?}",
                        self.client
                    );
                    load.note_let_through(what);
                }
            }
            _ => {}
        }
    }
}

/// Whether the version that asks for a key refused it: since there was none, since it failed, or since it is
/// not asked by who wastes its time.
fn is_refusal(answer: Answer<'_>) -> bool {
    matches!(answer.status, 401 | 500 | 503)
}
