//! Programs that are started, waited for, and gone when the benchmark is.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use crate::error::Error;

/// Longest wait for a server to be ready.
const READY_WAIT_MAX: Duration = Duration::from_secs(60);

/// Longest wait for a server that was asked to stop, before it is killed.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);

/// Between two looks at something that is waited for.
const POLL: Duration = Duration::from_millis(20);

/// How much of a log is shown.
const TAIL_LINES: usize = 20;

/// What to do about a missing program.
const REMEDY: &str = "`make bench-setup` installs what is missing";

/// Where `make bench-setup` puts what Debian has not, from the project's root.
const PEERS_DIR: &str = "target/peers/bin";

/// A program's command line, so that it dies with the thread that starts it (`setpriv` is of
/// util-linux, and becomes the program).
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.arg("--pdeathsig=TERM").arg(program);
    without_settings(&mut command);
    command
}

/// As [`command`], but as another user of the system.
pub fn command_as(user: &str, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command
        .arg(format!("--reuid={user}"))
        .arg(format!("--regid={user}"))
        .args(["--init-groups", "--pdeathsig=TERM"])
        .arg(program);
    command
}

/// Nobody's environment changes what is measured.
fn without_settings(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("BAZAAR_") {
            command.env_remove(variable);
        }
    }
}

/// Finds a program where `make bench-setup` puts it, on the PATH, or where Debian keeps those of servers.
pub fn find(program: &str) -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::iter::once(PathBuf::from(PEERS_DIR))
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
        .ok_or_else(|| Error::Missing {
            program: program.to_owned(),
            remedy: REMEDY,
        })
}

/// Runs a program to its end, and returns what it printed.
pub fn run(mut command: Command) -> Result<String, Error> {
    let program = name_of(&command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: program.clone(),
            source,
        })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(Error::Failed {
            program,
            output: format!("{}: {}", output.status, text(&output.stderr).trim()),
        })
    }
}

/// The command line, for messages.
fn name_of(command: &Command) -> String {
    let words = [command.get_program()]
        .into_iter()
        .chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// A server's process. It is asked to stop when it is dropped, and killed where it does not.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a server; what it says goes to a file in `dir`.
    pub fn start(name: &str, dir: &Path, mut command: Command) -> Result<Self, Error> {
        let log = dir.join(format!("{name}.log"));
        let file = File::create(&log).map_err(Error::file(&log))?;
        let copy = file.try_clone().map_err(Error::file(&log))?;
        let program = name_of(&command);
        let child = command
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .map_err(|source| Error::Start { program, source })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
        })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until a condition holds, as long as the server runs.
    pub fn wait_until(&mut self, mut ready: impl FnMut(&Self) -> bool) -> Result<(), Error> {
        let start = Instant::now();
        while !ready(self) {
            let ended = !matches!(self.child.try_wait(), Ok(None));
            if ended || start.elapsed() > READY_WAIT_MAX {
                return Err(self.not_ready(start.elapsed()));
            }
            sleep(POLL);
        }
        Ok(())
    }

    fn not_ready(&self, waited: Duration) -> Error {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        Error::NotReady {
            name: self.name.clone(),
            waited_s: waited.as_secs(),
            log: lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"),
        }
    }

    /// SIGTERM; killed where that does not end it in time.
    pub fn stop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid
            && matches!(self.child.try_wait(), Ok(None))
        {
            // It may have ended by itself in between.
            let _ = kill_process(pid, Signal::TERM);
        }
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > STOP_WAIT_MAX {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            sleep(POLL);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Loopback addresses with ports that were free a moment ago, no two the same.
pub fn free_addresses<const N: usize>() -> Result<[SocketAddr; N], Error> {
    let failed = || Error::machine("cannot find a free port");
    let mut held = Vec::with_capacity(N);
    for _ in 0..N {
        held.push(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?);
    }
    let mut addresses = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)); N];
    for (address, listener) in addresses.iter_mut().zip(&held) {
        *address = listener.local_addr().map_err(failed())?;
    }
    Ok(addresses)
}

/// A process's resident memory in bytes, as the kernel counts it now; 0 where it has ended.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    parse_resident(&status).unwrap_or(0)
}

/// The same of a process and all that descend from it: servers have workers.
pub fn family_bytes(pid: u32) -> u64 {
    family(pid).into_iter().map(resident_bytes).sum()
}

/// A process and all that descend from it now.
pub fn family(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let parents: Vec<(u32, u32)> = entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let status = fs::read_to_string(entry.path().join("status")).ok()?;
            Some((pid, parse_parent(&status)?))
        })
        .collect();
    let mut family = vec![pid];
    // Whoever has joined brings its children in a later turn.
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        let children = parents.iter().filter(|(_, of)| *of == parent);
        family.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

/// Sends a signal to a process; that it has ended is no failure.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        let _ = kill_process(pid, signal);
    }
}

/// Lets this process, and what it starts from here on, have as many files and connections open as the system allows.
pub fn raise_open_files() {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    // Where that is refused, whatever wants more says so.
    let _ = setrlimit(Resource::Nofile, raised);
}

fn parse_parent(status: &str) -> Option<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok()
}

fn parse_resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_free_and_no_two_the_same() {
        let addresses = free_addresses::<16>().unwrap();
        let distinct: std::collections::BTreeSet<_> = addresses.iter().collect();
        assert_eq!(distinct.len(), 16);
    }

    #[test]
    fn memory_is_read_as_the_kernel_writes_it() {
        let status = "Name:\tbazaar\nVmPeak:\t  999 kB\nVmRSS:\t    2048 kB\n";
        assert_eq!(parse_resident(status), Some(2 << 20));
        assert_eq!(parse_resident("Name:\tzombie\n"), None);
        assert!(resident_bytes(std::process::id()) > 0);
    }

    #[test]
    fn a_family_is_a_process_and_all_that_descend_from_it() {
        assert_eq!(parse_parent("Name:\tx\nPPid:\t17\n"), Some(17));
        let dir = tempfile::tempdir().unwrap();
        let mut command = command("sh");
        command.args(["-c", "sleep 5 & echo ready; wait"]);
        let mut process = Process::start("server", dir.path(), command).unwrap();
        process.wait_until(|it| it.log().contains("ready")).unwrap();
        let alone = resident_bytes(process.pid());
        assert!(alone > 0 && family_bytes(process.pid()) > alone);
        assert_eq!(family_bytes(u32::MAX), 0);
    }

    #[test]
    fn a_server_that_ends_early_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = command("sh");
        command.args(["-c", "echo reason >&2; exit 3"]);
        let mut process = Process::start("server", dir.path(), command).unwrap();
        let error = process.wait_until(|_| false).unwrap_err().to_string();
        assert!(
            error.contains("server") && error.contains("reason"),
            "{error}"
        );
    }
}
