//! Rollouts: how operators begin and steer them, and how they go on by themselves.

use std::sync::Arc;

use domain::time::BootTime;

use super::change::Reason;
use super::error::SwapError;
use super::progress::{GateAnswer, Next, Progress, Question, Rollout};
use super::publication::{Candidate, Published, Terms};
use super::versions::{Versions, save_nothing};
use crate::guest::version::SharedVersion;

/// Who changes the policy in a rollout.
const WHO: &str = "rollout";

impl Versions {
    /// How far the rollout is, where there is one, and what is rolled out.
    pub fn rollout(&self) -> Option<(SharedVersion, Progress)> {
        let published = self.published();
        let candidate = published.candidate.as_ref()?;
        let progress = candidate.rollout.as_ref()?.progress();
        Some((Arc::clone(&candidate.version), progress))
    }

    /// Has the rollout stay at its step until it is resumed or skips that.
    pub fn pause_rollout(&self, reason: &Reason) -> Result<(), SwapError> {
        let why = format!("by {}: {}", reason.who, reason.why);
        self.steer("pause", reason, |rollout| (rollout.step, Some(why)))
    }

    /// Has the rollout go on with its step, from the beginning of that.
    pub fn resume_rollout(&self, reason: &Reason) -> Result<(), SwapError> {
        self.steer("resume", reason, |rollout| (rollout.step, None))
    }

    /// Has the rollout go on with the next step, whatever is shown in this one, and without asking that
    /// one's gate. After the last it makes the version the active one.
    pub fn skip_step(&self, reason: &Reason) -> Result<(), SwapError> {
        self.steer("skip", reason, |rollout| (rollout.step + 1, None))
    }

    /// Does what is to be done about the rollout; returns what a gate is to be asked. To be called again
    /// and again, by one caller who may wait for a disk.
    pub fn go_on(&self) -> Option<Question> {
        let published = self.published();
        let candidate = published.candidate.as_ref()?;
        let rollout = candidate.rollout.as_ref()?;
        let done = match rollout.next(BootTime::now()) {
            Next::Wait => return None,
            Next::Ask(gate) => return Some(rollout.question(gate, &candidate.version)),
            Next::Step(step) => {
                let why = format!("step {} passed: {}", rollout.step + 1, seen(rollout));
                self.change_rollout("step", rollout, &why, |_| Some((step, None)))
            }
            Next::Pause(why) => {
                let paused = Some(why.clone());
                self.change_rollout("pause", rollout, &why, |rollout| {
                    Some((rollout.step, paused))
                })
            }
            Next::Promote => {
                let why = format!("the last step passed: {}", seen(rollout));
                self.change_rollout("promote", rollout, &why, |rollout| {
                    Some((rollout.plan.steps.len(), None))
                })
            }
            Next::Fail(why) => self.change_rollout("drop", rollout, &why, |_| None),
        };
        if let Err(error) = done {
            tracing::error!(%error, "the rollout does not go on");
        }
        None
    }

    /// What a gate said.
    pub fn gate_answered(&self, question: &Question, answer: GateAnswer) {
        let rollout = &question.rollout;
        if let Some(why) = rollout.answered(answer) {
            let why = format!("the gate of step {} refused: {why}", rollout.step + 2);
            let paused = Some(why.clone());
            let paused = self.change_rollout("pause", rollout, &why, |rollout| {
                Some((rollout.step, paused))
            });
            if let Err(error) = paused {
                tracing::error!(%error, "the rollout does not pause");
            }
        }
    }

    /// Changes a rollout that is still as it was; `to` says which step it goes to and why it is paused
    /// there, or `None` to drop the version. Where something else has changed, that is left as it is.
    fn change_rollout(
        &self,
        what: &'static str,
        was: &Arc<Rollout>,
        why: &str,
        to: impl FnOnce(&Rollout) -> Option<(usize, Option<String>)>,
    ) -> Result<(), SwapError> {
        let reason = Reason {
            who: WHO.into(),
            why: why.to_owned(),
        };
        let changed = self.registry.change(what, &reason, save_nothing, |now| {
            let (candidate, rollout) = under_way(now)?;
            if !Arc::ptr_eq(rollout, was) {
                return Err(SwapError::NoRollout);
            }
            Ok(match to(rollout) {
                Some((step, paused)) => self.at_step(now, candidate, rollout, step, paused),
                None => now.with_candidate(None),
            })
        });
        match changed {
            Ok(_) | Err(SwapError::NoRollout | SwapError::NoCandidate) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn steer(
        &self,
        what: &'static str,
        reason: &Reason,
        to: impl FnOnce(&Rollout) -> (usize, Option<String>),
    ) -> Result<(), SwapError> {
        self.registry.change(what, reason, save_nothing, |now| {
            let (candidate, rollout) = under_way(now)?;
            let (step, paused) = to(rollout);
            Ok(self.at_step(now, candidate, rollout, step, paused))
        })?;
        Ok(())
    }

    /// With the rollout at a step, of which nothing has been seen yet; behind the last one the version is
    /// active.
    fn at_step(
        &self,
        now: &Published,
        candidate: &Candidate,
        rollout: &Rollout,
        step: usize,
        paused: Option<String>,
    ) -> Published {
        if step >= rollout.plan.steps.len() {
            return now.with_active(&candidate.version, None, self.probation);
        }
        let rollout = Rollout::resumed(Arc::clone(&rollout.plan), step, paused);
        let candidate = candidate.with_terms(Terms::of_rollout(&rollout));
        now.with_candidate(Some(candidate))
    }
}

/// The candidate that is rolled out, and how far that is.
fn under_way(now: &Published) -> Result<(&Candidate, &Arc<Rollout>), SwapError> {
    let candidate = now.candidate.as_ref().ok_or(SwapError::NoRollout)?;
    let rollout = candidate.rollout.as_ref().ok_or(SwapError::NoRollout)?;
    Ok((candidate, rollout))
}

/// What a step has shown, in words.
fn seen(rollout: &Rollout) -> String {
    let progress = rollout.progress();
    let seen: Vec<_> = progress
        .measures
        .iter()
        .map(|it| it.seen.as_str())
        .collect();
    match seen.is_empty() {
        true => format!("{} samples", progress.samples),
        false => seen.join("; "),
    }
}
