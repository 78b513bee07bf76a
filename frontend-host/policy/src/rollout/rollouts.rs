//! Rollouts: how operators begin and steer them, and how they go on by themselves.

use std::sync::Arc;

use domain::time::BootTime;

use super::change::Reason;
use super::error::SwapError;
use super::progress::{GateAnswer, Next, Progress, Question, Rollout};
use super::publication::{Candidate, Published, Terms};
use super::trial::Trial;
use super::versions::{Versions, save_nothing};
use crate::decision::OnFailure;
use crate::guest::version::SharedVersion;

/// Who changes the policy in a rollout.
const WHO: &str = "rollout";

impl Versions {
    /// How far the rollout is, where there is one, and what is rolled out.
    pub fn rollout(&self) -> Option<(SharedVersion, Progress)> {
        let published = self.published();
        let candidate = published.candidate.as_ref()?;
        let progress = candidate.rollout.as_ref()?.progress(wants(&published));
        Some((Arc::clone(&candidate.version), progress))
    }

    /// Has the rollout stay at its step until it is resumed or skips that.
    pub fn pause_rollout(&self, at: &At, reason: &Reason) -> Result<(), SwapError> {
        let why = format!("by {}: {}", reason.who, reason.why);
        self.steer("pause", at, reason, |rollout| To::Same(rollout, Some(why)))
    }

    /// Has the rollout go on with its step, whose time begins anew. What was seen in it counts.
    pub fn resume_rollout(&self, at: &At, reason: &Reason) -> Result<(), SwapError> {
        self.steer("resume", at, reason, |rollout| To::Same(rollout, None))
    }

    /// Has the rollout go on with the next step, whatever is shown in this one, and without asking that
    /// one's gate. After the last it makes the version the active one.
    pub fn skip_step(&self, at: &At, reason: &Reason) -> Result<(), SwapError> {
        self.steer("skip", at, reason, |rollout| {
            To::Step(rollout, rollout.step + 1)
        })
    }

    /// Does what is to be done about the rollout; returns what a gate is to be asked. To be called again
    /// and again, by one caller who may wait for a disk.
    pub fn go_on(&self) -> Option<Question> {
        let published = self.published();
        // Nothing is decided: neither by the version that is rolled out.
        if published.closed.is_some() {
            return None;
        }
        let candidate = published.candidate.as_ref()?;
        let rollout = candidate.rollout.as_ref()?;
        // Whoever goes on with it then, this process or the one that takes its place, does what is to be done.
        if self.is_held() {
            return None;
        }
        let active = wants(&published);
        match rollout.next(BootTime::now(), active) {
            Next::Wait => {}
            Next::Ask(gate) => return Some(rollout.question(gate, &candidate.version, active)),
            Next::Step(step) => {
                let seen = seen(rollout, active);
                let why = format!("step {} passed: {seen}", rollout.step + 1);
                self.change_rollout("step", rollout, &why, |rollout| To::Step(rollout, step));
            }
            Next::Promote => {
                let why = format!("the last step passed: {}", seen(rollout, active));
                self.change_rollout("promote", rollout, &why, |rollout| {
                    To::Step(rollout, rollout.plan.steps.len())
                });
            }
            Next::Pause(why) => self.pause_by_itself(rollout, why),
            // Without it another version would decide what this one wants refused.
            Next::Fail(why) if keeps_out(candidate) => {
                if rollout.paused.is_none() {
                    self.pause_by_itself(rollout, format!("{why}: drop it, if that is right"));
                }
            }
            Next::Fail(why) => self.registry.drop_rolled_out(rollout, &by_itself(&why)),
        }
        None
    }

    /// What a gate said.
    pub fn gate_answered(&self, question: &Question, answer: GateAnswer) {
        let rollout = &question.rollout;
        if let Some(why) = rollout.answered(answer) {
            let why = format!("the gate of step {} refused: {why}", rollout.step + 2);
            self.pause_by_itself(rollout, why);
        }
    }

    fn pause_by_itself(&self, rollout: &Arc<Rollout>, why: String) {
        let paused = why.clone();
        self.change_rollout("pause", rollout, &why, |rollout| {
            To::Same(rollout, Some(paused))
        });
    }

    /// Changes a rollout that is still as it was. Where something else has changed, that is left as it is.
    fn change_rollout(
        &self,
        what: &'static str,
        was: &Arc<Rollout>,
        why: &str,
        to: impl FnOnce(&Rollout) -> To<'_>,
    ) {
        let changed = self
            .registry
            .change(what, &by_itself(why), save_nothing, |now| {
                let (candidate, rollout) = under_way(now)?;
                if !Arc::ptr_eq(rollout, was) || now.closed.is_some() {
                    return Err(SwapError::NoRollout);
                }
                Ok(self.changed(now, candidate, to(rollout)))
            });
        if let Err(error) = changed
            && !matches!(error, SwapError::NoRollout)
        {
            tracing::error!(%error, "the rollout does not go on; it is tried again");
            was.hold_back(BootTime::now());
        }
    }

    fn steer(
        &self,
        what: &'static str,
        at: &At,
        reason: &Reason,
        to: impl FnOnce(&Rollout) -> To<'_>,
    ) -> Result<(), SwapError> {
        self.registry.change(what, reason, save_nothing, |now| {
            let (candidate, rollout) = under_way(now)?;
            at.check(candidate, rollout)?;
            Ok(self.changed(now, candidate, to(rollout)))
        })?;
        Ok(())
    }

    fn changed(&self, now: &Published, candidate: &Candidate, to: To<'_>) -> Published {
        let rollout = match to {
            To::Same(rollout, paused) => rollout.with_paused(paused),
            // Behind the last step the version is active.
            To::Step(rollout, step) if step >= rollout.plan.steps.len() => {
                return now.with_active(&candidate.version, None, self.probation);
            }
            To::Step(rollout, step) => Rollout::begin(Arc::clone(&rollout.plan), step),
        };
        let candidate = candidate.with_terms(Terms::of_rollout(&rollout));
        now.with_candidate(Some(candidate))
    }
}

/// Where a rollout goes.
enum To<'a> {
    /// It stays at its step, paused or not, with what was seen.
    Same(&'a Rollout, Option<String>),
    /// To a step, counted from 0, of which nothing has been seen yet.
    Step(&'a Rollout, usize),
}

/// Which rollout is meant, and where it was when that was said.
#[derive(Debug, Clone, Default)]
pub struct At {
    /// Digest of the version, or the beginning of it; any where it is not named.
    pub digest: Option<String>,
    /// The step, counted from 1.
    pub step: Option<usize>,
}

impl At {
    fn check(&self, candidate: &Candidate, rollout: &Rollout) -> Result<(), SwapError> {
        let digest = candidate.version.digest.to_string();
        let is_named = |named: &String| !named.is_empty() && digest.starts_with(named.as_str());
        let is_it = self.digest.as_ref().is_none_or(is_named)
            && self.step.is_none_or(|step| step == rollout.step + 1);
        match is_it {
            true => Ok(()),
            false => Err(SwapError::OtherStep {
                step: rollout.step + 1,
                digest,
            }),
        }
    }
}

/// Whether it is a canary that wants refused what it fails at.
fn keeps_out(candidate: &Candidate) -> bool {
    matches!(candidate.trial, Trial::Canary(_))
        && candidate.version.manifest.on_failure == OnFailure::Refuse
}

fn by_itself(why: &str) -> Reason {
    Reason {
        who: WHO.into(),
        why: why.to_owned(),
        ..Reason::default()
    }
}

/// The candidate that is rolled out, and how far that is.
fn under_way(now: &Published) -> Result<(&Candidate, &Arc<Rollout>), SwapError> {
    let candidate = now.candidate.as_ref().ok_or(SwapError::NoRollout)?;
    let rollout = candidate.rollout.as_ref().ok_or(SwapError::NoRollout)?;
    Ok((candidate, rollout))
}

/// What the active version wants done about what it fails at.
fn wants(published: &Published) -> OnFailure {
    published.active.manifest.on_failure
}

/// What a step has shown, in words.
fn seen(rollout: &Rollout, active: OnFailure) -> String {
    let progress = rollout.progress(active);
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
