//! How many callers ask this catalog who leads: what it is compared by with others (`catalog_core::reach`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::time::BootTime;
use rpc::clients::Client;
use rpc::listen::Peer;
use tls::Role;

use catalog_core::reach::CALLER_COUNTS_FOR;

/// Most callers that are counted: more than there can be.
const COUNTED_MAX: usize = 4096;

/// Who asked of late. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Callers {
    asked: Arc<Mutex<HashMap<Client, BootTime>>>,
}

impl Callers {
    /// Somebody asked. Where callers prove who they are, only those count that clients need: no person, and no other catalog.
    pub fn note_peer(&self, peer: &Peer, now: BootTime) {
        let client = peer.client();
        let counts = match &client {
            Client::Service(principal, _) => {
                matches!(principal.role(), Role::Gateway | Role::Order)
            }
            Client::Remote(_) | Client::Local(_) => true,
        };
        if counts {
            self.note(client, now);
        }
    }

    /// The same of one that counts.
    pub fn note(&self, client: Client, now: BootTime) {
        let mut asked = self.asked();
        if asked.len() >= COUNTED_MAX && !asked.contains_key(&client) {
            forget(&mut asked, now);
        }
        if asked.len() < COUNTED_MAX || asked.contains_key(&client) {
            asked.insert(client, now);
        }
    }

    /// How many asked of late.
    pub fn count(&self, now: BootTime) -> u64 {
        let mut asked = self.asked();
        forget(&mut asked, now);
        asked.len() as u64
    }

    fn asked(&self) -> MutexGuard<'_, HashMap<Client, BootTime>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn forget(asked: &mut HashMap<Client, BootTime>, now: BootTime) {
    asked.retain(|_, at| now.since(*at) <= CALLER_COUNTS_FOR);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: BootTime = BootTime::from_millis(60_000);

    #[test]
    fn each_caller_counts_once_for_a_while() {
        let callers = Callers::default();
        assert_eq!(callers.count(NOW), 0);
        callers.note(Client::Local(1), NOW);
        callers.note(Client::Local(2), NOW);
        callers.note(Client::Local(1), NOW + CALLER_COUNTS_FOR);
        assert_eq!(callers.count(NOW + CALLER_COUNTS_FOR), 2);
        let later = NOW + CALLER_COUNTS_FOR * 2;
        assert_eq!(callers.count(later), 1, "the second one asks no more");
        assert_eq!(callers.count(later + CALLER_COUNTS_FOR), 0);
    }

    #[test]
    fn however_many_there_are_they_take_bounded_room() {
        let callers = Callers::default();
        let many = COUNTED_MAX as u64 + 10;
        for number in 0..many {
            callers.note(Client::Local(number), NOW);
        }
        assert_eq!(callers.count(NOW), COUNTED_MAX as u64);
        let later = NOW + CALLER_COUNTS_FOR * 2;
        callers.note(Client::Local(many), later);
        assert_eq!(callers.count(later), 1);
    }
}
