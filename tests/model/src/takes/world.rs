//! The catalog's buckets, what gateways know of them, and all that happens to them.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog_core::Limits;
use domain::time::BootTime;
use domain::{Rate, Take};
use frontend_core::Denials;

use super::bounds::{Action, Bounds};

/// How long it takes until a token is back.
pub const PER_TOKEN: Duration = Duration::from_secs(10);

const BURST: u32 = 2;

/// By how much the clock of each gateway is slower than that of the one before, in thousandths. The
/// first one's is the catalog's.
const SLOWER: u32 = 5;

#[derive(Debug, Clone, PartialEq, Hash)]
pub struct World {
    /// By the catalog's clock.
    pub now: BootTime,
    pub limits: Limits,
    pub gateways: Vec<Gateway>,
    /// What arrives late, or not at all.
    pub strays: Vec<Take>,
    /// For each key, when a bucket is full from which all is taken that was ever granted, whatever the
    /// catalog has forgotten.
    pub ideal: BTreeMap<u128, BootTime>,
    pub seen: Seen,
    pub spent: Spent,
    /// What should not have happened.
    pub broken: Option<&'static str>,
}

/// A gateway.
#[derive(Debug, Clone, PartialEq, Hash)]
pub struct Gateway {
    pub now: BootTime,
    pub denials: Denials,
    pub calls: Vec<Call>,
}

/// A take that the catalog is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Hash)]
pub struct Call {
    pub take: Take,
    /// By the gateway's clock.
    pub asked: BootTime,
    /// What the catalog said.
    pub taken: Option<Result<(), Duration>>,
}

/// What has happened, lest all holds only because nothing does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// Tokens of the first key that each gateway was granted.
    pub granted: [u32; 2],
    /// Something was denied without a call.
    pub denied_at_once: bool,
    /// What nobody waited for any more was granted.
    pub granted_late: bool,
    /// Something was granted by a catalog that had started again.
    pub granted_after_crash: bool,
}

/// What has happened as often as it may, or less.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    pub asks: u8,
    pub given_up: u8,
    pub ticks: u8,
    pub crashes: u8,
}

impl World {
    /// Nobody has taken anything.
    pub fn new(bounds: &Bounds) -> Self {
        let now = BootTime::from_millis(1_000_000);
        let gateway = Gateway {
            now,
            denials: Denials::new(9).under(bounds.gateway_rules()),
            calls: Vec::new(),
        };
        Self {
            now,
            limits: within(bounds, Limits::new()),
            gateways: vec![gateway; bounds.gateways],
            strays: Vec::new(),
            ideal: BTreeMap::new(),
            seen: Seen::default(),
            spent: Spent::default(),
            broken: None,
        }
    }

    pub fn act(&mut self, bounds: &Bounds, action: Action) {
        match action {
            Action::Take { gateway, key, cost } => {
                self.spent.asks += 1;
                let gateway = &mut self.gateways[gateway];
                let (take, asked) = (take(key, cost), gateway.now);
                if gateway.denials.wait(&take, asked).is_some() {
                    self.seen.denied_at_once = true;
                    return;
                }
                gateway.calls.push(Call {
                    take,
                    asked,
                    taken: None,
                });
            }
            Action::Arrive { gateway, call } => {
                let take = self.gateways[gateway].calls[call].take;
                let taken = self.take(&take);
                if taken.is_ok() && take.key == 0 {
                    self.seen.granted[gateway] += take.cost;
                }
                self.gateways[gateway].calls[call].taken = Some(taken);
            }
            Action::Hear { gateway, call } => {
                let gateway = &mut self.gateways[gateway];
                let Call { take, asked, taken } = gateway.calls.remove(call);
                if let Err(wait) = taken.expect("it arrived") {
                    gateway.denials.note(&take, wait, asked, gateway.now);
                }
            }
            Action::GiveUp { gateway, call } => {
                self.spent.given_up += 1;
                let call = self.gateways[gateway].calls.remove(call);
                if call.taken.is_none() {
                    self.strays.push(call.take);
                }
            }
            Action::ArriveLate { stray } => {
                let take = self.strays.remove(stray);
                self.seen.granted_late |= self.take(&take).is_ok();
            }
            Action::Tick => {
                self.spent.ticks += 1;
                self.now = self.now + bounds.step;
                for (slower, gateway) in (0..).zip(&mut self.gateways) {
                    gateway.now = gateway.now + bounds.step / 1000 * (1000 - SLOWER * slower);
                }
            }
            Action::Crash => {
                self.spent.crashes += 1;
                self.limits = within(bounds, Limits::empty_at(self.now));
            }
        }
    }

    /// The catalog takes tokens.
    fn take(&mut self, take: &Take) -> Result<(), Duration> {
        let taken = self.limits.take(take, self.now);
        if taken.is_ok() {
            self.seen.granted_after_crash |= self.spent.crashes > 0;
            let ideal = self.ideal.entry(take.key).or_insert(self.now);
            match take.rate.take(*ideal, take.cost, self.now) {
                Ok(full_at) => *ideal = full_at,
                Err(_) => self.broken = Some("more was granted than a burst and what came back"),
            }
        }
        taken
    }

    /// Whether each gateway denies at once only what the catalog would deny as well.
    pub fn denies_rightly(&self, bounds: &Bounds) -> bool {
        let takes = |key| (1..=bounds.cost_max).map(move |cost| take(key, cost));
        let mut takes = (0..bounds.keys).flat_map(takes);
        takes.all(|take| {
            let denies = |gateway: &Gateway| gateway.denials.wait(&take, gateway.now).is_some();
            let is_there = || self.limits.clone().take(&take, self.now).is_ok();
            !self.gateways.iter().any(denies) || !is_there()
        })
    }
}

fn within(bounds: &Bounds, limits: Limits) -> Limits {
    limits.within(1, bounds.room).under(bounds.catalog_rules())
}

fn take(key: u8, cost: u32) -> Take {
    Take {
        key: key.into(),
        crowd: u128::MAX,
        rate: Rate::of_token(PER_TOKEN, BURST).expect("it is a rate"),
        cost,
    }
}
