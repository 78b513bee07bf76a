//! What a decision costs: `cargo bench -p frontend-policy`.
//!
//! Three measures, since each says what another cannot: time (criterion), host allocations, which
//! repeat exactly, and instructions (callgrind, where valgrind is installed), which nearly do, also
//! on a busy machine.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use criterion::Criterion;
use frontend_guest::types::{Method as GuestMethod, Request};
use frontend_guest::{DefaultPolicy, Policy as _};
use frontend_policy::DEFAULT_POLICY;
use frontend_policy::{CodeCache, Engine, Probation, Reason, RequestParts, Versions, limits};
use http::{HeaderMap, Method};

/// What is looked up.
const TARGET: &str = "/stocks/nvidia";

const NOW_MS: u64 = 1_800_000_000_000;

/// Set for the process whose instructions are counted: who decides, and how often.
const COUNTED: &str = "BENCH_COUNTED";

/// Where that process keeps compiled code: valgrind would take a minute to compile it each time.
const KEPT: &str = "BENCH_KEPT";

/// Decisions over which allocations are counted.
const ALLOCATING: u64 = 1000;

/// Decisions of the two runs whose instructions are compared: what differs is decisions.
const FEW: u64 = 1000;
const MANY: u64 = 11_000;

/// Valgrind hides the vDSO, which rustix looks for unless it is told to go through libc.
const NO_INSTRUCTIONS: &str = "instructions not counted: that takes valgrind, and a build with \
    RUSTFLAGS='--cfg rustix_use_libc' in a target directory of its own";

/// Nothing is rolled back by itself.
const LENIENT: Probation = Probation {
    window: Duration::ZERO,
    failures_max: 1000,
};

#[derive(Debug, Clone, Copy)]
enum Decider {
    /// The default policy as the gateway runs it.
    Guest,
    /// The same code without WebAssembly or a gateway: the least that it can cost.
    Native,
}

impl Decider {
    const ALL: [Self; 2] = [Self::Guest, Self::Native];

    fn name(self) -> &'static str {
        match self {
            Self::Guest => "through the guest",
            Self::Native => "native",
        }
    }
}

fn main() {
    if let Ok(counted) = std::env::var(COUNTED) {
        return decide_counted(&counted);
    }
    let mut criterion = Criterion::default().configure_from_args();
    for decider in Decider::ALL {
        let mut decide = decider.prepared();
        let counted = allocation_counter::measure(|| (0..ALLOCATING).for_each(|_| decide()));
        let each = |total: u64| total as f64 / ALLOCATING as f64;
        println!(
            "cached lookup, {}: {} host allocations, {} bytes",
            decider.name(),
            each(counted.count_total),
            each(counted.bytes_total)
        );
        match instructions(decider) {
            Some(count) => println!("cached lookup, {}: {count} instructions", decider.name()),
            None => println!("cached lookup, {}: {NO_INSTRUCTIONS}", decider.name()),
        }
        let name = format!("cached lookup, {}", decider.name());
        criterion.bench_function(&name, |bencher| bencher.iter(&mut decide));
    }
    swaps(&mut criterion);
    criterion.final_summary();
}

impl Decider {
    /// Makes one decision about a lookup, again and again.
    fn prepared(self) -> Box<dyn FnMut()> {
        match self {
            Self::Guest => {
                let versions = versions(match std::env::var_os(KEPT) {
                    Some(dir) => caching(dir.as_ref()),
                    None => engine(),
                });
                let headers = HeaderMap::new();
                decide(&versions, &headers);
                Box::new(move || decide(&versions, &headers))
            }
            Self::Native => Box::new(|| {
                let request = Request {
                    method: GuestMethod::Get,
                    target: TARGET.to_owned(),
                    headers: Vec::new(),
                    connection: None,
                    body: None,
                    now_ms: NOW_MS,
                };
                black_box(DefaultPolicy.on_request(black_box(&request)));
            }),
        }
    }
}

fn engine() -> Engine {
    Engine::new(limits::DECISION_TIME_MAX).expect("wasmtime supports this machine")
}

/// An engine that keeps compiled code in a directory.
fn caching(dir: &Path) -> Engine {
    let code_cache = CodeCache::open(dir.to_owned());
    engine().with_code_cache(code_cache.expect("the directory can be written to"))
}

fn versions(engine: Engine) -> Versions {
    Versions::new(engine, DEFAULT_POLICY, LENIENT, None).expect("the default policy is one")
}

/// One decision about a lookup, as the gateway has it made.
fn decide(versions: &Versions, headers: &HeaderMap) {
    let request = RequestParts {
        method: &Method::GET,
        target: black_box(TARGET),
        headers,
        connection: None,
        body: None,
        now_ms: NOW_MS,
        id: None,
    };
    let decision = versions.decider(b"client").on_request(request);
    black_box(decision.expect("the default policy decides"));
}

/// Instructions of one decision: those of a run with many, less those of a run with few.
fn instructions(decider: Decider) -> Option<u64> {
    let kept = tempfile::tempdir().ok()?;
    // The first run compiles.
    callgrind(decider, 0, kept.path())?;
    let few = callgrind(decider, FEW, kept.path())?;
    let many = callgrind(decider, MANY, kept.path())?;
    Some((many - few) / (MANY - FEW))
}

/// Instructions of a process that makes so many decisions.
fn callgrind(decider: Decider, decisions: u64, kept: &Path) -> Option<u64> {
    let this = std::env::current_exe().ok()?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .env(COUNTED, format!("{} {decisions}", decider as u8))
        .env(KEPT, kept)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let said = String::from_utf8_lossy(&output.stderr);
    let total = said
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    total.and_then(|(_, count)| count.trim().parse().ok())
}

fn decide_counted(counted: &str) {
    let (decider, decisions) = counted.split_once(' ').expect("two words");
    let decisions: u64 = decisions.parse().expect("a number of decisions");
    let decider = if decider == "0" {
        Decider::Guest
    } else {
        Decider::Native
    };
    let mut decide = decider.prepared();
    // Which decisions are sampled for the next self-test is the same each time.
    fastrand::seed(0);
    (0..decisions).for_each(|_| decide());
}

/// What it takes to put another version in place, and to go back.
fn swaps(criterion: &mut Criterion) {
    let other = policy_build::Builder::in_project("frontend-guest").example("no-cache");
    let other = other.build().expect("the example builds");
    let other = std::fs::read(other).expect("it was built");
    let reason = Reason {
        who: "bench".into(),
        why: "to see".into(),
        ..Reason::default()
    };
    let headers = HeaderMap::new();
    let dir = tempfile::tempdir().expect("there is a directory for temporary files");
    let versions = versions(caching(dir.path()));
    let mut turn = false;
    let mut activate = || {
        turn = !turn;
        let component = if turn { &other[..] } else { DEFAULT_POLICY };
        let version = versions.activate(component, &reason);
        version.expect("both are policies");
    };

    let mut group = criterion.benchmark_group("swap");
    group.sample_size(10);
    group.bench_function("check and activate, compiled code kept", |bencher| {
        bencher.iter(&mut activate);
    });
    group.bench_function("first decision after a swap, on each thread", |bencher| {
        bencher.iter_custom(|iterations| {
            timed(iterations, &mut activate, || decide(&versions, &headers))
        });
    });
    group.bench_function("rollback", |bencher| {
        bencher.iter_custom(|iterations| {
            timed(iterations, &mut activate, || {
                versions
                    .roll_back(&reason)
                    .expect("there is a version before");
            })
        });
    });
    group.finish();
}

/// How long a step took in all, each time after another that does not count.
fn timed(iterations: u64, mut before: impl FnMut(), mut step: impl FnMut()) -> Duration {
    let mut took = Duration::ZERO;
    for _ in 0..iterations {
        before();
        let start = Instant::now();
        step();
        took += start.elapsed();
    }
    took
}
