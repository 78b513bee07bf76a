//! What of a decision is not compared: fields that are left out, and parts that count as the same.

use std::str::FromStr;

use regex::Regex;
use serde_json::Value;

use super::fields::{FIELDS, Fields};
use super::left_out::LEFT_OUT;

/// What stands for what a mask takes away.
const MASKED: &str = "…";

/// A field, or a part of it, that is not compared as it is.
#[derive(Debug, Clone)]
pub struct Mask {
    place: Place,
    /// What counts as the same of it; all of it where there is none.
    what: Option<Regex>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// A field of a decision.
    Field(String),
    /// A header of a response.
    Header(String),
    /// A value in a body of JSON, by the names and numbers that lead there; `*` is each of them.
    Body(Vec<String>),
}

/// Why a text is no mask.
#[derive(Debug, thiserror::Error)]
pub enum MaskError {
    #[error(
        "a decision has no field `{0}`; it has {fields}, and parts such as headers.etag and body.data.price",
        fields = FIELDS.join(", ")
    )]
    NoField(String),
    #[error(transparent)]
    Regex(#[from] regex::Error),
}

/// Reads `FIELD` or `FIELD=REGEX`.
impl FromStr for Mask {
    type Err = MaskError;

    fn from_str(text: &str) -> Result<Self, MaskError> {
        let (field, what) = match text.split_once('=') {
            Some((field, what)) => (field, Some(Regex::new(what)?)),
            None => (text, None),
        };
        let place = match field.split_once('.') {
            Some(("headers", name)) if !name.is_empty() => Place::Header(name.to_ascii_lowercase()),
            Some(("body", path)) if !path.is_empty() => {
                Place::Body(path.split('.').map(str::to_owned).collect())
            }
            None if FIELDS.contains(&field) => Place::Field(field.to_owned()),
            _ => return Err(MaskError::NoField(field.to_owned())),
        };
        Ok(Self { place, what })
    }
}

impl Mask {
    /// Masks of what was left out of a recorded decision, with which nothing can be compared.
    pub(super) fn of_left_out(recorded: &Fields) -> Vec<Self> {
        let mut places = Vec::new();
        for (field, text) in recorded.iter() {
            if !text.contains(LEFT_OUT) {
                continue;
            }
            if field == "headers" {
                let lines = text.split('\n').filter(|line| line.contains(LEFT_OUT));
                let names = lines.filter_map(|line| line.split_once(": "));
                places.extend(names.map(|(name, _)| Place::Header(name.to_owned())));
            } else {
                places.push(Place::Field(field.to_owned()));
            }
        }
        let leave_out = |place| Self { place, what: None };
        places.into_iter().map(leave_out).collect()
    }

    /// A decision without what it takes away.
    pub(super) fn apply(&self, fields: &mut Fields) {
        fields.change(|name, value| match &self.place {
            Place::Field(field) if name == field => Some(self.masked(value)),
            Place::Header(header) if name == "headers" => {
                let lines = value.split('\n').map(|line| match line.split_once(": ") {
                    Some((name, value)) if name == header => {
                        format!("{name}: {}", self.masked(value))
                    }
                    _ => line.to_owned(),
                });
                // A header that is left out may be missing, too.
                let is_left_out = |line: &String| {
                    self.what.is_none() && line.strip_suffix(MASKED) == Some(&format!("{header}: "))
                };
                let lines: Vec<_> = lines.filter(|line| !is_left_out(line)).collect();
                Some(lines.join("\n"))
            }
            Place::Body(path) if name == "body" => {
                let mut json: Value = serde_json::from_str(value).ok()?;
                self.mask_json(&mut json, path);
                Some(json.to_string())
            }
            _ => None,
        });
    }

    fn masked(&self, value: &str) -> String {
        match &self.what {
            None => MASKED.to_owned(),
            Some(what) => what.replace_all(value, MASKED).into_owned(),
        }
    }

    fn mask_json(&self, json: &mut Value, path: &[String]) {
        let Some((step, rest)) = path.split_first() else {
            let text = match &*json {
                Value::String(text) => self.masked(text),
                other => self.masked(&other.to_string()),
            };
            *json = Value::String(text);
            return;
        };
        let is_meant = |name: &str| step == "*" || step == name;
        match json {
            Value::Object(fields) => {
                let meant = fields.iter_mut().filter(|(name, _)| is_meant(name));
                meant.for_each(|(_, value)| self.mask_json(value, rest));
            }
            Value::Array(items) => {
                let items = items.iter_mut().enumerate();
                let meant = items.filter(|(index, _)| is_meant(&index.to_string()));
                meant.for_each(|(_, value)| self.mask_json(value, rest));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(masks: &[&str], field: &str, value: &str) -> String {
        let mut fields = Fields::of([("action", "respond"), (field, value)]);
        for mask in masks {
            mask.parse::<Mask>().unwrap().apply(&mut fields);
        }
        fields.get(field).unwrap().to_owned()
    }

    #[test]
    fn a_mask_takes_away_what_it_says() {
        let headers = "content-type: \"text/html\"\netag: \"\\\"17\\\"\"";
        let body = r#"{"data":[{"name":"amc","price":1.5},{"name":"meta","price":2}],"next":"/x"}"#;
        for (masks, field, value, expected) in [
            (vec!["status"], "status", "200", "…"),
            (vec!["status"], "body", "200", "200"),
            (vec!["body=[0-9]+"], "body", "a 17 b 4", "a … b …"),
            (vec!["body=x"], "body", "a", "a"),
            (
                vec!["headers.ETag"],
                "headers",
                headers,
                "content-type: \"text/html\"",
            ),
            (
                vec!["headers.etag=[0-9]"],
                "headers",
                headers,
                "content-type: \"text/html\"\netag: \"\\\"……\\\"\"",
            ),
            (vec!["headers"], "headers", headers, "…"),
            (
                vec!["body.data.*.price", "body.next"],
                "body",
                body,
                r#"{"data":[{"name":"amc","price":"…"},{"name":"meta","price":"…"}],"next":"…"}"#,
            ),
            (
                vec!["body.data.1.price", "body.nowhere.at.all"],
                "body",
                body,
                r#"{"data":[{"name":"amc","price":1.5},{"name":"meta","price":"…"}],"next":"/x"}"#,
            ),
            (vec!["body.data"], "body", "no JSON", "no JSON"),
        ] {
            assert_eq!(masked(&masks, field, value), expected, "{masks:?}");
        }
    }

    #[test]
    fn what_is_no_field_of_a_decision_is_no_mask() {
        for wrong in [
            "", "no-field", "status.x", "headers.", "body.", "=x", "body=(",
        ] {
            assert!(wrong.parse::<Mask>().is_err(), "{wrong}");
        }
    }
}
