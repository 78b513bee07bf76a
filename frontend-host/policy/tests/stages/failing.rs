//! What is held against a version that fails, and what it is not asked about any more.

use std::sync::Arc;
use std::time::{Duration, Instant};

use frontend_policy::rollout::{HealthWindow, Incident};
use frontend_policy::{DEFAULT_POLICY, Engine, RequestParts, Trial, Undecided, Versions};
use http::{HeaderMap, HeaderValue, Method};

use super::{PROBATION, active, all, decide, guest, led_by_1, operator, versions, wait_until};

/// More failures than any version may have.
const MANY: u32 = 100;

/// The same component under another digest.
fn again(component: &[u8]) -> Vec<u8> {
    let custom_section = [0, 2, 1, b'x'];
    [component, &custom_section].concat()
}

/// A gateway in which one took the default policy's place.
fn swapped(component: &[u8]) -> Versions {
    let versions = versions(None, DEFAULT_POLICY);
    versions.activate(component, &operator()).unwrap();
    versions
}

fn health(versions: &Versions) -> Arc<HealthWindow> {
    Arc::clone(&versions.published().health)
}

/// Until all that was reported so far is judged: failures that the version behind does not share.
fn wait_for_held(versions: &Versions, failures: u64) {
    let health = health(versions);
    wait_until("what failed to be judged", || health.held() == failures);
}

/// Whether a decision about that request is made.
fn try_to_decide(versions: &Versions, client: u32, target: &str) -> Result<String, Undecided> {
    let headers = HeaderMap::new();
    let request = RequestParts {
        method: &Method::GET,
        target,
        headers: &headers,
        body: None,
        connection: None,
        now_ms: 0,
        id: None,
    };
    let mut decider = versions.decider(&client.to_be_bytes());
    decider.on_request(request)?;
    Ok(decider.version().manifest.name.clone())
}

#[test]
fn the_same_input_of_a_client_counts_once_however_often_it_is_sent() {
    let versions = swapped(&guest("traps"));
    for _ in 0..MANY {
        assert_eq!(decide(&versions, 1, "/stocks/trap"), "default");
    }
    wait_for_held(&versions, 1);
    assert_eq!(active(&versions), "traps");
    assert_eq!(health(&versions).held(), 1);
}

#[test]
fn one_client_of_many_takes_no_version_out_of_service_whatever_it_sends() {
    let versions = swapped(&guest("traps"));
    for client in 1..20 {
        for _ in 0..200 {
            decide(&versions, client, "/stocks/nvidia");
        }
    }
    for number in 0..MANY {
        decide(&versions, 0, &format!("/stocks/trap{number}"));
        wait_for_held(&versions, u64::from(number) + 1);
    }
    assert_eq!(active(&versions), "traps");
    // Those of whom it fails a fifth do.
    for client in 1..10 {
        decide(&versions, client, "/stocks/trap");
    }
    wait_until("it to be taken out", || active(&versions) == "default");
}

/// As on a quiet gateway, or by a canary of few clients.
#[test]
fn one_client_of_few_takes_no_version_out_of_service_unless_it_is_the_only_one() {
    let versions = swapped(&guest("traps"));
    decide(&versions, 1, "/stocks/nvidia");
    for number in 0..MANY {
        decide(&versions, 0, &format!("/stocks/trap{number}"));
        wait_for_held(&versions, u64::from(number) + 1);
    }
    assert_eq!(active(&versions), "traps");
    // Then that is everybody.
    decide(&versions, 1, "/stocks/trap");
    wait_until("it to be taken out", || active(&versions) == "default");
}

/// A body that no version can make sense of is held against none.
#[test]
fn what_the_version_behind_fails_as_well_is_not_held() {
    let traps = guest("traps");
    let versions = versions(None, &traps);
    versions.activate(&again(&traps), &operator()).unwrap();
    let digest = versions.published().active.digest;
    for client in 0..MANY {
        let failed = try_to_decide(&versions, client, "/stocks/trap");
        assert_eq!(failed, Err(Undecided::Failed));
    }
    let health = health(&versions);
    wait_until("what failed to be judged", || {
        !health.incidents().is_empty()
    });
    assert_eq!(health.held(), 0);
    assert_eq!(versions.published().active.digest, digest);
}

#[test]
fn a_version_that_wants_its_failures_refused_is_stood_in_for_by_nobody_and_stays() {
    let versions = swapped(&guest("guarded"));
    for client in 0..MANY {
        let failed = try_to_decide(&versions, client, &format!("/stocks/trap{client}"));
        assert!(failed.is_err(), "{failed:?}");
    }
    let health = health(&versions);
    wait_until("it to be condemned", || health.is_condemned());
    assert_eq!(active(&versions), "guarded");
    assert_eq!(
        versions
            .published()
            .previous
            .as_ref()
            .unwrap()
            .manifest
            .name,
        "default"
    );
    let elected = versions.elect(0, &led_by_1()).unwrap();
    assert_eq!(elected, None, "an election is nobody's request");
    // An operator may.
    versions.roll_back(&operator()).unwrap();
    assert_eq!(active(&versions), "default");
}

#[test]
fn neither_is_one_on_trial() {
    let versions = versions(None, DEFAULT_POLICY);
    let trial = Trial::Canary(all());
    versions
        .try_out(&guest("guarded"), trial, &operator())
        .unwrap();
    let candidate = || versions.published().candidate.clone();
    for client in 0..MANY {
        let failed = try_to_decide(&versions, client, &format!("/stocks/trap{client}"));
        assert!(failed.is_err(), "{failed:?}");
    }
    let health = candidate().unwrap().health;
    wait_until("it to be condemned", || health.is_condemned());
    assert!(candidate().is_some());
}

/// So long that the loops of others do not count.
fn loops_behind(component: &[u8], target: &str, failed: Result<&str, Undecided>) {
    let versions = swapped(component);
    let begun = Instant::now();
    let mut asked = 0;
    // Another client each time, who does not know of the others.
    let health = health(&versions);
    while health.broken_off_count() == (0, 0) {
        let _ = try_to_decide(&versions, asked, target);
        asked += 1;
        assert!(begun.elapsed() < Duration::from_secs(30), "{asked}");
    }
    assert_eq!(health.broken_off_count(), (1, 0));
    assert!(asked <= 10, "{asked} loops");
    let failures = versions.published().active.counts.failures();
    let answer = try_to_decide(&versions, 7, target);
    assert_eq!(answer.as_deref().map_err(|undecided| *undecided), failed);
    assert_eq!(
        versions.published().active.counts.failures(),
        failures,
        "not asked"
    );
    let other = try_to_decide(&versions, 7, "/stocks/nvidia").unwrap();
    assert_eq!(
        other,
        versions.published().active.manifest.name,
        "others are"
    );
    assert_ne!(other, "default");
}

#[test]
fn a_loop_behind_one_path_is_not_asked_for_any_more() {
    loops_behind(&guest("loops"), "/stocks/loop", Ok("default"));
}

/// It is tried again after a while, for longer and longer breaks.
#[test]
fn what_is_broken_off_is_tried_again() {
    let versions = swapped(&guest("loops"));
    let health = health(&versions);
    while health.broken_off_count() == (0, 0) {
        decide(&versions, 0, "/stocks/loop");
    }
    let failures = || versions.published().active.counts.failures();
    let before = failures();
    wait_until("it to be tried again", || {
        decide(&versions, 0, "/stocks/loop");
        failures() > before
    });
}

/// Rounds of `computes` that take some 20 ms, as measured on this machine.
fn slow_target() -> String {
    let alone = versions(None, &guest("computes"));
    let mut rounds: u64 = 1 << 16;
    loop {
        let target = format!("/stocks/compute/{rounds}");
        decide(&alone, 0, &target);
        let begun = Instant::now();
        decide(&alone, 0, &target);
        if begun.elapsed() >= Duration::from_millis(20) {
            return target;
        }
        rounds *= 2;
    }
}

#[test]
fn what_takes_much_longer_than_in_the_version_before_is_left_to_that_one() {
    let target = slow_target();
    let versions = swapped(&guest("computes"));
    let health = health(&versions);
    wait_until("the slow path to be broken off", || {
        decide(&versions, 0, &target);
        health.broken_off_count() != (0, 0)
    });
    assert_eq!(decide(&versions, 1, &target), "default");
    assert_eq!(decide(&versions, 0, "/stocks/nvidia"), "computes");
    assert_eq!(health.incidents().last().unwrap().kind, "slow");
    assert_eq!(active(&versions), "computes");
}

/// What is slow in both is the request's own doing: nothing would be won.
#[test]
fn what_is_as_slow_in_the_version_before_is_no_fault() {
    let target = slow_target();
    let computes = guest("computes");
    let versions = versions(None, &computes);
    versions.activate(&again(&computes), &operator()).unwrap();
    for client in 0..30 {
        assert_eq!(decide(&versions, client, &target), "computes");
    }
    let health = health(&versions);
    assert_eq!((health.broken_off_count(), health.held()), ((0, 0), 0));
    assert_eq!(health.incidents(), []);
}

#[test]
fn slowness_everywhere_ends_a_versions_service() {
    let target = slow_target();
    let rounds: u64 = target.rsplit('/').next().unwrap().parse().unwrap();
    let versions = swapped(&guest("computes"));
    // Each with a path of its own: no path and no client can be told from the others.
    let end = Instant::now() + Duration::from_secs(180);
    for client in 0.. {
        let target = format!("/stocks/compute/{}", rounds + u64::from(client));
        decide(&versions, client, &target);
        if active(&versions) == "default" {
            break;
        }
        assert!(Instant::now() < end, "it was not rolled back");
    }
    let change = versions.published();
    assert!(change.previous.is_none(), "it is not one to go back to");
}

#[test]
fn answers_that_are_meant_are_no_failures_and_500_is_where_the_version_before_has_another() {
    let versions = swapped(&guest("echoes"));
    let ask = |status: u16| {
        for client in 0..MANY {
            let target = format!("/status/{status}");
            assert_eq!(try_to_decide(&versions, client, &target).unwrap(), "echoes");
        }
    };
    for status in [501, 502, 503, 504] {
        ask(status);
    }
    let health = health(&versions);
    assert_eq!((health.held(), active(&versions)), (0, "echoes".to_owned()));
    for client in 0..MANY {
        let _ = try_to_decide(&versions, client, "/status/500");
    }
    wait_until("it to be rolled back", || active(&versions) == "default");
}

#[test]
fn late_in_its_life_a_version_is_taken_out_as_well() {
    let engine = Engine::new(Duration::from_millis(200)).unwrap();
    let brief = frontend_policy::Probation {
        window: Duration::from_millis(200),
        ..PROBATION
    };
    let versions = Versions::new(engine, DEFAULT_POLICY, brief, None).unwrap();
    versions.activate(&guest("traps"), &operator()).unwrap();
    let health = health(&versions);
    wait_until("its probation to be over", || !health.is_on_probation());
    let mut client = 0;
    wait_until("it to be rolled back", || {
        decide(&versions, client, "/stocks/trap");
        client += 1;
        active(&versions) == "default"
    });
}

/// What operators are shown of the failure must not show what clients sent in confidence.
#[test]
fn a_failure_is_shown_with_the_panic_and_where_it_was_and_without_secrets() {
    let incident = incident_of("/stocks/trap?token=hunter2");
    assert_eq!(incident.kind, "trap");
    assert_eq!(
        incident.request,
        "POST /stocks/trap?… of 13 bytes, headers: authorization, body of 7 bytes"
    );
    assert!(
        incident.output.contains("sprung on /stocks/trap?"),
        "{incident:?}"
    );
    assert!(incident.backtrace.contains("on-request"), "{incident:?}");
    assert!(!format!("{incident:?}").contains("hunter2"), "{incident:?}");
}

/// The message of the panic has all of the token, and only its beginning is kept.
#[test]
fn a_secret_that_was_cut_off_is_not_shown_by_its_beginning() {
    let token = "hunter2".repeat(1000);
    let incident = incident_of(&format!("/stocks/trap?token={token}"));
    assert!(
        incident.output.contains("sprung on /stocks/trap?"),
        "{incident:?}"
    );
    assert!(!format!("{incident:?}").contains("hunter2"), "{incident:?}");
}

/// The one that a request with this target, and secrets elsewhere, makes.
fn incident_of(target: &str) -> Incident {
    let versions = swapped(&guest("traps"));
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer hunter2"));
    let request = RequestParts {
        method: &Method::POST,
        target,
        headers: &headers,
        body: Some(b"hunter2"),
        connection: None,
        now_ms: 0,
        id: None,
    };
    versions.decider(b"client").on_request(request).unwrap();
    wait_for_held(&versions, 1);
    let incidents = health(&versions).incidents();
    let [incident] = incidents.as_slice() else {
        panic!("one incident: {incidents:?}");
    };
    incident.clone()
}
