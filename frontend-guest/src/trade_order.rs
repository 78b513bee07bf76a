//! From the body and headers of `POST /orders` to a trade that the host can carry out.
//!
//! Checked in this order, so that an order with several faults always gets the same answer: the
//! key, the body is JSON, its fields are there and typed, its type, its quantity, its stock.

use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::stock_name::is_stock_name;
use crate::types::{RequestHeader, Side, Trade};

/// The request header that carries a client's idempotency key, in lower case.
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";

/// The longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// Reads an order.
// Inlined, it would make the code of a lookup four times as long.
#[inline(never)]
pub fn parse(headers: &[RequestHeader], body: Option<&[u8]>) -> Result<Trade, ApiError> {
    let idempotency_key = idempotency_key(headers)?;
    let form = Form::parse(body.unwrap_or_default())?;
    let name: String = field("name", form.name, "a string")?;
    let side: String = field("type", form.side, "a string")?;
    let quantity: i64 = field(
        "quantity",
        form.quantity,
        "an integer of at most 9223372036854775807",
    )?;
    let side = match side.as_str() {
        "buy" => Side::Buy,
        "sell" => Side::Sell,
        _ => return Err(ApiError::InvalidType),
    };
    let quantity = u64::try_from(quantity)
        .ok()
        .filter(|&shares| shares > 0)
        .ok_or(ApiError::InvalidQuantity)?;
    if !is_stock_name(&name) {
        return Err(ApiError::StockNotFound);
    }
    Ok(Trade {
        name,
        side,
        quantity,
        idempotency_key,
    })
}

/// The fields of an order as they stand in the body, unread: what a client sends beside them takes
/// no memory, however large or deeply nested it is.
#[derive(Default)]
struct Form<'a> {
    name: Option<&'a RawValue>,
    side: Option<&'a RawValue>,
    quantity: Option<&'a RawValue>,
}

impl<'a> Form<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, ApiError> {
        let text = std::str::from_utf8(body).map_err(|_| invalid_body("the body is not UTF-8"))?;
        serde_json::from_str(text).map_err(|error| {
            if error.is_data() {
                invalid_body("the body is not a JSON object")
            } else {
                invalid_body(format!("the body is not JSON: {error}"))
            }
        })
    }
}

impl<'de> Deserialize<'de> for Form<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FormVisitor)
    }
}

struct FormVisitor;

impl<'de> Visitor<'de> for FormVisitor {
    type Value = Form<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    /// Of a field given twice the last one counts, as with most readers of JSON.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Form<'de>, A::Error> {
        let mut form = Form::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => form.name = Some(map.next_value()?),
                "type" => form.side = Some(map.next_value()?),
                "quantity" => form.quantity = Some(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(form)
    }
}

fn field<T: DeserializeOwned>(
    name: &str,
    value: Option<&RawValue>,
    what: &str,
) -> Result<T, ApiError> {
    let value = value.ok_or_else(|| invalid_body(format!("the field `{name}` is missing")))?;
    serde_json::from_str(value.get())
        .map_err(|_| invalid_body(format!("the field `{name}` must be {what}")))
}

fn invalid_body(message: impl Into<String>) -> ApiError {
    ApiError::InvalidBody(message.into())
}

/// The client's idempotency key. The draft has it as a string of RFC 8941, in quotes; one
/// without quotes is taken as it is.
fn idempotency_key(headers: &[RequestHeader]) -> Result<Option<String>, ApiError> {
    let mut keys = headers
        .iter()
        .filter(|(name, _)| name == IDEMPOTENCY_KEY_HEADER)
        .map(|(_, value)| value.trim_ascii());
    let Some(value) = keys.next() else {
        return Ok(None);
    };
    if keys.next().is_some() {
        return Err(ApiError::InvalidKey("was given more than once"));
    }
    let not_ascii = ApiError::InvalidKey("has a character that is not printable ASCII");
    let Ok(value) = std::str::from_utf8(value) else {
        return Err(not_ascii);
    };
    let key = match value.strip_prefix('"') {
        Some(quoted) => {
            unquote(quoted).ok_or(ApiError::InvalidKey("is not a well-formed quoted string"))?
        }
        None => value.to_owned(),
    };
    match key.len() {
        0 => Err(ApiError::InvalidKey("is empty")),
        1..=KEY_BYTES_MAX if key.bytes().all(is_printable_ascii) => Ok(Some(key)),
        1..=KEY_BYTES_MAX => Err(not_ascii),
        _ => Err(ApiError::InvalidKey("is longer than 128 bytes")),
    }
}

fn is_printable_ascii(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

/// What follows the opening quote of an RFC 8941 string (section 3.3.3). Parameters after the
/// closing quote are ignored, as the RFC asks for those that one does not know.
fn unquote(quoted: &str) -> Option<String> {
    let mut key = String::with_capacity(quoted.len());
    let mut rest = quoted.chars();
    loop {
        match rest.next()? {
            '"' => break,
            '\\' => key.push(
                rest.next()
                    .filter(|escaped| matches!(escaped, '"' | '\\'))?,
            ),
            plain => key.push(plain),
        }
    }
    let parameters = rest.as_str().trim_start();
    (parameters.is_empty() || parameters.starts_with(';')).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trade(name: &str, side: Side, quantity: u64) -> Trade {
        Trade {
            name: name.to_owned(),
            side,
            quantity,
            idempotency_key: None,
        }
    }

    fn parse_body(body: impl AsRef<[u8]>) -> Result<Trade, ApiError> {
        parse(&[], Some(body.as_ref()))
    }

    #[test]
    fn orders_are_read() {
        for (body, expected) in [
            (
                r#"{"name":"meta","type":"sell","quantity":10}"#,
                trade("meta", Side::Sell, 10),
            ),
            (
                r#" {"quantity":1,"extra":{"a":[null]},"type":"buy","name":"L'Or\u00e9al"} "#,
                trade("L'Oréal", Side::Buy, 1),
            ),
            (
                r#"{"name":"a","type":"buy","quantity":9223372036854775807}"#,
                trade("a", Side::Buy, i64::MAX as u64),
            ),
            (
                r#"{"name":"a","name":"b","type":"buy","quantity":1}"#,
                trade("b", Side::Buy, 1),
            ),
        ] {
            assert_eq!(parse_body(body), Ok(expected), "{body}");
        }
    }

    fn refused(body: &str, message: &str) {
        let error = parse_body(body).expect_err(body);
        assert_eq!(
            (error.status(), error.to_string().as_str()),
            (400, message),
            "{body}"
        );
    }

    #[test]
    fn a_body_that_is_no_order_is_told_why() {
        let integer = "the field `quantity` must be an integer of at most 9223372036854775807";
        refused(
            "",
            "the body is not JSON: EOF while parsing a value at line 1 column 0",
        );
        refused(
            "{",
            "the body is not JSON: EOF while parsing an object at line 1 column 1",
        );
        refused(
            "{} x",
            "the body is not JSON: trailing characters at line 1 column 4",
        );
        refused("null", "the body is not a JSON object");
        refused("[]", "the body is not a JSON object");
        refused(r#"["meta","sell",10]"#, "the body is not a JSON object");
        refused(r#""meta""#, "the body is not a JSON object");
        refused("{}", "the field `name` is missing");
        refused(
            r#"{"name":"meta","quantity":1}"#,
            "the field `type` is missing",
        );
        refused(
            r#"{"name":"meta","type":"buy"}"#,
            "the field `quantity` is missing",
        );
        refused(
            r#"{"name":7,"type":"buy","quantity":1}"#,
            "the field `name` must be a string",
        );
        refused(
            r#"{"name":null,"type":"buy","quantity":1}"#,
            "the field `name` must be a string",
        );
        refused(
            r#"{"name":"meta","type":["buy"],"quantity":1}"#,
            "the field `type` must be a string",
        );
        for quantity in [
            "1.5",
            "1.0",
            "1e3",
            "\"1\"",
            "true",
            "null",
            "[]",
            "9223372036854775808",
            "-9223372036854775809",
        ] {
            refused(
                &format!(r#"{{"name":"meta","type":"buy","quantity":{quantity}}}"#),
                integer,
            );
        }
        assert_eq!(parse(&[], None), parse_body(""));
        assert_eq!(
            parse_body(b"{\"name\":\"\xff\"}").unwrap_err().to_string(),
            "the body is not UTF-8"
        );
    }

    #[test]
    fn of_several_faults_the_first_counts() {
        let check =
            |body: &str, expected: ApiError| assert_eq!(parse_body(body), Err(expected), "{body}");
        check(
            r#"{"name":"","type":"hold","quantity":-1}"#,
            ApiError::InvalidType,
        );
        check(
            r#"{"name":"meta","type":"BUY","quantity":1}"#,
            ApiError::InvalidType,
        );
        check(
            r#"{"name":"","type":"buy","quantity":0}"#,
            ApiError::InvalidQuantity,
        );
        check(
            r#"{"name":"meta","type":"sell","quantity":-1}"#,
            ApiError::InvalidQuantity,
        );
        check(
            r#"{"name":"","type":"buy","quantity":1}"#,
            ApiError::StockNotFound,
        );
        check(
            r#"{"name":"a\u0000","type":"buy","quantity":1}"#,
            ApiError::StockNotFound,
        );
    }

    #[test]
    fn deep_nesting_is_just_another_body() {
        let nested = "[".repeat(100_000);
        for body in [
            nested.clone(),
            format!("{{\"x\":{nested}"),
            format!("{{\"name\":{nested}"),
        ] {
            assert_eq!(parse_body(&body).unwrap_err().status(), 400);
        }
    }

    fn key_of(values: &[&str]) -> Result<Option<String>, ApiError> {
        let header = |value: &&str| (IDEMPOTENCY_KEY_HEADER.to_owned(), value.as_bytes().to_vec());
        idempotency_key(&values.iter().map(header).collect::<Vec<_>>())
    }

    #[test]
    fn a_key_may_come_in_quotes() {
        let long = "k".repeat(KEY_BYTES_MAX);
        for (value, key) in [
            (r#""8e03978e-40d5""#, "8e03978e-40d5"),
            ("8e03978e-40d5", "8e03978e-40d5"),
            (" bare key ", "bare key"),
            (r#""a\"b\\c""#, r#"a"b\c"#),
            (r#""a"; version=1"#, "a"),
            (&long, &long),
        ] {
            assert_eq!(key_of(&[value]), Ok(Some(key.to_owned())), "{value}");
        }
        assert_eq!(key_of(&[]), Ok(None));
    }

    #[test]
    fn a_key_that_is_none_is_refused() {
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        for value in [
            "", "  ", r#""""#, r#"""#, r#""a"#, r#""a\n""#, r#""a"b"#, "naïve", "\"a\tb\"", &long,
        ] {
            let error = key_of(&[value]).expect_err(value);
            assert_eq!(error.status(), 400, "{value}");
        }
        assert!(key_of(&["a", "a"]).is_err());
    }

    proptest! {
        #[test]
        fn no_body_breaks_the_reader(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_body(body);
        }

        #[test]
        fn no_near_order_breaks_the_reader(
            body in r#"\{("(name|type|quantity)":("buy"|"[a-z\\"]{0,3}"|-?[0-9e.]{1,20}|null|\[|\{)?,?){0,4}\}?"#
        ) {
            let _ = parse_body(body);
        }
    }
}
