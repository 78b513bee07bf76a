//! Who is believed, and who may do what, where services prove who they are.
//!
//! - [`calls`]: every method, by every role;
//! - [`roles`]: what one of another role may not do, nor one of another name;
//! - [`metrics`]: what services say of themselves;
//! - [`https`]: certificates of a gateway for clients, and of its clients, that are replaced;
//! - [`up`]: `bazaar up --secure`, and [`authority`]: what `bazaar cert new` makes;
//! - [`scan`]: what is accepted of another's TLS;
//! - [`sessions`]: as many of one gateway as there may be, which let go of nothing.

mod authority;
mod calls;
mod https;
mod metrics;
mod roles;
mod scan;
mod sessions;
mod up;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rpc::connect::{self, Security};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tls::{Cluster, Expected, Files, Role};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use wire::catalog::v1 as catalog;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::replication_client::ReplicationClient;

use crate::harness::{
    Bazaar, Options, Order, Ports, Process, Server, Trades, example, guest, handshake, run, run_ok,
    try_request, wait_until,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn secured(gateways: usize) -> Bazaar {
    Bazaar::start(Options {
        secured: true,
        gateways,
        ..Options::default()
    })
}

fn runtime() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Somebody's files in a directory of certificates.
fn files(certs: &Path, name: &str) -> Files {
    Files {
        authorities: certs.join("ca.crt"),
        certificate: certs.join(format!("{name}.crt")),
        key: certs.join(format!("{name}.key")),
    }
}

/// What a client that knows of no clusters believes and shows, as Prometheus, `curl` and browsers do: an authority, and a
/// certificate of its own, if it has one.
fn client(authority: &Path, own: Option<&Files>) -> Arc<ClientConfig> {
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        authorities.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(authorities);
    Arc::new(match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_file_iter(&own.certificate).unwrap();
            let chain = chain.map(Result::unwrap).collect();
            let key = PrivateKeyDer::from_pem_file(&own.key).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

fn replica(id: u32) -> Expected {
    Expected::Replica(id.to_string().parse().unwrap())
}

/// Calls as whoever has those files. To be used within a runtime.
struct Caller<'a> {
    bazaar: &'a Bazaar,
    cluster: Cluster,
}

impl<'a> Caller<'a> {
    fn new(bazaar: &'a Bazaar, certs: &Path, name: &str, is: Expected) -> Self {
        Self {
            bazaar,
            cluster: Cluster::load(&files(certs, name), is).unwrap(),
        }
    }

    fn to(&self, server: Server, expected: Expected) -> Channel {
        let url = format!("https://{}", self.bazaar.server_address(server));
        connect::lazy(&url, &Security::of(Some(&self.cluster), expected)).unwrap()
    }

    fn catalog(&self) -> CatalogClient<Channel> {
        CatalogClient::new(self.to(Server::Catalog, Expected::Role(Role::Catalog)))
    }

    fn orders(&self, id: u32) -> OrdersClient<Channel> {
        OrdersClient::new(self.to(Server::Order(id), replica(id)))
    }

    fn replication(&self, id: u32) -> ReplicationClient<Channel> {
        ReplicationClient::new(self.to(Server::Order(id), replica(id)))
    }
}

/// The answer to a stream of one request, or why there is none.
async fn first<T>(
    call: impl Future<Output = Result<tonic::Response<tonic::Streaming<T>>, Status>>,
) -> Result<T, Status> {
    let answers = async {
        let mut answers = call.await?.into_inner();
        let ended = || Status::unavailable("the stream ended");
        answers.message().await?.ok_or_else(ended)
    };
    timeout(PATIENCE, answers).await.expect("it is answered")
}

fn once<T: Send + 'static>(message: T) -> impl tokio_stream::Stream<Item = T> + Send + 'static {
    tokio_stream::once(message)
}

fn denied<T>(what: &str, answer: Result<T, Status>, why: &str) {
    let status = answer
        .err()
        .unwrap_or_else(|| panic!("{what}: it was done"));
    assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status}");
    assert!(status.message().contains(why), "{what}: {status}");
}

#[test]
fn trades_go_on_as_ever_and_a_leader_that_dies_is_replaced() {
    let mut bazaar = secured(2);
    for _ in 0..5 {
        bazaar.trade(&Order::sell(1, "meta"));
    }
    let leader = bazaar.leader();
    bazaar.server(Server::Order(leader)).kill();
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.start_server_with(Server::Order(leader), Vec::new());
    bazaar.server(Server::Catalog).kill();
    bazaar.start_server_with(Server::Catalog, Vec::new());
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.wait_until_ready();
    bazaar.check_acknowledged();
    assert_eq!(bazaar.quantity("meta"), 1007);
    bazaar.stop();
}

#[test]
fn whoever_has_no_certificate_of_the_cluster_is_not_answered() {
    let bazaar = secured(1);
    let other = tempfile::tempdir().unwrap();
    run_ok(["cert", "new", other.path().to_str().unwrap()]);
    let certs = bazaar.certs();
    runtime().block_on(async {
        let journal = catalog::GetLeadershipRequest::default;
        let foreign = Caller::new(
            &bazaar,
            other.path(),
            "gateway",
            Expected::Role(Role::Gateway),
        );
        let own = Caller::new(&bazaar, &certs, "gateway", Expected::Role(Role::Gateway));
        foreign
            .catalog()
            .get_leadership(journal())
            .await
            .unwrap_err();
        own.catalog()
            .get_leadership(journal())
            .await
            .expect("it is asked rightly");
        let url = format!("http://{}", bazaar.server_address(Server::Catalog));
        let plain = connect::lazy(&url, &Security::NONE).unwrap();
        let asked = CatalogClient::new(plain).get_leadership(journal()).await;
        asked.unwrap_err();
    });
}

/// Every certificate is made anew, by the same authority, while clients trade.
#[test]
fn certificates_are_replaced_while_clients_trade_and_nobody_notices() {
    let mut bazaar = secured(1);
    let (certs, follower) = (bazaar.certs(), bazaar.follower());
    // What is in the file, and nothing else, is believed.
    let is_in_force = |bazaar: &Bazaar, name: &str, server| {
        let file = certs.join(format!("{name}.crt"));
        let address = bazaar.server_address(server);
        let config = tls::client::pinned(&file).unwrap();
        runtime().block_on(handshake(address, config)).is_ok()
    };
    let servers = || {
        ["catalog", "order-1", "order-2", "order-3"]
            .into_iter()
            .zip([
                Server::Catalog,
                Server::Order(1),
                Server::Order(2),
                Server::Order(3),
            ])
    };
    let address = bazaar.address();
    let trades = Trades::of(&[address], 2, || {
        for _ in 0..3 {
            bazaar.certify(&["--renew"]);
            for (name, server) in servers() {
                wait_until("the new certificate to be in force", || {
                    is_in_force(&bazaar, name, server)
                });
            }
            // Who connects anew believes the others by it, and is believed.
            bazaar.server(Server::Order(follower)).kill();
            bazaar.start_server_with(Server::Order(follower), Vec::new());
            wait_until("the replica to be in sync again", || {
                let in_sync = bazaar.status()["catalog"]["in_sync"].clone();
                in_sync.as_array().is_some_and(|in_sync| in_sync.len() == 3)
            });
        }
    });
    for (_, server) in servers() {
        let log = bazaar.server(server).log();
        assert!(!log.contains("will not do"), "it was whole at last: {log}");
    }
    println!("certificates replaced three times: {}", trades.summary());
    assert!(trades.failed.is_empty(), "{:?}", trades.failed);
    assert!(!trades.times.is_empty());
}

/// Asks over HTTP/1.1; the status and all that came.
async fn ask(
    to: SocketAddr,
    config: Arc<ClientConfig>,
    (method, target): (&str, &str),
) -> io::Result<(u16, String)> {
    let mut stream = handshake(to, config).await?;
    let request = format!(
        "{method} {target} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    Ok((status.unwrap_or_default(), answer))
}

/// `bazaar up --secure`, where clients and operators connect, and its certificates.
struct Up {
    clients: SocketAddr,
    admin: SocketAddr,
    dir: tempfile::TempDir,
    process: Process,
    ports: Ports,
}

impl Up {
    fn start() -> Self {
        let (ports, dir) = (Ports::claim(), tempfile::tempdir().unwrap());
        let (clients, admin) = (ports.address(0), ports.address(1));
        let data = dir.path().join("data");
        let arguments = [
            "up".to_owned(),
            "--secure".to_owned(),
            "--port-base=0".to_owned(),
            format!("--listen={clients}"),
            format!("--admin={admin}"),
            format!("--data-dir={}", data.display()),
            format!("--policy={}", guest("echoes").display()),
        ];
        let mut process = Process::start("up", dir.path(), arguments);
        wait_until("up to say where everything is", || {
            assert!(process.is_running(), "{}", process.log());
            process.out().contains("Stop:")
        });
        Self {
            clients,
            admin,
            dir,
            process,
            ports,
        }
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join("data/certs").join(name)
    }

    fn shows(&self, name: Option<&str>) -> Arc<ClientConfig> {
        let own = name.map(|name| {
            (
                self.file(&format!("{name}.crt")),
                self.file(&format!("{name}.key")),
            )
        });
        let own = own
            .as_ref()
            .map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        tls::client::config(Some(&self.file("ca.crt")), own).unwrap()
    }
}

#[test]
fn a_service_that_others_do_not_believe_says_what_is_wrong() {
    let bazaar = secured(1);
    let other = tempfile::tempdir().unwrap();
    run_ok(["cert", "new", other.path().to_str().unwrap()]);
    let file = |name: &str| other.path().join(name).display().to_string();
    // It believes them, and they do not believe it.
    let ours = std::fs::read_to_string(bazaar.certs().join("ca.crt")).unwrap();
    let theirs = std::fs::read_to_string(file("ca.crt")).unwrap();
    std::fs::write(file("both.crt"), ours + &theirs).unwrap();
    let catalog = bazaar.server_address(Server::Catalog);
    let arguments = [
        "order".to_owned(),
        "--id=3".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        format!("--catalog=https://{catalog}"),
        format!("--data-dir={}", file("data")),
        format!("--cluster-ca={}", file("both.crt")),
        format!("--cluster-cert={}", file("order-3.crt")),
        format!("--cluster-key={}", file("order-3.key")),
    ];
    let mut stranger = Process::start("stranger", other.path(), arguments);
    wait_until("it to say what is wrong", || {
        assert!(stranger.is_running(), "{}", stranger.log());
        stranger.log().contains("see to the certificates of both")
    });
    // What `cert new` makes are all authorities of one name.
    let log = stranger.log();
    assert!(
        log.contains("is of another authority than the one of the same name"),
        "{log}"
    );
    bazaar.trade(&Order::sell(1, "meta"));
}

#[test]
fn who_was_believed_is_cut_off_once_its_authority_is_believed_no_more() {
    let mut bazaar = secured(1);
    let (certs, other) = (bazaar.certs(), tempfile::tempdir().unwrap());
    run_ok(["cert", "new", other.path().to_str().unwrap()]);
    // With files of its own, which stay as they are.
    let kept = tempfile::tempdir().unwrap();
    for name in ["ca.crt", "operator.crt", "operator.key"] {
        std::fs::copy(certs.join(name), kept.path().join(name)).unwrap();
    }
    runtime().block_on(async {
        let operator = Caller::new(
            &bazaar,
            kept.path(),
            "operator",
            Expected::Role(Role::Operator),
        );
        let mut catalog = operator.catalog();
        let mut ask = async || {
            let asked = catalog.get_leadership(catalog::GetLeadershipRequest::default());
            timeout(PATIENCE, asked)
                .await
                .is_ok_and(|answer| answer.is_ok())
        };
        assert!(ask().await);
        for name in ["catalog.key", "catalog.crt", "ca.crt"] {
            std::fs::copy(other.path().join(name), certs.join(name)).unwrap();
        }
        let cut_off = async {
            // On the connection that it has, for as long as that lasts.
            while ask().await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(2 * PATIENCE, cut_off).await.expect("it is cut off");
    });
    let whose = "client=spiffe://bazaar/operator/operator at 127.0.0.1";
    let log = bazaar.server(Server::Catalog).log();
    assert!(log.contains(whose), "{log}");
}

#[test]
fn beyond_loopback_a_service_wants_certificates_or_to_be_told_that_it_may_do_without() {
    let dir = tempfile::tempdir().unwrap();
    let data = format!("--data-dir={}", dir.path().join("data").display());
    let catalog = ["catalog", &data, "--listen=0.0.0.0:0"];
    let order = [
        "order",
        &data,
        "--listen=0.0.0.0:0",
        "--id=1",
        "--catalog=http://127.0.0.1:1",
    ];
    let on_loopback = |service: &[&str]| -> Vec<String> {
        let flags = service
            .iter()
            .map(|flag| flag.replace("--listen=0.0.0.0", "--listen=127.0.0.1"));
        let asked = "--metrics=0.0.0.0:0".to_owned();
        flags.chain([asked]).collect()
    };
    let owned = |service: &[&str]| -> Vec<String> {
        service.iter().map(|flag| (*flag).to_owned()).collect()
    };
    for service in [
        owned(&catalog),
        owned(&order),
        on_loopback(&catalog),
        on_loopback(&order),
    ] {
        let refused = run(&service);
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{message}");
        for remedy in ["--cluster-ca", "bazaar cert new", "--insecure-cluster"] {
            assert!(message.contains(remedy), "{message}");
        }
    }
    // It is told so, and then what is wrong is another thing.
    let begun = run(catalog.iter().copied().chain(["--insecure-cluster"]));
    let message = String::from_utf8_lossy(&begun.stderr).into_owned();
    assert_eq!(begun.status.code(), Some(1), "{message}");
    assert!(message.contains("--new"), "{message}");
}

#[test]
fn urls_and_certificates_have_to_agree() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("certs");
    run_ok(["cert", "new", certs.to_str().unwrap()]);
    let file = |name: &str| certs.join(name).display().to_string();
    let proofs = |name: &str| {
        vec![
            format!("--cluster-ca={}", file("ca.crt")),
            format!("--cluster-cert={}", file(&format!("{name}.crt"))),
            format!("--cluster-key={}", file(&format!("{name}.key"))),
        ]
    };
    let order = |url: &str, further: Vec<String>| {
        let data = format!("--data-dir={}", dir.path().join("order").display());
        let flags = ["order", "--id=1", "--listen=127.0.0.1:0", &data];
        let flags = flags.map(str::to_owned).into_iter();
        run(flags.chain([format!("--catalog={url}")]).chain(further))
    };
    for (url, further, code, said) in [
        ("http://127.0.0.1:1", proofs("order-1"), 2, "not encrypted"),
        (
            "https://127.0.0.1:1",
            Vec::new(),
            2,
            "it wants --cluster-ca",
        ),
        (
            "https://127.0.0.1:1",
            proofs("order-2"),
            1,
            "this service needs one of spiffe://bazaar/order/1",
        ),
        (
            "https://127.0.0.1:1",
            proofs("gateway"),
            1,
            "is spiffe://bazaar/gateway/gateway's",
        ),
        ("https://127.0.0.1:1", proofs("nobody"), 1, "cannot read"),
        (
            "https://127.0.0.1:1",
            proofs("order-1")[..2].to_vec(),
            2,
            "--cluster-key",
        ),
    ] {
        let refused = order(url, further);
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(code), "{said}: {message}");
        assert!(message.contains(said), "{said}: {message}");
    }
}
