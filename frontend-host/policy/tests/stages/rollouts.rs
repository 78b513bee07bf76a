//! Rollouts: from a shadow to all clients, by what is shown in each step.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use frontend_policy::decision::{Action, Outcome, Refusal};
use frontend_policy::rollout::{At, GateAnswer, Plan, Progress, Terms};
use frontend_policy::{
    Arrival, DEFAULT_POLICY, Engine, Probation, Reason, RequestParts, SwapError, Trial, VersionLog,
    Versions,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::{PROBATION, active, decide, guest, operator, started, versions, wait_until};

/// A shadow of all decisions, and then half of the clients.
const PLAN: &str = r#"
    [limits]
    errors = 0.02
    ignore = ["headers.x-policy"]
    [[step]]
    shadow = 1
    samples = 200
    seconds = 0
    limits = { differences = 0 }
    [[step]]
    canary = 0.5
    samples = 100
    seconds = 0
"#;

fn terms(plan: &str) -> Terms {
    Terms::rollout(plan.parse::<Plan>().unwrap())
}

fn roll_out(versions: &Versions, plan: &str) {
    versions
        .try_out(&guest("marked"), terms(plan), &operator())
        .unwrap();
}

fn progress(versions: &Versions) -> Progress {
    versions.rollout().expect("something is rolled out").1
}

/// Goes on until something has changed.
fn go_on_until(versions: &Versions, what: &str, mut condition: impl FnMut() -> bool) {
    wait_until(what, || {
        let question = versions.go_on();
        assert!(question.is_none(), "{question:?}");
        condition()
    });
}

/// As many decisions for shadows as a step takes, and more: some may be dropped. No more at a time than may wait.
fn be_shadowed(versions: &Versions) {
    const AT_A_TIME: u32 = 50;
    let candidate = versions.published().candidate.clone();
    let candidate = candidate.expect("something is on trial");
    let seen = || {
        let found = candidate.differences.snapshot();
        found.compared + found.dropped
    };
    for group in 0..8 {
        let before = seen();
        for client in 0..AT_A_TIME {
            decide(versions, group * AT_A_TIME + client, "/no/such/path");
        }
        wait_until("decisions to be compared", || {
            seen() >= before + u64::from(AT_A_TIME)
        });
    }
}

/// Has so many clients served, sixteen times each; `status` says with what, by the name of the version
/// that decides.
fn serve(versions: &Versions, clients: u32, status: impl Fn(&str) -> StatusCode) {
    let headers = HeaderMap::new();
    let request = RequestParts {
        method: &Method::GET,
        target: "/no/such/path",
        headers: &headers,
        connection: None,
        body: None,
        now_ms: 0,
        id: None,
    };
    for client in 0..clients {
        for _ in 0..16 {
            let mut decider = versions.decider(&client.to_be_bytes());
            decider.on_request(request).unwrap();
            if decider.is_compared() {
                let status = status(&decider.version().manifest.name);
                decider.served(Some(status), Duration::from_micros(100));
            }
        }
    }
}

#[test]
fn a_version_that_keeps_its_limits_becomes_the_active_one_step_by_step() {
    let versions = versions(None, DEFAULT_POLICY);
    roll_out(&versions, PLAN);
    assert_eq!(progress(&versions).doing, "shadow 1");
    assert!(versions.go_on().is_none());
    assert_eq!(progress(&versions).step, 1, "nothing is shown yet");

    be_shadowed(&versions);
    go_on_until(&versions, "the second step", || {
        progress(&versions).step == 2
    });
    assert_eq!(progress(&versions).samples, 0, "of this step");
    assert_eq!(active(&versions), "default");

    serve(&versions, 800, |_| StatusCode::OK);
    go_on_until(&versions, "the promotion", || active(&versions) == "marked");
    assert!(versions.rollout().is_none());
    let last = versions.changes().pop();
    let last = last.expect("without a log the last are remembered");
    assert_eq!(
        (last.what.as_str(), last.who.as_str()),
        ("promote", "rollout")
    );
}

#[test]
fn a_version_that_decides_differently_is_dropped_and_the_log_says_by_what() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    roll_out(
        &versions,
        &PLAN.replace("ignore = [\"headers.x-policy\"]", ""),
    );
    be_shadowed(&versions);
    go_on_until(&versions, "the drop", || versions.rollout().is_none());
    assert_eq!(active(&versions), "default");
    let last = versions.changes().pop().unwrap();
    assert_eq!((last.what.as_str(), last.who.as_str()), ("drop", "rollout"));
    let why = last.why.as_str();
    assert!(
        why.starts_with("step 1, shadow 1: differences beyond: "),
        "{why}"
    );
    assert!(why.ends_with("decisions differ"), "{why}");
}

#[test]
fn a_canary_is_compared_with_as_many_clients_of_the_active_version() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    let plan = "[[step]]\ncanary = 0.1\nseconds = 0";
    // What is refused to all alike says nothing of the version on trial.
    roll_out(&versions, plan);
    serve(&versions, 2_000, |_| StatusCode::FORBIDDEN);
    assert!(versions.go_on().is_none());
    let Progress {
        samples, measures, ..
    } = progress(&versions);
    assert!((150..=250).contains(&samples), "{samples} of 2,000 clients");
    assert_eq!(measures[1].judged, "open", "{measures:?}");
    versions.drop_candidate(None, &operator()).unwrap();

    roll_out(&versions, plan);
    serve(&versions, 2_000, |name| match name {
        "marked" => StatusCode::FORBIDDEN,
        _ => StatusCode::OK,
    });
    go_on_until(&versions, "the drop", || versions.rollout().is_none());
    let why = versions.changes().pop().unwrap().why;
    assert!(
        why.contains("refusals beyond: something was refused to "),
        "{why}"
    );
    assert!(why.contains(", and 0 of "), "{why}");
}

/// Its clients get an answer, which the active version makes.
#[test]
fn a_canary_that_goes_on_for_ever_is_seen_to_fail() {
    let dir = tempfile::tempdir().unwrap();
    let log = VersionLog::open(dir.path(), DEFAULT_POLICY).unwrap();
    let engine = Engine::new(Duration::from_millis(200)).unwrap();
    // What its failures come to by themselves is another matter.
    let lenient = Probation {
        failures_max: u64::MAX,
        ..PROBATION
    };
    let versions = Versions::new(engine, DEFAULT_POLICY, lenient, Some(log)).unwrap();
    let plan = terms("[[step]]\ncanary = 0.1\nseconds = 0");
    versions
        .try_out(&guest("nonsense"), plan, &operator())
        .unwrap();
    let headers = HeaderMap::new();
    let request = RequestParts {
        method: &Method::GET,
        target: "/stocks/nonsense-outcome",
        headers: &headers,
        connection: None,
        body: None,
        now_ms: 0,
        id: None,
    };
    let not_found = Outcome::Refused(Refusal::StockNotFound);
    for client in 0..2_000_u32 {
        let mut decider = versions.decider(&client.to_be_bytes());
        let mut decision = decider.on_request(request).unwrap();
        while !matches!(decision.action, Action::Respond(_)) {
            let memo = decision.memo;
            decision = decider.on_outcome(request, &memo, &not_found).unwrap();
        }
        if decider.is_compared() {
            decider.served(Some(StatusCode::NOT_FOUND), Duration::from_micros(100));
        }
    }
    go_on_until(&versions, "the drop", || versions.rollout().is_none());
    let last = versions.changes().pop().unwrap();
    assert_eq!((last.what.as_str(), last.who.as_str()), ("drop", "rollout"));
    assert!(last.why.contains("errors beyond: "), "{}", last.why);
}

#[test]
fn a_rollout_pauses_and_resumes_and_skips_as_it_is_told_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    for steered in [
        versions.pause_rollout(&At::default(), &operator()),
        versions.resume_rollout(&At::default(), &operator()),
        versions.skip_step(&At::default(), &operator()),
    ] {
        assert!(matches!(steered, Err(SwapError::NoRollout)), "{steered:?}");
    }
    roll_out(&versions, PLAN);
    be_shadowed(&versions);
    versions.pause_rollout(&At::default(), &operator()).unwrap();
    be_shadowed(&versions);
    wait_until("decisions", || progress(&versions).samples > 200);
    assert!(versions.go_on().is_none());
    assert_eq!(progress(&versions).step, 1, "it is paused");
    drop(versions);

    let versions = started(dir.path(), DEFAULT_POLICY);
    let Progress {
        state, step, why, ..
    } = progress(&versions);
    assert_eq!((state.as_str(), step), ("paused", 1));
    assert_eq!(why.as_deref(), Some("by a test: to see"));
    versions.skip_step(&At::default(), &operator()).unwrap();
    assert_eq!(progress(&versions).state, "running");
    drop(versions);

    let versions = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(progress(&versions).doing, "canary 0.5");
    versions.skip_step(&At::default(), &operator()).unwrap();
    assert_eq!(active(&versions), "marked");
    let whats: Vec<_> = versions.changes().into_iter().map(|it| it.what).collect();
    assert_eq!(whats, ["rollout", "pause", "skip", "skip"]);
}

#[test]
fn what_was_seen_beside_another_active_version_does_not_count() {
    let versions = versions(None, DEFAULT_POLICY);
    roll_out(&versions, PLAN);
    be_shadowed(&versions);
    wait_until("decisions", || progress(&versions).samples >= 200);
    versions.activate(&guest("chatty"), &operator()).unwrap();
    assert_eq!(progress(&versions).samples, 0);
    assert!(versions.go_on().is_none());
    assert_eq!(progress(&versions).step, 1);
}

#[test]
fn a_step_begins_when_its_gate_lets_it_and_pauses_where_that_refuses() {
    let versions = versions(None, DEFAULT_POLICY);
    let gate = "http://127.0.0.1:9/gate";
    let plan = format!("{PLAN}\ngate = \"{gate}\"");
    roll_out(&versions, &plan);
    be_shadowed(&versions);
    let mut question = None;
    wait_until("the gate to be asked", || {
        question = versions.go_on();
        question.is_some()
    });
    let question = question.unwrap();
    assert_eq!(question.gate.to_string(), gate);
    for said in ["\"step\":2", "canary 0.5", "\"judged\":\"within\""] {
        assert!(question.body.contains(said), "{}", question.body);
    }
    versions.gate_answered(&question, GateAnswer::NotYet("at nine".into()));
    assert_eq!(progress(&versions).why.as_deref(), Some("at nine"));
    versions.gate_answered(&question, GateAnswer::Closed("no".into()));
    let Progress { state, why, .. } = progress(&versions);
    assert_eq!(state, "paused");
    assert_eq!(why.as_deref(), Some("the gate of step 2 refused: no"));
    // That answer was about what is over.
    versions
        .resume_rollout(&At::default(), &operator())
        .unwrap();
    versions.gate_answered(&question, GateAnswer::Closed("late".into()));
    assert_eq!(progress(&versions).state, "running");
    be_shadowed(&versions);
    wait_until("the gate to be asked again", || {
        if let Some(question) = versions.go_on() {
            versions.gate_answered(&question, GateAnswer::Open);
        }
        progress(&versions).step == 2
    });
}

#[test]
fn a_canary_can_be_for_some_requests_only() {
    let versions = versions(None, DEFAULT_POLICY);
    let plan = "[[step]]\ncanary = 1\nonly = [\"header:x-beta=1\", \"path:/stocks\"]";
    roll_out(&versions, plan);
    let mut beta = HeaderMap::new();
    beta.insert("x-beta", HeaderValue::from_static("1"));
    for (headers, target, by) in [
        (&beta, "/stocks/meta", "marked"),
        (&beta, "/orders/1", "default"),
        (&HeaderMap::new(), "/stocks/meta", "default"),
    ] {
        let arrival = Arrival {
            target,
            headers,
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let decider = versions.decider_of(b"client", arrival);
        assert_eq!(decider.version().manifest.name, by, "{target}");
    }
    let known = versions.decider(b"client").version().manifest.name.clone();
    assert_eq!(known, "default");
}

#[test]
fn nothing_is_rolled_out_where_nothing_is_decided() {
    let dir = tempfile::tempdir().unwrap();
    let before = started(dir.path(), DEFAULT_POLICY);
    let digest = before
        .activate(&guest("guarded"), &operator())
        .unwrap()
        .digest;
    let plan = "[[step]]\ncanary = 1\nsamples = 1\nseconds = 0";
    roll_out(&before, plan);
    drop(before);
    let file = dir.path().join(format!("policies/{digest}.wasm"));
    std::fs::write(&file, b"damaged").unwrap();
    let after = started(dir.path(), DEFAULT_POLICY);
    assert!(after.published().closed.is_some());
    for client in 0..50_u32 {
        let decider = after.decider(&client.to_be_bytes());
        assert!(!decider.is_compared(), "nothing is seen");
    }
    assert!(after.go_on().is_none());
    assert!(after.published().closed.is_some(), "an operator opens it");
    assert_eq!(progress(&after).samples, 0);
}

#[test]
fn a_canary_that_keeps_clients_out_pauses_where_others_are_dropped() {
    let versions = versions(None, DEFAULT_POLICY);
    let plan = "[[step]]\ncanary = 0.5\nseconds = 0";
    versions
        .try_out(&guest("guarded"), terms(plan), &operator())
        .unwrap();
    serve(&versions, 400, |name| match name {
        "guarded" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    });
    for _ in 0..2 {
        assert!(versions.go_on().is_none());
    }
    let Progress { state, why, .. } = progress(&versions);
    assert_eq!(state, "paused");
    assert!(why.unwrap().ends_with("drop it, if that is right"));
}

/// A build of a policy with keys that forgets to ask for them fails at nothing, and refuses nobody.
#[test]
fn a_version_that_lets_in_whom_the_active_one_refuses_pauses_as_a_shadow_and_as_a_canary() {
    let versions = versions(None, &guest("guarded"));
    let begin = |plan: &str| {
        let begun = versions.try_out(DEFAULT_POLICY, terms(plan), &operator());
        begun.map(drop).unwrap();
    };
    let paused = || {
        go_on_until(&versions, "the pause", || {
            progress(&versions).state == "paused"
        });
        progress(&versions).why.unwrap()
    };
    let ask = |key: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            headers.insert("authorization", HeaderValue::from_static(key));
        }
        let request = RequestParts {
            method: &Method::GET,
            target: "/stocks/nvidia?token=s3cret",
            headers: &headers,
            connection: None,
            body: None,
            now_ms: 0,
            id: None,
        };
        versions.decider(b"client").on_request(request).unwrap();
    };
    begin("[[step]]\nshadow = 1\nseconds = 0");
    ask(Some("Bearer sesame"));
    wait_until("who has the key", || progress(&versions).samples == 1);
    assert!(versions.go_on().is_none());
    assert_eq!(progress(&versions).state, "running");
    // The same to a version that does not ask for the header.
    ask(None);
    let why = paused();
    let said = "admissions beyond: 1 of 2 decisions let in what the active version refuses, first GET /stocks/nvidia?token=*";
    assert!(why.contains(said), "{why}");
    // It is not for want of evidence: resumed, it pauses again.
    versions
        .resume_rollout(&At::default(), &operator())
        .unwrap();
    assert!(paused().contains(said));
    versions.drop_candidate(None, &operator()).unwrap();

    begin("[[step]]\ncanary = 0.5\nseconds = 0");
    serve(&versions, 400, |name| match name {
        "guarded" => StatusCode::UNAUTHORIZED,
        _ => StatusCode::OK,
    });
    let why = paused();
    let said = "admissions beyond: something was refused to ";
    assert!(why.contains(said), "{why}");
    assert!(why.ends_with("skip the step if it may"), "{why}");
}

#[test]
fn what_a_client_asks_again_counts_once_and_elections_do_not_count() {
    let versions = versions(None, DEFAULT_POLICY);
    roll_out(&versions, PLAN);
    for _ in 0..50 {
        decide(&versions, 1, "/no/such/path");
    }
    versions.elect(0, &super::led_by_1()).unwrap();
    decide(&versions, 2, "/no/such/path");
    wait_until("both clients", || progress(&versions).samples == 2);
    assert_eq!(progress(&versions).samples, 2);
}

#[test]
fn a_version_that_fails_is_dropped_while_its_rollout_is_paused() {
    let versions = versions(None, DEFAULT_POLICY);
    roll_out(
        &versions,
        &PLAN.replace("ignore = [\"headers.x-policy\"]", ""),
    );
    be_shadowed(&versions);
    versions.pause_rollout(&At::default(), &operator()).unwrap();
    go_on_until(&versions, "the drop", || versions.rollout().is_none());
}

#[test]
fn the_same_rollout_again_changes_nothing_and_is_nobody_elses_to_replace() {
    let versions = versions(None, DEFAULT_POLICY);
    roll_out(&versions, PLAN);
    versions.skip_step(&At::default(), &operator()).unwrap();
    roll_out(&versions, PLAN);
    assert_eq!(progress(&versions).step, 2, "it is under way");
    let other = Reason {
        who: "somebody else".into(),
        why: "to see".into(),
        ..Reason::default()
    };
    let all = Trial::Canary(super::all());
    let taken = versions.try_out(&guest("marked"), all, &other).map(drop);
    assert!(
        matches!(taken, Err(SwapError::Occupied { .. })),
        "{taken:?}"
    );
    // The same person may try the same version in another way.
    versions
        .try_out(&guest("marked"), all, &operator())
        .unwrap();
    assert!(versions.rollout().is_none());
}

#[test]
fn a_rollout_is_steered_where_it_was_seen() {
    let versions = versions(None, DEFAULT_POLICY);
    roll_out(&versions, PLAN);
    let digest = versions.rollout().unwrap().0.digest.to_string();
    let at = |digest: &str, step| At {
        digest: Some(digest.to_owned()),
        step: Some(step),
    };
    for elsewhere in [at(&digest, 2), at("0123456789", 1), at("", 1)] {
        let skipped = versions.skip_step(&elsewhere, &operator());
        assert!(
            matches!(skipped, Err(SwapError::OtherStep { step: 1, .. })),
            "{skipped:?}"
        );
    }
    versions
        .skip_step(&at(&digest[..12], 1), &operator())
        .unwrap();
    // A skip that is sent again skips no further.
    assert!(versions.skip_step(&at(&digest, 1), &operator()).is_err());
    assert_eq!(progress(&versions).step, 2);
}

#[test]
fn what_another_version_decided_counts_as_failed() {
    let versions = versions(None, DEFAULT_POLICY);
    let plan = "[[step]]\ncanary = 0.5\nseconds = 0";
    versions
        .try_out(&guest("traps"), terms(plan), &operator())
        .unwrap();
    let headers = HeaderMap::new();
    for client in 0..200_u32 {
        // What the self-test has seen it would refuse the version for.
        let target = format!("/stocks/trap{client}");
        let request = RequestParts {
            method: &Method::GET,
            target: &target,
            headers: &headers,
            connection: None,
            body: None,
            now_ms: 0,
            id: None,
        };
        for _ in 0..16 {
            let mut decider = versions.decider(&client.to_be_bytes());
            if decider.is_compared() {
                decider.on_request(request).unwrap();
                decider.served(Some(StatusCode::OK), Duration::from_micros(100));
            }
        }
    }
    // Either this, or the breaker, is the first to drop it.
    go_on_until(&versions, "the drop", || versions.rollout().is_none());
    assert_eq!(active(&versions), "default");
}
