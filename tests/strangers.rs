//! Disks and processes of another bazaar at our addresses: refused by name, believed by nobody.

use std::fs;
use std::path::Path;
use std::time::Duration;

use domain::{
    Epoch, IdempotencyKey, Identity, JournalId, LedgerEnd, ListingDigest, Price, Quantity, Row,
    Side, StockName,
};
use order::store::{SqliteStore, Store as _};
use order_core::durable::Save;
use serde_json::Value;

use crate::harness::{Bazaar, Order, Ports, Process, Server, request, try_request, wait_until};

/// How long an admin API may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

const ANOTHER: JournalId = JournalId::new([9; JournalId::BYTES]);

/// A replica's directory as another bazaar leaves it, with one order.
fn make_another_ledger(dir: &Path) {
    fs::remove_dir_all(dir).unwrap();
    let order = domain::Order {
        key: IdempotencyKey::new("another's").unwrap(),
        name: StockName::new("gamestop").unwrap(),
        side: Side::Sell,
        quantity: Quantity::new(777).unwrap(),
    };
    let price = Price::from_minor(2000).unwrap();
    let row = Row::following(&LedgerEnd::default(), Epoch(1), order, price);
    let save = Save {
        identity: Some(Identity {
            journal: ANOTHER,
            listing: ListingDigest::new([9; ListingDigest::BYTES]),
            lease_horizon: Duration::from_secs(1),
        }),
        rows: vec![row],
        ..Save::default()
    };
    SqliteStore::open(dir).unwrap().save(&save).unwrap();
}

fn journal(status: &Value) -> String {
    status["journal"].as_str().expect("it is known").to_owned()
}

#[test]
fn a_replica_on_another_bazaars_disk_is_refused_and_its_orders_are_never_served() {
    let mut bazaar = Bazaar::start_default();
    for _ in 0..3 {
        bazaar.trade(&Order::buy(1, "nvidia"));
    }
    let follower = bazaar.follower();
    bazaar.kill(follower);
    make_another_ledger(&bazaar.data_dir(follower));
    bazaar.restart(follower);
    let ours = journal(&bazaar.status());
    let process = bazaar.server(Server::Order(follower));
    wait_until("the replica to refuse", || !process.is_running());
    assert!(!process.has_succeeded());
    let log = process.log();
    for id in [ours, ANOTHER.to_string()] {
        assert!(log.contains(&id), "{id} is not named in {log}");
    }
    bazaar.trade(&Order::buy(1, "nvidia"));
    bazaar.check_acknowledged();
    fs::remove_dir_all(bazaar.data_dir(follower)).unwrap();
    bazaar.restart(follower);
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

#[test]
fn another_bazaars_gateway_gets_nothing_from_our_replicas_and_stops_nobody() {
    let bazaar = Bazaar::start_default();
    bazaar.trade(&Order::buy(1, "nvidia"));
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
    let before = bazaar.status();
    let ports = Ports::claim();
    let [catalog, clients, admin] = [0, 1, 2].map(|index| ports.address(index));
    let dir = bazaar.dir();
    let data_dir = dir.join("another-catalog");
    let mut others = vec![Process::start(
        "another-catalog",
        dir,
        [
            "catalog".to_owned(),
            "--stop-at-eof".into(),
            "--new".into(),
            format!("--data-dir={}", data_dir.display()),
            format!("--listen={catalog}"),
        ],
    )];
    let replicas = [1, 2, 3].map(|id| {
        let address = bazaar.server_address(Server::Order(id));
        format!("--order={id}=http://{address}")
    });
    let flags = [
        "gateway".to_owned(),
        "--stop-at-eof".into(),
        format!("--data-dir={}", dir.join("another-gateway").display()),
        format!("--catalog=http://{catalog}"),
        format!("--listen={clients}"),
        format!("--admin={admin}"),
    ];
    let flags = flags.into_iter().chain(replicas);
    others.push(Process::start("another-gateway", dir, flags));
    wait_until("the other gateway to see whose replicas those are", || {
        let status = try_request(admin, "GET", "/status", &[], b"", PATIENCE);
        let status = status.map(|status| status.json()).unwrap_or_default();
        let replicas = status["replicas"].as_array();
        status["journal"].is_string()
            && replicas.is_some_and(|all| all.iter().all(|one| one["foreign"] == true))
    });
    let order = Order::buy(10, "nvidia").json().to_string();
    let refused = request(clients, "POST", "/orders", &[], order.as_bytes());
    assert_eq!(refused.status, 503, "{refused:?}");
    let own = request(clients, "GET", "/stocks/nvidia", &[], b"").data();
    assert_eq!(own["quantity"], 1000, "its own catalog's");

    let after = bazaar.status();
    for field in ["journal", "epoch", "leader"] {
        assert_eq!(before[field], after[field], "{field}");
    }
    assert_eq!(bazaar.trade(&Order::buy(1, "nvidia")), 1);
    assert_eq!(bazaar.quantity("nvidia"), 998);
    drop(others);
}

#[test]
fn a_catalog_that_was_begun_anew_is_not_ours() {
    let mut bazaar = Bazaar::start_default();
    let ours = journal(&bazaar.status());
    for _ in 0..5 {
        bazaar.trade(&Order::buy(10, "nvidia"));
    }
    bazaar.kill_catalog();
    let (lost, kept) = (bazaar.catalog_dir(), bazaar.dir().join("kept"));
    fs::rename(&lost, &kept).unwrap();
    bazaar.start_server_with(Server::Catalog, vec!["--new".into()]);
    wait_until("the new catalog to serve", || {
        let log = bazaar.server(Server::Catalog).log();
        log.contains("began a journal")
    });
    let looked = bazaar.get("/stocks/nvidia");
    assert_eq!(looked.status, 503, "and not a quantity that was reset");
    let order = Order::buy(1, "nvidia");
    assert_eq!(bazaar.order_under(Some("key"), &order).status, 503);
    assert_eq!(journal(&bazaar.status()), ours);
    let log = bazaar.server(Server::Gateway(0)).log();
    assert!(
        log.contains("another bazaar's") && log.contains(&ours),
        "{log}"
    );

    bazaar.kill_catalog();
    fs::remove_dir_all(&lost).unwrap();
    fs::rename(&kept, &lost).unwrap();
    bazaar.restart_catalog();
    for id in [1, 2, 3] {
        if !bazaar.server(Server::Order(id)).is_running() {
            bazaar.restart(id);
        }
    }
    bazaar.wait_until_ready();
    assert_eq!(bazaar.trade(&Order::buy(10, "nvidia")), 5);
    assert_eq!(bazaar.quantity("nvidia"), 940);
    bazaar.check_acknowledged();
}
