//! Changes of stocks as databases keep them: JSON in one column, beside the key and the name.

use domain::{IdempotencyKey, Note, StockChange, StockChangeKind, StockName};
use serde::{Deserialize, Serialize};

use crate::error::StorageError;

#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    kind: StockChangeKind,
    #[serde(flatten)]
    note: Note,
}

/// What of a change is not in columns of its own.
pub fn text(change: &StockChange) -> String {
    let kept = Kept {
        kind: change.kind,
        note: change.note.clone(),
    };
    serde_json::to_string(&kept).expect("it has nothing that JSON has not")
}

/// Reads one.
///
/// # Errors
/// [`StorageError::Damaged`] where it is none.
pub fn parse(
    key: IdempotencyKey,
    name: StockName,
    text: &str,
) -> Result<StockChange, StorageError> {
    let damaged = |problem: String| StorageError::Damaged(format!("a change of {name}: {problem}"));
    let kept: Result<Kept, _> = serde_json::from_str(text);
    let Kept { kind, note } = kept.map_err(|error| damaged(error.to_string()))?;
    let kind = kind
        .check()
        .map_err(|invalid| damaged(invalid.to_string()))?;
    Ok(StockChange {
        key,
        name,
        kind,
        note,
    })
}

#[cfg(test)]
mod tests {
    use domain::{Price, Quantity};

    use super::*;

    #[test]
    fn a_change_is_read_as_it_was_written() {
        let price = Price::from_minor(2000).unwrap();
        let quantity = Quantity::new(7).unwrap();
        for kind in [
            StockChangeKind::Add { price, quantity: 0 },
            StockChangeKind::Price { price },
            StockChangeKind::Restock { quantity },
            StockChangeKind::Delist,
        ] {
            let change = StockChange {
                key: IdempotencyKey::new("key").unwrap(),
                name: StockName::new("acme").unwrap(),
                kind,
                note: Note::new("somebody", "says \"why\""),
            };
            let read = parse(change.key.clone(), change.name.clone(), &text(&change));
            assert_eq!(read.unwrap(), change);
        }
    }

    #[test]
    fn nonsense_is_damage() {
        for text in [
            "",
            "{}",
            r#"{"change":"split","who":"","why":""}"#,
            r#"{"change":"price","price":0,"who":"","why":""}"#,
            r#"{"change":"delist","who":"a\tb","why":""}"#,
        ] {
            let key = IdempotencyKey::new("key").unwrap();
            let read = parse(key, StockName::new("acme").unwrap(), text);
            assert!(read.unwrap_err().is_damage(), "{text}");
        }
    }
}
