//! What can happen, within bounds.

use std::time::Duration;

use catalog_core::writer_lease::WriterRole;
use catalog_core::{Rule, Rules};
use stateright::{Model, Property};

use super::properties;
use super::store::Key;
use super::world::World;
use crate::explore::{self, Explored};

/// The writer lease.
pub const LEASE: Duration = Duration::from_millis(1000);

/// A step of the clock, of the first catalog and of the gateway. Two of these end a lease for who counts it as its
/// own, after 900 ms.
pub const STEP: Duration = Duration::from_millis(480);

/// Of the second catalog's clock, which is a twentieth faster: two of these are a lease for who waits for its end.
pub const STEP_FAST: Duration = Duration::from_millis(504);

/// How often what can happen, and which rule is taken out.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub trades: u8,
    /// Trades that are asked for again, under the same key.
    pub retries: u8,
    /// Questions of the gateway.
    pub asks: u8,
    /// Reads that a catalog answers to a client, who keeps nothing.
    pub reads: u8,
    /// Steps of the clock.
    pub ticks: u8,
    /// Connections that are lost while something is on its way on them.
    pub losses: u8,
    /// Servers of the database that are lost.
    pub fail_overs: u8,
    /// Whether what takes their place may be older than what was acknowledged.
    pub loses: bool,
    /// Catalogs that are told to stop.
    pub stops: u8,
    /// Whether the replica, once it has reported to a catalog, takes rows from no other.
    pub promises: bool,
    pub without: Option<Rule>,
}

impl Bounds {
    /// The rules in force.
    pub fn rules(&self) -> Rules {
        self.without.map(Rules::without).unwrap_or_default()
    }
}

/// One thing that happens. Catalogs go by their places.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A catalog does what its part in the writer lease asks for: looks at the row, sends a statement, loads.
    Act(usize),
    /// A catalog that stands by looks at the row.
    Look(usize),
    /// What a catalog has sent takes effect.
    Execute(usize),
    /// And is replicated, with all before it.
    Replicate,
    /// A catalog learns what came of what it sent.
    Hear(usize),
    /// A catalog's connection is lost.
    Lose(usize),
    /// What was sent on a lost connection takes effect.
    ExecuteStray(usize),
    FailOver {
        loses: bool,
    },
    /// A catalog learns that the server is gone.
    Notice(usize),
    /// A client trades, or tries again.
    Place {
        catalog: usize,
        key: Key,
    },
    /// A client reads at a catalog.
    Read(usize),
    /// The gateway asks a catalog for a session, and for the stock.
    Ask(usize),
    /// The catalog answers.
    Answer,
    /// The gateway takes the answer.
    Take,
    /// The gateway lets go of what a session of a catalog keeps, and says so.
    LetGo {
        catalog: usize,
        told: usize,
    },
    /// The gateway ends its session with a catalog that stops, and says so.
    Surrender(usize),
    /// A catalog is told to stop.
    Stop(usize),
    Tick,
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let spent = &world.spent;
        for catalog in 0..world.catalogs.len() {
            self.actions_of(catalog, world, actions);
        }
        if world.store.primary != world.store.replicated {
            actions.push(Action::Replicate);
        }
        actions.extend((0..world.store.strays.len()).map(Action::ExecuteStray));
        if spent.fail_overs < self.fail_overs {
            actions.push(Action::FailOver { loses: self.loses });
        }
        if let Some(asking) = &world.gateway.asking {
            if asking.answer.is_some() {
                actions.push(Action::Take);
            } else if world.serves(asking.catalog) {
                actions.push(Action::Answer);
            }
        }
        if spent.ticks < self.ticks {
            actions.push(Action::Tick);
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
        if self.without.is_none() && self.promises {
            properties::all()
        } else {
            properties::harm()
        }
    }
}

impl Bounds {
    fn actions_of(&self, at: usize, world: &World, actions: &mut Vec<Action>) {
        let spent = &world.spent;
        let catalog = &world.catalogs[at];
        let connection = &world.store.connections[at];
        let role = catalog.lease.role();
        if world.has_to_act(at) {
            actions.push(Action::Act(at));
        }
        if world.sees_news(at) {
            actions.push(Action::Look(at));
        }
        if connection.is_broken {
            actions.push(Action::Notice(at));
        } else {
            if connection.sent.is_some() {
                actions.push(Action::Execute(at));
            }
            if connection.reply.is_some_and(|reply| !reply.is_waiting) {
                actions.push(Action::Hear(at));
            }
            let is_in_use = connection.sent.is_some() || connection.reply.is_some();
            if is_in_use && spent.losses < self.losses {
                actions.push(Action::Lose(at));
            }
            if role == WriterRole::Active && !catalog.lease.is_writing() {
                if spent.trades < self.trades {
                    let key = spent.trades;
                    actions.push(Action::Place { catalog: at, key });
                }
                if spent.retries < self.retries {
                    let keys = 0..spent.trades;
                    actions.extend(keys.map(|key| Action::Place { catalog: at, key }));
                }
            }
        }
        let is_waiting = world.gateway.asking.is_some_and(|it| it.answer.is_some());
        if spent.asks < self.asks && !is_waiting && role == WriterRole::Active {
            actions.push(Action::Ask(at));
        }
        let is_news = |(version, _)| version > world.seen;
        if spent.reads < self.reads && world.answers(at).is_some_and(is_news) {
            actions.push(Action::Read(at));
        }
        for told in 0..world.told_by(at) {
            actions.push(Action::LetGo { catalog: at, told });
        }
        if role == WriterRole::Stopping && world.is_lent_to_by(at) {
            actions.push(Action::Surrender(at));
        }
        if role == WriterRole::Active && spent.stops < self.stops {
            actions.push(Action::Stop(at));
        }
    }
}

impl Explored for Bounds {
    fn told(_: &World, action: &Action) -> String {
        format!("{action:?}")
    }
}
