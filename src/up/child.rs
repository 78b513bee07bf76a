//! One service kept running until it is told to stop.

use std::future::pending;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use daemon::tasks::{self, Task};
use tokio::process::{self, ChildStdin, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{sleep, timeout};

use super::plan::Service;

/// Longest wait for a service that was asked to stop, beyond the time that it takes itself at
/// most; after it comes SIGKILL.
const STOP_SLACK: Duration = Duration::from_secs(1);

/// Pause before a service is started again: doubles from the shortest to the longest while it
/// does not live long enough to count as recovered.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(200);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(10);
const RECOVERED_AFTER: Duration = Duration::from_secs(60);

/// What of this process's environment a service must not take for flags of its own.
const OWN_VARIABLES: &str = "BAZAAR_";
const LOG_VARIABLE: &str = "BAZAAR_LOG";

/// What a supervisor has this process do, and nobody else.
const OF_SUPERVISOR: [&str; 4] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDNAMES",
];

/// What happens to a service.
#[derive(Debug)]
pub enum Event {
    /// A process was started.
    Started { service: String, pid: u32 },
    /// Its process ended, and nobody had asked it to.
    Died {
        service: String,
        /// The process that was.
        pid: u32,
        status: ExitStatus,
        /// When it is started again, if ever.
        again_in: Option<Duration>,
    },
    /// The operating system refused a process.
    NotStarted { service: String, source: io::Error },
}

/// How a process ended, to follow its name: "was killed by signal 9".
pub fn how(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was killed by signal {signal}"),
        (_, Some(code)) => format!("exited with status {code}"),
        _ => "ended".to_owned(),
    }
}

/// A service with its process. Dropped, the process is told to stop and not waited for.
#[derive(Debug)]
pub struct Child {
    stop: oneshot::Sender<watch::Receiver<bool>>,
    task: Task<()>,
}

impl Child {
    /// Starts the service; what happens to it is sent to `events`.
    pub fn start(service: Service, restart: bool, events: mpsc::Sender<Event>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tasks::spawn("keep a service", keep(service, restart, stopped, events));
        Self { stop, task }
    }

    /// Tells the process to stop, at once; the result waits until it is gone. It is killed when it
    /// takes too long, and when `hurried` says so.
    pub fn stop(self, hurried: watch::Receiver<bool>) -> impl Future<Output = ()> {
        self.stop.send(hurried).ok();
        self.task
    }
}

/// Where nobody listens to events any more, nobody needs to know of them.
async fn keep(
    service: Service,
    restart: bool,
    mut stop: oneshot::Receiver<watch::Receiver<bool>>,
    events: mpsc::Sender<Event>,
) {
    let mut pause = RESTART_PAUSE_MIN;
    loop {
        let started = Instant::now();
        let name = service.name.clone();
        let mut process = match spawn(&service) {
            Ok(process) => process,
            Err(source) => {
                events
                    .send(Event::NotStarted {
                        service: name,
                        source,
                    })
                    .await
                    .ok();
                return;
            }
        };
        let pid = process
            .id()
            .expect("a process that nobody waited for has its id");
        // Taken out, as waiting for the process closes what is still its own.
        let lifeline = process.stdin.take();
        events
            .send(Event::Started {
                service: name.clone(),
                pid,
            })
            .await
            .ok();

        let ended = tokio::select! {
            ended = process.wait() => ended,
            hurried = &mut stop => {
                let time_max = service.stop_time_max + STOP_SLACK;
                return end(process, lifeline, time_max, hurried.ok()).await;
            }
        };
        let status = match ended {
            Ok(status) => status,
            Err(source) => {
                events
                    .send(Event::NotStarted {
                        service: name,
                        source,
                    })
                    .await
                    .ok();
                return;
            }
        };
        if started.elapsed() >= RECOVERED_AFTER {
            pause = RESTART_PAUSE_MIN;
        }
        let again_in = restart.then_some(pause);
        events
            .send(Event::Died {
                service: name,
                pid,
                status,
                again_in,
            })
            .await
            .ok();
        if !restart {
            return;
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = &mut stop => return,
        }
        pause = (pause * 2).min(RESTART_PAUSE_MAX);
    }
}

/// In a process group of its own: Ctrl-C reaches only `up`, which stops its services in order.
fn spawn(service: &Service) -> io::Result<process::Child> {
    let mut command = Command::new(std::env::current_exe()?);
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with(OWN_VARIABLES) && variable != LOG_VARIABLE {
            command.env_remove(variable);
        }
    }
    for variable in OF_SUPERVISOR {
        command.env_remove(variable);
    }
    command
        .args(&service.arguments)
        .envs(service.environment.iter().cloned())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

/// Asks by the end of its standard input: a signal would be its second where a supervisor has
/// signalled all of them, and would end it at once.
async fn end(
    mut process: process::Child,
    lifeline: Option<ChildStdin>,
    time_max: Duration,
    hurried: Option<watch::Receiver<bool>>,
) {
    drop(lifeline);
    let hurry = async {
        if let Some(mut hurried) = hurried
            && hurried.wait_for(|hurried| *hurried).await.is_ok()
        {
            return;
        }
        pending().await
    };
    let is_gone = tokio::select! {
        ended = timeout(time_max, process.wait()) => ended.is_ok(),
        () = hurry => false,
    };
    if !is_gone {
        process.kill().await.ok();
    }
}
