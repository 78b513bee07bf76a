//! Clients that trade, look up and follow orders while processes are exchanged, and what became of all that they asked.

use std::collections::BTreeMap;
use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::{Value, json};

use crate::harness::{
    Bazaar, Event, Http2, Order, Raise, Response, next_event, try_request, wait_until,
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of each way to ask, those that trade; one more looks up.
const TRADERS: usize = 2;

/// Those that follow orders.
const FOLLOWERS: usize = 2;

/// Connections over HTTP/2 that a request is tried on at most. It was never sent on one that ends before.
const CONNECTIONS_MAX: usize = 3;

/// Between the end of a stream of events and the next one.
const PAUSE: Duration = Duration::from_millis(100);

/// Where clients over HTTP/2 connect: by prior knowledge, or over TLS where they know whom to believe.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub address: SocketAddr,
    pub tls: Option<Arc<ClientConfig>>,
}

impl Endpoint {
    fn connect(&self) -> io::Result<Http2> {
        Http2::connect(self.address, self.tls.as_ref())
    }

    /// What a request on a connection of its own is answered with, where it is.
    pub fn status_of(&self, target: &str) -> Option<u16> {
        let answer = self.connect().ok()?.exchange("GET", target, &[], b"");
        Some(answer.ok()??.status)
    }
}

/// How a client asks.
#[derive(Debug, Clone)]
pub enum Way {
    /// Over HTTP/1.1, each time on a connection of its own.
    Http1(SocketAddr),
    /// Over HTTP/2, on one connection until that ends.
    Http2(Endpoint),
}

/// Which clients there are.
#[derive(Debug)]
pub struct Load {
    /// Some of each.
    pub ways: Vec<Way>,
    /// Answers that there are to be of each kind while a process is exchanged.
    pub answers: usize,
}

/// What clients asked for, and what became of it.
#[derive(Debug, Default)]
pub struct Clients {
    /// See [`Load::answers`].
    answers: usize,
    is_over: AtomicBool,
    orders: AtomicUsize,
    lookups: AtomicUsize,
    lists: AtomicUsize,
    /// Over HTTP/2.
    connections: AtomicUsize,
    placed: Mutex<BTreeMap<u64, Value>>,
    failed: Mutex<Vec<String>>,
}

/// One of them, which asks one thing after the other.
struct Client<'a> {
    all: &'a Clients,
    way: &'a Way,
    /// Over HTTP/2, the one that it has.
    connection: Option<Http2>,
}

impl<'a> Client<'a> {
    fn new(all: &'a Clients, way: &'a Way) -> Self {
        Self {
            all,
            way,
            connection: None,
        }
    }

    /// What is answered; whatever else comes of it is a failure.
    fn ask(&mut self, method: &str, target: &str, body: &[u8]) -> Option<Value> {
        match self.answer(method, target, body) {
            Ok(answer) if answer.status == 200 => Some(answer.data()),
            failed => {
                let mut all = self.all.failed.lock().unwrap();
                all.push(format!("{method} {target}: {failed:?}"));
                None
            }
        }
    }

    fn answer(&mut self, method: &str, target: &str, body: &[u8]) -> io::Result<Response> {
        let endpoint = match self.way {
            Way::Http1(to) => return try_request(*to, method, target, &[], body, PATIENCE),
            Way::Http2(endpoint) => endpoint,
        };
        for _ in 0..CONNECTIONS_MAX {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => {
                    self.all.connections.fetch_add(1, Ordering::Relaxed);
                    endpoint.connect()?
                }
            };
            if let Some(answer) = connection.exchange(method, target, &[], body)? {
                self.connection = Some(connection);
                return Ok(answer);
            }
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }

    fn trade(mut self) {
        let order = Order::sell(1, "meta").json();
        let body = order.to_string();
        while !self.all.is_over() {
            let Some(answer) = self.ask("POST", "/orders", body.as_bytes()) else {
                continue;
            };
            let number = answer["transaction_number"].as_u64().unwrap();
            self.all.note_placed(number, &order);
            // And it is there, wherever it is read.
            self.ask("GET", &format!("/orders/{number}"), b"");
        }
    }

    fn look(mut self) {
        let mut quantity = 0;
        while !self.all.is_over() {
            if let Some(stock) = self.ask("GET", "/stocks/meta", b"") {
                let found = stock["quantity"].as_u64().unwrap();
                assert!(
                    found >= quantity,
                    "nothing is old: {found} after {quantity}"
                );
                quantity = found;
                self.all.lookups.fetch_add(1, Ordering::Relaxed);
            }
            if self.ask("GET", "/stocks?limit=3", b"").is_some() {
                self.all.lists.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Clients {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn note_placed(&self, number: u64, order: &Value) {
        let before = self.placed.lock().unwrap().insert(number, order.clone());
        assert_eq!(before, None, "order {number} was given twice");
        self.orders.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until so many more of each kind were answered.
    pub fn wait_for_more(&self) {
        let all = [&self.orders, &self.lookups, &self.lists];
        let counts = all.map(|count| count.load(Ordering::Relaxed));
        wait_until("clients to be answered", || {
            let more = all.iter().zip(counts);
            more.into_iter()
                .all(|(count, before)| count.load(Ordering::Relaxed) >= before + self.answers)
        });
    }

    /// That everybody was answered; how often.
    fn check(self, what: &str) -> BTreeMap<u64, Value> {
        let failed = self.failed.into_inner().unwrap();
        println!(
            "{what}: {} orders, {} lookups, {} lists, {} connections over HTTP/2, {} failed",
            self.orders.into_inner(),
            self.lookups.into_inner(),
            self.lists.into_inner(),
            self.connections.into_inner(),
            failed.len()
        );
        assert_eq!(failed, Vec::<String>::new());
        self.placed.into_inner().unwrap()
    }
}

/// Has clients trade and look up until `work` is done; returns how many orders they placed.
pub fn under_load(
    bazaar: &mut Bazaar,
    load: &Load,
    what: &str,
    work: impl FnOnce(&mut Bazaar, &Clients),
) -> usize {
    let clients = Clients {
        answers: load.answers,
        ..Clients::default()
    };
    thread::scope(|scope| {
        let (clients, raise) = (&clients, Raise(&clients.is_over));
        for way in &load.ways {
            for _ in 0..TRADERS {
                scope.spawn(move || Client::new(clients, way).trade());
            }
            scope.spawn(move || Client::new(clients, way).look());
        }
        clients.wait_for_more();
        work(bazaar, clients);
        clients.wait_for_more();
        drop(raise);
    });
    let placed = clients.check(what);
    for (number, order) in &placed {
        let mut expected = order.clone();
        expected["number"] = json!(number);
        let found = bazaar.get(&format!("/orders/{number}")).data();
        assert_eq!(found, expected, "order {number}");
    }
    placed.len()
}

/// Who follow orders over HTTP/2, whatever is exchanged.
#[derive(Debug, Default)]
pub struct Followers {
    all: [Follower; FOLLOWERS],
    /// Until then the bazaar may have no events for anybody, and each asks again.
    has_events: AtomicBool,
    is_over: AtomicBool,
}

/// One of them, which comes back behind its last order wherever a stream has ended.
#[derive(Debug, Default)]
struct Follower {
    events: Mutex<Vec<Event>>,
    /// Streams that began.
    streams: AtomicUsize,
    /// Answers that there are no events yet.
    not_yet: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

impl Followers {
    /// From now on whoever gets no events has failed.
    pub fn expect_events(&self) {
        self.has_events.store(true, Ordering::Relaxed);
    }

    /// Waits until each has got that order.
    pub fn wait_for(&self, number: u64) {
        wait_until("the order to be with all who follow", || {
            self.all.iter().all(|follower| follower.last() >= number)
        });
    }

    /// That each got every order of a ledger behind number 0 once, as it is there and in order, over more than one stream.
    pub fn check(self, ledger: &Value) {
        let behind_the_first = ledger.as_object().unwrap().len() - 1;
        for follower in self.all {
            let events = follower.events.into_inner().unwrap();
            let failed = follower.failed.into_inner().unwrap();
            let streams = follower.streams.into_inner();
            println!(
                "followed: {} events, {streams} streams, told {} times that there are none yet, {} failed",
                events.len(),
                follower.not_yet.into_inner(),
                failed.len()
            );
            assert_eq!(failed, Vec::<String>::new());
            assert!(streams > 1, "it never had to come back");
            assert_eq!(events.len(), behind_the_first);
            for (place, (number, order)) in (1..).zip(events) {
                assert_eq!(number, place, "each comes once and in order");
                let mut expected = ledger[number.to_string()].clone();
                expected["number"] = json!(number);
                assert_eq!(order, expected);
            }
        }
    }
}

impl Follower {
    /// The number of the last order that it got; 0 before there was any.
    fn last(&self) -> u64 {
        let events = self.events.lock().unwrap();
        events.last().map_or(0, |(number, _)| *number)
    }

    fn follow(&self, endpoint: &Endpoint, all: &Followers) {
        while !all.is_over.load(Ordering::Relaxed) {
            let had_events = all.has_events.load(Ordering::Relaxed);
            match self.follow_to_the_end(endpoint, &all.is_over) {
                Ok(200) => {}
                // The release before does not know them, and this one waits for the protocol.
                Ok(404 | 503) if !had_events => {
                    self.not_yet.fetch_add(1, Ordering::Relaxed);
                }
                failed => {
                    let failed = format!("behind {}: {failed:?}", self.last());
                    self.failed.lock().unwrap().push(failed);
                }
            }
            thread::sleep(PAUSE);
        }
    }

    /// One stream; the status that it was answered with. One that breaks off has failed.
    fn follow_to_the_end(&self, endpoint: &Endpoint, is_over: &AtomicBool) -> io::Result<u16> {
        let mut connection = endpoint.connect()?;
        let last = self.last().to_string();
        let headers = [("last-event-id", last.as_str())];
        let followed = connection.follow("/events", &headers, is_over)?;
        let (status, body) = followed.ok_or(io::ErrorKind::ConnectionAborted)?;
        if status == 200 {
            self.streams.fetch_add(1, Ordering::Relaxed);
            let mut body = BufReader::new(body);
            while let Some(event) = next_event(&mut body)? {
                self.events.lock().unwrap().push(event);
            }
        }
        Ok(status)
    }
}

/// Has orders followed that come behind number 0, until `work` is done and each follower has the newest.
pub fn while_followed(
    bazaar: &mut Bazaar,
    endpoint: &Endpoint,
    work: impl FnOnce(&mut Bazaar, &Followers),
) -> Followers {
    let followers = Followers::default();
    thread::scope(|scope| {
        let (followers, raise) = (&followers, Raise(&followers.is_over));
        for follower in &followers.all {
            scope.spawn(move || follower.follow(endpoint, followers));
        }
        work(bazaar, followers);
        let newest = bazaar.trade(&Order::buy(1, "nvidia"));
        followers.wait_for(newest);
        drop(raise);
    });
    followers
}
