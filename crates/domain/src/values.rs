//! What an order is made of: amounts, names and keys that cannot be wrong once made.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

use crate::invalid::Invalid;

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

    /// Refuses for a new stock what clients could hardly ask for, since a name is a segment of a path there
    /// (`/stocks/NAME`): `.` and `..`, which are taken out of URLs even where they are percent-encoded (WHATWG URL,
    /// "double-dot URL path segment"), and what has a `/` or `\`, which many servers in between decode or refuse.
    /// Stocks that have such a name from before keep it.
    pub fn check_new(&self) -> Result<(), Invalid> {
        let name = self.as_str();
        if [".", ".."].contains(&name) || name.contains(['/', '\\']) {
            let problem = format!(
                "`{name}` is no name for a new stock: in URLs `.`, `..`, `/` and `\\` mean something else"
            );
            return Err(Invalid::new("name", problem));
        }
        Ok(())
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
    }
}
