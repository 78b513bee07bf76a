//! Numbers, names and keys that cannot be wrong once made.

use std::borrow::Borrow;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct Invalid {
    /// Which value, by the name that users know it by.
    pub what: &'static str,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl Invalid {
    /// A refusal of the value `what`.
    pub fn new(what: &'static str, problem: impl Into<String>) -> Self {
        Self {
            what,
            problem: problem.into(),
        }
    }
}

/// A leader's term of office. 0 stands for the time before the first election.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The term after this one.
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("an epoch a nanosecond lasts 584 years"),
        )
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A gateway's session with the catalog. Never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(NonZeroU64);

impl SessionId {
    /// `None` for 0, which stands for "no session" on the wire.
    pub fn new(id: u64) -> Option<Self> {
        NonZeroU64::new(id).map(Self)
    }

    /// The bare number.
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Which journal: random, made with it and kept for as long as it lives. The catalog, every ledger
/// and every gateway of one bazaar have the same one, and refuse whoever names another.
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

    /// Its bytes.
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
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
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

    /// Its bytes.
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
        f.write_str("ListingDigest(")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str(")")
    }
}

/// The place of an order in the journal, from 0 without gaps. Also serves as a count of
/// orders: a ledger that holds `n` orders ends before number `n`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct OrderNumber(pub u64);

impl OrderNumber {
    /// The number after this one.
    pub fn next(self) -> Self {
        Self(
            self.0
                .checked_add(1)
                .expect("numbers are dense: memory ends long before they do"),
        )
    }
}

impl fmt::Display for OrderNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the changes of one stock, from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u64);

/// An order replica, 1 to 2³²-1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplicaId(u32);

impl ReplicaId {
    /// `None` for 0, which stands for "no replica" on the wire.
    pub fn new(id: u32) -> Option<Self> {
        (id != 0).then_some(Self(id))
    }

    /// The bare number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ReplicaId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let id = text.parse().ok().and_then(Self::new);
        id.ok_or_else(|| {
            Invalid::new(
                "replica id",
                format!("`{text}` is not a number from 1 to {}", u32::MAX),
            )
        })
    }
}

/// How many shares an order is about: 1 to [`Quantity::MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Quantity(u64);

impl Quantity {
    /// 2⁶³-1, the largest integer that the stores hold. Also bounds the shares of a stock.
    pub const MAX: u64 = i64::MAX as u64;

    /// Refuses 0 and what is above [`Quantity::MAX`].
    pub fn new(shares: u64) -> Result<Self, Invalid> {
        if (1..=Self::MAX).contains(&shares) {
            Ok(Self(shares))
        } else {
            Err(Invalid::new(
                "quantity",
                format!("{shares} is not from 1 to {}", Self::MAX),
            ))
        }
    }

    /// The bare number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Quantity {
    type Error = Invalid;

    fn try_from(shares: u64) -> Result<Self, Invalid> {
        Self::new(shares)
    }
}

impl From<Quantity> for u64 {
    fn from(quantity: Quantity) -> Self {
        quantity.0
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The price of one share in minor units (cents): 0 to [`Price::MAX_MINOR`].
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(try_from = "u64", into = "u64")]
pub struct Price(u64);

impl Price {
    /// 2⁵³-1: as a count of cents every such price is exact in JSON numbers, too.
    pub const MAX_MINOR: u64 = (1 << 53) - 1;

    /// Refuses what is above [`Price::MAX_MINOR`].
    pub fn from_minor(minor: u64) -> Result<Self, Invalid> {
        if minor <= Self::MAX_MINOR {
            Ok(Self(minor))
        } else {
            Err(Invalid::new(
                "price",
                format!("{minor} cents is above {} cents", Self::MAX_MINOR),
            ))
        }
    }

    /// In minor units.
    pub fn minor(self) -> u64 {
        self.0
    }
}

/// In minor units.
impl TryFrom<u64> for Price {
    type Error = Invalid;

    fn try_from(minor: u64) -> Result<Self, Invalid> {
        Self::from_minor(minor)
    }
}

/// In minor units.
impl From<Price> for u64 {
    fn from(price: Price) -> Self {
        price.0
    }
}

/// `240.63`, and `20.0` for a whole number.
impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, cents) = (self.0 / 100, self.0 % 100);
        if cents.is_multiple_of(10) {
            write!(f, "{whole}.{}", cents / 10)
        } else {
            write!(f, "{whole}.{cents:02}")
        }
    }
}

/// Reads `240.63`, `20.0` and `20`: at most two decimals, no sign.
impl FromStr for Price {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let problem = || {
            Invalid::new(
                "price",
                format!("`{text}` is not an amount such as 240.63, with two decimals at most"),
            )
        };
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 2 {
            return Err(problem());
        }
        let cents: u64 = format!("{decimals:0<2}").parse().map_err(|_| problem())?;
        let whole: u64 = whole.parse().map_err(|_| problem())?;
        let minor = whole
            .checked_mul(100)
            .and_then(|minor| minor.checked_add(cents))
            .ok_or_else(problem)?;
        Self::from_minor(minor)
    }
}

/// Which way the shares go, seen from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The client takes shares: the stock's quantity falls.
    Buy,
    /// The client gives shares: the stock's quantity rises.
    Sell,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Buy => "buy",
            Self::Sell => "sell",
        })
    }
}

/// The name of a stock: 1 to [`StockName::BYTES_MAX`] bytes without control characters.
/// Cheap to make and to clone: up to 23 bytes need no allocation, and longer ones are shared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String")]
pub struct StockName(SmolStr);

impl StockName {
    /// The longest name, in bytes.
    pub const BYTES_MAX: usize = 64;

    /// Refuses the empty, the long and control characters.
    pub fn new(name: &str) -> Result<Self, Invalid> {
        if name.is_empty() || name.len() > Self::BYTES_MAX {
            return Err(Invalid::new(
                "name",
                format!(
                    "has {} bytes; 1 to {} are allowed",
                    name.len(),
                    Self::BYTES_MAX
                ),
            ));
        }
        if name.chars().any(char::is_control) {
            return Err(Invalid::new("name", "has a control character"));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for StockName {
    type Error = Invalid;

    fn try_from(name: String) -> Result<Self, Invalid> {
        Self::new(&name)
    }
}

impl Borrow<str> for StockName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StockName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What makes a client's order one order however often it is sent: 1 to
/// [`IdempotencyKey::BYTES_MAX`] bytes of printable ASCII (space to tilde).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IdempotencyKey(Arc<str>);

impl IdempotencyKey {
    /// The longest key, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// Refuses the empty, the long and anything but printable ASCII.
    pub fn new(key: &str) -> Result<Self, Invalid> {
        if key.is_empty() || key.len() > Self::BYTES_MAX {
            return Err(Invalid::new(
                "idempotency key",
                format!(
                    "has {} bytes; 1 to {} are allowed",
                    key.len(),
                    Self::BYTES_MAX
                ),
            ));
        }
        if !key.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(Invalid::new(
                "idempotency key",
                "has a character that is not printable ASCII",
            ));
        }
        Ok(Self(key.into()))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_written_as_it_is_read() {
        for (text, minor, written) in [
            ("240.63", 24063, "240.63"),
            ("20.0", 2000, "20.0"),
            ("20", 2000, "20.0"),
            ("0.05", 5, "0.05"),
            ("7.5", 750, "7.5"),
            ("90071992547409.91", Price::MAX_MINOR, "90071992547409.91"),
        ] {
            let price: Price = text.parse().unwrap();
            assert_eq!(price.minor(), minor, "{text}");
            assert_eq!(price.to_string(), written);
        }
    }

    #[test]
    fn what_is_no_price_is_refused() {
        for text in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1.234",
            "1e3",
            "NaN",
            "90071992547409.92",
            "99999999999999999999",
        ] {
            assert!(text.parse::<Price>().is_err(), "{text}");
        }
    }

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

    #[test]
    fn names_keys_and_quantities_have_bounds() {
        assert!(StockName::new("").is_err());
        assert!(StockName::new(&"x".repeat(64)).is_ok());
        assert!(StockName::new(&"x".repeat(65)).is_err());
        assert!(StockName::new("a\nb").is_err());
        assert!(IdempotencyKey::new(&"k".repeat(128)).is_ok());
        assert!(IdempotencyKey::new(&"k".repeat(129)).is_err());
        assert!(IdempotencyKey::new("naïve").is_err());
        assert!(Quantity::new(0).is_err());
        assert!(Quantity::new(Quantity::MAX).is_ok());
        assert!(Quantity::new(Quantity::MAX + 1).is_err());
        assert!("0".parse::<ReplicaId>().is_err());
        assert_eq!(SessionId::new(0), None);
    }
}
