//! A secret that was taken back opens nothing any more, whichever version comes to decide.

use std::fs;
use std::time::Duration;

use frontend_policy::rollout::{At, Plan, Terms};
use frontend_policy::{
    Admission, DEFAULT_POLICY, Engine, Secrets, SharedVersion, SwapError, Trial, Versions,
};
use tempfile::TempDir;

use super::configurations::{configured, said};
use super::{PROBATION, active, all, guest, operator};

const CONFIG: &str = "say ${file:key}";

/// A gateway that starts with a policy which says its secret: `one`.
struct Secretive {
    versions: Versions,
    component: Vec<u8>,
    secrets: TempDir,
}

impl Secretive {
    fn start() -> Self {
        let secrets = tempfile::tempdir().unwrap();
        fs::write(secrets.path().join("key"), "one").unwrap();
        let component = guest("configured");
        let engine = Engine::new(Duration::from_millis(200)).unwrap();
        let known = Secrets::in_directory(Some(secrets.path().to_owned()));
        let admission = Admission::new(engine).with_secrets(known);
        let start = configured(&component, CONFIG);
        let versions = Versions::new(admission, start, PROBATION, None).unwrap();
        assert_eq!(said(&versions), "one");
        Self {
            versions,
            component,
            secrets,
        }
    }

    fn change_secret(&self, secret: &str) {
        fs::write(self.secrets.path().join("key"), secret).unwrap();
    }

    fn remove_secret(&self) {
        fs::remove_file(self.secrets.path().join("key")).unwrap();
    }

    /// Has the default policy take its place.
    fn replace(&self) {
        let default = self.versions.activate(DEFAULT_POLICY, &operator());
        default.unwrap();
    }

    fn try_out(&self, terms: Terms) {
        let upload = configured(&self.component, CONFIG);
        let tried = self.versions.try_out(upload, terms, &operator());
        tried.unwrap();
    }

    fn behind(&self) -> Option<SharedVersion> {
        self.versions.published().previous.clone()
    }
}

#[test]
fn who_rolls_back_goes_back_to_no_secret_of_then() {
    let gateway = Secretive::start();
    gateway.replace();
    gateway.change_secret("two");
    gateway.versions.roll_back(&operator()).unwrap();
    assert_eq!(said(&gateway.versions), "two");

    gateway.replace();
    gateway.remove_secret();
    let refused = gateway.versions.roll_back(&operator()).map(drop);
    let refused = refused.unwrap_err();
    assert!(matches!(refused, SwapError::Rejected(_)), "{refused}");
    assert_eq!(active(&gateway.versions), "default");
}

#[test]
fn who_stands_in_knows_the_secrets_of_now() {
    let gateway = Secretive::start();
    gateway.replace();
    let id = || gateway.behind().map(|behind| behind.id);
    let first = id();
    gateway.versions.tend();
    assert_eq!(id(), first, "nothing has changed");
    gateway.change_secret("two");
    gateway.versions.tend();
    let second = id();
    assert!(second.is_some() && second != first);
    gateway.versions.tend();
    assert_eq!(id(), second);

    // A file may be missing while it is replaced.
    gateway.remove_secret();
    gateway.versions.tend();
    assert_eq!(id(), second);
    gateway.change_secret("two");
    gateway.versions.tend();
    gateway.remove_secret();
    gateway.versions.tend();
    assert_eq!(id(), second);
    gateway.versions.tend();
    assert_eq!(id(), None);
}

#[test]
fn what_is_on_trial_decides_with_a_secret_of_now_once_it_is_put_again_or_promoted() {
    let gateway = Secretive::start();
    gateway.replace();
    let canary = || Terms::from(Trial::Canary(all()));
    gateway.try_out(canary());
    gateway.change_secret("two");
    assert_eq!(
        said(&gateway.versions),
        "one",
        "a version does not change while it serves"
    );
    gateway.try_out(canary());
    assert_eq!(said(&gateway.versions), "two");
    gateway.change_secret("three");
    gateway.versions.promote(None, &operator()).unwrap();
    assert_eq!(said(&gateway.versions), "three");
}

#[test]
fn a_rollout_ends_with_the_secrets_of_now() {
    let gateway = Secretive::start();
    gateway.replace();
    let plan: Plan = "[[step]]\ncanary = 1".parse().unwrap();
    gateway.try_out(Terms::rollout(plan));
    gateway.remove_secret();
    let skip = || gateway.versions.skip_step(&At::default(), &operator());
    assert!(matches!(skip(), Err(SwapError::Rejected(_))));
    assert_eq!(active(&gateway.versions), "default");
    gateway.change_secret("two");
    skip().unwrap();
    assert_eq!(active(&gateway.versions), "configured");
    assert_eq!(said(&gateway.versions), "two");
}
