//! What can happen, within bounds.

use domain::{Epoch, ReplicaId};
use stateright::{Model, Property};

use super::properties;
use super::world::{Machine, World};
use crate::explore::{self, Explored};

/// A rule of either core.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Catalog(catalog_core::Rule),
    Order(order_core::Rule),
}

/// How often what can happen, and which rule is taken out.
#[derive(Debug, Clone)]
pub struct Bounds {
    pub replicas: u32,
    /// Elections. Replica 1 wins the first: which one does makes no difference.
    pub epochs: u64,
    /// How often each order is placed.
    pub attempts: &'static [u8],
    /// Calls whose caller gives up. The call, if it was not answered, may arrive later.
    pub give_ups: u8,
    /// Crashes, each of which loses what is not durable.
    pub restarts: u8,
    /// Disks that fail what queues, and lose nothing else.
    pub disk_failures: u8,
    /// Leaps of a replica's clock, each over all that it waits for.
    pub leaps: u8,
    /// Regular questions to the catalog that are answered.
    pub polls: u8,
    /// Rows are proposed before they are committed.
    pub proposes: bool,
    /// Crashes of the catalog, each of which loses what it proposed.
    pub losses: u8,
    /// Restarts of the catalog on its database as it was before the last commit.
    pub rollbacks: u8,
    /// Restarts of such a catalog before it serves.
    pub interrupts: u8,
    /// Whether such a catalog knows that rows may be missing. Otherwise a ledger has to show it: rows that are only
    /// beside ledgers yet do not.
    pub suspects: bool,
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

    /// The replicas' rules in force.
    pub fn order_rules(&self) -> order_core::Rules {
        match self.without {
            Some(Rule::Order(rule)) => order_core::Rules::without(rule),
            _ => order_core::Rules::default(),
        }
    }
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The catalog elects a leader.
    Elect(ReplicaId),
    /// A gateway tells a replica who leads in an epoch, which may be over.
    Announce(ReplicaId, Epoch),
    /// A client places an order, or places it again.
    Place { order: usize, at: ReplicaId },
    /// A call or an answer arrives.
    Deliver(usize),
    /// A replica gives up one of the calls that it waits for.
    GiveUp { at: ReplicaId, call: usize },
    /// The catalog's disk makes durable what was proposed.
    Commit,
    /// The catalog crashes instead.
    Lose,
    /// A disk makes durable what queues.
    Save(ReplicaId),
    /// A disk fails what queues.
    FailToSave(ReplicaId),
    /// A replica crashes, and starts again.
    Restart(ReplicaId),
    /// Time passes at a replica.
    Leap(ReplicaId),
    /// The catalog tells a replica who leads, and how long the journal is.
    Poll(ReplicaId),
    /// The catalog ends, and starts on its database as it was before the last commit.
    RollBack,
    /// That one tells a replica that it has started, and has it report.
    Tell(ReplicaId),
    /// It puts back what is missing, or serves.
    Heal,
    /// It ends before, and starts again on what it has put back.
    Interrupt,
}

impl Model for Bounds {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::new(self)]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        actions.extend((0..world.network.len()).map(Action::Deliver));
        let elections = world.terms.len() as u64;
        if let Some(healing) = &world.healing {
            let all = world.machines.iter().map(Machine::id);
            let silent = all.filter(|it| !healing.reports.contains_key(it));
            actions.extend(silent.map(Action::Tell));
            if world.may_heal(self) {
                actions.push(Action::Heal);
            }
            if healing.has_put_back && world.spent.interrupts < self.interrupts {
                actions.push(Action::Interrupt);
            }
        } else if world.spent.rollbacks < self.rollbacks
            && world.older.is_some()
            && world.committing.is_none()
            && (self.suspects || world.is_loss_seen())
        {
            actions.push(Action::RollBack);
        }
        let serves = world.healing.is_none();
        if world.committing.is_some() {
            actions.push(Action::Commit);
            if world.spent.losses < self.losses {
                actions.push(Action::Lose);
            }
        }
        for machine in &world.machines {
            let at = machine.id();
            if serves && elections < self.epochs && (elections > 0 || at.get() == 1) {
                actions.push(Action::Elect(at));
            }
            let unknown = (machine.heard().0 + 1..=elections).map(Epoch);
            if serves {
                actions.extend(unknown.map(|epoch| Action::Announce(at, epoch)));
            }
            if machine.leads() {
                let more = |&order: &usize| world.spent.attempts[order] < self.attempts[order];
                let orders = (0..self.attempts.len()).filter(more);
                actions.extend(orders.map(|order| Action::Place { order, at }));
            }
            if !machine.saves.is_empty() {
                actions.push(Action::Save(at));
                if world.spent.disk_failures < self.disk_failures {
                    actions.push(Action::FailToSave(at));
                }
            }
            if world.spent.give_ups < self.give_ups {
                let calls = 0..machine.replica.awaited().len();
                actions.extend(calls.map(|call| Action::GiveUp { at, call }));
            }
            if world.spent.restarts < self.restarts {
                actions.push(Action::Restart(at));
            }
            if world.spent.leaps < self.leaps && machine.replica.wake().is_some() {
                actions.push(Action::Leap(at));
            }
            if serves && world.spent.polls < self.polls {
                actions.push(Action::Poll(at));
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

impl Explored for Bounds {
    fn told(world: &World, action: &Action) -> String {
        match action {
            Action::Deliver(packet) => format!("{:?}", world.network[*packet]),
            action => format!("{action:?}"),
        }
    }
}
