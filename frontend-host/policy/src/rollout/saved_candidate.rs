//! A version that was on trial, as it is saved.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::audience::Audience;
use super::plan::Plan;
use super::progress::Rollout;
use super::publication::{Candidate, Terms};
use super::trial::{Share, Trial};

/// A version that was on trial.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SavedCandidate {
    pub(super) digest: String,
    stage: String,
    share: f64,
    pub(super) who: String,
    #[serde(default)]
    only: Vec<String>,
    #[serde(default)]
    rollout: Option<SavedRollout>,
}

/// How far its rollout was.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct SavedRollout {
    plan: String,
    step: usize,
    paused: Option<String>,
}

impl SavedCandidate {
    /// How it was tried. A rollout begins again with the step that it was at.
    pub(super) fn terms(&self) -> Option<Terms> {
        if let Some(SavedRollout { plan, step, paused }) = &self.rollout {
            let plan: Plan = plan.parse().ok()?;
            plan.steps.get(*step)?;
            let rollout = Rollout::resumed(Arc::new(plan), *step, paused.clone());
            return Some(Terms::of_rollout(&rollout));
        }
        let share = Share::new(self.share)?;
        let trial = Trial::named(&self.stage, share)?;
        Some(Terms::on(trial, Audience::parse(&self.only).ok()?))
    }
}

impl From<&Candidate> for SavedCandidate {
    fn from(candidate: &Candidate) -> Self {
        Self {
            digest: candidate.version.digest.to_string(),
            stage: candidate.trial.name().to_owned(),
            share: candidate.trial.share().get(),
            who: candidate.who.clone(),
            only: candidate.audience.texts(),
            rollout: candidate.rollout.as_ref().map(|rollout| SavedRollout {
                plan: rollout.plan.text().to_owned(),
                step: rollout.step,
                paused: rollout.paused.clone(),
            }),
        }
    }
}
