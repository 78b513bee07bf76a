//! Which journal a process keeps.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::hex::Hex;
use crate::invalid::Invalid;

/// Which journal: random, made with it and kept for as long as it lives. The catalog, every ledger
/// and every gateway of one bazaar have the same one, and refuse requests that name another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JournalId([u8; Self::BYTES]);

impl JournalId {
    /// How many bytes it has.
    pub const BYTES: usize = 16;

    /// Of so many random bytes.
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The id as databases and messages have it.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl TryFrom<&[u8]> for JournalId {
    type Error = Invalid;

    fn try_from(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes = bytes.try_into().map_err(|_| {
            let problem = format!("has {} bytes, not {}", bytes.len(), Self::BYTES);
            Invalid::new("journal id", problem)
        })?;
        Ok(Self(bytes))
    }
}

/// In lower-case hexadecimal.
impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JournalId({self})")
    }
}

/// Reads what [`Display`](fmt::Display) writes.
impl FromStr for JournalId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let digits = text.as_bytes();
        let is_hex = digits.len() == 2 * Self::BYTES && digits.iter().all(u8::is_ascii_hexdigit);
        let read = is_hex
            .then(|| u128::from_str_radix(text, 16).ok())
            .flatten();
        let id = read.ok_or_else(|| {
            let problem = format!("`{text}` is not {} hexadecimal digits", 2 * Self::BYTES);
            Invalid::new("journal id", problem)
        })?;
        Ok(Self(id.to_be_bytes()))
    }
}

impl TryFrom<String> for JournalId {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        text.parse()
    }
}

impl From<JournalId> for String {
    fn from(id: JournalId) -> Self {
        id.to_string()
    }
}

/// SHA-256 over the stocks as they were first listed: with the journal's rows it says what every
/// quantity is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ListingDigest([u8; Self::BYTES]);

impl ListingDigest {
    /// How many bytes it has.
    pub const BYTES: usize = 32;

    /// Of a hash's bytes.
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The digest as databases and messages have it.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl TryFrom<&[u8]> for ListingDigest {
    type Error = Invalid;

    fn try_from(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes = bytes.try_into().map_err(|_| {
            let problem = format!("has {} bytes, not {}", bytes.len(), Self::BYTES);
            Invalid::new("listing digest", problem)
        })?;
        Ok(Self(bytes))
    }
}

/// In lower-case hexadecimal.
impl fmt::Debug for ListingDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListingDigest({})", Hex(&self.0))
    }
}

/// What the catalog says of its journal, and every ledger keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The id by which requests name it.
    pub journal: JournalId,
    /// Of the stocks that it began with.
    pub listing: ListingDigest,
    /// The longest time for which the catalog was heard to count a gateway's lease, margin
    /// included: a catalog that takes this one's place waits for so long.
    pub lease_horizon: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_id_is_read_as_it_is_written() {
        let id = JournalId::new(*b"0123456789abcdef");
        assert_eq!(id.to_string(), "30313233343536373839616263646566");
        assert_eq!(id.to_string().parse::<JournalId>(), Ok(id));
        assert_eq!(JournalId::try_from(&id.as_bytes()[..]), Ok(id));
        assert!(JournalId::try_from(&[1; 15][..]).is_err());
        for text in [
            "",
            "+0313233343536373839616263646566",
            "303132333435363738396162636465",
            "é",
        ] {
            assert!(text.parse::<JournalId>().is_err(), "{text}");
        }
    }
}
