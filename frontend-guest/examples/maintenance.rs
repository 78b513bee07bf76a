//! Closes for a while, and opens again by itself: in between everybody gets 503, with `Retry-After`.
//!
//! ```json
//! {"from": "2026-12-01T02:00:00Z", "until": "2026-12-01T02:30:00Z", "reads": true}
//! ```
//!
//! With `reads`, stocks and orders can be looked up all the while, and only orders are turned away. The clock
//! is the gateway's. Responses that the gateway kept do not outlive the beginning, since it asks the policy
//! about each request first; what caches in front keep does: orders, which never change.

use frontend_guest::types::{Action, Decision, Method, OnFailure, Request};
use frontend_guest::{Configured, DefaultPolicy, Policy, export, response};
use serde::Deserialize;

/// The configuration as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    from: String,
    until: String,
    #[serde(default)]
    reads: bool,
}

struct Maintenance {
    /// In milliseconds since 1970.
    from_ms: u64,
    until_ms: u64,
    reads: bool,
}

impl Configured for Maintenance {
    fn from_config(config: &[u8]) -> Result<Self, String> {
        let written: Written = serde_json::from_slice(config)
            .map_err(|error| format!(r#"write {{"from": "…", "until": "…"}}: {error}"#))?;
        let time = |text: &str| {
            let wrong = || format!("`{text}` is not a time like 2026-12-01T02:00:00Z");
            unix_ms(text).ok_or_else(wrong)
        };
        let (from_ms, until_ms) = (time(&written.from)?, time(&written.until)?);
        if until_ms <= from_ms {
            return Err("it ends before it begins".to_owned());
        }
        Ok(Self {
            from_ms,
            until_ms,
            reads: written.reads,
        })
    }
}

impl Policy for Maintenance {
    fn name(&self) -> &'static str {
        "maintenance"
    }

    /// What it is there for it does also where it fails.
    fn on_failure(&self) -> OnFailure {
        OnFailure::Refuse
    }

    fn on_request(&self, request: &Request) -> Decision {
        let is_now = (self.from_ms..self.until_ms).contains(&request.now_ms);
        let is_read = matches!(request.method, Method::Get | Method::Head);
        if is_now && !(self.reads && is_read) {
            closed(self.until_ms - request.now_ms)
        } else {
            DefaultPolicy.on_request(request)
        }
    }
}

export!(configured Maintenance);

fn closed(left_ms: u64) -> Decision {
    let mut response = response::error(503, "closed for maintenance, come back later");
    let seconds = left_ms.div_ceil(1000);
    response
        .headers
        .push(("retry-after".to_owned(), seconds.to_string()));
    Action::Respond(response).into()
}

/// A time in UTC as RFC 3339 writes it, to the second: milliseconds since 1970.
fn unix_ms(text: &str) -> Option<u64> {
    let has_form = text
        .bytes()
        .zip(*b"0000-00-00T00:00:00Z")
        .all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            form => byte == form,
        });
    if text.len() != 20 || !has_form {
        return None;
    }
    let number = |begin: usize, end: usize| text[begin..end].parse::<u64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let february = if is_leap { 29 } else { 28 };
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let in_month = *months.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if year < 1970 || !(1..=in_month).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400 - (1969 / 4 - 1969 / 100 + 1969 / 400);
    let days_of_months: u64 = months[..usize::try_from(month).ok()? - 1].iter().sum();
    let days = (year - 1970) * 365 + leap_days + days_of_months + day - 1;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:00:00Z", Some(951_825_600)),
            ("2026-01-01T12:00:00Z", Some(1_767_268_800)),
            ("2100-03-01T00:00:00Z", Some(4_107_542_400)),
            ("2026-02-29T00:00:00Z", None),
            ("2026-00-01T00:00:00Z", None),
            ("2026-13-01T00:00:00Z", None),
            ("2026-12-01T24:00:00Z", None),
            ("2026-12-01T02:00:00", None),
            ("2026-12-01T02:00:00+01:00", None),
            ("2026-12-01", None),
            ("", None),
        ] {
            assert_eq!(
                unix_ms(text),
                seconds.map(|seconds: u64| seconds * 1000),
                "{text}"
            );
        }
    }

    #[test]
    fn it_opens_again_by_itself() {
        let config = |reads: bool| {
            format!(
                r#"{{"from": "2026-12-01T02:00:00Z", "until": "2026-12-01T02:30:00Z", "reads": {reads}}}"#
            )
        };
        let begin = unix_ms("2026-12-01T02:00:00Z").unwrap();
        let end = unix_ms("2026-12-01T02:30:00Z").unwrap();
        let decided = |reads: bool, method: Method, now_ms: u64| {
            let policy = Maintenance::from_config(config(reads).as_bytes()).unwrap();
            let request = Request {
                method,
                target: "/stocks/nvidia".to_owned(),
                headers: vec![],
                connection: None,
                body: None,
                now_ms,
            };
            match policy.on_request(&request).action {
                Action::Respond(response) if response.status == 503 => {
                    Some(response.headers.last().unwrap().1.clone())
                }
                _ => None,
            }
        };
        assert_eq!(decided(false, Method::Get, begin - 1), None);
        assert_eq!(decided(false, Method::Get, begin).as_deref(), Some("1800"));
        assert_eq!(decided(false, Method::Get, end - 1).as_deref(), Some("1"));
        assert_eq!(decided(false, Method::Get, end), None);
        assert_eq!(decided(true, Method::Get, begin), None);
        assert_eq!(decided(true, Method::Post, begin).as_deref(), Some("1800"));
        let backwards = config(true).replace("02:00", "03:00");
        assert!(Maintenance::from_config(backwards.as_bytes()).is_err());
    }
}
