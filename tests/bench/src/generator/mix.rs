//! Lookups and trades in one stream, over stocks of which few are wanted often and many seldom: by Zipf's law, with the
//! exponent that YCSB has (Cooper et al., "Benchmarking Cloud Serving Systems with YCSB", 2010, section 4.1). wrk knows neither
//! p99.9 of each kind nor several servers.
//!
//! The parent runs it as a process of its own, `bench mix`, as it does with [`put`](super::put). It needs no more of a server
//! than `GET /stocks/{name}` and `POST /orders`.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Load;
use super::tally::Tally;
use crate::error::Error;
use crate::messages::Messages;
use crate::process;

/// How much rarer each next stock is.
const EXPONENT: f64 = 0.99;

/// What is sent, where, and for how long.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct Mix {
    /// The servers: clients are spread over them
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', required = true)]
    pub addresses: Vec<SocketAddr>,
    /// How many clients, each with a connection of its own
    #[arg(long)]
    pub connections: u32,
    /// For how long, in milliseconds
    #[arg(long)]
    pub duration_ms: u64,
    /// How many of a hundred requests look a stock up; all others trade one share
    #[arg(long, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub lookups_percent: u8,
    /// How many stocks there are, called stock-1 and so on; those of low numbers are wanted most
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub stocks: u32,
    /// Repeats the choices of another run
    #[arg(long)]
    pub seed: u64,
}

/// What was measured. Its line of JSON has these fields.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Mixed {
    pub duration_us: u64,
    /// All that was answered with success.
    pub all: Latencies,
    pub lookups: Latencies,
    pub trades: Latencies,
    /// How many were answered with something else.
    pub refused: u64,
}

/// Of requests of one kind; all are 0 where there was none.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    pub count: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    /// What one request in a thousand took at least.
    pub p999_us: f64,
    pub max_us: f64,
}

impl Latencies {
    fn of(tally: &Tally) -> Self {
        Self {
            count: tally.answered(),
            p50_us: tally.quantile_us(0.5),
            p99_us: tally.quantile_us(0.99),
            p999_us: tally.quantile_us(0.999),
            max_us: tally.quantile_us(1.0),
        }
    }
}

impl Mixed {
    /// Requests answered with success in a second.
    pub fn per_second(&self) -> f64 {
        self.all.count as f64 * 1e6 / self.duration_us.max(1) as f64
    }

    /// These figures, unless a request failed: errors are often faster than answers.
    pub fn without_errors(self, name: &str) -> Result<Self, Error> {
        if self.refused == 0 && self.all.count > 0 {
            return Ok(self);
        }
        Err(Error::Errors {
            name: name.to_owned(),
            requests: self.all.count + self.refused,
            refused: self.refused,
            broken: 0,
        })
    }
}

impl Mix {
    /// Runs it as a process of its own, on the processor that `cpu` names.
    pub fn run(&self, cpu: Option<usize>) -> Result<Mixed, Error> {
        let this = std::env::current_exe().map_err(Error::machine("cannot find this program"))?;
        let load = Load {
            connections: self.connections,
            seconds: 0, // it is told milliseconds
            cpu,
        };
        let addresses: Vec<String> = self.addresses.iter().map(ToString::to_string).collect();
        let mut line = load.command(this);
        line.arg("mix")
            .arg(format!("--addresses={}", addresses.join(",")))
            .arg(format!("--connections={}", self.connections))
            .arg(format!("--duration-ms={}", self.duration_ms))
            .arg(format!("--lookups-percent={}", self.lookups_percent))
            .arg(format!("--stocks={}", self.stocks))
            .arg(format!("--seed={}", self.seed));
        let output = process::run(line)?;
        let last = output.trim_end().lines().next_back().unwrap_or_default();
        serde_json::from_str(last).map_err(|_| Error::NoFigures {
            generator: "bench mix".to_owned(),
            output,
        })
    }

    /// Drives the servers from this thread.
    pub fn send(&self) -> Result<Mixed, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Error::machine("cannot start a runtime"))?;
        runtime
            .block_on(self.drive())
            .map_err(|error| Error::Failed {
                program: "mix".to_owned(),
                output: error.to_string(),
            })
    }

    async fn drive(&self) -> io::Result<Mixed> {
        let wanted = Arc::new(Wanted::of(self));
        let mut random = Rng::with_seed(self.seed);
        let mut clients = Vec::new();
        let addresses = self.addresses.iter().cycle();
        for (_, address) in (0..self.connections).zip(addresses) {
            clients.push(Client {
                server: Messages::over(TcpStream::connect(address).await?)?,
                wanted: Arc::clone(&wanted),
                random: random.fork(),
                lookups: Tally::new(),
                trades: Tally::new(),
            });
        }
        let start = Instant::now();
        let end = start + Duration::from_millis(self.duration_ms);
        let mut running = JoinSet::new();
        for client in clients {
            running.spawn(client.ask_until(end));
        }
        let (mut lookups, mut trades) = (Tally::new(), Tally::new());
        while let Some(ended) = running.join_next().await {
            let client = ended.map_err(io::Error::other)??;
            lookups.add(&client.lookups);
            trades.add(&client.trades);
        }
        let duration_us = start.elapsed().as_micros() as u64;
        let (of_lookups, of_trades) = (Latencies::of(&lookups), Latencies::of(&trades));
        lookups.add(&trades);
        Ok(Mixed {
            duration_us,
            all: Latencies::of(&lookups),
            lookups: of_lookups,
            trades: of_trades,
            refused: lookups.refused(),
        })
    }
}

/// What may be asked for, and how often it is.
struct Wanted {
    lookups_percent: u8,
    zipf: Zipf,
    stocks: Vec<Requests>,
}

/// What is asked of one stock.
struct Requests {
    lookup: Vec<u8>,
    /// To buy one share, and to sell one.
    orders: [Vec<u8>; 2],
}

impl Wanted {
    fn of(mix: &Mix) -> Self {
        Self {
            lookups_percent: mix.lookups_percent,
            zipf: Zipf::over(mix.stocks as usize),
            stocks: (1..=mix.stocks).map(Requests::of).collect(),
        }
    }
}

impl Requests {
    fn of(number: u32) -> Self {
        let order = |side: &str| {
            let body = format!(r#"{{"name":"stock-{number}","type":"{side}","quantity":1}}"#);
            let length = body.len();
            let head = "POST /orders HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json";
            format!("{head}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
        };
        let lookup = format!("GET /stocks/stock-{number} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        Self {
            lookup: lookup.into_bytes(),
            orders: ["buy", "sell"].map(order),
        }
    }
}

/// One connection, and what was seen over it.
struct Client {
    server: Messages,
    wanted: Arc<Wanted>,
    random: Rng,
    lookups: Tally,
    trades: Tally,
}

impl Client {
    async fn ask_until(mut self, end: Instant) -> io::Result<Self> {
        loop {
            let start = Instant::now();
            if start >= end {
                return Ok(self);
            }
            let stock = &self.wanted.stocks[self.wanted.zipf.pick(&mut self.random)];
            let is_lookup = self.random.u8(0..100) < self.wanted.lookups_percent;
            let request = match is_lookup {
                true => &stock.lookup,
                false => &stock.orders[usize::from(self.random.bool())],
            };
            self.server.send(request).await?;
            let answer = self.server.next().await?;
            let status = answer.ok_or(ErrorKind::UnexpectedEof)?.status();
            let tally = match is_lookup {
                true => &mut self.lookups,
                false => &mut self.trades,
            };
            match status {
                200..=299 => tally.count(start.elapsed()),
                _ => tally.refuse(),
            }
        }
    }
}

/// Numbers from 0 on, each next one rarer.
struct Zipf {
    /// Of each, how often it or one before it is picked, in units of the first.
    cumulative: Vec<f64>,
}

impl Zipf {
    fn over(count: usize) -> Self {
        let weights = (1..=count).map(|rank| (rank as f64).powf(-EXPONENT));
        let cumulative = weights.scan(0.0, |sum, weight| {
            *sum += weight;
            Some(*sum)
        });
        Self {
            cumulative: cumulative.collect(),
        }
    }

    fn pick(&self, random: &mut Rng) -> usize {
        let last = self.cumulative.len() - 1;
        let sought = random.f64() * self.cumulative[last];
        let found = self.cumulative.partition_point(|sum| *sum <= sought);
        found.min(last)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;

    #[test]
    fn few_stocks_are_wanted_often_and_all_sometimes() {
        let zipf = Zipf::over(100);
        let mut random = Rng::with_seed(7);
        let mut counts = vec![0_u32; 100];
        for _ in 0..100_000 {
            counts[zipf.pick(&mut random)] += 1;
        }
        let ratio =
            |often: usize, seldom: usize| f64::from(counts[often]) / f64::from(counts[seldom]);
        assert!((ratio(0, 9) / 9.77 - 1.0).abs() < 0.1, "{counts:?}");
        assert!((ratio(0, 1) / 1.986 - 1.0).abs() < 0.05, "{counts:?}");
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        assert_eq!(Zipf::over(1).pick(&mut random), 0);
    }

    /// Answers lookups, and refuses orders.
    fn serve(stream: std::net::TcpStream) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            stream.set_nonblocking(true).unwrap();
            let mut client = Messages::over(TcpStream::from_std(stream).unwrap()).unwrap();
            while let Ok(Some(request)) = client.next().await {
                let answer = match request.request() {
                    ("GET", target) if target.starts_with("/stocks/stock-") => {
                        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
                    }
                    _ => "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
                };
                client.send(answer.as_bytes()).await.unwrap();
            }
        });
    }

    #[test]
    fn both_kinds_are_sent_as_often_as_they_should_and_what_is_refused_is_said() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || serve(stream));
            }
        });
        let mix = Mix {
            addresses: vec![address],
            connections: 2,
            duration_ms: 500,
            lookups_percent: 50,
            stocks: 100,
            seed: 1,
        };
        let mixed = mix.send().unwrap();
        assert!(mixed.lookups.count > 100, "{mixed:?}");
        let share = mixed.refused as f64 / (mixed.refused + mixed.lookups.count) as f64;
        assert!((0.3..0.7).contains(&share), "{mixed:?}");
        assert_eq!((mixed.trades.count, mixed.all), (0, mixed.lookups));
        assert!(mixed.lookups.p50_us <= mixed.lookups.p999_us, "{mixed:?}");
        assert!(mixed.without_errors("a server").is_err());
        let lookups = Mix {
            lookups_percent: 100,
            ..mix
        };
        let mixed = lookups.send().unwrap().without_errors("a server").unwrap();
        assert!(mixed.per_second() > 100.0 && mixed.trades.p999_us == 0.0);
    }
}
