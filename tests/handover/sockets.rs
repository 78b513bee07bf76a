//! Sockets that a supervisor keeps, and hands to a service at its start.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;

use socket2::{Domain, Socket, Type};

use super::{BURST, GATEWAY, LONE_LOOKUP, PATIENCE, hand_over, under_load};
use crate::harness::{Bazaar, Order, Process, run_with, try_request};

/// A gateway's listening sockets, as its supervisor has them.
struct Kept {
    clients: TcpListener,
    operators: TcpListener,
}

impl Kept {
    fn listen(bazaar: &Bazaar) -> Self {
        // `TcpListener::bind` has 128 wait, and systemd as many as the system allows.
        let listen = |address: SocketAddr| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_address(true).unwrap();
            socket.bind(&address.into()).expect("nobody listens there");
            socket.listen(i32::MAX).unwrap();
            TcpListener::from(socket)
        };
        Self {
            clients: listen(bazaar.address()),
            operators: listen(bazaar.admin_address()),
        }
    }

    /// Starts a gateway that gets them.
    fn activate(&self, bazaar: &Bazaar, variables: &str) -> Process {
        let give = |listener: &TcpListener| OwnedFd::from(listener.try_clone().unwrap()).into();
        let stdio: (Stdio, Stdio) = (give(&self.clients), give(&self.operators));
        let line = format!("{variables} exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null");
        let arguments = bazaar.arguments(GATEWAY, &[]);
        let name = (&*GATEWAY.to_string(), bazaar.dir());
        Process::start_through(&line, name, arguments, stdio)
    }
}

const ACTIVATED: &str = "LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=clients:operators";

#[test]
fn a_gateway_whose_sockets_a_supervisor_keeps_is_restarted_and_nobody_is_refused() {
    let mut bazaar = Bazaar::start_default();
    assert!(bazaar.server(GATEWAY).terminate().success());
    let kept = Kept::listen(&bazaar);
    // Who connects before it runs waits for it.
    let mut early: Vec<_> = (0..BURST)
        .map(|_| TcpStream::connect(bazaar.address()).unwrap())
        .collect();
    let process = kept.activate(&bazaar, ACTIVATED);
    drop(bazaar.put_server(GATEWAY, process));
    bazaar.wait_until_ready();
    for client in &mut early {
        client.write_all(LONE_LOOKUP).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    under_load(&mut bazaar, |bazaar, seen| {
        for _ in 0..2 {
            assert!(bazaar.server(GATEWAY).terminate().success());
            let process = kept.activate(bazaar, ACTIVATED);
            drop(bazaar.put_server(GATEWAY, process));
            bazaar.wait_until_ready();
            seen.wait_for(BURST);
        }
    });
    assert_eq!(
        inherited_by_children(bazaar.server(GATEWAY)),
        Vec::<String>::new()
    );
    // What its supervisor keeps can be handed over as well.
    hand_over(&mut bazaar);
    bazaar.trade(&Order::sell(1, "nvidia"));
    assert_eq!(
        inherited_by_children(bazaar.server(GATEWAY)),
        Vec::<String>::new()
    );
}

/// The sockets of a process that a child of it would get. Other files may be the test's own.
fn inherited_by_children(process: &Process) -> Vec<String> {
    const CLOSE_ON_EXEC: u32 = 0o2_000_000;
    let of = format!("/proc/{}", process.pid());
    let mut inherited = Vec::new();
    for entry in fs::read_dir(format!("{of}/fdinfo")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let Ok(info) = fs::read_to_string(format!("{of}/fdinfo/{name}")) else {
            continue; // closed since
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = u32::from_str_radix(flags.unwrap().trim(), 8).unwrap();
        let what = fs::read_link(format!("{of}/fd/{name}")).unwrap_or_default();
        if flags & CLOSE_ON_EXEC == 0 && what.to_string_lossy().starts_with("socket:") {
            inherited.push(format!("{name}: {}", what.display()));
        }
    }
    inherited
}

#[test]
fn a_socket_that_nothing_would_serve_is_an_error_that_names_it() {
    let mut bazaar = Bazaar::start_default();
    assert!(bazaar.server(GATEWAY).terminate().success());
    let kept = Kept::listen(&bazaar);
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    let stray = Kept {
        operators: elsewhere.try_clone().unwrap(),
        clients: kept.clients.try_clone().unwrap(),
    };
    let address = elsewhere.local_addr().unwrap().to_string();
    let ends = |kept: &Kept, variables: &str, status: i32, why: &str| {
        let mut process = kept.activate(&bazaar, variables);
        assert_eq!(process.wait().code(), Some(status), "{}", process.log());
        assert!(process.log().contains(why), "{why}: {}", process.log());
    };
    // Nobody listens at --admin yet, so that is no reason.
    drop(kept.operators);
    ends(&stray, ACTIVATED, 2, &address);
    // Of another process, so none of this one's business: the port is taken.
    ends(
        &stray,
        "LISTEN_FDS=2 LISTEN_PID=1",
        1,
        "another process listens there",
    );
    let connected = TcpStream::connect(bazaar.address()).unwrap();
    let deaf = Kept {
        operators: OwnedFd::from(connected).into(),
        clients: kept.clients.try_clone().unwrap(),
    };
    ends(&deaf, ACTIVATED, 2, "number 2 (`operators`)");
    ends(&deaf, "LISTEN_FDS=3", 2, "number 2");
    let many = format!("LISTEN_FDS={}", i32::MAX);
    ends(&deaf, &many, 2, "speaks of 2147483647 sockets");
    let datagrams = OwnedFd::from(UnixDatagram::unbound().unwrap());
    let other = Kept {
        operators: datagrams.into(),
        clients: kept.clients.try_clone().unwrap(),
    };
    ends(&other, ACTIVATED, 2, "number 2 (`operators`)");
}

#[test]
fn every_service_takes_the_sockets_that_it_is_handed() {
    let dir = tempfile::tempdir().unwrap();
    let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (clients, metrics) = (listen(), listen());
    let give = |listener: &TcpListener| OwnedFd::from(listener.try_clone().unwrap()).into();
    let data_dir = dir.path().join("data").display().to_string();
    let listens = format!("--listen={}", clients.local_addr().unwrap());
    let tells = format!("--metrics={}", metrics.local_addr().unwrap());
    let catalog = [
        "catalog",
        "--new",
        &format!("--data-dir={data_dir}"),
        &listens,
        &tells,
    ];
    let order = [
        "order",
        "--id=1",
        "--catalog=http://127.0.0.1:1",
        &format!("--data-dir={data_dir}-1"),
        &listens,
        &tells,
    ];
    for arguments in [&catalog[..], &order[..]] {
        let line = format!("{ACTIVATED} exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null");
        let arguments = arguments.iter().map(|flag| (*flag).to_owned());
        let stdio = (give(&clients), give(&metrics));
        let mut service = Process::start_through(&line, ("service", dir.path()), arguments, stdio);
        let to = metrics.local_addr().unwrap();
        let alive = try_request(to, "GET", "/healthz", &[], b"", PATIENCE).unwrap();
        assert_eq!(alive.status, 200, "{}", service.log());
        assert!(service.terminate().success(), "{}", service.log());
    }
}

#[test]
fn up_takes_no_sockets() {
    for sockets in ["1", "2147483647"] {
        let variables = [("LISTEN_FDS", sockets)];
        let refused = run_with(&variables, ["up", "--data-dir=/nonexistent"]);
        assert_eq!(refused.status.code(), Some(2));
    }
}
