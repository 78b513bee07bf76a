//! One decision by one instance of a version.
//!
//! - here: about a request and about an outcome, with the headers that the version wants to see;
//! - [`sent`]: by which texts what a client sent is found again;
//! - [`input`]: all that a decision depends on, kept so that it can be made again;
//! - [`recent`]: a sample of what was to be decided lately.

pub(crate) mod sent;
pub(crate) mod input;
pub(crate) mod recent;

use std::net::IpAddr;

use http::header::HOST;
use http::{HeaderMap, HeaderValue, Method, Version as HttpVersion};

use crate::decision::{
    Action, Decision, InvalidDecision, Manifest, Operation, Outcome, PolicyConnection,
    PolicyRequest, Scheme, Unavailability,
};
use crate::guest::failure::Failure;
use crate::guest::instance::{Ambient, Instance};
use crate::guest::version::Version;
use crate::limits;
use crate::request_id::RequestId;

/// A request as the gateway has it.
#[derive(Debug, Clone, Copy)]
pub struct RequestParts<'a> {
    /// As the client sent it; policies see the common ones by name.
    pub method: &'a Method,
    /// Path and query, percent-encoded.
    pub target: &'a str,
    /// All headers; the policy sees those that its manifest asks for.
    pub headers: &'a HeaderMap,
    /// How it came; the policy sees it where its manifest asks for it. `None` where that is not
    /// known any more.
    pub connection: Option<Connection>,
    /// The body, where there is one.
    pub body: Option<&'a [u8]>,
    /// Wall clock in milliseconds since 1970.
    pub now_ms: u64,
    /// What it is called in logs, differences and recordings; policies do not see it. `None` where it is of none.
    pub id: Option<&'a RequestId>,
}

/// How a request came. What host it asked for, its header `host` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// The address at the other end.
    pub client: IpAddr,
    pub scheme: Scheme,
    /// HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub version: HttpVersion,
}

pub(crate) fn on_request(
    version: &Version,
    instance: &mut Instance,
    ambient: Ambient,
    request: RequestParts<'_>,
) -> Result<Decision, Failure> {
    with_headers(request, &version.manifest, |request| {
        let decision = instance.on_request(ambient, request)?;
        check_first(&decision)?;
        check_declared(&decision, &version.manifest)?;
        Ok(decision)
    })
}

/// What comes of a take where the catalog does not answer: of reads as well.
const CATALOG_AWAY: Outcome = Outcome::Unavailable(Unavailability::NoCatalog);

pub(crate) fn on_outcome(
    version: &Version,
    instance: &mut Instance,
    ambient: Ambient,
    request: RequestParts<'_>,
    memo: &[u8],
    outcome: &Outcome,
) -> Result<Decision, Failure> {
    with_headers(request, &version.manifest, |request| {
        let decision = instance.on_outcome(ambient, request, memo, outcome)?;
        check_declared(&decision, &version.manifest)?;
        Ok(decision)
    })
}

/// For a version that did not make the decision before: it decides about the request first, and
/// about what came of the `takes` so far, so that the outcome comes with its own memo.
///
/// Where it takes nothing and the outcome is that of a take, it decides about the request: for it there
/// was none. Where it would take something first, that is granted, or the catalog is away for it, too.
pub(crate) fn on_outcome_afresh(
    version: &Version,
    instance: &mut Instance,
    ambient: Ambient,
    request: RequestParts<'_>,
    takes: &[Outcome],
    outcome: &Outcome,
) -> Result<Decision, Failure> {
    let mut own = on_request(version, instance, ambient, request)?;
    let mut takes = takes.iter();
    for _ in 0..limits::STEPS_MAX {
        if !own.takes() {
            break;
        }
        let taken = takes.next();
        let may_be_its = outcome.is_of_take() || *outcome == CATALOG_AWAY;
        if taken.is_none() && may_be_its {
            break;
        }
        let taken = taken.unwrap_or(&Outcome::Granted);
        own = on_outcome(version, instance, ambient, request, &own.memo, taken)?;
    }
    // It would not have done what this came of. What is traded is traded: that it has to answer.
    let refuses =
        matches!(own.action, Action::Respond(_)) && !matches!(outcome, Outcome::Traded(_));
    if refuses || outcome.is_of_take() && !own.takes() {
        return Ok(own);
    }
    on_outcome(version, instance, ambient, request, &own.memo, outcome)
}

/// A first decision has nothing to retry. By reference, as decisions are large.
pub(crate) fn check_first(decision: &Decision) -> Result<(), InvalidDecision> {
    match decision.action {
        Action::Retry(_) => Err(InvalidDecision(
            "it answered a request with `retry`, and nothing was tried".into(),
        )),
        _ => Ok(()),
    }
}

/// A decision takes out of no bucket, and adds to no counter, but those of the manifest.
pub(crate) fn check_declared(
    decision: &Decision,
    manifest: &Manifest,
) -> Result<(), InvalidDecision> {
    if let Action::Perform(Operation::Take(take)) = &decision.action {
        manifest.bucket_of(take)?;
    }
    if let Some(remarks) = &decision.remarks {
        manifest.check_counted(remarks)?;
    }
    Ok(())
}

fn with_headers<T>(
    request: RequestParts<'_>,
    manifest: &Manifest,
    call: impl FnOnce(&PolicyRequest<'_>) -> T,
) -> T {
    let mut headers = Vec::new();
    for name in &manifest.headers {
        let values = request.headers.get_all(name);
        headers.extend(values.iter().map(|value| (name.as_str(), value.as_bytes())));
    }
    let connection = request.connection.filter(|_| manifest.connection);
    let client = connection.map(|connection| connection.client.to_string());
    let connection = connection
        .zip(client.as_deref())
        .map(|(connection, client)| PolicyConnection {
            client,
            scheme: connection.scheme,
            authority: authority(request.headers),
            version: connection.version,
        });
    call(&PolicyRequest {
        method: request.method,
        target: request.target,
        headers: &headers,
        connection,
        body: request.body,
        now_ms: request.now_ms,
    })
}

/// The host that a request asked for, where it did.
fn authority(headers: &HeaderMap) -> &str {
    let host = headers.get(HOST).map(HeaderValue::to_str);
    host.and_then(Result::ok).unwrap_or_default()
}
