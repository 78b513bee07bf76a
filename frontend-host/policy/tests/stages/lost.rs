//! What a gateway that does not know any more what was active lets through: nothing.

use std::fs;
use std::path::Path;

use frontend_policy::{DEFAULT_POLICY, RequestParts, Undecided, VersionLog, Versions};
use http::{HeaderMap, Method};

use super::{active, guest, operator, started, versions};

/// Whether a request is decided.
fn decided(versions: &Versions) -> Result<(), Undecided> {
    let headers = HeaderMap::new();
    let request = RequestParts {
        method: &Method::GET,
        target: "/stocks/nvidia",
        headers: &headers,
        connection: None,
        body: None,
        now_ms: 0,
        id: None,
    };
    versions.decider(b"client").on_request(request).map(drop)
}

#[test]
fn a_gateway_whose_state_is_lost_or_damaged_is_closed_and_says_what_was_active() {
    let lose = |state: &Path| fs::remove_file(state).unwrap();
    let empty = |state: &Path| fs::write(state, b"").unwrap();
    let cut_off = |state: &Path| fs::write(state, br#"{"format":1,"started_with":"bu"#).unwrap();
    let ways = [
        ("lost", lose as fn(&Path)),
        ("empty", empty),
        ("cut off", cut_off),
    ];
    for (name, damage) in ways {
        let dir = tempfile::tempdir().unwrap();
        let before = started(dir.path(), DEFAULT_POLICY);
        before.activate(&guest("marked"), &operator()).unwrap();
        let guarded = before.activate(&guest("guarded"), &operator()).unwrap();
        let digest = guarded.digest.to_string();
        drop(before);
        let state = dir.path().join("policies/state.json");
        damage(&state);
        // Also after another restart.
        for _ in 0..2 {
            let after = started(dir.path(), DEFAULT_POLICY);
            assert_eq!(decided(&after), Err(Undecided::Closed), "{name}");
            let why = after.published().closed.clone().unwrap();
            for told in [
                state.display().to_string(),
                format!("`bazaar policy activate {digest}`"),
            ] {
                assert!(why.contains(&told), "{name}: {why}");
            }
            assert!(after.fell_back().unwrap().contains(&*why), "{name}");
        }
        let after = started(dir.path(), DEFAULT_POLICY);
        after.activate_kept(&digest, &operator()).unwrap();
        assert_eq!(decided(&after), Ok(()), "{name}");
        drop(after);
        let again = started(dir.path(), DEFAULT_POLICY);
        assert_eq!(
            (active(&again).as_str(), again.fell_back()),
            ("guarded", None)
        );
    }
}

/// Of one that never changed its policy nothing is lost, nor of one that is told to begin with another.
#[test]
fn a_gateway_that_has_nothing_to_forget_is_open() {
    let dir = tempfile::tempdir().unwrap();
    drop(started(dir.path(), DEFAULT_POLICY));
    let state = dir.path().join("policies/state.json");
    assert!(state.exists(), "what is missing later was lost");
    // As releases of before have it.
    fs::remove_file(&state).unwrap();
    assert_eq!(decided(&started(dir.path(), DEFAULT_POLICY)), Ok(()));
    let marked = guest("marked");
    let other = started(dir.path(), &marked);
    assert_eq!(
        (active(&other).as_str(), decided(&other)),
        ("marked", Ok(()))
    );
}

/// It holds its changes until the gateway before it is gone, which may have been of a release that saves no such state.
#[test]
fn a_gateway_that_took_another_one_s_place_has_a_state_of_its_own_once_it_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("policies/state.json");
    let log = VersionLog::open(dir.path(), DEFAULT_POLICY).unwrap().held();
    let successor = versions(Some(log), DEFAULT_POLICY);
    assert!(!state.exists(), "the disk is the other one's");
    successor.release();
    assert!(state.exists());
    successor.note("raise", &operator()).unwrap();
    drop(successor);
    let after = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(decided(&after), Ok(()), "nothing was lost");
}
