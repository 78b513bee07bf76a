//! A policy's way into service: shadow, canary, promotion, probation, and a restart.

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use domain::{Epoch, JournalId, Price, ReplicaId, RowNumber, StockName};
use frontend_policy::DEFAULT_POLICY;
use frontend_policy::admission::{KeyKind, Signatory};
use frontend_policy::decision::{
    Action, Operation, Outcome, Page, ReplicaView, Scheme, Stock, Unavailability, View,
};
use frontend_policy::replay::{HeaderChoice, replay};
use frontend_policy::{
    Admission, CodeCache, Connection, Engine, Probation, Reason, Rejection, RequestParts, Share,
    SwapError, Trial, Trust, Upload, Version, VersionLog, Versions,
};
use http::{HeaderMap, Method};
use sha2::{Digest as _, Sha256};
use tokio_stream::StreamExt as _;

use crate::machine_code;

mod behind;
mod configurations;
mod failing;
mod lost;
mod rollouts;
mod secrets;
mod way_back;

const PROBATION: Probation = Probation {
    window: Duration::from_secs(600),
    failures_max: 10,
};

fn guest(name: &str) -> Vec<u8> {
    let component = policy_build::Builder::in_project("tests/guests")
        .example(name)
        .build_once()
        .unwrap();
    std::fs::read(component).unwrap()
}

fn versions(log: Option<VersionLog>, component: &[u8]) -> Versions {
    let engine = machine_code::kept(Engine::new(Duration::from_millis(200)).unwrap());
    Versions::new(engine, component, PROBATION, log).unwrap()
}

/// A version that is not in service.
fn admitted(engine: Engine, component: &[u8]) -> Version {
    let admitted = Admission::new(engine).admit(component, &[]);
    admitted.unwrap().into_version()
}

fn engine() -> Engine {
    machine_code::kept(Engine::new(Duration::from_secs(1)).unwrap())
}

/// What names a component.
fn sha256_hex(component: &[u8]) -> String {
    domain::Hex(&Sha256::digest(component)).to_string()
}

fn operator() -> Reason {
    Reason {
        who: "a test".into(),
        why: "to see".into(),
        ..Reason::default()
    }
}

/// Who decides about a request of that client.
fn decide(versions: &Versions, client: u32, target: &str) -> String {
    let headers = HeaderMap::new();
    let request = RequestParts {
        method: &Method::GET,
        target,
        headers: &headers,
        connection: None,
        body: None,
        now_ms: 0,
        id: None,
    };
    let mut decider = versions.decider(&client.to_be_bytes());
    let decision = decider.on_request(request).unwrap();
    assert!(matches!(
        decision.action,
        Action::Perform(Operation::ReadStock { .. }) | Action::Respond(_)
    ));
    decider.version().manifest.name.clone()
}

fn active(versions: &Versions) -> String {
    versions.published().active.manifest.name.clone()
}

fn all() -> Share {
    Share::new(1.0).unwrap()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_shadow_decides_nothing_and_its_differences_are_found() {
    let versions = versions(None, DEFAULT_POLICY);
    versions
        .try_out(&guest("marked"), Trial::Shadow(all()), &operator())
        .unwrap();
    for client in 0..50 {
        assert_eq!(decide(&versions, client, "/no/such/path"), "default");
        assert_eq!(decide(&versions, client, "/stocks/nvidia"), "default");
    }
    let candidate = versions.published().candidate.clone().unwrap();
    let found = || candidate.differences.snapshot();
    wait_until("all decisions to be compared", || {
        found().compared + found().dropped == 100
    });
    let found = found();
    // The 404 has another header; the read of a stock is the same.
    assert!(found.different > 0 && found.different <= 50, "{found:?}");
    assert_eq!(found.kinds.keys().collect::<Vec<_>>(), [&"headers"]);
    assert!(
        found.examples[0].candidate.contains("x-policy"),
        "{found:?}"
    );
    assert_eq!(found.examples[0].request, "GET /no/such/path");
}

/// Whoever may look may not see what clients send in confidence.
#[test]
fn differences_show_nothing_of_credentials() {
    let versions = versions(None, DEFAULT_POLICY);
    versions
        .try_out(&guest("echoes"), Trial::Shadow(all()), &operator())
        .unwrap();
    let mut headers = HeaderMap::new();
    let cookies = http::HeaderValue::from_static("theme=dark; sid=s3cret");
    headers.insert("cookie", cookies);
    let request = RequestParts {
        connection: None,
        ..in_bytes(&headers)
    };
    versions.decider(&[]).on_request(request).unwrap();
    let candidate = versions.published().candidate.clone().unwrap();
    wait_until("it to be compared", || {
        candidate.differences.snapshot().different == 1
    });
    let shown = format!("{:?}", candidate.differences.snapshot());
    assert!(shown.contains("cookie: (left out)"), "{shown}");
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn a_shadow_that_hangs_and_traps_costs_clients_nothing() {
    let versions = versions(None, DEFAULT_POLICY);
    for (name, target) in [("loops", "/stocks/loop"), ("traps", "/stocks/trap")] {
        versions
            .try_out(&guest(name), Trial::Shadow(all()), &operator())
            .unwrap();
        let candidate = versions.published().candidate.clone().unwrap();
        for client in 0..2000 {
            assert_eq!(decide(&versions, client, target), "default");
        }
        wait_until("a failure of the shadow", || {
            decide(&versions, 0, target);
            candidate.version.counts.failures() > 0
        });
        let found = candidate.differences.snapshot();
        assert_eq!(found.kinds["action"], found.different);
    }
    assert_eq!(versions.published().active.counts.failures(), 0);
}

/// Clients choose what they ask for, and not how many routes there are.
#[test]
fn what_decisions_cost_is_told_apart_by_routes_on_which_something_is_served() {
    let versions = versions(None, DEFAULT_POLICY);
    // One decision in 64 is measured.
    for client in 0..4_000 {
        decide(&versions, client, &format!("/invented{client}"));
        decide(&versions, client, "/stocks/nvidia");
    }
    let costs = versions.published().active.costs.snapshot();
    let routes: Vec<_> = costs.keys().map(String::as_str).collect();
    assert_eq!(routes, ["GET /stocks/*", "others"]);
}

#[test]
fn a_canary_has_its_share_of_the_clients_and_keeps_them() {
    let versions = versions(None, DEFAULT_POLICY);
    let share = Share::new(0.2).unwrap();
    versions
        .try_out(&guest("marked"), Trial::Canary(share), &operator())
        .unwrap();
    let by_canary = |client: &u32| decide(&versions, *client, "/stocks/nvidia") == "marked";
    let first: Vec<u32> = (0..2000).filter(by_canary).collect();
    let again: Vec<u32> = (0..2000).filter(by_canary).collect();
    assert_eq!(first, again, "a client stays with the version that it met");
    assert!(
        (300..500).contains(&first.len()),
        "about a fifth: {}",
        first.len()
    );
}

#[test]
fn a_promoted_candidate_is_active_and_the_one_before_is_kept() {
    let versions = versions(None, DEFAULT_POLICY);
    assert!(matches!(
        versions.promote(None, &operator()),
        Err(SwapError::NoCandidate)
    ));
    versions
        .try_out(
            &guest("marked"),
            Trial::Canary(Share::new(0.1).unwrap()),
            &operator(),
        )
        .unwrap();
    versions.promote(None, &operator()).unwrap();
    assert_eq!(active(&versions), "marked");
    assert!(versions.published().candidate.is_none());
    versions.roll_back(&operator()).unwrap();
    assert_eq!(active(&versions), "default");
}

#[test]
fn a_version_that_fails_on_probation_is_rolled_back() {
    let versions = versions(None, DEFAULT_POLICY);
    versions.activate(&guest("traps"), &operator()).unwrap();
    for client in 0..10 {
        decide(&versions, client, "/stocks/trap");
    }
    assert_eq!(
        active(&versions),
        "traps",
        "as many failures as it may have"
    );
    decide(&versions, 10, "/stocks/trap");
    wait_until("one more to be one too many", || {
        active(&versions) == "default"
    });
    assert!(
        versions.published().previous.is_none(),
        "there is no way back to a version that failed"
    );
}

#[test]
fn a_canary_that_fails_on_probation_is_dropped() {
    let versions = versions(None, DEFAULT_POLICY);
    versions
        .try_out(&guest("traps"), Trial::Canary(all()), &operator())
        .unwrap();
    for client in 0..11 {
        assert_eq!(
            decide(&versions, client, "/stocks/trap"),
            "default",
            "the active one stands in"
        );
    }
    wait_until("the candidate to be dropped", || {
        versions.published().candidate.is_none()
    });
    assert_eq!(active(&versions), "default");
}

/// A gateway's versions as they are after a start with that component.
fn started(data_dir: &Path, component: &[u8]) -> Versions {
    let log = VersionLog::open(data_dir, component).unwrap();
    versions(Some(log), component)
}

/// The same gateway again, after one in which `marked` took the default policy's place.
fn restarted_after_marked(data_dir: &Path) -> Versions {
    let before = started(data_dir, DEFAULT_POLICY);
    before.activate(&guest("marked"), &operator()).unwrap();
    drop(before);
    let after = started(data_dir, DEFAULT_POLICY);
    assert_eq!(active(&after), "marked");
    after
}

#[test]
fn a_restart_comes_back_with_the_version_it_ran() {
    let dir = tempfile::tempdir().unwrap();
    let after = restarted_after_marked(dir.path());
    let changes = after.changes();
    assert_eq!(
        (changes[0].what.as_str(), changes[0].who.as_str()),
        ("activate", "a test")
    );
    assert_eq!(
        active(&started(dir.path(), &guest("chatty"))),
        "chatty",
        "told to start with another one"
    );
}

/// A gateway that takes signed policies only may have taken others before, or trusted other keys.
#[test]
fn a_restart_comes_back_with_trusted_versions_only() {
    let dir = tempfile::tempdir().unwrap();
    let ours = Signatory::generate(KeyKind::Ed25519).unwrap();
    let before = started(dir.path(), DEFAULT_POLICY);
    let signed = guest("marked");
    let signature = ours.sign(&signed);
    let signed = Upload {
        component: &signed,
        signature: Some(&signature),
        config: &[],
    };
    before.activate(signed, &operator()).unwrap();
    before.activate(&guest("chatty"), &operator()).unwrap();

    let reopened = |keys: &Signatory| {
        let trust = Trust::parse(&keys.public()).unwrap();
        let log = VersionLog::open(dir.path(), DEFAULT_POLICY).unwrap();
        log.retain_trusted(&trust)
    };
    assert!(
        reopened(&ours).last_active().is_none(),
        "`chatty` is not signed"
    );

    before.roll_back(&operator()).unwrap();
    drop(before);
    let others = Signatory::generate(KeyKind::Ed25519).unwrap();
    assert!(reopened(&others).last_active().is_none());
    let log = reopened(&ours);
    let after = versions(Some(log), DEFAULT_POLICY);
    assert_eq!(active(&after), "marked");
}

#[test]
fn a_damaged_component_is_not_started_with() {
    let dir = tempfile::tempdir().unwrap();
    let before = started(dir.path(), DEFAULT_POLICY);
    let digest = before
        .activate(&guest("marked"), &operator())
        .unwrap()
        .digest;
    drop(before);
    let file = dir.path().join(format!("policies/{digest}.wasm"));
    let mut component = std::fs::read(&file).unwrap();
    component.truncate(1000);
    std::fs::write(&file, component).unwrap();
    let after = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(active(&after), "default");
    after.activate(&guest("marked"), &operator()).unwrap();
    drop(after);
    let mended = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(active(&mended), "marked", "uploaded again");
}

#[test]
fn the_component_that_is_active_changes_nothing_when_it_is_pushed_again() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    let marked = guest("marked");
    for _ in 0..2 {
        versions.activate(&marked, &operator()).unwrap();
    }
    assert_eq!(versions.changes().len(), 1);
    assert_eq!(versions.published().generation, 2);
    versions.roll_back(&operator()).unwrap();
    assert_eq!(active(&versions), "default", "not itself");
}

/// Pushed again after another one that failed, it is not what a rollback of it goes to.
#[test]
fn no_version_is_the_way_back_to_itself() {
    let versions = versions(None, DEFAULT_POLICY);
    versions.activate(&guest("traps"), &operator()).unwrap();
    decide(&versions, 1, "/stocks/trap");
    versions.activate(DEFAULT_POLICY, &operator()).unwrap();
    let refused = versions.roll_back(&operator()).map(drop).unwrap_err();
    assert!(
        matches!(refused, SwapError::NothingToRollBackTo),
        "{refused}"
    );
}

#[test]
fn a_version_of_before_is_activated_again_by_the_beginning_of_its_digest_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let before = started(dir.path(), DEFAULT_POLICY);
    let marked = before.activate(&guest("marked"), &operator()).unwrap();
    for name in ["chatty", "echoes"] {
        before.activate(&guest(name), &operator()).unwrap();
    }
    drop(before);
    let after = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(active(&after), "echoes");
    assert_eq!(after.kept().len(), 4);
    let marked = marked.digest.to_string();
    for named in [&marked[..7], "", "00000000", "../state"] {
        let refused = after.activate_kept(named, &operator()).map(drop);
        assert!(
            matches!(refused, Err(SwapError::NotKept(_))),
            "{named}: {refused:?}"
        );
    }
    after.activate_kept(&marked[..8], &operator()).unwrap();
    assert_eq!(active(&after), "marked");
    assert_eq!(after.kept().pop().unwrap().digest, marked);
}

#[test]
fn a_saved_version_that_does_not_pass_its_check_any_more_is_passed_over_and_that_is_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let before = started(dir.path(), DEFAULT_POLICY);
    before.activate(&guest("marked"), &operator()).unwrap();
    let last = before.activate(&guest("chatty"), &operator()).unwrap();
    drop(before);
    // What an earlier release took.
    let unfit = guest("forbidden-import");
    let unfit_digest = sha256_hex(&unfit);
    let policies = dir.path().join("policies");
    std::fs::write(policies.join(format!("{unfit_digest}.wasm")), unfit).unwrap();
    let state = std::fs::read_to_string(policies.join("state.json")).unwrap();
    let last = last.digest.to_string();
    let state = state.replace(
        &format!("\"active\":\"{last}\""),
        &format!("\"active\":\"{unfit_digest}\""),
    );
    std::fs::write(policies.join("state.json"), state).unwrap();

    for _ in 0..2 {
        let after = started(dir.path(), DEFAULT_POLICY);
        assert_eq!(active(&after), "marked", "the one before it");
        let changes = after.changes();
        let change = changes.last().unwrap();
        assert_eq!(
            (change.what.as_str(), change.who.as_str()),
            ("fallback", "start")
        );
        assert!(change.why.contains(&unfit_digest), "{}", change.why);
        assert_eq!(changes.len(), 3, "once");
    }
}

#[test]
fn a_change_that_cannot_be_saved_is_not_made() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    std::fs::remove_dir_all(dir.path().join("policies")).unwrap();
    let refused = versions
        .activate(&guest("marked"), &operator())
        .map(drop)
        .unwrap_err();
    assert!(matches!(refused, SwapError::NotSaved(_)), "{refused}");
    assert_eq!(active(&versions), "default");
}

fn always_highest() -> Vec<u8> {
    let built = policy_build::Builder::in_project("frontend-guest").example("always-highest");
    std::fs::read(built.build_once().unwrap()).unwrap()
}

/// Two replicas that work, led by the first.
fn led_by_1() -> View {
    let replica = |id: u32| ReplicaView {
        id: ReplicaId::new(id).unwrap(),
        healthy: true,
        reaches_catalog: true,
        orders: RowNumber(0),
        round_trip: Duration::from_micros(200),
        in_sync: true,
    };
    View {
        replicas: vec![replica(1), replica(2)],
        leader: ReplicaId::new(1),
        epoch: Epoch(1),
    }
}

/// A canary sticks to a client, and an election is nobody's request.
#[test]
fn a_candidate_elects_nobody_and_it_is_seen_whom_it_would() {
    let versions = versions(None, DEFAULT_POLICY);
    let few = Share::new(0.001).unwrap();
    for trial in [Trial::Canary(all()), Trial::Shadow(few)] {
        versions
            .try_out(&always_highest(), trial, &operator())
            .unwrap();
        let elected = versions.elect(0, &led_by_1()).unwrap();
        assert_eq!(elected, None, "1 works, and stays");
        let candidate = versions.published().candidate.clone().unwrap();
        wait_until("the election to be compared", || {
            candidate.differences.snapshot().compared == 1
        });
        let example = &candidate.differences.snapshot().examples[0];
        assert_eq!(example.request, "an election of 2");
        assert_eq!(
            (example.kind.as_str(), example.active.as_str()),
            ("leader", "as it is")
        );
        assert_eq!(example.candidate, "2");
    }
}

#[tokio::test]
async fn a_recording_has_elections_and_replays_them() {
    let versions = versions(None, DEFAULT_POLICY);
    let journal = JournalId::new(*b"0123456789abcdef");
    let mut recording = versions
        .record(
            Some(journal),
            HeaderChoice::default(),
            Duration::from_secs(600),
        )
        .unwrap();
    decide(&versions, 0, "/stocks/nvidia");
    versions.elect(7, &led_by_1()).unwrap();
    let mut lines = String::new();
    for _ in 0..3 {
        lines += &recording.next().await.unwrap();
    }
    assert!(lines.contains(&journal.to_string()), "{lines}");
    let replayed = |component: &[u8]| {
        let version = admitted(engine(), component);
        replay(lines.as_bytes(), &version).unwrap().snapshot()
    };
    let same = replayed(DEFAULT_POLICY);
    assert_eq!((same.compared, same.different), (2, 0), "{same:?}");
    let other = replayed(&always_highest());
    assert_eq!(
        (other.different, other.kinds["leader"]),
        (1, 1),
        "{other:?}"
    );
}

/// What gateways wrote before lists had pages and elections knew who is in sync.
const RECORDING_OF_BEFORE: [&str; 4] = [
    r#"{"format":"bazaar-policy-recording","version":2,"policy":"default 0.1.0 (10d675813c77)"}"#,
    r#"{"now_ms":1,"seed":7,"request":{"method":"GET","target":"/stocks","headers":[],"body":null,"outcome":null},"decided":[["action","list-stocks"]]}"#,
    r#"{"now_ms":1,"seed":7,"request":{"method":"GET","target":"/stocks","headers":[],"body":null,"outcome":{"stocks":[{"name":"amc","price":5,"quantity":1},{"name":"nike","price":750,"quantity":2}]}},"decided":[["action","respond"],["status","200"],["headers",""],["body","{\"data\":[{\"name\":\"amc\",\"price\":0.05,\"quantity\":1},{\"name\":\"nike\",\"price\":7.5,\"quantity\":2}]}"],["keep","None"]]}"#,
    r#"{"now_ms":2,"seed":8,"election":{"replicas":[{"id":2,"healthy":true,"reaches_catalog":true,"orders":7,"round_trip_us":210},{"id":3,"healthy":true,"reaches_catalog":true,"orders":7,"round_trip_us":210}],"leader":null,"epoch":0},"decided":[["action","elect"],["leader","3"]]}"#,
];

/// A request whose headers are not all text, from somewhere.
fn in_bytes(headers: &HeaderMap) -> RequestParts<'_> {
    RequestParts {
        method: &Method::GET,
        target: "/echo",
        headers,
        connection: Some(Connection {
            client: "2001:db8::7".parse().unwrap(),
            scheme: Scheme::Http,
            version: http::Version::HTTP_11,
        }),
        body: None,
        now_ms: 0,
        id: None,
    }
}

fn not_text() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = http::HeaderValue::from_bytes(b"na\xefve").unwrap();
    headers.insert("host", value.clone());
    headers.insert("cookie", value.clone());
    headers.insert("idempotency-key", value);
    headers
}

#[tokio::test]
async fn a_recording_has_what_a_policy_saw_but_credentials() {
    let headers = not_text();
    for (component, sees_connection) in [(guest("echoes"), true), (guest("marked"), false)] {
        let versions = versions(None, &component);
        let mut recording = versions
            .record(None, HeaderChoice::default(), Duration::from_secs(600))
            .unwrap();
        versions
            .decider(&[])
            .on_request(in_bytes(&headers))
            .unwrap();
        let mut lines = String::new();
        for _ in 0..2 {
            lines += &recording.next().await.unwrap();
        }
        let host = r#"["host",{"base64":"bmHvdmU="}]"#;
        assert_eq!(lines.contains(host), sees_connection, "{lines}");
        let connection = r#""connection":{"client":"2001:db8::7","scheme":"http","version":"1.1"}"#;
        assert_eq!(lines.contains(connection), sees_connection, "{lines}");
        assert!(!lines.contains(r#"["cookie""#), "{lines}");
        assert!(!lines.contains(r"cookie: na\\xefve"), "{lines}");
        let is_left_out = lines.contains("cookie: (left out)");
        assert_eq!(is_left_out, sees_connection, "{lines}");

        // Without the cookie it does not say the same again: that is not compared.
        let found = replay(lines.as_bytes(), &admitted(engine(), &component)).unwrap();
        let found = found.snapshot();
        assert_eq!((found.compared, found.different), (1, 0), "{found:?}");
    }
}

#[tokio::test]
async fn a_recording_has_what_came_of_takes_and_replays_them() {
    let limited = guest("limited");
    let versions = versions(None, &limited);
    let mut recording = versions
        .record(None, HeaderChoice::default(), Duration::from_secs(600))
        .unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-client", http::HeaderValue::from_static("one"));
    let request = |target| RequestParts {
        method: &Method::GET,
        target,
        headers: &headers,
        connection: None,
        body: None,
        now_ms: 0,
        id: None,
    };
    let stock = Outcome::Stock(Stock {
        name: StockName::new("nvidia").unwrap(),
        price: Price::from_minor(100).unwrap(),
        quantity: 1,
    });
    let away = Outcome::Unavailable(Unavailability::NoCatalog);
    let (nvidia, free) = ("/stocks/nvidia", "/stocks/free");
    for (target, outcomes) in [
        (nvidia, &[Outcome::Granted, stock.clone()][..]),
        (nvidia, &[Outcome::Denied(250)]),
        (nvidia, std::slice::from_ref(&away)),
        (free, &[away.clone(), stock]),
    ] {
        let mut decider = versions.decider(&[]);
        let mut decision = decider.on_request(request(target)).unwrap();
        for outcome in outcomes {
            let memo = decision.memo;
            decision = decider.on_outcome(request(target), &memo, outcome).unwrap();
        }
    }
    let mut lines = String::new();
    for _ in 0..11 {
        lines += &recording.next().await.unwrap();
    }
    for part in [
        r#""outcome":"granted"}"#,
        r#""takes":["granted"],"outcome":{"stock":"#,
        r#""takes":[{"unavailable":"no-catalog"}],"outcome":{"stock":"#,
        r#""outcome":{"denied":250}}"#,
        r#"[["action","take"],["bucket","lookups"],["key","one"],["cost","1"]]"#,
    ] {
        assert!(lines.contains(part), "{part}: {lines}");
    }
    let replayed = |component: &[u8]| {
        let version = admitted(engine(), component);
        replay(lines.as_bytes(), &version).unwrap().snapshot()
    };
    let same = replayed(&limited);
    assert_eq!((same.compared, same.different), (10, 0), "{same:?}");
    // One that takes nothing differs in that alone: each time it does at once what comes of the take,
    // it reads where this one turns away, and has nothing to read where this one goes on.
    let other = replayed(DEFAULT_POLICY);
    assert_eq!(
        (other.different, other.kinds["action"]),
        (6, 6),
        "{other:?}"
    );
}

#[test]
fn who_decides_is_never_shown_by_half_what_it_asks_for() {
    let headers = not_text();
    let of_1_0 = default_1_0();
    let decided = |versions: &Versions| {
        let mut decider = versions.decider(&[]);
        decider.leave_unreadable(&headers);
        let refused = decider.version().unreadable(&headers).cloned();
        let decided = decider.on_request(in_bytes(&headers)).is_ok();
        (refused.map(|name| name.to_string()), decided)
    };
    let refused = (Some("idempotency-key".to_owned()), false);
    let answered = (None, true);
    assert_eq!(decided(&versions(None, &of_1_0)), refused);
    assert_eq!(decided(&versions(None, &guest("echoes"))), answered);
    // Beside and behind another it turns nobody away.
    for trial in [Trial::Shadow(all()), Trial::Canary(all())] {
        let versions = versions(None, &guest("echoes"));
        versions.try_out(&of_1_0, trial, &operator()).unwrap();
        assert_eq!(decided(&versions), answered, "{trial:?}");
    }
    let versions = versions(None, &of_1_0);
    versions.activate(&guest("echoes"), &operator()).unwrap();
    assert_eq!(decided(&versions), answered);
}

/// Whatever clients sent to the version before, they have no say in which one may serve.
#[test]
fn a_request_that_a_version_cannot_be_shown_is_no_test_of_it() {
    let versions = versions(None, &guest("echoes"));
    let headers = not_text();
    for _ in 0..4000 {
        let _ = versions.decider(&[]).on_request(in_bytes(&headers));
    }
    versions.activate(&default_1_0(), &operator()).unwrap();
}

/// The default policy as it was built for `bazaar:policy@1.0.0`.
fn default_1_0() -> Vec<u8> {
    let project = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    std::fs::read(format!("{project}/tests/policies/default-1.0.wasm")).unwrap()
}

#[test]
fn a_recording_of_before_replays_and_others_are_refused() {
    let version = admitted(engine(), DEFAULT_POLICY);
    let recording = RECORDING_OF_BEFORE.join("\n");
    let found = replay(recording.as_bytes(), &version).unwrap().snapshot();
    assert_eq!(found.compared, 3);
    // They were left out above.
    assert_eq!(found.kinds.keys().collect::<Vec<_>>(), ["headers"]);
    let of_3 = recording.replace(r#""version":2"#, r#""version":3"#);
    let found = replay(of_3.as_bytes(), &version).unwrap().snapshot();
    assert_eq!(found.compared, 3);
    for other in ["1", "5"] {
        let recording = recording.replace(r#""version":2"#, &format!(r#""version":{other}"#));
        let refused = replay(recording.as_bytes(), &version).unwrap_err();
        assert!(refused.to_string().contains("version 2 to 4"), "{refused}");
    }
}

/// A recorder may be as slow as it likes, and go away without a word.
#[test]
fn a_recording_that_nobody_reads_holds_a_bounded_memory_for_a_bounded_time() {
    let versions = versions(None, DEFAULT_POLICY);
    let long = format!("/stocks/{}", "x".repeat(60_000));
    let recording = versions
        .record(None, HeaderChoice::default(), Duration::from_secs(600))
        .unwrap();
    for client in 0..400 {
        decide(&versions, client, &long);
    }
    let waiting = recording.waiting_bytes();
    assert!((4 << 20..=8 << 20).contains(&waiting), "{waiting} bytes");
    assert!(
        versions
            .record(None, HeaderChoice::default(), Duration::from_secs(1))
            .is_err(),
        "one at a time"
    );
    drop(recording);

    let over = versions
        .record(None, HeaderChoice::default(), Duration::ZERO)
        .unwrap();
    let before = over.waiting_bytes();
    decide(&versions, 0, &long);
    assert_eq!(over.waiting_bytes(), before, "its time is over");
    assert!(
        versions
            .record(None, HeaderChoice::default(), Duration::from_secs(1))
            .is_ok()
    );
}

#[test]
fn after_a_restart_the_version_before_is_still_there_to_go_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let after = restarted_after_marked(dir.path());
    after.roll_back(&operator()).unwrap();
    assert_eq!(active(&after), "default");
}

#[test]
fn the_log_of_changes_is_bounded_and_forgets_no_version_in_service() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    versions.activate(&guest("marked"), &operator()).unwrap();
    let wordy = Reason {
        who: "a test".into(),
        why: "x".repeat(100_000),
        ..Reason::default()
    };
    for _ in 0..41 {
        versions.roll_back(&wordy).unwrap();
    }
    assert_eq!(active(&versions), "default");
    drop(versions);
    let policies = dir.path().join("policies");
    let log = policies.join("changes.jsonl");
    let size = |name: &str| policies.join(name).metadata().unwrap().len();
    let bytes = size("changes.jsonl") + size("changes.1.jsonl");
    assert!(
        (1 << 20..5 << 19).contains(&bytes),
        "{bytes} bytes of four million"
    );

    // A crash cuts a line short; that costs no other.
    let mut torn = std::fs::read(&log).unwrap();
    torn.extend_from_slice(br#"{"at_ms":17"#);
    std::fs::write(&log, torn).unwrap();
    let after = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(active(&after), "default");
    assert!(after.changes().len() > 10);
    after.roll_back(&operator()).unwrap();
    drop(after);
    let last = started(dir.path(), DEFAULT_POLICY).changes().pop().unwrap();
    assert_eq!(
        (last.what.as_str(), last.why.as_str()),
        ("rollback", "to see")
    );
}

#[test]
fn a_shadow_is_not_asked_what_would_fill_its_queue() {
    let versions = versions(None, DEFAULT_POLICY);
    let trial = Trial::Shadow(Share::new(1.0).unwrap());
    versions
        .try_out(DEFAULT_POLICY, trial, &operator())
        .unwrap();
    let stock = Stock {
        name: StockName::new("nvidia").unwrap(),
        price: Price::from_minor(100).unwrap(),
        quantity: 1,
    };
    let headers = HeaderMap::new();
    let request = RequestParts {
        method: &Method::GET,
        target: "/stocks",
        headers: &headers,
        connection: None,
        body: None,
        now_ms: 0,
        id: None,
    };
    let mut decider = versions.decider(&[]);
    let outcome = Outcome::Stocks(Page {
        stocks: vec![stock; 10_000],
        more: false,
    });
    decider.on_outcome(request, &[], &outcome).unwrap();
    let published = versions.published();
    let found = published.candidate.as_ref().unwrap().differences.snapshot();
    assert_eq!(found.dropped, 1);
}

#[test]
fn a_version_that_was_compiled_once_is_loaded_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let component = guest("marked");
    let load = || {
        let code_cache = CodeCache::open(dir.path().to_owned()).unwrap();
        let engine = engine().with_code_cache(code_cache);
        let begun = Instant::now();
        let version = admitted(engine, &component);
        assert_eq!(version.manifest.name, "marked");
        begun.elapsed()
    };
    let files = || {
        std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect::<Vec<_>>()
    };
    let cold = load();
    let kept = files();
    assert_eq!(kept.len(), 1);
    let written = kept[0].metadata().unwrap().modified().unwrap();
    let warm = load();
    println!("cold {cold:?}, warm {warm:?}");
    assert_eq!(
        kept[0].metadata().unwrap().modified().unwrap(),
        written,
        "it was not compiled again"
    );

    std::fs::write(&kept[0], b"damaged").unwrap();
    load();
    assert!(
        kept[0].metadata().unwrap().len() > 1000,
        "what is damaged is compiled and kept anew"
    );
    assert_eq!(files(), kept);
}

#[test]
fn only_signed_policies_are_taken_where_keys_are_trusted() {
    let (ours, other) = (
        Signatory::generate(KeyKind::Ed25519).unwrap(),
        Signatory::generate(KeyKind::Ed25519).unwrap(),
    );
    let trust = Trust::parse(&ours.public()).unwrap();
    let versions = versions(None, DEFAULT_POLICY).trusting(Some(trust));
    let component = guest("marked");
    let upload = |signature: Option<&str>| {
        versions
            .activate(
                Upload {
                    component: &component,
                    signature,
                    config: &[],
                },
                &operator(),
            )
            .map(drop)
    };
    for signature in [None, Some(other.sign(&component))] {
        assert!(matches!(
            upload(signature.as_deref()),
            Err(SwapError::Rejected(Rejection::Untrusted(_)))
        ));
    }
    assert!(
        versions
            .try_out(&component, Trial::Shadow(all()), &operator())
            .is_err()
    );
    assert_eq!(active(&versions), "default");
    upload(Some(&ours.sign(&component))).unwrap();
    assert_eq!(active(&versions), "marked");
}
