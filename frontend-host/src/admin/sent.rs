//! What operators send with a change of the policy.

use std::collections::BTreeMap;

use axum::body::Bytes;
use axum::http::HeaderMap;
use frontend_policy::rollout::{Audience, DEFAULT_PLAN, PLAN_BYTES_MAX, Plan, Terms};
use frontend_policy::{Share, Trial};

use super::refusal::Refusal;

/// A component with the signature and the configuration that came with it.
pub(super) struct Sent {
    component: Bytes,
    signature: Option<String>,
    config: Bytes,
}

impl Sent {
    /// `config` says how many bytes of the body are a configuration, which goes before its component.
    pub(super) fn new(
        body: Bytes,
        config: Option<&str>,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        let signature = headers.get("x-policy-signature");
        let signature = signature.and_then(|value| value.to_str().ok());
        let config = config.map_or(Ok(0), str::parse::<usize>);
        let config = config.ok().filter(|config| *config <= body.len());
        let config = config.ok_or(Refusal::NoConfig)?;
        Ok(Self {
            component: body.slice(config..),
            signature: signature.map(str::to_owned),
            config: body.slice(..config),
        })
    }

    pub(super) fn upload(&self) -> frontend_policy::Upload<'_> {
        frontend_policy::Upload {
            component: &self.component,
            signature: self.signature.as_deref(),
            config: &self.config,
        }
    }
}

/// The plan that a body begins with, and the rest of it. Without one that is the default.
pub(super) fn plan(bytes: Option<&str>, body: Bytes) -> Result<(Plan, Bytes), Refusal> {
    let bytes = bytes.map_or(Ok(0), str::parse).ok();
    let bytes = bytes.filter(|bytes| *bytes <= body.len().min(PLAN_BYTES_MAX));
    let bytes = bytes.ok_or(Refusal::NoPlan)?;
    let text = match bytes {
        0 => DEFAULT_PLAN,
        _ => str::from_utf8(&body[..bytes]).map_err(|_| Refusal::NoPlan)?,
    };
    Ok((text.parse()?, body.slice(bytes..)))
}

/// Whom a canary is for, `only=…` once for each condition; and the rest of a query.
pub(super) fn audience(
    query: Vec<(String, String)>,
) -> Result<(Audience, BTreeMap<String, String>), Refusal> {
    let (only, rest): (Vec<_>, Vec<_>) = query.into_iter().partition(|(name, _)| name == "only");
    let only: Vec<_> = only.into_iter().map(|(_, condition)| condition).collect();
    Ok((Audience::parse(&only)?, rest.into_iter().collect()))
}

pub(super) fn terms(trial: Trial, audience: Audience) -> Result<Terms, Refusal> {
    match trial {
        Trial::Shadow(_) if audience != Audience::default() => Err(Refusal::NoTrial),
        _ => Ok(Terms::on(trial, audience)),
    }
}

pub(super) fn trial(query: &BTreeMap<String, String>) -> Option<Trial> {
    let mut query = query.iter();
    let (kind, share) = query.next().filter(|_| query.next().is_none())?;
    let share = Share::new(share.parse().ok()?)?;
    Trial::named(kind, share)
}
