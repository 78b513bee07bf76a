//! Programs that are gone when the test is. PostgreSQL refuses to run as root: root runs it as whom
//! Debian's package made for it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Whom Debian's package made.
const USER: &str = "postgres";

/// Longest wait for a server to be ready, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest wait for one that was asked to stop, before it is killed.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

const POLL: Duration = Duration::from_millis(20);

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// A command line that dies with the thread that starts it (`setpriv` is of util-linux, and becomes
/// the program), as another user where this one is root.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=INT");
    if is_root() {
        command
            .arg(format!("--reuid={USER}"))
            .arg(format!("--regid={USER}"))
            .arg("--init-groups");
    }
    command
        .arg(program)
        .current_dir("/")
        .env("LC_ALL", "C.UTF-8");
    command
}

/// Gives a file to whom the server runs as.
pub fn chown(path: &Path) {
    if is_root() {
        let mut line = Command::new("chown");
        line.arg(format!("{USER}:{USER}")).arg(path);
        run(line);
    }
}

/// Runs a program to its end, and returns what it printed.
///
/// # Panics
/// Where it fails.
pub fn run(mut command: Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
    text(&output.stdout)
}

/// A server, stopped when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Mutex<Child>,
    log: PathBuf,
}

impl Process {
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log);
        let file = file.expect("the directory is ours");
        let copy = file.try_clone().expect("it is open");
        let started = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn();
        let child = started.unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self {
            child: Mutex::new(child),
            log: log.to_owned(),
        }
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn wait_until(&self, mut ready: impl FnMut() -> bool) {
        let started = Instant::now();
        while !ready() {
            assert!(self.runs(), "it ended: {}", self.log());
            assert!(started.elapsed() < PATIENCE, "not ready: {}", self.log());
            sleep(POLL);
        }
    }

    fn runs(&self) -> bool {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        matches!(child.try_wait(), Ok(None))
    }

    fn pid(&self) -> Option<Pid> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        Pid::from_raw(i32::try_from(child.id()).ok()?)
    }

    /// Signals the server's first process.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            let _ = kill_process(pid, signal); // it may have ended
        }
    }

    /// The processes that it has started.
    fn children(&self) -> Vec<Pid> {
        let Some(pid) = self.pid() else {
            return Vec::new();
        };
        let pid = pid.as_raw_nonzero();
        let file = format!("/proc/{pid}/task/{pid}/children");
        let children = fs::read_to_string(file).unwrap_or_default();
        let pids = children
            .split_whitespace()
            .filter_map(|pid| pid.parse().ok());
        pids.filter_map(Pid::from_raw).collect()
    }

    /// Signals all of its processes: it is stopped, or goes on, as a whole.
    pub fn signal_all(&self, signal: Signal) {
        let children = self.children();
        self.signal(signal);
        for child in children {
            let _ = kill_process(child, signal);
        }
    }

    /// Kills all of its processes.
    pub(crate) fn kill(&self) {
        self.signal_all(Signal::KILL);
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal_all(Signal::CONT);
        self.signal(Signal::INT); // fast
        let started = Instant::now();
        while self.runs() && started.elapsed() < STOP_TIME_MAX {
            sleep(POLL);
        }
        if self.runs() {
            self.kill();
        }
    }
}
