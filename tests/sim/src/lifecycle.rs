//! How processes start, stop and crash, and how all becomes well.

use std::time::Duration;

use domain::ReplicaId;
use order_core::Failure;
use simulated_disk::{Death, Disk, Faults};
use storage::StorageError;

use crate::catalog::Catalog;
use crate::gateway::Gateway;
use crate::messages::Node;
use crate::replica::Replica;
use crate::timeline::Happening;
use crate::world::World;

impl World {
    pub fn start(&mut self, node: Node) {
        let host = self.line.host(node);
        if host.up {
            return;
        }
        host.up = true;
        host.run += 1;
        host.paused_until = None;
        let (line, oracle, plan) = (&mut self.line, &mut self.oracle, &self.plan);
        let started = match node {
            Node::Catalog => Catalog::start(line, oracle, plan, &self.disks[&node])
                .map(|catalog| self.catalog = Some(catalog)),
            Node::Replica(id) => Replica::start(line, oracle, plan, id, &self.disks[&node])
                .map(|replica| drop(self.replicas.insert(id, replica))),
            Node::Gateway(gateway) => {
                let started = Gateway::start(line, plan, gateway);
                self.gateways.insert(gateway, started);
                Ok(())
            }
            Node::Client(_) => unreachable!("clients always run"),
        };
        self.line
            .note(5, Some(node), || format!("{node:?} starts: {started:?}"));
        match started {
            Ok(()) if self.is_dead(node) => self.crash(node, Death::Killed),
            Ok(()) => self.rewake(node),
            Err(StorageError::Damaged(damage)) => panic!("{node:?} finds damage: {damage}"),
            Err(StorageError::Foreign { .. }) if !self.is_dead(node) => {
                panic!("{node:?} does not know its own database")
            }
            Err(_) => self.crash(node, Death::Killed),
        }
    }

    /// A replica's process ends, and its disk is replaced by an empty one.
    pub fn replace_disk(&mut self, id: ReplicaId) {
        let node = Node::Replica(id);
        self.crash(node, Death::Killed);
        let disk = Disk::new(self.line.random.u64(..));
        disk.set_faults(Faults {
            lies: self.disks[&node].faults().lies,
            ..Faults::default()
        });
        self.disks.insert(node, disk);
        self.oracle.disk_lost(id);
    }

    /// A replica that cannot begin ends. So does one that must not be believed, and whoever operates
    /// it gives it an empty disk.
    pub fn end_failed(&mut self, id: ReplicaId) {
        if self.replicas.get(&id).is_some_and(Replica::has_failed) {
            return self.crash(Node::Replica(id), Death::Killed);
        }
        let refuted = self.replicas.get(&id).and_then(|replica| replica.refuted());
        if let Some(failure) = refuted {
            let is_foreign = matches!(failure, Failure::OtherJournal { .. });
            assert!(is_foreign, "replica {id} is not believed: {failure}");
            self.replace_disk(id);
        }
    }

    fn is_dead(&self, node: Node) -> bool {
        self.disks.get(&node).is_some_and(Disk::is_dead)
    }

    /// A process is told to stop, and does so properly, unless it has something under way.
    pub fn stop(&mut self, node: Node) {
        let line = &mut self.line;
        match node {
            Node::Catalog => {
                if let Some(catalog) = self.catalog.take_if(|catalog| catalog.is_idle()) {
                    catalog.stop(line);
                }
            }
            Node::Replica(id) => drop(self.replicas.remove(&id)),
            Node::Gateway(gateway) => {
                if let Some(gateway) = self.gateways.get_mut(&gateway) {
                    gateway.release(line);
                }
            }
            Node::Client(_) => unreachable!("clients always run"),
        }
        self.crash(node, Death::Killed);
    }

    /// A process ends, in the way that its disk did where that did.
    pub fn crash(&mut self, node: Node, death: Death) {
        if !self.line.host(node).up {
            return;
        }
        let mut death = death;
        if let Some(disk) = self.disks.get(&node) {
            match disk.take_death() {
                Some(died) => death = died,
                None => {
                    disk.die(death);
                    disk.take_death();
                }
            }
        }
        self.line
            .note(6, Some(node), || format!("{node:?} is gone: {death:?}"));
        let host = self.line.host(node);
        host.up = false;
        host.paused_until = None;
        match node {
            Node::Catalog => self.catalog = None,
            Node::Replica(id) => drop(self.replicas.remove(&id)),
            Node::Gateway(gateway) => {
                let gone = self.gateways.remove(&gateway);
                self.hits += gone.map_or(0, |gateway| gateway.hits);
            }
            Node::Client(_) => unreachable!("clients always run"),
        }
        self.break_streams(node, death);
        if death != Death::Killed {
            self.line.boot(node);
        }
        let down_max = if self.healed.is_some() { 50 } else { 2_000 };
        let down = self
            .line
            .between(Duration::from_millis(1), Duration::from_millis(down_max));
        self.line.after(down, Happening::Start(node));
    }

    /// A process's end closes its connections; a machine's says nothing for a while.
    fn break_streams(&mut self, node: Node, death: Death) {
        let of = match node {
            Node::Catalog => None,
            node => Some(node),
        };
        let silence = match death {
            Death::Killed => Duration::from_millis(1),
            Death::PowerLost(_) => Duration::from_secs(5),
        };
        for stream in self.line.network.open_streams(of) {
            let delay = self.line.between(Duration::from_micros(50), silence);
            self.line.break_stream(stream, delay);
        }
    }

    /// All is well from now on.
    pub fn heal(&mut self) {
        self.line.note(7, None, || "all is well".into());
        self.healed = Some(self.line.now());
        self.line.network.heal();
        for disk in self.disks.values() {
            disk.set_faults(Faults {
                lies: disk.faults().lies,
                ..Faults::default()
            });
        }
        let now = self.line.now();
        for host in self.line.hosts.values_mut() {
            host.slow_until = now;
            host.paused_until = None;
        }
        for client in &mut self.clients {
            client.finish(self.plan.operations);
        }
    }
}
