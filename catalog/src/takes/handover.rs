//! What a catalog that stops cleanly leaves the next one of its limits: a file in its directory, or bytes that a store takes
//! along as its writer lets go of it.
//!
//! It is for the next start alone, which removes the file before anything is granted, as the store has nobody but the next
//! writer take the bytes: what a later one would find in it has been taken since. Where it is missing or is not what was
//! left, the buckets begin empty.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use catalog_core::limits::{ROOM, Snapshot};
use daemon::{atomic_file, directory};
use domain::{Epoch, JournalId};
use storage::Checksum;

use crate::store::postgres::Leaves;

/// Its name in the catalog's directory.
const FILE: &str = "limits";

/// Longest file that is read: of all buckets that there is room for, and some more.
const BYTES_MAX: u64 = (ROOM as u64) << 12;

/// In the place of a time.
const FOR_EVER: u64 = u64::MAX;

/// Where it is left.
#[derive(Debug, Clone)]
pub enum Left {
    /// Once the catalog has no writer any more.
    InDirectory(Handover),
    /// Before its writer lets go of the store.
    WithStore(Leaves),
}

impl Left {
    /// Leaves it to the next one, where a writer is about to let go of its store.
    pub fn leave_with_store(&self, of: Of, left: &Snapshot) {
        if let Self::WithStore(leaves) = self {
            let mut leaves = leaves.lock().unwrap_or_else(PoisonError::into_inner);
            *leaves = Some(encode(of, left));
        }
    }

    /// And where it has.
    pub fn leave_in_directory(&self, of: Of, left: &Snapshot) {
        if let Self::InDirectory(handover) = self {
            handover.leave(of, left);
        }
    }
}

/// What a store's writer before left.
pub fn left_with_store(bytes: &[u8], of: Of) -> Option<Snapshot> {
    let left = decode(bytes, of);
    if left.is_none() {
        tracing::warn!("limits begin empty: what was left of them is another catalog's");
    }
    left
}

/// A file in a catalog's directory.
#[derive(Debug, Clone)]
pub struct Handover {
    file: PathBuf,
}

/// Of which catalog a handover is: the next one has begun no other epoch yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Of {
    pub journal: JournalId,
    pub epoch: Epoch,
}

impl Handover {
    /// In a catalog's directory.
    pub fn new(data_dir: &Path) -> Self {
        Self {
            file: data_dir.join(FILE),
        }
    }

    /// Takes what the catalog before left. `None` where it left nothing, or it cannot be told, or what is there is
    /// not of that catalog.
    pub fn take(&self, of: Of) -> Option<Snapshot> {
        match self.read() {
            Ok(None) => None,
            Ok(Some(bytes)) => {
                let left = decode(&bytes, of);
                if left.is_none() {
                    tracing::warn!(file = %self.file.display(), "limits begin empty: what was left of them is not this catalog's");
                }
                left
            }
            Err(error) => {
                tracing::warn!(%error, file = %self.file.display(), "limits begin empty: what was left of them cannot be used");
                None
            }
        }
    }

    /// Leaves it to the next one.
    pub fn leave(&self, of: Of, left: &Snapshot) {
        if let Err(error) = atomic_file::write(&self.file, &encode(of, left)) {
            tracing::warn!(%error, file = %self.file.display(), "cannot leave limits to the next start: they will begin empty");
        }
    }

    /// Reads the file, and removes it for good.
    fn read(&self) -> io::Result<Option<Vec<u8>>> {
        let length = match fs::metadata(&self.file) {
            Ok(found) => found.len(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let bytes = match length {
            0..=BYTES_MAX => fs::read(&self.file)?,
            _ => Vec::new(),
        };
        fs::remove_file(&self.file)?;
        directory::sync(directory::of(&self.file))?;
        Ok(Some(bytes))
    }
}

/// The file's contents: for how long tokens have come back, each part with the number of its buckets and these, and a
/// checksum. Times in microseconds.
fn encode(of: Of, left: &Snapshot) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Rounded so that no more comes back than should.
    let since = left.since_empty.map_or(FOR_EVER, |since| {
        since.as_micros().try_into().unwrap_or(FOR_EVER - 1)
    });
    bytes.extend(since.to_be_bytes());
    for buckets in &left.shards {
        bytes.extend((buckets.len() as u64).to_be_bytes());
        for (key, left) in buckets {
            let left = left.as_nanos().div_ceil(1000).try_into();
            bytes.extend(key.to_be_bytes());
            bytes.extend(left.unwrap_or(u64::MAX).to_be_bytes());
        }
    }
    let checksum = checksum(of, &bytes);
    bytes.extend(checksum);
    bytes
}

/// `None` where it is not what a catalog left.
fn decode(bytes: &[u8], of: Of) -> Option<Snapshot> {
    let (mut rest, stored) = bytes.split_last_chunk::<{ Checksum::BYTES }>()?;
    if *stored != checksum(of, rest) {
        return None;
    }
    let since = number(&mut rest)?;
    let since_empty = (since != FOR_EVER).then(|| Duration::from_micros(since));
    let mut shards = Vec::new();
    while !rest.is_empty() {
        let count = number(&mut rest)?;
        let bucket = |_| {
            let (key, after) = rest.split_first_chunk()?;
            rest = after;
            let left = number(&mut rest)?;
            Some((u128::from_be_bytes(*key), Duration::from_micros(left)))
        };
        shards.push((0..count).map(bucket).collect::<Option<_>>()?);
    }
    Some(Snapshot {
        since_empty,
        shards,
    })
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_be_bytes(*number))
}

fn checksum(of: Of, bytes: &[u8]) -> [u8; Checksum::BYTES] {
    let checksum = Checksum::of("limits, version 1", of.journal);
    checksum.number(of.epoch.0).bytes(bytes).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Of = Of {
        journal: JournalId::new([1; JournalId::BYTES]),
        epoch: Epoch(3),
    };

    fn some() -> Snapshot {
        let longest = domain::rate::PERIOD_MAX * domain::rate::BURST_MAX;
        Snapshot {
            since_empty: Some(Duration::from_micros(1_234)),
            shards: vec![
                Vec::new(),
                vec![(7, Duration::from_micros(1)), (u128::MAX, longest)],
            ],
        }
    }

    #[test]
    fn what_is_left_is_taken_once() {
        let dir = tempfile::tempdir().unwrap();
        let handover = Handover::new(dir.path());
        assert_eq!(handover.take(OF), None);
        let never_empty = Snapshot {
            since_empty: None,
            ..some()
        };
        for left in [some(), never_empty] {
            handover.leave(OF, &left);
            assert_eq!(handover.take(OF), Some(left));
            assert_eq!(handover.take(OF), None);
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn times_are_rounded_so_that_no_more_comes_back() {
        let left = Snapshot {
            since_empty: Some(Duration::from_nanos(1_999)),
            shards: vec![vec![(7, Duration::from_nanos(1_001))]],
        };
        let read = decode(&encode(OF, &left), OF).unwrap();
        assert_eq!(read.since_empty, Some(Duration::from_micros(1)));
        assert_eq!(read.shards, [[(7, Duration::from_micros(2))]]);
    }

    #[test]
    fn what_was_changed_or_cut_short_or_is_of_another_is_not_taken() {
        let whole = encode(OF, &some());
        let other_journal = Of {
            journal: JournalId::new([2; JournalId::BYTES]),
            ..OF
        };
        let other_epoch = Of {
            epoch: Epoch(4),
            ..OF
        };
        for of in [other_journal, other_epoch] {
            assert_eq!(decode(&whole, of), None);
        }
        for length in 0..whole.len() {
            assert_eq!(decode(&whole[..length], OF), None, "{length} bytes");
            let mut changed = whole.clone();
            changed[length] ^= 1;
            assert_eq!(decode(&changed, OF), None, "byte {length}");
        }
        // A true checksum of nonsense.
        for nonsense in [&[0; 7][..], &[0; 9], &[0xff; 24]] {
            let mut bytes = nonsense.to_vec();
            bytes.extend(checksum(OF, nonsense));
            assert_eq!(decode(&bytes, OF), None, "{nonsense:?}");
        }
    }

    #[test]
    fn a_file_that_is_too_long_is_removed_unread() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join(FILE)).unwrap();
        file.set_len(BYTES_MAX + 1).unwrap();
        assert_eq!(Handover::new(dir.path()).take(OF), None);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
