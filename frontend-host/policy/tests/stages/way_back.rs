//! The way back: to which version, after what, and by whom.

use std::time::Duration;

use frontend_policy::{
    DEFAULT_POLICY, Engine, Probation, Reason, Share, SwapError, Trial, VersionLog, Versions,
};

use super::{PROBATION, active, all, decide, guest, operator, started, versions, wait_until};

fn of(who: &str) -> Reason {
    Reason {
        who: who.into(),
        why: "to see".into(),
    }
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
    let good: Vec<bool> = kept.iter().map(|kept| kept.good).collect();
    assert_eq!(good, [true, false, true], "{kept:?}");

    versions.roll_back(&operator()).unwrap();
    assert_eq!(active(&versions), "default", "not the one that failed");
    drop(versions);
    let after = started(dir.path(), DEFAULT_POLICY);
    after.roll_back(&operator()).unwrap();
    assert_eq!(active(&after), "marked");
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
    after.drop_candidate(None, &operator()).unwrap();
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

/// A gateway that takes signed policies only forgets a candidate that is not.
#[test]
fn a_candidate_that_nobody_trusts_is_forgotten_at_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let before = started(dir.path(), DEFAULT_POLICY);
    before
        .try_out(&guest("marked"), Trial::Shadow(all()), &operator())
        .unwrap();
    drop(before);
    let keys = frontend_policy::admission::Signatory::generate().unwrap();
    let trust = frontend_policy::Trust::parse(&keys.public()).unwrap();
    let log = VersionLog::open(dir.path(), DEFAULT_POLICY).unwrap();
    let after = versions(Some(log.retain_trusted(&trust)), DEFAULT_POLICY);
    assert!(after.published().candidate.is_none());
}
