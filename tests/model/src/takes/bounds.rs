//! What can happen, within bounds.

use std::time::Duration;

use stateright::{Model, Property};

use super::properties;
use super::world::World;
use crate::explore::{self, Explored};

/// A rule of either core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Catalog(catalog_core::Rule),
    Gateway(frontend_core::Rule),
}

/// How often what can happen, and which rule is taken out.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub gateways: usize,
    /// Whose buckets there are.
    pub keys: u8,
    /// Buckets that the catalog has room for.
    pub room: usize,
    /// Tokens that a take may be for: 1 to so many.
    pub cost_max: u32,
    /// Takes that are asked for, of all gateways together.
    pub asks: u8,
    /// Takes that their gateway gives up, which may arrive late, or not at all.
    pub given_up: u8,
    /// Steps of the clock.
    pub ticks: u8,
    pub step: Duration,
    /// Crashes of the catalog; what was on its way to it may still arrive.
    pub crashes: u8,
    pub without: Option<Rule>,
}

impl Bounds {
    /// The catalog's rules in force.
    pub fn catalog_rules(&self) -> catalog_core::Rules {
        match self.without {
            Some(Rule::Catalog(rule)) => catalog_core::Rules::without(rule),
            _ => catalog_core::Rules::default(),
        }
    }

    /// The gateways' rules in force.
    pub fn gateway_rules(&self) -> frontend_core::Rules {
        match self.without {
            Some(Rule::Gateway(rule)) => frontend_core::Rules::without(rule),
            _ => frontend_core::Rules::default(),
        }
    }
}

/// One thing that happens. Gateways and calls go by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A policy takes tokens; its gateway denies them, or asks the catalog.
    Take {
        gateway: usize,
        key: u8,
        cost: u32,
    },
    /// The catalog takes what a gateway asked for.
    Arrive {
        gateway: usize,
        call: usize,
    },
    /// A gateway learns what came of it.
    Hear {
        gateway: usize,
        call: usize,
    },
    /// A gateway waits no longer, whether the call arrived or not.
    GiveUp {
        gateway: usize,
        call: usize,
    },
    /// The catalog takes what nobody waits for any more.
    ArriveLate {
        stray: usize,
    },
    Tick,
    /// The catalog crashes and starts again.
    Crash,
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let spent = &world.spent;
        for (gateway, at) in world.gateways.iter().enumerate() {
            if spent.asks < self.asks {
                for key in 0..self.keys {
                    let costs = 1..=self.cost_max;
                    actions.extend(costs.map(|cost| Action::Take { gateway, key, cost }));
                }
            }
            for (call, made) in at.calls.iter().enumerate() {
                actions.push(match made.taken {
                    None => Action::Arrive { gateway, call },
                    Some(_) => Action::Hear { gateway, call },
                });
                if spent.given_up < self.given_up {
                    actions.push(Action::GiveUp { gateway, call });
                }
            }
        }
        actions.extend((0..world.strays.len()).map(|stray| Action::ArriveLate { stray }));
        if spent.ticks < self.ticks {
            actions.push(Action::Tick);
        }
        if spent.crashes < self.crashes {
            actions.push(Action::Crash);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        if world.broken.is_some() {
            return None;
        }
        Some(explore::next(
            world,
            |next| next.act(self, action),
            |next, why| next.broken = Some(why),
        ))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all()
    }
}

impl Explored for Bounds {
    fn told(_: &World, action: &Action) -> String {
        format!("{action:?}")
    }
}
