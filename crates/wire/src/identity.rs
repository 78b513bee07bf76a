//! Which journal a process keeps, and whom it therefore answers.
//!
//! Being reached at an address proves nothing: ports are taken over, URLs mistyped, disks swapped.
//! So every request names the journal that it is about, and a service that keeps another one refuses it.

use tonic::{Code, Status};

use domain::{Invalid, JournalId};

use crate::Malformed;

/// The gRPC status of a request that names another journal. That of a caller that may not ask has it as well, but is never
/// worth asking elsewhere.
pub const OTHER_JOURNAL: Code = Code::PermissionDenied;

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// It is about another journal.
    #[error("the caller's journal is {named}, the one here is {own}")]
    Other {
        /// The journal that the request names.
        named: JournalId,
        /// The one that is kept here.
        own: JournalId,
    },
    /// It does not say, or what it says is not an id.
    #[error(transparent)]
    Unnamed(#[from] Malformed),
}

impl From<NotOurs> for Status {
    fn from(error: NotOurs) -> Self {
        let code = match error {
            NotOurs::Other { .. } => OTHER_JOURNAL,
            NotOurs::Unnamed(_) => Code::InvalidArgument,
        };
        Status::new(code, error.to_string())
    }
}

/// Reads the journal that a message names.
///
/// # Errors
/// Where it names none.
pub fn named(field: &[u8]) -> Result<JournalId, Malformed> {
    if field.is_empty() {
        return Err(Malformed(Invalid::new("journal", "is not named")));
    }
    Ok(JournalId::try_from(field)?)
}

/// Whether a request is about the journal `own`.
///
/// # Errors
/// Where it is about another one, or names none.
pub fn check(field: &[u8], own: JournalId) -> Result<(), NotOurs> {
    let named = named(field)?;
    if named == own {
        Ok(())
    } else {
        Err(NotOurs::Other { named, own })
    }
}

/// The same of a request by somebody who may not know the journal yet, and then leaves it out.
///
/// # Errors
/// Where it is about another one.
pub fn check_if_named(field: &[u8], own: JournalId) -> Result<(), NotOurs> {
    if field.is_empty() {
        return Ok(());
    }
    check(field, own)
}

/// A journal as messages name it; nothing where it is not known yet.
pub fn to_wire(journal: Option<JournalId>) -> Vec<u8> {
    journal.map_or_else(Vec::new, |journal| journal.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_about_another_journal_is_refused_by_name() {
        let own = JournalId::new([1; JournalId::BYTES]);
        let other = JournalId::new([2; JournalId::BYTES]);
        assert_eq!(check(own.as_bytes(), own), Ok(()));
        let status = Status::from(check(other.as_bytes(), own).unwrap_err());
        assert_eq!(status.code(), OTHER_JOURNAL);
        for id in [own, other] {
            assert!(status.message().contains(&id.to_string()), "{status}");
        }
        assert!(check_if_named(other.as_bytes(), own).is_err());
        assert_eq!(check_if_named(&[], own), Ok(()));
        for unnamed in [&[][..], &[1; 15]] {
            let status = Status::from(check(unnamed, own).unwrap_err());
            assert_eq!(status.code(), Code::InvalidArgument, "{unnamed:?}");
        }
    }
}
