//! What clients can send without end, and what it costs: each gets its error, others are served
//! meanwhile, and the gateway's memory stays within a stated bound.

#[path = "frames/mod.rs"]
mod frames;
#[path = "frames/client.rs"]
mod client;
mod http2;
mod held;
mod backlog;
mod grpc;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use frontend_host::config::{
    BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX, IDLE_TIME_MAX, SEND_TIME_MAX,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::harness::{Bazaar, Order, Response, Server, send_raw, skip, try_request, wait_until};

/// How long an answer may take while others misbehave, on a busy machine.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// Beyond what a limit says, on a busy machine.
const SLACK: Duration = Duration::from_secs(8);

/// What a flood may add to the gateway's resident memory at any time, in KiB.
const FLOOD_KIB_MAX: u64 = 48 << 10;

/// The same at the admin address, whose requests are dealt with by several threads: each has memory of its own (glibc's
/// arenas), and keeps for a while what a burst took of it.
const ADMIN_FLOOD_KIB_MAX: u64 = 256 << 10;

/// What an idle connection may cost of it, in KiB.
const IDLE_CONNECTION_KIB_MAX: u64 = 12;

/// Idle connections at once.
const IDLE_CONNECTIONS: u64 = 10_000;

/// Watches a gateway while clients misbehave.
struct Watch<'a> {
    bazaar: &'a mut Bazaar,
    before_kib: u64,
}

impl<'a> Watch<'a> {
    fn begin(bazaar: &'a mut Bazaar) -> Self {
        // What the first requests allocate is not the clients' doing.
        for _ in 0..50 {
            bazaar.get("/stocks");
            bazaar.get("/stocks/nvidia");
        }
        bazaar.trade(&Order::sell(1, "nvidia"));
        let before_kib = bazaar.server(Server::Gateway(0)).resident_kib();
        Self { bazaar, before_kib }
    }

    /// Asks like any client, and holds the gateway to its memory.
    fn others_are_served(&mut self, added_kib_max: u64) {
        self.targets_are_served(&["/stocks/nvidia", "/stocks"], added_kib_max);
    }

    fn targets_are_served(&mut self, targets: &[&str], added_kib_max: u64) {
        for target in targets {
            let answer = try_request(
                self.bazaar.address(),
                "GET",
                target,
                &[],
                b"",
                SERVED_WITHIN,
            );
            assert_eq!(answer.expect("others are served").status, 200);
        }
        let resident_kib = self.bazaar.server(Server::Gateway(0)).resident_kib();
        let added_kib = resident_kib.saturating_sub(self.before_kib);
        assert!(
            added_kib <= added_kib_max,
            "{added_kib} KiB more than the {} KiB before",
            self.before_kib
        );
    }

    fn end(self) {
        assert_eq!(self.bazaar.panics(), Vec::<String>::new());
    }
}

/// Raises this process's own limit of open files as far as it can; returns it.
fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).ok();
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[test]
fn ten_thousand_idle_connections_keep_nobody_from_being_served() {
    let files_max = raise_open_files();
    if files_max < IDLE_CONNECTIONS + 500 {
        skip("too few open files are allowed (ulimit -Hn)", files_max);
        return;
    }
    let mut bazaar = Bazaar::start_default();
    let gateway = bazaar.address();
    let mut watch = Watch::begin(&mut bazaar);
    let bound_kib = IDLE_CONNECTIONS * IDLE_CONNECTION_KIB_MAX;
    let begun = Instant::now();
    let (mut silent, mut kept_alive) = (Vec::new(), Vec::new());
    for number in 0..IDLE_CONNECTIONS {
        let mut connection = TcpStream::connect(gateway).expect("connections are taken");
        if number % 10 == 0 {
            ask(&mut connection);
            kept_alive.push(connection);
        } else {
            silent.push(connection);
        }
        if number % 1000 == 999 {
            watch.others_are_served(bound_kib);
        }
    }
    let opened = begun.elapsed();
    let held = watch
        .bazaar
        .server(Server::Gateway(0))
        .resident_kib()
        .saturating_sub(watch.before_kib);
    watch.bazaar.trade(&Order::buy(1, "nvidia"));
    println!("{IDLE_CONNECTIONS} connections after {opened:?} hold {held} KiB");
    // Who asks for nothing is cut off. Who has asked may ask again.
    for mut connection in silent {
        let left = (SEND_TIME_MAX + SLACK + opened).saturating_sub(begun.elapsed());
        wait_for_the_end(&mut connection, left);
    }
    if begun.elapsed() < IDLE_TIME_MAX {
        kept_alive.iter_mut().for_each(ask);
    }
    watch.others_are_served(bound_kib);
    watch.end();
}

/// Asks for a stock, and reads the answer.
fn ask(connection: &mut TcpStream) {
    connection
        .write_all(b"GET /stocks/meta HTTP/1.1\r\nhost: x\r\n\r\n")
        .expect("the connection is open");
    connection.set_read_timeout(Some(SLACK)).unwrap();
    let mut answer = [0; 512];
    let length = connection.read(&mut answer).expect("an answer in time");
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"), "{length}");
}

/// Reads until the other end closes.
fn wait_for_the_end(connection: &mut TcpStream, patience: Duration) {
    let patience = patience.max(Duration::from_millis(1));
    connection.set_read_timeout(Some(patience)).unwrap();
    let mut answer = Vec::new();
    if let Err(error) = connection.read_to_end(&mut answer) {
        let timed_out = matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        assert!(!timed_out, "a connection was not cut off");
    }
}

#[test]
fn who_sends_a_byte_at_a_time_is_cut_off_and_holds_nobody_up() {
    const SLOW: usize = 300;
    const PAUSE: Duration = Duration::from_millis(500);
    let mut bazaar = Bazaar::start_default();
    let gateway = bazaar.address();
    let mut watch = Watch::begin(&mut bazaar);
    // What each has sent already, and what it sends from then on.
    let kinds: [(&str, &str); 3] = [
        (
            "G",
            "ET /stocks HTTP/1.1\r\nhost: x\r\nx-and-on: and on and on and on",
        ),
        (
            "POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n",
            "{",
        ),
        (
            "POST /orders HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n",
            "1\r\nx\r\n",
        ),
    ];
    let mut slow: Vec<_> = kinds
        .into_iter()
        .cycle()
        .take(SLOW)
        .map(|(sent, rest)| {
            let mut connection = TcpStream::connect(gateway).expect("connections are taken");
            connection.write_all(sent.as_bytes()).unwrap();
            connection.set_nonblocking(true).unwrap();
            (connection, rest.bytes().cycle())
        })
        .collect();
    let begun = Instant::now();
    while !slow.is_empty() {
        assert!(
            begun.elapsed() < SEND_TIME_MAX + SLACK,
            "{} slow senders were not cut off",
            slow.len()
        );
        watch.others_are_served(FLOOD_KIB_MAX);
        slow.retain_mut(|(connection, rest)| {
            let open = match connection.read(&mut [0; 512]) {
                Ok(bytes) => bytes > 0,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            };
            let byte = rest.next().expect("it goes round");
            open && connection.write(&[byte]).is_ok()
        });
        thread::sleep(PAUSE);
    }
    println!(
        "{SLOW} slow senders were cut off after {:?}",
        begun.elapsed()
    );
    watch.end();
}

#[test]
fn bodies_of_64_mib_are_refused_without_being_kept() {
    const BODY: usize = 64 << 20;
    const CLIENTS: usize = 8;
    let mut bazaar = Bazaar::start_default();
    let gateway = bazaar.address();
    let mut watch = Watch::begin(&mut bazaar);
    let sized = format!("content-length: {BODY}");
    for framing in [sized.as_str(), "transfer-encoding: chunked"] {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|_| scope.spawn(|| send_large_body(gateway, framing, BODY)))
                .collect();
            while clients.iter().any(|client| !client.is_finished()) {
                watch.others_are_served(FLOOD_KIB_MAX);
            }
            for client in clients {
                client.join().expect("the answer is a 413");
            }
        });
    }
    watch.others_are_served(FLOOD_KIB_MAX);
    watch.end();
}

/// Sends a body as far as it is taken, while it listens for the answer.
fn send_large_body(gateway: SocketAddr, framing: &str, bytes: usize) {
    let mut connection = TcpStream::connect(gateway).unwrap();
    let head = format!("POST /orders HTTP/1.1\r\nhost: x\r\n{framing}\r\n\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    let mut listening = connection.try_clone().unwrap();
    let answer = thread::spawn(move || {
        let mut status = [0; 12];
        listening.set_read_timeout(Some(SERVED_WITHIN)).unwrap();
        listening.read_exact(&mut status).map(|()| status)
    });
    let chunked = framing.ends_with("chunked");
    let piece = [b'x'; 0x4000];
    for _ in 0..bytes / piece.len() {
        let framed = match chunked {
            true => [b"4000\r\n", &piece[..], b"\r\n"].concat(),
            false => piece.to_vec(),
        };
        if connection.write_all(&framed).is_err() {
            break;
        }
    }
    let status = answer.join().unwrap().expect("the refusal arrives");
    assert_eq!(&status, b"HTTP/1.1 413");
}

#[test]
fn header_floods_get_their_error() {
    let mut bazaar = Bazaar::start_default();
    let gateway = bazaar.address();
    let mut watch = Watch::begin(&mut bazaar);
    let many: String = (0..=HEADERS_MAX).map(|n| format!("x-{n}: y\r\n")).collect();
    let long = format!("x: {}\r\n", "y".repeat(HEAD_BYTES_MAX));
    for headers in [&many, &long] {
        let answer = flood(gateway, headers);
        assert_eq!(answer.status, 431, "{answer:?}");
    }
    let target = "/".repeat(HEAD_BYTES_MAX);
    let answer = send_raw(gateway, format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
    assert_eq!(answer.expect("an answer").status, 414);

    // Headers that never end, by many at once.
    thread::scope(|scope| {
        let endless: Vec<_> = (0..50)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = TcpStream::connect(gateway).unwrap();
                    connection.write_all(b"GET / HTTP/1.1\r\n").unwrap();
                    let line = "x: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n".repeat(100);
                    let sent =
                        (0..2000).take_while(|_| connection.write_all(line.as_bytes()).is_ok());
                    assert!(sent.count() < 2000, "nobody took offence");
                })
            })
            .collect();
        while endless.iter().any(|sender| !sender.is_finished()) {
            watch.others_are_served(FLOOD_KIB_MAX);
        }
    });
    watch.others_are_served(FLOOD_KIB_MAX);
    watch.end();
}

fn flood(gateway: SocketAddr, headers: &str) -> Response {
    let request = format!("GET /stocks HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
    send_raw(gateway, request.as_bytes()).expect("an answer")
}

#[test]
fn a_body_just_within_its_limit_is_read_and_one_byte_more_is_not() {
    let bazaar = Bazaar::start_default();
    for (bytes, status) in [(BODY_BYTES_MAX, 400), (BODY_BYTES_MAX + 1, 413)] {
        let answer = bazaar.send("POST", "/orders", &[], &vec![b' '; bytes]);
        assert_eq!(answer.status, status, "{answer:?}");
    }
}

#[test]
fn http2_floods_end_their_connection_and_hold_nobody_up() {
    let mut bazaar = Bazaar::start_default();
    let listeners = [
        (bazaar.address(), FLOOD_KIB_MAX),
        (bazaar.admin_address(), ADMIN_FLOOD_KIB_MAX),
    ];
    let mut watch = Watch::begin(&mut bazaar);
    let attacks = listeners
        .into_iter()
        .flat_map(|listener| http2::ATTACKS.map(|attack| (attack, listener)));
    for ((name, attack), (to, added_kib_max)) in attacks {
        thread::scope(|scope| {
            let attackers: Vec<_> = (0..4).map(|_| scope.spawn(|| attack(to))).collect();
            while attackers.iter().any(|attacker| !attacker.is_finished()) {
                watch.others_are_served(added_kib_max);
            }
            for attacker in attackers {
                let end = attacker.join().expect("attackers do not panic");
                println!("{name} at {to}: stopped after {} frames", end.frames);
                assert!(end.was_stopped, "{name} at {to}: nobody took offence");
            }
        });
        watch.others_are_served(added_kib_max);
    }
    wait_until("the gateway to be as before", || {
        watch.bazaar.get("/stocks").status == 200
            && watch.bazaar.admin("GET", "/status", b"").status == 200
    });
    watch.end();
}
