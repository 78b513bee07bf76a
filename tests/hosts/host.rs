//! A host: namespaces of its own for the network and for processes, and a shell that starts its services when it gets
//! power. Its files outlast that.
//!
//! Without power all of its processes are gone at once: the kernel kills a namespace with its first one. That also ends
//! it with the test, however that ends, since the shell reads from it.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::switch::{HostNumber, Switch, ethernet};
use crate::harness::wait_until;

/// When a connection on which nothing comes is asked whether its peer is there, how often, and how many questions it
/// may leave unanswered.
const KEEP_ALIVE: [(&str, u32); 3] = [
    ("tcp_keepalive_time", 3),
    ("tcp_keepalive_intvl", 1),
    ("tcp_keepalive_probes", 5),
];

/// The network of all hosts.
pub fn address(host: HostNumber) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, host)
}

/// The beginning of a line of a service's log that says with which exit code it ended. Without power there is none.
pub const ENDED: &str = "ended: ";

/// How a host's network device is called there.
const DEVICE: &str = "eth0";

/// Something that a host runs, and starts again whenever it ends.
#[derive(Debug, Clone)]
pub struct Service {
    pub name: &'static str,
    /// By whom; root where nobody is named.
    pub user: Option<&'static str>,
    pub command: Vec<String>,
}

#[derive(Debug)]
pub struct Host {
    pub number: HostNumber,
    /// Its disk, and its logs.
    dir: PathBuf,
    power: Option<Power>,
}

#[derive(Debug)]
struct Power {
    /// Waits for the shell, which is its only child.
    unshare: Child,
    shell: ChildStdin,
    /// The first process of the namespace: the shell.
    first: Pid,
}

impl Host {
    /// One without power, in a directory below that.
    pub fn new(name: &str, number: HostNumber, below: &Path) -> Self {
        let dir = below.join(name);
        fs::create_dir_all(&dir).expect("the test's directory is writable");
        Self {
            number,
            dir,
            power: None,
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Starts its services, with a device at the switch.
    pub fn power_on(&mut self, switch: &Switch, services: &[Service]) {
        let mut unshare = Command::new("unshare");
        unshare.args([
            "--net",
            "--ipc",
            "--pid",
            "--mount-proc",
            "--fork",
            "--kill-child",
        ]);
        unshare.args(["bash", "--noprofile", "--norc"]);
        without_environment(&mut unshare);
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.log("host"));
        let log = log.expect("the host's directory is writable");
        let mut unshare = unshare
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("it could be run a moment ago");
        let shell = unshare.stdin.take().expect("it was asked for");
        let mut first = None;
        wait_until("the host's shell", || {
            first = only_child(unshare.id());
            first.is_some_and(|first| namespace(first) != namespace_of_test())
        });
        let first = first.expect("it was waited for");
        self.power = Some(Power {
            unshare,
            shell,
            first,
        });
        let (device, number) = (format!("host-{}", self.number), self.number);
        switch.plug(number, &device).expect("root makes devices");
        ip(&[
            "link",
            "set",
            &device,
            "netns",
            &first.as_raw_nonzero().to_string(),
        ]);
        // libpq asks for keep-alive and leaves its times to the machine, whose two hours `pg_rewind` would wait for a
        // server that was cut off meanwhile, and its host with it.
        for (setting, value) in KEEP_ALIVE {
            self.tell(&format!("echo {value} > /proc/sys/net/ipv4/{setting}"));
        }
        self.tell("ip link set lo up");
        self.tell(&format!(
            "ip link set {device} name {DEVICE} address {}",
            ethernet(number)
        ));
        self.tell(&format!("ip addr add {}/24 dev {DEVICE}", address(number)));
        self.tell(&format!("ip link set {DEVICE} up"));
        for service in services {
            self.start(service);
        }
    }

    /// As a supervisor does: whatever ends is started again.
    fn start(&mut self, service: &Service) {
        let user = service.user.map_or_else(String::new, |user| {
            format!("setpriv --reuid={user} --regid={user} --init-groups ")
        });
        let words: Vec<String> = service.command.iter().map(|word| quoted(word)).collect();
        let log = quoted(&self.log(service.name).display().to_string());
        self.tell(&format!(
            "(cd /; while :; do {user}{}; echo \"{ENDED}$?\"; sleep 0.3; done </dev/null >>{log} 2>&1) &",
            words.join(" ")
        ));
    }

    fn tell(&mut self, line: &str) {
        let power = self.power.as_mut().expect("it has power");
        writeln!(power.shell, "{line}").expect("the shell reads");
    }

    /// What a service wrote to its log.
    pub fn log(&self, service: &str) -> PathBuf {
        self.dir.join(format!("{service}.log"))
    }

    /// All of its processes are gone, and nobody hears of it.
    pub fn power_off(&mut self, switch: &Switch) {
        if let Some(mut power) = self.power.take() {
            switch.unplug(self.number);
            let _ = kill_process(power.first, Signal::KILL);
            power.unshare.wait().expect("a child can be waited for");
        }
    }

    /// Its processes stand still, and what is sent to it waits. Not its shell: that would outlive a test that is killed.
    pub fn pause(&self) {
        let mut paused = BTreeSet::new();
        // One that is not seen at first was started by one that was not paused yet.
        loop {
            let running: Vec<Pid> = self
                .processes()
                .into_iter()
                .filter(|pid| paused.insert(pid.as_raw_nonzero()))
                .collect();
            if running.is_empty() {
                return;
            }
            for pid in running {
                let _ = kill_process(pid, Signal::STOP); // it may have ended
            }
        }
    }

    pub fn resume(&self) {
        for pid in self.processes() {
            let _ = kill_process(pid, Signal::CONT);
        }
    }

    fn processes(&self) -> Vec<Pid> {
        let Some(power) = &self.power else {
            return Vec::new();
        };
        let own = namespace(power.first);
        let all = fs::read_dir("/proc").expect("the kernel says so").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let pids = pids.filter_map(Pid::from_raw);
        pids.filter(|pid| own.is_some() && *pid != power.first && namespace(*pid) == own)
            .collect()
    }
}

fn only_child(pid: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
}

fn namespace(pid: Pid) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{}/ns/pid", pid.as_raw_nonzero())).ok()
}

fn namespace_of_test() -> Option<PathBuf> {
    fs::read_link("/proc/self/ns/pid").ok()
}

/// What this process was told by variables is not for what it starts.
pub fn without_environment(command: &mut Command) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command
        .env_clear()
        .env("PATH", path)
        .env("LC_ALL", "C.UTF-8");
}

/// Changes this process's own network, which is one of its own.
pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output = output.expect("it could be run a moment ago");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {said}");
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}
