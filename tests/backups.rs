//! Backups: taken while clients trade, read in full, and made catalogs of after the worst day.
//!
//! - [`drill`]: most disks are lost while clients trade, and what they were told is judged;
//! - [`cost`]: what backups cost trades.

mod cost;
mod drill;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};

use serde_json::Value;
use test_postgres::Cluster;

use crate::harness::{Bazaar, Options, Order, Server, Trades, run, run_ok, skip, wait_until};
use crate::on_postgres;

/// Every catalog here has this lease, in milliseconds: so long a restored one waits.
const LEASE: &str = "--lease-ms=1000";

fn take(bazaar: &Bazaar, file: &Path) -> String {
    run_ok([
        "backup",
        "take",
        text(file),
        "--data-dir",
        text(&bazaar.catalog_dir()),
    ])
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a test's paths are text")
}

fn trade(bazaar: &Bazaar, orders: usize) {
    for _ in 0..orders {
        bazaar.trade(&Order::sell(1, "meta"));
    }
}

/// The disk of the catalog is lost, and a backup takes its place.
fn restore(bazaar: &mut Bazaar, file: &Path, further: &[&str]) -> String {
    bazaar.kill_catalog();
    let dir = bazaar.catalog_dir();
    fs::remove_dir_all(&dir).unwrap();
    let dir = text(&dir).to_owned();
    let restored = ["backup", "restore", text(file), "--data-dir", &dir, LEASE];
    run_ok(restored.iter().chain(further))
}

fn backup() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("monday.backup");
    (dir, file)
}

#[test]
fn where_every_disk_is_lost_the_journal_goes_on_from_the_backup() {
    let (_dir, file) = backup();
    let mut bazaar = Bazaar::start_default();
    trade(&bazaar, 5);
    take(&bazaar, &file);
    trade(&bazaar, 7);
    assert_eq!(bazaar.get("/orders/5").status, 200);
    for id in [1, 2, 3] {
        bazaar.kill(id);
        fs::remove_dir_all(bazaar.data_dir(id)).unwrap();
    }
    restore(&mut bazaar, &file, &[]);
    for server in [
        Server::Catalog,
        Server::Order(1),
        Server::Order(2),
        Server::Order(3),
    ] {
        bazaar.start_server_with(server, Vec::new());
    }
    bazaar.wait_until_ready();
    // As is said: a gateway may remember what is lost.
    bazaar.kill_and_restart_gateway();
    assert_eq!(bazaar.quantity("meta"), 1005);
    assert_eq!(bazaar.get("/orders/4").data()["quantity"], 1);
    assert_eq!(bazaar.get("/orders/5").status, 404);
    let placed = bazaar.send(
        "POST",
        "/orders",
        &[],
        br#"{"name":"meta","type":"buy","quantity":5}"#,
    );
    assert_eq!(placed.data()["transaction_number"], 5);
    assert_eq!(bazaar.quantity("meta"), 1000);
}

#[test]
fn until_an_order_is_another_journal_which_those_of_before_are_refused_by() {
    let (_dir, file) = backup();
    let mut bazaar = Bazaar::start_default();
    trade(&bazaar, 9);
    take(&bazaar, &file);
    let journal = bazaar.status()["journal"].clone();
    let said = restore(&mut bazaar, &file, &["--until=3"]);
    assert!(
        said.contains("4 orders") && said.contains("another journal"),
        "{said}"
    );
    // The journal itself has nothing of the one before.
    let note = fs::read(bazaar.catalog_dir().join("restored-from.json")).unwrap();
    let note: Value = serde_json::from_slice(&note).unwrap();
    assert_eq!(note["of_journal"], journal, "{note}");
    let (until, orders) = (note["until"].as_u64(), note["of_orders"].as_u64());
    assert_eq!((until, orders), (Some(3), Some(9)));
    assert_eq!(note["backup"], text(&file), "{note}");
    assert!(said.contains(note["journal"].as_str().unwrap()), "{note}");
    // A replica of before is refused by name.
    bazaar.kill(1);
    bazaar.start_server_with(Server::Catalog, Vec::new());
    bazaar.start_server_with(Server::Order(1), Vec::new());
    wait_until("a replica of before to end", || {
        let replica = bazaar.server(Server::Order(1));
        !replica.is_running() && replica.log().contains("journal")
    });
    for id in [1, 2, 3] {
        bazaar.kill(id);
        fs::remove_dir_all(bazaar.data_dir(id)).unwrap();
    }
    bazaar.server(Server::Gateway(0)).kill();
    let gateway = bazaar.dir().join("gateway");
    fs::remove_dir_all(&gateway).unwrap();
    for server in [
        Server::Order(1),
        Server::Order(2),
        Server::Order(3),
        Server::Gateway(0),
    ] {
        bazaar.start_server_with(server, Vec::new());
    }
    bazaar.wait_until_ready();
    assert_ne!(bazaar.status()["journal"], journal);
    assert_eq!(bazaar.quantity("meta"), 1004);
    assert_eq!(bazaar.get("/orders/4").status, 404);
    assert_eq!(bazaar.get("/orders/3").data()["quantity"], 1);
}

/// What root restores the user can use who runs the catalog. Who is not root can give nothing away.
#[test]
fn a_restored_catalog_is_of_the_user_whose_directory_it_is_in() {
    const USER: u32 = 20_001;
    let (dir, file) = backup();
    let bazaar = Bazaar::start_default();
    trade(&bazaar, 1);
    take(&bazaar, &file);
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    if let Err(error) = chown(&home, Some(USER), Some(USER)) {
        return skip("a directory of another user's", error);
    }
    let restored = home.join("catalog");
    let mut arguments = vec!["backup", "restore", text(&file), "--data-dir"];
    arguments.extend([text(&restored), LEASE]);
    let said = run_ok(&arguments);
    assert!(!said.contains("chown"), "{said}");
    let entries = fs::read_dir(&restored).unwrap();
    let made: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    assert!(made.contains(&restored.join("catalog.db")));
    for path in made.iter().chain([&restored]) {
        assert_eq!(
            fs::metadata(path).unwrap().uid(),
            USER,
            "{}",
            path.display()
        );
    }
    // Where it is root's own directory, root is told.
    let of_root = dir.path().join("catalog");
    arguments[4] = text(&of_root);
    let said = run_ok(&arguments);
    let typed = format!("`chown -R USER {}`", of_root.display());
    assert!(said.contains(&typed), "{said}");
}

/// Each has all that was acknowledged before it was begun, and none fails a trade.
#[test]
fn backups_are_taken_while_clients_trade() {
    let (dir, _) = backup();
    // Enough for it to be copied in many steps, between which the catalog commits.
    let mut stocks = "name,price,quantity\nmeta,1.00,1000\n".to_owned();
    for number in 0..40_000 {
        stocks += &format!("a-stock-of-a-long-name-{number},1.00,1\n");
    }
    let bazaar = Bazaar::start(Options {
        stocks: Some(Box::leak(stocks.into_boxed_str())),
        ..Options::default()
    });
    let files: Vec<_> = (0..4)
        .map(|number| dir.path().join(format!("{number}.backup")))
        .collect();
    let orders = |file: &Path| -> u64 {
        let said = run_ok(["backup", "verify", text(file)]);
        let before = said.split(" orders").next().unwrap();
        before.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let mut known = Vec::new();
    let trades = Trades::of(&[bazaar.address()], 4, || {
        for file in &files {
            let status: Value = bazaar.status();
            let rows = status["catalog"]["journal_rows"].as_u64().unwrap();
            take(&bazaar, file);
            known.push(rows);
        }
    });
    println!("four backups: {}", trades.summary());
    assert!(trades.failed.is_empty(), "{:?}", trades.failed);
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), files.len(), "nothing else is left: {left:?}");
    for file in &files {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = fs::metadata(file).unwrap();
        assert_eq!(
            metadata.permissions().mode() & 0o777,
            0o600,
            "it has every order"
        );
        assert!(metadata.len() > 3 << 20, "it is copied in steps of 1 MiB");
    }
    for (file, rows) in files.iter().zip(known) {
        let orders = orders(file);
        assert!(
            orders >= rows && orders <= trades.times.len() as u64,
            "{orders}, {rows}"
        );
    }
}

#[test]
fn a_backup_of_up_has_the_policies_too() {
    let dir = tempfile::tempdir().unwrap();
    let bazaar = Bazaar::start_default();
    trade(&bazaar, 2);
    let policy = fs::read(crate::harness::example("no-cache")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &policy).status, 200);
    // What is nobody's is not taken.
    fs::write(bazaar.dir().join("gateway/policies/state.json~"), "{").unwrap();
    // As `up` has them: the harness calls them the same.
    let file = dir.path().join("all.backup");
    let taken = run_ok([
        "backup",
        "take",
        text(&file),
        "--data-dir",
        text(bazaar.dir()),
    ]);
    assert!(
        taken.contains("policies") && !taken.contains(" 0 policies"),
        "{taken}"
    );
    let restored = dir.path().join("restored");
    run_ok([
        "backup",
        "restore",
        text(&file),
        "--data-dir",
        text(&restored),
        LEASE,
    ]);
    for (directory, names) in [
        ("catalog", &["catalog.db"][..]),
        ("gateway", &["journal", "policies"]),
    ] {
        for name in names {
            assert!(
                restored.join(directory).join(name).exists(),
                "{directory}/{name}"
            );
        }
    }
    let same = |name: &str| {
        let one = fs::read(bazaar.dir().join("gateway").join(name)).unwrap();
        assert_eq!(
            one,
            fs::read(restored.join("gateway").join(name)).unwrap(),
            "{name}"
        );
    };
    same("journal");
    for entry in fs::read_dir(restored.join("gateway/policies")).unwrap() {
        same(&format!(
            "policies/{}",
            entry.unwrap().file_name().to_str().unwrap()
        ));
    }
    let again = run([
        "backup",
        "restore",
        text(&file),
        "--data-dir",
        text(&restored),
        LEASE,
    ]);
    assert_eq!(again.status.code(), Some(1), "nothing is overwritten");
    // The catalog alone is lost: the gateway keeps what it has.
    fs::remove_dir_all(restored.join("catalog")).unwrap();
    fs::write(restored.join("gateway/kept"), "").unwrap();
    let said = run_ok([
        "backup",
        "restore",
        text(&file),
        "--data-dir",
        text(&restored),
        LEASE,
    ]);
    assert!(
        said.contains("stays as it is") && restored.join("gateway/kept").exists(),
        "{said}"
    );
    // Another journal has no place for it.
    fs::remove_dir_all(restored.join("catalog")).unwrap();
    let until = [
        "backup",
        "restore",
        text(&file),
        "--data-dir",
        text(&restored),
        LEASE,
        "--until=0",
    ];
    let refused = run(until);
    assert_eq!(refused.status.code(), Some(1));
    fs::remove_dir_all(restored.join("gateway")).unwrap();
    let said = run_ok(until);
    let own = fs::read_to_string(restored.join("gateway/journal")).unwrap();
    assert!(said.contains(own.trim()), "{own} is that of {said}");
}

/// As on `host-2` of three machines: what it keeps is nowhere else.
#[test]
fn the_policies_of_a_gateway_on_a_host_of_its_own_are_backed_up_alone() {
    const GATEWAY: Server = Server::Gateway(0);
    let (dir, file) = backup();
    let mut bazaar = Bazaar::start_default();
    let policy = fs::read(crate::harness::example("no-cache")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &policy).status, 200);
    let host = text(&bazaar.gateway_dir()).to_owned();
    let taken = run_ok(["backup", "take", text(&file), "--data-dir", &host]);
    let journal = bazaar.status()["journal"].as_str().unwrap().to_owned();
    let has = format!("a gateway of journal {journal}, 2 policies");
    assert!(taken.contains(&has), "{taken}");
    let verified = run_ok(["backup", "verify", text(&file)]);
    assert!(
        verified.contains("whole") && verified.contains(&has),
        "{verified}"
    );
    let restore = |further: &[&str]| {
        let to = ["backup", "restore", text(&file), "--data-dir", &host];
        run(to.iter().chain(further))
    };
    let refused = |further: &[&str], said: &str| {
        let refused = restore(further);
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{message}");
        assert!(message.contains(said), "{message}");
    };
    let known = |bazaar: &Bazaar| {
        let policy = bazaar.admin("GET", "/policy", b"").json();
        let digest = |version: &str| policy[version]["digest"].clone();
        let [active, previous] = ["active", "previous"].map(digest);
        let [kept, changes] = ["kept", "changes"].map(|part| policy[part].clone());
        (active, previous, kept, changes)
    };
    let before = known(&bazaar);
    refused(&[], "in use by another process");
    bazaar.server(GATEWAY).kill();
    refused(&[], "policies is there: set it aside");
    refused(&["--until=0"], "there is no --until");
    // Its disk is lost; of another bazaar's gateway nothing is made anything else.
    fs::remove_dir_all(&host).unwrap();
    fs::create_dir(&host).unwrap();
    let own = Path::new(&host).join("journal");
    fs::write(&own, "30313233343536373839616263646566\n").unwrap();
    refused(&[], "it names another journal");
    fs::remove_file(&own).unwrap();
    let restored = restore(&[]);
    assert!(restored.status.success(), "{restored:?}");
    bazaar.start_server(GATEWAY);
    bazaar.wait_until_ready();
    assert_eq!(known(&bazaar), before);
    bazaar.trade(&Order::sell(1, "meta"));
    // What a gateway has is no catalog's.
    let elsewhere = dir.path().join("elsewhere");
    let to = ["--data-dir", text(&elsewhere)];
    let alone = ["backup", "restore", text(&file)];
    run_ok(alone.iter().chain(&to));
    assert!(!elsewhere.join("catalog.db").exists());
}

#[test]
fn what_is_not_as_it_was_written_is_no_backup() {
    let (dir, file) = backup();
    let bazaar = Bazaar::start(Options {
        stocks: Some("name,price,quantity\nmeta,1.00,1000\n"),
        ..Options::default()
    });
    trade(&bazaar, 3);
    take(&bazaar, &file);
    assert!(run_ok(["backup", "verify", text(&file)]).contains("whole"));
    let whole = fs::read(&file).unwrap();
    let other = dir.path().join("other.backup");
    let into = dir.path().join("into");
    let refused = |what: &str, bytes: &[u8]| {
        fs::write(&other, bytes).unwrap();
        for command in [
            vec!["backup", "verify", text(&other)],
            vec!["backup", "restore", text(&other), "--data-dir", text(&into)],
        ] {
            let refused = run(&command);
            let message = String::from_utf8_lossy(&refused.stderr).into_owned();
            assert_eq!(refused.status.code(), Some(1), "{what}: {message}");
            assert!(message.contains("other.backup"), "{what}: {message}");
        }
        let left = fs::read_dir(&into).map_or(0, Iterator::count);
        assert_eq!(left, 0, "{what}: nothing is left of it");
    };
    refused("nothing", b"");
    refused("no tar", b"not a backup at all");
    for share in [1, 2, 3] {
        refused("not copied whole", &whole[..whole.len() * share / 4]);
    }
    // Somewhere in the database, and in what is said of it.
    let manifest = whole
        .windows(10)
        .rposition(|bytes| bytes == b"chain_hash")
        .unwrap();
    for place in [1024, whole.len() / 3, whole.len() / 2, manifest + 16] {
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        refused(&format!("byte {place} of {}", whole.len()), &damaged);
    }
    for (what, arguments, said) in [
        (
            "a file that is there",
            vec![
                "backup",
                "take",
                text(&file),
                "--data-dir",
                text(&bazaar.catalog_dir()),
            ],
            "never overwritten",
        ),
        (
            "no catalog",
            vec![
                "backup",
                "take",
                text(&other).strip_suffix("p").unwrap(),
                "--data-dir",
                text(dir.path()),
            ],
            "neither a catalog's",
        ),
        (
            "a catalog that is there",
            vec![
                "backup",
                "restore",
                text(&file),
                "--data-dir",
                text(&bazaar.catalog_dir()),
            ],
            "remove it first",
        ),
        (
            "no such order",
            vec![
                "backup",
                "restore",
                text(&file),
                "--data-dir",
                text(&into),
                "--until=3",
            ],
            "no order 3",
        ),
    ] {
        let refused = run(&arguments);
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{what}: {message}");
        assert!(message.contains(said), "{what}: {message}");
    }
}

#[test]
fn a_catalog_in_postgresql_is_backed_up_while_it_serves_and_restored_elsewhere() {
    let Some(cluster) = Cluster::replicated() else {
        return;
    };
    let (_dir, file) = backup();
    let lost = cluster.database("lost");
    let mut bazaar = on_postgres::start(&lost, 1);
    trade(&bazaar, 5);
    let refused = Order::buy(1_001, "gamestop");
    assert_eq!(bazaar.order_under(Some("refused"), &refused).status, 404);
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    run_ok(["stock", "delist", "tesla", &admin]);
    let trades = Trades::of(&[bazaar.address()], 2, || {
        let taken = run_ok(["backup", "take", text(&file), "--store", &lost]);
        assert!(taken.contains("orders"), "{taken}");
    });
    assert_eq!(trades.failed, Vec::<String>::new());
    let verified = run_ok(["backup", "verify", text(&file)]);
    assert!(verified.contains("whole"), "{verified}");
    let before = bazaar.status();
    let quantity = bazaar.quantity("meta");
    bazaar.kill_catalog();
    let again = cluster.database("again");
    let restore = ["backup", "restore", text(&file), "--store", &again];
    let said = run_ok(restore);
    assert!(said.contains("without --new"), "{said}");
    // Never over anything.
    let twice = run(restore);
    assert_eq!(twice.status.code(), Some(1));
    let why = String::from_utf8(twice.stderr).unwrap();
    assert!(why.contains("the database has a journal"), "{why}");
    bazaar.set_store(&again, 300);
    bazaar.start_server(Server::Catalog);
    bazaar.wait_until_ready();
    // What came after the backup the replicas had.
    assert_eq!(bazaar.quantity("meta"), quantity);
    assert_eq!(bazaar.status()["journal"], before["journal"]);
    assert_eq!(bazaar.get("/stocks/tesla").status, 404);
    assert_eq!(bazaar.order_under(Some("refused"), &refused).status, 404);
    let number = bazaar.order(&Order::sell(1, "meta")).data()["transaction_number"].as_u64();
    assert_eq!(number, Some(5 + trades.times.len() as u64));
    bazaar.settled_journal();
}

#[test]
fn a_backup_of_one_kind_of_catalog_becomes_the_other_kind() {
    let Some(cluster) = Cluster::replicated() else {
        return;
    };
    let (dir, file) = backup();
    let mut bazaar = Bazaar::start_default();
    trade(&bazaar, 5);
    take(&bazaar, &file);
    bazaar.stop();
    let url = cluster.database("moved");
    run_ok(["backup", "restore", text(&file), "--store", &url]);
    bazaar.set_store(&url, 300);
    bazaar.start_all();
    bazaar.wait_until_ready();
    bazaar.check_acknowledged();
    assert_eq!(bazaar.trade(&Order::sell(1, "meta")), 5);
    // And back, up to an order.
    let back = dir.path().join("back.backup");
    run_ok(["backup", "take", text(&back), "--store", &url]);
    let to = dir.path().join("catalog");
    let until = [
        "backup",
        "restore",
        text(&back),
        "--data-dir",
        text(&to),
        "--until",
        "4",
    ];
    let said = run_ok(until);
    assert!(said.contains("5 orders"), "{said}");
    let elsewhere = cluster.database("until");
    let until = [
        "backup",
        "restore",
        text(&back),
        "--store",
        &elsewhere,
        "--until",
        "2",
    ];
    let said = run_ok(until);
    assert!(said.contains("3 orders"), "{said}");
    // Of what it was made is written down there.
    let sql = "SELECT obj_description('identity'::regclass)";
    let note: Value = serde_json::from_str(&cluster.sql_in("until", sql)).unwrap();
    assert!(said.contains(note["journal"].as_str().unwrap()), "{note}");
    assert_eq!(note["of_journal"], bazaar.status()["journal"], "{note}");
    let (until, orders) = (note["until"].as_u64(), note["of_orders"].as_u64());
    assert_eq!((until, orders), (Some(2), Some(6)));
    assert_eq!(note["backup"], text(&back), "{note}");
}
