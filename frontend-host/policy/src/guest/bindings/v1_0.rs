//! The world of 1.0, in terms of the newest.
//!
//! What it lacks: a policy has no configuration, takes out of no bucket, counts and says nothing of its own accord, adds nothing to what it has not answered, sees headers only where they are text and not how
//! requests came, has kept responses found by its memo, lists all stocks at once, does not see who is in sync, and has the version before
//! decide what it fails at.

use domain::ReplicaId;
use wasmtime::AsContextMut;
use wasmtime::component::types::{self, ComponentFunc};

use super::v1_2::{self, wit as newest};
use super::{Answer, invalid};
use crate::decision::{
    Action, Decision, InvalidDecision, Listing, Manifest, Operation, Outcome, PolicyRequest, View,
    header_text,
};

#[allow(unsafe_code, missing_docs, clippy::all, reason = "generated")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/1.0",
        world: "front-end",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use generated::bazaar::policy::types as wit;
pub(super) use generated::{FrontEnd, FrontEndPre};

/// Whether a function has the type that the generated code calls it by.
pub(super) fn typecheck(
    component: &types::Component,
    function: &str,
    exported: &ComponentFunc,
) -> wasmtime::Result<()> {
    let types = component.instance_type();
    match function {
        "describe" => exported.typecheck::<(), (wit::Manifest,)>(&types),
        "on-request" => exported.typecheck::<(wit::Request<'_>,), (wit::Decision,)>(&types),
        "on-outcome" => exported
            .typecheck::<(wit::Request<'_>, &[u8], wit::Outcome<'_>), (wit::Decision,)>(&types),
        _ => exported.typecheck::<(wit::View<'_>,), (Option<u32>,)>(&types),
    }
}

impl FrontEnd {
    /// It takes no configuration: who gives it one is told so at the check.
    pub(super) fn configure(&self, store: impl AsContextMut) -> Answer<Result<Manifest, String>> {
        let manifest = self.bazaar_policy_policy().call_describe(store)?;
        Ok(v1_2::manifest_from(manifest_from(manifest)).map(Ok))
    }

    pub(super) fn on_request(
        &self,
        store: impl AsContextMut,
        request: &PolicyRequest<'_>,
    ) -> Answer<Decision> {
        let headers = match headers_to(request) {
            Ok(headers) => headers,
            Err(invalid) => return Ok(Err(invalid)),
        };
        let policy = self.bazaar_policy_policy();
        let decision = policy.call_on_request(store, request_to(request, &headers))?;
        Ok(decision_from(decision))
    }

    pub(super) fn on_outcome(
        &self,
        store: impl AsContextMut,
        request: &PolicyRequest<'_>,
        memo: &[u8],
        outcome: &Outcome,
    ) -> Answer<Decision> {
        let headers = match headers_to(request) {
            Ok(headers) => headers,
            Err(invalid) => return Ok(Err(invalid)),
        };
        // A page that another version asked for, whose part this one was to take.
        if matches!(outcome, Outcome::Stocks(page) if page.more) {
            return Ok(invalid(
                "it is of world 1.0, in which nobody can say that there are more stocks than these",
            ));
        }
        // What another version asked for, too.
        if outcome.is_of_orders() {
            return Ok(invalid("it is of world 1.0, in which nobody lists orders"));
        }
        if outcome.is_of_take() {
            return Ok(invalid("it is of world 1.0, in which there are no buckets"));
        }
        let stocks: Vec<_> = v1_2::listed(outcome)
            .iter()
            .map(v1_2::stock_to)
            .map(stock_to)
            .collect();
        let outcome = outcome_to(v1_2::outcome_to(outcome, &[], &[]), &stocks);
        let policy = self.bazaar_policy_policy();
        let request = request_to(request, &headers);
        let decision = policy.call_on_outcome(store, request, memo, outcome)?;
        Ok(decision_from(decision))
    }

    pub(super) fn elect(
        &self,
        store: impl AsContextMut,
        view: &View,
    ) -> wasmtime::Result<Option<u32>> {
        let replicas = view.replicas.iter().map(v1_2::replica_to);
        let replicas: Vec<_> = replicas.map(replica_to).collect();
        let view = wit::View {
            replicas: &replicas,
            leader: view.leader.map(ReplicaId::get),
            epoch: view.epoch.0,
        };
        self.bazaar_policy_policy().call_elect(store, view)
    }
}

fn manifest_from(manifest: wit::Manifest) -> newest::Manifest {
    newest::Manifest {
        name: manifest.name,
        version: manifest.version,
        headers: manifest.headers,
        connection: false,
        cache: newest::CacheSettings {
            stocks_max: manifest.cache.stocks_max,
            orders_max: manifest.cache.orders_max,
            eviction: match manifest.cache.eviction {
                wit::Eviction::Lru => newest::Eviction::Lru,
                wit::Eviction::TinyLfu => newest::Eviction::TinyLfu,
            },
        },
        on_failure: newest::OnFailure::LastGood,
        buckets: Vec::new(),
        counters: Vec::new(),
        reply_headers: Vec::new(),
    }
}

/// The headers as text. Whoever asks such a version about others learns nothing from it.
fn headers_to<'a>(request: &PolicyRequest<'a>) -> Result<Vec<(&'a str, &'a str)>, InvalidDecision> {
    let header = |(name, value): &(&'a str, &'a [u8])| match header_text(value) {
        Some(value) => Ok((*name, value)),
        None => invalid(format!(
            "it is of world 1.0, in which headers are text, and `{name}` of this request is not"
        )),
    };
    request.headers.iter().map(header).collect()
}

/// `headers` are those of the request, as text.
fn request_to<'a>(
    request: &PolicyRequest<'a>,
    headers: &'a [(&'a str, &'a str)],
) -> wit::Request<'a> {
    let newest::Request {
        method,
        target,
        headers: _,
        connection: _,
        body,
        now_ms,
    } = v1_2::request_to(request);
    wit::Request {
        method: match method {
            newest::Method::Get => wit::Method::Get,
            newest::Method::Head => wit::Method::Head,
            newest::Method::Post => wit::Method::Post,
            newest::Method::Put => wit::Method::Put,
            newest::Method::Patch => wit::Method::Patch,
            newest::Method::Delete => wit::Method::Delete,
            newest::Method::Options => wit::Method::Options,
            newest::Method::Other => wit::Method::Other,
        },
        target,
        headers,
        body,
        now_ms,
    }
}

fn stock_to(stock: newest::Stock<'_>) -> wit::Stock<'_> {
    wit::Stock {
        name: stock.name,
        price_minor: stock.price_minor,
        quantity: stock.quantity,
    }
}

/// `stocks` are those of a list.
fn outcome_to<'a>(outcome: newest::Outcome<'a>, stocks: &'a [wit::Stock<'a>]) -> wit::Outcome<'a> {
    match outcome {
        newest::Outcome::Stock(stock) => wit::Outcome::Stock(stock_to(stock)),
        newest::Outcome::Stocks(_) => wit::Outcome::Stocks(stocks),
        newest::Outcome::Order(order) => wit::Outcome::Order(wit::Order {
            number: order.number,
            name: order.name,
            side: match order.side {
                newest::Side::Buy => wit::Side::Buy,
                newest::Side::Sell => wit::Side::Sell,
            },
            quantity: order.quantity,
        }),
        newest::Outcome::Traded(number) => wit::Outcome::Traded(number),
        newest::Outcome::Refused(refusal) => wit::Outcome::Refused(match refusal {
            newest::Refusal::StockNotFound => wit::Refusal::StockNotFound,
            newest::Refusal::NotEnough => wit::Refusal::NotEnough,
            newest::Refusal::OrderNotFound => wit::Refusal::OrderNotFound,
            newest::Refusal::KeyConflict => wit::Refusal::KeyConflict,
            newest::Refusal::TooMany => wit::Refusal::TooMany,
        }),
        newest::Outcome::Unavailable(what) => wit::Outcome::Unavailable(match what {
            newest::Unavailability::NoCatalog => wit::Unavailability::NoCatalog,
            newest::Unavailability::NoReplica => wit::Unavailability::NoReplica,
        }),
        newest::Outcome::Granted | newest::Outcome::Denied(_) => {
            unreachable!("it is not asked about buckets")
        }
        newest::Outcome::Orders(_) => unreachable!("it is not asked about lists of orders"),
    }
}

fn replica_to(replica: newest::Replica) -> wit::Replica {
    wit::Replica {
        id: replica.id,
        healthy: replica.healthy,
        reaches_catalog: replica.reaches_catalog,
        orders: replica.orders,
        round_trip_us: replica.round_trip_us,
    }
}

fn decision_from(decision: wit::Decision) -> Result<Decision, InvalidDecision> {
    let memo = v1_2::memo_from(decision.memo)?;
    let action = match decision.action {
        // The one action that the newest world has not.
        wit::Action::ListStocks => {
            let action = Action::Perform(Operation::ListStocks(Listing::All));
            return Ok(Decision {
                action,
                memo,
                remarks: None,
            });
        }
        wit::Action::Respond(response) => newest::Action::Respond(newest::Response {
            status: response.status,
            headers: response.headers,
            body: response.body,
            keep_ms: response.keep_ms,
        }),
        wit::Action::ReadStock(read) => newest::Action::ReadStock(newest::ReadStock {
            name: read.name,
            caching: caching_from(read.caching),
        }),
        wit::Action::ReadOrder(read) => newest::Action::ReadOrder(newest::ReadOrder {
            number: read.number,
            caching: caching_from(read.caching),
        }),
        wit::Action::Trade(trade) => newest::Action::Trade(newest::Trade {
            name: trade.name,
            side: match trade.side {
                wit::Side::Buy => newest::Side::Buy,
                wit::Side::Sell => newest::Side::Sell,
            },
            quantity: trade.quantity,
            idempotency_key: trade.idempotency_key,
        }),
        wit::Action::Retry(after_ms) => newest::Action::Retry(after_ms),
    };
    let mut action = v1_2::action_from(action)?;
    if let Action::Perform(
        Operation::ReadStock { caching, .. } | Operation::ReadOrder { caching, .. },
    ) = &mut action
    {
        caching.vary_key = memo.as_slice().into();
    }
    Ok(Decision {
        action,
        memo,
        remarks: None,
    })
}

fn caching_from(caching: wit::Caching) -> newest::Caching {
    newest::Caching {
        freshness: match caching.freshness {
            wit::Freshness::Linearizable => newest::Freshness::Linearizable,
            wit::Freshness::AtMost(ms) => newest::Freshness::AtMost(ms),
            wit::Freshness::Bypass => newest::Freshness::Bypass,
        },
        stale_on_error_ms: caching.stale_on_error_ms,
        vary_key: Vec::new(),
    }
}
