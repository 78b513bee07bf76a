//! What is compared: cached lookups, and trades, one by one and in batches.

use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::collector;
use crate::contender::bazaar::{Batches, Bazaar, Setup};
use crate::contender::caches::{self, Cache, Started};
use crate::contender::etcd::{Cluster, Etcd, Protocol};
use crate::contender::nats::Nats;
use crate::contender::postgres::Postgres;
use crate::contender::{Contender, Site, envoy, workerd};
use crate::error::Error;
use crate::generator::Load;
use crate::origin::{self, Origin};
use crate::rounds::{Series, alternate};

/// What reports call Bazaar with its default policy.
pub const BAZAAR: &str = "bazaar";

/// Bazaar with the same policy compiled into the gateway.
pub const NATIVE: &str = "bazaar, native policy";

/// Bazaar with its catalog's data in PostgreSQL, of which there is one synchronous standby.
pub const ON_POSTGRES: &str = "bazaar, on PostgreSQL";

/// That PostgreSQL by itself.
pub const ONE_STANDBY: &str = "PostgreSQL, one standby";

/// Bazaar of another build.
const BEFORE: &str = "bazaar, before";

/// Bazaar that traces requests.
pub const TRACED: &str = "bazaar, traced";

/// How many connections look up.
pub const LOOKUP_CONNECTIONS: u32 = 64;

/// How many connections trade, one after the other.
pub const TRADE_CONNECTIONS: [u32; 3] = [1, 5, 64];

/// How many connections send batches, and how many orders there are in each, one size after the other.
const BATCH_CONNECTIONS: u32 = 8;
const BATCH_ORDERS: [u64; 3] = [64, 256, 1_024];

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One stock, from the cache.
    Lookups,
    /// Orders, each durable at all replicas.
    Trades,
    /// The same, many in each request.
    Batches,
}

/// A server that Bazaar is compared with, however many ways it is set up in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Peer {
    /// Bazaar itself, with the policy compiled in.
    Native,
    Nginx,
    Haproxy,
    Varnish,
    /// With a constant, its cache, and a filter in WebAssembly.
    Envoy,
    Workerd,
    /// `wasmtime serve`.
    Wasmtime,
    /// By JSON and by gRPC.
    Etcd,
    Nats,
    /// With two standbys and with one, and Bazaar on the latter.
    Postgres,
}

/// Starts a server that lookups are compared with.
type Start = fn(&Site, &Origin) -> Result<Cache, Error>;

/// What lookups are compared with: which peer's, its name in messages, and how it is started.
const CACHES: [(Peer, &str, Start); 8] = [
    (Peer::Nginx, "nginx", caches::nginx),
    (Peer::Haproxy, "HAProxy", caches::haproxy),
    (Peer::Varnish, "Varnish", caches::varnish),
    (Peer::Envoy, "Envoy, constant", envoy::direct),
    (Peer::Envoy, "Envoy, cache", envoy::cache),
    (Peer::Envoy, "Envoy, Proxy-Wasm", envoy::wasm),
    (Peer::Workerd, "workerd", workerd::workerd),
    (Peer::Wasmtime, "wasmtime serve", caches::wasmtime),
];

/// One comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scenario {
    /// What was asked for.
    pub kind: Kind,
    /// By how many connections.
    pub connections: u32,
    /// Everybody's figures.
    pub series: Vec<Series>,
    /// Who did not take part, and why.
    pub absent: Vec<String>,
}

impl Scenario {
    /// A contender's figures.
    pub fn series(&self, contender: &str) -> Option<&Series> {
        self.series
            .iter()
            .find(|series| series.contender == contender)
    }

    /// Adds what another sitting gave: the same scenario with the same contenders.
    fn add(&mut self, sitting: Self) {
        for series in sitting.series {
            let mut own = self.series.iter_mut();
            match own.find(|own| own.contender == series.contender) {
                Some(own) => own.rounds.extend(series.rounds),
                None => self.series.push(series),
            }
        }
    }
}

/// Who is compared with.
#[derive(Debug, Clone)]
pub enum Rivals {
    /// Other servers.
    Peers {
        /// `bazaar` with the policy compiled in, where it was built.
        native: PathBuf,
        /// These alone; all where none is named.
        only: Vec<Peer>,
    },
    /// Another build of `bazaar`, alone.
    Build(PathBuf),
    /// The same build, tracing this share of the requests.
    Traced(f64),
}

/// How the comparisons are run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where contenders are started.
    pub site: Site,
    /// The `bazaar` command.
    pub bazaar: PathBuf,
    pub rivals: Rivals,
    /// What is measured; all where nothing is said.
    pub only: Option<Kind>,
    /// How often all contenders are started.
    pub sittings: usize,
    /// How often each takes its turn in a sitting.
    pub rounds: usize,
    /// For how long a turn lasts.
    pub seconds: u64,
    /// The processor that generators are kept on.
    pub cpu: Option<usize>,
}

impl Plan {
    /// Whether a peer takes part, where it is installed.
    pub fn wants(&self, peer: Peer) -> bool {
        match &self.rivals {
            Rivals::Peers { only, .. } => only.is_empty() || only.contains(&peer),
            Rivals::Build(_) | Rivals::Traced(_) => false,
        }
    }

    /// Whether this is measured. Other builds may know no batches: these are measured beside one only where they are asked for.
    fn measures(&self, kind: Kind) -> bool {
        match self.only {
            Some(only) => only == kind,
            None => kind != Kind::Batches || matches!(self.rivals, Rivals::Peers { .. }),
        }
    }

    fn load(&self, connections: u32) -> Load {
        Load {
            connections,
            seconds: self.seconds,
            cpu: self.cpu,
        }
    }

    fn start(&self, name: &str, binary: &Path) -> Result<Bazaar, Error> {
        self.start_on(name, binary, None)
    }

    fn start_on(&self, name: &str, binary: &Path, store: Option<String>) -> Result<Bazaar, Error> {
        self.start_with(name, binary, store, Vec::new())
    }

    /// One that traces this share of the requests, and has somewhere to export them.
    fn start_traced(&self, share: f64) -> Result<Bazaar, Error> {
        let collector = collector::start()?;
        let flags = vec![
            format!("--otlp=http://{collector}/v1/traces"),
            format!("--trace-sample={share}"),
        ];
        self.start_with(TRACED, &self.bazaar, None, flags)
    }

    fn start_with(
        &self,
        name: &str,
        binary: &Path,
        store: Option<String>,
        flags: Vec<String>,
    ) -> Result<Bazaar, Error> {
        let setup = Setup {
            name: name.to_owned(),
            binary: binary.to_owned(),
            stocks: None,
            store,
            flags,
        };
        Bazaar::start(&self.site, &setup)
    }
}

/// Who takes part, and who does not.
#[derive(Default)]
struct Field {
    contenders: Vec<Box<dyn Contender>>,
    absent: Vec<String>,
}

impl Field {
    /// Says of whom is not asked for that it takes no part.
    fn of(plan: &Plan) -> Self {
        let mut field = Self::default();
        if let Rivals::Peers { only, .. } = &plan.rivals
            && !only.is_empty()
        {
            field.absent.push("whom `--peers` does not name".to_owned());
        }
        field
    }

    fn add(&mut self, contender: impl Contender + 'static) {
        self.contenders.push(Box::new(contender));
    }

    /// What was started, if it is installed; what is not is absent.
    fn installed<T>(&mut self, name: &str, started: Result<T, Error>) -> Result<Option<T>, Error> {
        match started {
            Ok(contender) => Ok(Some(contender)),
            Err(missing @ Error::Missing { .. }) => {
                self.absent.push(format!("{name}: {missing}"));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Adds what keeps an answer, or runs somebody's code.
    fn add_caches(&mut self, plan: &Plan) -> Result<(), Error> {
        let origin = origin::start()?;
        for (peer, name, start) in CACHES {
            if !plan.wants(peer) {
                continue;
            }
            if let Some(cache) = self.installed(name, start(&plan.site, &origin))? {
                self.add(cache);
            }
        }
        Ok(())
    }

    /// Adds what keeps data durable on several disks.
    fn add_stores(&mut self, plan: &Plan) -> Result<(), Error> {
        let site = &plan.site;
        if plan.wants(Peer::Etcd)
            && let Some(cluster) = self.installed("etcd", Cluster::start(site))?
        {
            for protocol in [Protocol::Json, Protocol::Grpc] {
                self.add(Etcd {
                    cluster: cluster.clone(),
                    protocol,
                });
            }
        }
        if plan.wants(Peer::Nats)
            && let Some(nats) = self.installed("NATS", Nats::start(site))?
        {
            self.add(nats);
        }
        if !plan.wants(Peer::Postgres) {
            return Ok(());
        }
        let two_standbys = Postgres::start(site, "PostgreSQL", 2);
        if let Some(postgres) = self.installed("PostgreSQL", two_standbys)? {
            self.add(postgres);
            let postgres = Postgres::start(site, ONE_STANDBY, 1)?;
            let store = postgres.another_database("bazaar")?;
            // Before its database, so that it ends first.
            self.add(plan.start_on(ON_POSTGRES, &plan.bazaar, Some(store))?);
            self.add(postgres);
        }
        Ok(())
    }
}

/// All that is measured, in all sittings.
pub fn measure(plan: &Plan) -> Result<Vec<Scenario>, Error> {
    let mut scenarios: Vec<Scenario> = Vec::new();
    for number in 1..=plan.sittings {
        if plan.sittings > 1 {
            eprintln!("sitting {number} of {}", plan.sittings);
        }
        let sitting = Sitting::begin(plan, number)?;
        let mut measured = Vec::new();
        if plan.measures(Kind::Lookups) {
            measured.push(sitting.lookups()?);
        }
        if plan.measures(Kind::Trades) {
            measured.extend(sitting.trades()?);
        }
        if plan.measures(Kind::Batches) {
            measured.push(sitting.batches()?);
        }
        sitting.end();
        match number {
            1 => scenarios = measured,
            _ => {
                let all = scenarios.iter_mut().zip(measured);
                all.for_each(|(scenario, sitting)| scenario.add(sitting));
            }
        }
    }
    Ok(scenarios)
}

/// What is measured of contenders that are started once.
struct Sitting {
    plan: Plan,
    /// Whether the other Bazaar is started before ours: places are given in the order of starts.
    rival_first: bool,
}

impl Sitting {
    /// In a directory of its own, of a short name: sockets are in it.
    fn begin(plan: &Plan, number: usize) -> Result<Self, Error> {
        let dir = plan.site.make_dir(&number.to_string())?;
        Ok(Self {
            plan: Plan {
                site: Site {
                    dir,
                    ..plan.site.clone()
                },
                ..plan.clone()
            },
            rival_first: number.is_multiple_of(2),
        })
    }

    /// What it has written is no other sitting's matter.
    fn end(self) {
        // Where that cannot be, it goes with the run's directory.
        let _ = fs::remove_dir_all(self.plan.site.dir);
    }

    /// Ours, and the other one that it is compared with, if any is.
    fn bazaars(&self) -> Result<Vec<Bazaar>, Error> {
        let plan = &self.plan;
        let ours = || plan.start(BAZAAR, &plan.bazaar);
        let other = || match &plan.rivals {
            Rivals::Build(before) => plan.start(BEFORE, before).map(Some),
            Rivals::Traced(share) => plan.start_traced(*share).map(Some),
            Rivals::Peers { .. } => Ok(None),
        };
        let (ours, other) = match self.rival_first {
            true => {
                let other = other()?;
                (ours()?, other)
            }
            false => (ours()?, other()?),
        };
        Ok([ours].into_iter().chain(other).collect())
    }

    /// Cached lookups: the same 57 bytes from each.
    fn lookups(&self) -> Result<Scenario, Error> {
        let plan = &self.plan;
        let mut field = Field::of(plan);
        let mut bazaars = self.bazaars()?;
        if let Rivals::Peers { native, .. } = &plan.rivals
            && plan.wants(Peer::Native)
        {
            match native.is_file() {
                true => bazaars.push(plan.start(NATIVE, native)?),
                false => field.absent.push(format!(
                    "there is no {}, with the policy compiled in",
                    native.display()
                )),
            }
        }
        for bazaar in &bazaars {
            field.add(Cache::beside(Started {
                name: bazaar.name(),
                lacks: match bazaar.name() {
                    NATIVE => "a policy in wasm: it is compiled in",
                    _ => "",
                },
                address: bazaar.address(),
                dir: bazaar.dir(),
            })?);
        }
        field.add_caches(plan)?;
        let load = plan.load(LOOKUP_CONNECTIONS);
        Ok(Scenario {
            kind: Kind::Lookups,
            connections: LOOKUP_CONNECTIONS,
            series: alternate(&mut field.contenders, plan.rounds, &load)?,
            absent: field.absent,
        })
    }

    /// Trades, and what is like them elsewhere.
    fn trades(&self) -> Result<Vec<Scenario>, Error> {
        let plan = &self.plan;
        let mut field = Field::of(plan);
        for bazaar in self.bazaars()? {
            field.add(bazaar);
        }
        field.add_stores(plan)?;
        TRADE_CONNECTIONS
            .into_iter()
            .map(|connections| {
                let load = plan.load(connections);
                Ok(Scenario {
                    kind: Kind::Trades,
                    connections,
                    series: alternate(&mut field.contenders, plan.rounds, &load)?,
                    absent: field.absent.clone(),
                })
            })
            .collect()
    }

    /// Orders one by one, and so many in each request.
    fn batches(&self) -> Result<Scenario, Error> {
        let plan = &self.plan;
        let mut field = Field::default();
        for bazaar in self.bazaars()? {
            let bazaar = Rc::new(bazaar);
            for orders in BATCH_ORDERS {
                field.add(Batches::of(&bazaar, orders));
            }
            field.add(bazaar);
        }
        let load = plan.load(BATCH_CONNECTIONS);
        Ok(Scenario {
            kind: Kind::Batches,
            connections: BATCH_CONNECTIONS,
            series: alternate(&mut field.contenders, plan.rounds, &load)?,
            absent: field.absent,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Round;

    #[test]
    fn sittings_add_up() {
        let scenario = |contenders: &[&str]| {
            let round = Round {
                per_second: 1.0,
                p50_us: 1.0,
                p99_us: 1.0,
            };
            let series = contenders.iter().map(|contender| Series {
                contender: (*contender).to_owned(),
                lacks: String::new(),
                rounds: vec![round; 2],
            });
            Scenario {
                kind: Kind::Lookups,
                connections: 64,
                series: series.collect(),
                absent: Vec::new(),
            }
        };
        let mut all = scenario(&[BAZAAR, TRACED]);
        all.add(scenario(&[BAZAAR, TRACED]));
        let counts = all.series.iter().map(|series| series.rounds.len());
        assert_eq!(counts.collect::<Vec<_>>(), [4, 4]);
    }

    #[test]
    fn whoever_is_named_takes_part_and_everybody_where_nobody_is() {
        let plan = |only: &[Peer]| Plan {
            site: Site {
                dir: PathBuf::new(),
                workers: 1,
            },
            bazaar: PathBuf::new(),
            rivals: Rivals::Peers {
                native: PathBuf::new(),
                only: only.to_vec(),
            },
            only: None,
            sittings: 1,
            rounds: 1,
            seconds: 1,
            cpu: None,
        };
        let all = plan(&[]);
        assert!(all.wants(Peer::Nats) && all.wants(Peer::Envoy));
        assert!(Field::of(&all).absent.is_empty());
        let few = plan(&[Peer::Envoy]);
        assert!(few.wants(Peer::Envoy) && !few.wants(Peer::Nats));
        assert_eq!(Field::of(&few).absent, ["whom `--peers` does not name"]);
        let before = Plan {
            rivals: Rivals::Build(PathBuf::new()),
            ..few
        };
        assert!(!before.wants(Peer::Envoy));
        let measures = [&all, &before].map(|plan| plan.measures(Kind::Batches));
        assert_eq!(measures, [true, false], "it may know none");
    }

    #[test]
    fn a_peer_that_is_not_installed_is_said_to_be_missing() {
        let mut field = Field::default();
        let missing = Error::Missing {
            program: "envoy".to_owned(),
            remedy: "get it",
        };
        let started = field.installed::<Cache>("Envoy, cache", Err(missing));
        assert!(started.unwrap().is_none());
        assert_eq!(field.absent, ["Envoy, cache: there is no envoy: get it"]);
        let broken = Err(Error::Ledger("broken".to_owned()));
        assert!(field.installed::<Cache>("nginx", broken).is_err());
    }
}
