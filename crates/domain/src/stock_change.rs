//! What operators change of the stocks while they are traded.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::invalid::Invalid;
use crate::values::{IdempotencyKey, Price, Quantity, StockName};

/// A change of one stock. It is a row of the journal like an order: it is made exactly once, in order with the
/// trades, and every replica has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StockChange {
    /// The same key with another change, or with an order, is a conflict.
    pub key: IdempotencyKey,
    /// Which stock.
    pub name: StockName,
    /// What becomes of it.
    pub kind: StockChangeKind,
    /// Who changes it, and why.
    pub note: Note,
}

/// What becomes of a stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "lowercase")]
pub enum StockChangeKind {
    /// It is listed, and nobody has traded it yet.
    Add {
        /// What a share costs, in minor units; above 0.
        price: Price,
        /// How many shares there are to buy: 0 to [`Quantity::MAX`].
        quantity: u64,
    },
    /// A share costs something else from now on.
    Price {
        /// In minor units; above 0.
        price: Price,
    },
    /// There are more shares to buy.
    Restock {
        /// So many more.
        quantity: Quantity,
    },
    /// It is not traded any more, nor shown.
    Delist,
}

impl StockChangeKind {
    /// Refuses a stock that costs nothing, or has more shares than there can be.
    ///
    /// # Errors
    /// Says which.
    pub fn check(self) -> Result<Self, Invalid> {
        match self {
            Self::Add { price, .. } | Self::Price { price } if price.minor() == 0 => {
                Err(Invalid::new("price", "is not above 0"))
            }
            Self::Add { quantity, .. } if quantity > Quantity::MAX => Err(Invalid::new(
                "quantity",
                format!("{quantity} is not from 0 to {}", Quantity::MAX),
            )),
            _ => Ok(self),
        }
    }

    /// In one word, which is what commands call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Add { .. } => "add",
            Self::Price { .. } => "price",
            Self::Restock { .. } => "restock",
            Self::Delist => "delist",
        }
    }
}

/// Who made a change, and why, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Words")]
pub struct Note {
    who: Arc<str>,
    why: Arc<str>,
}

impl Note {
    /// The longest text of who, in bytes. As many rows as one message carries are to fit into it, whatever they are.
    pub const WHO_BYTES_MAX: usize = 64;

    /// The longest text of why, in bytes.
    pub const WHY_BYTES_MAX: usize = 128;

    /// Texts that are too long are cut, and control characters are left out: a change is not refused for its reason.
    pub fn new(who: &str, why: &str) -> Self {
        Self {
            who: cut(who, Self::WHO_BYTES_MAX),
            why: cut(why, Self::WHY_BYTES_MAX),
        }
    }

    /// Who made it.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Why.
    pub fn why(&self) -> &str {
        &self.why
    }
}

fn cut(text: &str, bytes_max: usize) -> Arc<str> {
    let mut kept = String::new();
    for char in text.chars().filter(|char| !char.is_control()) {
        if kept.len() + char.len_utf8() > bytes_max {
            break;
        }
        kept.push(char);
    }
    kept.into()
}

/// As somebody else wrote it.
#[derive(Deserialize)]
struct Words {
    who: String,
    why: String,
}

impl TryFrom<Words> for Note {
    type Error = Invalid;

    fn try_from(words: Words) -> Result<Self, Invalid> {
        Self::as_written(&words.who, &words.why)
    }
}

impl Note {
    /// Reads one off a row: nothing is cut, since that would make another row of it.
    ///
    /// # Errors
    /// Where it is not what [`Note::new`] makes.
    pub fn as_written(who: &str, why: &str) -> Result<Self, Invalid> {
        let note = Self::new(who, why);
        match (note.who(), note.why()) == (who, why) {
            true => Ok(note),
            false => Err(Invalid::new(
                "note",
                "is longer than it may be, or has control characters",
            )),
        }
    }
}

impl fmt::Display for StockChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Add { price, quantity } => write!(f, "add at {price}, {quantity} shares"),
            Self::Price { price } => write!(f, "price {price}"),
            Self::Restock { quantity } => write!(f, "restock {quantity} shares"),
            Self::Delist => f.write_str("delist"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_between_characters_and_read_as_it_was_written() {
        let note = Note::new(&"ä".repeat(300), "because\nof this");
        assert_eq!(note.who().len(), Note::WHO_BYTES_MAX);
        assert_eq!(note.why(), "becauseof this");
        assert_eq!(Note::as_written(note.who(), note.why()), Ok(note));
        assert!(Note::as_written(&"a".repeat(Note::WHO_BYTES_MAX + 1), "").is_err());
        assert!(Note::as_written("", "a\tb").is_err());
    }

    #[test]
    fn no_stock_costs_nothing() {
        let free = Price::from_minor(0).unwrap();
        let cent = Price::from_minor(1).unwrap();
        for (price, quantity, is_sound) in [
            (free, 1, false),
            (cent, 0, true),
            (cent, Quantity::MAX, true),
            (cent, Quantity::MAX + 1, false),
        ] {
            let added = StockChangeKind::Add { price, quantity };
            assert_eq!(added.check().is_ok(), is_sound, "{added}");
        }
        assert!(StockChangeKind::Price { price: free }.check().is_err());
    }
}
