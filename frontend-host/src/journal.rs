//! Which journal this gateway belongs to.
//!
//! It is the one of the catalog that a new gateway first reaches, and is kept in the gateway's data
//! directory from then on: another bazaar's catalog at the same address, or a catalog that was begun
//! anew, is refused rather than believed.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use domain::JournalId;
use tokio::sync::watch;
use wire::identity;

use daemon::atomic_file;

/// Where it is kept, in the data directory.
const FILE: &str = "journal";

/// What a gateway of before journals had ids left in its data directory.
const POLICIES: &str = "policies";

/// Why what is kept cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}; where this gateway is to serve another bazaar from now on, remove the file", path.display())]
pub struct JournalError {
    pub path: PathBuf,
    /// What is wrong with it.
    pub source: io::Error,
}

/// Somebody keeps another journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this gateway is of journal {own}, and it keeps journal {other}")]
pub struct OtherJournal {
    pub own: JournalId,
    pub other: JournalId,
}

/// The journal that this gateway belongs to, once it is known.
#[derive(Debug)]
pub struct OwnJournal {
    known: OnceLock<JournalId>,
    file: Option<PathBuf>,
    /// What the catalog says, and until when that is not enough.
    unproven: Option<watch::Sender<Option<JournalId>>>,
}

impl OwnJournal {
    /// As it is kept in a data directory; not known yet without one, or in a new one.
    ///
    /// # Errors
    /// Where what is kept cannot be read.
    pub fn open(data_dir: Option<&Path>) -> Result<Self, JournalError> {
        let known = OnceLock::new();
        let Some(data_dir) = data_dir else {
            return Ok(Self {
                known,
                file: None,
                unproven: None,
            });
        };
        let path = data_dir.join(FILE);
        let kept = match fs::read_to_string(&path) {
            Ok(text) => {
                let kept = text.trim().parse::<JournalId>();
                Some(kept.map_err(|invalid| io::Error::new(ErrorKind::InvalidData, invalid)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => Some(Err(error)),
        };
        let is_new = kept.is_none() && !data_dir.join(POLICIES).exists();
        let is_known = kept.is_some();
        if let Some(kept) = kept {
            let journal = kept.map_err(|source| JournalError {
                path: path.clone(),
                source,
            })?;
            let _ = known.set(journal); // it is empty
        }
        Ok(Self {
            known,
            file: Some(path),
            unproven: (!is_known && !is_new).then(watch::Sender::default),
        })
    }

    /// `None` until a catalog has been reached.
    pub fn known(&self) -> Option<JournalId> {
        self.known.get().copied()
    }

    /// As requests name it.
    pub fn to_wire(&self) -> Vec<u8> {
        identity::to_wire(self.known())
    }

    /// The catalog says which journal it keeps.
    ///
    /// # Errors
    /// Where that is another one.
    pub fn note_catalog(&self, journal: JournalId) -> Result<(), OtherJournal> {
        if self.known().is_none() {
            match &self.unproven {
                None => self.take(journal),
                Some(unproven) => {
                    unproven.send_replace(Some(journal));
                    return Ok(());
                }
            }
        }
        self.compare(journal)
    }

    /// A replica says of which journal its ledger is, which it had compared with that journal's
    /// hash chain.
    ///
    /// # Errors
    /// Where that is another one.
    pub fn note_replica(&self, journal: JournalId) -> Result<(), OtherJournal> {
        if let Some(unproven) = &self.unproven
            && self.known().is_none()
            && *unproven.borrow() == Some(journal)
        {
            self.take(journal);
            unproven.send_modify(|_| {});
        }
        self.compare(journal)
    }

    /// Waits, where the data directory is one of before journals had ids, until the catalog and a
    /// replica agree on one.
    pub async fn wait_until_proven(&self) {
        let Some(unproven) = &self.unproven else {
            return;
        };
        tracing::info!(
            "this gateway's data directory is of before journals had ids: waiting for the catalog and a replica to agree on one"
        );
        let mut unproven = unproven.subscribe();
        while self.known().is_none() && unproven.changed().await.is_ok() {}
    }

    fn compare(&self, journal: JournalId) -> Result<(), OtherJournal> {
        match self.known() {
            Some(own) if own != journal => Err(OtherJournal {
                own,
                other: journal,
            }),
            _ => Ok(()),
        }
    }

    fn take(&self, journal: JournalId) {
        if self.known.set(journal).is_err() {
            return; // somebody was faster
        }
        tracing::info!(%journal, "this gateway is of that journal from now on");
        if let Some(file) = &self.file
            && let Err(error) = atomic_file::write(file, format!("{journal}\n").as_bytes())
        {
            tracing::error!(%error, file = %file.display(), "cannot keep the journal's id: a restart will take whichever it is told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: JournalId = JournalId::new([1; JournalId::BYTES]);
    const OTHER: JournalId = JournalId::new([2; JournalId::BYTES]);

    #[test]
    fn the_first_catalogs_journal_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let own = OwnJournal::open(Some(dir.path())).unwrap();
        assert!(own.to_wire().is_empty());
        own.note_catalog(OURS).unwrap();
        for own in [own, OwnJournal::open(Some(dir.path())).unwrap()] {
            assert_eq!(own.known(), Some(OURS));
            own.note_catalog(OURS).unwrap();
            let refused = own.note_catalog(OTHER).unwrap_err();
            assert_eq!((refused.own, refused.other), (OURS, OTHER));
            assert!(own.note_replica(OTHER).is_err());
        }
        fs::write(dir.path().join(FILE), "nonsense").unwrap();
        let refused = OwnJournal::open(Some(dir.path())).unwrap_err();
        assert!(refused.to_string().contains("remove the file"), "{refused}");
    }

    #[tokio::test]
    async fn a_gateway_of_before_takes_what_a_ledger_proves() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(POLICIES)).unwrap();
        let own = OwnJournal::open(Some(dir.path())).unwrap();
        own.note_catalog(OTHER).unwrap();
        own.note_replica(OURS).unwrap();
        assert_eq!(own.known(), None);
        own.note_catalog(OURS).unwrap();
        own.note_replica(OURS).unwrap();
        own.wait_until_proven().await;
        assert_eq!(own.known(), Some(OURS));
        let own = OwnJournal::open(Some(dir.path())).unwrap();
        own.wait_until_proven().await;
        assert_eq!(own.known(), Some(OURS));
    }
}
