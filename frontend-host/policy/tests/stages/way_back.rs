//! The way back: to which version, after what, and by whom.

use std::path::Path;
use std::time::Duration;

use domain::Protocol;
use frontend_policy::admission::{KeyKind, Signatory};
use frontend_policy::rollout::{Change, Expected};
use frontend_policy::{
    DEFAULT_POLICY, Digest, Engine, Probation, Reason, RequestParts, Share, SwapError, Trial,
    Trust, Undecided, VersionLog, Versions,
};
use http::{HeaderMap, Method};

use super::{
    PROBATION, active, all, decide, guest, led_by_1, operator, started, versions, wait_until,
};

fn of(who: &str) -> Reason {
    Reason {
        who: who.into(),
        why: "to see".into(),
        ..Reason::default()
    }
}

/// The same gateway again, which takes signed policies only from now on, and trusts nobody who signed one.
fn restarted_trusting_nobody(data_dir: &Path) -> Versions {
    let keys = Signatory::generate(KeyKind::Ed25519).unwrap();
    let trust = Trust::parse(&keys.public()).unwrap();
    let log = VersionLog::open(data_dir, DEFAULT_POLICY).unwrap();
    versions(Some(log.retain_trusted(&trust)), DEFAULT_POLICY)
}

#[test]
fn a_version_that_passed_its_probation_is_one_to_go_back_to_whatever_it_failed_later() {
    let engine = Engine::new(Duration::from_millis(200)).unwrap();
    let brief = Probation {
        window: Duration::from_millis(100),
        ..PROBATION
    };
    let versions = Versions::new(engine, DEFAULT_POLICY, brief, None).unwrap();
    versions.activate(&guest("traps"), &operator()).unwrap();
    let health = versions.published().health.clone();
    wait_until("its probation to be over", || !health.is_on_probation());
    decide(&versions, 1, "/stocks/trap");
    wait_until("the failure to be judged", || {
        !health.incidents().is_empty()
    });
    versions.activate(&guest("marked"), &operator()).unwrap();
    versions.roll_back(&operator()).unwrap();
    assert_eq!(active(&versions), "traps");
}

#[test]
fn behind_a_version_that_failed_is_the_last_good_one_before_it_further_back_too() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    versions.activate(&guest("marked"), &operator()).unwrap();
    versions.activate(&guest("traps"), &operator()).unwrap();
    for client in 0..11 {
        decide(&versions, client, "/stocks/trap");
    }
    wait_until("the version that fails to be rolled back", || {
        active(&versions) == "marked"
    });
    assert!(versions.published().previous.is_none());
    let kept = versions.kept();
    let failed: Vec<bool> = kept.iter().map(|kept| kept.failed).collect();
    assert_eq!(failed, [false, true, false], "{kept:?}");

    versions.roll_back(&operator()).unwrap();
    assert_eq!(active(&versions), "default", "not the one that failed");
    drop(versions);
    let after = started(dir.path(), DEFAULT_POLICY);
    after.roll_back(&operator()).unwrap();
    assert_eq!(active(&after), "marked");
}

#[test]
fn while_changes_are_held_a_version_that_fails_goes_and_what_is_saved_stays_until_they_are_released()
 {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    versions.activate(&guest("marked"), &operator()).unwrap();
    versions.activate(&guest("traps"), &operator()).unwrap();
    versions.hold();
    let refused = versions.activate(&guest("marked"), &operator());
    assert!(matches!(refused, Err(SwapError::HandingOver)));
    assert!(versions.is_held() && versions.changes_since_held().is_empty());
    for client in 0..11 {
        decide(&versions, client, "/stocks/trap");
    }
    wait_until("the version that fails to be rolled back", || {
        active(&versions) == "marked"
    });
    assert!(!versions.changes_since_held().is_empty());
    // Whoever starts from what is saved finds what was before.
    let other = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(active(&other), "traps");
    drop(other);
    versions.release();
    let changes = versions.changes().len();
    drop(versions);
    let after = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(active(&after), "marked");
    assert_eq!(after.changes().len(), changes);
    after.activate(&guest("traps"), &operator()).unwrap();
}

#[test]
fn what_changes_no_version_is_in_the_log_and_changes_none() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    versions.activate(&guest("marked"), &operator()).unwrap();
    let share = Share::new(0.25).unwrap();
    versions
        .try_out(&guest("traps"), Trial::Canary(share), &operator())
        .unwrap();
    let kept = versions.kept();
    versions.note("record", &of("ada")).unwrap();
    assert_eq!(
        (active(&versions), versions.kept()),
        ("marked".to_owned(), kept)
    );
    // Another process may read what is saved: nothing is written.
    versions.hold();
    let refused = versions.note("record", &of("bob"));
    assert!(matches!(refused, Err(SwapError::HandingOver)));
    assert!(versions.changes_since_held().is_empty());
    drop(versions);
    let after = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(active(&after), "marked");
    let candidate = after.published().candidate.clone();
    assert_eq!(candidate.unwrap().version.manifest.name, "traps");
    let changes = after.changes();
    let last = changes.last().unwrap();
    assert_eq!((&*last.what, &*last.who), ("record", "ada"));
    assert_eq!(last.from, last.to);
}

/// The policy that is built in is another one in each release.
#[test]
fn what_changes_no_version_has_no_gateway_keep_the_policy_of_its_release() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    let done = ["record", "recorded", "raise"];
    for what in done {
        versions.note(what, &of("ada")).unwrap();
    }
    drop(versions);
    let log = VersionLog::open(dir.path(), DEFAULT_POLICY).unwrap();
    assert!(log.last_active().is_none(), "it starts with its own");
    let changes = started(dir.path(), DEFAULT_POLICY).changes();
    let whats: Vec<_> = changes.into_iter().map(|change| change.what).collect();
    assert_eq!(whats, done);
}

#[test]
fn as_many_of_the_last_changes_are_read_as_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    for number in 0..50 {
        versions
            .note("record", &of(&format!("ada {number}")))
            .unwrap();
    }
    let who = |changes: Vec<Change>| -> Vec<String> {
        changes.into_iter().map(|change| change.who).collect()
    };
    let last = ["ada 48", "ada 49"];
    assert_eq!(who(versions.last_changes(2)), last);
    assert_eq!(versions.last_changes(1000).len(), 50);
    assert_eq!(versions.changes().len(), 20);
    drop(versions);
    let after = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(who(after.last_changes(2)), last);
    assert_eq!(after.last_changes(1000).len(), 50);
}

/// It has no log on the disk, and is asked all the same.
#[test]
fn a_gateway_without_a_data_directory_says_what_was_done_since_its_start() {
    let versions = versions(None, DEFAULT_POLICY);
    versions.note("record", &of("ada")).unwrap();
    versions.activate(&guest("marked"), &of("bob")).unwrap();
    let done = |changes: Vec<Change>| -> Vec<(String, String)> {
        let done = changes.into_iter().map(|change| (change.what, change.who));
        done.collect()
    };
    let all = [("record", "ada"), ("activate", "bob")];
    let all = all.map(|(what, who)| (what.to_owned(), who.to_owned()));
    assert_eq!(done(versions.changes()), all);
    assert_eq!(done(versions.last_changes(100)), all);
    assert_eq!(done(versions.last_changes(1)), all[1..]);
}

/// As the release before saved it, after somebody had gone back to its own.
#[test]
fn who_went_back_to_the_policy_that_is_built_in_has_the_one_of_each_release() {
    let dir = tempfile::tempdir().unwrap();
    let before = started(dir.path(), DEFAULT_POLICY);
    before.activate(&guest("marked"), &operator()).unwrap();
    before.roll_back(&operator()).unwrap();
    drop(before);
    let project = env!("CARGO_MANIFEST_DIR");
    let older = std::fs::read(format!("{project}/../../tests/policies/default-1.1.wasm")).unwrap();
    let own = Digest::of(DEFAULT_POLICY);
    let of_older = Digest::of(&older).to_string();
    let policies = dir.path().join("policies");
    let state = std::fs::read_to_string(policies.join("state.json")).unwrap();
    let state = state.replace(&own.to_string(), &of_older);
    std::fs::write(policies.join("state.json"), state).unwrap();
    std::fs::write(policies.join(format!("{of_older}.wasm")), older).unwrap();

    let after = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(after.published().active.digest, own);
    assert_eq!(after.fell_back(), None);
    let previous = after.published().previous.clone();
    assert_eq!(previous.unwrap().manifest.name, "marked", "the way back");
    drop(after);
    // Nobody signs it, and it needs that as little as at the first start.
    let after = restarted_trusting_nobody(dir.path());
    assert_eq!(after.published().active.digest, own);
    assert_eq!(after.fell_back(), None);
}

/// Gateways of the release before are to start with what is saved, until the protocol is raised.
#[test]
fn a_policy_of_a_later_world_waits_for_the_protocol_and_what_was_there_before_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let project = env!("CARGO_MANIFEST_DIR");
    let older = format!("{project}/../../tests/policies/default-1.1.wasm");
    let older = std::fs::read(older).unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    versions.note_protocol(Protocol::FIRST);
    let refused = versions.activate(&guest("marked"), &operator()).map(drop);
    let why = refused.unwrap_err();
    assert!(matches!(why, SwapError::NotRaised { .. }), "{why}");
    for part in [
        "bazaar:policy/policy@1.2.0",
        "is at version 1",
        "bazaar protocol raise",
    ] {
        assert!(why.to_string().contains(part), "{why}");
    }
    let canary = Trial::Canary(all());
    let refused = versions.try_out(&guest("marked"), canary, &operator());
    assert!(matches!(refused, Err(SwapError::NotRaised { .. })));
    let saved = |component: &[u8]| {
        dir.path()
            .join(format!("policies/{}.wasm", Digest::of(component)))
    };
    assert!(!saved(&guest("marked")).exists());

    versions.try_out(&older, canary, &operator()).unwrap();
    versions.promote(None, &operator()).unwrap();
    // The built-in one was there before.
    versions.roll_back(&operator()).unwrap();
    let kept = Digest::of(&older).to_string();
    versions.activate_kept(&kept, &operator()).unwrap();
    let built_in = Digest::of(DEFAULT_POLICY).to_string();
    versions.activate_kept(&built_in, &operator()).unwrap();

    versions.note_protocol(Protocol::WORLD_1_2);
    versions.activate(&guest("marked"), &operator()).unwrap();
    assert_eq!(active(&versions), "marked");
}

#[test]
fn a_policy_of_a_later_world_is_not_saved_before_the_catalog_was_heard() {
    let dir = tempfile::tempdir().unwrap();
    let saved = started(dir.path(), DEFAULT_POLICY);
    saved.note_protocol_unheard();
    let refused = saved.activate(&guest("marked"), &operator()).map(drop);
    let why = refused.unwrap_err();
    assert!(matches!(why, SwapError::ProtocolUnheard { .. }), "{why}");
    let file = format!("policies/{}.wasm", Digest::of(&guest("marked")));
    assert!(!dir.path().join(file).exists());
    saved.note_protocol(Protocol::WORLD_1_2);
    // It was heard once, and no bazaar goes back.
    saved.note_protocol_unheard();
    saved.activate(&guest("marked"), &operator()).unwrap();
    // Of what is not saved no other release hears.
    let unsaved = versions(None, DEFAULT_POLICY);
    unsaved.note_protocol_unheard();
    unsaved.activate(&guest("marked"), &operator()).unwrap();
}

#[test]
fn a_state_of_a_later_release_is_refused_and_one_without_a_format_is_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    versions.activate(&guest("marked"), &operator()).unwrap();
    drop(versions);
    let file = dir.path().join("policies/state.json");
    let written = std::fs::read_to_string(&file).unwrap();
    let format = r#"{"format":1,"#;
    assert!(written.starts_with(format), "{written}");
    std::fs::write(&file, written.replace(format, "{")).unwrap();
    assert_eq!(active(&started(dir.path(), DEFAULT_POLICY)), "marked");
    // Whatever else it has by then.
    std::fs::write(&file, r#"{"format":2,"versions":[]}"#).unwrap();
    let refused = VersionLog::open(dir.path(), DEFAULT_POLICY).unwrap_err();
    let why = refused.to_string();
    assert!(
        why.contains("has format 2, and this release reads 1 at most"),
        "{why}"
    );
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        r#"{"format":2,"versions":[]}"#
    );
}

#[test]
fn the_change_says_which_failure_caused_it_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    versions.activate(&guest("traps"), &operator()).unwrap();
    for client in 0..11 {
        decide(&versions, client, "/stocks/trap");
    }
    wait_until("the rollback", || active(&versions) == "default");
    drop(versions);
    let changes = started(dir.path(), DEFAULT_POLICY).changes();
    let rollback = changes.last().unwrap();
    assert_eq!(
        (rollback.what.as_str(), rollback.who.as_str()),
        ("rollback", "probation")
    );
    let incident = rollback.incident.as_ref().unwrap();
    assert_eq!(incident.request, "GET /stocks/trap");
    assert!(incident.output.contains("sprung"), "{incident:?}");
}

#[test]
fn a_candidate_survives_a_restart_with_its_share_and_who_put_it_there() {
    let dir = tempfile::tempdir().unwrap();
    let share = Share::new(0.25).unwrap();
    let before = started(dir.path(), DEFAULT_POLICY);
    before
        .try_out(&guest("marked"), Trial::Canary(share), &of("alice"))
        .unwrap();
    let whose = |versions: &Versions| {
        let published = versions.published();
        let candidate = published.candidate.as_ref()?;
        Some((
            candidate.version.manifest.name.clone(),
            candidate.trial,
            candidate.who.clone(),
        ))
    };
    let put = whose(&before);
    let by_canary = |versions: &Versions| {
        let mut clients = 0..200;
        clients.any(|client| decide(versions, client, "/stocks/nvidia") == "marked")
    };
    assert!(put.is_some() && by_canary(&before));
    drop(before);
    let after = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(whose(&after), put);
    assert!(by_canary(&after), "it has its share of the clients again");
    after.drop_candidate(None, &of("alice")).unwrap();
    drop(after);
    assert_eq!(whose(&started(dir.path(), DEFAULT_POLICY)), None);
}

#[test]
fn nobody_puts_another_candidate_in_the_place_of_somebody_elses_unasked() {
    let versions = versions(None, DEFAULT_POLICY);
    let (marked, chatty) = (guest("marked"), guest("chatty"));
    let trial = Trial::Shadow(all());
    let of_alice = versions.try_out(&marked, trial, &of("alice")).unwrap();
    let refused = versions.try_out(&chatty, trial, &of("bob")).map(drop);
    let refused = refused.unwrap_err();
    assert!(
        matches!(&refused, SwapError::Occupied { who, .. } if who == "alice"),
        "{refused}"
    );
    let digest = of_alice.digest.to_string();
    assert!(refused.to_string().contains(&digest[..12]), "{refused}");
    for other in ["", "0000"] {
        assert!(
            versions
                .try_out_instead(&chatty, trial, other, &of("bob"))
                .is_err()
        );
        let dropped = versions.drop_candidate(Some(other), &of("bob"));
        assert!(matches!(dropped, Err(SwapError::OtherCandidate { .. })));
        assert!(versions.promote(Some(other), &of("bob")).is_err());
    }
    let dropped = versions.drop_candidate(None, &of("bob")).unwrap_err();
    assert!(
        matches!(&dropped, SwapError::OfAnother { who, .. } if who == "alice"),
        "{dropped}"
    );
    assert!(dropped.to_string().contains(&digest[..12]), "{dropped}");
    versions
        .try_out_instead(&chatty, trial, &digest[..8], &of("bob"))
        .unwrap();
    versions.try_out(&marked, trial, &of("bob")).unwrap();
    let candidate = versions.published().candidate.clone().unwrap();
    assert_eq!(
        (candidate.version.digest, candidate.who.as_str()),
        (of_alice.digest, "bob")
    );
    versions.promote(Some(&digest), &of("alice")).unwrap();
    assert_eq!(active(&versions), "marked");
}

fn expected<'a>(active: &'a str, digest: &'a str) -> Expected<'a> {
    Expected {
        active: Some(active),
        digest: Some(digest),
    }
}

/// Between a look and a change somebody else may have changed what decides.
#[test]
fn a_change_is_made_only_where_the_versions_are_the_ones_that_are_expected() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    let now = || versions.published().active.digest.to_string();
    let default = now();
    versions.activate(&guest("marked"), &of("alice")).unwrap();
    let marked = now();
    versions.activate(&guest("traps"), &of("bob")).unwrap();
    let traps = now();
    let shadow = Trial::Shadow(all());
    let tried = versions.try_out(&guest("chatty"), shadow, &of("bob"));
    let chatty = tried.unwrap().digest.to_string();
    let stale = [
        versions.roll_back_expecting(expected(&marked, &default), &of("alice")),
        versions.promote_expecting(expected(&marked, &chatty), &of("alice")),
        versions.activate_kept_expecting(expected(&marked, &default), &of("alice")),
    ];
    for refused in stale {
        let refused = refused.map(drop).unwrap_err();
        assert!(matches!(refused, SwapError::NotActive { .. }), "{refused}");
        let now = refused.to_string();
        assert!(now.contains(&traps) && now.contains("traps "), "{now}");
    }
    // What is active is as expected, and what is behind it is not.
    let other = versions.roll_back_expecting(expected(&traps, &default), &of("alice"));
    let other = other.map(drop).unwrap_err();
    assert!(matches!(&other, SwapError::OtherTarget { digest, .. } if *digest == marked));
    for none in ["", "0000"] {
        let expected = expected(none, &marked);
        assert!(
            versions
                .roll_back_expecting(expected, &of("alice"))
                .is_err()
        );
    }
    assert_eq!(now(), traps);

    let short = |digest: &str| digest[..8].to_owned();
    let (seen, back) = (short(&traps), short(&marked));
    versions
        .roll_back_expecting(expected(&seen, &back), &of("alice"))
        .unwrap();
    assert_eq!(now(), marked);
    versions
        .activate_kept_expecting(expected(&marked, &default), &of("alice"))
        .unwrap();
    versions
        .promote_expecting(expected(&default, &chatty), &of("alice"))
        .unwrap();
    assert_eq!(now(), chatty);
}

#[test]
fn a_candidate_that_is_put_again_is_not_checked_again_and_goes_on() {
    let versions = versions(None, DEFAULT_POLICY);
    let marked = guest("marked");
    let shadow = Trial::Shadow(all());
    let first = versions.try_out(&marked, shadow, &operator()).unwrap();
    let generation = versions.published().generation;
    let again = versions.try_out(&marked, shadow, &operator()).unwrap();
    assert_eq!(
        (again.id, versions.published().generation),
        (first.id, generation)
    );
    let canary = Trial::Canary(all());
    let other = versions.try_out(&marked, canary, &operator()).unwrap();
    assert_eq!(other.id, first.id);
    assert_eq!(
        versions.published().candidate.clone().unwrap().trial,
        canary
    );
}

/// Beside itself nothing is seen of it, and its shadow would cost what any other costs.
#[test]
fn a_candidate_that_comes_to_decide_for_all_is_on_trial_no_more() {
    let versions = versions(None, DEFAULT_POLICY);
    let (marked, chatty) = (guest("marked"), guest("chatty"));
    let on_trial = || {
        let published = versions.published();
        let candidate = published.candidate.as_ref();
        candidate.map(|candidate| candidate.version.manifest.name.clone())
    };
    for trial in [Trial::Shadow(all()), Trial::Canary(all())] {
        versions.try_out(&marked, trial, &operator()).unwrap();
        versions.activate(&chatty, &operator()).unwrap();
        assert_eq!(on_trial().as_deref(), Some("marked"), "it is another's");
        versions.activate(&marked, &operator()).unwrap();
        assert_eq!((active(&versions).as_str(), on_trial()), ("marked", None));
        versions.activate(DEFAULT_POLICY, &operator()).unwrap();
    }
    versions.activate(&marked, &operator()).unwrap();
    let shadow = Trial::Shadow(all());
    let default = DEFAULT_POLICY;
    versions.try_out(default, shadow, &operator()).unwrap();
    versions.roll_back(&operator()).unwrap();
    assert_eq!((active(&versions).as_str(), on_trial()), ("default", None));
}

/// A gateway that takes signed policies only forgets a candidate that is not.
#[test]
fn a_candidate_that_nobody_trusts_is_forgotten_at_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let before = started(dir.path(), DEFAULT_POLICY);
    before
        .try_out(&guest("marked"), Trial::Shadow(all()), &operator())
        .unwrap();
    drop(before);
    let after = restarted_trusting_nobody(dir.path());
    assert!(after.published().candidate.is_none());
    let lost = after.fell_back().expect("it says what it forgot");
    assert!(lost.contains("signed by nobody who is trusted"), "{lost}");
}

#[test]
fn what_a_gateway_did_not_find_again_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let before = started(dir.path(), DEFAULT_POLICY);
    let active = before.activate(&guest("chatty"), &operator()).unwrap();
    let marked = guest("marked");
    let tried = before.try_out(&marked, Trial::Shadow(all()), &operator());
    let (active, tried) = (active.digest, tried.unwrap().digest);
    drop(before);
    assert_eq!(started(dir.path(), DEFAULT_POLICY).fell_back(), None);
    for digest in [active, tried] {
        let component = dir.path().join(format!("policies/{digest}.wasm"));
        std::fs::remove_file(component).unwrap();
    }
    let after = started(dir.path(), DEFAULT_POLICY);
    let lost = after.fell_back().expect("it found neither");
    for digest in [active, tried] {
        let said = format!("saved policy {digest} is not there, or damaged");
        assert!(lost.contains(&said), "{lost}");
    }
}

#[test]
fn what_a_crash_left_half_written_is_removed_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(started(dir.path(), DEFAULT_POLICY));
    let policies = dir.path().join("policies");
    let [half, whole] = ["ab12.wasm.new", "changes.jsonl"].map(|name| policies.join(name));
    std::fs::write(&half, b"half").unwrap();
    std::fs::write(&whole, b"").unwrap();
    drop(started(dir.path(), DEFAULT_POLICY));
    assert!(!half.exists() && whole.exists());
}

/// The way back from a policy that asks for a key is not one that lets everybody in.
#[test]
fn a_version_that_keeps_clients_out_and_cannot_be_started_is_stood_in_for_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let guarded = guest("guarded");
    let before = started(dir.path(), DEFAULT_POLICY);
    let digest = before.activate(&guarded, &operator()).unwrap().digest;
    drop(before);
    let file = dir.path().join(format!("policies/{digest}.wasm"));
    std::fs::write(&file, b"damaged").unwrap();
    let headers = HeaderMap::new();
    let decided = |versions: &Versions| {
        let request = RequestParts {
            method: &Method::GET,
            target: "/stocks/nvidia",
            headers: &headers,
            body: None,
            connection: None,
            now_ms: 0,
            id: None,
        };
        versions.decider(b"client").on_request(request).map(drop)
    };
    for _ in 0..2 {
        let after = started(dir.path(), DEFAULT_POLICY);
        assert_eq!(decided(&after), Err(Undecided::Closed));
        let shadow = Trial::Shadow(all());
        after
            .try_out(&guest("marked"), shadow, &operator())
            .unwrap();
        assert_eq!(
            decided(&after),
            Err(Undecided::Closed),
            "a trial opens nothing"
        );
        // What stands in is not what the operator means.
        let refused = after.configure(b"", &operator()).map(drop);
        assert!(matches!(refused, Err(SwapError::Closed)), "{refused:?}");
        assert_eq!(decided(&after), Err(Undecided::Closed));
        assert_eq!(
            after.elect(0, &led_by_1()).unwrap(),
            None,
            "elections are nobody's requests"
        );
        let change = after.changes();
        let fallback = change
            .iter()
            .rfind(|change| change.what == "fallback")
            .unwrap();
        assert!(
            fallback.why.contains(&digest.to_string()),
            "{}",
            fallback.why
        );
    }
    let after = started(dir.path(), DEFAULT_POLICY);
    after.activate(&guarded, &operator()).unwrap();
    assert_eq!(decided(&after), Ok(()));
    drop(after);
    let healed = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(active(&healed), "guarded");
    assert_eq!(decided(&healed), Ok(()));
}
