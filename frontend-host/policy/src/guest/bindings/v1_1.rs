//! The world of 1.1, in terms of the newest.
//!
//! What it lacks: nobody lists or follows orders. wasmtime compares types by their structure, so all but
//! what lists orders is of the newest world's types.

use wasmtime::AsContextMut;
use wasmtime::component::types::{self, ComponentFunc};

use super::v1_2::{self, wit as newest};
use super::{Answer, invalid};
use crate::decision::{Decision, InvalidDecision, Manifest, Outcome, PolicyRequest, View};

/// Its types, by the names of the WIT.
#[allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "what is derived tells wasmtime how values lie in memory"
)]
pub mod wit {
    pub use super::newest::{
        Host, HostWithStore, ListStocks, Manifest, Observation, Order, Page, ReadOrder, ReadStock,
        Refusal, ReplicaId, Request, Response, Stock, Take, Trade, Unavailability, View,
        add_to_linker,
    };
    use wasmtime::component::{ComponentType, Lift, Lower};

    #[derive(ComponentType, Lift)]
    #[component(variant)]
    pub enum Action {
        #[component(name = "respond")]
        Respond(Response),
        #[component(name = "read-stock")]
        ReadStock(ReadStock),
        #[component(name = "list-stocks")]
        ListStocks(ListStocks),
        #[component(name = "read-order")]
        ReadOrder(ReadOrder),
        #[component(name = "trade")]
        Trade(Trade),
        #[component(name = "take")]
        Take(Take),
        #[component(name = "retry")]
        Retry(u32),
    }

    #[derive(ComponentType, Lift)]
    #[component(record)]
    pub struct Decision {
        #[component(name = "action")]
        pub action: Action,
        #[component(name = "memo")]
        pub memo: Vec<u8>,
        #[component(name = "observations")]
        pub observations: Vec<Observation>,
        #[component(name = "log")]
        pub log: Vec<String>,
    }

    #[derive(ComponentType, Lower)]
    #[component(variant)]
    pub enum Outcome<'a> {
        #[component(name = "stock")]
        Stock(Stock<'a>),
        #[component(name = "stocks")]
        Stocks(Page<'a>),
        #[component(name = "order")]
        Order(Order<'a>),
        #[component(name = "traded")]
        Traded(u64),
        #[component(name = "refused")]
        Refused(Refusal),
        #[component(name = "unavailable")]
        Unavailable(Unavailability),
        #[component(name = "granted")]
        Granted,
        #[component(name = "denied")]
        Denied(u32),
    }
}

#[allow(unsafe_code, missing_docs, clippy::all, reason = "generated")]
mod generated {
    wasmtime::component::bindgen!({
        path: "../../wit/1.1",
        world: "front-end",
        ownership: Borrowing { duplicate_if_necessary: true },
        with: { "bazaar:policy/types@1.1.0": super::wit },
    });
}

pub(super) use generated::{FrontEnd, FrontEndPre};

/// Whether a function has the type that the generated code calls it by.
pub(super) fn typecheck(
    component: &types::Component,
    function: &str,
    exported: &ComponentFunc,
) -> wasmtime::Result<()> {
    let types = component.instance_type();
    match function {
        "on-request" => exported.typecheck::<(wit::Request<'_>,), (wit::Decision,)>(&types),
        "on-outcome" => exported
            .typecheck::<(wit::Request<'_>, &[u8], wit::Outcome<'_>), (wit::Decision,)>(&types),
        _ => v1_2::typecheck(component, function, exported),
    }
}

impl FrontEnd {
    pub(super) fn configure(
        &self,
        store: impl AsContextMut,
        config: &[u8],
    ) -> Answer<Result<Manifest, String>> {
        let configured = self.bazaar_policy_policy().call_configure(store, config)?;
        Ok(v1_2::configured_from(configured))
    }

    pub(super) fn on_request(
        &self,
        store: impl AsContextMut,
        request: &PolicyRequest<'_>,
    ) -> Answer<Decision> {
        let policy = self.bazaar_policy_policy();
        let decision = policy.call_on_request(store, v1_2::request_to(request))?;
        Ok(decision_from(decision))
    }

    pub(super) fn on_outcome(
        &self,
        store: impl AsContextMut,
        request: &PolicyRequest<'_>,
        memo: &[u8],
        outcome: &Outcome,
    ) -> Answer<Decision> {
        // What another version asked for, whose part this one was to take.
        if outcome.is_of_orders() {
            return Ok(invalid("it is of world 1.1, in which nobody lists orders"));
        }
        let stocks: Vec<_> = v1_2::listed(outcome).iter().map(v1_2::stock_to).collect();
        let outcome = outcome_to(v1_2::outcome_to(outcome, &stocks, &[]));
        let policy = self.bazaar_policy_policy();
        let request = v1_2::request_to(request);
        let decision = policy.call_on_outcome(store, request, memo, outcome)?;
        Ok(decision_from(decision))
    }

    pub(super) fn elect(
        &self,
        store: impl AsContextMut,
        view: &View,
    ) -> wasmtime::Result<Option<u32>> {
        let replicas: Vec<_> = view.replicas.iter().map(v1_2::replica_to).collect();
        let view = v1_2::view_to(view, &replicas);
        self.bazaar_policy_policy().call_elect(store, view)
    }
}

fn outcome_to(outcome: newest::Outcome<'_>) -> wit::Outcome<'_> {
    match outcome {
        newest::Outcome::Stock(stock) => wit::Outcome::Stock(stock),
        newest::Outcome::Stocks(page) => wit::Outcome::Stocks(page),
        newest::Outcome::Order(order) => wit::Outcome::Order(order),
        newest::Outcome::Orders(_) => unreachable!("it is not asked about lists of orders"),
        newest::Outcome::Traded(number) => wit::Outcome::Traded(number),
        newest::Outcome::Refused(refusal) => wit::Outcome::Refused(refusal),
        newest::Outcome::Unavailable(what) => wit::Outcome::Unavailable(what),
        newest::Outcome::Granted => wit::Outcome::Granted,
        newest::Outcome::Denied(retry_after_ms) => wit::Outcome::Denied(retry_after_ms),
    }
}

fn decision_from(decision: wit::Decision) -> Result<Decision, InvalidDecision> {
    let action = match decision.action {
        wit::Action::Respond(response) => newest::Action::Respond(response),
        wit::Action::ReadStock(read) => newest::Action::ReadStock(read),
        wit::Action::ListStocks(list) => newest::Action::ListStocks(list),
        wit::Action::ReadOrder(read) => newest::Action::ReadOrder(read),
        wit::Action::Trade(trade) => newest::Action::Trade(trade),
        wit::Action::Take(take) => newest::Action::Take(take),
        wit::Action::Retry(after_ms) => newest::Action::Retry(after_ms),
    };
    v1_2::decision_from(newest::Decision {
        action,
        memo: decision.memo,
        observations: decision.observations,
        log: decision.log,
    })
}
