//! Clients that trade without a pause, and a machine that has other work.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, setpriority_process};

use super::http::try_request;
use super::{Order, Raise, signal_by_pid};

/// Longest wait for an answer: more than a gateway gives itself.
const PATIENCE: Duration = Duration::from_secs(30);

/// What became of the trades of a while.
#[derive(Debug, Default)]
pub struct Trades {
    /// How long each took that was acknowledged, the shortest first.
    pub times: Vec<Duration>,
    /// The answers to those that were not.
    pub failed: Vec<String>,
}

impl Trades {
    /// Has clients trade at these gateways by turns, until `during` is over.
    pub fn of(gateways: &[SocketAddr], clients: usize, during: impl FnOnce()) -> Self {
        let over = AtomicBool::new(false);
        let mut trades = thread::scope(|scope| {
            let raise = Raise(&over);
            let clients: Vec<_> = (0..clients)
                .map(|client| {
                    let (over, gateway) = (&over, gateways[client % gateways.len()]);
                    scope.spawn(move || Self::of_client(gateway, over))
                })
                .collect();
            during();
            drop(raise);
            let mut all = Self::default();
            for client in clients {
                let trades = client.join().expect("clients do not panic");
                all.times.extend(trades.times);
                all.failed.extend(trades.failed);
            }
            all
        });
        trades.times.sort_unstable();
        trades
    }

    fn of_client(gateway: SocketAddr, over: &AtomicBool) -> Self {
        let body = Order::sell(1, "meta").json().to_string();
        let mut trades = Self::default();
        while !over.load(Ordering::Relaxed) {
            let began = Instant::now();
            match try_request(gateway, "POST", "/orders", &[], body.as_bytes(), PATIENCE) {
                Ok(answer) if answer.status == 200 => trades.times.push(began.elapsed()),
                Ok(answer) => trades.failed.push(format!("{answer:?}")),
                Err(error) => trades.failed.push(error.to_string()),
            }
        }
        trades
    }

    /// How many took longer.
    pub fn longer_than(&self, time: Duration) -> usize {
        self.times.iter().filter(|took| **took > time).count()
    }

    /// For people to read.
    pub fn summary(&self) -> String {
        let at = |share: usize| {
            let time = self
                .times
                .get((self.times.len() * share / 1000).min(self.times.len().max(1) - 1));
            time.map_or(0, Duration::as_millis)
        };
        format!(
            "{} trades, p50 {} ms, p99 {} ms, longest {} ms, {} failed",
            self.times.len(),
            at(500),
            at(990),
            at(1000),
            self.failed.len()
        )
    }
}

/// Other work of this machine: loops that have no end until this is dropped.
#[derive(Debug)]
pub struct Busy(Vec<Child>);

impl Busy {
    /// So many loops, with this thread's priority. They do nothing yet.
    pub fn later(loops: usize) -> Self {
        let waiting = |_| {
            Command::new("sh")
                .args(["-c", "kill -STOP $$; while :; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .expect("a shell starts")
        };
        Self((0..loops).map(waiting).collect())
    }

    /// They begin.
    pub fn begin(&self) {
        for child in &self.0 {
            signal_by_pid(child.id(), Signal::CONT);
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// Runs something in a thread of a lower priority, which all have that it starts.
pub fn nicely<T: Send>(nice: i32, run: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let nicely = scope.spawn(|| {
            // To Linux a thread is a process here.
            setpriority_process(None, nice).expect("everybody may be nicer");
            run()
        });
        nicely.join().expect("it does not panic")
    })
}
