//! Configurations of policies, and the secrets that they name.

use std::time::Duration;

use frontend_policy::decision::Action;
use frontend_policy::{
    Admission, DEFAULT_POLICY, Engine, RequestParts, Secrets, SwapError, Trial, Upload, VersionLog,
    Versions,
};
use http::{HeaderMap, Method};

use super::{PROBATION, all, guest, operator, started, wait_until};

/// The component and its configuration make a version.
pub(super) fn configured<'a>(component: &'a [u8], config: &'a str) -> Upload<'a> {
    Upload {
        component,
        signature: None,
        config: config.as_bytes(),
    }
}

/// What the guest `configured` says.
pub(super) fn said(versions: &Versions) -> String {
    let headers = HeaderMap::new();
    let request = RequestParts {
        method: &Method::GET,
        target: "/config",
        headers: &headers,
        body: None,
        connection: None,
        now_ms: 0,
        id: None,
    };
    let decision = versions.decider(b"client").on_request(request).unwrap();
    let Action::Respond(reply) = decision.action else {
        panic!("{decision:?}");
    };
    String::from_utf8(reply.body.to_vec()).unwrap()
}

#[test]
fn another_configuration_is_another_version_with_the_same_way_back() {
    let dir = tempfile::tempdir().unwrap();
    let component = guest("configured");
    let one = configured(&component, "say one");
    let versions = started(dir.path(), DEFAULT_POLICY);
    let first = versions.activate(one, &operator()).unwrap();
    let again = versions.configure(b"say one", &operator()).unwrap();
    assert_eq!(again.id, first.id, "no change");
    let second = versions.configure(b"say two", &operator()).unwrap();
    assert_eq!(
        (second.component, said(&versions)),
        (first.component, "two".to_owned())
    );
    assert_ne!(second.digest, first.digest);
    let refused = versions.configure(b"shout", &operator()).map(drop);
    assert!(
        matches!(refused, Err(SwapError::Rejected(_))),
        "{refused:?}"
    );
    versions.roll_back(&operator()).unwrap();
    assert_eq!(said(&versions), "one");
    let trial = Trial::Canary(all());
    versions
        .try_configuration(b"say three", trial, None, &operator())
        .unwrap();
    assert_eq!(said(&versions), "three");
    drop(versions);

    let after = started(dir.path(), DEFAULT_POLICY);
    assert_eq!(said(&after), "three", "the candidate");
    after.drop_candidate(None, &operator()).unwrap();
    assert_eq!(said(&after), "one");
    let digest = second.digest.to_string();
    after.activate_kept(&digest[..8], &operator()).unwrap();
    assert_eq!(said(&after), "two");
    let whats: Vec<_> = after
        .changes()
        .into_iter()
        .map(|change| change.what)
        .collect();
    assert_eq!(
        whats,
        [
            "activate",
            "configure",
            "rollback",
            "canary",
            "drop",
            "activate"
        ]
    );
}

#[test]
fn a_gateway_that_is_started_with_another_configuration_starts_with_that() {
    let dir = tempfile::tempdir().unwrap();
    let component = guest("configured");
    for config in ["say one", "say two", "say two"] {
        let start = configured(&component, config);
        let log = VersionLog::open(dir.path(), start).unwrap();
        let engine = Engine::new(Duration::from_millis(200)).unwrap();
        let versions = Versions::new(engine, start, PROBATION, Some(log)).unwrap();
        assert_eq!(said(&versions), config[4..]);
        versions.configure(b"say other", &operator()).unwrap();
        versions.roll_back(&operator()).unwrap();
    }
}

#[test]
fn a_secret_reaches_the_policy_and_nobody_else() {
    let (dir, secrets) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(secrets.path().join("key"), "hunter2\n").unwrap();
    let component = guest("configured");
    let start = configured(&component, "say ${file:key}");
    let log = VersionLog::open(dir.path(), start).unwrap();
    let engine = Engine::new(Duration::from_millis(200)).unwrap();
    let secrets = Secrets::in_directory(Some(secrets.path().to_owned()));
    let admission = Admission::new(engine).with_secrets(secrets);
    let versions = Versions::new(admission, start, PROBATION, Some(log)).unwrap();
    assert_eq!(said(&versions), "hunter2");
    versions
        .try_out(DEFAULT_POLICY, Trial::Shadow(all()), &operator())
        .unwrap();
    assert_eq!(said(&versions), "hunter2");
    let differences = versions.published().candidate.clone().unwrap().differences;
    wait_until("the difference to be found", || {
        differences.snapshot().different > 0
    });
    let found = format!("{:?}", differences.snapshot());
    assert!(
        !found.contains("hunter2") && found.contains("left out"),
        "{found}"
    );
    let refused = versions
        .configure(b"shout ${file:key}", &operator())
        .map(drop)
        .unwrap_err();
    assert!(!refused.to_string().contains("hunter2"), "{refused}");
    versions.activate(DEFAULT_POLICY, &operator()).unwrap();
    let mut files = std::fs::read_dir(dir.path().join("policies")).unwrap();
    let knows = |path: std::path::PathBuf| {
        let contents = std::fs::read(path).unwrap();
        contents.windows(7).any(|bytes| bytes == b"hunter2")
    };
    assert!(!files.any(|file| knows(file.unwrap().path())));
}

#[test]
fn a_secret_that_has_changed_is_taken_by_sending_the_configuration_again() {
    let secrets = tempfile::tempdir().unwrap();
    let write = |secret: &str| std::fs::write(secrets.path().join("key"), secret).unwrap();
    write("one");
    let component = guest("configured");
    let start = configured(&component, "say ${file:key}");
    let engine = Engine::new(Duration::from_millis(200)).unwrap();
    let known = Secrets::in_directory(Some(secrets.path().to_owned()));
    let admission = Admission::new(engine).with_secrets(known);
    let versions = Versions::new(admission, start, PROBATION, None).unwrap();
    let first = versions.configure(b"say ${file:key}", &operator()).unwrap();
    write("two");
    assert_eq!(
        said(&versions),
        "one",
        "a version does not change while it serves"
    );
    let second = versions.configure(b"say ${file:key}", &operator()).unwrap();
    assert_eq!(
        (second.digest, said(&versions)),
        (first.digest, "two".to_owned())
    );
    write("three");
    versions.activate(start, &operator()).unwrap();
    assert_eq!(said(&versions), "three");
}
