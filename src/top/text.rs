//! Words for figures, as the console has them (`page/dom.js`), and texts of others that are safe to show.

use std::iter;

use serde_json::{Map, Value};
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::output::{escaped, is_plain};

/// Longest text of others that is shown, in characters.
const TEXT_CHARS_MAX: usize = 500;

/// Stands for what is not known.
pub const UNKNOWN: &str = "–";

/// How much of a digest people compare.
const DIGEST_CHARS: usize = 12;

const MINUTE: f64 = 60.0;
const HOUR: f64 = 3600.0;
const DAY: f64 = 86_400.0;

// ---- of others ----

/// A text of others as it may be shown: without what a terminal would obey, and no longer than it may be.
pub fn harmless(text: &str) -> String {
    let end = text.char_indices().nth(TEXT_CHARS_MAX);
    match end {
        None => escaped(text),
        Some((end, _)) => escaped(&text[..end]) + "…",
    }
}

/// The same of all texts in a document, names of fields included.
pub fn make_harmless(value: &mut Value) {
    match value {
        Value::String(text) => {
            if !is_harmless(text) {
                *text = harmless(text);
            }
        }
        Value::Array(values) => values.iter_mut().for_each(make_harmless),
        Value::Object(fields) => {
            if !fields.keys().all(|name| is_harmless(name)) {
                let renamed = std::mem::take(fields).into_iter();
                let renamed = renamed.map(|(name, value)| (harmless(&name), value));
                *fields = renamed.collect::<Map<_, _>>();
            }
            fields.values_mut().for_each(make_harmless);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn is_harmless(text: &str) -> bool {
    text.len() <= TEXT_CHARS_MAX && text.chars().all(is_plain)
}

// ---- figures ----

/// A number with commas.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and what there are of it: `1 row`, `2 rows`.
pub fn counted(value: u64, one: &str) -> String {
    match value {
        1 => format!("1 {one}"),
        _ => format!("{} {one}s", count(value)),
    }
}

/// So many a second.
pub fn rate(per_second: f64) -> String {
    match per_second {
        0.0 => "0".to_owned(),
        many if many >= 10_000.0 => format!("{}k", three_digits(many / 1000.0)),
        many if many >= 100.0 => count(many.round() as u64),
        many if many >= 10.0 => format!("{many:.1}"),
        few => format!("{few:.2}"),
    }
}

fn three_digits(value: f64) -> String {
    match value {
        many if many >= 100.0 => count(many.round() as u64),
        few => format!("{few:.1}"),
    }
}

/// A part of 1.
pub fn share(part: f64) -> String {
    let percent = part * 100.0;
    match percent {
        0.0 => "0 %".to_owned(),
        100.0 => "100 %".to_owned(),
        much if much > 99.9 && much < 100.0 => "> 99.9 %".to_owned(),
        little if little > 0.0 && little < 0.1 => "< 0.1 %".to_owned(),
        percent => format!("{percent:.1} %"),
    }
}

/// How long, in a unit in which it is short.
pub fn time(seconds: f64) -> String {
    match seconds {
        many if many == f64::INFINITY => "> 10 s".to_owned(),
        0.0 => "0 s".to_owned(),
        few if few < 0.001 => format!("{:.0} µs", few * 1e6),
        few if few < 0.01 => format!("{:.1} ms", few * 1000.0),
        few if few < 1.0 => format!("{:.0} ms", few * 1000.0),
        few if few < 10.0 => format!("{few:.1} s"),
        many => span(many),
    }
}

/// The same, of long times.
pub fn span(seconds: f64) -> String {
    match seconds {
        few if few < MINUTE => format!("{:.0} s", few.floor()),
        few if few < HOUR => format!("{:.0} min", (few / MINUTE).floor()),
        few if few < 2.0 * DAY => format!("{:.0} h", (few / HOUR).floor()),
        many => format!("{:.0} days", (many / DAY).floor()),
    }
}

/// Over which time lately is: no longer than is known of.
pub fn lately(seconds: Option<f64>) -> String {
    match seconds {
        Some(seconds) if seconds <= 55.0 => format!("the last {seconds:.0} s"),
        _ => "the last minute".to_owned(),
    }
}

/// How long ago.
pub fn ago(seconds: f64) -> String {
    match seconds < 2.0 {
        true => "just now".to_owned(),
        false => format!("{} ago", span(seconds)),
    }
}

/// What is known of a figure, in words.
pub fn known(value: Option<f64>, words: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| UNKNOWN.to_owned(), words)
}

/// The beginning of a digest.
pub fn short(digest: &str) -> String {
    digest.chars().take(DIGEST_CHARS).collect()
}

// ---- columns ----

/// How many columns a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// As much of a text as these columns have room for.
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else {
        return String::new();
    };
    let mut shown = beginning(text, room).to_owned();
    shown.push('…');
    shown
}

/// The beginning of a text that these columns have room for.
fn beginning(text: &str, columns: usize) -> &str {
    let mut taken = 0;
    let end = text.char_indices().find(|(_, char)| {
        taken += char.width().unwrap_or(0);
        taken > columns
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// A text in at most so many lines of so many columns, broken between words where it can be; what there is no room for is cut.
pub fn wrapped(text: &str, columns: usize, lines_max: usize) -> Vec<String> {
    let mut rest = text.trim();
    let mut lines = Vec::new();
    while !rest.is_empty() && columns > 0 && lines.len() < lines_max {
        if rest.width() <= columns || lines.len() + 1 == lines_max {
            lines.push(cut(rest, columns));
            break;
        }
        let line = beginning(rest, columns);
        let line = match line.rfind(' ') {
            // A space may come right behind it.
            _ if rest[line.len()..].starts_with(' ') => line,
            Some(space) if space > 0 => &line[..space],
            _ => line,
        };
        if line.is_empty() {
            break; // no room for one character
        }
        rest = rest[line.len()..].trim_start();
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// So many spaces.
pub fn spaces(columns: usize) -> String {
    iter::repeat_n(' ', columns).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_of_others_is_cut_where_it_is_long() {
        let long = harmless(&"x\n".repeat(10_000));
        assert!(long.starts_with("x\\nx\\n") && long.ends_with("\\n…"));
        assert_eq!(long.chars().count(), TEXT_CHARS_MAX / 2 * 3 + 1);
    }

    #[test]
    fn a_document_is_harmless_down_to_the_names_of_its_fields() {
        let mut hostile = json!({ "a\u{1b}": ["\u{9b}1m", { "b": "\u{7}" }], "number": 1 });
        make_harmless(&mut hostile);
        let harmless = json!({ "a\\u{1b}": ["\\u{9b}1m", { "b": "\\u{7}" }], "number": 1 });
        assert_eq!(hostile, harmless);
    }

    #[test]
    fn figures_are_said_as_the_console_says_them() {
        for (said, expected) in [
            (count(0), "0"),
            (count(1_234_567), "1,234,567"),
            (counted(1, "row"), "1 row"),
            (counted(2_000, "row"), "2,000 rows"),
            (rate(0.0), "0"),
            (rate(0.25), "0.25"),
            (rate(12.34), "12.3"),
            (rate(1234.4), "1,234"),
            (rate(12_345.0), "12.3k"),
            (rate(123_456.0), "123k"),
            (share(0.0), "0 %"),
            (share(0.0004), "< 0.1 %"),
            (share(0.123_4), "12.3 %"),
            (share(0.999_9), "> 99.9 %"),
            (share(1.0), "100 %"),
            (time(0.0), "0 s"),
            (time(0.000_012), "12 µs"),
            (time(0.0012), "1.2 ms"),
            (time(0.123), "123 ms"),
            (time(1.25), "1.2 s"),
            (time(75.0), "1 min"),
            (time(f64::INFINITY), "> 10 s"),
            (span(7200.0), "2 h"),
            (span(200_000.0), "2 days"),
            (ago(1.0), "just now"),
            (ago(61.0), "1 min ago"),
            (lately(Some(12.04)), "the last 12 s"),
            (lately(Some(60.0)), "the last minute"),
            (lately(None), "the last minute"),
            (known(None, time), UNKNOWN),
        ] {
            assert_eq!(said, expected);
        }
    }

    #[test]
    fn texts_are_cut_and_wrapped_by_the_columns_that_they_take() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "long…");
        assert_eq!(cut("株株株", 5), "株株…");
        assert_eq!(cut("anything", 0), "");
        let lines = |text, columns, max| wrapped(text, columns, max).join("|");
        assert_eq!(lines("one two three", 7, 9), "one two|three");
        assert_eq!(lines("one two three", 5, 9), "one|two|three");
        assert_eq!(lines("unbreakable", 4, 9), "unbr|eaka|ble");
        assert_eq!(lines("one two three four", 7, 2), "one two|three …");
        assert_eq!(lines("株株", 1, 9), "");
        assert_eq!(lines("", 10, 9), "");
    }
}
