//! This release and the one before, in one bazaar: process by process to the newer one, and back, while clients trade and
//! follow what is traded.
//!
//! `make upgrade` builds the release before from the project's history.
//!
//! - [`clients`]: who asks meanwhile, over HTTP/1.1 and HTTP/2, and what became of it;
//! - [`rolling`]: this release exchanged for itself, with certificates made anew.

mod clients;
mod rolling;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use test_postgres::Cluster;

use crate::harness::{Bazaar, Options, Order, Server, alone, run, run_ok, wait_until};
use clients::{Clients, Endpoint, Followers, Load, Way, under_load, while_followed};

const GATEWAY: Server = Server::Gateway(0);
const REPLICAS: [u32; 3] = [1, 2, 3];

/// One that serves clients over TLS, where services prove who they are.
const EDGE: Server = Server::Gateway(2);

/// Answers that there are to be of each kind while a process is exchanged.
const ANSWERS: usize = 100;

/// The command of the release before.
fn before() -> PathBuf {
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/releases/0.1.0/bazaar");
    assert!(
        built.is_file(),
        "{} is missing: scripts/previous-release builds it",
        built.display()
    );
    built
}

/// This one.
fn now() -> PathBuf {
    env!("CARGO_BIN_EXE_bazaar").into()
}

/// What of a bazaar is exchanged beside its replicas, and where its clients are.
struct Deployment {
    catalogs: Vec<Server>,
    /// With the flags that each has beside the others'.
    gateways: Vec<(Server, Vec<String>)>,
    /// Where clients over HTTP/2 connect.
    endpoint: Endpoint,
    /// What is done before a process is exchanged.
    prepare: fn(&Bazaar, Server),
}

impl Deployment {
    /// Of a bazaar that serves in the clear.
    fn in_the_clear(bazaar: &Bazaar, catalogs: &[Server]) -> Self {
        Self {
            catalogs: catalogs.to_vec(),
            gateways: vec![(GATEWAY, Vec::new())],
            endpoint: Endpoint {
                address: bazaar.address(),
                tls: None,
            },
            prepare: |_, _| {},
        }
    }

    /// Of one whose services prove who they are: starts a second gateway, to which its clients speak TLS.
    fn secured(bazaar: &mut Bazaar) -> Self {
        let file = |name: &str| bazaar.certs().join(name);
        let tls = tls::client::config(Some(&file("ca.crt")), None);
        let flags = vec![
            format!("--tls-cert={}", file("gateway.crt").display()),
            format!("--tls-key={}", file("gateway.key").display()),
        ];
        let endpoint = Endpoint {
            address: bazaar.server_address(EDGE),
            tls: Some(tls.expect("there is an authority")),
        };
        bazaar.start_server_with(EDGE, flags.clone());
        wait_until("the gateway to serve over TLS", || {
            endpoint.status_of("/stocks/meta") == Some(200)
        });
        Self {
            catalogs: vec![Server::Catalog],
            gateways: vec![(GATEWAY, Vec::new()), (EDGE, flags)],
            endpoint,
            prepare: |_, _| {},
        }
    }
}

/// Every replica answers and is in sync.
fn wait_for_all(bazaar: &Bazaar) {
    wait_until("every replica to be in sync", || {
        let status = bazaar.status();
        status["ready"] == true && status["catalog"]["in_sync"] == json!(REPLICAS)
    });
}

/// Stops a server and starts it of that release.
fn exchange(bazaar: &mut Bazaar, server: Server, release: &Path) {
    let ended = bazaar.server(server).terminate();
    assert!(ended.success(), "{server}: {ended}");
    bazaar.set_release(release);
    bazaar.start_server(server);
}

/// Every process, as OPERATING says it: replicas one by one, the leader last, the catalogs, gateways.
fn exchange_all(bazaar: &mut Bazaar, deployment: &Deployment, clients: &Clients, release: &Path) {
    let leader = bazaar.leader();
    let followers = REPLICAS.into_iter().filter(|id| *id != leader);
    let replicas = followers.chain([leader]).map(Server::Order);
    for server in replicas.chain(deployment.catalogs.iter().copied()) {
        (deployment.prepare)(bazaar, server);
        exchange(bazaar, server, release);
        wait_for_all(bazaar);
        clients.wait_for_more();
    }
    for (gateway, flags) in &deployment.gateways {
        (deployment.prepare)(bazaar, *gateway);
        bazaar.set_release(release);
        let flags = flags.iter().map(String::as_str).chain(["--take-over"]);
        let successor = bazaar.start_beside(*gateway, &flags.collect::<Vec<_>>());
        let mut predecessor = bazaar.put_server(*gateway, successor);
        let ended = predecessor.wait();
        assert!(ended.success(), "{ended}: {}", predecessor.log());
        wait_for_all(bazaar);
        clients.wait_for_more();
    }
}

/// Whatever was placed is in every ledger, each order once, and so it came to whoever followed.
fn judge(bazaar: &Bazaar, placed: usize, followers: Followers) {
    bazaar.settled_journal();
    bazaar.wait_for_equal_ledgers(&REPLICAS);
    let ledger = bazaar.ledger(1);
    let orders = ledger.as_object().unwrap().len();
    println!("{orders} orders in each ledger");
    assert_eq!(orders, placed + bazaar.acknowledged() as usize);
    followers.check(&ledger);
    assert_eq!(bazaar.panics(), Vec::<String>::new());
}

/// What `bazaar protocol show` says.
fn protocol(bazaar: &Bazaar) -> Value {
    let admin = format!("http://{}", bazaar.admin_address());
    let shown = run_ok(["protocol", "show", "--json", "--admin", &admin]);
    serde_json::from_str(&shown).unwrap()
}

/// Has it raised, which must be refused; returns why.
fn not_raised(bazaar: &Bazaar) -> String {
    let admin = format!("http://{}", bazaar.admin_address());
    let raised = run(["protocol", "raise", "--admin", &admin]);
    assert_eq!(raised.status.code(), Some(1));
    String::from_utf8(raised.stderr).unwrap()
}

/// Returns how many orders clients placed.
fn up_and_down_and_up(
    bazaar: &mut Bazaar,
    deployment: &Deployment,
    followers: &Followers,
) -> usize {
    let (before, now) = (before(), now());
    let load = Load {
        ways: vec![
            Way::Http1(bazaar.address()),
            Way::Http2(deployment.endpoint.clone()),
        ],
        answers: ANSWERS,
    };
    let up = under_load(bazaar, &load, "0.1.0 to this release", |bazaar, clients| {
        exchange_all(bazaar, deployment, clients, &now);
    });
    // What the release before has no call for waits until it is raised.
    assert_eq!(bazaar.get("/orders").status, 503);
    let shown = protocol(bazaar);
    assert_eq!(
        (&shown["protocol"], &shown["newest"]),
        (&json!(1), &json!(2))
    );
    let down = under_load(bazaar, &load, "this release to 0.1.0", |bazaar, clients| {
        exchange_all(bazaar, deployment, clients, &before);
    });
    let again = under_load(bazaar, &load, "0.1.0 to this release", |bazaar, clients| {
        exchange_all(bazaar, deployment, clients, &now);
        raise(bazaar);
        wait_until("clients to be given lists of orders and events", || {
            deployment.endpoint.status_of("/orders?limit=1") == Some(200)
        });
        followers.expect_events();
        clients.wait_for_more();
    });
    assert_eq!(protocol(bazaar)["protocol"], 2);
    assert_eq!(bazaar.get("/orders?limit=2").data()[0]["number"], 0);
    // From now on there are events, also of all the orders before: and streams, which end where a gateway does.
    let newest = bazaar.trade(&Order::buy(1, "nvidia"));
    followers.wait_for(newest);
    let to_itself = under_load(
        bazaar,
        &load,
        "this release to itself",
        |bazaar, clients| {
            exchange_all(bazaar, deployment, clients, &now);
        },
    );
    refuses_the_release_before(bazaar, &deployment.catalogs, &before);
    for catalog in &deployment.catalogs {
        exchange(bazaar, *catalog, &now);
        wait_for_all(bazaar);
    }
    assert_eq!(protocol(bazaar)["protocol"], 2);
    up + down + again + to_itself
}

/// Has the bazaar raised, which it is not while one replica, or then one gateway, is of before.
fn raise(bazaar: &mut Bazaar) {
    let (before, now) = (before(), now());
    exchange(bazaar, Server::Order(2), &before);
    wait_for_all(bazaar);
    let why = not_raised(bazaar);
    assert!(why.contains("order 2 is to be upgraded first"), "{why}");
    exchange(bazaar, Server::Order(2), &now);
    wait_for_all(bazaar);
    bazaar.set_release(&before);
    let mut second = bazaar.start_beside(Server::Gateway(1), &[]);
    wait_until("the second gateway to have a session", || {
        second.log().contains("session")
    });
    let why = not_raised(bazaar);
    assert!(why.contains("cannot be of a bazaar at version 2"), "{why}");
    assert!(second.terminate().success());
    bazaar.set_release(&now);
    wait_until("its session to be gone", || {
        let admin = format!("http://{}", bazaar.admin_address());
        run(["protocol", "raise", "--admin", &admin])
            .status
            .success()
    });
}

/// It says what is to be done, and is not served.
fn refuses_the_release_before(bazaar: &mut Bazaar, catalogs: &[Server], before: &Path) {
    let refusal = "and the bazaar is at version 2: upgrade it";
    // The catalogs' logs say so in any case.
    let refusals = |bazaar: &mut Bazaar| {
        let logs = catalogs.iter().map(|catalog| bazaar.server(*catalog).log());
        logs.map(|log| log.matches(refusal).count()).sum::<usize>()
    };
    exchange(bazaar, Server::Order(3), before);
    bazaar.trade(&Order::buy(1, "nvidia")); // the others are enough
    wait_until("the replica to be refused", || refusals(bazaar) > 0);
    wait_until("it to be out of sync", || {
        let in_sync = bazaar.status()["catalog"]["in_sync"].take();
        !in_sync.as_array().unwrap().contains(&json!(3))
    });
    assert!(bazaar.server(Server::Order(3)).terminate().success());
    let of_the_replica = refusals(bazaar);
    bazaar.set_release(before);
    let gateway = bazaar.start_beside(Server::Gateway(1), &[]);
    wait_until("the gateway to be refused", || {
        refusals(bazaar) > of_the_replica
    });
    drop(gateway);
    let last = catalogs.last().expect("there is a catalog");
    assert!(bazaar.server(*last).terminate().success());
    bazaar.start_server(*last);
    let refused = bazaar.server(*last).wait();
    assert_eq!(refused.code(), Some(1));
    bazaar.set_release(&now());
    bazaar.start_server(*last);
    bazaar.restart(3);
    wait_for_all(bazaar);
}

/// Starts a bazaar of the release before, and has it upgraded, downgraded and upgraded.
fn exchanged(options: Options, deploy: impl FnOnce(&mut Bazaar) -> Deployment) {
    let mut bazaar = Bazaar::start(Options {
        release: before(),
        ..options
    });
    let deployment = deploy(&mut bazaar);
    let _alone = alone();
    bazaar.trade(&Order::buy(1, "nvidia"));
    let mut placed = 0;
    let followers = while_followed(&mut bazaar, &deployment.endpoint, |bazaar, followers| {
        placed = up_and_down_and_up(bazaar, &deployment, followers);
    });
    judge(&bazaar, placed, followers);
}

#[test]
#[ignore = "wants the release before: make upgrade"]
fn process_by_process_to_this_release_and_back_nobody_is_refused() {
    exchanged(Options::default(), |bazaar| {
        Deployment::in_the_clear(bazaar, &[Server::Catalog])
    });
}

/// What a gateway has saved of its policies, either release goes on with.
#[test]
#[ignore = "wants the release before: make upgrade"]
fn a_policy_that_was_pushed_at_the_release_before_decides_at_this_one_and_on_the_way_back() {
    let mut bazaar = Bazaar::start(Options {
        release: before(),
        ..Options::default()
    });
    let component = format!(
        "{}/tests/policies/default-1.0.wasm",
        env!("CARGO_MANIFEST_DIR")
    );
    let component = std::fs::read(component).unwrap();
    let pushed = bazaar.admin("PUT", "/policy", &component);
    assert_eq!(pushed.status, 200, "{pushed:?}");
    let digest = pushed.json()["active"]["digest"].clone();
    for release in [now(), before(), now()] {
        bazaar.set_release(&release);
        let successor = bazaar.start_beside(GATEWAY, &["--take-over"]);
        let mut predecessor = bazaar.put_server(GATEWAY, successor);
        let ended = predecessor.wait();
        assert!(ended.success(), "{ended}: {}", predecessor.log());
        bazaar.wait_until_ready();
        let policy = bazaar.admin("GET", "/policy", b"").json();
        assert_eq!(policy["active"]["digest"], digest, "{}", release.display());
        bazaar.trade(&Order::buy(1, "nvidia"));
    }
}

#[test]
#[ignore = "wants the release before: make upgrade"]
fn nor_where_services_and_clients_speak_tls() {
    let options = Options {
        secured: true,
        ..Options::default()
    };
    exchanged(options, Deployment::secured);
}

#[test]
#[ignore = "wants the release before: make upgrade"]
fn nor_where_two_catalogs_have_their_truth_in_postgresql() {
    let Some(cluster) = Cluster::replicated() else {
        return;
    };
    let options = Options {
        store: Some(cluster.database("bazaar")),
        catalogs: 2,
        lease_ms: 300,
        ..Options::default()
    };
    exchanged(options, |bazaar| {
        Deployment::in_the_clear(bazaar, &[Server::Catalog, Server::OtherCatalog])
    });
}
