//! How a request is written down: as JSON, or as the combined format that Apache and others have, with more behind it.

use std::fmt::Write as _;
use std::io::Write as _;

use http::HeaderValue;
use jiff::Timestamp;
use serde::Serialize;

use super::Entry;

/// Values of a query that are logged. Those of others may be secrets, whatever a policy makes of them.
const SHOWN: [&str; 3] = ["after", "limit", "stock"];

/// In the place of what is not.
const LEFT_OUT: char = '*';

/// How many digits of a version's digest are in a line of text, as in other places.
const DIGEST_SHOWN: usize = 12;

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `HOST - - [TIME] "METHOD TARGET PROTOCOL" STATUS BYTES "-" "USER-AGENT" MICROSECONDS CACHE POLICY ID`, and its trace's id behind that where
    /// it is traced
    Text,
    /// An object each.
    Json,
}

/// A line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    client: String,
    method: &'a str,
    target: &'a str,
    protocol: String,
    status: u16,
    bytes: usize,
    duration_us: u64,
    cache: Option<&'a str>,
    policy: Option<String>,
    request_id: &'a str,
    trace_id: Option<String>,
    user_agent: Option<&'a str>,
}

impl Format {
    /// Writes a line, with its end.
    pub(super) fn write(self, entry: &Entry, lines: &mut Vec<u8>) {
        match self {
            Self::Text => lines.extend_from_slice(text(entry).as_bytes()),
            Self::Json => json(entry, lines),
        }
        lines.push(b'\n');
    }
}

fn json(entry: &Entry, lines: &mut Vec<u8>) {
    let line = Line {
        timestamp: timestamp(entry).map_or_else(String::new, |at| format!("{at:.6}")),
        client: entry.client.to_string(),
        method: &entry.method,
        target: &entry.target,
        protocol: format!("{:?}", entry.version),
        status: entry.status.as_u16(),
        bytes: entry.bytes,
        duration_us: entry.took.as_micros() as u64,
        cache: cache(entry.cache.as_ref()),
        policy: entry.policy.map(|policy| policy.to_string()),
        request_id: &entry.id,
        trace_id: entry.trace.map(|trace| trace.to_string()),
        user_agent: entry.agent.as_deref(),
    };
    let written = serde_json::to_writer(lines.by_ref(), &line);
    written.expect("memory takes texts and numbers");
}

fn text(entry: &Entry) -> String {
    let at = timestamp(entry).map_or_else(String::new, |at| {
        at.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
    });
    let policy = entry.policy.map(|policy| policy.to_string());
    let policy = policy
        .as_deref()
        .and_then(|digest| digest.get(..DIGEST_SHOWN));
    let trace = entry.trace.map(|trace| format!(" {trace}"));
    format!(
        "{} - - [{at}] \"{} {} {:?}\" {} {} \"-\" \"{}\" {} {} {} {}{}",
        entry.client,
        escaped(&entry.method),
        escaped(&entry.target),
        entry.version,
        entry.status.as_u16(),
        entry.bytes,
        escaped(entry.agent.as_deref().unwrap_or("-")),
        entry.took.as_micros(),
        cache(entry.cache.as_ref()).unwrap_or("-"),
        policy.unwrap_or("-"),
        entry.id,
        trace.as_deref().unwrap_or_default(),
    )
}

fn timestamp(entry: &Entry) -> Option<Timestamp> {
    Timestamp::try_from(entry.at).ok()
}

/// Where an answer came from, in a word of its `Cache-Status`.
fn cache(status: Option<&HeaderValue>) -> Option<&str> {
    let result = status?.to_str().ok()?.strip_prefix("bazaar; ")?;
    let result = result.split(';').next()?.trim();
    Some(result.strip_prefix("fwd=").unwrap_or(result))
}

/// Without anything that ends a line or a quotation.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => {
                escaped.push('\\');
                escaped.push(char::from(byte));
            }
            b' '..=b'~' => escaped.push(char::from(byte)),
            // A text takes all.
            _ => _ = write!(escaped, "\\x{byte:02x}"),
        }
    }
    escaped
}

/// A target as it is logged: its path, and its query without the values of others than [`SHOWN`]; at most so many bytes.
pub(super) fn target(target: &str, bytes_max: usize) -> String {
    let kept = &target[..target.floor_char_boundary(bytes_max)];
    let Some((path, query)) = kept.split_once('?') else {
        return with_end(kept.to_owned(), target);
    };
    let mut shown = String::with_capacity(kept.len());
    shown += path;
    for (number, pair) in query.split('&').enumerate() {
        shown.push(if number == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) if !SHOWN.contains(&name) => {
                shown += name;
                shown.push('=');
                shown.push(LEFT_OUT);
            }
            // Without a name it is a value.
            None if !pair.is_empty() => shown.push(LEFT_OUT),
            _ => shown += pair,
        }
    }
    if kept.len() < target.len() {
        shown.push('…');
    }
    shown
}

fn with_end(mut kept: String, whole: &str) -> String {
    if kept.len() < whole.len() {
        kept.push('…');
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_s_values_are_left_out_but_for_those_that_say_where_in_a_list() {
        for (whole, shown) in [
            ("/stocks/nvidia", "/stocks/nvidia"),
            ("/stocks?limit=10&after=amd", "/stocks?limit=10&after=amd"),
            ("/x?token=s3cret&limit=1&key=", "/x?token=*&limit=1&key=*"),
            ("/x?s3cret", "/x?*"),
            ("/x?", "/x?"),
            ("/x?a=1?b=2&&c", "/x?a=*&&*"),
        ] {
            assert_eq!(target(whole, 100), shown);
        }
        assert_eq!(target("/0123456789", 10), "/012345678…");
        assert_eq!(target("/x?a=s3cret&c=3", 8), "/x?a=*…");
    }

    #[test]
    fn nothing_in_a_line_of_text_ends_it() {
        assert_eq!(
            escaped("a\"b\\c\r\n\u{1b}[31mé"),
            "a\\\"b\\\\c\\x0d\\x0a\\x1b[31m\\xc3\\xa9"
        );
    }

    #[test]
    fn a_cache_s_answer_is_a_word() {
        for (status, word) in [
            ("bazaar; hit; ttl=57", Some("hit")),
            ("bazaar; fwd=miss; stored", Some("miss")),
            ("bazaar; fwd=bypass", Some("bypass")),
            ("other; hit", None),
        ] {
            assert_eq!(cache(Some(&HeaderValue::from_static(status))), word);
        }
        assert_eq!(cache(None), None);
    }
}
