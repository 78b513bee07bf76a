//! How processes start, stop and crash, and how all becomes well.

use std::time::Duration;

use simulated_disk::{Death, Disk, Faults};
use storage::StorageError;

use crate::catalog::{Catalog, JOURNAL, NotStarted, Start};
use crate::effects::Effect;
use crate::gateway::Gateway;
use crate::messages::Node;
use crate::nemesis::Kind;
use crate::operator::CatalogDisk;
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
        host.journal = matches!(node, Node::Gateway(_)).then_some(JOURNAL);
        self.hinder(node);
        if matches!(node, Node::Replica(_) | Node::Gateway(_)) {
            self.begin_following(self.line.run(node));
        }
        if node == Node::Catalog && self.is_time_to_back_up() {
            self.back_up();
        }
        let (line, oracle, plan) = (&mut self.line, &mut self.oracle, &self.plan);
        let started = match node {
            Node::Catalog => {
                let disk = &self.disks[&node];
                let catalog_disk = self.operator.catalog_disk;
                let how = Start {
                    new: !self.operator.has_begun,
                    restored: catalog_disk != CatalogDisk::Whole,
                    lease: self.operator.lease,
                    silent: oracle.silent(),
                };
                Catalog::start(line, oracle, plan, disk, how)
                    .map(|catalog| self.catalog = Some(catalog))
            }
            Node::Replica(id) => {
                let rebuilds = self.operator.rebuilds.remove(&id);
                Replica::start(line, oracle, plan, id, &self.disks[&node], rebuilds)
                    .map(|replica| drop(self.replicas.insert(id, replica)))
                    .map_err(NotStarted::from)
            }
            Node::Gateway(gateway) => {
                let started = Gateway::start(line, plan, gateway);
                self.gateways.insert(gateway, started);
                Ok(())
            }
            Node::Member(index) => {
                self.start_member(index);
                Ok(())
            }
            Node::Client(_) | Node::Database(_) => unreachable!("it is not started"),
        };
        self.line
            .note(5, Some(node), || format!("{node:?} starts: {started:?}"));
        match started {
            Ok(()) if self.is_dead(node) => self.crash(node, Death::Killed),
            Ok(()) => {
                if node == Node::Catalog {
                    self.catalog_starts(node);
                }
                self.rewake(node);
            }
            Err(NotStarted::NoJournal) => {
                self.line.came(Effect::NoJournal);
                self.crash(node, Death::Killed);
            }
            Err(NotStarted::Storage(error)) => self.not_started(node, error),
        }
    }

    fn not_started(&mut self, node: Node, error: StorageError) {
        match (node, error) {
            (Node::Replica(id), _) if self.oracle.is_damaged(id) && !self.is_dead(node) => {
                self.rebuild_replica(id);
            }
            (_, StorageError::Damaged(damage)) => panic!("{node:?} finds damage: {damage}"),
            (_, StorageError::Foreign { .. }) if !self.is_dead(node) => {
                panic!("{node:?} does not know its own database")
            }
            _ => self.crash(node, Death::Killed),
        }
    }

    /// Whether whoever operates the catalog copies its disk before it is started.
    fn is_time_to_back_up(&mut self) -> bool {
        self.plan.faults.has(Kind::Rollback) && self.line.random.bool()
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
            Node::Member(index) => return self.stop_member(index),
            Node::Client(_) | Node::Database(_) => unreachable!("it is not stopped"),
        }
        self.crash(node, Death::Killed);
    }

    /// A process ends, in the way that its disk did where that did.
    pub fn crash(&mut self, node: Node, death: Death) {
        if !self.line.host(node).up {
            return;
        }
        self.hinder(node);
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
            Node::Member(index) => {
                let site = self.site.as_mut().expect("there are several catalogs");
                site.members.remove(&index);
            }
            Node::Client(_) | Node::Database(_) => unreachable!("it does not end"),
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
        if let Some(site) = &mut self.site {
            site.cluster.heal(&mut self.line);
        }
        self.mend();
        self.replace_damaged();
        for client in &mut self.clients {
            client.finish(self.plan.operations);
        }
    }
}
