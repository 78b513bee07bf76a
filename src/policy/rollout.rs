//! `bazaar policy rollout`: a version that takes the active one's place step by step.

use std::fs;
use std::path::Path;
use std::time::Duration;

use frontend_policy::rollout::Progress;
use serde::Deserialize;
use tokio::time::sleep;

use super::package::Package;
use super::{COMPILATION_TIME_MAX, PolicyError, parse};
use crate::admin::{Admin, Change, short};
use crate::cli;
use crate::output;
use crate::status;

/// How often it is looked how it goes on.
const LOOKED_EVERY: Duration = Duration::from_millis(500);

/// What the gateway says of it.
#[derive(Debug, Deserialize)]
struct Answer {
    rollout: Option<RolledOut>,
    /// The last change of the policy.
    last: Option<Change>,
}

/// What is rolled out, and how far that is.
#[derive(Debug, Deserialize)]
struct RolledOut {
    name: String,
    version: String,
    digest: String,
    #[serde(flatten)]
    progress: Progress,
}

/// Begins a rollout, steers one, or shows how it goes.
pub(super) async fn run(args: cli::Rollout) -> Result<(), PolicyError> {
    let cli::Rollout {
        file,
        plan,
        replace,
        config,
        watch,
        pause,
        resume,
        skip,
        admin,
    } = args;
    let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
    let steered = [(pause, "pause"), (resume, "resume"), (skip, "skip")];
    if let Some((_, how)) = steered.into_iter().find(|(is_asked, _)| *is_asked) {
        // What is meant is what is there now.
        let path = match look(&mut admin).await?.rollout {
            Some(rollout) => {
                let step = rollout.progress.step.to_string();
                let at = [("digest", rollout.digest.as_str()), ("step", &step)];
                super::query_path(&format!("/policy/rollout/{how}"), &at)
            }
            None => format!("/policy/rollout/{how}"),
        };
        admin.post(&path).await?;
    }
    if let Some(file) = file {
        let package = Package::open(&file)?.with_config(&config)?;
        let plan = plan.as_deref().map(read_plan).transpose()?;
        let path = match replace {
            Some(digest) => super::query_path("/policy/rollout", &[("replace", &digest)]),
            None => "/policy/rollout".to_owned(),
        };
        admin.put_by_plan(&path, plan.as_deref(), package).await?;
    }
    if watch {
        return follow(&mut admin).await;
    }
    let answer = look(&mut admin).await?;
    let text = match (&answer.rollout, &answer.last) {
        (Some(rollout), _) => describe(rollout),
        (None, Some(last)) => over(last),
        (None, None) => "nothing is rolled out\n".to_owned(),
    };
    Ok(output::print(&text)?)
}

/// A plan as the gateway is sent it.
pub(super) fn read_plan(path: &Path) -> Result<String, PolicyError> {
    fs::read_to_string(path).map_err(|source| PolicyError::File {
        path: path.to_owned(),
        source,
    })
}

async fn look(admin: &mut Admin) -> Result<Answer, PolicyError> {
    Ok(parse(&admin.get("/policy/rollout").await?)?)
}

/// Prints what is new, until the rollout is over or pauses.
async fn follow(admin: &mut Admin) -> Result<(), PolicyError> {
    let (mut shown, mut of) = (None, None);
    loop {
        let Answer { rollout, last } = look(admin).await?;
        let watched = rollout.filter(|rollout| of.as_ref().is_none_or(|of| *of == rollout.digest));
        let Some(rollout) = watched else {
            return ended(of.as_deref(), last);
        };
        let news = (
            rollout.progress.step,
            rollout.progress.state.clone(),
            rollout.progress.samples.checked_ilog2(),
            rollout.progress.why.clone(),
        );
        if shown.as_ref() != Some(&news) {
            output::print(&describe(&rollout))?;
            shown = Some(news);
        }
        of = Some(rollout.digest);
        if rollout.progress.state == "paused" {
            return Err(PolicyError::Paused);
        }
        sleep(LOOKED_EVERY).await;
    }
}

/// Whether the version that was rolled out is the active one now.
fn ended(of: Option<&str>, last: Option<Change>) -> Result<(), PolicyError> {
    let Some(last) = last else {
        return Err(PolicyError::NotRolledOut);
    };
    output::print(&over(&last))?;
    match of {
        Some(digest) if last.to == digest => Ok(()),
        _ => Err(PolicyError::NotRolledOut),
    }
}

fn over(last: &Change) -> String {
    let change = status::changes(std::slice::from_ref(last));
    format!("nothing is rolled out; the last change was:\n{change}")
}

fn describe(rollout: &RolledOut) -> String {
    let RolledOut {
        name,
        version,
        digest,
        progress,
    } = rollout;
    format!("{name} {version} ({}): {progress}", short(digest))
}
