//! An operator who changes the policy again and again, and looks whether it took effect.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Bazaar, KeepAlive, Response, guest, try_request, wait_until};

use super::load::{body_mark, is_hit};

/// Four versions that serve well, and tell themselves apart.
pub const EDITIONS: [&str; 4] = [
    "edition-amber",
    "edition-blue",
    "edition-green",
    "edition-red",
];

/// Versions that trap, hang and eat memory, and what they do it on.
pub const MISBEHAVING: [(&str, &str); 3] = [
    ("traps", "/stocks/trap"),
    ("loops", "/stocks/loop"),
    ("eats-memory", "/stocks/eat"),
];

/// What a version does it on, if it misbehaves.
fn spring(name: &str) -> Option<&'static str> {
    let mut known = MISBEHAVING.into_iter();
    known.find(|(known, _)| *known == name).map(|(_, on)| on)
}

/// How long a change may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A stock that nobody trades: it is kept as long as the gateway has its lease.
const UNTRADED: &str = "GET /stocks/intel HTTP/1.1\r\nhost: bazaar\r\n\r\n";

/// One change that an operator makes.
#[derive(Debug, Clone, Copy)]
enum Change {
    Push(&'static str),
    Shadow(&'static str, &'static str),
    Canary(&'static str, &'static str),
    Promote,
    RollBack,
    Drop,
}

use Change::{Canary, Drop, Promote, Push, RollBack, Shadow};

/// Every stage, of versions that serve well and of such that do not.
const ROUND: [Change; 25] = [
    Push("edition-blue"),
    Shadow("edition-green", "1"),
    Promote,
    Canary("edition-red", "0.25"),
    Promote,
    RollBack,
    RollBack,
    Shadow("traps", "1"),
    Canary("traps", "0.25"),
    Drop,
    Shadow("eats-memory", "0.5"),
    Canary("eats-memory", "0.1"),
    Push("edition-amber"),
    Drop,
    Shadow("loops", "1"),
    Canary("loops", "0.1"),
    Drop,
    Push("traps"),
    Push("edition-green"),
    Push("edition-red"),
    RollBack,
    Shadow("edition-blue", "0.5"),
    Canary("edition-blue", "0.5"),
    Promote,
    RollBack,
];

/// Behind every so many rounds come those that cost most: each of their failures holds a worker up
/// for as long as a decision may take.
const COSTLY_EVERY: usize = 4;
const COSTLY: [Change; 4] = [
    Push("loops"),
    Push("edition-amber"),
    Push("eats-memory"),
    Push("edition-blue"),
];

/// Who changes the policy of one gateway.
pub struct Operator<'a> {
    bazaar: &'a Bazaar,
    components: BTreeMap<&'static str, Vec<u8>>,
    script: Box<dyn Iterator<Item = Change>>,
    /// Changes that were made.
    pub changes: u64,
    /// Versions that misbehaved as the active one, and were rolled back by the gateway.
    pub rolled_back: u64,
    /// Versions that misbehave and did so in their self-test, on what was asked lately.
    pub refused: u64,
    /// Replies that were looked at after a change, and those of them that were kept.
    pub seen: u64,
    pub seen_kept: u64,
}

impl<'a> Operator<'a> {
    /// Has all components at hand, and none pushed yet.
    pub fn of(bazaar: &'a Bazaar) -> Self {
        let misbehaving = MISBEHAVING.map(|(name, _)| name);
        let names = EDITIONS.into_iter().chain(misbehaving);
        let read = |name| fs::read(guest(name)).expect("a component that was just built");
        let rounds = (1..).flat_map(|round: usize| {
            let costly = round.is_multiple_of(COSTLY_EVERY).then_some(COSTLY);
            ROUND.into_iter().chain(costly.into_iter().flatten())
        });
        Self {
            bazaar,
            components: names.map(|name| (name, read(name))).collect(),
            script: Box::new(rounds),
            changes: 0,
            rolled_back: 0,
            refused: 0,
            seen: 0,
            seen_kept: 0,
        }
    }

    /// Makes the next change, and sees that it is in effect.
    pub fn change(&mut self) {
        let change = self.script.next().expect("the script has no end");
        let (method, target, component) = match change {
            Push(name) => ("PUT", "/policy".to_owned(), Some(name)),
            Shadow(name, share) => (
                "PUT",
                format!("/policy/candidate?shadow={share}"),
                Some(name),
            ),
            Canary(name, share) => (
                "PUT",
                format!("/policy/candidate?canary={share}"),
                Some(name),
            ),
            Promote => ("POST", "/policy/promote".to_owned(), None),
            RollBack => ("POST", "/policy/rollback".to_owned(), None),
            Drop => ("DELETE", "/policy/candidate".to_owned(), None),
        };
        let body = component.map_or(&b""[..], |name| &self.components[name]);
        let answer = self.ask(method, &target, body);
        let refused = answer.status == 422 && component.and_then(spring).is_some();
        let dropped_already = answer.status == 409 && matches!(change, Drop | Promote);
        assert!(
            answer.status == 200 || refused || dropped_already,
            "{change:?}: {answer:?}"
        );
        self.changes += u64::from(answer.status == 200);
        self.refused += u64::from(refused);
        match (change, component.and_then(spring)) {
            _ if answer.status != 200 => {}
            (Push(name), Some(spring)) => self.wait_for_rollback(name, spring),
            // Who decides for this client is the canary's to say.
            (Canary(..), _) => {}
            _ => self.look(&answer.json()),
        }
    }

    /// Nothing but a version that serves well, as it is between two changes of it.
    pub fn settle(&mut self) {
        let dropped = self.bazaar.admin("DELETE", "/policy/candidate", b"");
        assert!(matches!(dropped.status, 200 | 409), "{dropped:?}");
        self.push(EDITIONS[0]);
    }

    /// Makes a version the active one, outside the script.
    pub fn push(&mut self, name: &'static str) {
        let answer = self.ask("PUT", "/policy", &self.components[name]);
        assert_eq!(answer.status, 200, "{answer:?}");
        self.look(&answer.json());
    }

    /// Has a version shadow the active one on all requests.
    pub fn shadow(&mut self, name: &'static str) {
        let target = "/policy/candidate?shadow=1";
        let answer = self.ask("PUT", target, &self.components[name]);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Asks the admin API, which compiles while clients take what processors there are.
    fn ask(&self, method: &str, target: &str, body: &[u8]) -> Response {
        let admin = self.bazaar.admin_address();
        let answer = try_request(admin, method, target, &[], body, PATIENCE);
        answer.unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// Asks for what the version fails at, until it is out of service. The last good one answers.
    fn wait_for_rollback(&mut self, name: &str, spring: &str) {
        wait_until(&format!("{name} to be rolled back"), || {
            let answer = self.bazaar.get(spring).error();
            assert_eq!(answer, (404, "stock not found".to_owned()));
            self.bazaar.admin("GET", "/policy", b"").json()["active"]["name"] != name
        });
        self.rolled_back += 1;
    }

    /// The replies to a client are the active version's at once, also those that were rendered
    /// by another and kept.
    fn look(&mut self, policy: &Value) {
        if policy["candidate"]["stage"] == "canary" {
            return; // who decides for this client is the canary's to say
        }
        let active = policy["active"]["name"]
            .as_str()
            .expect("versions have names");
        let connection = KeepAlive::connect(self.bazaar.address());
        let mut connection = connection.expect("the gateway takes connections");
        for _ in 0..2 {
            let answer = connection.exchange(UNTRADED.as_bytes());
            let answer = answer.unwrap_or_else(|error| panic!("after a change: {error}"));
            let mark = body_mark(answer.body).unwrap_or_default();
            assert!(
                answer.status == 200 && active.ends_with(mark) && !mark.is_empty(),
                "{active} is active: {answer:?}"
            );
            assert_eq!(answer.header("x-policy"), Some(mark), "{answer:?}");
            self.seen += 1;
            self.seen_kept += u64::from(is_hit(answer));
        }
    }
}
