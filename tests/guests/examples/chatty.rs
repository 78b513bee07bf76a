//! On every call prints to both outputs and reaches for all that WASI has: it must get errors,
//! emptiness or values that the host chose, and decide as the default policy all the same.
//!
//! Two responses tell what it got: `/stocks/chatty/leaks` is answered 200 with a JSON list of what
//! it should not have got, empty if all is well; `/stocks/chatty/flood` prints a megabyte first.

use std::collections::HashMap;
use std::io::{Read, Write, stderr, stdin, stdout};
use std::thread;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs};

use frontend_guest::types::{
    Action, Decision, Manifest, Outcome, ReplicaId, Request, Response, View,
};
use frontend_guest::{DefaultPolicy, Policy, export};

mod bindings {
    #![allow(missing_docs, reason = "generated from the WIT")]

    wit_bindgen::generate!({ path: "wit/sockets", world: "client" });
}

use bindings::wasi::sockets::instance_network::instance_network;
use bindings::wasi::sockets::network::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use bindings::wasi::sockets::tcp_create_socket::create_tcp_socket;

/// How long it sleeps on a call, in milliseconds.
const SLEEP_MS: u64 = 1;
/// How many lines of 1 kB it prints in a flood.
const FLOOD_LINES: usize = 1024;

struct Chatty;

impl Policy for Chatty {
    fn name(&self) -> &'static str {
        "chatty"
    }

    fn describe(&self) -> Manifest {
        reach_out();
        Manifest {
            name: self.name().to_owned(),
            ..DefaultPolicy.describe()
        }
    }

    fn on_request(&self, request: &Request) -> Decision {
        let leaks = reach_out();
        match request.target.as_str() {
            "/stocks/chatty/leaks" => answer(&leaks),
            "/stocks/chatty/flood" => {
                flood();
                answer(&[])
            }
            _ => DefaultPolicy.on_request(request),
        }
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        reach_out();
        DefaultPolicy.on_outcome(request, memo, outcome)
    }

    fn elect(&self, view: &View) -> Option<ReplicaId> {
        reach_out();
        DefaultPolicy.elect(view)
    }
}

export!(Chatty);

/// Tries everything, and says what of the outside it got hold of.
fn reach_out() -> Vec<&'static str> {
    // Not `println!`, which panics where there is no output.
    let _ = writeln!(stdout(), "chatty says hello to stdout");
    let _ = writeln!(stderr(), "chatty says hello to stderr");

    let clocks = (SystemTime::now(), Instant::now());
    let random: HashMap<_, _> =
        [("seeded", "from the host's randomness"), ("clock", "read")].into();
    thread::sleep(Duration::from_millis(SLEEP_MS));
    let _ = writeln!(stderr(), "{clocks:?} {random:?}");

    let mut input = [0; 16];
    let got = [
        ("environment", env::vars_os().next().is_some()),
        ("arguments", env::args_os().nth(1).is_some()),
        (
            "input",
            stdin().read(&mut input).is_ok_and(|bytes| bytes > 0),
        ),
        ("file read", fs::read("/etc/hostname").is_ok()),
        ("directory listing", fs::read_dir("/").is_ok()),
        ("connection", connects()),
        ("file written", fs::write("/tmp/chatty", "hello").is_ok()),
    ];
    got.into_iter()
        .filter(|(_, got)| *got)
        .map(|(what, _)| what)
        .collect()
}

fn connects() -> bool {
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress {
        port: 80,
        address: (127, 0, 0, 1),
    });
    let socket = create_tcp_socket(IpAddressFamily::Ipv4);
    socket.is_ok_and(|socket| socket.start_connect(&instance_network(), address).is_ok())
}

fn flood() {
    let line = [b'x'; 1024];
    for _ in 0..FLOOD_LINES {
        let _ = stderr().write_all(&line);
        let _ = stdout().write_all(&line);
    }
}

fn answer(leaks: &[&str]) -> Decision {
    let body = format!("{leaks:?}").into_bytes();
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    Action::Respond(Response {
        status: 200,
        headers,
        body,
        keep_ms: None,
    })
    .into()
}
