//! What the gateway answers, as data.

use std::fmt;

use domain::Side;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How much of an answer that nobody understood is shown.
const BEGINNING_CHARS: usize = 200;

/// The answer to a lookup, as far as it is needed.
#[derive(Debug, Deserialize)]
pub struct Stock {
    pub name: String,
}

/// The answer to an order.
#[derive(Debug, Deserialize)]
pub struct Acknowledged {
    pub transaction_number: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub name: String,
    #[serde(rename = "type")]
    pub side: Side,
    pub quantity: u64,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} {}", self.side, self.quantity, self.name)
    }
}

/// An order as it is found later.
#[derive(Debug, Deserialize)]
pub struct Found {
    pub number: u64,
    #[serde(flatten)]
    pub order: Order,
}

/// A page of a list.
#[derive(Debug, Deserialize)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Path and query of the one after it.
    pub next: Option<String>,
}

/// A refusal's message, where the body is one.
pub fn refusal(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refused {
        error: Message,
    }
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    serde_json::from_slice::<Refused>(body)
        .ok()
        .map(|refused| refused.error.message)
}

/// The data of an answer.
pub fn parse<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<T> {
    #[derive(Deserialize)]
    struct Data<T> {
        data: T,
    }
    serde_json::from_slice::<Data<T>>(body).map(|answer| answer.data)
}

/// Enough of a body to see what it is, in words where there is nothing to see.
pub fn beginning(body: &[u8]) -> String {
    if body.trim_ascii().is_empty() {
        return "nothing in the body".to_owned();
    }
    String::from_utf8_lossy(body)
        .chars()
        .take(BEGINNING_CHARS)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_and_orders_written_as_the_api_has_them() {
        let found: Found =
            parse(br#"{"data":{"number":3,"name":"tesla","type":"sell","quantity":10}}"#).unwrap();
        assert_eq!((found.number, found.order.side), (3, Side::Sell));
        assert_eq!(
            serde_json::to_string(&found.order).unwrap(),
            r#"{"name":"tesla","type":"sell","quantity":10}"#
        );
        assert_eq!(
            refusal(br#"{"error":{"code":404,"message":"no"}}"#).as_deref(),
            Some("no")
        );
        assert_eq!(refusal(b"nonsense"), None);
    }

    #[test]
    fn what_was_answered_is_always_in_words() {
        assert_eq!(beginning(b"<html>"), "<html>");
        assert_eq!(beginning(&[b'a'; 1000]).len(), BEGINNING_CHARS);
        for empty in [b"".as_slice(), b" \r\n"] {
            assert_eq!(beginning(empty), "nothing in the body");
        }
    }
}
