//! What happens to replicas beside trades.

use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::Moment;
use crate::contender::bazaar::Bazaar;
use crate::error::Error;
use crate::generator::mix::Mix;
use crate::growth::{REPLICAS, held};
use crate::process::{Process, signal};

/// How long is traded between two looks at who is in sync.
const TRADED_MS: u64 = 200;

/// Longest wait for replicas to be as they should.
const LEVEL_WAIT_MAX: Duration = Duration::from_secs(120);

/// Longest wait for a replica that comes back with nothing, and between two looks at it.
const CATCH_UP_WAIT_MAX: Duration = Duration::from_secs(3600);
const POLL: Duration = Duration::from_millis(50);

/// A bazaar whose replicas end, and are started again.
pub struct Replicas {
    /// Those that were started again; they end before the bazaar.
    again: BTreeMap<u32, Process>,
    bazaar: Bazaar,
    trades: Mix,
    cpu: Option<usize>,
}

impl Replicas {
    /// `trades` is what is asked to find out who is in sync.
    pub fn of(bazaar: Bazaar, trades: Mix, cpu: Option<usize>) -> Self {
        let trades = Mix {
            duration_ms: TRADED_MS,
            ..trades
        };
        Self {
            again: BTreeMap::new(),
            bazaar,
            trades,
            cpu,
        }
    }

    fn leader(&self) -> Result<u32, Error> {
        let status = self.bazaar.status()?;
        let leader = status["leader"].as_u64();
        let leader = leader.and_then(|leader| u32::try_from(leader).ok());
        leader.ok_or_else(|| wrong(&status, "nobody leads"))
    }

    /// One that does not lead.
    fn follower(&self) -> Result<u32, Error> {
        let leader = self.leader()?;
        let mut followers = REPLICAS.into_iter().filter(|id| *id != leader);
        Ok(followers.next().expect("there is more than one replica"))
    }

    fn signal(&self, id: u32, which: Signal) {
        let again = self.again.get(&id).map(Process::pid);
        let pid = again.unwrap_or_else(|| self.bazaar.services()[&format!("order-{id}")].pid);
        signal(pid, which);
    }

    fn kill(&mut self, id: u32) {
        self.signal(id, Signal::KILL);
        self.again.remove(&id);
    }

    fn restart(&mut self, id: u32) -> Result<(), Error> {
        let process = self.bazaar.start_replica(id)?;
        self.again.insert(id, process);
        Ok(())
    }

    /// Trades for as long as it takes until so many are in sync.
    fn trade_until_in_sync(&self, count: usize) -> Result<(), Error> {
        let start = Instant::now();
        loop {
            self.trades.run(self.cpu)?;
            let status = self.bazaar.status()?;
            let in_sync = status["catalog"]["in_sync"].as_array();
            if in_sync.is_some_and(|in_sync| in_sync.len() == count) {
                return Ok(());
            }
            if start.elapsed() > LEVEL_WAIT_MAX {
                return Err(wrong(&status, "too many or too few are in sync"));
            }
        }
    }
}

fn wrong(status: &Value, what: &str) -> Error {
    Error::Wrong {
        name: "the bazaar".to_owned(),
        answer: format!("{what}: {status}"),
    }
}

/// The leader is killed.
pub struct Failover<'a> {
    replicas: &'a mut Replicas,
    killed: Option<u32>,
}

impl<'a> Failover<'a> {
    pub fn of(replicas: &'a mut Replicas) -> Self {
        let killed = None;
        Self { replicas, killed }
    }
}

impl Moment for Failover<'_> {
    fn happen(&mut self) -> Result<(), Error> {
        let leader = self.replicas.leader()?;
        self.replicas.kill(leader);
        self.killed = Some(leader);
        Ok(())
    }

    fn mend(&mut self) -> Result<(), Error> {
        if let Some(killed) = self.killed.take() {
            self.replicas.restart(killed)?;
        }
        self.replicas.trade_until_in_sync(REPLICAS.len())
    }
}

/// The leader is killed while one of the others lags behind, which comes round at that moment, and must not lead.
pub struct Laggard<'a> {
    replicas: &'a mut Replicas,
    lags: u32,
    killed: Option<u32>,
}

impl<'a> Laggard<'a> {
    pub fn of(replicas: &'a mut Replicas) -> Self {
        Self {
            replicas,
            lags: 0,
            killed: None,
        }
    }
}

impl Moment for Laggard<'_> {
    fn prepare(&mut self) -> Result<(), Error> {
        self.lags = self.replicas.follower()?;
        self.replicas.signal(self.lags, Signal::STOP);
        let lags = self.replicas.trade_until_in_sync(REPLICAS.len() - 1);
        if lags.is_err() {
            self.replicas.signal(self.lags, Signal::CONT);
        }
        lags
    }

    fn happen(&mut self) -> Result<(), Error> {
        let leader = self.replicas.leader()?;
        self.replicas.kill(leader);
        self.killed = Some(leader);
        self.replicas.signal(self.lags, Signal::CONT);
        Ok(())
    }

    fn mend(&mut self) -> Result<(), Error> {
        let leader = self.replicas.leader()?;
        if leader == self.lags {
            return Err(Error::Wrong {
                name: "the bazaar".to_owned(),
                answer: format!("order-{leader} leads, which lagged behind"),
            });
        }
        if let Some(killed) = self.killed.take() {
            self.replicas.restart(killed)?;
        }
        self.replicas.trade_until_in_sync(REPLICAS.len())
    }
}

/// A replica comes back with an empty disk, and has so many rows to fetch.
pub struct Rejoin<'a> {
    replicas: &'a mut Replicas,
    rows: u64,
    lost: u32,
}

impl<'a> Rejoin<'a> {
    pub fn of(replicas: &'a mut Replicas, rows: u64) -> Self {
        let lost = 0;
        Self {
            replicas,
            rows,
            lost,
        }
    }
}

impl Moment for Rejoin<'_> {
    /// Whoever trades finds out that it is gone before anything is measured.
    fn prepare(&mut self) -> Result<(), Error> {
        self.lost = self.replicas.follower()?;
        self.replicas.kill(self.lost);
        self.replicas.trade_until_in_sync(REPLICAS.len() - 1)?;
        let dir = self.replicas.bazaar.replica_dir(self.lost);
        fs::remove_dir_all(&dir).map_err(Error::file(&dir))
    }

    fn happen(&mut self) -> Result<(), Error> {
        self.replicas.restart(self.lost)?;
        let start = Instant::now();
        loop {
            let status = self.replicas.bazaar.status()?;
            if held(&status, self.lost) >= self.rows {
                return Ok(());
            }
            if start.elapsed() > CATCH_UP_WAIT_MAX {
                return Err(wrong(&status, "the replica does not catch up"));
            }
            sleep(POLL);
        }
    }

    fn mend(&mut self) -> Result<(), Error> {
        self.replicas.trade_until_in_sync(REPLICAS.len())
    }
}
