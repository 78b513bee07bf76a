//! The smallest request that still shows something: delta debugging.
//!
//! `ddmin` is that of Zeller and Hildebrandt, *Simplifying and Isolating Failure-Inducing Input* (IEEE
//! TSE 28(2), 2002), section 3: it leaves a list of which no single item can be left out. Bodies of
//! JSON are cut down from the outside in, as in Misherghi and Su, *HDD: Hierarchical Delta Debugging*
//! (ICSE 2006). What is asked of each smaller request is somebody else's question.

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

/// Requests that are tried for one that is smaller.
pub const STEPS_MAX: usize = 2_000;

/// A request, as far as it can be smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reducible {
    pub method: Method,
    /// Path and query, percent-encoded.
    pub target: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<Vec<u8>>,
    /// Whether it is the decision about its outcome that shows it.
    pub about_outcome: bool,
}

/// A request that cannot be made smaller in one step, or in the steps that there were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Minimized {
    pub request: Reducible,
    /// Requests that were tried.
    pub steps: usize,
}

/// Makes a request smaller for as long as it `shows` what it should, trying [`STEPS_MAX`] requests.
pub fn minimize(request: Reducible, shows: impl FnMut(&Reducible) -> bool) -> Minimized {
    let mut search = Search {
        best: request,
        steps: 0,
        shows,
    };
    // What is left out of one part may have been what kept another.
    loop {
        let before = search.best.clone();
        search.drop_outcome();
        search.reduce_headers();
        search.reduce_body();
        search.reduce_target();
        if search.best == before || search.steps >= STEPS_MAX {
            break;
        }
    }
    Minimized {
        request: search.best,
        steps: search.steps,
    }
}

struct Search<F> {
    /// The smallest so far that shows it.
    best: Reducible,
    steps: usize,
    shows: F,
}

impl<F: FnMut(&Reducible) -> bool> Search<F> {
    /// Takes a changed request for the best one where it shows it, too, and says whether it does. None
    /// where there are no steps left.
    fn try_with(&mut self, change: impl FnOnce(&mut Reducible)) -> Option<bool> {
        if self.steps >= STEPS_MAX {
            return None;
        }
        let mut changed = self.best.clone();
        change(&mut changed);
        if changed == self.best {
            return Some(false);
        }
        self.steps += 1;
        let shows = (self.shows)(&changed);
        if shows {
            self.best = changed;
        }
        Some(shows)
    }

    fn drop_outcome(&mut self) {
        if self.best.about_outcome {
            self.try_with(|request| request.about_outcome = false);
        }
    }

    fn reduce_headers(&mut self) {
        let headers = self.best.headers.clone();
        ddmin(headers, |left| {
            self.try_with(|request| request.headers = left.to_vec())
        });
        for index in 0..self.best.headers.len() {
            let value = self.best.headers[index].1.as_bytes().to_vec();
            ddmin(value, |left| {
                let Ok(value) = HeaderValue::from_bytes(left) else {
                    return Some(false);
                };
                self.try_with(|request| request.headers[index].1 = value)
            });
        }
    }

    fn reduce_body(&mut self) {
        let Some(body) = self.best.body.clone() else {
            return;
        };
        if self.try_with(|request| request.body = None) == Some(true) {
            return;
        }
        match serde_json::from_slice::<Value>(&body) {
            Ok(json) => self.reduce_json(json),
            Err(_) => {
                ddmin(body, |left| {
                    self.try_with(|request| request.body = Some(left.to_vec()))
                });
            }
        }
    }

    fn reduce_json(&mut self, json: Value) {
        // The same value, written without spaces.
        let written = json.to_string().into_bytes();
        if self.best.body.as_ref() != Some(&written)
            && self.try_with(|request| request.body = Some(written)) != Some(true)
        {
            return;
        }
        reduce_value(json, &mut |json| {
            let written = json.to_string().into_bytes();
            self.try_with(|request| request.body = Some(written))
        });
    }

    fn reduce_target(&mut self) {
        let (path, query) = match self.best.target.split_once('?') {
            Some((path, query)) => (path.to_owned(), Some(query.to_owned())),
            None => (self.best.target.clone(), None),
        };
        let query = query.and_then(|query| self.reduce_query(&path, &query));
        self.reduce_path(&path, query.as_deref());
    }

    /// Returns what is left of the query.
    fn reduce_query(&mut self, path: &str, query: &str) -> Option<String> {
        if self.try_with(|request| request.target = path.to_owned()) == Some(true) {
            return None;
        }
        let parts = query.split('&').map(str::to_owned).collect();
        let mut parts: Vec<String> = ddmin(parts, |left| {
            self.try_with(|request| request.target = target(path, Some(&left.join("&"))))
        });
        for index in 0..parts.len() {
            let part = parts[index].chars().collect();
            let left = ddmin(part, |left| {
                let mut parts = parts.clone();
                parts[index] = left.iter().collect();
                let query = parts.join("&");
                self.try_with(|request| request.target = target(path, Some(&query)))
            });
            parts[index] = left.into_iter().collect();
        }
        Some(parts.join("&"))
    }

    fn reduce_path(&mut self, path: &str, query: Option<&str>) {
        let join = |segments: &[String]| target(&format!("/{}", segments.join("/")), query);
        let segments = path.trim_start_matches('/').split('/');
        let segments = segments.map(str::to_owned).collect();
        let mut segments: Vec<String> = ddmin(segments, |left| {
            self.try_with(|request| request.target = join(left))
        });
        for index in 0..segments.len() {
            let segment = segments[index].chars().collect();
            let left = ddmin(segment, |left| {
                let mut segments = segments.clone();
                segments[index] = left.iter().collect();
                self.try_with(|request| request.target = join(&segments))
            });
            segments[index] = left.into_iter().collect();
        }
    }
}

fn target(path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

/// Makes a value of JSON smaller for as long as `shows` says so of the whole in which it stands. Gives
/// up where it does not say.
fn reduce_value(value: Value, shows: &mut dyn FnMut(&Value) -> Option<bool>) -> Value {
    for simple in [Value::Null, Value::from(0)] {
        if size(&simple) < size(&value) && shows(&simple) == Some(true) {
            return simple;
        }
    }
    match value {
        Value::Object(fields) => {
            let fields: Vec<(String, Value)> = fields.into_iter().collect();
            let object = |fields: &[(String, Value)]| fields.iter().cloned().collect();
            let mut fields = ddmin(fields, |left| shows(&object(left)));
            for index in 0..fields.len() {
                let field = fields[index].1.clone();
                let mut whole = fields.clone();
                fields[index].1 = reduce_value(field, &mut |value| {
                    whole[index].1 = value.clone();
                    shows(&object(&whole))
                });
            }
            object(&fields)
        }
        Value::Array(items) => {
            let mut items = ddmin(items, |left| shows(&left.into()));
            for index in 0..items.len() {
                let item = items[index].clone();
                let mut whole = items.clone();
                items[index] = reduce_value(item, &mut |value| {
                    whole[index] = value.clone();
                    shows(&Value::Array(whole.clone()))
                });
            }
            Value::Array(items)
        }
        Value::String(text) => {
            let whole = |letters: &[char]| Value::String(letters.iter().collect());
            whole(&ddmin(text.chars().collect(), |left| shows(&whole(left))))
        }
        other => other,
    }
}

/// How long it is when it is written.
fn size(value: &Value) -> usize {
    value.to_string().len()
}

/// A list that still `shows` it, and of which no single item can be left out; as it is where nothing
/// can be left out. Asks at most n² + 3n times for n items, and gives up where it gets no answer.
fn ddmin<T: Clone>(items: Vec<T>, mut shows: impl FnMut(&[T]) -> Option<bool>) -> Vec<T> {
    if items.is_empty() || shows(&[]) == Some(true) {
        return Vec::new();
    }
    let mut left = items;
    let mut parts = 2;
    while left.len() >= 2 {
        let size = left.len().div_ceil(parts);
        let mut smaller = None;
        for begin in (0..left.len()).step_by(size) {
            let end = (begin + size).min(left.len());
            match shows(&left[begin..end]) {
                None => return left,
                Some(true) => {
                    smaller = Some((left[begin..end].to_vec(), 2));
                    break;
                }
                Some(false) => {}
            }
            // With two parts the rest of the one is the other.
            if parts > 2 {
                let rest = [&left[..begin], &left[end..]].concat();
                if shows(&rest) == Some(true) {
                    smaller = Some((rest, parts - 1));
                    break;
                }
            }
        }
        match smaller {
            Some((shown, next)) => {
                left = shown;
                parts = next;
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(left.len()),
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str) -> Reducible {
        Reducible {
            method: Method::GET,
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
            about_outcome: false,
        }
    }

    fn with_body(body: &str) -> Reducible {
        Reducible {
            method: Method::POST,
            body: Some(body.as_bytes().to_vec()),
            ..request("/orders")
        }
    }

    fn body(request: &Reducible) -> &str {
        std::str::from_utf8(request.body.as_deref().unwrap_or_default()).unwrap()
    }

    #[test]
    fn ddmin_leaves_nothing_that_can_be_left_out() {
        let items: Vec<u32> = (0..100).collect();
        let mut asked = 0;
        let left = ddmin(items.clone(), |left| {
            asked += 1;
            Some([17, 18, 90].iter().all(|item| left.contains(item)))
        });
        assert_eq!(left, [17, 18, 90]);
        assert!(asked < 200, "{asked}");
        assert_eq!(ddmin(items.clone(), |_| Some(true)), [0; 0]);
        assert_eq!(ddmin(items.clone(), |left| Some(left.len() == 100)), items);
        assert_eq!(ddmin(items.clone(), |_| None), items);
        assert_eq!(ddmin(vec![1], |left| Some(left == [1])), [1]);
        assert_eq!(
            ddmin(Vec::<u32>::new(), |_| panic!("nothing to ask")),
            [0; 0]
        );
    }

    #[test]
    fn of_many_headers_the_one_that_shows_it_is_left_with_the_least_of_its_value() {
        let header = |name: &'static str, value: &'static str| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        let mut sent: Vec<_> = ["a", "b", "c", "d", "e", "f"]
            .map(|name| header(name, "text"))
            .into();
        sent.insert(3, header("accept-language", "de-DE,de;q=0.9"));
        let request = Reducible {
            headers: sent,
            ..request("/stocks/nvidia?x=1")
        };
        let minimized = minimize(request, |request| {
            let mut languages = request
                .headers
                .iter()
                .filter(|it| it.0 == "accept-language");
            languages.any(|it| it.1.as_bytes().starts_with(b"de"))
        });
        let request = &minimized.request;
        assert_eq!(request.headers, [header("accept-language", "de")]);
        assert_eq!(request.target, "/");
    }

    #[test]
    fn a_path_and_a_query_are_cut_down_to_what_shows_it() {
        let shows = |request: &Reducible| {
            let (path, query) = request
                .target
                .split_once('?')
                .unwrap_or((&request.target, ""));
            path.starts_with("/stocks/")
                && path.len() > "/stocks/".len()
                && query.split('&').any(|part| part.contains("limit="))
        };
        let minimized = minimize(request("/stocks/nvidia?after=amc&limit=10&x=%20"), shows);
        assert!(shows(&minimized.request));
        assert_eq!(minimized.request.target.len(), "/stocks/n?limit=".len());
        assert!(minimized.steps < 200, "{}", minimized.steps);
    }

    #[test]
    fn of_a_body_of_json_the_field_that_shows_it_is_left() {
        let sent = r#"{"name": "meta", "type": "sell", "quantity": 1000000, "note": {"by": ["me", "you"], "at": 7}}"#;
        let large = |request: &Reducible| {
            let json: Option<Value> = serde_json::from_str(body(request)).ok();
            json.is_some_and(|json| json["quantity"].as_u64() > Some(100))
        };
        let minimized = minimize(with_body(sent), large);
        assert_eq!(body(&minimized.request), r#"{"quantity":1000000}"#);
        let nested = minimize(with_body(sent), |request| {
            let json: Option<Value> = serde_json::from_str(body(request)).ok();
            json.is_some_and(|json| {
                json["note"]["by"]
                    .as_array()
                    .is_some_and(|by| !by.is_empty())
            })
        });
        assert_eq!(body(&nested.request), r#"{"note":{"by":[0]}}"#);
        let text = minimize(with_body(sent), |request| {
            let json: Option<Value> = serde_json::from_str(body(request)).ok();
            json.is_some_and(|json| json["name"].as_str().is_some_and(|it| it.contains('t')))
        });
        assert_eq!(body(&text.request), r#"{"name":"t"}"#);
    }

    #[test]
    fn a_body_that_is_no_json_is_cut_down_byte_by_byte() {
        let sent = format!("{}x", "[".repeat(6_000));
        let minimized = minimize(with_body(&sent), |request| {
            body(request).bytes().filter(|byte| *byte == b'[').count() >= 3
        });
        assert_eq!(body(&minimized.request), "[[[");
        let none = minimize(with_body(&sent), |request| request.method == Method::POST);
        assert_eq!(none.request.body, None);
    }

    #[test]
    fn numbers_that_json_values_cannot_hold_stay_as_they_were_sent() {
        let sent = r#"{"quantity": 1e999}"#;
        let minimized = minimize(with_body(sent), |request| body(request).contains("1e999"));
        assert_eq!(body(&minimized.request), "1e999");
    }

    #[test]
    fn what_shows_it_without_its_outcome_is_about_the_request() {
        let about_outcome = Reducible {
            about_outcome: true,
            ..request("/stocks/nvidia")
        };
        let minimized = minimize(about_outcome.clone(), |_| true);
        assert!(!minimized.request.about_outcome);
        let minimized = minimize(about_outcome, |request| request.about_outcome);
        assert!(minimized.request.about_outcome);
    }

    #[test]
    fn the_search_has_an_end() {
        let sent = "x".repeat(60_000);
        let mut asked = 0;
        let minimized = minimize(with_body(&sent), |_| {
            asked += 1;
            false
        });
        assert_eq!(minimized.steps, STEPS_MAX);
        assert_eq!(asked, STEPS_MAX);
    }
}
