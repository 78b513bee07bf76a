//! What releases before this one said and wrote, in `tests/kept`, is understood as it was meant.
//!
//! - [`recorder`], [`recorded`]: how it is got: `make golden` has a release say and write it.

mod recorded;
mod recorder;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use domain::{Entry, Row};
use prost::Message;
use prost::encoding::decode_varint;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use serde_json::{Value, json};
use wire::catalog::v1 as catalog;
use wire::order::v1 as order;

use crate::harness::{
    Bazaar, Options, Order, Ports, example, guest, request, run, run_ok, wait_until,
};
use recorded::{Recorded, copy_database};
use recorder::Recorder;

/// Whose messages and databases are kept.
const RELEASES: [&str; 1] = ["0.1.0"];

fn kept(release: &str) -> PathBuf {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kept");
    kept.join(release)
}

/// The orders that a release was given, as `bazaar ledger show` has them.
const ORDERS: &str = r#"{"0":{"name":"nvidia","type":"buy","quantity":10},"1":{"name":"meta","type":"sell","quantity":3},"2":{"name":"acme","type":"buy","quantity":5},"3":{"name":"tesla","type":"buy","quantity":1}}"#;

/// Under which keys.
const KEYS: [&str; 4] = ["kept-1", "kept-2", "kept-3", "kept-4"];

// ---- messages ----

/// Reads a message and writes it again.
type Rewrite = fn(&[u8]) -> Result<Vec<u8>, String>;

fn rewrite<M: Message + Default>(message: &[u8]) -> Result<Vec<u8>, String> {
    let read = M::decode(message).map_err(|error| error.to_string())?;
    Ok(read.encode_to_vec())
}

/// The same by way of the domain, where a message is about orders or rows.
fn by_way_of_rows(rows: &[catalog::JournalRow]) -> Result<(), String> {
    for row in rows {
        let read = Row::try_from(row.clone()).map_err(|error| error.to_string())?;
        if catalog::JournalRow::from(&read) != *row {
            return Err(format!("{row:?} is not what was read of it"));
        }
    }
    Ok(())
}

fn by_way_of_entries(orders: &[catalog::Order]) -> Result<(), String> {
    for order in orders {
        let read = Entry::try_from(order.clone()).map_err(|error| error.to_string())?;
        if catalog::Order::from(&read) != *order {
            return Err(format!("{order:?} is not what was read of it"));
        }
    }
    Ok(())
}

macro_rules! with {
    ($type:ty, |$message:ident| $check:expr) => {
        |bytes| {
            let $message = <$type>::decode(bytes).map_err(|error| error.to_string())?;
            $check?;
            Ok($message.encode_to_vec())
        }
    };
}

/// Every method, with what it is asked and answered.
const METHODS: &[(&str, Rewrite, Rewrite)] = &[
    (
        "/catalog.v1.Catalog/GetStock",
        rewrite::<catalog::GetStockRequest>,
        rewrite::<catalog::GetStockResponse>,
    ),
    (
        "/catalog.v1.Catalog/ListStocks",
        rewrite::<catalog::ListStocksRequest>,
        rewrite::<catalog::ListStocksResponse>,
    ),
    (
        "/catalog.v1.Catalog/TradeMany",
        with!(catalog::TradeRequest, |request| by_way_of_entries(
            &request.orders
        )),
        with!(catalog::TradeResponse, |answer| by_way_of_rows(
            &answer.proposed
        )),
    ),
    (
        "/catalog.v1.Catalog/GetLeadership",
        rewrite::<catalog::GetLeadershipRequest>,
        with!(catalog::Leadership, |answer| leads(&answer)),
    ),
    (
        "/catalog.v1.Catalog/Elect",
        rewrite::<catalog::ElectRequest>,
        with!(catalog::Leadership, |answer| leads(&answer)),
    ),
    (
        "/catalog.v1.Catalog/SetInSync",
        rewrite::<catalog::SetInSyncRequest>,
        with!(catalog::Leadership, |answer| leads(&answer)),
    ),
    (
        "/catalog.v1.Catalog/ReadJournal",
        rewrite::<catalog::ReadJournalRequest>,
        with!(catalog::ReadJournalResponse, |answer| by_way_of_rows(
            &answer.rows
        )),
    ),
    (
        "/catalog.v1.Catalog/ReportLedger",
        with!(catalog::ReportLedgerRequest, |request| {
            ::catalog::service::report_from_wire(request.clone()).map_err(|error| error.to_string())
        }),
        rewrite::<catalog::ReportLedgerResponse>,
    ),
    (
        "/catalog.v1.Catalog/PutBack",
        with!(catalog::PutBackRequest, |request| by_way_of_rows(
            &request.rows
        )),
        rewrite::<catalog::PutBackResponse>,
    ),
    (
        "/catalog.v1.Catalog/ReportMissing",
        rewrite::<catalog::ReportMissingRequest>,
        rewrite::<catalog::ReportMissingResponse>,
    ),
    (
        "/catalog.v1.Catalog/TakeMany",
        rewrite::<catalog::TakeRequest>,
        rewrite::<catalog::TakeResponse>,
    ),
    (
        "/catalog.v1.Catalog/Session",
        rewrite::<catalog::SessionRequest>,
        rewrite::<catalog::SessionEvent>,
    ),
    (
        "/order.v1.Orders/PlaceMany",
        with!(order::PlaceManyRequest, |request| {
            let placements = request.placements.iter();
            let orders: Vec<_> = placements.filter_map(|it| it.order.clone()).collect();
            by_way_of_entries(&orders)
        }),
        rewrite::<order::PlaceManyResponse>,
    ),
    (
        "/order.v1.Orders/Get",
        rewrite::<order::GetRequest>,
        with!(order::GetResponse, |answer| by_way_of_rows(
            answer.row.as_slice()
        )),
    ),
    (
        "/order.v1.Orders/Announce",
        rewrite::<order::AnnounceRequest>,
        rewrite::<order::ReplicaStatus>,
    ),
    (
        "/order.v1.Orders/Status",
        rewrite::<order::StatusRequest>,
        rewrite::<order::ReplicaStatus>,
    ),
    (
        "/order.v1.Replication/AppendMany",
        with!(order::AppendRequest, |request| by_way_of_rows(
            &request.rows
        )),
        rewrite::<order::AppendResponse>,
    ),
    (
        "/order.v1.Replication/Fetch",
        rewrite::<order::FetchRequest>,
        with!(order::FetchResponse, |answer| by_way_of_rows(&answer.rows)),
    ),
];

fn leads(leadership: &catalog::Leadership) -> Result<(), String> {
    let read = [
        wire::leadership::head(leadership).map(drop),
        wire::leadership::identity(leadership).map(drop),
        wire::leadership::protocol(leadership).map(drop),
    ];
    let read: Result<(), _> = read.into_iter().collect();
    read.map_err(|error| error.to_string())
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = (0..text.len()).step_by(2);
    let byte = |place| u8::from_str_radix(&text[place..place + 2], 16).unwrap();
    pairs.map(byte).collect()
}

#[test]
fn messages_of_releases_before_are_understood_and_would_be_written_the_same() {
    for release in RELEASES {
        let streams = fs::read_to_string(kept(release).join("streams.txt")).unwrap();
        let protos = Protos::of(release);
        let (mut seen, mut fields) = (BTreeSet::new(), BTreeSet::new());
        for line in streams.lines() {
            let mut words = line.split(' ');
            let mut word = || words.next().unwrap();
            let (method, direction, message) = (word(), word(), unhex(word()));
            let known = METHODS.iter().find(|(name, ..)| *name == method);
            let (_, request, answer) = known.unwrap_or_else(|| panic!("nobody knows {method}"));
            let written = match direction {
                ">" => request(&message),
                _ => answer(&message),
            };
            protos.note_fields(protos.said(method, direction), &message, &mut fields);
            assert_eq!(written, Ok(message), "{release}: {line}");
            seen.insert((method, direction));
        }
        for (method, ..) in METHODS {
            let directions = [">", "<"].map(|direction| seen.contains(&(*method, direction)));
            // Where a database lost rows beneath its catalog, and where a leader has less than its peers.
            let rare = [
                "/catalog.v1.Catalog/ReportMissing",
                "/order.v1.Replication/Fetch",
            ];
            assert!(
                rare.contains(method) || directions == [true; 2],
                "{release}: {method}"
            );
        }
        let known: BTreeSet<_> = METHODS.iter().map(|(method, ..)| *method).collect();
        let methods: BTreeSet<_> = protos.methods.keys().map(String::as_str).collect();
        assert_eq!(known, methods, "{release}");
        let mut unseen = protos.fields();
        unseen.retain(|field| !fields.contains(field));
        let unseen: BTreeSet<_> = unseen.iter().map(String::as_str).collect();
        let excused: BTreeSet<_> = UNSEEN.iter().map(|(field, _)| *field).collect();
        assert_eq!(unseen, excused, "{release}: in no message that is kept");
    }
}

/// What no message of a release has that is kept, and why.
const UNSEEN: &[(&str, &str)] = &[
    (".catalog.v1.ListStocksRequest.after", "no list is so long"),
    (".catalog.v1.PutBackResponse.missing_from", FEW),
    (".catalog.v1.ReadJournalRequest.order", LAGS),
    (".catalog.v1.ReportLedgerRequest.beside", POWER),
    (".catalog.v1.ReportMissingRequest.journal", BENEATH),
    (".catalog.v1.ReportMissingRequest.replica", BENEATH),
    (".catalog.v1.ReportMissingRequest.row", BENEATH),
    (".order.v1.FetchRequest.from", BEHIND),
    (".order.v1.FetchRequest.journal", BEHIND),
    (".order.v1.FetchRequest.rows_max", BEHIND),
    (".order.v1.FetchResponse.rows", BEHIND),
    (
        ".order.v1.PlaceManyResponse.Answer.invalid",
        "no gateway of the release sends an order that is none",
    ),
];

const FEW: &str = "rows that were lost are put back at once where they are few";
const LAGS: &str = "a replica that lacks an order is asked for it";
const POWER: &str = "rows that were proposed, and whose leader lost its power";
const BENEATH: &str = "a database lost rows beneath its catalog, which runs";
const BEHIND: &str = "a leader has less than its peers";

/// What a release says of its messages.
struct Protos {
    messages: BTreeMap<String, DescriptorProto>,
    /// What each method is asked and answered.
    methods: BTreeMap<String, [String; 2]>,
}

impl Protos {
    fn of(release: &str) -> Self {
        let protos = fs::read(kept(release).join("descriptors.bin")).unwrap();
        let protos = FileDescriptorSet::decode(&*protos).unwrap();
        let (mut messages, mut methods) = (BTreeMap::new(), BTreeMap::new());
        for file in &protos.file {
            for message in &file.message_type {
                let name = format!(".{}.{}", file.package(), message.name());
                for inner in &message.nested_type {
                    messages.insert(format!("{name}.{}", inner.name()), inner.clone());
                }
                messages.insert(name, message.clone());
            }
            for service in &file.service {
                for method in &service.method {
                    let name = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                    let said = [method.input_type(), method.output_type()].map(str::to_owned);
                    methods.insert(name, said);
                }
            }
        }
        Self { messages, methods }
    }

    /// The type of a message of a method.
    fn said(&self, method: &str, direction: &str) -> &str {
        let [asked, answered] = &self.methods[method];
        match direction {
            ">" => asked,
            _ => answered,
        }
    }

    /// Takes down which fields a message has, those of messages in it included.
    fn note_fields(&self, of: &str, mut message: &[u8], seen: &mut BTreeSet<String>) {
        while !message.is_empty() {
            let key = decode_varint(&mut message).unwrap();
            let field = self.messages[of].field.iter();
            let number = i32::try_from(key >> 3).unwrap();
            let field = field.clone().find(|field| field.number() == number);
            let field = field.unwrap_or_else(|| panic!("{of} has no field {number}"));
            seen.insert(format!("{of}.{}", field.name()));
            let length = match key & 7 {
                0 => decode_varint(&mut message).map(|_| 0).unwrap(),
                1 => 8,
                2 => usize::try_from(decode_varint(&mut message).unwrap()).unwrap(),
                _ => 4,
            };
            let (part, rest) = message.split_at(length);
            if field.r#type() == Type::Message {
                self.note_fields(field.type_name(), part, seen);
            }
            message = rest;
        }
    }

    /// Those of all messages that methods are asked and answered.
    fn fields(&self) -> BTreeSet<String> {
        let mut open: Vec<&str> = self
            .methods
            .values()
            .flatten()
            .map(|name| &**name)
            .collect();
        let (mut visited, mut fields) = (BTreeSet::new(), BTreeSet::new());
        while let Some(name) = open.pop() {
            if !visited.insert(name) {
                continue;
            }
            for field in &self.messages[name].field {
                fields.insert(format!("{name}.{}", field.name()));
                if field.r#type() == Type::Message {
                    open.push(field.type_name());
                }
            }
        }
        fields
    }
}

/// A message's or an enum's parts by their numbers, with all that decides how they are read.
fn parts(protos: &[u8]) -> BTreeMap<String, String> {
    let protos = FileDescriptorSet::decode(protos).unwrap();
    let mut all = BTreeMap::new();
    for file in &protos.file {
        for message in &file.message_type {
            parts_of(&format!(".{}", file.package()), message, &mut all);
        }
        for kind in &file.enum_type {
            for value in &kind.value {
                let name = format!(".{}.{} {}", file.package(), kind.name(), value.number());
                all.insert(name, value.name().to_owned());
            }
        }
        for service in &file.service {
            for method in &service.method {
                let name = format!(".{}.{}/{}", file.package(), service.name(), method.name());
                let streams = (method.client_streaming(), method.server_streaming());
                let types = (method.input_type(), method.output_type());
                all.insert(name, format!("{types:?} {streams:?}"));
            }
        }
    }
    all
}

fn parts_of(outer: &str, message: &DescriptorProto, all: &mut BTreeMap<String, String>) {
    let name = format!("{outer}.{}", message.name());
    for field in &message.field {
        let group = field
            .oneof_index
            .map(|index| &message.oneof_decl[index as usize]);
        let said = (
            field.name(),
            field.label(),
            field.r#type(),
            field.type_name(),
            group.map(|group| group.name()),
        );
        all.insert(format!("{name} {}", field.number()), format!("{said:?}"));
    }
    for inner in &message.nested_type {
        parts_of(&name, inner, all);
    }
}

#[test]
fn what_releases_before_said_has_the_same_numbers_names_and_types() {
    for release in RELEASES {
        let before = fs::read(kept(release).join("descriptors.bin")).unwrap();
        let (before, now) = (parts(&before), parts(wire::DESCRIPTORS));
        assert!(before.len() > 100, "{release}: all of it was read");
        for (part, said) in before {
            assert_eq!(now.get(&part), Some(&said), "{release}: {part}");
        }
    }
}

// ---- databases ----

/// A copy of what a release left.
fn copied(release: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for from in walk(&kept(release).join("data")) {
        let to = copy
            .path()
            .join(from.strip_prefix(kept(release).join("data")).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(&from, &to).unwrap();
    }
    copy
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let (dirs, mut files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    files.extend(dirs.iter().flat_map(|dir| walk(dir)));
    files
}

fn lines(text: &str) -> String {
    text.split_whitespace().collect()
}

#[test]
fn ledgers_and_backups_of_releases_before_are_read() {
    for release in RELEASES {
        let data = copied(release);
        let path = |name: &str| data.path().join(name).display().to_string();
        let ledgers = [1, 2, 3].map(|id| path(&format!("order-{id}")));
        for ledger in &ledgers {
            let shown = run_ok(["ledger", "show", ledger]);
            assert_eq!(lines(&shown), lines(ORDERS), "{release}: {ledger}");
        }
        let changes = run_ok(["ledger", "show", &ledgers[0], "--changes"]);
        for kind in ["add", "price", "restock", "delist"] {
            assert!(changes.contains(kind), "{release}: {kind} in {changes}");
        }
        let same = ["ledger".to_owned(), "diff".to_owned()];
        assert!(
            run(same.iter().chain(&ledgers)).status.success(),
            "{release}"
        );
        let verified = run_ok(["backup", "verify", &path("backup")]);
        assert!(verified.contains("whole"), "{verified}");
        assert!(
            verified.contains(&format!("by release {release}")),
            "{verified}"
        );
        let restored = tempfile::tempdir().unwrap();
        let to = restored.path().join("data").display().to_string();
        let said = run_ok(["backup", "restore", &path("backup"), "--data-dir", &to]);
        assert!(said.contains("4 orders"), "{said}");
    }
}

#[test]
fn a_bazaar_goes_on_with_what_releases_before_left() {
    for release in RELEASES {
        let mut bazaar = Bazaar::on(copied(release), Options::default());
        let told: Value = serde_json::from_str(ORDERS).unwrap();
        for (number, key) in KEYS.iter().enumerate() {
            let mut expected = told[number.to_string()].clone();
            // The first answer, though the stock may be gone by now.
            let again = request(
                bazaar.address(),
                "POST",
                "/orders",
                &[("idempotency-key", &format!("\"{key}\""))],
                expected.to_string().as_bytes(),
            );
            assert_eq!(again.data(), json!({ "transaction_number": number }));
            expected["number"] = json!(number);
            assert_eq!(bazaar.get(&format!("/orders/{number}")).data(), expected);
        }
        let refused = bazaar.order_under(Some("kept-refused"), &Order::buy(1_001, "gamestop"));
        assert_eq!(refused.status, 404, "it stays refused");
        assert_eq!(bazaar.get("/stocks/nvidia").data()["quantity"], 990);
        assert_eq!(bazaar.get("/stocks/acme").status, 404, "it was delisted");
        assert_eq!(bazaar.get("/stocks/meta").data()["price"], 7.5);
        assert_eq!(bazaar.trade(&Order::sell(1, "meta")), 4);
        bazaar.settled_journal();
        let at = bazaar.status()["protocol"].as_u64();
        assert!(at.is_some(), "{release}");
        assert!(
            release != "0.1.0" || at == Some(1),
            "it is raised by nobody but an operator"
        );
        // What releases before could not start with is not saved until there is no way back.
        let policy = fs::read(example("no-cache")).unwrap();
        let pushed = bazaar.admin("PUT", "/policy", &policy);
        if release == "0.1.0" {
            let (code, why) = pushed.error();
            assert!(code == 409 && why.contains("protocol raise"), "{why}");
        }
        let who = [("x-operator", "ada"), ("x-reason", "all is well")];
        let raised = request(bazaar.admin_address(), "POST", "/protocol/raise", &who, b"");
        assert_eq!(raised.status, 200, "{raised:?}");
        let log = run_ok([
            "policy".to_owned(),
            "log".to_owned(),
            format!("--admin=http://{}", bazaar.admin_address()),
        ]);
        let by = "raise by ada (nothing, 127.0.0.1): from version 1 to 2: all is well\n";
        assert!(
            release != "0.1.0" || log.contains(by),
            "it is not taken back, so who did it stays: {log}"
        );
        assert_eq!(bazaar.admin("PUT", "/policy", &policy).status, 200);
        assert_eq!(bazaar.trade(&Order::sell(1, "meta")), 5);
        bazaar.stop();
    }
}

// ---- how they are got ----

/// Has the release in `BAZAAR_GOLDEN_RELEASE` trade, and keeps what it said and wrote in `BAZAAR_GOLDEN_KEPT`.
#[test]
#[ignore = "records what is kept: make golden"]
fn a_release_is_recorded() {
    let variable = |name| PathBuf::from(std::env::var_os(name).expect(name));
    let to = variable("BAZAAR_GOLDEN_KEPT");
    let (recorder, ports) = (Recorder::default(), Ports::claim());
    let doors = [0, 1, 2, 3].map(|place| recorder.stand_before(ports.address(place)));
    let mut recorded = Recorded {
        release: variable("BAZAAR_GOLDEN_RELEASE"),
        dir: tempfile::tempdir().unwrap(),
        ports,
        doors,
        processes: (0..5).map(|_| None).collect(),
    };
    recorded.start(0, &["--new"]);
    (1..5).for_each(|place| recorded.start(place, &[]));
    recorded.wait_until_ready();
    // Everything that the kept databases are to have.
    let told: Value = serde_json::from_str(ORDERS).unwrap();
    recorded.change(
        "POST",
        "/stocks",
        json!({ "name": "acme", "price": 3, "quantity": 9 }),
    );
    for (number, key) in KEYS.iter().enumerate() {
        let order = &told[number.to_string()];
        assert_eq!(
            [recorded.place(key, order), recorded.place(key, order)],
            [200; 2]
        );
        let conflict = json!({ "name": "nike", "type": "buy", "quantity": 2 });
        assert_eq!(recorded.place(key, &conflict), 409);
    }
    let too_many = json!({ "name": "gamestop", "type": "buy", "quantity": 1_001 });
    assert_eq!(recorded.place("kept-refused", &too_many), 404);
    recorded.change("PATCH", "/stocks/meta", json!({ "price": 7.5 }));
    recorded.change("PATCH", "/stocks/nike", json!({ "restock": 100 }));
    recorded.change("DELETE", "/stocks/acme", json!(null));
    let address = recorded.ports.address(4);
    let get = |target: &str| request(address, "GET", target, &[], b"").status;
    assert_eq!(
        [
            "/stocks/nvidia",
            "/stocks/nvidia",
            "/stocks?limit=2",
            "/orders/1",
            "/orders/99"
        ]
        .map(get),
        [200, 200, 200, 200, 404]
    );
    for (place, name) in ["catalog", "order-1", "order-2", "order-3"]
        .iter()
        .enumerate()
        .rev()
    {
        recorded.stop(place);
        let (from, to) = (recorded.dir.path().join(name), to.join("data").join(name));
        fs::create_dir_all(&to).unwrap();
        let database = match place {
            0 => "catalog.db",
            _ => "orders.db",
        };
        copy_database(&from.join(database), &to.join(database));
    }
    // Without the policy, which is a component that whoever records has compiled.
    let data = recorded.dir.path().join("catalog").display().to_string();
    let backup = to.join("data/backup");
    let taken = std::process::Command::new(&recorded.release)
        .args([
            "backup",
            "take",
            backup.to_str().unwrap(),
            "--data-dir",
            &data,
        ])
        .status();
    assert!(taken.unwrap().success());
    // And what else there is to be said: rows that a catalog lost, limits, a replica that is behind.
    let old = recorded.dir.path().join("catalog.db.old");
    let database = recorded.dir.path().join("catalog/catalog.db");
    copy_database(&database, &old);
    (0..4).for_each(|place| recorded.start(place, &[]));
    recorded.wait_until_ready();
    let sell = json!({ "name": "meta", "type": "sell", "quantity": 1 });
    // What a cache holds is taken back.
    wait_until("a hit", || {
        let found = request(address, "GET", "/stocks/meta", &[], b"");
        let cached = found.header("cache-status");
        cached.is_some_and(|cached| cached.contains("hit"))
    });
    assert_eq!(recorded.place("after-1", &sell), 200);
    recorded.stop(2);
    for number in 0..5 {
        assert_eq!(recorded.place(&format!("behind-{number}"), &sell), 200);
    }
    recorded.start(2, &[]);
    recorded.wait_until_ready();
    recorded.stop(0);
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{beside}", database.display()));
    }
    fs::copy(&old, &database).unwrap();
    recorded.start(0, &[]);
    recorded.wait_until_ready();
    assert_eq!(recorded.place("after-1", &sell), 200);
    let policy = fs::read(guest("metered")).unwrap();
    let pushed = request(recorded.ports.address(5), "PUT", "/policy", &[], &policy);
    if pushed.status == 200 {
        let looked_up = (0..40)
            .map(|_| get("/stocks/nvidia"))
            .collect::<BTreeSet<_>>();
        assert!(looked_up.contains(&429), "{looked_up:?}");
    } else {
        println!("this checkout's policies are of a later world: {pushed:?}");
    }
    let mut text = String::new();
    // What was recorded before, and cannot be said any more.
    let before = fs::read_to_string(to.join("streams.txt")).unwrap_or_default();
    recorder.with_messages(|messages| {
        let is_heard = |line: &str| {
            messages
                .keys()
                .any(|(method, _)| line.starts_with(&**method))
        };
        for line in before.lines().filter(|line| !is_heard(line)) {
            writeln!(text, "{line}").unwrap();
        }
    });
    recorder.with_messages(|messages| {
        for ((method, direction), kept) in messages {
            for message in &kept.messages {
                let hex = domain::Hex(message);
                writeln!(text, "{method} {direction} {hex}").unwrap();
            }
        }
    });
    fs::write(to.join("streams.txt"), text).unwrap();
    // Only of this release: what it says of its protos.
    if recorded.release.as_path() == Path::new(env!("CARGO_BIN_EXE_bazaar")) {
        fs::write(to.join("descriptors.bin"), wire::DESCRIPTORS).unwrap();
    }
}
