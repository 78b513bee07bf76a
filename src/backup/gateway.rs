//! What a gateway keeps of its policies: beside a catalog, as `bazaar up` has it, or of a gateway on a host of its own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use daemon::data_dir::Lock;
use daemon::ownership::Ownership;
use tempfile::TempDir;

use super::archive::{self, Layout, Manifest};
use super::{BackupError, GATEWAY, failed, place};
use crate::cli;

/// What a gateway keeps that is not made anew: see `frontend_policy::rollout`.
const POLICIES: &str = "policies";
pub const JOURNAL: &str = "journal";

/// Which of the policies is which.
const VERSIONS: &str = "state.json";

/// How often is begun anew where a policy was replaced while it was read.
const POLICY_ATTEMPTS_MAX: usize = 5;

/// Whether it is the data directory of a gateway that has policies.
pub fn is_its(data_dir: &Path) -> bool {
    fs::read_dir(data_dir.join(POLICIES)).is_ok_and(|mut entries| entries.next().is_some())
}

/// Copies what a gateway keeps of its policies; none where there is no gateway. A policy may be pushed meanwhile: then
/// it is begun anew.
pub fn copy(gateway: &Path, to: &Path) -> Result<Vec<(String, PathBuf)>, BackupError> {
    let state = gateway.join(POLICIES).join(VERSIONS);
    let mut attempt = 1;
    loop {
        let before = fs::read(&state).ok();
        let copied = copy_policies(gateway, to);
        let is_gone = matches!(&copied, Err(BackupError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound);
        let has_changed = is_gone || fs::read(&state).ok() != before;
        if !has_changed {
            return copied;
        }
        if attempt == POLICY_ATTEMPTS_MAX {
            return Err(BackupError::PoliciesChange(gateway.to_owned()));
        }
        attempt += 1;
    }
}

fn copy_policies(gateway: &Path, to: &Path) -> Result<Vec<(String, PathBuf)>, BackupError> {
    let policies = gateway.join(POLICIES);
    if !policies.is_dir() {
        return Ok(Vec::new());
    }
    if to.exists() {
        fs::remove_dir_all(to).map_err(failed(to))?;
    }
    fs::create_dir_all(to.join(POLICIES)).map_err(failed(to))?;
    let mut names = vec![JOURNAL.to_owned()];
    for entry in fs::read_dir(&policies).map_err(failed(&policies))? {
        let entry = entry.map_err(failed(&policies))?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let in_backup = format!("{GATEWAY}/{POLICIES}/{name}");
        // What is not whole yet has another name, and what an editor left is nobody's.
        if entry.path().is_file() && archive::is_known(&in_backup) && !name.ends_with(".new") {
            names.push(format!("{POLICIES}/{name}"));
        }
    }
    names.sort();
    let mut files = Vec::new();
    for name in names {
        let (from, to) = (gateway.join(&name), to.join(&name));
        if name == JOURNAL && !from.exists() {
            continue; // it has not met a catalog yet
        }
        fs::copy(&from, &to).map_err(failed(&from))?;
        files.push((format!("{GATEWAY}/{name}"), to));
    }
    Ok(files)
}

/// Which journal a gateway is of; none before it has met a catalog.
pub fn journal(gateway: &Path) -> Result<Option<String>, BackupError> {
    let path = gateway.join(JOURNAL);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&path)(error)),
    }
}

/// Whether what was unpacked is a gateway's alone, and of the journal that is said.
pub fn is_as_said(unpacked: &Path, manifest: &Manifest) -> Result<bool, BackupError> {
    let gateway = unpacked.join(GATEWAY);
    let mut names = manifest
        .files
        .iter()
        .map(|file| file.name.split('/').next());
    let is_alone = names.all(|name| name == Some(GATEWAY));
    let is_of = journal(&gateway)? == manifest.journal && manifest.orders.is_none();
    Ok(is_alone && is_of && is_its(&gateway))
}

/// Gives a gateway's data directory what was unpacked of a backup, where no gateway runs and nothing is there.
pub fn restore(
    args: &cli::Restore,
    unpacked: TempDir,
    ownership: &Ownership,
) -> Result<String, BackupError> {
    let cli::Restore {
        file,
        data_dir,
        store,
        until,
        ..
    } = args;
    for (is_given, flag) in [(store.is_some(), "--store"), (until.is_some(), "--until")] {
        if is_given {
            let path = file.clone();
            return Err(BackupError::OfGateway { path, flag });
        }
    }
    // Whoever runs there would write over it.
    let _lock = Lock::take(data_dir)?;
    let from = unpacked.path().join(GATEWAY);
    let (policies, own) = (data_dir.join(POLICIES), data_dir.join(JOURNAL));
    let occupied = |path: PathBuf, remedy| Err(BackupError::Occupied { path, remedy });
    if policies.exists() {
        return occupied(policies, "set it aside first if it is not needed");
    }
    let (kept, there) = (journal(&from)?, journal(data_dir)?);
    match (&kept, there) {
        (Some(kept), Some(there)) if *kept != there => {
            return occupied(
                own,
                "it names another journal, so this gateway is of another bazaar",
            );
        }
        (Some(_), None) => place(&from.join(JOURNAL), &own)?,
        _ => {}
    }
    place(&from.join(POLICIES), &policies)?;
    drop(unpacked); // what is left of it is nobody's
    ownership.give(data_dir).map_err(failed(data_dir))?;
    let journal = kept.map_or_else(String::new, |journal| format!(" of journal {journal}"));
    let mut text = format!(
        "{}: the policies of a gateway{journal}\n",
        data_dir.display()
    );
    if let Some(advice) = ownership.advice(data_dir) {
        text += &format!("{advice}\n");
    }
    text += "Start it with the --policy that it was started with before: with another one it begins with that.\n";
    Ok(text)
}

/// What a backup of a gateway says of itself, but for its files.
pub fn manifest(gateway: &Path) -> Result<Manifest, BackupError> {
    Ok(Manifest {
        journal: journal(gateway)?,
        ..Manifest::now(Layout::Gateway, archive::GATEWAY_FORMAT)
    })
}
