//! What makes the policy survive a restart: the components in service, which of them is
//! active, and a log of every change.
//!
//! ```text
//! policies/<digest>.wasm   the components of the candidate and of the versions that were active lately
//! policies/<digest>.sig    their signatures, of those that came with one
//! policies/<digest>.config the configurations of the versions that have one: a line with the component's
//!                          digest, and then the configuration as it was sent
//! policies/state.json      which of them is which, and in which format it says so
//! policies/changes.jsonl   the latest changes, one JSON object a line
//! policies/changes.1.jsonl those before them; older ones are forgotten
//! ```

use std::collections::{HashSet, VecDeque};
use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use daemon::atomic_file;
use serde::{Deserialize, Serialize};

use super::change::Change;
use super::kept::Kept;
use super::publication::Published;
use super::saved_candidate::SavedCandidate;
use crate::DEFAULT_POLICY;
use crate::admission::{Trust, Upload};
use crate::decision::OnFailure;
use crate::guest::digest::Digest;

/// Changes that are shown where nobody says how many; the log keeps more.
pub(super) const CHANGES_SHOWN_MAX: usize = 20;

/// The format of a state that this release writes, and the newest that it reads. States of before there were formats are of
/// the first.
const FORMAT: u32 = 1;

/// Size from which on a log of changes is put aside for a new one, in bytes. A change has some 500.
const LOG_BYTES_MAX: u64 = 1 << 20;

/// Versions that were active and can be activated again.
const KEPT_MAX: usize = 32;

/// Shortest beginning of a digest that names a version, in characters.
const PREFIX_MIN: usize = 8;

/// What the policy that is built in is called.
const BUILT_IN: &str = "built-in";

/// What it is called that a gateway starts with other versions than it stopped with.
pub(super) const FELL_BACK: &str = "fallback";

/// What the files of a version end in.
const COMPONENT: &str = "wasm";
const SIGNATURE: &str = "sig";
const CONFIG: &str = "config";

/// Why a change was not saved, or the log not opened.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct VersionLogError {
    path: PathBuf,
    source: io::Error,
}

/// In which format a state is.
#[derive(Deserialize)]
struct Mark {
    #[serde(default = "first")]
    format: u32,
}

fn first() -> u32 {
    1
}

/// A state as it is written.
#[derive(Serialize)]
struct Marked<'a> {
    format: u32,
    #[serde(flatten)]
    state: &'a State,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct State {
    /// The version that the gateway was started with. Another one, next time, is a wish to
    /// run that one.
    started_with: String,
    active: String,
    /// The active version is the policy that was built into the release that wrote this, and the gateway was started with that:
    /// the next release has another one, and no less a wish for it.
    #[serde(default)]
    active_is_built_in: bool,
    /// The active version wants refused what it fails at: nothing else may serve in its place.
    #[serde(default)]
    active_refuses: bool,
    previous: Option<String>,
    #[serde(default)]
    candidate: Option<SavedCandidate>,
    /// The versions that were active last, the latest at the end.
    #[serde(default)]
    kept: Vec<Kept>,
}

/// A version as it was saved.
#[derive(Debug)]
pub struct SavedVersion {
    pub(super) component: Vec<u8>,
    signature: Option<String>,
    config: Vec<u8>,
}

impl SavedVersion {
    /// To admit it again.
    pub(super) fn upload(&self) -> Upload<'_> {
        Upload {
            component: &self.component,
            signature: self.signature.as_deref(),
            config: &self.config,
        }
    }
}

/// The versions and changes in a directory.
#[derive(Debug)]
pub struct VersionLog {
    dir: PathBuf,
    state: State,
    changes: VecDeque<Change>,
    /// Changes that are not on the disk: while another process may read that, or write to it. Few: only what cannot
    /// wait is among them.
    unwritten: Option<Vec<Change>>,
    /// Which of the versions in service were forgotten as it was opened, in words.
    forgotten: Vec<String>,
}

impl VersionLog {
    /// Opens a directory, making it where it is missing. `start` is what the gateway was told to
    /// start with.
    pub fn open<'a>(
        data_dir: &Path,
        start: impl Into<Upload<'a>>,
    ) -> Result<Self, VersionLogError> {
        let dir = data_dir.join("policies");
        fs::create_dir_all(&dir).map_err(|source| VersionLogError {
            path: dir.clone(),
            source,
        })?;
        remove_unfinished(&dir);
        let started_with = start_name(start.into());
        let mut log = Self {
            dir,
            state: State::default(),
            changes: VecDeque::new(),
            unwritten: None,
            forgotten: Vec::new(),
        };
        log.check_format()?;
        log.changes = log.read_changes();
        log.state = match log.read_state() {
            Ok(Some(state)) if state.started_with == started_with => state,
            Ok(Some(_)) => State::default(),
            Ok(None) if log.changes.is_empty() => State::default(),
            Ok(None) => {
                let state = log.state_path();
                tracing::error!(state = %state.display(), "the saved state of the policy is missing");
                log.unknown_state()
            }
            Err(error) => {
                tracing::error!(%error, "the saved state of the policy is damaged");
                log.unknown_state()
            }
        };
        log.state.started_with = started_with;
        log.end_last_line().map_err(|source| VersionLogError {
            path: log.changes_path(),
            source,
        })?;
        Ok(log)
    }

    /// That of a gateway of which nobody knows what was active: it may have kept clients out. What the log of changes names
    /// can be activated again.
    fn unknown_state(&self) -> State {
        let mut kept: Vec<Kept> = Vec::new();
        for digest in self.changes.iter().flat_map(|it| [&it.from, &it.to]) {
            kept.retain(|kept| kept.digest != *digest);
            kept.push(Kept::unknown(digest));
        }
        kept.retain(|kept| self.load(&kept.digest).is_some());
        kept.drain(..kept.len().saturating_sub(KEPT_MAX));
        State {
            active_refuses: true,
            kept,
            ..State::default()
        }
    }

    /// Writes the state where there is none yet: one that is missing later was lost.
    pub(super) fn begin(&self) -> Result<(), VersionLogError> {
        match self.unwritten.is_none() && !self.state_path().exists() {
            true => self.write_state(&self.state),
            false => Ok(()),
        }
    }

    /// Why nobody is to stand in for the version that was active, in words.
    pub(super) fn why_closed(&self) -> String {
        let digest = &self.state.active;
        if !digest.is_empty() {
            return format!(
                "policy {digest} wants refused what it fails at, and cannot be started: no request is decided until another one is activated"
            );
        }
        // What stood in meanwhile was not active.
        let is_own = |change: &&Change| change.is_of_policy() && change.what != FELL_BACK;
        let last = self.changes.iter().rfind(is_own);
        let last = last.map(|change| {
            format!(
                ", such as `bazaar policy activate {}`, which the log of changes names last",
                change.to
            )
        });
        format!(
            "{} was lost or damaged, so nobody knows which policy was active, and whether it kept clients out: no request is decided until one is activated{}. To begin with the policy that the gateway is started with, stop it, move {} elsewhere, and start it again",
            self.state_path().display(),
            last.unwrap_or_default(),
            self.dir.display()
        )
    }

    /// Forgets the versions that `trust` does not cover, by the signatures that they came with. The
    /// component that the gateway is started with is not its business here, and the built-in one needs none.
    pub fn retain_trusted(mut self, trust: &Trust) -> Self {
        let State {
            started_with,
            active,
            active_is_built_in,
            active_refuses,
            previous,
            candidate,
            kept,
        } = &self.state;
        let is_covered = |digest: &String| {
            digest == started_with
                || self.load(digest).is_some_and(|saved| {
                    let signature = saved.signature.as_deref();
                    let verified = match saved.component == DEFAULT_POLICY {
                        true => Ok(()),
                        false => trust.verify(&saved.component, signature),
                    };
                    if let Err(untrusted) = &verified {
                        tracing::error!(policy = digest, %untrusted, "a saved policy is not used");
                    }
                    verified.is_ok()
                })
        };
        let previous = previous.clone().filter(is_covered);
        let is_kept = |active: &String| *active_is_built_in || is_covered(active);
        let active = Some(active.clone()).filter(is_kept).unwrap_or_default();
        let kept = kept.iter().filter(|kept| is_covered(&kept.digest)).cloned();
        let kept = kept.collect();
        let candidate = candidate.clone();
        let candidate = candidate.filter(|candidate| is_covered(&candidate.digest));
        let mut forgotten = Vec::new();
        if active != self.state.active {
            let digest = &self.state.active;
            forgotten.push(format!(
                "policy {digest} was active, and nobody who is trusted has signed it"
            ));
        }
        if let (Some(before), None) = (&self.state.candidate, &candidate) {
            forgotten.push(format!(
                "the candidate {} of {} is signed by nobody who is trusted",
                before.digest, before.who
            ));
        }
        self.forgotten = forgotten;
        self.state = State {
            started_with: started_with.clone(),
            active,
            active_is_built_in: *active_is_built_in,
            active_refuses: *active_refuses,
            previous,
            candidate,
            kept,
        };
        self
    }

    /// From now on changes are written to the disk only when it is [released](Self::release).
    pub fn held(mut self) -> Self {
        self.hold();
        self
    }

    /// See [`held`](Self::held).
    pub(super) fn hold(&mut self) {
        self.unwritten.get_or_insert_default();
    }

    /// Whether it is held, and which changes wait then.
    pub(super) fn unwritten(&self) -> Option<&[Change]> {
        self.unwritten.as_deref()
    }

    /// Writes what waits, and everything else at once from now on.
    pub(super) fn release(&mut self) -> Result<(), VersionLogError> {
        let unwritten = self.unwritten.take().unwrap_or_default();
        let Some(last) = unwritten.last() else {
            return self.begin();
        };
        for change in &unwritten {
            self.append(change)?;
        }
        self.write_state(&self.state)?;
        self.forget_others(last);
        Ok(())
    }

    /// The versions that can be activated again, the latest at the end.
    pub(super) fn kept(&self) -> Vec<Kept> {
        self.state.kept.clone()
    }

    /// The version that was on trial when the gateway stopped.
    pub(super) fn last_candidate(&self) -> Option<&SavedCandidate> {
        self.state.candidate.as_ref()
    }

    /// A kept version, by its digest or the beginning of it.
    pub(super) fn load_kept(&self, prefix: &str) -> Option<SavedVersion> {
        if prefix.len() < PREFIX_MIN {
            return None;
        }
        let digests = self.state.kept.iter().map(|kept| &kept.digest);
        let mut named = digests.filter(|digest| digest.starts_with(prefix));
        let digest = named.next().filter(|_| named.next().is_none())?;
        self.load(digest)
    }

    /// Whether the version that was active when the gateway stopped wants refused what it fails at.
    pub(super) fn active_refuses(&self) -> bool {
        self.state.active_refuses
    }

    /// Which of the versions in service were [forgotten](Self::retain_trusted), in words.
    pub(super) fn forgotten(&self) -> &[String] {
        &self.forgotten
    }

    /// What named the version that was active when the gateway stopped; nothing where none was.
    pub(super) fn active_digest(&self) -> &str {
        &self.state.active
    }

    /// Whether that was the policy that is built in, with which the gateway is started, of this release or another.
    pub(super) fn is_active_built_in(&self) -> bool {
        self.state.active_is_built_in
    }

    /// The version that was active when the gateway stopped, if it was started with the same
    /// one then as now, and it is intact.
    pub fn last_active(&self) -> Option<SavedVersion> {
        self.load(&self.state.active)
    }

    /// The last good version behind the active one when the gateway stopped, by its digest.
    pub(super) fn last_previous(&self) -> Option<String> {
        self.state.previous.clone()
    }

    /// A version that was saved, if it is intact.
    pub(super) fn load(&self, of: &str) -> Option<SavedVersion> {
        let with_config = fs::read(self.path(of, CONFIG)).ok();
        let (digest, config) = match &with_config {
            None => (of, &[][..]),
            Some(file) => self.split_config(of, file)?,
        };
        let component = fs::read(self.path(digest, COMPONENT)).ok()?;
        let saved = SavedVersion {
            component,
            signature: fs::read_to_string(self.path(digest, SIGNATURE)).ok(),
            config: config.to_owned(),
        };
        if saved.upload().digest().to_string() == of {
            Some(saved)
        } else {
            tracing::error!(policy = of, "a saved policy is damaged, and not used");
            None
        }
    }

    /// The digest of the component, and the configuration.
    fn split_config<'a>(&self, of: &str, file: &'a [u8]) -> Option<(&'a str, &'a [u8])> {
        let end = file.iter().position(|byte| *byte == b'\n');
        let split = end.and_then(|end| {
            let digest = str::from_utf8(&file[..end]).ok()?;
            let is_name = digest.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_name.then_some((digest, &file[end + 1..]))
        });
        if split.is_none() {
            tracing::error!(
                policy = of,
                "a saved configuration is damaged, and not used"
            );
        }
        split
    }

    /// The last changes, oldest first.
    pub(super) fn changes(&self) -> Vec<Change> {
        self.changes.iter().cloned().collect()
    }

    /// The last changes, so many at most, oldest first. Reads all that the log keeps.
    pub(super) fn last_changes(&self, max: usize) -> Vec<Change> {
        let mut changes = self.read_last_changes(max);
        changes.extend(self.unwritten.iter().flatten().cloned());
        changes.drain(..changes.len().saturating_sub(max));
        changes.into()
    }

    /// Saves a version, so that it can be active after a restart.
    pub(super) fn save(&mut self, upload: Upload<'_>) -> Result<(), VersionLogError> {
        let component = Digest::of(upload.component);
        if let Some(signature) = upload.signature
            && fs::read_to_string(self.path(component, SIGNATURE))
                .ok()
                .as_deref()
                != Some(signature)
        {
            write_durably(&self.path(component, SIGNATURE), signature.as_bytes())?;
        }
        let is_intact = |saved: Vec<u8>| Digest::of(&saved) == component;
        if !fs::read(self.path(component, COMPONENT)).is_ok_and(is_intact) {
            write_durably(&self.path(component, COMPONENT), upload.component)?;
        }
        self.save_config(component, upload.config)
    }

    /// Saves a configuration of a component that is saved.
    pub(super) fn save_config(
        &mut self,
        component: Digest,
        config: &[u8],
    ) -> Result<(), VersionLogError> {
        if config.is_empty() {
            return Ok(());
        }
        let version = Digest::of_version(component, config);
        let file = [format!("{component}\n").as_bytes(), config].concat();
        if fs::read(self.path(version, CONFIG)).is_ok_and(|saved| saved == file) {
            return Ok(());
        }
        write_durably(&self.path(version, CONFIG), &file)
    }

    fn path(&self, of: impl Display, what: &str) -> PathBuf {
        self.dir.join(format!("{of}.{what}"))
    }

    /// Saves a change. It is made once the state is on the disk; a line in the log alone may be of
    /// one that was not.
    pub(super) fn record(
        &mut self,
        change: &Change,
        before: &Published,
        after: &Published,
    ) -> Result<(), VersionLogError> {
        // What stands in for a version that cannot be started does not take its place.
        let (active, active_is_built_in, active_refuses) = match &after.closed {
            Some(_) => (
                self.state.active.clone(),
                self.state.active_is_built_in,
                self.state.active_refuses,
            ),
            None => (
                after.active.digest.to_string(),
                self.state.started_with == BUILT_IN
                    && after.active.digest == Digest::of(DEFAULT_POLICY),
                after.active.manifest.on_failure == OnFailure::Refuse,
            ),
        };
        let mut kept = self.state.kept.clone();
        let was = Kept {
            digest: change.from.clone(),
            good: before.is_active_good(),
            proven: before.is_active_proven(),
            failed: before.has_active_failed(),
        };
        let known = self.known(&active).filter(|_| after.closed.is_some());
        let is = known.cloned().unwrap_or_else(|| Kept {
            digest: active.clone(),
            good: after.is_active_good(),
            proven: after.is_active_proven(),
            // Of the version that serves nothing bad is known yet, whatever it was called before.
            failed: false,
        });
        // It is not known which one was active, where that was lost.
        let known = [was, is].into_iter().filter(|it| !it.digest.is_empty());
        for version in known {
            kept.retain(|kept| kept.digest != version.digest);
            kept.push(version);
        }
        kept.drain(..kept.len().saturating_sub(KEPT_MAX));
        let state = State {
            started_with: self.state.started_with.clone(),
            active,
            active_is_built_in,
            active_refuses,
            kept,
            candidate: after.candidate.as_ref().map(SavedCandidate::from),
            previous: after
                .previous
                .as_ref()
                .map(|previous| previous.digest.to_string()),
        };
        match &mut self.unwritten {
            Some(unwritten) => unwritten.push(change.clone()),
            None => {
                self.append(change)?;
                self.write_state(&state)?;
            }
        }
        self.state = state;
        self.remember(change);
        if self.unwritten.is_none() {
            self.forget_others(change);
        }
        Ok(())
    }

    /// What is known of a version that can be activated again.
    pub(super) fn known(&self, digest: &str) -> Option<&Kept> {
        let mut kept = self.state.kept.iter();
        kept.find(|kept| kept.digest == digest)
    }

    /// Saves that a version has passed its probation.
    pub(super) fn note_proven(&mut self, digest: &str) -> Result<(), VersionLogError> {
        let mut state = self.state.clone();
        let mut kept = state.kept.iter_mut();
        // One that was there from the start is in no change yet.
        let Some(kept) = kept.find(|kept| kept.digest == digest && !kept.proven) else {
            return Ok(());
        };
        (kept.good, kept.proven, kept.failed) = (true, true, false);
        if self.unwritten.is_none() {
            self.write_state(&state)?;
        }
        self.state = state;
        Ok(())
    }

    fn write_state(&self, state: &State) -> Result<(), VersionLogError> {
        let format = FORMAT;
        let json = serde_json::to_vec(&Marked { format, state }).expect("strings are JSON");
        write_durably(&self.state_path(), &json)
    }

    /// Writes down what was done that changes no version: what is saved of these stays as it is.
    pub(super) fn note(&mut self, done: &Change) -> Result<(), VersionLogError> {
        self.append(done)?;
        self.remember(done);
        Ok(())
    }

    /// Has it among the changes that are shown.
    fn remember(&mut self, change: &Change) {
        self.changes.push_back(change.clone());
        if self.changes.len() > CHANGES_SHOWN_MAX {
            self.changes.pop_front();
        }
    }

    fn append(&self, change: &Change) -> Result<(), VersionLogError> {
        let path = self.changes_path();
        let append = || {
            let mut log = File::options().create(true).append(true).open(&path)?;
            if log.metadata()?.len() >= LOG_BYTES_MAX {
                fs::rename(&path, self.older_changes_path())?;
                log = File::options().create(true).append(true).open(&path)?;
            }
            let mut line = serde_json::to_vec(change).expect("strings and numbers are JSON");
            line.push(b'\n');
            log.write_all(&line)?;
            log.sync_all()
        };
        append().map_err(|source| VersionLogError {
            path: path.clone(),
            source,
        })
    }

    /// Where a crash cut a line short, the next one begins behind it.
    fn end_last_line(&self) -> io::Result<()> {
        let log = fs::read(self.changes_path()).unwrap_or_default();
        if log.last().is_some_and(|byte| *byte != b'\n') {
            let mut log = File::options().append(true).open(self.changes_path())?;
            log.write_all(b"\n")?;
        }
        Ok(())
    }

    fn changes_path(&self) -> PathBuf {
        self.dir.join("changes.jsonl")
    }

    fn older_changes_path(&self) -> PathBuf {
        self.dir.join("changes.1.jsonl")
    }

    /// Removes the components that nothing refers to any more, their signatures and configurations.
    fn forget_others(&self, change: &Change) {
        let State {
            active,
            previous,
            kept,
            ..
        } = &self.state;
        let named = [Some(active), previous.as_ref(), change.candidate.as_ref()];
        let kept = kept.iter().map(|kept| &kept.digest);
        let mut needed = HashSet::new();
        for version in named.into_iter().flatten().chain(kept) {
            match fs::read(self.path(version, CONFIG)) {
                Ok(file) => {
                    let split = self.split_config(version, &file);
                    needed.extend(split.map(|(component, _)| component.to_owned()));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                // Which component it needs is not known, so none is removed.
                Err(_) => return,
            }
            needed.insert(version.clone());
        }
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some((digest, COMPONENT | SIGNATURE | CONFIG)) =
                name.to_str().and_then(|name| name.rsplit_once('.'))
            else {
                continue;
            };
            if !needed.contains(digest) {
                // What cannot be removed takes room, and does no other harm.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn state_path(&self) -> PathBuf {
        self.dir.join("state.json")
    }

    /// That the state is of no later release, which would not find again what this one makes of it.
    fn check_format(&self) -> Result<(), VersionLogError> {
        let json = fs::read(self.state_path()).unwrap_or_default();
        match serde_json::from_slice(&json) {
            Ok(Mark { format }) if format > FORMAT => {
                let problem = format!(
                    "it has format {format}, and this release reads {FORMAT} at most: use the release that wrote it, or move {} elsewhere to begin with the policy that the gateway is started with",
                    self.dir.display()
                );
                Err(VersionLogError {
                    path: self.state_path(),
                    source: io::Error::new(io::ErrorKind::InvalidData, problem),
                })
            }
            // What cannot be read is damaged, or there is none.
            _ => Ok(()),
        }
    }

    /// None where there is none yet.
    fn read_state(&self) -> io::Result<Option<State>> {
        match fs::read(self.state_path()) {
            Ok(json) => Ok(Some(serde_json::from_slice(&json)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The last changes.
    fn read_changes(&self) -> VecDeque<Change> {
        self.read_last_changes(CHANGES_SHOWN_MAX)
    }

    /// So many of them at most; a line that cannot be parsed was cut short by a crash.
    fn read_last_changes(&self, max: usize) -> VecDeque<Change> {
        let logs = [self.older_changes_path(), self.changes_path()]
            .map(|log| fs::read(log).unwrap_or_default());
        let lines = logs.iter().flat_map(|log| log.split(|byte| *byte == b'\n'));
        let mut changes = VecDeque::new();
        for change in lines.filter_map(|line| serde_json::from_slice(line).ok()) {
            if changes.len() == max {
                changes.pop_front();
            }
            changes.push_back(change);
        }
        changes
    }
}

/// What the gateway was told to start with. The policy that is built in is another one in each release,
/// and no other wish for that.
fn start_name(start: Upload<'_>) -> String {
    match start.component == DEFAULT_POLICY && start.config.is_empty() {
        true => BUILT_IN.to_owned(),
        false => start.digest().to_string(),
    }
}

/// Removes files that a crash left before they were whole. Components are large, and one that is never
/// sent again would stay.
fn remove_unfinished(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry
            .path()
            .extension()
            .is_some_and(|ending| ending == "new")
        {
            // What cannot be removed takes room, and does no other harm.
            let _ = fs::remove_file(entry.path());
        }
    }
}

fn write_durably(path: &Path, contents: &[u8]) -> Result<(), VersionLogError> {
    atomic_file::write(path, contents).map_err(|source| VersionLogError {
        path: path.to_owned(),
        source,
    })
}
