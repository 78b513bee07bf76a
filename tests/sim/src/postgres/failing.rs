//! How servers are lost, promoted, restarted and restored.

use std::time::Duration;

use crate::effects::Effect;
use crate::messages::Node;
use crate::timeline::{Happening, Timeline};

use super::{Cluster, Event, Fate, Role, SERVERS};

/// Until a standby is promoted, at most.
const PROMOTED_MAX: Duration = Duration::from_secs(2);

/// For how long a primary that was replaced takes statements, at most.
const APART_MAX: Duration = Duration::from_secs(3);

/// Until a server is up again, at most.
const UP_MAX: Duration = Duration::from_secs(2);

/// A connection to a machine that is gone is silent for so long, at most: what TCP has acknowledged in that time at the
/// latest, or breaks.
const SILENT_MAX: Duration = Duration::from_secs(5);

/// Again, where nobody can be promoted, or followed.
const AGAIN: Duration = Duration::from_millis(300);

/// Of a thousand machines that go so many go silently.
const SILENTLY_IN_A_THOUSAND: u32 = 300;

/// Most rows that are lost together.
const LOST_MAX: usize = 12;

/// What becomes of a primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Its machine is gone, and one is promoted that has all that was acknowledged.
    Replaced,
    /// It goes on for a while beside the one that was promoted.
    Outlived,
    /// One is promoted that lacks what was acknowledged.
    ReplacedByOlder,
    /// It is started again.
    Restarted,
    /// It is started again with an older copy of its disk.
    Restored,
}

impl Cluster {
    /// The primary is lost. Returns whether it could be.
    pub fn lose(&mut self, line: &mut Timeline, how: Loss) -> bool {
        let Some(old) = self.primary.filter(|&old| self.servers[old].up) else {
            return false;
        };
        let has_standby = self.standbys().next().is_some();
        let loses = matches!(how, Loss::ReplacedByOlder | Loss::Restored);
        if loses && self.rows_acknowledged() == 0 {
            return false;
        }
        match how {
            Loss::Restarted | Loss::Restored => {
                self.go_down(line, old);
                if loses {
                    self.lose_rows(line, old);
                }
                self.era += 1;
                let after = UP_MAX.mul_f64(line.random.f64().powi(2));
                line.after(after, Happening::Database(Event::Up(old)));
            }
            _ if !has_standby => return false,
            Loss::Replaced | Loss::Outlived | Loss::ReplacedByOlder => {
                self.primary = None;
                self.era += 1;
                let era = self.era;
                if how == Loss::Outlived {
                    let apart = APART_MAX.mul_f64(line.random.f64());
                    let demoted = Event::Demoted(old);
                    line.after(PROMOTED_MAX.min(apart), Happening::Database(demoted));
                } else {
                    self.go_down(line, old);
                    let after = UP_MAX.mul_f64(line.random.f64()) + AGAIN;
                    line.after(after, Happening::Database(Event::Up(old)));
                }
                let after = PROMOTED_MAX.mul_f64(line.random.f64().powi(2));
                let promoted = Event::Promoted { era, loses };
                line.after(after, Happening::Database(promoted));
            }
        }
        true
    }

    /// What becomes of the next commit at the primary.
    pub fn doom(&mut self, fate: Fate) -> bool {
        let Some(primary) = self.primary else {
            return false;
        };
        self.servers[primary].next = Some(fate);
        true
    }

    /// Standbys take their time.
    pub fn slow_down(&mut self, line: &Timeline, lasts: Duration) {
        for server in &mut self.servers {
            server.slow_until = line.now() + lasts;
        }
    }

    /// All goes well from now on.
    pub fn heal(&mut self, line: &mut Timeline) {
        for place in 0..SERVERS {
            let server = &mut self.servers[place];
            (server.next, server.slow_until) = (None, line.now());
        }
    }

    /// Rows of the journal, as of the last commit that was acknowledged.
    pub fn rows_acknowledged(&self) -> usize {
        let log = |primary: usize| &self.servers[primary].log;
        self.primary.map_or(0, |primary| {
            let log = log(primary);
            log.at(self.acknowledged.min(log.last())).rows
        })
    }

    fn standbys(&self) -> impl Iterator<Item = usize> {
        let standbys = self.servers.iter().enumerate();
        let standbys = standbys.filter(|(_, it)| it.up && it.role == Role::Standby);
        standbys.map(|(place, _)| place)
    }

    fn go_down(&mut self, line: &mut Timeline, place: usize) {
        let server = &mut self.servers[place];
        server.up = false;
        server.in_doubt = None;
        server.waiting.clear();
        server.locked_by = None;
        let of = self.connections.iter();
        let of = of.filter(|(_, connection)| connection.server == place);
        let of: Vec<u64> = of.map(|(&id, _)| id).collect();
        let is_silent = line.chance(SILENTLY_IN_A_THOUSAND);
        for id in of {
            let connection = self.connections.get_mut(&id).expect("it was found");
            connection.is_served = false;
            connection.queue.clear();
            connection.transaction = None;
            let most = if is_silent { SILENT_MAX } else { AGAIN / 100 };
            let after = most.mul_f64(line.random.f64());
            line.after(after, Happening::Database(Event::Broken(id)));
        }
    }

    /// A server's disk is as it was some rows ago. Returns whether it had any to lose.
    fn lose_rows(&mut self, line: &mut Timeline, place: usize) -> bool {
        let server = &mut self.servers[place];
        let last = self.acknowledged.min(server.log.last());
        let rows = server.log.at(last).rows;
        let lost = line.random.usize(1..=rows.clamp(1, LOST_MAX));
        let Some(older) = server.log.older(last, rows.saturating_sub(lost)) else {
            return false;
        };
        if server.log.at(older).rows == rows {
            return false;
        }
        server.log.truncate(older);
        server.visible = older;
        self.losses += 1;
        line.came(Effect::DatabaseLostRows);
        true
    }

    pub(super) fn promote(&mut self, line: &mut Timeline, era: u64, loses: bool) {
        if era != self.era || self.primary.is_some() {
            return;
        }
        let newest = self
            .standbys()
            .max_by_key(|&it| self.servers[it].log.last());
        let Some(newest) = newest else {
            let again = Event::Promoted { era, loses };
            return line.after(AGAIN, Happening::Database(again));
        };
        assert!(
            self.servers[newest].log.last() >= self.acknowledged,
            "a standby is promoted that has all that was acknowledged"
        );
        if loses {
            self.lose_rows(line, newest);
        }
        let timeline = self.servers.iter().map(|it| it.timeline).max();
        let server = &mut self.servers[newest];
        server.role = Role::Primary;
        server.timeline = timeline.unwrap_or_default() + 1;
        server.visible = server.log.last();
        self.primary = Some(newest);
        self.acknowledged = server.visible;
        line.came(Effect::FailedOver);
        self.have_all_follow(line);
    }

    /// All standbys are copies of the primary from now on.
    fn have_all_follow(&mut self, line: &mut Timeline) {
        let standbys: Vec<usize> = self.standbys().collect();
        for standby in standbys {
            self.have_follow(line, standby);
        }
    }

    fn have_follow(&mut self, line: &mut Timeline, standby: usize) {
        let Some(primary) = self.primary.filter(|&primary| primary != standby) else {
            return;
        };
        let log = self.servers[primary].log.clone();
        let timeline = self.servers[primary].timeline;
        let server = &mut self.servers[standby];
        (server.visible, server.timeline) = (log.last(), timeline);
        server.log = log;
        let (era, place) = (self.era, server.visible);
        let delay = line.stream_delay(Node::Database(standby), Node::Database(primary));
        let confirmed = Event::Confirmed {
            era,
            from: primary,
            place,
        };
        line.after(delay, Happening::Database(confirmed));
    }

    pub(super) fn demote(&mut self, line: &mut Timeline, server: usize) {
        if self.servers[server].role == Role::Standby || self.primary == Some(server) {
            return;
        }
        self.go_down(line, server);
        line.after(AGAIN, Happening::Database(Event::Up(server)));
    }

    pub(super) fn come_up(&mut self, line: &mut Timeline, place: usize) {
        if self.servers[place].up {
            return;
        }
        if self.primary == Some(place) {
            let server = &mut self.servers[place];
            server.up = true;
            server.started = line.now();
            // What was on its disk is there, whether a standby has it or not.
            server.visible = server.log.last();
            self.acknowledged = self.acknowledged.min(server.visible);
            line.came(Effect::DatabaseRestarted);
            return self.have_all_follow(line);
        }
        if self.primary.is_none() {
            return line.after(AGAIN, Happening::Database(Event::Up(place)));
        }
        let server = &mut self.servers[place];
        (server.up, server.role) = (true, Role::Standby);
        server.started = line.now();
        self.have_follow(line, place);
    }
}
