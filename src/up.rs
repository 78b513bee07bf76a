//! `bazaar up`: all services, a process each, from start to stop.
//!
//! - [`journal`]: whether there is a journal to go on with, one to begin, or one that is lost;
//! - [`plan`]: which services, where, with which flags;
//! - [`child`]: one service kept running until it is told to stop;
//! - here: start them, wait until a trade can be served, say where they are, tell who dies,
//!   stop them.
//!
//! Every child holds the other end of a pipe from this process and stops when that closes:
//! however this process ends, no service is left behind.

mod journal;
mod plan;
mod child;

use std::collections::BTreeMap;
use std::pin::pin;
use std::process::ExitStatus;
use std::time::Duration;

use daemon::{directory, tasks};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::Level;

use crate::cert::{self, AUTHORITY, CertError, Pair};
use crate::cli;
use crate::client::{Client, Server};
use crate::error::Error;
use crate::log::{self, say};
use crate::output::{self, Table};
use crate::stop::StopSignals;

use self::child::{Child, Event};
pub use self::journal::JournalError;
pub use self::plan::ORDER_PREFIX;
use self::plan::{Plan, Service};

/// Longest wait for the gateway to be ready.
const READY_WAIT_MAX: Duration = Duration::from_secs(120);

/// How often the gateway is asked whether it is ready, and its time to answer.
const READY_INTERVAL: Duration = Duration::from_millis(50);
const READY_PATIENCE: Duration = Duration::from_secs(2);

/// How often services that are started again in any case may die before everything is ready.
const EARLY_DEATHS_MAX: u32 = 5;

/// Most events of children that wait to be told.
const EVENTS_MAX: usize = 64;

/// Why `up` ended with a failure.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error(transparent)]
    Shared(#[from] Error),
    /// The gateway would not start.
    #[error("gateway: {0}")]
    Gateway(#[from] frontend_host::Error),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Certificates(#[from] CertError),
    /// A service did not get as far as serving.
    #[error("{service} {} before everything was ready", child::how(*status))]
    DiedEarly { service: String, status: ExitStatus },
    /// The operating system refused a process.
    #[error("cannot start {service}: {source}")]
    NotStarted {
        service: String,
        source: std::io::Error,
    },
    /// All processes run, but no trade can be served.
    #[error("no trade can be served {} s after the start; last answer of the gateway: {last}", READY_WAIT_MAX.as_secs())]
    NotReady {
        /// What it last said.
        last: String,
    },
    /// There is nothing left to wait for.
    #[error("every service has died")]
    AllDied,
}

/// Starts everything, and keeps it until a signal comes.
pub async fn run(args: cli::Up) -> Result<(), UpError> {
    log::write_as("up", args.logging.log_format);
    let mut signals = StopSignals::catch_for_service(say)?;
    let plan = Plan::new(&args)?;
    // What a service would refuse is said before anything is begun.
    Plan::check_operators(&args)?;
    // Nothing else runs yet that it could hold up.
    journal::prepare(&args)?;
    tokio::select! {
        prepared = journal::prepare_store(&args) => prepared?,
        () = signals.next() => return Ok(()),
    }
    if let Some(wanted) = plan.certificates() {
        // Where data will be, whoever comes first.
        directory::make_private(&args.data_dir).map_err(|source| CertError::File {
            path: args.data_dir.clone(),
            source,
        })?;
        cert::make(&wanted)?;
    }
    let (events, happening) = mpsc::channel(EVENTS_MAX);
    let started: Vec<Vec<Child>> = plan
        .stages()
        .map(|stage| {
            stage
                .iter()
                .map(|service| {
                    let restart = args.restart || service.is_crash_only;
                    Child::start(service.clone(), restart, events.clone())
                })
                .collect()
        })
        .collect();
    drop(events);

    let outcome = tokio::select! {
        () = signals.next() => Ok(()),
        outcome = tell_until_all_died(&plan, args.restart, happening) => outcome,
    };
    let (hurry, hurried) = watch::channel(false);
    let mut stopping = pin!(stop(started, hurried));
    tokio::select! {
        () = &mut stopping => return outcome,
        () = signals.next() => {}
    }
    // A second signal asks to stop at once.
    hurry.send_replace(true);
    stopping.await;
    outcome
}

/// Stops what was started last first, so that nobody loses what it needs; and kills what is left
/// when it is hurried.
async fn stop(started: Vec<Vec<Child>>, hurried: watch::Receiver<bool>) {
    for stage in started.into_iter().rev() {
        let stopping: Vec<_> = stage
            .into_iter()
            .map(|child| child.stop(hurried.clone()))
            .collect();
        for stopped in stopping {
            stopped.await;
        }
    }
}

/// Waits until a trade can be served, says so, and from then on tells who dies.
async fn tell_until_all_died(
    plan: &Plan,
    restart: bool,
    mut events: mpsc::Receiver<Event>,
) -> Result<(), UpError> {
    let mut pids = BTreeMap::new();
    let mut early_deaths = 0..EARLY_DEATHS_MAX;
    let mut ready = pin!(ready(plan));
    loop {
        tokio::select! {
            biased;
            Some(event) = events.recv() => match event {
                Event::Started { service, pid } => match pids.insert(service.clone(), pid) {
                    None => {}
                    Some(_) => tell(Event::Started { service, pid })?,
                },
                // What has not served yet is not started again for what was wrong from the start on. But one that ends
                // where that is what is safe may do so on a busy machine as well.
                Event::Died { service, status, again_in, .. }
                    if !restart && (again_in.is_none() || early_deaths.next().is_none()) =>
                {
                    return Err(UpError::DiedEarly { service, status });
                }
                event => tell(event)?,
            },
            outcome = &mut ready => break outcome?,
        }
    }
    let introduction = introduction(plan, &pids);
    tasks::thread("introduction", move || {
        if let Err(error) = output::print(&introduction) {
            say(&format!(
                "cannot say on standard output where everything is: {error}"
            ));
        }
    })
    .map_err(Error::Runtime)?;

    while let Some(event) = events.recv().await {
        tell(event)?;
    }
    Err(UpError::AllDied)
}

/// Polls the gateway until it says that it can serve a trade.
async fn ready(plan: &Plan) -> Result<(), UpError> {
    let server = Server::pinned(plan.admin_origin(), plan.certificate());
    let server = server.map_err(|error| UpError::NotReady {
        last: error.to_string(),
    })?;
    let mut client = Client::new(server, READY_PATIENCE);
    let mut last = "none".to_owned();
    let poll = async {
        loop {
            match client.get("/readyz").await {
                Ok(response) if response.status().is_success() => return,
                Ok(response) => last = String::from_utf8_lossy(response.body()).trim().to_owned(),
                Err(error) => last = error.to_string(),
            }
            sleep(READY_INTERVAL).await;
        }
    };
    let in_time = timeout(READY_WAIT_MAX, poll).await;
    in_time.map_err(|_| UpError::NotReady { last })
}

fn tell(event: Event) -> Result<(), UpError> {
    match event {
        Event::Started { service, pid } => say(&format!("{service} was started again, pid {pid}")),
        Event::Died {
            service,
            pid,
            status,
            again_in,
        } => {
            let next = match again_in {
                Some(pause) => format!("starting it again in {} ms", pause.as_millis()),
                None => "it is not started again without --restart".to_owned(),
            };
            let how = child::how(status);
            log::say_at(Level::WARN, &format!("{service} (pid {pid}) {how}; {next}"));
        }
        Event::NotStarted { service, source } => {
            return Err(UpError::NotStarted { service, source });
        }
    }
    Ok(())
}

/// Where everything is, and what to try.
fn introduction(plan: &Plan, pids: &BTreeMap<String, u32>) -> String {
    let mut table = Table::new(["service", "address", "pid", "data"]);
    for service in plan.stages().flatten() {
        let Service { name, data_dir, .. } = service;
        let pid = pids
            .get(name)
            .map_or_else(|| "-".to_owned(), u32::to_string);
        table.row([
            name.clone(),
            plan.url(service),
            pid,
            if data_dir.as_os_str().is_empty() {
                "PostgreSQL".to_owned()
            } else {
                data_dir.display().to_string()
            },
        ]);
    }
    table.row([
        "admin".to_owned(),
        plan.admin_origin().to_string(),
        "-".to_owned(),
        "-".to_owned(),
    ]);
    let origin = plan.clients_origin();
    let mut tries = format!("Try:  curl {origin}/stocks/nvidia");
    if let Some(dir) = plan.certs() {
        let authority = Pair::named(dir, AUTHORITY).certificate;
        let own = Pair::named(dir, "operator");
        tries = format!(
            "Try:  curl --cacert {authority} {origin}/stocks/nvidia\n      bazaar status --admin {} --ca {authority} --client-cert {} --client-key {}",
            plan.admin_origin(),
            own.certificate.display(),
            own.key.display(),
            authority = authority.display(),
        );
    }
    format!("{}\n{tries}\nStop: Ctrl-C\n", table.render())
}
