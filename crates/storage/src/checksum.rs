//! Checksums over what no hash chain covers: terms, sets, refusals, identities.

use domain::JournalId;
use sha2::{Digest as _, Sha256};

use crate::error::StorageError;

/// SHA-256 over a record's kind, the journal that it belongs to, and its fields in a fixed order:
/// a record that was changed, or comes from another journal's database, is not taken for what it
/// says.
#[derive(Debug, Clone)]
pub struct Checksum {
    kind: &'static str,
    hasher: Sha256,
}

impl Checksum {
    /// How many bytes it has.
    pub const BYTES: usize = 32;

    /// Of a record without fields yet. `kind` is how messages call it: "the term".
    pub fn of(kind: &'static str, journal: JournalId) -> Self {
        let hasher = Sha256::new();
        Self { kind, hasher }.text(kind).bytes(journal.as_bytes())
    }

    /// With a number.
    pub fn number(mut self, number: u64) -> Self {
        self.hasher.update(number.to_be_bytes());
        self
    }

    /// With a text, behind its length.
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// With bytes, behind their length.
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut with_length = self.number(bytes.len() as u64);
        with_length.hasher.update(bytes);
        with_length
    }

    /// The checksum, to be stored.
    pub fn finish(self) -> [u8; Self::BYTES] {
        self.hasher.finalize().into()
    }

    /// Compares it with what was stored; `None` where nothing was.
    ///
    /// # Errors
    /// [`StorageError::Damaged`] where they differ.
    pub fn check(self, stored: Option<&[u8]>) -> Result<(), StorageError> {
        let kind = self.kind;
        if stored == Some(&self.finish()) {
            Ok(())
        } else {
            Err(StorageError::Damaged(format!(
                "{kind} is not as it was written"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_record_changes_its_checksum() {
        let journal = JournalId::new([1; JournalId::BYTES]);
        let record = |kind, journal| Checksum::of(kind, journal);
        let stored = record("the term", journal).number(3).text("a").finish();
        let same = record("the term", journal).number(3).text("a");
        same.check(Some(&stored)).unwrap();
        let other = JournalId::new([2; JournalId::BYTES]);
        for changed in [
            record("the set", journal).number(3).text("a"),
            record("the term", other).number(3).text("a"),
            record("the term", journal).number(4).text("a"),
            record("the term", journal).number(3).text("b"),
            record("the term", journal).text("a").number(3),
            record("the term", journal).number(3).text("a").text(""),
        ] {
            assert!(changed.check(Some(&stored)).unwrap_err().is_damage());
        }
        let unstored = record("the term", journal).check(None).unwrap_err();
        assert!(unstored.to_string().contains("the term"), "{unstored}");
    }
}
