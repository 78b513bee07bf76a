//! Who may read and write a file, as SQLite sees to it: levels of a database file, and the
//! slots of the shared memory beside a write-ahead log.

use std::collections::BTreeMap;

pub type Holder = u64;

/// How far a holder's lock on a database file goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    None,
    Shared,
    Reserved,
    /// To write once nobody reads.
    Pending,
    Exclusive,
}

/// The locks on one database file.
#[derive(Debug, Default)]
pub struct Locks(BTreeMap<Holder, Level>);

impl Locks {
    /// Raises a holder's lock. `false` where another's is in the way.
    pub fn raise(&mut self, holder: Holder, level: Level) -> bool {
        if self.level(holder) >= level {
            return true;
        }
        let others = self.others(holder);
        let (granted, reached) = match level {
            Level::None => (true, Level::None),
            Level::Shared => (others < Level::Pending, Level::Shared),
            Level::Reserved => (others < Level::Reserved, Level::Reserved),
            Level::Pending | Level::Exclusive if others >= Level::Reserved => {
                (false, self.level(holder))
            }
            // Keeps new readers out while the last ones are waited for.
            Level::Pending | Level::Exclusive if others >= Level::Shared => (false, Level::Pending),
            Level::Pending | Level::Exclusive => (true, level),
        };
        if granted || level >= Level::Pending {
            self.0.insert(holder, reached);
        }
        granted
    }

    /// Lowers a holder's lock.
    pub fn lower(&mut self, holder: Holder, level: Level) {
        if level == Level::None {
            self.0.remove(&holder);
        } else {
            self.0.insert(holder, level);
        }
    }

    /// Whether anybody is about to write.
    pub fn is_reserved(&self) -> bool {
        self.0.values().any(|&level| level >= Level::Reserved)
    }

    fn level(&self, holder: Holder) -> Level {
        self.0.get(&holder).copied().unwrap_or(Level::None)
    }

    fn others(&self, holder: Holder) -> Level {
        let others = self.0.iter().filter(|(other, _)| **other != holder);
        others.map(|(_, &level)| level).max().unwrap_or(Level::None)
    }
}

/// Slots of the shared memory, as many as SQLite has.
pub const SLOTS: usize = 8;

/// The locks on the slots of one shared memory.
#[derive(Debug, Default)]
pub struct Slots([Slot; SLOTS]);

#[derive(Debug, Default)]
struct Slot {
    shared: Vec<Holder>,
    exclusive: Option<Holder>,
}

impl Slots {
    /// Takes slots, all or none. `false` where another holder is in the way.
    pub fn take(&mut self, holder: Holder, slots: std::ops::Range<usize>, exclusive: bool) -> bool {
        let free = |slot: &Slot| {
            let others_write = slot.exclusive.is_some_and(|other| other != holder);
            let others_read = slot.shared.iter().any(|&other| other != holder);
            !(others_write || exclusive && others_read)
        };
        let slots = &mut self.0[slots];
        if !slots.iter().all(free) {
            return false;
        }
        for slot in slots {
            if exclusive {
                slot.exclusive = Some(holder);
            } else if !slot.shared.contains(&holder) {
                slot.shared.push(holder);
            }
        }
        true
    }

    pub fn give_back(&mut self, holder: Holder, slots: std::ops::Range<usize>) {
        for slot in &mut self.0[slots] {
            slot.shared.retain(|&other| other != holder);
            slot.exclusive.take_if(|other| *other == holder);
        }
    }
}
