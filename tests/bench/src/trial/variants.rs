//! Lookups as [`scenario`](crate::scenario) has them, by fewer connections and by more, over a new connection for each, with
//! misses among them, and by HTTP/2: beside the caches, of which the best one of each round counts.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::{Bench, Claim, Figure, Side, Topic, Trial, alternate};
use crate::bars::Bound;
use crate::contender::bazaar::Bazaar;
use crate::contender::caches::{self, Cache, PATH};
use crate::contender::{Contender as _, Site, envoy};
use crate::error::Error;
use crate::generator::Load;
use crate::generator::h2load::Streams;
use crate::generator::wrk::Requests;
use crate::growth::{HOT, LOOKUP, STOCKS_BEYOND_CACHE, write_stocks};
use crate::origin::{self, Origin};
use crate::process::{self, raise_open_files};
use crate::scenario::{BAZAAR, LOOKUP_CONNECTIONS, Peer};

/// Starts a cache.
type Start = fn(&Site, &Origin) -> Result<Cache, Error>;

/// Beside whom.
const CACHES: [(Peer, &str, Start); 4] = [
    (Peer::Nginx, "nginx", caches::nginx),
    (Peer::Haproxy, "haproxy", caches::haproxy),
    (Peer::Varnish, "varnish", caches::varnish),
    (Peer::Envoy, "Envoy, cache", envoy::cache),
];

/// How stocks are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    /// One stock, by so many connections that are kept.
    Connections(u32),
    /// One stock, over a new connection each time.
    Anew,
    /// Eight stocks, and in one of ten lookups one that is not kept.
    Misses,
    /// One stock by HTTP/2 in the clear, over connections with so many streams at a time each.
    Streams(u32),
}

const VARIANTS: [Variant; 7] = [
    Variant::Connections(1),
    Variant::Connections(8),
    Variant::Connections(512),
    Variant::Connections(4096),
    Variant::Anew,
    Variant::Misses,
    Variant::Streams(10),
];

/// How many connections have streams.
const STREAMING_CONNECTIONS: u32 = 8;

/// Of a thousand lookups with misses among them.
const HITS_PERMILLE: u64 = 900;

/// For how long each is driven before anything counts.
const WARM_UP_S: u64 = 1;

const RATE: &str = "lookups";

impl Variant {
    fn title(self) -> String {
        match self {
            Self::Connections(1) => "Cached lookups, 1 connection".to_owned(),
            Self::Connections(connections) => format!("Cached lookups, {connections} connections"),
            Self::Anew => {
                format!("Cached lookups, a new connection for each, {LOOKUP_CONNECTIONS} at a time")
            }
            Self::Misses => format!("Lookups, 10 % misses, {LOOKUP_CONNECTIONS} connections"),
            Self::Streams(streams) => format!(
                "Cached lookups by HTTP/2, {STREAMING_CONNECTIONS} connections of {streams} streams"
            ),
        }
    }

    fn connections(self) -> u32 {
        match self {
            Self::Connections(connections) => connections,
            Self::Anew | Self::Misses => LOOKUP_CONNECTIONS,
            Self::Streams(_) => STREAMING_CONNECTIONS,
        }
    }

    /// What wrk sends, which speaks HTTP/1.1.
    fn requests(self, address: SocketAddr) -> Requests<'static> {
        let plain = Requests::get(address, PATH);
        match self {
            Self::Connections(_) | Self::Streams(_) => plain,
            Self::Anew => Requests {
                script: include_str!("../../contenders/anew.lua"),
                ..plain
            },
            Self::Misses => Requests {
                script: LOOKUP,
                arguments: [HITS_PERMILLE, STOCKS_BEYOND_CACHE - HOT.len() as u64],
                ..plain
            },
        }
    }
}

/// Whom to ask.
struct Server {
    name: String,
    lacks: &'static str,
    address: SocketAddr,
    /// Where it speaks HTTP/2, if it does.
    http2: Option<SocketAddr>,
    /// The generator's files go there.
    dir: PathBuf,
}

impl Server {
    fn of_bazaar(bazaar: &Bazaar) -> Self {
        Self {
            name: BAZAAR.to_owned(),
            lacks: "",
            address: bazaar.address(),
            http2: Some(bazaar.address()),
            dir: bazaar.dir().to_owned(),
        }
    }

    fn of_cache(name: &str, cache: &Cache, dir: PathBuf) -> Self {
        Self {
            name: name.to_owned(),
            lacks: cache.lacks(),
            address: cache.address(),
            http2: cache.http2(),
            dir,
        }
    }

    fn takes_part_in(&self, variant: Variant) -> bool {
        !matches!(variant, Variant::Streams(_)) || self.http2.is_some()
    }

    fn look_up(
        &self,
        bench: Bench<'_>,
        variant: Variant,
        seconds: u64,
    ) -> Result<Vec<Figure>, Error> {
        let load = Load {
            connections: variant.connections(),
            seconds,
            cpu: bench.plan.cpu,
        };
        if let Variant::Streams(streams) = variant {
            let address = self.http2.expect("it takes part");
            let streams = Streams {
                address,
                path: PATH,
                streams,
            };
            let rate = streams.per_second(&load, &self.name)?;
            return Ok(vec![Figure::of(RATE, "per second", rate)]);
        }
        let figures = variant.requests(self.address).send(&load, &self.dir)?;
        let figures = figures.without_errors(&self.name)?;
        Ok(vec![
            Figure::of(RATE, "per second", figures.per_second()),
            Figure::of("p50", "µs", figures.p50_us),
            Figure::of("p99", "µs", figures.p99_us),
        ])
    }
}

pub fn measure(bench: Bench<'_>) -> Result<Vec<Trial>, Error> {
    raise_open_files();
    let file = write_stocks(&bench.plan.site.dir, STOCKS_BEYOND_CACHE)?;
    let of_few = bench.start("few-stocks", None)?;
    let of_many = bench.start("many-stocks", Some(&file))?;
    let [few, many] = [&of_few, &of_many].map(Server::of_bazaar);
    let origin = origin::start()?;
    let (mut caches, mut peers, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    for (peer, name, start) in CACHES {
        if !bench.plan.wants(peer) {
            absent.push(format!("{name}, which `--peers` does not name"));
            continue;
        }
        match start(&bench.plan.site, &origin) {
            Ok(cache) => {
                let dir = bench.plan.site.make_dir(&format!("peer-{}", peers.len()))?;
                peers.push(Server::of_cache(name, &cache, dir));
                caches.push(cache); // it runs for as long as it is there
            }
            Err(missing @ Error::Missing { .. }) => absent.push(format!("{name}: {missing}")),
            Err(error) => return Err(error),
        }
    }
    let trial = |variant: Variant| -> Result<Trial, Error> {
        let ours = match variant {
            Variant::Misses => &many,
            Variant::Connections(_) | Variant::Anew | Variant::Streams(_) => &few,
        };
        let mut absent = absent.clone();
        let mut servers: Vec<&Server> = std::iter::once(ours).chain(&peers).collect();
        if let (Variant::Streams(_), Err(missing)) = (variant, process::find("h2load")) {
            absent.push(format!("anybody: {missing}"));
            servers.clear();
        }
        servers.retain(|server| server.takes_part_in(variant));
        let mut sides = Vec::new();
        for server in servers {
            server.look_up(bench, variant, WARM_UP_S)?;
            let turn = move || server.look_up(bench, variant, bench.plan.seconds);
            sides.push(Side::new(&server.name, server.lacks, turn));
        }
        let title = variant.title();
        Ok(Trial {
            topic: Topic::Variants,
            parties: alternate(&title, &mut sides, bench.plan.rounds)?,
            claims: vec![Claim {
                text: format!("{title}: per second at least 1.0 × the fastest cache's"),
                ours: BAZAAR,
                theirs: CACHES.map(|(_, name, _)| name).to_vec(),
                quantity: RATE,
                bound: Bound::AtLeast(1.0),
            }],
            title,
            absent,
        })
    };
    VARIANTS.into_iter().map(trial).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn each_variant_is_asked_for_as_it_is_called() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let titles = VARIANTS.map(Variant::title);
        let distinct: std::collections::BTreeSet<_> = titles.iter().collect();
        assert_eq!(distinct.len(), VARIANTS.len());
        assert_eq!(Variant::Connections(4096).connections(), 4096);
        assert_eq!(Variant::Connections(8).requests(address).script, "");
        let anew = Variant::Anew.requests(address);
        assert!(anew.script.contains(r#"["Connection"] = "close""#));
        let misses = Variant::Misses.requests(address);
        assert_eq!(misses.arguments, [900, 99_992]);
        assert_eq!(Variant::Misses.connections(), 64);
    }
}
