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
    pub stocks: usize,
    /// Trades of any of the stocks, one at a time on its way to the disk.
    pub trades: u8,
    /// Questions to the catalog, of all gateways together.
    pub asks: u8,
    /// Questions that are asked again, because the answer was lost.
    pub retries: u8,
    /// Steps of the clock.
    pub ticks: u8,
    pub step: Duration,
    pub renewals: u8,
    /// Streams that break; whatever is on its way is lost.
    pub breaks: u8,
    /// Sessions that are opened after those that there are from the start.
    pub reopenings: u8,
    pub releases: u8,
    /// Crashes of the catalog, each of which breaks all streams.
    pub crashes: u8,
    /// Batches that the disk has no room for.
    pub disk_failures: u8,
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

/// One thing that happens. Gateways, stocks and questions go by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A trade of a stock is on its way to the disk; its holders are told to let go.
    Trade {
        stock: usize,
    },
    /// What is on its way to the disk becomes durable.
    Commit,
    /// The disk has no room for it.
    Abandon,
    /// A gateway is about to ask the catalog for a stock.
    Ask {
        gateway: usize,
        stock: usize,
    },
    /// The catalog reads what a gateway asked for.
    Answer {
        gateway: usize,
        ask: usize,
    },
    /// The answer was lost: the same is asked again.
    AskAgain {
        gateway: usize,
        ask: usize,
    },
    /// A gateway takes the answer, and keeps it if it may.
    Take {
        gateway: usize,
        ask: usize,
    },
    /// A gateway sends a renewal of its lease.
    Renew {
        gateway: usize,
    },
    /// The catalog takes the next of what a gateway sent.
    Hear {
        gateway: usize,
    },
    /// A gateway takes the next of what the catalog sent.
    Obey {
        gateway: usize,
    },
    /// A gateway's stream breaks. Nobody knows yet.
    Break {
        gateway: usize,
    },
    /// The catalog learns that a stream is broken.
    Cut {
        stream: usize,
    },
    /// A gateway learns that its stream is broken, and opens another session.
    Reopen {
        gateway: usize,
    },
    /// A gateway stops, and says so.
    Release {
        gateway: usize,
    },
    /// The catalog ends the sessions whose leases are over.
    Expire,
    Tick,
    /// The catalog crashes and starts again. What was on its way to the disk is there or not.
    Crash {
        durable: bool,
    },
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let spent = &world.spent;
        if spent.trades < self.trades && world.may_trade() {
            actions.extend((0..self.stocks).map(|stock| Action::Trade { stock }));
        }
        if world.writing.is_some() {
            actions.push(Action::Commit);
            if spent.disk_failures < self.disk_failures {
                actions.push(Action::Abandon);
            }
        }
        for gateway in 0..self.gateways {
            self.actions_of(gateway, world, actions);
        }
        actions.extend((0..world.severed.len()).map(|stream| Action::Cut { stream }));
        if world.has_expired() {
            actions.push(Action::Expire);
        }
        if spent.ticks < self.ticks {
            actions.push(Action::Tick);
        }
        if spent.crashes < self.crashes {
            actions.push(Action::Crash { durable: false });
            if world.writing.is_some() {
                actions.push(Action::Crash { durable: true });
            }
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

impl Bounds {
    fn actions_of(&self, at: usize, world: &World, actions: &mut Vec<Action>) {
        let spent = &world.spent;
        let gateway = &world.gateways[at];
        if spent.asks < self.asks {
            let stocks = 0..self.stocks;
            actions.extend(stocks.map(|stock| Action::Ask { gateway: at, stock }));
        }
        for (ask, asking) in gateway.asking.iter().enumerate() {
            if asking.answer.is_none() {
                if world.is_settled() {
                    actions.push(Action::Answer { gateway: at, ask });
                }
            } else {
                actions.push(Action::Take { gateway: at, ask });
                if spent.retries < self.retries {
                    actions.push(Action::AskAgain { gateway: at, ask });
                }
            }
        }
        let stream = &gateway.stream;
        if !stream.up.is_empty() {
            actions.push(Action::Hear { gateway: at });
        }
        if !stream.down.is_empty() {
            actions.push(Action::Obey { gateway: at });
        }
        if gateway.session.is_some() {
            if spent.renewals < self.renewals {
                actions.push(Action::Renew { gateway: at });
            }
            if spent.releases < self.releases {
                actions.push(Action::Release { gateway: at });
            }
        }
        if stream.broken && spent.reopenings < self.reopenings {
            actions.push(Action::Reopen { gateway: at });
        }
        if !stream.broken && spent.breaks < self.breaks {
            actions.push(Action::Break { gateway: at });
        }
    }
}

impl Explored for Bounds {
    fn told(_: &World, action: &Action) -> String {
        format!("{action:?}")
    }
}
