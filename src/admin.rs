//! The admin API of a running gateway: how it is asked, and what it answers.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use frontend_policy::rollout::Progress;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use rpc::release::RELEASE;
use serde::Deserialize;

use crate::answer;
use crate::cli;
use crate::client::{Client, ClientError, Server};
use crate::output;
use crate::policy::package::Package;

/// How long the gateway may take. A pushed policy is compiled in that time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Why the admin API did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is nothing to be let in with.
    #[error(transparent)]
    Token(#[from] cli::AdminTokenError),
    /// It could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the gateway refused ({status}): {reason}")]
    Refused { status: u16, reason: String },
    /// It knows nothing of what it is asked for.
    #[error(
        "the gateway refused (404): {reason}. It is of an older release than this command ({RELEASE}): upgrade it first; \
         or --admin names where clients are served"
    )]
    NoSuchPath { reason: String },
    /// Its answer is not of the expected shape.
    #[error("the gateway's answer was not understood: {0}")]
    Nonsense(#[from] serde_json::Error),
}

impl AdminError {
    /// Whether it says nothing of what was asked for, which may go well in a moment, or have gone well.
    pub fn is_of_now(&self) -> bool {
        match self {
            Self::Client(error) => matches!(
                error,
                ClientError::Connect { .. }
                    | ClientError::TimedOut { .. }
                    | ClientError::Exchange(_)
                    | ClientError::Body(_)
            ),
            // A proxy's, too.
            Self::Refused { status, .. } => [429, 502, 503, 504].contains(status),
            Self::Token(_) | Self::NoSuchPath { .. } | Self::Nonsense(_) => false,
        }
    }

    /// Whether what was asked for may have been done all the same.
    pub fn may_be_made(&self) -> bool {
        match self {
            Self::Client(error) => matches!(
                error,
                ClientError::TimedOut { .. } | ClientError::Exchange(_) | ClientError::Body(_)
            ),
            Self::Refused { status, .. } => *status >= 500,
            Self::Nonsense(_) => true,
            Self::Token(_) | Self::NoSuchPath { .. } => false,
        }
    }
}

#[derive(Debug)]
pub struct Admin(Client);

impl Admin {
    /// The admin API that the flags name.
    ///
    /// # Errors
    /// Where the token is not valid.
    pub fn new(args: cli::Admin) -> Result<Self, AdminError> {
        Self::patient(args, Duration::ZERO)
    }

    /// The same, for an answer that takes so long on purpose.
    pub fn patient(args: cli::Admin, takes: Duration) -> Result<Self, AdminError> {
        let token = args.token.read()?;
        let operator = Some(args.operator());
        let server = Server::new(args.origin, &args.tls.trust())?;
        let client = Client::new(server, PATIENCE + takes).with_token(token);
        let mut headers = HeaderMap::new();
        for (name, text) in [("x-operator", operator), ("x-reason", args.reason)] {
            // What HTTP does not allow in a header is not sent, and then it is not said.
            if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                headers.insert(name, value);
            }
        }
        Ok(Self(client.with_headers(headers)))
    }

    pub async fn get(&mut self, path: &str) -> Result<Bytes, AdminError> {
        accepted(self.0.get(path).await?)
    }

    /// Asks for an answer that goes on and on; what comes of it is for the caller to read, as long as it may take.
    pub async fn follow(&mut self, path: &str) -> Result<Incoming, AdminError> {
        self.0.open(path).await?.map_err(refused)
    }

    /// Puts a policy beside or in place of another, with its signature and configuration where it has
    /// them.
    pub async fn put(&mut self, path: &str, package: Package) -> Result<Bytes, AdminError> {
        self.put_by_plan(path, None, package).await
    }

    /// The same, to be rolled out by a plan where there is one; an empty one is the gateway's own.
    pub async fn put_by_plan(
        &mut self,
        path: &str,
        plan: Option<&str>,
        package: Package,
    ) -> Result<Bytes, AdminError> {
        let Package {
            component,
            signature,
            config,
        } = package;
        let mut path = path.to_owned();
        let mut add = |name: &str, bytes: usize| {
            let separator = if path.contains('?') { '&' } else { '?' };
            path += &format!("{separator}{name}={bytes}");
        };
        if let Some(plan) = plan {
            add("plan", plan.len());
        }
        if !config.is_empty() {
            add("config", config.len());
        }
        let plan = plan.unwrap_or_default();
        let body = match plan.is_empty() && config.is_empty() {
            true => component,
            // They go before the component.
            false => [plan.as_bytes(), &config, &component].concat().into(),
        };
        let mut request = Request::put(path).header(CONTENT_TYPE, "application/octet-stream");
        if let Some(signature) = signature {
            request = request.header("x-policy-signature", signature);
        }
        let request = request.body(body).map_err(ClientError::from)?;
        accepted(self.0.send(request).await?)
    }

    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Bytes, AdminError> {
        accepted(self.0.send(request).await?)
    }

    pub async fn delete(&mut self, path: &str) -> Result<Bytes, AdminError> {
        accepted(
            self.0
                .send_body(Method::DELETE, path, "application/json", Bytes::new())
                .await?,
        )
    }

    /// Has something done whose answer may be long, and is written to `output` as it comes.
    pub async fn post_to(
        &mut self,
        path: &str,
        output: &mut impl io::Write,
    ) -> Result<(), AdminError> {
        let request = Request::post(path).header(CONTENT_TYPE, "application/json");
        let request = request.body(Bytes::new()).map_err(ClientError::from)?;
        accepted(self.0.download(request, output).await?).map(drop)
    }

    pub async fn post(&mut self, path: &str) -> Result<Bytes, AdminError> {
        accepted(
            self.0
                .send_body(Method::POST, path, "application/json", Bytes::new())
                .await?,
        )
    }
}

fn accepted(response: Response<Bytes>) -> Result<Bytes, AdminError> {
    match response.status().is_success() {
        true => Ok(response.into_body()),
        false => Err(refused(response)),
    }
}

fn refused(response: Response<Bytes>) -> AdminError {
    let (status, body) = (response.status(), response.into_body());
    let reason = answer::refusal(&body).unwrap_or_else(|| answer::beginning(&body));
    // It is shown in a terminal.
    let lines = reason.split('\n').map(output::escaped);
    let reason = lines.collect::<Vec<_>>().join("\n");
    match status {
        StatusCode::NOT_FOUND if reason.starts_with("no such path") => {
            AdminError::NoSuchPath { reason }
        }
        status => AdminError::Refused {
            status: status.as_u16(),
            reason,
        },
    }
}

#[derive(Debug, Deserialize)]
pub struct Status {
    /// A trade can be served.
    pub ready: bool,
    /// Why not.
    #[serde(default)]
    pub unready: Option<String>,
    /// The gateway's; none says 0.1.0.
    #[serde(default)]
    pub release: Option<String>,
    /// The journal's id, once it is known.
    #[serde(default)]
    pub journal: Option<String>,
    /// The leader's term of office.
    pub epoch: u64,
    pub leader: Option<u32>,
    pub replicas: Vec<Replica>,
    pub catalog: Catalog,
    /// All that this gateway knows.
    #[serde(default)]
    pub catalogs: Vec<KnownCatalog>,
    /// What the cache keeps.
    pub cache: Caches,
    /// The versions of the policy.
    pub policy: Policies,
}

/// An order replica as the gateway sees it.
#[derive(Debug, Deserialize)]
pub struct Replica {
    pub id: u32,
    pub url: String,
    pub healthy: bool,
    /// It keeps another journal's ledger.
    #[serde(default)]
    pub foreign: bool,
    pub role: Option<String>,
    pub orders: Option<u64>,
    pub chain_hash: Option<String>,
    pub reaches_catalog: Option<bool>,
    pub round_trip_us: Option<u64>,
    #[serde(default)]
    pub release: Option<String>,
}

/// One of the catalogs that the gateway knows.
#[derive(Debug, Deserialize)]
pub struct KnownCatalog {
    pub url: String,
    /// `active`, `standby` or `silent`.
    pub role: String,
    #[serde(default)]
    pub release: Option<String>,
}

/// The catalog as the gateway sees it.
#[derive(Debug, Deserialize)]
pub struct Catalog {
    /// Of the active one, where one is known.
    pub url: Option<String>,
    pub reachable: bool,
    pub journal_rows: Option<u64>,
    /// How many of them change stocks.
    #[serde(default)]
    pub stock_changes: Option<u64>,
    pub chain_hash: Option<String>,
    #[serde(default)]
    pub in_sync: Vec<u32>,
    pub session: Option<String>,
    pub lease_ms: Option<u64>,
}

/// The two kinds of things that are cached.
#[derive(Debug, Deserialize)]
pub struct Caches {
    pub stocks: Cache,
    pub orders: Cache,
}

/// What is kept, and what was counted since the gateway started.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Cache {
    pub entries: u64,
    /// How many are kept at most, where the gateway says it.
    pub entries_max: Option<u64>,
    pub hits: u64,
    pub misses: u64,
    pub stale: u64,
    #[serde(default)]
    pub evicted: u64,
    #[serde(default)]
    pub invalidated: u64,
}

impl Cache {
    /// The same, with what was counted since then.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            entries: self.entries,
            entries_max: self.entries_max,
            hits: self.hits.saturating_sub(before.hits),
            misses: self.misses.saturating_sub(before.misses),
            stale: self.stale.saturating_sub(before.stale),
            evicted: self.evicted.saturating_sub(before.evicted),
            invalidated: self.invalidated.saturating_sub(before.invalidated),
        }
    }
}

#[derive(Debug, Deserialize)]
pub struct Policies {
    pub active: Option<Policy>,
    pub previous: Option<Policy>,
    pub candidate: Option<Policy>,
    /// Why no request is decided, where none is.
    #[serde(default)]
    pub closed: Option<String>,
    /// Those that can be activated again, the latest at the end.
    #[serde(default)]
    pub kept: Vec<Kept>,
    /// What was changed last, oldest first.
    #[serde(default)]
    pub changes: Vec<Change>,
}

/// A version that was active, and can be activated again.
#[derive(Debug, Deserialize)]
pub struct Kept {
    pub digest: String,
    /// It is one to go back to.
    pub good: bool,
    /// It was found to fail. Gateways of before say it of all that are not good.
    pub failed: Option<bool>,
}

impl Kept {
    /// Whether it was found to fail.
    pub fn has_failed(&self) -> bool {
        self.failed.unwrap_or(!self.good)
    }
}

/// A change of the policy.
#[derive(Debug, Deserialize)]
pub struct Change {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    pub what: String,
    pub who: String,
    pub why: String,
    /// What said that they may: a certificate or a token.
    #[serde(default)]
    pub known_by: Option<String>,
    /// Where they did it from.
    #[serde(default)]
    pub address: Option<String>,
    /// Digest of the version that was active.
    pub from: String,
    /// Digest of the version that is active.
    pub to: String,
    pub candidate: Option<String>,
    /// Names and versions of these, as they call themselves.
    #[serde(default)]
    pub from_name: Option<String>,
    #[serde(default)]
    pub to_name: Option<String>,
    #[serde(default)]
    pub candidate_name: Option<String>,
    /// The last failure of those that caused it.
    #[serde(default)]
    pub incident: Option<Incident>,
}

/// A decision that a version failed.
#[derive(Debug, Deserialize)]
pub struct Incident {
    /// Milliseconds since 1970.
    #[serde(default)]
    pub at_ms: u64,
    pub kind: String,
    /// What was asked, without what may be secret.
    pub request: String,
    #[serde(default)]
    pub request_id: Option<String>,
    pub cause: String,
    /// What the guest wrote.
    #[serde(default)]
    pub output: String,
    #[serde(default)]
    pub backtrace: String,
}

impl Policies {
    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        [&self.active, &self.candidate, &self.previous]
            .into_iter()
            .flatten()
    }
}

/// A version of the policy. What changes with every request the console's stream does not say here, but in figures.
#[derive(Debug, Deserialize)]
pub struct Policy {
    pub digest: String,
    pub name: String,
    pub version: String,
    pub stage: String,
    /// Of a candidate: the share of decisions, or of clients, that it is tried on.
    #[serde(default)]
    pub share: Option<f64>,
    /// It would be rolled back at fewer failures than later.
    #[serde(default)]
    pub on_probation: bool,
    #[serde(default)]
    pub decisions: u64,
    /// Decisions of a candidate that were compared with the active version's: all of a shadow's.
    #[serde(default)]
    pub compared: u64,
    #[serde(default)]
    pub traps: u64,
    #[serde(default)]
    pub overruns: u64,
    #[serde(default)]
    pub invalid: u64,
    /// Decisions that came out differently when they were made again.
    #[serde(default)]
    pub impure: u64,
    /// The last of them.
    #[serde(default)]
    pub impure_example: Option<String>,
    /// What it adds to every reply.
    #[serde(default)]
    pub reply_headers: Vec<String>,
    /// For how long it has been active.
    pub active_ms: Option<u64>,
    /// Who put it on trial.
    #[serde(default)]
    pub who: Option<String>,
    /// On which requests it is tried.
    #[serde(default)]
    pub only: Vec<String>,
    /// How far its rollout is.
    #[serde(default)]
    pub rollout: Option<Progress>,
    /// Failures that are held against it.
    #[serde(default)]
    pub held: u64,
    /// Too many are.
    #[serde(default)]
    pub condemned: bool,
    /// Paths that it is not asked about for a while, and clients.
    #[serde(default)]
    pub broken_off: BrokenOff,
    /// The newest, oldest first.
    #[serde(default)]
    pub incidents: Vec<Incident>,
}

/// How many paths and clients a version is not asked about.
#[derive(Debug, Default, Deserialize)]
pub struct BrokenOff {
    pub paths: u64,
    pub clients: u64,
}

/// How much of a hash people compare.
const SHORT_HASH_CHARS: usize = 12;

/// The beginning of a hash in hexadecimal.
pub fn short(hash: &str) -> String {
    hash.chars().take(SHORT_HASH_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_knows_nothing_of_it_is_said_to_be_older() {
        let said = |message: &str| {
            let body = format!(r#"{{"error":{{"code":404,"message":"{message}"}}}}"#);
            let response = Response::builder().status(404);
            accepted(response.body(body.into()).unwrap()).unwrap_err()
        };
        let older = said("no such path: /protocol").to_string();
        assert!(
            older.contains(&format!("older release than this command ({RELEASE})")),
            "{older}"
        );
        let stock = said("stock not found").to_string();
        assert_eq!(stock, "the gateway refused (404): stock not found");
        let hostile = said("first\\nsecond \\u001b[2J").to_string();
        assert_eq!(
            hostile,
            "the gateway refused (404): first\nsecond \\u{1b}[2J"
        );
    }
}
