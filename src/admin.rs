//! The admin API of a running gateway: how it is asked, and what it answers.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Response};
use serde::Deserialize;

use crate::answer;
use crate::cli;
use crate::client::{Client, ClientError};

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
    /// Its answer is not of the expected shape.
    #[error("the gateway's answer was not understood: {0}")]
    Nonsense(#[from] serde_json::Error),
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
        Ok(Self(
            Client::new(args.origin, PATIENCE + takes).with_token(token),
        ))
    }

    pub async fn get(&mut self, path: &str) -> Result<Bytes, AdminError> {
        accepted(self.0.get(path).await?)
    }

    /// Puts a policy beside or in place of another, with its signature where it has one.
    pub async fn put(
        &mut self,
        path: &str,
        component: Bytes,
        signature: Option<&str>,
    ) -> Result<Bytes, AdminError> {
        let request = Request::put(path).header(CONTENT_TYPE, "application/wasm");
        let request = match signature {
            Some(signature) => request.header("x-policy-signature", signature),
            None => request,
        };
        let request = request.body(component).map_err(ClientError::from)?;
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
    let (status, body) = (response.status(), response.into_body());
    if status.is_success() {
        return Ok(body);
    }
    let reason = answer::refusal(&body).unwrap_or_else(|| answer::beginning(&body));
    Err(AdminError::Refused {
        status: status.as_u16(),
        reason,
    })
}

#[derive(Debug, Deserialize)]
pub struct Status {
    /// A trade can be served.
    pub ready: bool,
    /// The journal's id, once it is known.
    #[serde(default)]
    pub journal: Option<String>,
    /// The leader's term of office.
    pub epoch: u64,
    pub leader: Option<u32>,
    pub replicas: Vec<Replica>,
    pub catalog: Catalog,
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
}

/// The catalog as the gateway sees it.
#[derive(Debug, Deserialize)]
pub struct Catalog {
    pub url: String,
    pub reachable: bool,
    pub journal_rows: Option<u64>,
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

#[derive(Debug, Deserialize)]
pub struct Cache {
    pub entries: u64,
    pub hits: u64,
    pub misses: u64,
    pub stale: u64,
}

#[derive(Debug, Deserialize)]
pub struct Policies {
    pub active: Option<Policy>,
    pub previous: Option<Policy>,
    pub candidate: Option<Policy>,
    /// Digests of those that can be activated again, the latest at the end.
    #[serde(default)]
    pub kept: Vec<String>,
}

impl Policies {
    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        [&self.active, &self.candidate, &self.previous]
            .into_iter()
            .flatten()
    }
}

/// A version of the policy.
#[derive(Debug, Deserialize)]
pub struct Policy {
    pub digest: String,
    pub name: String,
    pub version: String,
    pub stage: String,
    pub decisions: u64,
    pub traps: u64,
    pub overruns: u64,
    pub invalid: u64,
    /// Decisions that came out differently when they were made again.
    #[serde(default)]
    pub impure: u64,
    /// The last of them.
    #[serde(default)]
    pub impure_example: Option<String>,
    /// For how long it has been active.
    pub active_ms: Option<u64>,
}

/// How much of a hash people compare.
const SHORT_HASH_CHARS: usize = 12;

/// The beginning of a hash in hexadecimal.
pub fn short(hash: &str) -> String {
    hash.chars().take(SHORT_HASH_CHARS).collect()
}
