//! Bursts of clients, larger than whoever takes them in keeps up with.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::raise_open_files;
use crate::harness::{Bazaar, Server, skip};

/// More than the 128 that the standard library has a listener keep.
const BURST: usize = 600;

/// How long a connection may take that the kernel opens by itself, on a busy machine. One that
/// finds no room is not opened however long it waits: the listener's process is suspended.
const OPENED_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn a_burst_of_clients_is_let_in_before_anybody_is_accepted() {
    let allowed = fs::read_to_string("/proc/sys/net/core/somaxconn").expect("Linux says");
    if allowed.trim().parse::<usize>().expect("a number") < BURST
        || raise_open_files() < 2 * BURST as u64
    {
        skip(
            "too few connections may wait (net.core.somaxconn, ulimit -Hn)",
            BURST,
        );
        return;
    }
    let mut bazaar = Bazaar::start_default();
    let leader = Server::Order(bazaar.leader());
    let listeners = [
        ("clients", Server::Gateway(0), bazaar.address()),
        ("operators", Server::Gateway(0), bazaar.admin_address()),
        (
            "the catalog",
            Server::Catalog,
            bazaar.server_address(Server::Catalog),
        ),
        ("a replica", leader, bazaar.server_address(leader)),
    ];
    for (whose, server, address) in listeners {
        bazaar.server(server).suspend();
        let opened = open(address);
        bazaar.server(server).resume();
        assert_eq!(opened.len(), BURST, "the listener for {whose}");
    }
    bazaar.wait_until_ready();
    assert_eq!(bazaar.panics(), Vec::<String>::new());
}

/// As many connections as can be had of a burst.
fn open(address: SocketAddr) -> Vec<TcpStream> {
    (0..BURST)
        .map_while(|_| TcpStream::connect_timeout(&address, OPENED_WITHIN).ok())
        .collect()
}
