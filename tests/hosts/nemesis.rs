//! What happens to hosts, drawn from a seed: which, when and for how long.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::site::{CATALOGS, DATABASES, GATEWAYS, ORDERS, Role, Site, all_hosts};
use super::switch::Way;

/// Faults under way at once.
const ACTIVE_MAX: usize = 2;

/// Time between the beginnings of two faults, in milliseconds.
const INTERVAL_MS: std::ops::Range<u64> = 800..4_000;

/// How long one lasts at least. At most it is twice as long as Patroni waits, and this longer.
const LENGTH_MIN: Duration = Duration::from_millis(300);
const LENGTH_MORE: Duration = Duration::from_secs(2);

/// How slow a network can be: each way.
const DELAY_MS: std::ops::Range<u64> = 5..60;

/// Whose host it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Host(Role),
    /// Whoever has that part when it happens.
    Primary,
    ActiveCatalog,
    Leader,
}

impl Target {
    fn resolve(self, site: &Site) -> Option<Role> {
        match self {
            Self::Host(role) => Some(role),
            Self::Primary => site.primary(),
            Self::ActiveCatalog => site.active_catalog(),
            Self::Leader => site.leader(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Host(role) => role.kind(),
            Self::Primary => "primary",
            Self::ActiveCatalog => "active catalog",
            Self::Leader => "leader",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// All of its processes are gone at once, without a word to anybody; they are started at the end. What they wrote is
    /// there: no test of what is synced.
    PowerOff,
    /// Its processes stand still.
    Pause,
    /// No other host hears it. Clients do, here and below: a gateway that is cut off answers them.
    Mute,
    /// It hears no other host.
    Deafen,
    CutOff,
    /// No replica and no gateway hears it, nor it them. The others do.
    LoseCallers,
    /// What it sends and hears is late, or lost, or in disorder.
    Weather(&'static str, Way),
    /// An order replica whose disk is lost, with its power.
    LoseDisk,
    /// These hosts, and the others, hear nothing of each other.
    Divide(BTreeSet<Role>),
}

impl Fault {
    fn name(&self) -> &'static str {
        match self {
            Self::PowerOff => "power off",
            Self::Pause => "pause",
            Self::Mute => "mute",
            Self::Deafen => "deafen",
            Self::CutOff => "cut off",
            Self::LoseCallers => "take the callers of",
            Self::Weather(kind, _) => kind,
            Self::LoseDisk => "lose the disk of",
            Self::Divide(_) => "divide",
        }
    }

    /// In which ways the network is not as it was, where it happens to a host.
    fn ways(&self, host: Role) -> Vec<(Role, Role, Way)> {
        let others = all_hosts().into_iter().filter(|other| *other != host);
        let out = |way| others.clone().map(move |other| (host, other, way));
        let back = |way| others.clone().map(move |other| (other, host, way));
        match self {
            Self::PowerOff | Self::Pause | Self::LoseDisk => Vec::new(),
            Self::Mute => out(Way::CUT).collect(),
            Self::Deafen => back(Way::CUT).collect(),
            Self::CutOff => out(Way::CUT).chain(back(Way::CUT)).collect(),
            Self::LoseCallers => {
                let callers = || ORDERS.into_iter().chain(GATEWAYS);
                let there = callers().map(|caller| (caller, host, Way::CUT));
                let back = callers().map(|caller| (host, caller, Way::CUT));
                there.chain(back).collect()
            }
            Self::Weather(_, way) => out(*way).chain(back(*way)).collect(),
            Self::Divide(side) => {
                let all = all_hosts();
                let pairs = all
                    .iter()
                    .flat_map(|from| all.iter().map(move |to| (*from, *to)));
                pairs
                    .filter(|(from, to)| side.contains(from) != side.contains(to))
                    .map(|(from, to)| (from, to, Way::CUT))
                    .collect()
            }
        }
    }
}

/// A fault, when it begins and how long it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub length: Duration,
    pub fault: Fault,
    pub target: Target,
}

/// The faults of a run; the same for the same seed. At first the primary is lost for longer than Patroni waits, by
/// itself: so another one is promoted in each run.
pub fn plan(seed: u64, length: Duration, patience: Duration) -> Vec<Planned> {
    let mut random = Rng::with_seed(seed);
    let first = Planned {
        at: Duration::from_secs(1),
        length: patience * 2,
        fault: Fault::PowerOff,
        target: Target::Primary,
    };
    let length_max = patience * 2 + LENGTH_MORE;
    let mut at = first.at + first.length + Duration::from_secs(2);
    let mut planned = vec![first];
    while at < length {
        let (fault, target) = draw(&mut random);
        planned.push(Planned {
            at,
            length: LENGTH_MIN + (length_max - LENGTH_MIN).mul_f64(random.f64()),
            fault,
            target,
        });
        at += Duration::from_millis(random.u64(INTERVAL_MS));
    }
    planned
}

fn draw(random: &mut Rng) -> (Fault, Target) {
    let hosts = all_hosts();
    let host = hosts[random.usize(0..hosts.len())];
    let side = hosts.iter().copied().filter(|_| random.bool()).collect();
    let order = ORDERS[random.usize(0..ORDERS.len())];
    let delay = Duration::from_millis(random.u64(DELAY_MS));
    // Half of the faults happen to whom all wait for.
    let target = match random.u32(0..8) {
        0 | 1 => Target::Primary,
        2 => Target::ActiveCatalog,
        3 => Target::Leader,
        _ => Target::Host(host),
    };
    let slow = Way {
        delay,
        ..Way::default()
    };
    let disorder = Way {
        jitter: delay,
        ..Way::default()
    };
    let lossy = Way {
        lost: 10,
        ..Way::default()
    };
    match random.u32(0..100) {
        0..24 => (Fault::PowerOff, target),
        24..40 => (Fault::Pause, target),
        40..50 => (Fault::Mute, target),
        50..60 => (Fault::Deafen, target),
        60..72 => (Fault::CutOff, target),
        72..77 => (Fault::Weather("slow down", slow), target),
        77..82 => (Fault::Weather("disorder", disorder), target),
        82..87 => (Fault::Weather("lose a tenth of", lossy), target),
        87..92 => (Fault::LoseDisk, Target::Host(order)),
        92..96 => (Fault::LoseCallers, Target::ActiveCatalog),
        _ => (Fault::Divide(side), Target::Host(host)),
    }
}

/// A fault that is under way.
struct Active {
    to: Duration,
    fault: Fault,
    host: Role,
}

impl Active {
    /// Whether another one cannot happen there meanwhile.
    fn excludes(&self, host: Role, fault: &Fault) -> bool {
        let changes_ways = |fault: &Fault| !fault.ways(host).is_empty();
        self.host == host
            // One that ends would undo what the other one still does to the ways that they share.
            || changes_ways(&self.fault) && changes_ways(fault)
            // A second replica without its disk may be one too many: with whom an order is, the others know.
            || self.fault == Fault::LoseDisk && *fault == Fault::LoseDisk
    }
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Inflicted {
    /// How many faults of each kind there were.
    pub kinds: BTreeMap<String, usize>,
    /// How many did not happen: nobody had that part, or others were under way.
    pub skipped: usize,
}

/// Inflicts the faults, and heals the last.
pub fn inflict(site: &mut Site, plan: &[Planned]) -> Inflicted {
    let start = Instant::now();
    let mut active: Vec<Active> = Vec::new();
    let mut inflicted = Inflicted::default();
    for planned in plan {
        let now = start.elapsed();
        end_until(site, &mut active, start, planned.at.max(now));
        let host = planned.target.resolve(site).filter(|host| {
            active.len() < ACTIVE_MAX
                && !active
                    .iter()
                    .any(|other| other.excludes(*host, &planned.fault))
        });
        let Some(host) = host else {
            inflicted.skipped += 1;
            continue;
        };
        begin(site, &planned.fault, host);
        let kind = match &planned.fault {
            Fault::Divide(_) => "divide".to_owned(),
            fault => format!("{} {}", fault.name(), planned.target.name()),
        };
        *inflicted.kinds.entry(kind).or_default() += 1;
        active.push(Active {
            to: start.elapsed() + planned.length, // finding out whose host it is took its time
            fault: planned.fault.clone(),
            host,
        });
    }
    let last = active.iter().map(|active| active.to).max();
    end_until(site, &mut active, start, last.unwrap_or_default());
    inflicted
}

/// Ends each fault at its time, until another one is to begin.
fn end_until(site: &mut Site, active: &mut Vec<Active>, start: Instant, until: Duration) {
    active.sort_by_key(|fault| fault.to);
    while active.first().is_some_and(|first| first.to <= until) {
        let first = active.remove(0);
        thread::sleep(first.to.saturating_sub(start.elapsed()));
        end(site, &first.fault, first.host);
    }
    thread::sleep(until.saturating_sub(start.elapsed()));
}

fn begin(site: &mut Site, fault: &Fault, host: Role) {
    for (from, to, way) in fault.ways(host) {
        site.set_way(from, to, way);
    }
    match fault {
        Fault::PowerOff => site.power_off(host),
        Fault::Pause => site.host(host).pause(),
        Fault::LoseDisk => {
            site.power_off(host);
            site.lose_disk(host);
        }
        _ => {}
    }
}

fn end(site: &mut Site, fault: &Fault, host: Role) {
    for (from, to, _) in fault.ways(host) {
        site.set_way(from, to, Way::default());
    }
    match fault {
        Fault::PowerOff | Fault::LoseDisk => site.power_on(host),
        Fault::Pause => site.host(host).resume(),
        _ => {}
    }
}

#[test]
fn a_seed_has_one_plan_and_every_kind_of_fault_is_drawn() {
    let [length, patience] = [600, 5].map(Duration::from_secs);
    let plan_of = |seed| plan(seed, length, patience);
    assert_eq!(plan_of(1), plan_of(1));
    assert_ne!(plan_of(1), plan_of(2));
    let kinds: BTreeSet<&str> = (1..5)
        .flat_map(plan_of)
        .map(|planned| planned.fault.name())
        .collect();
    assert_eq!(kinds.len(), 11, "{kinds:?}");
    let targets: BTreeSet<&str> = (1..5)
        .flat_map(plan_of)
        .map(|planned| planned.target.name())
        .collect();
    assert_eq!(targets.len(), 7, "{targets:?}");
    let to_one = Fault::Mute.ways(DATABASES[0]);
    assert_eq!(to_one.len(), all_hosts().len() - 1);
    assert!(to_one.iter().all(|(from, ..)| *from == DATABASES[0]));
    let side = BTreeSet::from(CATALOGS);
    let across = Fault::Divide(side).ways(DATABASES[0]);
    assert_eq!(across.len(), 2 * 2 * (all_hosts().len() - 2));
    let callers = Fault::LoseCallers.ways(CATALOGS[0]);
    assert_eq!(callers.len(), 2 * (ORDERS.len() + GATEWAYS.len()));
}
