//! How services stop: clients are sent elsewhere before they are sent away, and nothing that is
//! under way, and no signal but those that mean it, keeps a process or ends it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use frontend_host::config::LAST_REQUEST_TIME_MAX;
use rusqlite::Connection;
use rustix::process::Signal;

use crate::harness::{Bazaar, KeepAlive, Options, Order, Ports, Process, Server, wait_until};

const GATEWAY: Server = Server::Gateway(0);

/// A delay that no test lives to see the end of.
const LONG_DELAY: &str = "--drain-delay-ms=3000000";

/// A cheap request, for a client that keeps its connection.
const LOOKUP: &[u8] = b"GET /stocks/nvidia HTTP/1.1\r\nhost: bazaar\r\n\r\n";

#[test]
fn a_gateway_that_is_to_stop_is_not_ready_and_serves_until_its_delay_is_over() {
    let mut bazaar = Bazaar::start(Options {
        gateway_flags: vec![LONG_DELAY.to_owned()],
        ..Options::default()
    });
    let mut client = KeepAlive::connect(bazaar.address()).unwrap();
    assert_eq!(client.exchange(LOOKUP).unwrap().status, 200);

    bazaar.server(GATEWAY).signal(Signal::TERM);
    wait_until("the gateway not to be ready", || {
        bazaar.admin("GET", "/readyz", b"").status == 503
    });
    let (_, why) = bazaar.admin("GET", "/readyz", b"").error();
    assert!(why.contains("stopping"), "{why}");
    assert_eq!(bazaar.admin("GET", "/healthz", b"").status, 200);
    assert_eq!(bazaar.status()["ready"], false);
    // Clients notice nothing.
    let answer = client.exchange(LOOKUP).unwrap();
    assert_eq!((answer.status, answer.header("connection")), (200, None));
    bazaar.trade(&Order::sell(1, "nvidia"));
    assert_eq!(bazaar.quantity("nvidia"), 1001);

    // Whoever signals twice does not wait for the delay.
    bazaar.server(GATEWAY).signal(Signal::TERM);
    let ended = bazaar.server(GATEWAY).wait();
    assert_eq!(ended.code(), Some(1), "it was no clean stop");
}

#[test]
fn no_client_that_keeps_its_connection_loses_a_request_to_a_stop() {
    const CLIENTS: usize = 8;
    let mut bazaar = Bazaar::start_default();
    let gateway = bazaar.address();
    let idle: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = KeepAlive::connect(gateway).unwrap();
            client.exchange(LOOKUP).unwrap();
            client
        })
        .collect();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let client = KeepAlive::connect(gateway).unwrap();
                scope.spawn(|| ask_until_told_to_go(client))
            })
            .collect();
        for client in idle {
            scope.spawn(|| client.wait_for_the_end().expect("it is closed, not reset"));
        }
        assert!(bazaar.server(GATEWAY).terminate().success());
        for client in clients {
            client.join().unwrap();
        }
    });
}

/// Asks without a pause, until an answer says that it was the last.
fn ask_until_told_to_go(mut client: KeepAlive) {
    loop {
        let asked = Instant::now();
        match client.exchange(LOOKUP) {
            Ok(answer) if answer.header("connection") == Some("close") => {
                assert_eq!(answer.status, 200);
                return;
            }
            Ok(answer) => assert_eq!(answer.status, 200),
            // On a machine too busy for it to ask in time it was idle, and may be closed.
            Err(error) => {
                let late = asked.elapsed() > LAST_REQUEST_TIME_MAX / 2;
                return assert!(late, "a request was lost: {error}");
            }
        }
    }
}

#[test]
fn over_http_2_a_stop_is_announced() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    const EMPTY_SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: u8 = 7;
    let mut bazaar = Bazaar::start_default();
    let mut client = TcpStream::connect(bazaar.address()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    client.write_all(PREFACE).unwrap();
    client.write_all(EMPTY_SETTINGS).unwrap();
    // Its settings say that the gateway has taken it up.
    assert_ne!(frame_kind(&mut client), Some(GOAWAY));
    bazaar.server(GATEWAY).signal(Signal::TERM);
    let announced = std::iter::from_fn(|| frame_kind(&mut client)).any(|kind| kind == GOAWAY);
    assert!(announced, "the connection was cut");
    drop(client);
    assert!(bazaar.server(GATEWAY).wait().success());
}

/// The kind of the next frame (RFC 9113, section 4.1); none at the end.
fn frame_kind(connection: &mut TcpStream) -> Option<u8> {
    let mut head = [0; 9];
    connection.read_exact(&mut head).ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    connection.read_exact(&mut payload).ok()?;
    Some(head[3])
}

#[test]
fn a_hangup_ends_no_service() {
    let mut bazaar = Bazaar::start_default();
    for server in [
        Server::Catalog,
        Server::Order(1),
        Server::Order(2),
        Server::Order(3),
        GATEWAY,
    ] {
        bazaar.server(server).signal(Signal::HUP);
        wait_until("it to be noted", || {
            let process = bazaar.server(server);
            assert!(process.is_running(), "{server} has ended");
            process.log().contains("SIGHUP is ignored")
        });
    }
    bazaar.trade(&Order::sell(1, "nvidia"));
}

#[test]
fn a_second_gateway_on_a_data_directory_is_refused_and_the_first_goes_on() {
    let mut bazaar = Bazaar::start_default();
    let ports = Ports::claim();
    let data_dir = bazaar.dir().join(GATEWAY.to_string());
    let second = [
        "gateway".to_owned(),
        format!("--data-dir={}", data_dir.display()),
        format!("--listen={}", ports.address(0)),
        format!("--admin={}", ports.address(1)),
        format!(
            "--catalog=http://{}",
            bazaar.server_address(Server::Catalog)
        ),
        format!(
            "--order=1=http://{}",
            bazaar.server_address(Server::Order(1))
        ),
    ];
    let mut second = Process::start("second", bazaar.dir(), second);
    assert_eq!(second.wait().code(), Some(1));
    assert!(
        second.log().contains("in use by another process"),
        "{}",
        second.log()
    );
    bazaar.trade(&Order::sell(1, "nvidia"));
    // The lock goes with its owner.
    bazaar.kill_and_restart_gateway();
}

#[test]
fn a_service_that_still_opens_its_database_stops_when_it_is_told_to() {
    let mut bazaar = Bazaar::start_default();
    bazaar.trade(&Order::sell(1, "nvidia"));
    for (server, file) in [
        (Server::Catalog, "catalog.db"),
        (Server::Order(1), "orders.db"),
    ] {
        assert!(bazaar.server(server).terminate().success());
        let path: PathBuf = bazaar.dir().join(server.to_string()).join(file);
        let holder = Connection::open(path).unwrap();
        // Nobody else gets in for as long as this one lasts.
        holder
            .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
            .unwrap();
        let starts = bazaar.server(server).log().matches("starting").count();
        bazaar.start_server(server);
        wait_until("it to start", || {
            bazaar.server(server).log().matches("starting").count() > starts
        });
        assert!(bazaar.server(server).terminate().success(), "{server}");
    }
}
