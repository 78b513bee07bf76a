//! `bazaar policy measure`: what a policy costs on this machine.

use std::fs;
use std::hint::black_box;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use domain::{Price, StockName};
use frontend_policy::decision::{Outcome, Stock};
use frontend_policy::limits::DECISION_TIME_MAX;
use frontend_policy::{
    Admission, CodeCache, Engine, Probation, RequestParts, SwapError, Undecided, Version, Versions,
};
use http::{HeaderMap, Method};

use super::package::{Package, PackageError};
use crate::cli;
use crate::output::Table;

/// How long decisions of one kind are made.
const MEASURED: Duration = Duration::from_millis(500);

/// Decisions between two looks at the clock.
const BATCH: u32 = 100;

/// Instances by which their weight is measured.
const INSTANCES: usize = 8;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// What should be a policy is none.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// Compiled code cannot be kept for a while.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The sandbox does not run here.
    #[error(transparent)]
    Sandbox(frontend_host::Error),
    /// A gateway would refuse it.
    #[error("{}: {reason}", path.display())]
    Refused { path: PathBuf, reason: SwapError },
    /// It could not decide about a lookup.
    #[error(transparent)]
    Undecided(#[from] Undecided),
}

/// Measures components, one after the other. Returns a table: how long activating one takes with
/// compiling, and how long with the code that was kept; decisions about a lookup, and about the
/// stock that was found; the memory of an instance.
pub fn measure(
    files: &[PathBuf],
    config: &cli::Config,
    secrets: &cli::Secrets,
) -> Result<String, MeasureError> {
    let mut table = Table::new([
        "policy",
        "bytes",
        "activation cold",
        "warm",
        "on-request",
        "on-outcome",
        "instance",
    ]);
    for file in files {
        let failed = |source| MeasureError::File {
            path: file.clone(),
            source,
        };
        let refused = |reason| MeasureError::Refused {
            path: file.clone(),
            reason,
        };
        let package = Package::open(file)?.with_config(config)?;
        let admission = |engine| Admission::new(engine).with_secrets(super::secrets(secrets));
        let scratch = Scratch::make().map_err(failed)?;
        let activate = || -> Result<(Duration, Version), MeasureError> {
            let code_cache = CodeCache::open(scratch.0.clone()).map_err(failed)?;
            let admission = admission(engine()?.with_code_cache(code_cache));
            let begun = Instant::now();
            let admitted = admission
                .admit(package.upload(), &[])
                .map_err(|reason| refused(reason.into()))?;
            Ok((begun.elapsed(), admitted.into_version()))
        };
        let (cold, version) = activate()?;
        let (warm, _) = activate()?;
        let versions = Versions::new(
            admission(engine()?),
            package.upload(),
            Probation::default(),
            None,
        );
        let versions = versions.map_err(refused)?;
        let (on_request, on_outcome) = decisions(&versions)?;
        table.row([
            version.to_string(),
            package.component.len().to_string(),
            format!("{cold:.1?}"),
            format!("{warm:.1?}"),
            format!("{on_request:.2?}"),
            format!("{on_outcome:.2?}"),
            format!("{} KiB", instance_bytes(&versions) >> 10),
        ]);
    }
    Ok(table.render())
}

fn engine() -> Result<Engine, MeasureError> {
    Engine::new(DECISION_TIME_MAX)
        .map_err(|error| MeasureError::Sandbox(frontend_host::Error::Sandbox(error)))
}

fn lookup(headers: &HeaderMap) -> RequestParts<'_> {
    RequestParts {
        method: &Method::GET,
        target: "/stocks/nvidia",
        headers,
        connection: None,
        body: None,
        now_ms: 1_800_000_000_000,
        id: None,
    }
}

/// How long a decision about a lookup takes, and one about the stock that was found.
fn decisions(versions: &Versions) -> Result<(Duration, Duration), Undecided> {
    let headers = HeaderMap::new();
    let request = lookup(&headers);
    let on_request = median(|| {
        black_box(versions.decider(&[]).on_request(request)?);
        Ok(())
    })?;
    let found = Outcome::Stock(Stock {
        name: StockName::new("nvidia").expect("a short name"),
        price: Price::from_minor(24_063).expect("a small price"),
        quantity: 1000,
    });
    let memo = versions.decider(&[]).on_request(request)?.memo;
    let on_outcome = median(|| {
        black_box(versions.decider(&[]).on_outcome(request, &memo, &found)?);
        Ok(())
    })?;
    Ok((on_request, on_outcome))
}

/// Of the means of batches: a batch in which the thread was interrupted does not count for much.
fn median(mut call: impl FnMut() -> Result<(), Undecided>) -> Result<Duration, Undecided> {
    let mut means = Vec::new();
    let end = Instant::now() + MEASURED;
    while Instant::now() < end {
        let begun = Instant::now();
        for _ in 0..BATCH {
            call()?;
        }
        means.push(begun.elapsed() / BATCH);
    }
    means.sort();
    Ok(means[means.len() / 2])
}

/// By how much the process grows with each further thread that decides.
fn instance_bytes(versions: &Versions) -> usize {
    let before = resident_bytes();
    let all_have_one = Barrier::new(INSTANCES + 1);
    let measured = Barrier::new(INSTANCES + 1);
    thread::scope(|scope| {
        for _ in 0..INSTANCES {
            scope.spawn(|| {
                // One that failed was measured before.
                let _ = versions.decider(&[]).on_request(lookup(&HeaderMap::new()));
                all_have_one.wait();
                measured.wait();
            });
        }
        all_have_one.wait();
        let grown = resident_bytes().saturating_sub(before);
        measured.wait();
        grown / INSTANCES
    })
}

/// Memory of this process, by Linux's `/proc`; 0 elsewhere.
fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse::<usize>().ok());
    kib.unwrap_or(0) << 10
}

/// A directory for compiled code, until it is dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn make() -> io::Result<Self> {
        let name = format!("bazaar-measure-{}", std::process::id());
        let dir: &Path = &std::env::temp_dir();
        let dir = dir.join(name);
        // Of a process of the same id that was killed.
        fs::remove_dir_all(&dir).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}
