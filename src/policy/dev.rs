//! `bazaar policy dev`: builds a policy whenever its source is saved, and tries it out in a running
//! gateway.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use frontend_policy::replay::{Example, Found};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use serde::Deserialize;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admin::{Admin, AdminError, Policies};
use crate::cli;
use crate::output;
use crate::stop::StopSignals;

use super::PolicyError;
use super::package::Package;
use super::source::{Source, SourceError};

/// A save is over when nothing was written for so long: editors write several files.
const QUIET: Duration = Duration::from_millis(200);

/// Pause between two times that differences are shown.
const SHOW_INTERVAL: Duration = Duration::from_millis(500);

/// Examples that are shown of each kind of difference at a time.
const EXAMPLES_SHOWN_MAX: u64 = 2;

/// Watches, builds and pushes until Ctrl-C, which drops the candidate.
pub async fn run(args: cli::Dev) -> Result<(), PolicyError> {
    let mut stop = StopSignals::catch()?;
    let source = Source {
        dir: args.dir,
        example: args.example,
        target_dir: args.target_dir,
    };
    let (_watcher, mut saves) = watch(&source.dir)?;
    let mut session = Session {
        admin: Admin::new(args.admin)?,
        path: if args.active {
            "/policy".to_owned()
        } else {
            format!("/policy/candidate?shadow={}", args.share)
        },
        is_active: args.active,
        config: args.config,
        candidate: None,
        seen: BTreeMap::new(),
    };
    let mut ticks = interval(SHOW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        session.say(&format!("building {}\n", source.dir.display()))?;
        let building = {
            let source = source.clone();
            tokio::task::spawn_blocking(move || source.build())
        };
        let built = tokio::select! {
            built = building => built.map_err(std::io::Error::other)?,
            () = stop.next() => break,
        };
        session.try_out(built).await?;
        let saved = loop {
            tokio::select! {
                saved = saves.recv() => break saved,
                () = stop.next() => break None,
                _ = ticks.tick() => session.show_differences().await?,
            }
        };
        if saved.is_none() {
            break;
        }
        while let Ok(Some(())) = timeout(QUIET, saves.recv()).await {}
    }
    session.end().await
}

/// Tells when something in a directory was saved. What tools make there is not watched.
fn watch(dir: &Path) -> Result<(RecommendedWatcher, mpsc::Receiver<()>), notify::Error> {
    let dir = dir.canonicalize().map_err(notify::Error::io)?;
    // One that waits is as good as many.
    let (saved, saves) = mpsc::channel(1);
    let root = dir.clone();
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        let Ok(event) = event else { return };
        let is_source = |path: &Path| path.strip_prefix(&root).is_ok_and(Source::may_include);
        if !matches!(event.kind, EventKind::Access(_))
            && event.paths.iter().any(|path| is_source(path))
        {
            let _ = saved.try_send(());
        }
    })?;
    watcher.watch(&dir, RecursiveMode::NonRecursive)?;
    for entry in std::fs::read_dir(&dir)
        .map_err(notify::Error::io)?
        .flatten()
    {
        if entry.path().is_dir() && Source::may_include(Path::new(&entry.file_name())) {
            watcher.watch(&entry.path(), RecursiveMode::Recursive)?;
        }
    }
    Ok((watcher, saves))
}

/// A gateway, and what this command has put into it.
struct Session {
    admin: Admin,
    path: String,
    is_active: bool,
    config: cli::Config,
    /// Digest of the candidate that is there because of this command.
    candidate: Option<String>,
    /// Differences of each kind that were counted when they were last shown.
    seen: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Differences {
    candidate: String,
    found: Found,
}

impl Session {
    fn say(&self, text: &str) -> Result<(), PolicyError> {
        Ok(output::print(text)?)
    }

    /// Pushes what was built. Whatever is wrong is for the author to read and mend: it ends nothing.
    async fn try_out(
        &mut self,
        built: Result<std::path::PathBuf, SourceError>,
    ) -> Result<(), PolicyError> {
        let component = match built {
            Ok(component) => component,
            Err(error) => return self.say(&format!("{error}\n{}\n", self.what_stays())),
        };
        match self.push(&component).await {
            Ok(policies) => self.say(&self.pushed(&policies)),
            Err(error) => self.say(&format!("{error}\n{}\n", self.what_stays())),
        }
    }

    async fn push(&mut self, component: &Path) -> Result<Policies, PolicyError> {
        let package = Package::open(component)?.with_config(&self.config)?;
        let answer = self.admin.put(&self.path, package).await?;
        let policies: Policies = serde_json::from_slice(&answer).map_err(AdminError::from)?;
        if !self.is_active {
            let candidate = policies.candidate.as_ref();
            self.candidate = candidate.map(|candidate| candidate.digest.clone());
            self.seen.clear();
        }
        Ok(policies)
    }

    fn pushed(&self, policies: &Policies) -> String {
        let (policy, role) = match (&policies.active, &policies.candidate) {
            (Some(active), _) if self.is_active => (active, "active now"),
            (_, Some(candidate)) => (candidate, "the candidate now, Ctrl-C drops it"),
            _ => return "the gateway took it, and dropped it\n".to_owned(),
        };
        let digest = crate::admin::short(&policy.digest);
        format!("{} {} ({digest}) is {role}\n", policy.name, policy.version)
    }

    fn what_stays(&self) -> &'static str {
        match self.candidate {
            Some(_) => "the candidate stays as it was",
            None => "the gateway stays as it was",
        }
    }

    /// Shows the differences that were found since they were last shown. A gateway that does not answer
    /// may do so next time.
    async fn show_differences(&mut self) -> Result<(), PolicyError> {
        let Some(ours) = &self.candidate else {
            return Ok(());
        };
        let Ok(answer) = self.admin.get("/policy/differences").await else {
            return Ok(());
        };
        let answer: Differences = serde_json::from_slice(&answer).map_err(AdminError::from)?;
        if answer.candidate != *ours || answer.found.kinds == self.seen {
            return Ok(());
        }
        let text = describe(&answer.found, &self.seen);
        self.seen = answer.found.kinds;
        self.say(&text)
    }

    /// Drops the candidate, unless somebody else has put another there.
    async fn end(&mut self) -> Result<(), PolicyError> {
        let Some(ours) = self.candidate.take() else {
            return Ok(());
        };
        let policies: Policies =
            serde_json::from_slice(&self.admin.get("/policy").await?).map_err(AdminError::from)?;
        if policies
            .candidate
            .is_some_and(|candidate| candidate.digest == ours)
        {
            // Another may take its place meanwhile.
            let path = super::query_path("/policy/candidate", &[("digest", &ours)]);
            self.admin.delete(&path).await?;
            self.say("the candidate is dropped\n")?;
        }
        Ok(())
    }
}

/// What was found since `seen`: counts, and the newest examples.
fn describe(found: &Found, seen: &BTreeMap<String, u64>) -> String {
    let kinds: Vec<_> = found
        .kinds
        .iter()
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    let mut text = format!(
        "{} decisions compared, {} came out differently: {}\n",
        found.compared,
        found.different,
        kinds.join(", ")
    );
    for (kind, count) in &found.kinds {
        let new = count - seen.get(kind).copied().unwrap_or(0).min(*count);
        let examples = found
            .examples
            .iter()
            .rev()
            .filter(|example| example.kind == *kind);
        for example in examples.take(new.min(EXAMPLES_SHOWN_MAX) as usize) {
            text += &show(example);
        }
    }
    text
}

fn show(example: &Example) -> String {
    let id = example.request_id.as_ref().map(|id| format!(" ({id})"));
    let indent = |text: &str| text.replace('\n', "\n               ");
    format!(
        "  {} of {}{}\n    active:    {}\n    candidate: {}\n",
        example.kind,
        example.request,
        id.unwrap_or_default(),
        indent(&example.active),
        indent(&example.candidate)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_is_shown_by_example() {
        let example = |request: &str| Example {
            kind: "body".into(),
            request: request.into(),
            request_id: None,
            active: "a".into(),
            candidate: "b\nc".into(),
        };
        let found = Found {
            compared: 9,
            different: 3,
            kinds: BTreeMap::from([("body".into(), 3)]),
            examples: ["GET /1", "GET /2", "GET /3"].map(example).into(),
            ..Found::default()
        };
        let text = describe(&found, &BTreeMap::from([("body".into(), 2)]));
        assert!(text.starts_with("9 decisions compared, 3 came out differently: body 3\n"));
        assert!(
            text.contains("GET /3") && !text.contains("GET /2"),
            "{text}"
        );
        assert!(text.contains("candidate: b\n               c"), "{text}");
    }
}
