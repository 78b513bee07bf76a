//! What versions answered that are in service no more, for a while: whoever asks for it now and then is told of those,
//! too, that were in service for a moment.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::time::BootTime;

use crate::answered::Answered;
use crate::guest::digest::Digest;
use crate::guest::version::SharedVersion;

/// For how long it is told: several times as long as Prometheus waits from one look to the next.
const TOLD_FOR: Duration = Duration::from_secs(300);

/// Of how many versions at most, the last that left.
const DEPARTED_MAX: usize = 16;

/// A version, as far as it is told of when it is gone. Not its code, which is large.
#[derive(Debug, Clone)]
pub(super) struct Counted {
    id: u64,
    digest: Digest,
    answered: Arc<Answered>,
}

impl From<&SharedVersion> for Counted {
    fn from(version: &SharedVersion) -> Self {
        Self {
            id: version.id,
            digest: version.digest,
            answered: Arc::clone(&version.answered),
        }
    }
}

/// Those that left, and when.
#[derive(Debug, Default)]
pub(super) struct Departed(Mutex<VecDeque<(BootTime, Counted)>>);

impl Departed {
    /// These leave now.
    pub(super) fn note(&self, leaving: impl IntoIterator<Item = Counted>, now: BootTime) {
        let mut departed = self.lock();
        for version in leaving {
            // One can be back, and leave again.
            departed.retain(|(_, known)| known.id != version.id);
            departed.push_back((now, version));
        }
        while departed.len() > DEPARTED_MAX {
            departed.pop_front();
        }
    }

    /// What those answered that are not in service themselves. One whose component is in service again is told of
    /// for as long: a counter that goes down is taken for one that began anew.
    pub(super) fn told(
        &self,
        in_service: &[Counted],
        now: BootTime,
    ) -> Vec<(Digest, Arc<Answered>)> {
        let departed = self.lock();
        let told = departed.iter().filter(|(left, version)| {
            let is_there = in_service.iter().any(|other| other.id == version.id);
            let is_back = in_service.iter().any(|it| it.digest == version.digest);
            !is_there && (is_back || now.since(*left) < TOLD_FOR)
        });
        let told = told.map(|(_, version)| (version.digest, Arc::clone(&version.answered)));
        told.collect()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(BootTime, Counted)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(id: u64, component: &[u8]) -> Counted {
        Counted {
            id,
            digest: Digest::of(component),
            answered: Arc::default(),
        }
    }

    #[test]
    fn who_left_is_told_of_for_a_while_and_as_long_as_its_component_is_back() {
        let departed = Departed::default();
        let at = BootTime::from_millis(1_000);
        let (good, bad) = (version(1, b"good"), version(2, b"bad"));
        departed.note([bad.clone()], at);
        let told = |in_service: &[Counted], now| {
            let told = departed.told(in_service, now).into_iter();
            told.map(|(digest, _)| digest).collect::<Vec<_>>()
        };
        let in_service = [good];
        assert_eq!(told(&in_service, at), [bad.digest]);
        assert!(told(&in_service, at + TOLD_FOR).is_empty());
        let again = [version(3, b"bad")];
        assert_eq!(told(&again, at + TOLD_FOR), [bad.digest]);
        let itself = [bad];
        assert!(told(&itself, at).is_empty(), "it would count twice");
    }

    #[test]
    fn of_many_the_last_are_told_of() {
        let departed = Departed::default();
        let at = BootTime::from_millis(1_000);
        for id in 0..100 {
            departed.note([version(id, &id.to_le_bytes())], at);
        }
        let told = departed.told(&[], at);
        assert_eq!(told.len(), DEPARTED_MAX);
        assert_eq!(told[DEPARTED_MAX - 1].0, Digest::of(&99_u64.to_le_bytes()));
    }
}
