//! That a kept response depends on nothing but the outcome and the key of its read.
//!
//! A request is put to a policy again and again, each time with one thing in it that is different. Where
//! the policy asks for the same read under the same key, it must respond the same, or have neither response
//! kept: one that is kept is served to whoever asks for that read.

use http::{HeaderName, HeaderValue, Version as HttpVersion};

use super::samples::{ambient, outcomes};
use crate::decision::{Action, Operation, Outcome, Reply, Scheme};
use crate::evaluate::input::RequestInput;
use crate::evaluate::{Connection, on_outcome, on_request};
use crate::guest::failure::Failure;
use crate::guest::instance::Instance;
use crate::guest::version::Version;
use crate::limits;

/// Values of a header, beside that it is not there: two that mean nothing, and two that may.
fn values(name: &HeaderName) -> [&'static str; 4] {
    let [one, other] = match name.as_str() {
        "accept" => ["application/json", "text/html"],
        "accept-encoding" => ["gzip", "br"],
        "accept-language" => ["de", "en-GB, en;q=0.8"],
        "authorization" => ["Bearer a", "Basic YTpi"],
        "cookie" => ["a=1", "b=2; session=x"],
        "host" => ["a.example", "b.example:8080"],
        "origin" | "referer" => ["https://a.example", "https://b.example"],
        "user-agent" => ["curl/8.0.1", "Mozilla/5.0 (iPhone)"],
        "x-forwarded-for" => ["192.0.2.1", "198.51.100.7"],
        _ => ["1", "true"],
    };
    ["a", "b", one, other]
}

/// A request, and what of it is different; nothing of the first.
type Variant = (Option<String>, RequestInput);

/// What is read, and what is made of it where that is kept.
struct Rendered {
    by: Option<String>,
    operation: Operation,
    reply: Box<Reply>,
}

/// What it is in words, if anything, that a kept response to a request depends on and its key lacks.
pub(super) fn not_in_key(
    version: &Version,
    instance: &mut Instance,
    request: &RequestInput,
) -> Result<Option<String>, Failure> {
    let mut all: Vec<Rendered> = Vec::new();
    for (by, request) in variants(version, request) {
        let Some((operation, reply)) = render(version, instance, &request)? else {
            // Of a request that asks for no read nothing is kept, nor then of those like it.
            if by.is_none() {
                return Ok(None);
            }
            continue;
        };
        let same_key = all.iter().find(|other| other.operation == operation);
        match same_key {
            // What is not kept is for nobody else.
            Some(other) if reply.keep.is_none() && other.reply.keep.is_none() => {}
            Some(other) if !reply.is_kept_as(&other.reply) => {
                let by = by.or_else(|| other.by.clone());
                return Ok(by);
            }
            Some(_) => {}
            None => all.push(Rendered {
                by,
                operation,
                reply,
            }),
        }
    }
    Ok(None)
}

/// The read that a request comes to, and the response to what is found.
fn render(
    version: &Version,
    instance: &mut Instance,
    request: &RequestInput,
) -> Result<Option<(Operation, Box<Reply>)>, Failure> {
    let parts = request.parts(ambient().now_ms);
    let mut decision = on_request(version, instance, ambient(), parts)?;
    for _ in 0..limits::STEPS_MAX {
        if !decision.takes() {
            break;
        }
        let (memo, granted) = (decision.memo, Outcome::Granted);
        decision = on_outcome(version, instance, ambient(), parts, &memo, &granted)?;
    }
    let is_kept = |operation: &Operation| {
        matches!(
            operation,
            Operation::ReadStock { .. } | Operation::ReadOrder { .. }
        )
    };
    let found = outcomes(&decision.action).into_iter().next();
    let (Action::Perform(operation), Some(found)) = (decision.action, found) else {
        return Ok(None);
    };
    if !is_kept(&operation) {
        return Ok(None);
    }
    let rendered = on_outcome(version, instance, ambient(), parts, &decision.memo, &found)?;
    Ok(match rendered.action {
        Action::Respond(reply) => Some((operation, reply)),
        _ => None,
    })
}

fn variants(version: &Version, request: &RequestInput) -> Vec<Variant> {
    let mut variants = vec![(None, request.clone())];
    let mut add = |by: String, change: &dyn Fn(&mut RequestInput)| {
        let mut variant = request.clone();
        change(&mut variant);
        variants.push((Some(by), variant));
    };
    for name in &version.manifest.headers {
        let by = format!("the header `{name}`");
        add(by.clone(), &|variant| {
            variant.headers.remove(name);
        });
        for value in values(name) {
            add(by.clone(), &|variant| {
                variant
                    .headers
                    .insert(name, HeaderValue::from_static(value));
            });
        }
    }
    if version.manifest.connection {
        for (client, version) in [
            ("192.0.2.1", HttpVersion::HTTP_11),
            ("2001:db8::7", HttpVersion::HTTP_2),
        ] {
            let connection = Connection {
                client: client.parse().expect("an address"),
                scheme: Scheme::Http,
                version,
            };
            add("how a request came".to_owned(), &|variant| {
                variant.connection = Some(connection);
            });
        }
    }
    add(
        "the query".to_owned(),
        &|variant| match variant.target.find('?') {
            Some(query) => variant.target.truncate(query),
            None => variant.target.push_str("?a=b"),
        },
    );
    variants
}
