//! One process, its log and its end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::PipeReader;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};

use super::outputs::Broken;
use super::wait::wait_until;

/// Longest wait for a process that was asked to stop.
const STOP_WAIT_MAX: Duration = Duration::from_secs(20);

/// How much of a log is shown when a test fails.
const TAIL_LINES: usize = 40;

/// Ticks of a second in `/proc` on Linux, and where those that a process has had begin behind its name.
const USER_HZ: u64 = 100;
const STAT_UTIME: usize = 11;

/// The command under test.
fn bazaar() -> Command {
    without_settings(Command::new(BAZAAR))
}

/// Where it is.
pub const BAZAAR: &str = env!("CARGO_BIN_EXE_bazaar");

/// The same, with file descriptors closed that a shell is told of.
fn bazaar_with(closed: &str) -> Command {
    let mut command = without_settings(Command::new("sh"));
    command.args(["-c", &format!("exec \"$0\" \"$@\"{closed}"), BAZAAR]);
    command
}

/// The command under test, in a session of its own, whose terminal its standard input is.
pub(super) fn in_session<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = without_settings(Command::new("setsid"));
    command.args(["--ctty", BAZAAR]).args(arguments);
    for variable in ["COLUMNS", "LINES", "NO_COLOR"] {
        command.env_remove(variable);
    }
    command
}

fn without_settings(mut command: Command) -> Command {
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("BAZAAR_") {
            command.env_remove(variable);
        }
    }
    command
}

/// Runs a command to its end.
pub fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    bazaar()
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the command under test starts")
}

/// Runs a command to its end, with further variables in its environment.
pub fn run_with<S: AsRef<OsStr>>(
    variables: &[(&str, &str)],
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    bazaar()
        .args(arguments)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the command under test starts")
}

/// Runs a command that must succeed, and returns what it printed.
pub fn run_ok<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = run(arguments);
    assert!(
        status.success(),
        "{status}: {}",
        String::from_utf8_lossy(&stderr)
    );
    String::from_utf8(stdout).expect("results are text")
}

/// A process of the command under test. Killed when it is dropped; ends by itself when the
/// test process does.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    out: PathBuf,
    /// Of outputs that nobody reads.
    _readers: Vec<PipeReader>,
}

/// What is the matter with a process's outputs, if anything is.
#[derive(Debug, Clone, Copy, Default)]
pub struct Outputs {
    pub out: Option<Broken>,
    pub log: Option<Broken>,
}

/// How much of a process's memory is in RAM.
#[derive(Debug, Clone, Copy)]
pub struct Resident {
    pub all_kib: u64,
    /// Of it, what is no file's: heap and stacks.
    pub anonymous_kib: u64,
}

impl Process {
    /// Starts `bazaar` with arguments. Its log goes to a file in `dir`, behind that of a
    /// process of the same name before it.
    pub fn start<S: AsRef<OsStr>>(
        name: &str,
        dir: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Self {
        Self::start_with(name, dir, arguments, Outputs::default())
    }

    /// The same, where it may be that it cannot write.
    pub fn start_with<S: AsRef<OsStr>>(
        name: &str,
        dir: &Path,
        arguments: impl IntoIterator<Item = S>,
        outputs: Outputs,
    ) -> Self {
        Self::start_release(Path::new(BAZAAR), (name, dir), arguments, outputs)
    }

    /// The same, of the release that is in a file.
    pub fn start_release<S: AsRef<OsStr>>(
        release: &Path,
        (name, dir): (&str, &Path),
        arguments: impl IntoIterator<Item = S>,
        outputs: Outputs,
    ) -> Self {
        let (log, out) = (
            dir.join(format!("{name}.log")),
            dir.join(format!("{name}.out")),
        );
        let append = |path: &Path| {
            File::options()
                .create(true)
                .append(true)
                .open(path)
                .expect("the test's directory is writable")
        };
        let mut readers = Vec::new();
        let mut closed = String::new();
        let mut output = |broken: Option<Broken>, file: &Path, number: u8| match broken {
            None => Stdio::from(append(file)),
            Some(Broken::Closed) => {
                closed += &format!(" {number}>&-");
                Stdio::null()
            }
            Some(broken) => {
                let (output, reader) = broken.open();
                readers.extend(reader);
                output
            }
        };
        let (stdout, stderr) = (output(outputs.out, &out, 1), output(outputs.log, &log, 2));
        let mut command = match &*closed {
            "" => without_settings(Command::new(release)),
            closed => bazaar_with(closed),
        };
        let child = command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(stderr)
            .spawn()
            .expect("the command under test starts");
        Self {
            name: name.to_owned(),
            child,
            log,
            out,
            _readers: readers,
        }
    }

    /// Starts `bazaar` through a line of a shell, which `exec "$0" "$@"` is part of: what its standard input and output
    /// are is the test's matter, so it is killed with the test's process alone where that ends in order.
    pub fn start_through(
        line: &str,
        (name, dir): (&str, &Path),
        arguments: impl IntoIterator<Item = String>,
        (stdin, stdout): (Stdio, Stdio),
    ) -> Self {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log);
        let stderr = file.expect("the test's directory is writable");
        let mut command = without_settings(Command::new("sh"));
        command.args(["-c", line, BAZAAR]).args(arguments);
        let child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn();
        Self {
            name: name.to_owned(),
            child: child.expect("there is a shell"),
            log,
            out: dir.join(format!("{name}.out")),
            _readers: Vec::new(),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has printed.
    pub fn out(&self) -> String {
        fs::read_to_string(&self.out).unwrap_or_default()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_none()
    }

    /// Whether it has ended with exit code 0.
    pub fn has_succeeded(&mut self) -> bool {
        self.child
            .try_wait()
            .expect("a child can be waited for")
            .is_some_and(|status| status.success())
    }

    /// How much of its memory is in RAM, in KiB.
    pub fn resident_kib(&self) -> u64 {
        self.resident().all_kib
    }

    pub fn resident(&self) -> Resident {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the process is there");
        let kib = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
            kib.unwrap_or_else(|| panic!("no {name} in {status}"))
        };
        Resident {
            all_kib: kib("VmRSS:"),
            anonymous_kib: kib("RssAnon:"),
        }
    }

    /// The processor time that its threads have had so far, in steps of 10 ms.
    pub fn processor_time(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        let stat = stat.expect("the process is there");
        // The name before it can have anything in it, see proc_pid_stat(5).
        let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
        let fields = fields.split_whitespace().skip(STAT_UTIME).take(2);
        let ticks: u64 = fields.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Duration::from_millis(ticks * 1_000 / USER_HZ)
    }

    /// Waits until it has ended by itself; returns how.
    pub fn wait(&mut self) -> ExitStatus {
        wait_until(&format!("{} to end", self.name), || !self.is_running());
        self.child.wait().expect("a child can be waited for")
    }

    /// SIGKILL; returns when it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("a child can be killed");
        self.child.wait().expect("a child can be waited for");
    }

    /// SIGSTOP: it keeps what it has, and does nothing.
    pub fn suspend(&self) {
        send_signal(self.child.id(), Signal::STOP);
    }

    /// SIGCONT: it goes on.
    pub fn resume(&self) {
        send_signal(self.child.id(), Signal::CONT);
    }

    pub fn signal(&self, signal: Signal) {
        send_signal(self.child.id(), signal);
    }

    /// Lowers how many files it may have open.
    pub fn limit_open_files(&self, files: u64) {
        let limit = Rlimit {
            current: Some(files),
            maximum: Some(files),
        };
        prlimit(Some(pid(self.child.id())), Resource::Nofile, limit)
            .expect("limits can be lowered");
    }

    /// SIGTERM; returns how it ended.
    pub fn terminate(&mut self) -> ExitStatus {
        send_signal(self.child.id(), Signal::TERM);
        let start = Instant::now();
        wait_until(&format!("{} to stop", self.name), || !self.is_running());
        assert!(
            start.elapsed() < STOP_WAIT_MAX,
            "{} took {:?} to stop",
            self.name,
            start.elapsed()
        );
        self.child.wait().expect("a child can be waited for")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(TAIL_LINES)..];
            eprintln!(
                "---- end of the log of {} ----\n{}",
                self.name,
                tail.join("\n")
            );
        }
    }
}

/// SIGKILL to a process that another than this one started.
pub fn kill_by_pid(pid: u32) {
    send_signal(pid, Signal::KILL);
}

/// Any signal to one.
pub fn signal_by_pid(pid: u32, signal: Signal) {
    send_signal(pid, signal);
}

fn send_signal(process: u32, signal: Signal) {
    kill_process(pid(process), signal).expect("the process is there");
}

fn pid(process: u32) -> Pid {
    i32::try_from(process)
        .ok()
        .and_then(Pid::from_raw)
        .expect("process ids are positive")
}
