//! `bench`: Bazaar beside the servers that people run today, on one machine, in one run.
//!
//! - [`cli`]: the command line;
//! - [`scenario`]: what is compared, and who takes part;
//! - [`trial`]: what else is: lookups and trades in one stream, memory, starts, and the worst moments;
//! - [`rounds`]: contenders take turns;
//! - [`contender`]: how each of them is started and driven;
//! - [`generator`]: who sends the requests;
//! - [`origin`], [`application`], [`responder`], [`collector`], [`http`], [`messages`], [`process`]: what contenders need;
//! - [`growth`]: how figures change as one quantity grows;
//! - [`statistics`], [`bars`]: medians, ratios, and what Bazaar is to reach;
//! - [`report`], [`machine`]: what was measured, and where;
//! - [`history`]: what runs before measured;
//! - [`moved`], [`welch`]: what moved between two of them beyond noise;
//! - [`error`]: why it cannot be.

mod cli;
mod scenario;
mod trial;
mod rounds;
mod contender;
mod generator;
mod growth;
mod origin;
mod application;
mod responder;
mod collector;
mod http;
mod messages;
mod process;
mod statistics;
mod bars;
mod report;
mod machine;
mod history;
mod moved;
mod welch;
mod error;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;
use tempfile::TempDir;

use crate::cli::{Cli, Command, Common, Compare, Grow, Only};
use crate::contender::Site;
use crate::error::Error;
use crate::growth::Subject;
use crate::history::{History, Run, Tree};
use crate::machine::Machine;
use crate::moved::Moved;
use crate::report::Report;
use crate::scenario::{Plan, Rivals};

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(error.status())
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Compare(args) => compare(args),
        Command::Grow(args) => grow(args),
        Command::Table { file } => {
            print!("{}", Report::read(&file)?.to_markdown());
            Ok(())
        }
        Command::Moved(args) => moved(&args),
        Command::Put(puts) => print(&puts.send()?),
        Command::Publish(publishes) => print(&publishes.send()?),
        Command::Mix(mix) => print(&mix.send()?),
        Command::Application(application) => application.serve(),
        Command::Responder(responder) => responder.serve(),
    }
}

/// What a generator of ours prints, for the process that started it.
fn print(figures: &impl Serialize) -> Result<(), Error> {
    let figures = serde_json::to_string(figures).expect("figures are JSON");
    println!("{figures}");
    Ok(())
}

fn compare(args: Compare) -> Result<(), Error> {
    let topic = args.only.and_then(Only::topic);
    if topic.is_some() && (args.before.is_some() || args.traced.is_some()) {
        return Err(Error::Usage(
            "with --before or --traced lookups and trades alone are compared: leave --only out, or name one of these",
        ));
    }
    let tree = Tree::here(); // as it is now: it may be worked in until this ends
    let (site, _dir) = site(&args.common)?;
    let plan = Plan {
        bazaar: binary(&args.common.bazaar)?,
        rivals: match (&args.before, args.traced) {
            (Some(before), _) => Rivals::Build(binary(before)?),
            (None, Some(share)) => Rivals::Traced(share),
            (None, None) => Rivals::Peers {
                native: fs::canonicalize(&args.native).unwrap_or(args.native),
                only: args.peers,
            },
        },
        only: args.only.and_then(Only::kind),
        sittings: args.sittings as usize,
        rounds: args.rounds as usize,
        seconds: args.seconds,
        cpu: Some(generator_cpu(&args.common)),
        site,
    };
    let machine = Machine::this(&plan.site.dir);
    let (scenarios, trials) = match topic {
        Some(topic) => (Vec::new(), trial::measure(&plan, &args.sizes, topic)?),
        None => (scenario::measure(&plan)?, Vec::new()),
    };
    let report = Report::new(machine, plan.sittings, plan.rounds, plan.seconds, scenarios)
        .with_trials(trials);
    print!("{}", report.to_markdown());
    if let Some(dir) = &args.common.report {
        report.write(dir)?;
    }
    let dropped = history::append(&args.history, &Run::of(&report, tree))?;
    eprintln!("bench: added to {}", args.history.display());
    if dropped > 0 {
        eprintln!("bench: it was full: the oldest of its runs went, {dropped} of them");
    }
    Ok(())
}

fn moved(args: &cli::Moved) -> Result<(), Error> {
    let history = History::read(&args.history)?;
    for (line, why) in &history.damaged {
        eprintln!(
            "bench: {}, line {line}: skipped, for it is no run: {why}",
            args.history.display()
        );
    }
    let (a, b) = (history.find(&args.a)?, history.find(&args.b)?);
    print!("{}", Moved::between(&a, &b).to_markdown());
    Ok(())
}

fn grow(args: Grow) -> Result<(), Error> {
    let (site, _dir) = site(&args.common)?;
    let plan = growth::Plan {
        bazaar: binary(&args.common.bazaar)?,
        seconds: args.seconds,
        cpu: generator_cpu(&args.common),
        connections_max: args.connections_max,
        stocks_max: args.stocks_max,
        gateways_max: args.gateways_max,
        orders: args.orders,
        site,
    };
    let subjects = match args.only {
        Some(subject) => vec![subject],
        None => Subject::ALL.to_vec(),
    };
    let mut curves = Vec::new();
    for subject in subjects {
        let curve = growth::measure(&plan, subject)?;
        print!("{}", curve.to_markdown());
        curves.push(curve);
        if let Some(dir) = &args.common.report {
            growth::curve::write(&curves, dir)?;
        }
    }
    Ok(())
}

/// A directory for this run, which is removed when the second value is dropped.
fn site(common: &Common) -> Result<(Site, TempDir), Error> {
    let base = &common.work_dir;
    fs::create_dir_all(base).map_err(Error::file(base))?;
    let base = fs::canonicalize(base).map_err(Error::file(base))?;
    let dir = tempfile::Builder::new()
        .prefix("run-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755)) // PostgreSQL runs as another user
        .tempdir_in(&base)
        .map_err(Error::file(&base))?;
    let site = Site {
        dir: dir.path().to_owned(),
        workers: common.workers.unwrap_or_else(machine::cores),
    };
    Ok((site, dir))
}

fn generator_cpu(common: &Common) -> usize {
    common.generator_cpu.unwrap_or_else(|| machine::cores() - 1)
}

fn binary(path: &PathBuf) -> Result<PathBuf, Error> {
    fs::canonicalize(path).map_err(|_| Error::Missing {
        program: path.display().to_string(),
        remedy: "`cargo build --release` builds it",
    })
}
