//! What a cached lookup costs a server, in instructions of the processor, its own and the kernel's for it, and in system calls, as
//! perf counts them: beside caches, and beside a [responder](crate::responder) that does nothing but answer. These figures repeat
//! on a busy machine.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::thread::{self, sleep};
use std::time::Duration;

use super::{Bench, Claim, Figure, Side, Topic, Trial, alternate};
use crate::bars::Bound;
use crate::contender::caches::{self, Cache, PATH};
use crate::contender::{Contender as _, Site};
use crate::error::Error;
use crate::generator::Load;
use crate::generator::wrk::Requests;
use crate::origin::{self, Origin};
use crate::process::{self, Process, command, find, free_addresses};
use crate::scenario::{BAZAAR, LOOKUP_CONNECTIONS, Peer};

/// Starts a cache.
type Start = fn(&Site, &Origin) -> Result<Cache, Error>;

/// Beside whom.
const CACHES: [(Peer, &str, Start); 3] = [
    (Peer::Nginx, "nginx", caches::nginx),
    (Peer::Haproxy, "haproxy", caches::haproxy),
    (Peer::Varnish, "varnish", caches::varnish),
];

const RESPONDER: &str = "responder";

/// How long requests are sent before, and after, events are counted.
const MARGIN_S: u64 = 1;

/// What is counted: what perf calls it, and what it is called here.
const EVENTS: [(&str, &str, &str); 2] = [
    ("instructions", INSTRUCTIONS, "a lookup"),
    ("raw_syscalls:sys_enter", CALLS, "a lookup"),
];

const INSTRUCTIONS: &str = "instructions";
const CALLS: &str = "system calls";

/// What a lookup may cost of what no server can do for less.
const INSTRUCTIONS_RATIO: f64 = 4.0;
const CALLS_RATIO: f64 = 1.5;

/// Whom to ask, and whose events count.
struct Server {
    name: &'static str,
    lacks: &'static str,
    address: SocketAddr,
    pids: Vec<u32>,
    dir: PathBuf,
}

pub fn measure(bench: Bench<'_>) -> Result<Vec<Trial>, Error> {
    let site = &bench.plan.site;
    let perf = find("perf")?;
    let mut absent = Vec::new();
    let mut events = Vec::new();
    for event in EVENTS {
        match count(&perf, event.0, &[], site, &["true"]) {
            Ok(_) => events.push(event),
            Err(error) => absent.push(format!(
                "{}, which this machine does not count: {error}",
                event.1
            )),
        }
    }
    let bazaar = bench.start(BAZAAR, None)?;
    let origin = origin::start()?;
    let (at, responder) = responder(site)?;
    let mut servers = vec![
        Server {
            name: BAZAAR,
            lacks: "",
            address: bazaar.address(),
            pids: vec![bazaar.services()["gateway"].pid],
            dir: bazaar.dir().to_owned(),
        },
        Server {
            name: RESPONDER,
            lacks: "anything but one answer",
            address: at,
            pids: vec![responder.pid()],
            dir: site.make_dir(RESPONDER)?,
        },
    ];
    let mut caches = Vec::new();
    for (peer, name, start) in CACHES {
        if !bench.plan.wants(peer) {
            absent.push(format!("{name}, which `--peers` does not name"));
            continue;
        }
        match start(site, &origin) {
            Ok(cache) => {
                servers.push(Server {
                    name,
                    lacks: cache.lacks(),
                    address: cache.address(),
                    pids: cache.pids(),
                    dir: site.make_dir(&format!("costs-{}", servers.len()))?,
                });
                caches.push(cache); // it runs for as long as it is there
            }
            Err(missing @ Error::Missing { .. }) => absent.push(format!("{name}: {missing}")),
            Err(error) => return Err(error),
        }
    }
    let side = |server| {
        let (perf, events) = (&perf, &events);
        Side::new(name_of(server), lacks_of(server), move || {
            let counted = events.iter().map(|event| cost(bench, server, perf, *event));
            counted.collect()
        })
    };
    let mut sides: Vec<Side<'_>> = servers.iter().map(side).collect();
    let title = format!("What a cached lookup costs, {LOOKUP_CONNECTIONS} connections");
    Ok(vec![Trial {
        topic: Topic::Costs,
        parties: alternate(&title, &mut sides, bench.plan.rounds)?,
        title,
        absent,
        claims: claims(),
    }])
}

fn name_of(server: &Server) -> &str {
    server.name
}

fn lacks_of(server: &Server) -> &'static str {
    server.lacks
}

/// Where it listens, and its process.
fn responder(site: &Site) -> Result<(SocketAddr, Process), Error> {
    let dir = site.make_dir(RESPONDER)?;
    let [address] = free_addresses()?;
    let this = std::env::current_exe().map_err(Error::machine("cannot find this program"))?;
    let mut line = command(this);
    line.arg("responder").arg(format!("--listen={address}"));
    let mut process = Process::start(RESPONDER, &dir, line)?;
    process.wait_until(|_| TcpStream::connect(address).is_ok())?;
    Ok((address, process))
}

/// How many events of one kind a lookup is: those of some seconds in the midst of more.
fn cost(
    bench: Bench<'_>,
    server: &Server,
    perf: &Path,
    (event, name, unit): (&str, &'static str, &'static str),
) -> Result<Figure, Error> {
    let seconds = bench.plan.seconds;
    let load = Load {
        connections: LOOKUP_CONNECTIONS,
        seconds: seconds + 2 * MARGIN_S,
        cpu: bench.plan.cpu,
    };
    let (figures, events) = thread::scope(|scope| {
        let requests = Requests::get(server.address, PATH);
        let driving = scope.spawn(move || requests.send(&load, &server.dir));
        sleep(Duration::from_secs(MARGIN_S));
        let lasting = seconds.to_string();
        let during = ["sleep", lasting.as_str()];
        let events = count(perf, event, &server.pids, &bench.plan.site, &during);
        let figures = driving.join();
        (
            figures.expect("a generator's thread does not panic"),
            events,
        )
    });
    let figures = figures?.without_errors(server.name)?;
    let lookups = figures.per_second() * seconds as f64;
    Ok(Figure::of(name, unit, events? as f64 / lookups))
}

/// How many events of some processes there are while a command runs; of the command itself where there are none.
fn count(
    perf: &Path,
    event: &str,
    pids: &[u32],
    site: &Site,
    during: &[&str],
) -> Result<u64, Error> {
    let output = site.dir.join("perf.csv");
    let mut line = command(perf);
    line.args(["stat", "--field-separator=,", "--event", event])
        .arg("--output")
        .arg(&output);
    if !pids.is_empty() {
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        line.args(["--pid", &pids.join(",")]);
    }
    line.arg("--").args(during);
    process::run(line)?;
    let printed = std::fs::read_to_string(&output).map_err(Error::file(&output))?;
    parse(&printed, event).ok_or(Error::NoFigures {
        generator: "perf".to_owned(),
        output: printed,
    })
}

/// A line of an event begins with how many there were; the third field is its name.
fn parse(printed: &str, event: &str) -> Option<u64> {
    printed.lines().find_map(|line| {
        let mut fields = line.split(',');
        let count = fields.next()?.parse().ok()?;
        fields.nth(1)?.starts_with(event).then_some(count)
    })
}

fn claims() -> Vec<Claim> {
    let claim = |quantity, theirs: Vec<&'static str>, whose: &str, ratio: f64| Claim {
        text: format!("{quantity} of a cached lookup: at most {ratio} × {whose}"),
        ours: BAZAAR,
        theirs,
        quantity,
        bound: Bound::AtMost(ratio),
    };
    let caches = || CACHES.map(|(_, name, _)| name).to_vec();
    let least = "those of who does nothing but answer";
    let best = "those of the cache that takes fewest";
    vec![
        claim(INSTRUCTIONS, vec![RESPONDER], least, INSTRUCTIONS_RATIO),
        claim(INSTRUCTIONS, caches(), best, 1.0),
        claim(CALLS, vec![RESPONDER], least, CALLS_RATIO),
        claim(CALLS, caches(), best, 1.0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_where_the_machine_counts_them() {
        let printed = "# started on Tue Dec  1 2026\n\n123456,,instructions,2000000,100.00,,\n\
            7,,raw_syscalls:sys_enter,2000000,100.00,,\n";
        assert_eq!(parse(printed, "instructions"), Some(123_456));
        assert_eq!(parse(printed, "raw_syscalls:sys_enter"), Some(7));
        let none = "<not supported>,,instructions,0,100.00,,\n";
        assert_eq!(parse(none, "instructions"), None);
    }
}
