//! What is behind a version, and who is there when that one takes its place.

use std::path::Path;
use std::time::Duration;

use frontend_policy::admission::{KeyKind, Signatory};
use frontend_policy::{
    DEFAULT_POLICY, Digest, Engine, Probation, SwapError, Trust, Upload, VersionLog, Versions,
};

use super::configurations::{configured, said};
use super::{PROBATION, active, decide, guest, operator, started, versions, wait_until};

/// A gateway at which versions pass their probation in a moment.
fn lenient(data_dir: &Path) -> Versions {
    let log = VersionLog::open(data_dir, DEFAULT_POLICY).unwrap();
    let engine = Engine::new(Duration::from_millis(200)).unwrap();
    let brief = Probation {
        window: Duration::from_millis(1),
        ..PROBATION
    };
    Versions::new(engine, DEFAULT_POLICY, brief, Some(log)).unwrap()
}

/// The same gateway again, with a long probation, after one in which the built-in version and then that one passed theirs.
fn after_passed(data_dir: &Path, name: &str) -> Versions {
    let before = lenient(data_dir);
    let pass = || {
        let health = before.published().health.clone();
        wait_until("its probation to be over", || !health.is_on_probation());
        before.tend();
    };
    pass();
    push(&before, name);
    pass();
    drop(before);
    started(data_dir, DEFAULT_POLICY)
}

fn push(versions: &Versions, name: &str) {
    versions.activate(&guest(name), &operator()).unwrap();
}

/// The active version and the one behind it.
fn names(versions: &Versions) -> (String, Option<String>) {
    let published = versions.published();
    let behind = published.previous.as_ref();
    let behind = behind.map(|version| version.manifest.name.clone());
    (published.active.manifest.name.clone(), behind)
}

fn pair(active: &str, behind: Option<&str>) -> (String, Option<String>) {
    (active.to_owned(), behind.map(str::to_owned))
}

/// Has clients ask for what the active version fails at, until the one behind has its place.
fn fails(versions: &Versions, target: &str, behind: &str) {
    for client in 0..11 {
        assert_eq!(decide(versions, client, target), behind);
    }
    wait_until("the version behind to be active", || {
        active(versions) == behind
    });
}

const NONSENSE: &str = "/stocks/nonsense/status-low";

#[test]
fn two_bad_versions_at_once_lead_back_to_the_one_that_passed_its_probation() {
    let dir = tempfile::tempdir().unwrap();
    let versions = after_passed(dir.path(), "marked");
    push(&versions, "traps");
    push(&versions, "nonsense");
    assert_eq!(names(&versions), pair("nonsense", Some("marked")));
    fails(&versions, NONSENSE, "marked");
    // Nobody waited for another one to be loaded.
    assert_eq!(names(&versions), pair("marked", None));
    versions.tend();
    assert_eq!(names(&versions), pair("marked", Some("default")));
    let generation = versions.published().generation;
    versions.tend();
    assert_eq!(versions.published().generation, generation, "that is all");
}

#[test]
fn a_version_that_came_back_and_fails_has_one_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let versions = after_passed(dir.path(), "traps");
    push(&versions, "nonsense");
    fails(&versions, NONSENSE, "traps");
    versions.tend();
    assert_eq!(names(&versions), pair("traps", Some("default")));
    fails(&versions, "/stocks/trap", "default");
    versions.tend();
    assert_eq!(names(&versions), pair("default", None), "others failed");
}

#[test]
fn a_restart_between_failures_has_the_same_way_back() {
    let dir = tempfile::tempdir().unwrap();
    let versions = after_passed(dir.path(), "traps");
    push(&versions, "chatty");
    push(&versions, "nonsense");
    fails(&versions, NONSENSE, "traps");
    assert!(versions.kept().iter().any(|kept| kept.failed), "written");
    drop(versions);
    let versions = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(names(&versions), pair("traps", Some("default")));
    // It passed its probation before that.
    push(&versions, "nonsense");
    assert_eq!(names(&versions), pair("nonsense", Some("traps")));
    drop(versions);
    let versions = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(names(&versions), pair("nonsense", Some("traps")));
    fails(&versions, NONSENSE, "traps");
}

/// However short it was there.
#[test]
fn nobody_passes_over_a_version_that_keeps_clients_out() {
    let dir = tempfile::tempdir().unwrap();
    let versions = after_passed(dir.path(), "marked");
    push(&versions, "guarded");
    assert_eq!(names(&versions), pair("guarded", Some("marked")));
    push(&versions, "mistyped-import");
    versions.tend();
    assert_eq!(names(&versions), pair("mistyped-import", Some("guarded")));
    push(&versions, "nonsense");
    fails(&versions, NONSENSE, "mistyped-import");
    versions.tend();
    assert_eq!(names(&versions), pair("mistyped-import", Some("guarded")));
    fails(&versions, "/stocks/mistyped", "guarded");
    versions.tend();
    assert_eq!(decide(&versions, 1, "/stocks/nvidia"), "guarded");
}

#[test]
fn an_operator_goes_back_to_what_passed_its_probation_further_back_too() {
    let dir = tempfile::tempdir().unwrap();
    let versions = after_passed(dir.path(), "marked");
    push(&versions, "chatty");
    push(&versions, "marked");
    assert_eq!(names(&versions), pair("marked", Some("chatty")));
    let kept = versions.kept();
    let proven: Vec<bool> = kept.iter().map(|kept| kept.proven).collect();
    assert_eq!(proven, [true, false, false], "{kept:?}");
    versions.roll_back(&operator()).unwrap();
    assert_eq!(active(&versions), "default");
}

/// Nobody signs it.
#[test]
fn the_built_in_policy_is_behind_a_signed_one_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Signatory::generate(KeyKind::Ed25519).unwrap();
    let trust = || Trust::parse(&keys.public()).unwrap();
    let reopened = || {
        let log = VersionLog::open(dir.path(), DEFAULT_POLICY).unwrap();
        let log = log.retain_trusted(&trust());
        versions(Some(log), DEFAULT_POLICY).trusting(Some(trust()))
    };
    let marked = guest("marked");
    let signature = keys.sign(&marked);
    let signed = Upload {
        component: &marked,
        signature: Some(&signature),
        config: &[],
    };
    reopened().activate(signed, &operator()).unwrap();
    let after = reopened();
    assert_eq!(names(&after), pair("marked", Some("default")));
    after.roll_back(&operator()).unwrap();
    drop(after);

    let after = reopened();
    assert_eq!(names(&after), pair("default", Some("marked")));
    assert_eq!(after.fell_back(), None);
    after.roll_back(&operator()).unwrap();
    let built_in = Digest::of(DEFAULT_POLICY).to_string();
    after.activate_kept(&built_in, &operator()).unwrap();
    assert_eq!(active(&after), "default");
    let refused = after.activate(&guest("chatty"), &operator()).map(drop);
    assert!(refused.is_err(), "others are to be signed");
}

/// As many as the guide says.
#[test]
fn the_last_32_versions_that_were_active_can_be_activated_again_and_none_before() {
    let dir = tempfile::tempdir().unwrap();
    let versions = started(dir.path(), DEFAULT_POLICY);
    let component = guest("configured");
    let first = configured(&component, "say 0");
    let first = versions.activate(first, &operator()).unwrap();
    let mut digests = vec![first.digest.to_string()];
    for number in 1..40 {
        let config = format!("say {number}");
        let version = versions.configure(config.as_bytes(), &operator()).unwrap();
        digests.push(version.digest.to_string());
    }
    drop((first, versions));
    let after = started(dir.path(), DEFAULT_POLICY);
    let kept: Vec<_> = after.kept().into_iter().map(|kept| kept.digest).collect();
    assert_eq!(kept, digests[8..]);
    let gone = after.activate_kept(&digests[7], &operator()).map(drop);
    assert!(matches!(gone, Err(SwapError::NotKept(_))), "{gone:?}");
    after.activate_kept(&digests[8], &operator()).unwrap();
    assert_eq!(said(&after), "8");
}
