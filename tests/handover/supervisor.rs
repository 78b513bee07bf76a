//! What a supervisor is told, by the protocol of systemd's sd_notify.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;

use super::{GATEWAY, PATIENCE, start_in_vain, start_in_vain_by};
use crate::harness::{Bazaar, Order, Process, Server, wait_until};

/// A supervisor that notes what it is told.
pub(super) struct Supervisor {
    pub(super) socket: UnixDatagram,
    path: PathBuf,
}

impl Supervisor {
    pub(super) fn new(dir: &Path) -> Self {
        let path = dir.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket, path }
    }

    /// Starts a service that tells it, and that it wants to hear of often.
    pub(super) fn start(&self, bazaar: &Bazaar, server: Server, flags: &[&str]) -> Process {
        let line = format!(
            "NOTIFY_SOCKET='{}' WATCHDOG_USEC=400000 exec \"$0\" \"$@\"",
            self.path.display()
        );
        self.start_by(&line, bazaar, server, flags)
    }

    /// Starts what tells it, and is not asked how often.
    fn line(&self) -> String {
        format!("NOTIFY_SOCKET='{}' exec \"$0\" \"$@\"", self.path.display())
    }

    fn start_by(&self, line: &str, bazaar: &Bazaar, server: Server, flags: &[&str]) -> Process {
        let name = (&*server.to_string(), bazaar.dir());
        let arguments = bazaar.arguments(server, flags);
        Process::start_through(line, name, arguments, (Stdio::null(), Stdio::null()))
    }

    fn next(&self) -> String {
        let mut told = [0; 4096];
        let length = self.socket.recv(&mut told).expect("it is told something");
        String::from_utf8(told[..length].to_vec()).unwrap()
    }

    /// Waits for a message, before which only these come.
    pub(super) fn wait_for(&self, message: &str, before: &[&str]) {
        loop {
            let next = self.next();
            if next == message {
                return;
            }
            let is_one = before.iter().any(|one| next.starts_with(one));
            assert!(is_one, "`{next}` came before `{message}`");
        }
    }
}

pub(super) const READY: &str = "READY=1\n";
pub(super) const ALIVE: &str = "WATCHDOG=1\n";
const STOPPING: &str = "STOPPING=1\n";

#[test]
fn a_supervisor_is_told_that_a_service_is_ready_alive_and_stopping() {
    let mut bazaar = Bazaar::start_default();
    let supervisor = Supervisor::new(bazaar.dir());
    let follower = Server::Order(bazaar.follower());
    for server in [GATEWAY, follower, Server::Catalog] {
        assert!(bazaar.server(server).terminate().success());
        let process = supervisor.start(&bazaar, server, &[]);
        drop(bazaar.put_server(server, process));
        supervisor.wait_for(READY, &[ALIVE]);
        if server == GATEWAY {
            assert_eq!(bazaar.admin("GET", "/readyz", b"").status, 200);
        }
        supervisor.wait_for(ALIVE, &[]);
        supervisor.wait_for(ALIVE, &[]);
        bazaar.server(server).signal(Signal::TERM);
        supervisor.wait_for(STOPPING, &[ALIVE]);
        assert!(bazaar.server(server).wait().success());
        // Nothing is behind it but, perhaps, that it was alive still.
        supervisor.socket.set_nonblocking(true).unwrap();
        let mut told = [0; 64];
        while let Ok(length) = supervisor.socket.recv(&mut told) {
            assert_eq!(&told[..length], ALIVE.as_bytes());
        }
        supervisor.socket.set_nonblocking(false).unwrap();
        bazaar.start_server(server);
        bazaar.wait_until_ready();
    }
}

#[test]
fn a_supervisor_is_told_who_has_taken_over_before_the_other_one_ends() {
    let mut bazaar = Bazaar::start_default();
    let supervisor = Supervisor::new(bazaar.dir());
    assert!(bazaar.server(GATEWAY).terminate().success());
    let process = supervisor.start(&bazaar, GATEWAY, &[]);
    drop(bazaar.put_server(GATEWAY, process));
    supervisor.wait_for(READY, &[ALIVE]);

    // One that is told to stop before it has the place: the service does not.
    let mut in_vain = start_in_vain_by(&supervisor.line(), &mut bazaar);
    supervisor.wait_for_reload();
    assert!(in_vain.terminate().success(), "{}", in_vain.log());
    let again = format!("MAINPID={}\n{READY}", bazaar.server(GATEWAY).pid());
    supervisor.wait_for(&again, &[ALIVE]);
    bazaar.trade(&Order::sell(1, "nvidia"));

    // One that fails.
    let mut in_vain = start_in_vain(&mut bazaar);
    supervisor.wait_for_reload();
    in_vain.kill();
    supervisor.wait_for(&again, &[ALIVE]);

    // And one that does not, which is told by the other one how often it is to be heard of.
    let successor = supervisor.start_by(&supervisor.line(), &bazaar, GATEWAY, &["--take-over"]);
    supervisor.wait_for_reload();
    let main = format!("MAINPID={}\n{READY}", successor.pid());
    supervisor.wait_for(&main, &[ALIVE]);
    let mut before = bazaar.put_server(GATEWAY, successor);
    // It is told to stop itself, as its supervisor does to all processes of a service: it is not the one any more.
    wait_until("the one before to know that it is replaced", || {
        before.log().contains("another process has taken its place")
    });
    before.signal(Signal::TERM);
    assert!(before.wait().success());
    for _ in 0..3 {
        supervisor.wait_for(ALIVE, &[]);
    }
    bazaar.server(GATEWAY).signal(Signal::TERM);
    supervisor.wait_for(STOPPING, &[ALIVE]);
    assert!(bazaar.server(GATEWAY).wait().success());
}

impl Supervisor {
    fn wait_for_reload(&self) {
        let reload = loop {
            let next = self.next();
            if next != ALIVE {
                break next;
            }
        };
        assert!(
            reload.starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{reload}"
        );
    }
}

#[test]
fn a_supervisor_that_reads_nothing_for_a_while_is_told_who_has_taken_over() {
    let mut bazaar = Bazaar::start_default();
    let supervisor = Supervisor::new(bazaar.dir());
    assert!(bazaar.server(GATEWAY).terminate().success());
    let fill = || {
        let filling = UnixDatagram::unbound().unwrap();
        filling.set_nonblocking(true).unwrap();
        while filling.send_to(ALIVE.as_bytes(), &supervisor.path).is_ok() {}
    };
    fill();
    let process = supervisor.start_by(&supervisor.line(), &bazaar, GATEWAY, &[]);
    drop(bazaar.put_server(GATEWAY, process));
    bazaar.wait_until_ready();
    supervisor.wait_for(READY, &[ALIVE]);

    fill();
    let successor = supervisor.start_by(&supervisor.line(), &bazaar, GATEWAY, &["--take-over"]);
    let main = format!("MAINPID={}\n{READY}", successor.pid());
    let mut before = bazaar.put_server(GATEWAY, successor);
    // It waits for a place in the queue, and not for ever.
    assert!(before.wait().success(), "{}", before.log());
    supervisor.wait_for(&main, &[ALIVE]);
}

#[test]
fn a_supervisor_that_is_deaf_or_not_there_keeps_nothing_from_working() {
    let mut bazaar = Bazaar::start_default();
    let deaf = bazaar.dir().join("deaf");
    let _nobody_reads = UnixDatagram::bind(&deaf).unwrap();
    let long = "x".repeat(300);
    for socket in [
        deaf.to_str().unwrap(),
        "/nonexistent/notify",
        "",
        "@",
        &long,
        "vsock:1:2",
    ] {
        assert!(bazaar.server(GATEWAY).terminate().success());
        // So often that a reader's queue would be full at once.
        let line = format!("NOTIFY_SOCKET='{socket}' WATCHDOG_USEC=2000 exec \"$0\" \"$@\"");
        let name = (&*GATEWAY.to_string(), bazaar.dir());
        let arguments = bazaar.arguments(GATEWAY, &[]);
        let stdio = (Stdio::null(), Stdio::null());
        let process = Process::start_through(&line, name, arguments, stdio);
        drop(bazaar.put_server(GATEWAY, process));
        bazaar.wait_until_ready();
        bazaar.trade(&Order::sell(1, "nvidia"));
    }
    assert_eq!(bazaar.panics(), Vec::<String>::new());
}
