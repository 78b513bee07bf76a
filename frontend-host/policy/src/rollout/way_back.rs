//! The way back: to which version it leads, and that there is one.
//!
//! Behind the active version is the last other one that is good. That one is loaded, so that going back is one pointer
//! store. Where it takes the active one's place by itself, there is nobody behind it at first: one that is kept is
//! loaded then, in nobody's time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::change::Reason;
use super::error::SwapError;
use super::expected::Expected;
use super::kept::Kept;
use super::publication::Published;
use super::versions::{Versions, save_nothing};
use crate::admission::{AskedBy, Rejection};
use crate::guest::version::SharedVersion;

impl Versions {
    /// Makes the last good other version the active one again. Compiles where that one is not loaded
    /// and its code is not kept.
    pub fn roll_back(&self, reason: &Reason) -> Result<SharedVersion, SwapError> {
        self.roll_back_expecting(Expected::default(), reason)
    }

    /// The same.
    ///
    /// # Errors
    /// Also where the active version, or the one to go back to, is not as expected.
    pub fn roll_back_expecting(
        &self,
        expected: Expected<'_>,
        reason: &Reason,
    ) -> Result<SharedVersion, SwapError> {
        let now = self.published();
        // Nobody waits for a check whose end is known.
        expected.check_active(&now)?;
        let loaded = match self.load_behind(&now, AskedBy::Operator) {
            // What is loaded is there at once.
            Err(Rejection::Busy) if now.previous.is_some() => None,
            loaded => loaded?,
        };
        let target = target(&now, loaded.as_ref())?;
        expected.check_target(target)?;
        // It may have been checked long ago.
        let target = self.refreshed(target, AskedBy::Operator)?;
        let digest = target.digest.to_string();
        let published = self
            .registry
            .change("rollback", reason, save_nothing, |now| {
                // Another change may have come first.
                expected.check_active(now)?;
                let found = self::target(now, loaded.as_ref())?;
                Expected::digest(Some(&digest)).check_target(found)?;
                Ok(now.with_active(&target, now.candidate.clone(), self.probation))
            })?;
        Ok(Arc::clone(&published.active))
    }

    /// Sees to the way back: saves that the active version passed its probation, has the version behind it know the
    /// secrets that there are now, and has one behind it again where there is none, or none that is known to be good. To
    /// be called again and again, by one caller who may wait for a compiler and a disk.
    pub fn tend(&self) {
        let now = self.published();
        if now.closed.is_some() {
            return;
        }
        let passed = now.is_active_proven() && !now.active.is_proven();
        let secretive = now.previous.as_ref();
        let secretive = secretive.filter(|previous| previous.config.secrets().next().is_some());
        let is_searched = self.searched.load(Ordering::Relaxed) == now.generation;
        if !passed && secretive.is_none() && is_searched || self.is_held() {
            return;
        }
        if passed {
            self.registry.note_proven();
        }
        let is_known = secretive.is_none_or(|previous| self.knows_secrets(&now, previous));
        if is_known && !is_searched {
            self.find_behind(&now);
        }
    }

    /// Whether the version behind the active one knows the secrets that there are. If not, one that does takes its
    /// place; and nobody, where there are none: who has taken back a secret has not let anybody in with it.
    fn knows_secrets(&self, now: &Published, previous: &SharedVersion) -> bool {
        let fresh = self.refreshed(previous, AskedBy::Gateway);
        let is_there = matches!(fresh, Ok(_) | Err(Rejection::Busy));
        let was_missing = self.secrets_missing.swap(!is_there, Ordering::Relaxed);
        match fresh {
            Ok(fresh) if Arc::ptr_eq(&fresh, previous) => return true,
            Ok(fresh) => {
                self.registry.put_behind(now, Some(fresh));
            }
            // A file may be missing while it is replaced.
            Err(rejection) if is_there || !was_missing => {
                tracing::debug!(policy = %previous, %rejection, "it is looked at again");
            }
            Err(rejection) => {
                tracing::error!(policy = %previous, %rejection, "the policy behind the active one cannot have its secrets, and is behind it no more");
                self.registry.put_behind(now, None);
            }
        }
        false
    }

    /// Puts a version behind the active one that is better there.
    fn find_behind(&self, now: &Published) {
        let Ok(behind) = self.load_behind(now, AskedBy::Gateway) else {
            return; // another one is being checked
        };
        let generation = match behind {
            Some(version) => self.registry.put_behind(now, Some(version)),
            None => Some(now.generation),
        };
        if let Some(generation) = generation {
            self.searched.store(generation, Ordering::Relaxed);
        }
    }

    /// A version that is kept, where that is better behind the active one than what is there: the last that is good; or
    /// else the last that was not found to fail, where nothing is there. What is there and is good stays.
    ///
    /// # Errors
    /// Where another one is being checked.
    fn load_behind(
        &self,
        now: &Published,
        by: AskedBy,
    ) -> Result<Option<SharedVersion>, Rejection> {
        let previous = now.previous.as_ref();
        if previous.is_some_and(|previous| previous.is_good()) {
            return Ok(None);
        }
        let active = now.active.digest.to_string();
        let kept = self.kept().into_iter().rev();
        let kept: Vec<Kept> = kept.filter(|kept| kept.digest != active).collect();
        let is_there = previous.is_some();
        let good = kept.iter().filter(|kept| match is_there {
            true => kept.proven,
            false => kept.good,
        });
        let unknown = kept.iter().filter(|kept| !is_there && kept.is_unknown());
        for kept in good.chain(unknown) {
            let Some(saved) = self.registry.load_kept(&kept.digest) else {
                continue;
            };
            match self.admission.admit_again(saved.upload(), by) {
                Ok(admitted) => {
                    let version = admitted.into_version();
                    if kept.proven {
                        version.prove();
                    }
                    return Ok(Some(Arc::new(version)));
                }
                Err(Rejection::Busy) => return Err(Rejection::Busy),
                Err(rejection) => {
                    tracing::error!(policy = kept.digest, %rejection, "a kept policy does not pass its check any more");
                }
            }
        }
        Ok(None)
    }
}

/// What to go back to: see [`Published::way_back`].
fn target<'a>(
    now: &'a Published,
    loaded: Option<&'a SharedVersion>,
) -> Result<&'a SharedVersion, SwapError> {
    let target = now.way_back(loaded);
    let target = target.filter(|target| target.digest != now.active.digest);
    target.ok_or(SwapError::NothingToRollBackTo)
}
