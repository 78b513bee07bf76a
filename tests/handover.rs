//! A gateway is replaced while clients connect.
//!
//! - here: by a process that takes its place, also over TLS;
//! - [`sockets`]: by a restart whose listening sockets a supervisor keeps;
//! - [`supervisor`]: and what the supervisor is told meanwhile;
//! - [`watchdog`]: what it is not told.

mod sockets;
mod supervisor;
mod watchdog;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use frontend_host::config::LAST_REQUEST_TIME_MAX;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use crate::harness::{
    Bazaar, KeepAlive, Options, Order, Process, Raise, Response, Server, alone, connect, example,
    guest, try_request, wait_until,
};

const GATEWAY: Server = Server::Gateway(0);

/// A request, for clients that keep their connection.
const LOOKUP: &[u8] = b"GET /stocks/nvidia HTTP/1.1\r\nhost: bazaar\r\n\r\n";

/// The same, for those that have one for each.
const LONE_LOOKUP: &[u8] =
    b"GET /stocks/nvidia HTTP/1.1\r\nhost: bazaar\r\nconnection: close\r\n\r\n";

/// Connections that are made at once: more than a loop that accepts keeps up with.
const BURST: usize = 300;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The socket of a gateway that offers its place.
fn place(bazaar: &Bazaar) -> PathBuf {
    bazaar.dir().join(GATEWAY.to_string()).join("handover")
}

/// What clients saw.
#[derive(Debug, Default)]
struct Seen {
    answered: AtomicUsize,
    refused: AtomicUsize,
    reset: AtomicUsize,
    failed: AtomicUsize,
}

impl Seen {
    fn note(&self, outcome: std::io::Result<u16>) {
        let count = match outcome {
            Ok(200) => &self.answered,
            Ok(_) => &self.failed,
            Err(error) => match error.kind() {
                ErrorKind::ConnectionRefused => &self.refused,
                ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => &self.reset,
                _ => &self.failed,
            },
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    fn answered(&self) -> usize {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered.
    fn wait_for(&self, more: usize) {
        let before = self.answered();
        wait_until("clients to be answered", || {
            self.answered() >= before + more
        });
    }

    /// That nobody was turned away.
    fn check(&self) {
        let [refused, reset, failed] =
            [&self.refused, &self.reset, &self.failed].map(|count| count.load(Ordering::Relaxed));
        println!(
            "answered {}, refused {refused}, reset {reset}, failed {failed}",
            self.answered()
        );
        assert_eq!(
            (refused, reset, failed),
            (0, 0, 0),
            "refused, reset, failed"
        );
    }
}

/// One request on a connection of its own.
fn ask(to: SocketAddr) -> std::io::Result<u16> {
    let answer = try_request(to, "GET", "/stocks/nvidia", &[], b"", PATIENCE)?;
    Ok(answer.status)
}

/// Whether a client waited for so long to ask, on a machine too busy for it, that it was idle and may be closed.
fn is_late(waited: Duration) -> bool {
    waited > LAST_REQUEST_TIME_MAX / 2
}

/// So many connections at once, each of which asks once all are there.
fn burst(to: SocketAddr, connections: usize, seen: &Seen) {
    let connect = || TcpStream::connect(to).map(|connection| (connection, Instant::now()));
    let connected: Vec<_> = (0..connections).map(|_| connect()).collect();
    let asked: Vec<_> = connected
        .into_iter()
        .map(|connected| {
            let (mut connection, since) = connected?;
            connection.set_read_timeout(Some(PATIENCE))?;
            let sent = connection.write_all(LONE_LOOKUP);
            Ok((connection, sent, since.elapsed()))
        })
        .collect();
    for asked in asked {
        let answered = asked.map(|(connection, sent, waited)| {
            let answer = sent.and_then(|()| status_from(connection));
            (answer, waited)
        });
        match answered {
            Ok((Err(_), waited)) if is_late(waited) => {}
            Ok((answer, _)) => seen.note(answer),
            Err(error) => seen.note(Err(error)),
        }
    }
}

fn status_from(mut connection: TcpStream) -> std::io::Result<u16> {
    let mut answer = String::new();
    connection.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1);
    let status = status.and_then(|status| status.parse().ok());
    status.ok_or_else(|| ErrorKind::UnexpectedEof.into())
}

/// Asks on one connection until it is told that an answer was the last, and on another one from then on.
fn keep_asking<S: Read + Write>(
    connect: impl Fn() -> std::io::Result<KeepAlive<S>>,
    seen: &Seen,
    is_over: &AtomicBool,
) {
    while !is_over.load(Ordering::Relaxed) {
        let mut idle_since = Instant::now();
        let mut client = match connect() {
            Ok(client) => client,
            Err(error) => {
                seen.note(Err(error));
                continue;
            }
        };
        while !is_over.load(Ordering::Relaxed) {
            let sent = client.send(LOOKUP);
            // Once it is written it is the gateway's, however long that takes.
            let idle = idle_since.elapsed();
            let answer = sent.and_then(|()| client.receive());
            idle_since = Instant::now();
            let is_last = match &answer {
                Ok(answer) => answer.header("connection") == Some("close"),
                Err(_) => true,
            };
            if answer.is_ok() || !is_late(idle) {
                seen.note(answer.map(|answer| answer.status));
            }
            if is_last {
                break;
            }
        }
    }
}

/// A client that does something until it is over.
type Client<'a> = Box<dyn FnOnce(&Seen, &AtomicBool) + Send + 'a>;

/// Clients of every kind, for as long as `work` takes.
fn under_load<T>(bazaar: &mut Bazaar, work: impl FnOnce(&mut Bazaar, &Seen) -> T) -> T {
    let gateway = bazaar.address();
    let bursts = [1, 1, 1, 1, BURST].map(|connections| -> Client<'_> {
        Box::new(move |seen, is_over| {
            while !is_over.load(Ordering::Relaxed) {
                burst(gateway, connections, seen);
            }
        })
    });
    let keeping: Client<'_> = Box::new(move |seen, is_over| {
        keep_asking(|| KeepAlive::connect(gateway), seen, is_over);
    });
    let clients = bursts.into_iter().chain([keeping]).collect();
    under_load_of(clients, 2 * BURST, bazaar, work)
}

/// The same of these clients, of whom so many are answered before and after.
fn under_load_of<T>(
    clients: Vec<Client<'_>>,
    answers: usize,
    bazaar: &mut Bazaar,
    work: impl FnOnce(&mut Bazaar, &Seen) -> T,
) -> T {
    let _alone = alone();
    let (seen, is_over) = (Seen::default(), AtomicBool::new(false));
    let done = thread::scope(|scope| {
        let raise = Raise(&is_over);
        let (seen, is_over) = (&seen, &is_over);
        for client in clients {
            scope.spawn(move || client(seen, is_over));
        }
        seen.wait_for(answers);
        let done = work(bazaar, seen);
        seen.wait_for(answers);
        drop(raise);
        done
    });
    seen.check();
    done
}

/// Has a further process take the gateway's place, and waits until the one before has ended.
fn hand_over(bazaar: &mut Bazaar) {
    let successor = bazaar.start_beside(GATEWAY, &["--take-over"]);
    let mut before = bazaar.put_server(GATEWAY, successor);
    let ended = before.wait();
    assert!(ended.success(), "{ended}: {}", before.log());
    assert!(bazaar.server(GATEWAY).is_running());
    // Who looks for the process that has the place finds it in the lock.
    let lock = fs::read_to_string(bazaar.gateway_dir().join("lock")).unwrap();
    assert_eq!(lock, format!("{}\n", bazaar.server(GATEWAY).pid()));
}

/// What is to be the same before and after.
fn kept_of(policy: &Value) -> Value {
    let candidate = &policy["candidate"];
    // What is known of them may become more meanwhile: that the active one passed its probation.
    let kept = policy["kept"].as_array().unwrap();
    let kept: Vec<_> = kept.iter().map(|kept| kept["digest"].clone()).collect();
    serde_json::json!({
        "active": policy["active"]["digest"],
        "previous": policy["previous"]["digest"],
        "candidate": candidate["digest"],
        "stage": candidate["stage"],
        "share": candidate["share"],
        "who": candidate["who"],
        "only": candidate["only"],
        "step": candidate["rollout"]["step"],
        "plan": candidate["rollout"]["steps"],
        "kept": kept,
        "changes": policy["changes"],
    })
}

#[test]
fn three_hand_overs_in_a_row_refuse_nobody_and_keep_policies_and_candidate() {
    let mut bazaar = Bazaar::start_default();
    let policy = fs::read(example("no-cache")).unwrap();
    let candidate = fs::read(example("etag")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &policy).status, 200);
    let tried = bazaar.admin("PUT", "/policy/candidate?canary=0.25", &candidate);
    assert_eq!(tried.status, 200, "{tried:?}");
    let before = kept_of(&bazaar.admin("GET", "/policy", b"").json());
    under_load(&mut bazaar, |bazaar, seen| {
        for _ in 0..3 {
            hand_over(bazaar);
            let after = kept_of(&bazaar.admin("GET", "/policy", b"").json());
            assert_eq!(after, before);
            assert_eq!(bazaar.admin("GET", "/readyz", b"").status, 200);
            bazaar.trade(&Order::sell(1, "nvidia"));
            seen.wait_for(BURST);
        }
    });
    // It is as good as any: it changes policies, and comes back after a crash.
    assert_eq!(bazaar.admin("POST", "/policy/promote", b"").status, 200);
    let promoted = bazaar.admin("GET", "/policy", b"").json();
    bazaar.kill_and_restart_gateway();
    let again = bazaar.admin("GET", "/policy", b"").json();
    assert_eq!(again["active"]["digest"], promoted["active"]["digest"]);
    bazaar.check_acknowledged();
    assert_eq!(bazaar.panics(), Vec::<String>::new());
}

#[test]
fn a_rollout_goes_on_at_its_step_in_the_process_that_takes_over() {
    let mut bazaar = Bazaar::start_default();
    let plan = "[[step]]\ncanary = 0.1\nseconds = 3600\n\n[[step]]\ncanary = 0.5\nseconds = 3600\n";
    let body = [plan.as_bytes(), &fs::read(example("etag")).unwrap()].concat();
    let target = format!("/policy/rollout?plan={}", plan.len());
    let begun = bazaar.admin("PUT", &target, &body);
    assert_eq!(begun.status, 200, "{begun:?}");
    let skipped = bazaar.admin("POST", "/policy/rollout/skip", b"");
    assert_eq!(skipped.status, 200, "{skipped:?}");
    let before = kept_of(&bazaar.admin("GET", "/policy", b"").json());
    assert_eq!(before["share"], 0.5);
    hand_over(&mut bazaar);
    assert_eq!(kept_of(&bazaar.admin("GET", "/policy", b"").json()), before);
}

/// Starts a process that takes the gateway's place and cannot: it reaches no catalog. Returns once it is at it.
fn start_in_vain(bazaar: &mut Bazaar) -> Process {
    start_in_vain_by("exec \"$0\" \"$@\"", bazaar)
}

/// The same, by a line of a shell.
fn start_in_vain_by(line: &str, bazaar: &mut Bazaar) -> Process {
    let log = "another process takes this one's place";
    let begun = bazaar.server(GATEWAY).log().matches(log).count();
    // Of all the flags that it has the last one counts.
    let nowhere = ["--take-over", "--catalog=http://127.0.0.1:1"];
    let mut arguments = bazaar.arguments(GATEWAY, &nowhere);
    let first = arguments
        .iter()
        .position(|flag| flag.starts_with("--catalog="));
    arguments.remove(first.expect("it knows a catalog"));
    let (name, none) = (("successor", bazaar.dir()), (Stdio::null(), Stdio::null()));
    let process = Process::start_through(line, name, arguments, none);
    wait_until("the gateway to be asked for its place", || {
        bazaar.server(GATEWAY).log().matches(log).count() > begun
    });
    process
}

fn push(bazaar: &Bazaar, name: &str) -> Response {
    bazaar.admin("PUT", "/policy", &fs::read(example(name)).unwrap())
}

#[test]
fn a_process_that_dies_before_it_is_ready_leaves_everything_as_it_was() {
    let mut bazaar = Bazaar::start_default();
    let mut in_vain = start_in_vain(&mut bazaar);
    // Both have the data directory: what is saved in it stays as it is.
    wait_until("changes to be refused", || {
        let refused = push(&bazaar, "no-cache");
        refused.status == 503 && refused.header("retry-after") == Some("1")
    });
    bazaar.trade(&Order::sell(1, "nvidia"));
    // Another one waits for nothing.
    let mut second = bazaar.start_beside(GATEWAY, &["--take-over"]);
    assert_eq!(second.wait().code(), Some(1));
    assert!(
        second.log().contains("is taking its place already"),
        "{}",
        second.log()
    );

    in_vain.kill();
    wait_until("the gateway to go on", || {
        push(&bazaar, "no-cache").status == 200
    });
    assert!(bazaar.server(GATEWAY).is_running());
    bazaar.trade(&Order::sell(1, "nvidia"));
    hand_over(&mut bazaar);
    let active = bazaar.admin("GET", "/policy", b"").json();
    assert_eq!(active["active"]["name"], "no-cache");
}

#[test]
fn a_gateway_that_dies_before_the_other_one_is_ready_leaves_it_its_place() {
    let mut bazaar = Bazaar::start_default();
    let mut successor = start_in_vain(&mut bazaar);
    bazaar.server(GATEWAY).kill();
    // There is nobody else any more: it serves, though no trade.
    let alive = bazaar.admin("GET", "/healthz", b"");
    assert_eq!(alive.status, 200);
    assert_eq!(ask(bazaar.address()).unwrap(), 503);
    // The directory was never free.
    let mut second = bazaar.start_beside(GATEWAY, &[]);
    assert_eq!(second.wait().code(), Some(1));
    // And whoever comes next takes it from this one.
    let next = bazaar.start_beside(GATEWAY, &["--take-over"]);
    assert!(successor.wait().success());
    drop(bazaar.put_server(GATEWAY, next));
    bazaar.trade(&Order::sell(1, "nvidia"));
}

#[test]
fn a_gateway_that_is_told_to_stop_hands_nothing_over() {
    let mut bazaar = Bazaar::start_default();
    let mut successor = start_in_vain(&mut bazaar);
    assert!(bazaar.server(GATEWAY).terminate().success());
    assert_eq!(successor.wait().code(), Some(1));
    assert!(
        successor.log().contains("it is told to stop"),
        "{}",
        successor.log()
    );
    assert!(!place(&bazaar).exists());
    // Nobody is there to take a place from, so this is a start like any other.
    bazaar.start_server_with(GATEWAY, vec!["--take-over".to_owned()]);
    bazaar.wait_until_ready();
    // What a crash leaves is in nobody's way.
    bazaar.server(GATEWAY).kill();
    assert!(place(&bazaar).exists());
    bazaar.start_server_with(GATEWAY, vec!["--take-over".to_owned()]);
    bazaar.wait_until_ready();
    hand_over(&mut bazaar);
    bazaar.trade(&Order::sell(1, "nvidia"));
}

#[test]
fn a_gateway_that_is_told_to_stop_does_not_wait_for_who_says_nothing() {
    let mut bazaar = Bazaar::start_default();
    let silent = UnixStream::connect(place(&bazaar)).unwrap();
    let second = said_to(&place(&bazaar), b"bazaar-handover 1 take-over 9.9.9\n");
    let second = second.expect("it answers");
    assert!(second.contains("is taking its place already"), "{second}");
    let began = Instant::now();
    assert!(bazaar.server(GATEWAY).terminate().success());
    // Five seconds are what it waits for a word otherwise.
    assert!(began.elapsed() < Duration::from_secs(4), "{began:?}");
    drop(silent);
}

/// A word that the policy says, which is not in its configuration.
const SECRET: &str = "BAZAAR_SECRET_WORD=tulip exec \"$0\" \"$@\"";

#[test]
fn a_process_that_would_decide_by_another_policy_does_not_take_over() {
    let mut bazaar = Bazaar::start_default();
    let start = |bazaar: &Bazaar, line: &str, flags: &[&str]| {
        let (name, arguments) = (GATEWAY.to_string(), bazaar.arguments(GATEWAY, flags));
        let none = (Stdio::null(), Stdio::null());
        Process::start_through(line, (&name, bazaar.dir()), arguments, none)
    };
    assert!(bazaar.server(GATEWAY).terminate().success());
    let process = start(&bazaar, SECRET, &[]);
    drop(bazaar.put_server(GATEWAY, process));
    bazaar.wait_until_ready();
    let config = "say ${env:BAZAAR_SECRET_WORD}";
    let component = fs::read(guest("configured")).unwrap();
    let body = [config.as_bytes(), &component].concat();
    for target in ["/policy/candidate?canary=0.25&", "/policy?"] {
        let target = format!("{target}config={}", config.len());
        let pushed = bazaar.admin("PUT", &target, &body);
        assert_eq!(pushed.status, 200, "{target}: {pushed:?}");
        let before = kept_of(&bazaar.admin("GET", "/policy", b"").json());
        let mut without = start(&bazaar, "exec \"$0\" \"$@\"", &["--take-over"]);
        assert_eq!(without.wait().code(), Some(1), "{}", without.log());
        let log = without.log();
        let says_why = |line: &str| {
            line.contains("so the running gateway goes on")
                && line.contains("BAZAAR_SECRET_WORD is not set")
        };
        assert!(log.lines().any(says_why), "{log}");
        assert!(bazaar.server(GATEWAY).is_running());
        assert_eq!(kept_of(&bazaar.admin("GET", "/policy", b"").json()), before);

        let successor = start(&bazaar, SECRET, &["--take-over"]);
        let mut replaced = bazaar.put_server(GATEWAY, successor);
        assert!(replaced.wait().success(), "{}", replaced.log());
        assert_eq!(kept_of(&bazaar.admin("GET", "/policy", b"").json()), before);
    }
}

#[test]
fn a_gateway_in_another_network_is_not_asked_for_sockets_that_mean_nothing_here() {
    let mut bazaar = Bazaar::start_default();
    assert!(bazaar.server(GATEWAY).terminate().success());
    let elsewhere = UnixListener::bind(place(&bazaar)).unwrap();
    let answering = thread::spawn(move || {
        let (mut stream, _) = elsewhere.accept().unwrap();
        let _ = stream.read(&mut [0; 256]).unwrap();
        let offer = b"bazaar-handover 1 offer {\"network\":\"net:[1]\"}\n";
        stream.write_all(offer).unwrap();
        assert_eq!(stream.read(&mut [0; 256]).unwrap(), 0);
    });
    let mut refused = bazaar.start_beside(GATEWAY, &["--take-over"]);
    assert_eq!(refused.wait().code(), Some(1));
    let log = refused.log();
    assert!(log.contains("is in another network (net:[1]"), "{log}");
    answering.join().unwrap();
}

#[test]
fn a_process_with_other_addresses_does_not_take_over() {
    let bazaar = Bazaar::start_default();
    let arguments = bazaar.arguments(GATEWAY, &["--take-over"]).into_iter();
    let moved = arguments.map(|flag| match flag.starts_with("--admin=") {
        true => "--admin=127.0.0.1:1".to_owned(),
        false => flag,
    });
    let mut moved = Process::start("moved", bazaar.dir(), moved);
    assert_eq!(moved.wait().code(), Some(2));
    assert!(
        moved.log().contains("--admin says 127.0.0.1:1"),
        "{}",
        moved.log()
    );
    bazaar.trade(&Order::sell(1, "nvidia"));
    assert_eq!(push(&bazaar, "no-cache").status, 200);
}

/// Says a line to whoever listens, and returns the one that comes back; `None` where the connection ends.
fn said_to(place: &Path, line: &[u8]) -> Option<String> {
    let mut stream = UnixStream::connect(place).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(line).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

#[test]
fn who_speaks_another_version_of_the_protocol_is_told_so() {
    let mut bazaar = Bazaar::start_default();
    for (line, why) in [
        (
            &b"bazaar-handover 2 take-over 9.9.9\n"[..],
            "asked by version 2: stop it, then start the new one",
        ),
        (
            b"bazaar-handover 1 everything\n",
            "it does not understand `everything`",
        ),
        (b"GET / HTTP/1.1\r\n\r\n", "not heard any more"),
    ] {
        let answer = said_to(&place(&bazaar), line).expect("it answers");
        assert!(answer.starts_with("bazaar-handover 1 refused "), "{answer}");
        assert!(answer.contains(why), "{answer}");
    }
    assert_eq!(push(&bazaar, "no-cache").status, 200);
    assert!(bazaar.server(GATEWAY).terminate().success());

    // And the other way round, a gateway of a later release.
    let later = UnixListener::bind(place(&bazaar)).unwrap();
    let answering = thread::spawn(move || {
        let (mut stream, _) = later.accept().unwrap();
        let mut said = [0; 256];
        let length = stream.read(&mut said).unwrap();
        stream.write_all(b"bazaar-handover 7 offer {}\n").unwrap();
        String::from_utf8_lossy(&said[..length]).into_owned()
    });
    let mut refused = bazaar.start_beside(GATEWAY, &["--take-over"]);
    assert_eq!(refused.wait().code(), Some(1));
    let log = refused.log();
    assert!(
        log.contains("hands over by version 7 of the protocol"),
        "{log}"
    );
    let said = answering.join().unwrap();
    assert!(said.starts_with("bazaar-handover 1 take-over "), "{said}");
}

// ---- over TLS ----

#[test]
fn with_certificates_it_is_the_same() {
    let mut bazaar = Bazaar::start(Options {
        secured: true,
        ..Options::default()
    });
    under_load(&mut bazaar, |bazaar, _| hand_over(bazaar));
    bazaar.trade(&Order::sell(1, "nvidia"));
}

#[test]
fn clients_over_tls_are_handed_over_like_others() {
    let mut bazaar = Bazaar::start(Options {
        secured: true,
        ..Options::default()
    });
    let certificate = bazaar.certs().join("gateway.crt");
    let key = bazaar.certs().join("gateway.key");
    let flags = [
        format!("--tls-cert={}", certificate.display()),
        format!("--tls-key={}", key.display()),
    ];
    assert!(bazaar.server(GATEWAY).terminate().success());
    bazaar.start_server_with(GATEWAY, flags.to_vec());

    let (gateway, config) = (bazaar.address(), tls::client::pinned(&certificate).unwrap());
    let connect = move || {
        let name = ServerName::from(gateway.ip());
        let session = ClientConnection::new(Arc::clone(&config), name);
        let session = session.map_err(std::io::Error::other)?;
        Ok(KeepAlive::over(StreamOwned::new(
            session,
            connect(gateway)?,
        )))
    };
    wait_until("the gateway to answer over TLS", || {
        let answer = connect().and_then(|mut client| Ok(client.exchange(LOOKUP)?.status));
        answer.is_ok_and(|status| status == 200)
    });
    let ask_once = |seen: &Seen| {
        let began = Instant::now();
        let sent = connect().and_then(|mut client| client.send(LONE_LOOKUP).map(|()| client));
        let idle = began.elapsed();
        let answer = sent.and_then(|mut client| Ok(client.receive()?.status));
        if answer.is_ok() || !is_late(idle) {
            seen.note(answer);
        }
    };
    let lone = [(); 3].map(|()| -> Client<'_> {
        Box::new(|seen, is_over| {
            while !is_over.load(Ordering::Relaxed) {
                ask_once(seen);
            }
        })
    });
    let keeping = [(); 2]
        .map(|()| -> Client<'_> { Box::new(|seen, is_over| keep_asking(&connect, seen, is_over)) });
    let clients = lone.into_iter().chain(keeping).collect();
    under_load_of(clients, BURST, &mut bazaar, |bazaar, seen| {
        for _ in 0..2 {
            let successor = bazaar.start_beside(GATEWAY, &["--take-over", &*flags[0], &*flags[1]]);
            let mut before = bazaar.put_server(GATEWAY, successor);
            assert!(before.wait().success(), "{}", before.log());
            seen.wait_for(BURST);
        }
    });
    assert_eq!(bazaar.panics(), Vec::<String>::new());
}
