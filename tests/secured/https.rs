//! Certificates of a gateway for its clients, and the authority of its clients, replaced while they are connected.

use std::fs;
use std::path::PathBuf;
use std::thread;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::*;
use crate::harness::{self, Http2, KeepAlive};

/// How long a client is served at most whose authority was taken out of the file, unless its last answer takes longer; and
/// how late a busy machine may be.
const UNBELIEVED_MAX: Duration = Duration::from_secs(12);
const LATE_MAX: Duration = Duration::from_secs(10);

/// Between an answer and the next request. Most of the time nothing is under way.
const PAUSE: Duration = Duration::from_millis(5);

/// A client's connection over HTTP/1.1.
type Stream = StreamOwned<ClientConnection, std::net::TcpStream>;

/// Authorities, each with certificates of its own for servers on this machine and for clients.
struct Authorities(tempfile::TempDir);

impl Authorities {
    fn new(names: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            run_ok(["cert", "new", dir.path().join(name).to_str().unwrap()]);
        }
        Self(dir)
    }

    fn of(&self, name: &str) -> Files {
        files(&self.0.path().join(name), "gateway")
    }
}

/// A gateway beside the bazaar's own, which serves those alone who show a certificate of an authority.
struct Edge {
    clients: SocketAddr,
    admin: SocketAddr,
    dir: PathBuf,
    _process: Process,
}

impl Edge {
    fn start(bazaar: &Bazaar, dir: PathBuf, (shown, served): (&Files, &Files)) -> Self {
        fs::create_dir(&dir).unwrap();
        replace(&dir, shown, served);
        let flag = |flag: &str, file: &str| format!("--{flag}={}", dir.join(file).display());
        let flags = [
            flag("tls-cert", "tls.crt"),
            flag("tls-key", "tls.key"),
            flag("tls-client-ca", "clients.crt"),
        ];
        let flags = flags.each_ref().map(String::as_str);
        Self {
            clients: bazaar.gateway_address(1),
            admin: bazaar.gateway_admin_address(1),
            _process: bazaar.start_beside(Server::Gateway(1), &flags),
            dir,
        }
    }

    /// Over HTTP/1.1.
    fn connect(&self, config: Arc<ClientConfig>) -> Stream {
        let stream = harness::connect(self.clients).unwrap();
        let name = ServerName::from(self.clients.ip());
        StreamOwned::new(ClientConnection::new(config, name).unwrap(), stream)
    }

    /// Over HTTP/2.
    fn connect_by_http2(&self, config: &Arc<ClientConfig>) -> Http2 {
        Http2::connect(self.clients, Some(config)).unwrap()
    }

    /// Asks on a connection of its own.
    fn asked(&self, config: Arc<ClientConfig>, target: &str) -> io::Result<u16> {
        let answer = ask(self.clients, config, ("GET", target));
        runtime().block_on(answer).map(|(status, _)| status)
    }

    /// The same of the admin API.
    fn operated(&self, config: Arc<ClientConfig>, target: &str) -> io::Result<u16> {
        let answer = ask(self.admin, config, ("GET", target));
        runtime().block_on(answer).map(|(status, _)| status)
    }
}

/// A connection over HTTP/2. To be used within a runtime.
async fn by_http2(to: SocketAddr, config: Arc<ClientConfig>) -> SendRequest<Empty<Bytes>> {
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = handshake(to, config.into()).await.unwrap();
    let builder = http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// Asks there, beside whatever else is asked.
async fn asked_by_http2(
    sender: &SendRequest<Empty<Bytes>>,
    method: &str,
    uri: &str,
) -> http::Response<Incoming> {
    let mut sender = sender.clone();
    sender.ready().await.unwrap();
    let request = http::Request::builder().method(method).uri(uri);
    let request = request.body(Empty::new()).unwrap();
    timeout(PATIENCE, sender.send_request(request))
        .await
        .expect("it is answered")
        .unwrap()
}

/// Reads on until such an event has begun.
async fn until_event(events: &mut Incoming, name: &str) {
    let (wanted, mut read) = (format!("event: {name}\n"), Vec::new());
    while !String::from_utf8_lossy(&read).contains(&wanted) {
        let frame = timeout(PATIENCE, events.frame()).await;
        let frame = frame.expect("it goes on").expect("it is not over").unwrap();
        read.extend_from_slice(frame.data_ref().expect("events have no trailers"));
    }
}

/// Puts what is shown to clients, and whose clients are served, where a gateway reads it.
fn replace(dir: &Path, shown: &Files, served: &Files) {
    for (from, to) in [
        (&shown.certificate, "tls.crt"),
        (&shown.key, "tls.key"),
        (&served.authorities, "clients.crt"),
    ] {
        fs::copy(from, dir.join(to)).unwrap();
    }
}

/// A lookup that is answered whole; whether the gateway said that it was the last.
fn look_up(client: &mut KeepAlive<Stream>) -> bool {
    let request = b"GET /stocks/meta HTTP/1.1\r\nhost: x\r\n\r\n";
    let answer = client
        .exchange(request)
        .expect("nothing was said of an end");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.header("connection") == Some("close")
}

/// The same over HTTP/2; whether the connection goes on. A request that was never sent is none.
fn look_up_by_http2(client: &mut Http2) -> bool {
    let answer = client.exchange("GET", "/stocks/meta", &[], b"");
    let answer = answer.expect("it is not cut off");
    if let Some(answer) = &answer {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    answer.is_some()
}

#[test]
fn https_goes_on_under_new_certificates_and_ends_for_clients_of_another_authority_between_requests()
{
    let bazaar = secured(1);
    let authorities = Authorities::new(&["one", "other", "old", "new"]);
    let [one, other, old, new] = ["one", "other", "old", "new"].map(|name| authorities.of(name));
    let dir = authorities.0.path().join("edge");
    let edge = Edge::start(&bazaar, dir, (&one, &old));
    let seen_by = |server: &Files, own: Option<&Files>| client(&server.authorities, own);
    wait_until("the gateway to serve", || {
        edge.asked(seen_by(&one, Some(&old)), "/stocks/meta")
            .is_ok_and(|status| status == 200)
    });
    assert!(edge.asked(seen_by(&one, None), "/stocks/meta").is_err());
    assert!(
        edge.asked(seen_by(&one, Some(&new)), "/stocks/meta")
            .is_err()
    );
    let mut by_http1 = KeepAlive::over(edge.connect(seen_by(&one, Some(&old))));
    let mut by_http2 = edge.connect_by_http2(&seen_by(&one, Some(&old)));
    assert!(!look_up(&mut by_http1));
    assert!(look_up_by_http2(&mut by_http2));

    // Another certificate for clients, by another authority.
    replace(&edge.dir, &other, &old);
    wait_until(
        "the new certificate to be shown to clients and operators",
        || {
            let shown = || seen_by(&other, Some(&old));
            edge.asked(shown(), "/stocks/meta").is_ok()
                && edge.operated(shown(), "/healthz").is_ok()
        },
    );
    assert!(
        edge.asked(seen_by(&one, Some(&old)), "/stocks/meta")
            .is_err()
    );
    assert!(!look_up(&mut by_http1), "who was connected before stays so");
    assert!(look_up_by_http2(&mut by_http2));

    // And another authority of clients.
    let idle = edge.connect(seen_by(&other, Some(&old)));
    let mut idle = KeepAlive::over(idle);
    assert!(!look_up(&mut idle));
    replace(&edge.dir, &other, &new);
    let replaced = Instant::now();
    let in_time = |who: &str| {
        println!("{who} was served for {:?} more", replaced.elapsed());
        assert!(replaced.elapsed() < UNBELIEVED_MAX + LATE_MAX, "{who}");
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !look_up(&mut by_http1) {
                thread::sleep(PAUSE);
            }
            assert!(by_http1.receive().is_err(), "it was the last");
            in_time("who asks over HTTP/1.1");
        });
        scope.spawn(|| {
            while look_up_by_http2(&mut by_http2) {
                thread::sleep(PAUSE);
            }
            in_time("who asks over HTTP/2");
        });
        scope.spawn(|| {
            let ended = idle.receive().map(drop);
            assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            in_time("who asks nothing");
        });
    });
    assert!(
        edge.asked(seen_by(&other, Some(&old)), "/stocks/meta")
            .is_err()
    );
    let served = edge.asked(seen_by(&other, Some(&new)), "/stocks/meta");
    assert_eq!(served.unwrap(), 200);

    // Operators show one of these, and say by a token or the cluster's certificate who they are; probes show none.
    let certs = bazaar.certs();
    let [viewer, order] = ["viewer", "order-1"].map(|name| files(&certs, name));
    for (own, target, expected) in [
        (None, "/healthz", 200),
        (None, "/readyz", 200),
        (None, "/status", 403),
        (Some(&new), "/status", 401),
        (Some(&order), "/status", 403),
        (Some(&viewer), "/status", 200),
    ] {
        let answer = edge.operated(seen_by(&other, own), target).unwrap();
        assert_eq!(answer, expected, "{own:?} {target}");
    }
    assert!(
        edge.operated(seen_by(&other, Some(&old)), "/healthz")
            .is_err()
    );
}

/// A browser has six connections over HTTP/1.1 to a server, and each console that is open keeps one of them.
#[test]
fn operators_follow_consoles_and_do_all_else_over_one_connection_of_http_2() {
    const CONSOLES: usize = 8;
    let mut up = Up::start();
    let runtime = runtime();
    let consoles = runtime.block_on(async {
        let at = |target: &str| format!("https://{}{target}", up.admin);
        let operator = by_http2(up.admin, up.shows(Some("operator"))).await;
        let mut consoles = Vec::new();
        for _ in 0..CONSOLES {
            let events = asked_by_http2(&operator, "GET", &at("/console/events")).await;
            assert_eq!(events.status(), 200);
            assert_eq!(events.headers()["content-type"], "text/event-stream");
            consoles.push(events.into_body());
        }
        for events in &mut consoles {
            until_event(events, "you").await;
        }
        let evil = "https://evil.example/status".to_owned();
        for (method, uri, expected) in [
            ("GET", at("/"), 200),
            ("GET", at("/status"), 200),
            ("HEAD", at("/metrics"), 200),
            ("POST", at("/policy/rollback"), 409),
            ("GET", at("/nowhere"), 404),
            ("GET", evil, 403),
        ] {
            let answer = asked_by_http2(&operator, method, &uri).await;
            assert_eq!(answer.status(), expected, "{method} {uri}");
            let read = answer.into_body().collect().await;
            assert_eq!(read.unwrap().to_bytes().is_empty(), method == "HEAD");
        }
        for (who, method, target, expected) in [
            (None, "GET", "/healthz", 200),
            (None, "GET", "/status", 401),
            (Some("viewer"), "GET", "/status", 200),
            (Some("viewer"), "POST", "/policy/rollback", 403),
        ] {
            let other = by_http2(up.admin, up.shows(who)).await;
            let answer = asked_by_http2(&other, method, &at(target)).await;
            assert_eq!(answer.status(), expected, "{who:?} {method} {target}");
        }
        // They went on meanwhile.
        for events in &mut consoles {
            until_event(events, "now").await;
        }
        (operator, consoles)
    });
    assert!(up.process.terminate().success(), "nobody holds it up");
    drop(consoles);
}
