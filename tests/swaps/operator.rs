//! An operator who changes the policy again and again, and looks whether it took effect.

use std::collections::BTreeMap;
use std::fs;
use std::iter::Peekable;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Bazaar, KeepAlive, Response, bombs, guest, try_request, wait_until};

use super::gate::State;
use super::load::{KEY, Load, body_mark, is_hit};

/// Four versions that serve well, and tell themselves apart.
pub const EDITIONS: [&str; 4] = [
    "edition-amber",
    "edition-blue",
    "edition-green",
    "edition-red",
];

/// Versions that misbehave: they trap, hang, eat memory, go on with steps for ever and take their time.
const MISBEHAVING: [&str; 5] = ["traps", "loops", "eats-memory", "nonsense", SLOW];

/// The one that takes 20 ms and more for a decision about one path.
const SLOW: &str = "computes";

/// Asks for a key, and wants refused what it fails at.
const GUARDED: &str = "guarded";

/// How long a change may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// How often the version that asks for a key is pushed, at most.
const ATTEMPTS_MAX: usize = 100;

/// Requests with the key, and without, that are made at least wherever it is asked for.
const ASKED_MIN: u64 = 50;

/// Between two changes while a component is being checked.
const PAUSE: Duration = Duration::from_millis(100);

/// A stock that nobody trades: it is kept as long as the gateway has its lease.
const UNTRADED: &str = "/stocks/intel";

fn get(target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: bazaar\r\n{headers}\r\n").into_bytes()
}

/// One change that an operator makes.
#[derive(Debug, Clone, Copy)]
enum Change {
    Push(&'static str),
    Shadow(&'static str, &'static str),
    Canary(&'static str, &'static str),
    Promote,
    RollBack,
    Drop,
    /// Pushes what cannot be compiled within the bounds.
    Bomb(Bomb),
}

/// What is beside clients: latencies are told apart by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Versions that serve well, or fail.
    Usual,
    /// One that is slow, or keeps clients out.
    Hostile,
    /// A component that cannot be compiled.
    Bombs,
}

/// What is wrong with a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bomb {
    ExponentialType,
    BranchTables,
    ManyLocals,
    NestedLoops,
    DeepNesting,
    /// Takes all the time that it may.
    Time,
}

use Bomb::{BranchTables, DeepNesting, ExponentialType, ManyLocals, NestedLoops};
use Change::{Canary, Drop, Promote, Push, RollBack, Shadow};

/// Every stage, of versions that serve well and of such that do not.
const ROUND: [Change; 50] = [
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
    Shadow("nonsense", "1"),
    Canary("nonsense", "0.25"),
    Drop,
    Canary(GUARDED, "0.5"),
    Promote,
    Shadow("edition-red", "0.5"),
    Change::Bomb(ExponentialType),
    RollBack,
    Push("edition-amber"),
    Push("edition-green"),
    Push(SLOW),
    Push("edition-red"),
    Push("edition-blue"),
    Shadow("eats-memory", "0.5"),
    Canary("eats-memory", "0.1"),
    Push("edition-amber"),
    Drop,
    Shadow("loops", "1"),
    Canary("loops", "0.1"),
    Drop,
    Push(GUARDED),
    Canary("edition-blue", "0.25"),
    Drop,
    Push("edition-amber"),
    Push("edition-blue"),
    Push("traps"),
    Push("edition-green"),
    Push("nonsense"),
    Push("edition-red"),
    RollBack,
    Shadow(SLOW, "1"),
    Canary(SLOW, "0.25"),
    Change::Bomb(BranchTables),
    Drop,
    Shadow(GUARDED, "1"),
    Drop,
    Shadow("edition-blue", "0.5"),
    Canary("edition-blue", "0.5"),
    Promote,
    RollBack,
];

/// Behind every so many rounds come those that cost most: each of their failures holds a worker up
/// for as long as a decision may take, or a compiler is kept busy for seconds.
const COSTLY_EVERY: usize = 4;
const COSTLY: [Change; 7] = [
    Push("loops"),
    Push("edition-amber"),
    Push("eats-memory"),
    Push("edition-blue"),
    Change::Bomb(ManyLocals),
    Change::Bomb(NestedLoops),
    Change::Bomb(DeepNesting),
];

/// And behind every so many, one that takes a minute or two.
const LONG_EVERY: usize = 16;
const LONG: [Change; 1] = [Change::Bomb(Bomb::Time)];

/// Who changes the policy of one gateway.
pub struct Operator<'a> {
    bazaar: &'a Bazaar,
    /// Its gate is told of each change that has to do with the version that asks for a key.
    load: &'a Load,
    components: BTreeMap<&'static str, Vec<u8>>,
    bombs: BTreeMap<Bomb, Vec<u8>>,
    /// What misbehaving versions misbehave on.
    springs: BTreeMap<&'static str, String>,
    script: Peekable<Box<dyn Iterator<Item = Change>>>,
    /// Whether a version decides, or is on trial, that is slow or asks for a key.
    is_beside_hostile: bool,
    tally: Tally,
}

/// What came of the changes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Changes that were made.
    pub changes: u64,
    /// Versions that misbehave which were to become the active one.
    pub misbehaving: u64,
    /// Of these, those that were rolled back by the gateway,
    pub rolled_back: u64,
    /// that are not asked any more about what they are slow at,
    pub broken_off: u64,
    /// and that failed their self-test, on what was asked lately.
    pub refused: u64,
    /// Others that failed it: candidates, and the version that asks for a key, which is pushed again then.
    pub refused_others: u64,
    /// Components that cannot be compiled.
    pub bombs: u64,
    /// Pushes that were put off since another component was being checked.
    pub put_off: u64,
    /// Replies that were looked at after a change, and those of them that were kept.
    pub seen: u64,
    pub seen_kept: u64,
}

impl<'a> Operator<'a> {
    /// Has all components at hand, and none pushed yet.
    pub fn of(bazaar: &'a Bazaar, load: &'a Load) -> Self {
        let names = EDITIONS.into_iter().chain(MISBEHAVING).chain([GUARDED]);
        let read = |name| fs::read(guest(name)).expect("a component that was just built");
        let springs = [
            "/stocks/trap",
            "/stocks/loop",
            "/stocks/eat",
            "/stocks/nonsense-outcome",
            load.slow(),
        ];
        let springs = MISBEHAVING.into_iter().zip(springs.map(str::to_owned));
        let rounds = (1..).flat_map(|round: usize| {
            let behind = |every, costly| round.is_multiple_of(every).then_some(costly);
            let costly = behind(COSTLY_EVERY, &COSTLY[..]).into_iter().flatten();
            let long = behind(LONG_EVERY, &LONG[..]).into_iter().flatten();
            ROUND
                .into_iter()
                .chain(costly.copied())
                .chain(long.copied())
        });
        let script: Box<dyn Iterator<Item = Change>> = Box::new(rounds);
        Self {
            bazaar,
            load,
            components: names.map(|name| (name, read(name))).collect(),
            bombs: BTreeMap::from([
                (ExponentialType, bombs::exponential_type()),
                (BranchTables, bombs::branch_tables()),
                (ManyLocals, bombs::many_locals()),
                (NestedLoops, bombs::nested_loops()),
                (DeepNesting, bombs::deep_nesting()),
                (Bomb::Time, bombs::time_bomb()),
            ]),
            springs: springs.collect(),
            script: script.peekable(),
            is_beside_hostile: false,
            tally: Tally::default(),
        }
    }

    /// What came of the changes so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// In what company clients are while the next change is made, and after it.
    pub fn company(&mut self) -> Company {
        match self.script.peek() {
            Some(Change::Bomb(_)) => Company::Bombs,
            Some(Push(name) | Shadow(name, _) | Canary(name, _)) if is_hostile(name) => {
                Company::Hostile
            }
            _ if self.is_beside_hostile => Company::Hostile,
            _ => Company::Usual,
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
            Change::Bomb(bomb) => return self.push_bomb(bomb),
        };
        let body = component.map_or(&b""[..], |name| &self.components[name]);
        let before = self.load.gate.read().state();
        let moves_gate = match change {
            // It takes the place of a canary.
            Shadow(..) => before == State::Partly,
            Push(name) | Canary(name, _) => name == GUARDED || before != State::Open,
            _ => before != State::Open,
        };
        if moves_gate {
            self.load.gate.set(State::Changing);
        }
        let mut answer = self.ask(method, &target, body);
        let mut attempts = (1..ATTEMPTS_MAX).filter(|_| component == Some(GUARDED));
        while answer.status == 422 && attempts.next().is_some() {
            // It fails at some of what was asked lately. Soon that is something else.
            self.tally.refused_others += 1;
            thread::sleep(PAUSE);
            answer = self.ask(method, &target, body);
        }
        let may_fail = |name| self.springs.contains_key(name);
        let refused = answer.status == 422 && component.is_some_and(may_fail);
        let dropped_already = answer.status == 409 && matches!(change, Drop | Promote);
        assert!(
            answer.status == 200 || refused || dropped_already,
            "{change:?}: {answer:?}"
        );
        let after = match answer.status {
            200 => self.note_company(&answer.json()),
            _ => before,
        };
        if moves_gate {
            self.load.gate.set(after);
        }
        assert_eq!(
            after,
            self.load.gate.read().state(),
            "{change:?}: {answer:?}"
        );
        self.tally.changes += u64::from(answer.status == 200);
        let misbehaves = component.and_then(|name| self.springs.get(name).cloned());
        let to_be_active = matches!(change, Push(_)) && misbehaves.is_some();
        self.tally.misbehaving += u64::from(to_be_active);
        match to_be_active {
            true => self.tally.refused += u64::from(refused),
            false => self.tally.refused_others += u64::from(refused),
        }
        match (change, misbehaves) {
            _ if answer.status != 200 => {}
            (Push(SLOW), Some(spring)) => self.wait_until_broken_off(&spring),
            (Push(name), Some(spring)) => self.wait_for_rollback(name, &spring),
            // Who decides for this client is the canary's to say.
            (Canary(..), _) => {}
            _ => self.look(&answer.json()),
        }
    }

    /// Takes down who is in service by now; returns whom a key is asked of.
    fn note_company(&mut self, policy: &Value) -> State {
        let versions = [&policy["active"], &policy["candidate"]];
        let mut names = versions.into_iter().filter_map(|it| it["name"].as_str());
        self.is_beside_hostile = names.any(is_hostile);
        gate_of(policy)
    }

    /// Pushes what is refused. While one is being checked, no other is, and what needs no check goes on.
    fn push_bomb(&mut self, bomb: Bomb) {
        let admin = self.bazaar.admin_address();
        let component = &self.bombs[&bomb];
        let push = || try_request(admin, "PUT", "/policy", &[], component, PATIENCE);
        let (answer, put_off) = thread::scope(|scope| {
            let pushing = scope.spawn(push);
            let mut put_off = 0;
            while bomb == Bomb::Time && !pushing.is_finished() {
                thread::sleep(PAUSE);
                let edition = EDITIONS[put_off as usize % EDITIONS.len()];
                let target = "/policy/candidate?shadow=0.1";
                let answer = self.ask("PUT", target, &self.components[edition]);
                // The last may come when it is over.
                assert!(matches!(answer.status, 200 | 429), "{answer:?}");
                put_off += u64::from(answer.status == 429);
                let policy = self.bazaar.admin("POST", "/policy/rollback", b"");
                assert_eq!(policy.status, 200, "{policy:?}");
            }
            (pushing.join().expect("it does not panic"), put_off)
        });
        let answer = answer.unwrap_or_else(|error| panic!("{bomb:?}: {error}"));
        assert_eq!(answer.status, 422, "{bomb:?}: {answer:?}");
        assert!(
            bomb != Bomb::Time || put_off > 0,
            "others were checked meanwhile"
        );
        self.tally.bombs += 1;
        self.tally.put_off += put_off;
        self.look(&self.bazaar.admin("GET", "/policy", b"").json());
    }

    /// Nothing but a version that serves well, as it is between two changes of it.
    pub fn settle(&mut self) {
        if self.load.gate.read().state() != State::Open {
            self.load.gate.set(State::Changing);
        }
        let dropped = self.bazaar.admin("DELETE", "/policy/candidate", b"");
        assert!(matches!(dropped.status, 200 | 409), "{dropped:?}");
        self.is_beside_hostile = false;
        // Also what is behind it.
        for edition in [EDITIONS[1], EDITIONS[0]] {
            self.push(edition);
            self.load.gate.set(State::Open);
        }
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
            self.active()["name"] != name
        });
        self.tally.rolled_back += 1;
    }

    /// Asks for what the version is slow at, until another one answers: where it is broken off, and where so
    /// many were struck that it is out of service. The last good one answers, and is an edition.
    fn wait_until_broken_off(&mut self, spring: &str) {
        let mut connection = self.connect();
        let mut active = Value::Null;
        wait_until("the slow version to be left out", || {
            let answer = connection.exchange(&get(spring, KEY));
            let answer = answer.unwrap_or_else(|error| panic!("{spring}: {error}"));
            assert_eq!(answer.status, 404, "{answer:?}");
            if answer.header("x-policy").is_none() {
                return false;
            }
            active = self.active();
            active["name"] != SLOW || active["broken_off"] != json!({ "paths": 0, "clients": 0 })
        });
        match active["name"] == SLOW {
            true => self.tally.broken_off += 1,
            false => self.tally.rolled_back += 1,
        }
    }

    /// Gives clients time to be let in, and kept out.
    fn wait_for_keyless(&self) {
        let counts = || {
            let counts = [&self.load.let_in, &self.load.kept_out];
            counts.map(|count| count.load(Ordering::Relaxed))
        };
        let before = counts();
        wait_until("clients to be let in, and kept out", || {
            let now = counts();
            (0..now.len()).all(|of| now[of] >= before[of] + ASKED_MIN)
        });
    }

    fn active(&self) -> Value {
        self.bazaar.admin("GET", "/policy", b"").json()["active"].take()
    }

    fn connect(&self) -> KeepAlive {
        KeepAlive::connect(self.bazaar.address()).expect("the gateway takes connections")
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
        let mut connection = self.connect();
        let mut look = |headers| {
            let answer = connection.exchange(&get(UNTRADED, headers));
            let answer = answer.unwrap_or_else(|error| panic!("after a change: {error}"));
            let mark = body_mark(answer.body).unwrap_or_default();
            assert_eq!(answer.header("x-policy").unwrap_or_default(), mark);
            (answer.status, mark.to_owned(), is_hit(answer))
        };
        if active == GUARDED {
            let statuses = ["", KEY].map(|key| look(key).0);
            assert_eq!(statuses, [401, 200], "without and with the key");
            self.wait_for_keyless();
            return;
        }
        for _ in 0..2 {
            let (status, mark, is_hit) = look("");
            assert!(
                status == 200 && active.ends_with(&mark) && !mark.is_empty(),
                "{active} is active: {status} of {mark}"
            );
            self.tally.seen += 1;
            self.tally.seen_kept += u64::from(is_hit);
        }
    }
}

/// Whether it is slow, or asks for a key.
fn is_hostile(name: &str) -> bool {
    [SLOW, GUARDED].contains(&name)
}

/// Whom a key is asked of, by what the gateway says of its policy.
fn gate_of(policy: &Value) -> State {
    let asks = |version: &Value| version["name"] == GUARDED;
    let (active, candidate) = (&policy["active"], &policy["candidate"]);
    match candidate["stage"] == "canary" && asks(candidate) != asks(active) {
        true => State::Partly,
        false if asks(active) => State::Closed,
        false => State::Open,
    }
}
