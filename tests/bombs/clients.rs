//! Clients whose latencies are measured: of lookups that the gateway answers by itself, and of trades.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{KeepAlive, Latencies, Raise, no_latencies};

/// What is looked up, and nobody trades: hits, as long as the gateway has its leases.
const LOOKED_UP: [&str; 4] = ["nvidia", "amazon", "intel", "tesla"];

/// What is traded.
const TRADED: [&str; 2] = ["meta", "nike"];

/// What clients ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    Lookups,
    Trades,
}

/// Clients that ask for the same, each over a connection of its own.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub asked: Asked,
    pub connections: u32,
    /// What all of them ask in a second, whether they are answered in time or not; without a pause
    /// where it is none.
    pub rate: Option<f64>,
}

/// Clients under way.
pub struct Clients {
    to: SocketAddr,
    crowds: [Crowd; 2],
    /// The stretch of time that it is now.
    stretch: AtomicUsize,
    /// Of each stretch, and of each crowd in it.
    latencies: Vec<[Mutex<Latencies>; 2]>,
    stop: AtomicBool,
}

impl Clients {
    /// Of a gateway, measured in so many stretches of time apart.
    pub fn of(to: SocketAddr, crowds: [Crowd; 2], stretches: usize) -> Self {
        let latencies = (0..stretches).map(|_| [(); 2].map(|()| Mutex::new(no_latencies())));
        Self {
            to,
            crowds,
            stretch: AtomicUsize::new(0),
            latencies: latencies.collect(),
            stop: AtomicBool::new(false),
        }
    }

    /// Has them ask while `meanwhile` goes on.
    ///
    /// # Panics
    /// Where one is not served.
    pub fn run<T>(&self, meanwhile: impl FnOnce() -> T) -> T {
        thread::scope(|scope| {
            for (index, crowd) in self.crowds.iter().enumerate() {
                for client in 0..crowd.connections {
                    scope.spawn(move || self.ask(index, *crowd, client));
                }
            }
            let _stop = Raise(&self.stop);
            meanwhile()
        })
    }

    /// What begins from now on belongs to that stretch.
    pub fn enter(&self, stretch: usize) {
        self.stretch.store(stretch, Ordering::Relaxed);
    }

    /// Of each stretch, and of each crowd in it.
    pub fn into_latencies(self) -> Vec<[Latencies; 2]> {
        let all = self.latencies.into_iter();
        let inner = |one: Mutex<_>| one.into_inner().unwrap_or_else(PoisonError::into_inner);
        all.map(|of_both| of_both.map(inner)).collect()
    }

    fn ask(&self, index: usize, crowd: Crowd, client: u32) {
        let requests = requests(crowd.asked);
        let interval = crowd
            .rate
            .map(|rate| Duration::from_secs_f64(f64::from(crowd.connections) / rate));
        // One after the other, rather than all at once.
        let phase = interval.unwrap_or_default() * client / crowd.connections;
        let mut due = Instant::now() + phase;
        let mut connection = KeepAlive::connect(self.to).expect("the gateway takes connections");
        let mut measured = (0, no_latencies());
        for request in requests.iter().cycle().skip(client as usize) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            // Of one that should have been asked before, also the time that it could not be.
            let begun = match interval {
                None => Instant::now(),
                Some(interval) => {
                    let begun = due;
                    thread::sleep(begun.saturating_duration_since(Instant::now()));
                    due += interval;
                    begun
                }
            };
            let stretch = self.stretch.load(Ordering::Relaxed);
            if stretch != measured.0 {
                self.hand_in(index, &mut measured, stretch);
            }
            let answer = connection.exchange(request).expect("clients are served");
            assert_eq!(answer.status, 200, "{answer:?}");
            let latency = begun.elapsed().as_micros() as u64;
            measured.1.saturating_record(latency);
        }
        self.hand_in(index, &mut measured, 0);
    }

    fn hand_in(&self, index: usize, measured: &mut (usize, Latencies), next: usize) {
        let (stretch, latencies) = std::mem::replace(measured, (next, no_latencies()));
        let all = self.latencies[stretch][index].lock();
        let mut all = all.unwrap_or_else(PoisonError::into_inner);
        all.add(latencies).expect("both have the same bounds");
    }
}

/// What is asked, over and over.
fn requests(asked: Asked) -> Vec<Vec<u8>> {
    let lookup = |name| format!("GET /stocks/{name} HTTP/1.1\r\nhost: bazaar\r\n\r\n");
    // By turns, so that stocks never run out.
    let trade = |name, side| {
        let body = format!(r#"{{"name":"{name}","type":"{side}","quantity":1}}"#);
        let length = body.len();
        format!("POST /orders HTTP/1.1\r\nhost: bazaar\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let requests: Vec<String> = match asked {
        Asked::Lookups => LOOKED_UP.map(lookup).into(),
        Asked::Trades => TRADED
            .iter()
            .flat_map(|name| ["sell", "buy"].map(|side| trade(name, side)))
            .collect(),
    };
    requests.into_iter().map(String::into_bytes).collect()
}
