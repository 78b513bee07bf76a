//! At which version of the protocol the bazaar is, as a replica heard last, in a file beside its ledger: a catalog that is
//! rebuilt from ledgers begins there.
//!
//! Not in the ledger's database, whose tables would have to change for it: a release that does not know the file passes it
//! over, and leaves it behind as it is. So it says in which epoch it was true, and nobody believes it once the ledger is of
//! another one.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daemon::atomic_file;
use domain::{Epoch, Hex, JournalId, Protocol};
use order_core::Status;
use rpc::release::BazaarProtocol;
use storage::Checksum;
use tokio::sync::watch;
use tokio::time::sleep;

/// The file's name, in a replica's data directory.
pub const FILE: &str = "protocol";

/// How often it is looked whether it is still true.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What a replica heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtocolNote {
    /// Whose copy its ledger is.
    pub journal: JournalId,
    /// The highest epoch that it had seen.
    pub epoch: Epoch,
    /// At which the bazaar was.
    pub protocol: Protocol,
}

impl ProtocolNote {
    /// What was noted in a replica's data directory; `None` where nothing was, or it is not as it was written.
    pub fn read(data_dir: &Path) -> Option<Self> {
        let text = fs::read_to_string(data_dir.join(FILE)).ok()?;
        let mut lines = text.lines();
        let [journal, epoch, protocol] =
            ["journal ", "epoch ", "protocol "].map(|name| lines.next()?.strip_prefix(name));
        let note = Self {
            journal: journal?.parse().ok()?,
            epoch: Epoch(epoch?.parse().ok()?),
            protocol: Protocol::new(protocol?.parse().ok()?)?,
        };
        // Its last line is a checksum of the others.
        (note.to_string() == text).then_some(note)
    }

    /// Notes it in a replica's data directory, so that it outlives a loss of power.
    ///
    /// # Errors
    /// Where the disk refuses; what was noted before is then as it was.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        atomic_file::write(&data_dir.join(FILE), self.to_string().as_bytes())
    }
}

/// As it stands in the file.
impl fmt::Display for ProtocolNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            journal,
            epoch,
            protocol,
        } = self;
        let checksum = Checksum::of("the note of the protocol", *journal)
            .number(epoch.0)
            .number(protocol.get().into())
            .finish();
        writeln!(f, "journal {journal}")?;
        writeln!(f, "epoch {epoch}")?;
        writeln!(f, "protocol {protocol}")?;
        writeln!(f, "checksum {}", Hex(&checksum))
    }
}

/// Keeps the note true for as long as the replica runs.
pub(crate) async fn keep(
    data_dir: PathBuf,
    journal: JournalId,
    heard: BazaarProtocol,
    status: watch::Receiver<Status>,
) {
    let (mut noted, mut failed) = (ProtocolNote::read(&data_dir), None);
    loop {
        let epoch = status.borrow().term.epoch;
        let now = heard.get().map(|protocol| ProtocolNote {
            journal,
            epoch,
            protocol,
        });
        if let Some(note) = now
            && now != noted
        {
            let path = data_dir.clone();
            let writing = tokio::task::spawn_blocking(move || note.write(&path));
            let written = writing.await;
            match written.unwrap_or_else(|error| Err(io::Error::other(error))) {
                Ok(()) => noted = now,
                Err(error) if failed != now => {
                    failed = now;
                    tracing::warn!(%error, "cannot note at which version of the protocol the bazaar is");
                }
                // It was said.
                Err(_) => {}
            }
        }
        sleep(LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: ProtocolNote = ProtocolNote {
        journal: JournalId::new([7; JournalId::BYTES]),
        epoch: Epoch(3),
        protocol: Protocol::FIRST,
    };

    #[test]
    fn a_note_is_read_as_it_was_written_and_none_that_was_changed_is() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(ProtocolNote::read(dir.path()), None);
        NOTE.write(dir.path()).unwrap();
        assert_eq!(ProtocolNote::read(dir.path()), Some(NOTE));
        let file = dir.path().join(FILE);
        let text = fs::read_to_string(&file).unwrap();
        let changed = [
            text.replace("epoch 3", "epoch 4"),
            text.replace("protocol 1", "protocol 2"),
            text.replace("protocol 1", "protocol 0"),
            text.replace("journal 07", "journal 08"),
            text.replace("checksum ", "checksum 0"),
            text.trim_end().to_owned(),
            text[..text.len() / 2].to_owned(),
            format!("{text}\n"),
            String::new(),
        ];
        for changed in changed {
            assert_ne!(changed, text);
            fs::write(&file, &changed).unwrap();
            assert_eq!(ProtocolNote::read(dir.path()), None, "{changed}");
        }
    }
}
