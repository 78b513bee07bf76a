//! What a connection takes that waits, a stock that is kept, and an order. Each server is started anew for each turn: what one has
//! taken it rarely gives back. Memory is what the kernel counts as resident in all of a server's processes.

use std::cell::Cell;
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use super::sizes::write_stocks;
use super::{Bench, Claim, Figure, Side, Topic, Trial, alternate};
use crate::bars::Bound;
use crate::contender::bazaar::Bazaar;
use crate::contender::caches::{self, Cache, PATH};
use crate::contender::postgres::Postgres;
use crate::contender::{Contender as _, Site, envoy};
use crate::error::Error;
use crate::generator::Load;
use crate::origin::{self, Origin};
use crate::process::{raise_open_files, resident_bytes};
use crate::scenario::{BAZAAR, Peer};

/// How many stocks are kept by default: less than a gateway keeps at most, which is 10,000.
const STOCKS: u64 = 8_000;

/// Requests before anything is counted: what a server takes for its first ones it does not take for each.
const WARM_UP: u64 = 200;

/// How many connections trade.
const TRADERS: u32 = 64;

/// How many servers of PostgreSQL's have every order.
const STANDBYS: usize = 2;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest answer, head and body.
const ANSWER_BYTES_MAX: usize = 16 << 10;

const POSTGRES: &str = "PostgreSQL";

const IDLE: &str = "an idle connection";
const KEPT: &str = "a stock that is kept";
const ORDER: &str = "an order, on all disks";

/// Starts a server that keeps answers, or gives one.
type Start = fn(&Site, &Origin) -> Result<Cache, Error>;

/// Beside whom connections wait.
const FOR_CONNECTIONS: [(Peer, &str, Start); 4] = [
    (Peer::Nginx, "nginx", caches::nginx),
    (Peer::Haproxy, "haproxy", caches::haproxy),
    (Peer::Varnish, "varnish", caches::varnish),
    (Peer::Envoy, "Envoy, constant", envoy::direct),
];

/// Beside whom stocks are kept: in memory. nginx keeps them in files, of which the kernel holds copies that are nobody's.
const FOR_STOCKS: [(Peer, &str, Start); 3] = [
    (Peer::Haproxy, "haproxy", caches::haproxy),
    (Peer::Varnish, "varnish", caches::varnish),
    (Peer::Envoy, "Envoy, cache", envoy::cache),
];

pub fn measure(bench: Bench<'_>) -> Result<Vec<Trial>, Error> {
    raise_open_files();
    let turns = Turns {
        bench,
        origin: origin::start()?,
        begun: Cell::new(0),
    };
    Ok(vec![turns.connections()?, turns.stocks()?, turns.orders()?])
}

/// Makes each turn a place of its own.
struct Turns<'a> {
    bench: Bench<'a>,
    origin: Origin,
    begun: Cell<u32>,
}

impl Turns<'_> {
    /// Has one turn measured in a directory that is gone afterwards.
    fn turn<T>(&self, measure: impl FnOnce(&Site) -> Result<T, Error>) -> Result<T, Error> {
        self.begun.set(self.begun.get() + 1);
        let site = &self.bench.plan.site;
        let dir = site.make_dir(&format!("turn-{}", self.begun.get()))?;
        let own = Site {
            dir: dir.clone(),
            ..site.clone()
        };
        let measured = measure(&own);
        // Where that cannot be, it goes with the run's directory.
        let _ = fs::remove_dir_all(dir);
        measured
    }

    /// Whoever of these is installed and asked for, as sides; who is not is absent.
    fn peers(&self, of: &[(Peer, &'static str, Start)]) -> Result<(Peers, Vec<String>), Error> {
        let (mut peers, mut absent) = (Vec::new(), Vec::new());
        for (peer, name, start) in of.iter().copied() {
            if !self.bench.plan.wants(peer) {
                absent.push(format!("{name}, which `--peers` does not name"));
                continue;
            }
            // It has ended by the time that its directory goes.
            let lacks = self.turn(|site| Ok(start(site, &self.origin)?.lacks()));
            match lacks {
                Ok(lacks) => peers.push((name, lacks, start)),
                Err(missing @ Error::Missing { .. }) => absent.push(format!("{name}: {missing}")),
                Err(error) => return Err(error),
            }
        }
        Ok((peers, absent))
    }

    fn connections(&self) -> Result<Trial, Error> {
        let idle = self.bench.sizes.idle;
        let (peers, absent) = self.peers(&FOR_CONNECTIONS)?;
        let bazaar = || {
            self.turn(|site| {
                let bazaar = self.bench.start_at(site, "bazaar", None)?;
                let gateway = bazaar.services()["gateway"].pid;
                let memory = || resident_bytes(gateway);
                Ok(vec![while_idle(bazaar.address(), idle, memory)?])
            })
        };
        let mut sides = vec![Side::new(BAZAAR, "", bazaar)];
        for (name, lacks, start) in peers {
            let peer = move || {
                self.turn(|site| {
                    let cache = start(site, &self.origin)?;
                    let memory = || cache.resident_bytes();
                    Ok(vec![while_idle(cache.address(), idle, memory)?])
                })
            };
            sides.push(Side::new(name, lacks, peer));
        }
        let title = format!("Memory of {idle} connections that wait");
        Ok(Trial {
            topic: Topic::Memory,
            parties: alternate(&title, &mut sides, self.bench.plan.rounds)?,
            title,
            absent,
            claims: vec![Claim {
                text: "memory of an idle connection: at most 1.0 × HAProxy's".to_owned(),
                ours: BAZAAR,
                theirs: vec!["haproxy"],
                quantity: IDLE,
                bound: Bound::AtMost(1.0),
            }],
        })
    }

    fn stocks(&self) -> Result<Trial, Error> {
        let stocks = self.bench.sizes.stocks.unwrap_or(STOCKS);
        let file = write_stocks(&self.bench.plan.site.dir, stocks)?;
        let (peers, absent) = self.peers(&FOR_STOCKS)?;
        let bazaar = || {
            self.turn(|site| {
                let bazaar = self.bench.start_at(site, "bazaar", Some(&file))?;
                let pid = |service: &str| bazaar.services()[service].pid;
                let (gateway, catalog) = (pid("gateway"), pid("catalog"));
                let before = resident_bytes(catalog);
                let kept = while_kept(bazaar.address(), stocks, || resident_bytes(gateway))?;
                let lent = grown(before, resident_bytes(catalog), stocks);
                Ok(vec![kept, Figure::of("the catalog's share", "bytes", lent)])
            })
        };
        let mut sides = vec![Side::new(BAZAAR, "", bazaar)];
        for (name, lacks, start) in peers {
            let peer = move || {
                self.turn(|site| {
                    let cache = start(site, &self.origin)?;
                    let memory = || cache.resident_bytes();
                    Ok(vec![while_kept(cache.address(), stocks, memory)?])
                })
            };
            sides.push(Side::new(name, lacks, peer));
        }
        let title = format!("Memory of {stocks} stocks that are kept");
        Ok(Trial {
            topic: Topic::Memory,
            parties: alternate(&title, &mut sides, self.bench.plan.rounds)?,
            title,
            absent,
            claims: vec![Claim {
                text: "memory of a stock that is kept: at most 1.0 × that of HAProxy's answer"
                    .to_owned(),
                ours: BAZAAR,
                theirs: vec!["haproxy"],
                quantity: KEPT,
                bound: Bound::AtMost(1.0),
            }],
        })
    }

    fn orders(&self) -> Result<Trial, Error> {
        let mut absent = Vec::new();
        let bazaar = || self.turn(|site| self.orders_of_bazaar(site));
        let mut sides = vec![Side::new(BAZAAR, "", bazaar)];
        if self.bench.plan.wants(Peer::Postgres) {
            let started = self.turn(|site| Postgres::start(site, POSTGRES, STANDBYS).map(drop));
            match started {
                Ok(()) => {
                    let postgres = || self.turn(|site| self.orders_of_postgres(site));
                    sides.push(Side::new(POSTGRES, "a policy in wasm; a cache", postgres));
                }
                Err(missing @ Error::Missing { .. }) => {
                    absent.push(format!("{POSTGRES}: {missing}"));
                }
                Err(error) => return Err(error),
            }
        } else {
            absent.push(format!("{POSTGRES}, which `--peers` does not name"));
        }
        let title = "Room for an order".to_owned();
        Ok(Trial {
            topic: Topic::Memory,
            parties: alternate(&title, &mut sides, self.bench.plan.rounds)?,
            title,
            absent,
            claims: vec![Claim {
                text: "room for an order, on four disks: at most 1.0 × PostgreSQL's on three, without its log"
                    .to_owned(),
                ours: BAZAAR,
                theirs: vec![POSTGRES],
                quantity: ORDER,
                bound: Bound::AtMost(1.0),
            }],
        })
    }

    fn load(&self) -> Load {
        Load {
            connections: TRADERS,
            seconds: self.bench.plan.seconds,
            cpu: self.bench.plan.cpu,
        }
    }

    /// On disks when it has ended: its logs are moved into its databases then, as they are before orders are placed.
    fn orders_of_bazaar(&self, site: &Site) -> Result<Vec<Figure>, Error> {
        let bazaar = self.bench.start_at(site, "bazaar", None)?;
        let data = bazaar.dir().join("data");
        drop(bazaar);
        let bytes_before = file_bytes(&data)?;
        let mut bazaar = self.bench.start_at(site, "bazaar", None)?;
        let memory = |bazaar: &Bazaar| -> u64 { bazaar.memory().values().sum() };
        let memory_before = memory(&bazaar);
        let orders = bazaar.measure(&self.load())?.requests;
        let held = grown(memory_before, memory(&bazaar), orders);
        drop(bazaar);
        Ok(vec![
            Figure::of(
                ORDER,
                "bytes",
                grown(bytes_before, file_bytes(&data)?, orders),
            ),
            Figure::of("an order, in memory of all services", "bytes", held),
        ])
    }

    /// Its tables on each server; its log, which it keeps for a while, does not count.
    fn orders_of_postgres(&self, site: &Site) -> Result<Vec<Figure>, Error> {
        let mut postgres = Postgres::start(site, POSTGRES, STANDBYS)?;
        let before = table_bytes(&postgres)?;
        let orders = postgres.measure(&self.load())?.requests;
        let each = grown(before, table_bytes(&postgres)?, orders);
        let all = each * (1 + STANDBYS) as f64;
        Ok(vec![Figure::of(ORDER, "bytes", all)])
    }
}

/// Names, what they do not offer, and how they are started.
type Peers = Vec<(&'static str, &'static str, Start)>;

/// What each of so many took.
fn grown(before: u64, after: u64, count: u64) -> f64 {
    (after as f64 - before as f64) / count.max(1) as f64
}

/// Connects so many times, has one answer over each connection, and keeps all of them.
fn while_idle(
    address: SocketAddr,
    connections: u32,
    memory: impl Fn() -> u64,
) -> Result<Figure, Error> {
    let failed = || Error::machine("a connection that is to wait");
    let request = request(PATH);
    let mut first = Connection::to(address).map_err(failed())?;
    for _ in 0..WARM_UP {
        first.ask(&request).map_err(failed())?;
    }
    let before = memory();
    let mut idle = Vec::with_capacity(connections as usize);
    for _ in 0..connections {
        let mut connection = Connection::to(address).map_err(failed())?;
        connection.ask(&request).map_err(failed())?;
        idle.push(connection);
    }
    let each = grown(before, memory(), connections.into());
    drop(idle);
    Ok(Figure::of(IDLE, "bytes", each))
}

/// Asks for each stock once.
fn while_kept(address: SocketAddr, stocks: u64, memory: impl Fn() -> u64) -> Result<Figure, Error> {
    let failed = || Error::machine("a stock that is to be kept");
    let mut connection = Connection::to(address).map_err(failed())?;
    let first = request("/stocks/stock-1");
    for _ in 0..WARM_UP {
        connection.ask(&first).map_err(failed())?;
    }
    let before = memory();
    for number in 2..=stocks {
        let request = request(&format!("/stocks/stock-{number}"));
        connection.ask(&request).map_err(failed())?;
    }
    let each = grown(before, memory(), stocks - 1);
    Ok(Figure::of(KEPT, "bytes", each))
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
}

/// A connection that is kept.
struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    fn to(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            received: Vec::new(),
        })
    }

    /// One exchange. Answers are of stocks: their bodies end as JSON of one object in another does, and nowhere before.
    fn ask(&mut self, request: &str) -> io::Result<()> {
        self.stream.write_all(request.as_bytes())?;
        self.received.clear();
        let mut part = [0; 2048];
        while !self.received.ends_with(b"}}") {
            let count = self.stream.read(&mut part)?;
            self.received.extend_from_slice(&part[..count]);
            if count == 0 || self.received.len() > ANSWER_BYTES_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        match self.received.starts_with(b"HTTP/1.1 200") {
            true => Ok(()),
            false => Err(io::Error::other(
                String::from_utf8_lossy(&self.received).into_owned(),
            )),
        }
    }
}

/// How long all files in a directory are, and in those in it.
fn file_bytes(dir: &Path) -> Result<u64, Error> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).map_err(Error::file(dir))? {
        let path = entry.map_err(Error::file(dir))?.path();
        let metadata = fs::symlink_metadata(&path).map_err(Error::file(&path))?;
        bytes += match metadata.is_dir() {
            true => file_bytes(&path)?,
            false => metadata.len(),
        };
    }
    Ok(bytes)
}

fn table_bytes(postgres: &Postgres) -> Result<u64, Error> {
    let printed = postgres
        .sql("SELECT pg_total_relation_size('journal') + pg_total_relation_size('stock')")?;
    printed.trim().parse().map_err(|_| Error::Wrong {
        name: POSTGRES.to_owned(),
        answer: printed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_kept_and_each_is_counted() {
        let origin = origin::start().unwrap();
        let reads = Cell::new(0);
        let memory = || {
            reads.set(reads.get() + 1);
            reads.get() * 5_000
        };
        let figure = while_idle(origin.address, 50, memory).unwrap();
        assert_eq!((figure.value, figure.unit), (100.0, "bytes"));
        assert_eq!(origin.answers(), WARM_UP + 50);
        let figure = while_kept(origin.address, 11, || 0).unwrap();
        assert_eq!(figure.value, 0.0);
        assert_eq!(origin.answers(), 2 * WARM_UP + 60);
    }

    #[test]
    fn files_count_wherever_they_are() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("deep")).unwrap();
        fs::write(dir.path().join("a"), [0; 10]).unwrap();
        fs::write(dir.path().join("deep").join("b"), [0; 5]).unwrap();
        assert_eq!(file_bytes(dir.path()).unwrap(), 15);
        assert!(file_bytes(&dir.path().join("nowhere")).is_err());
    }
}
