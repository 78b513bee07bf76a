//! Lookups and trades in one stream over stocks of which few are wanted often: by a bazaar of one gateway and of more, and by nginx
//! in front of an application and PostgreSQL, which keeps answers for a second, or none. Whoever keeps them for a second answers with
//! what may have been traded since; a bazaar's answers are fresh, and so are those of nginx without a cache.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use super::sizes::write_stocks;
use super::{Bench, Claim, Figure, Side, Topic, Trial, alternate};
use crate::bars::Bound;
use crate::contender::application::{Behind, Caching};
use crate::contender::bazaar::Bazaar;
use crate::contender::postgres::Postgres;
use crate::error::Error;
use crate::generator::mix::{Mix, Mixed};
use crate::process::Process;
use crate::scenario::{BAZAAR, Peer};

/// How many of a hundred requests look up.
const SHARES: [u8; 2] = [95, 50];

/// How many stocks there are by default: as many as a gateway keeps.
const STOCKS: u64 = 10_000;

/// How many gateways a bazaar has.
const GATEWAYS: [u32; 4] = [1, 2, 4, 8];

/// For how long each is driven before anything counts: caches fill.
const WARM_UP_MS: u64 = 2_000;

/// What is asked for to see that a server is there.
const FIRST_PATH: &str = "/stocks/stock-1";

/// What a bazaar is to do of the rate of one whose answers are stale.
const STALE_RATIO: f64 = 0.7;

const RATE: &str = "requests";
const LOOKUPS_P999: &str = "lookups, p99.9";

pub fn measure(bench: Bench<'_>) -> Result<Vec<Trial>, Error> {
    let stocks = bench.sizes.stocks.unwrap_or(STOCKS);
    let file = write_stocks(&bench.plan.site.dir, stocks)?;
    let mut servers = bazaars(bench, &file)?;
    let mut absent = Vec::new();
    let wants = |peer| bench.plan.wants(peer);
    if wants(Peer::Nginx) && wants(Peer::Postgres) {
        match behind(bench, stocks) {
            Ok(peers) => servers.extend(peers),
            Err(missing @ Error::Missing { .. }) => {
                absent.push(format!("nginx in front of PostgreSQL: {missing}"));
            }
            Err(error) => return Err(error),
        }
    } else {
        absent.push("nginx in front of PostgreSQL, which `--peers` does not name".to_owned());
    }
    let trial = |lookups_percent: u8| -> Result<Trial, Error> {
        let title = format!(
            "Mixed life, {lookups_percent} % lookups, {} connections, {stocks} stocks",
            bench.sizes.connections
        );
        let run = Run {
            bench,
            lookups_percent,
            stocks: stocks as u32,
        };
        for server in &servers {
            run.drive(server, WARM_UP_MS)?;
        }
        let side = |server| Side::new(name_of(server), lacks_of(server), move || run.turn(server));
        let mut sides: Vec<Side<'_>> = servers.iter().map(side).collect();
        Ok(Trial {
            topic: Topic::Mixed,
            parties: alternate(&title, &mut sides, bench.plan.rounds)?,
            title,
            absent: absent.clone(),
            claims: claims(lookups_percent),
        })
    };
    SHARES.into_iter().map(trial).collect()
}

/// Somebody who answers lookups and takes orders.
struct Server {
    name: String,
    lacks: &'static str,
    addresses: Vec<SocketAddr>,
    running: Running,
}

enum Running {
    Bazaar {
        /// End before what they ask.
        _further: Vec<Process>,
        bazaar: Bazaar,
    },
    Behind {
        behind: Behind,
        /// Ends after those who ask it.
        _postgres: Rc<Postgres>,
    },
}

fn name_of(server: &Server) -> &str {
    &server.name
}

fn lacks_of(server: &Server) -> &'static str {
    server.lacks
}

/// A bazaar for each number of gateways: what one holds for its readers is no other's matter.
fn bazaars(bench: Bench<'_>, stocks: &Path) -> Result<Vec<Server>, Error> {
    let wanted = GATEWAYS.into_iter();
    wanted
        .take_while(|gateways| *gateways <= bench.sizes.gateways)
        .map(|gateways| {
            let name = match gateways {
                1 => BAZAAR.to_owned(),
                _ => format!("{BAZAAR}, {gateways} gateways"),
            };
            let bazaar = bench.start(&format!("mixed-{gateways}"), Some(stocks))?;
            let mut addresses = vec![bazaar.address()];
            let mut further = Vec::new();
            for number in 2..=gateways {
                let (address, process) = bazaar.another_gateway(number as usize)?;
                addresses.push(address);
                further.push(process);
            }
            Ok(Server {
                name,
                lacks: "",
                addresses,
                running: Running::Bazaar {
                    _further: further,
                    bazaar,
                },
            })
        })
        .collect()
}

/// nginx with a cache and without, in front of one PostgreSQL.
fn behind(bench: Bench<'_>, stocks: u64) -> Result<Vec<Server>, Error> {
    let site = &bench.plan.site;
    let postgres = Rc::new(Postgres::start(site, "PostgreSQL", 2)?);
    // Eight are there.
    postgres.sql(&format!(
        "INSERT INTO stock SELECT n, 'stock-' || n, 24063, 1000000000, 0, 1 FROM generate_series(9, {stocks}) AS n"
    ))?;
    postgres.sql("VACUUM ANALYZE stock")?;
    let server = |caching: Caching| -> Result<Server, Error> {
        let behind = Behind::start(site, caching, &postgres, FIRST_PATH)?;
        Ok(Server {
            name: caching.name().to_owned(),
            lacks: caching.lacks(),
            addresses: vec![behind.address],
            running: Running::Behind {
                behind,
                _postgres: Rc::clone(&postgres),
            },
        })
    };
    [Caching::Second, Caching::None]
        .into_iter()
        .map(server)
        .collect()
}

/// What is sent, and for how long.
#[derive(Clone, Copy)]
struct Run<'a> {
    bench: Bench<'a>,
    lookups_percent: u8,
    stocks: u32,
}

impl Run<'_> {
    fn drive(&self, server: &Server, duration_ms: u64) -> Result<Mixed, Error> {
        let mix = Mix {
            addresses: server.addresses.clone(),
            connections: self.bench.sizes.connections,
            duration_ms,
            lookups_percent: self.lookups_percent,
            stocks: self.stocks,
            seed: fastrand::u64(..),
        };
        mix.run(self.bench.plan.cpu)?.without_errors(&server.name)
    }

    fn turn(&self, server: &Server) -> Result<Vec<Figure>, Error> {
        let before = Asked::of(&server.running)?;
        let mixed = self.drive(server, self.bench.turn_ms())?;
        let hits = Asked::of(&server.running)?.hits_since(before, &mixed);
        Ok(vec![
            Figure::of(RATE, "per second", mixed.per_second()),
            Figure::of("p99", "µs", mixed.all.p99_us),
            Figure::of("p99.9", "µs", mixed.all.p999_us),
            Figure::of("lookups, p99", "µs", mixed.lookups.p99_us),
            Figure::of(LOOKUPS_P999, "µs", mixed.lookups.p999_us),
            Figure::of("trades, p99", "µs", mixed.trades.p99_us),
            Figure::of("trades, p99.9", "µs", mixed.trades.p999_us),
            Figure::of("hits", "% of lookups", hits),
        ])
    }
}

/// How many lookups were answered so far, as far as a server knows.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Asked {
    /// By the first gateway: out of its cache, and all of them.
    Gateway { hits: f64, all: f64 },
    /// By the application: what did not hit.
    Application { misses: f64 },
}

impl Asked {
    fn of(running: &Running) -> Result<Self, Error> {
        match running {
            Running::Bazaar { bazaar, .. } => {
                let status = bazaar.status()?;
                let counts = &status["cache"]["stocks"];
                let count = |name: &str| counts[name].as_f64().unwrap_or_default();
                let others = ["misses", "stale", "bypasses"].map(count);
                Ok(Self::Gateway {
                    hits: count("hits"),
                    all: count("hits") + others.iter().sum::<f64>(),
                })
            }
            Running::Behind { behind, .. } => Ok(Self::Application {
                misses: behind.passed()? as f64,
            }),
        }
    }

    /// In a hundred lookups.
    fn hits_since(self, before: Self, mixed: &Mixed) -> f64 {
        let share = match (before, self) {
            (
                Self::Gateway { hits, all },
                Self::Gateway {
                    hits: hits_now,
                    all: all_now,
                },
            ) => (hits_now - hits) / (all_now - all).max(1.0),
            (Self::Application { misses }, Self::Application { misses: misses_now }) => {
                1.0 - (misses_now - misses) / (mixed.lookups.count as f64).max(1.0)
            }
            _ => f64::NAN, // of two servers: nothing
        };
        100.0 * share
    }
}

fn claims(lookups_percent: u8) -> Vec<Claim> {
    let against = |caching: Caching, quantity, bound, what: &str| Claim {
        text: format!(
            "mixed life, {lookups_percent} % lookups: {what} {}",
            caching.name()
        ),
        ours: BAZAAR,
        theirs: vec![caching.name()],
        quantity,
        bound,
    };
    vec![
        against(
            Caching::Second,
            RATE,
            Bound::AtLeast(STALE_RATIO),
            "requests/s, none stale, at least 0.7 × those, stale, of",
        ),
        against(
            Caching::None,
            RATE,
            Bound::AtLeast(1.0),
            "requests/s at least 1.0 × those of",
        ),
        against(
            Caching::None,
            LOOKUPS_P999,
            Bound::AtMost(1.0),
            "p99.9 of lookups at most 1.0 × that of",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::mix::Latencies;

    #[test]
    fn hits_are_what_was_answered_without_asking() {
        let none = Latencies {
            count: 0,
            p50_us: 0.0,
            p99_us: 0.0,
            p999_us: 0.0,
            max_us: 0.0,
        };
        let mixed = Mixed {
            duration_us: 1,
            all: none,
            lookups: Latencies { count: 200, ..none },
            trades: none,
            refused: 0,
        };
        let gateway = |hits, all| Asked::Gateway { hits, all };
        let hits = gateway(90.0, 110.0).hits_since(gateway(15.0, 10.0), &mixed);
        assert_eq!(hits, 75.0);
        let application = |misses| Asked::Application { misses };
        let hits = application(60.0).hits_since(application(10.0), &mixed);
        assert_eq!(hits, 75.0);
        assert_eq!(
            application(10.0).hits_since(application(10.0), &mixed),
            100.0
        );
    }

    #[test]
    fn every_claim_names_what_the_sides_are_called() {
        for claim in claims(95) {
            assert_eq!(claim.ours, "bazaar");
            assert!(claim.text.contains(claim.theirs[0]), "{claim:?}");
            assert!([RATE, LOOKUPS_P999].contains(&claim.quantity));
        }
    }
}
