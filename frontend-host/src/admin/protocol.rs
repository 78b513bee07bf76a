//! The version of the protocol that the bazaar is at, which services speak which, and raising it.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::Json;
use domain::time::BootTime;
use domain::{Protocol, Protocols, SessionId};
use frontend_policy::Reason;
use rpc::release::Release;
use rpc::retry::{RetryClass, RetryStatus as _};
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::Code;
use wire::catalog::v1::{ListGatewaysRequest, RaiseProtocolRequest};
use wire::order::v1::StatusRequest;

use super::Admin;
use super::refusal::Refusal;

/// How long a service may take to say which release it is.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// Before it is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// How long the catalog may take to note it: longer than a commit.
const RAISE_TIME_MAX: Duration = Duration::from_secs(8);

#[derive(Serialize)]
pub(super) struct Shown {
    /// That the bazaar is at.
    protocol: u32,
    /// To which this gateway would raise it.
    newest: u32,
    services: Vec<Service>,
}

/// One of the services that this gateway knows.
#[derive(Serialize)]
struct Service {
    service: String,
    url: Option<String>,
    /// Whether it said anything in time.
    answers: bool,
    /// `None` where it does not say.
    release: Option<String>,
    /// The oldest and the newest version that it speaks.
    speaks: Option<[u32; 2]>,
    #[serde(skip)]
    heard: Option<Release>,
    /// A gateway that the catalog names.
    #[serde(skip)]
    is_named_by_catalog: bool,
}

impl Service {
    fn new(service: String, url: Option<String>, heard: Option<Release>) -> Self {
        let number = heard.as_ref().and_then(Release::number);
        let speaks = heard.as_ref().map(Release::speaks);
        Self {
            answers: heard.is_some(),
            release: number.map(str::to_owned),
            speaks: speaks.map(|it| [it.oldest().get(), it.newest().get()]),
            service,
            url,
            heard,
            is_named_by_catalog: false,
        }
    }

    fn named_by_catalog(name: &str, release: &str) -> Self {
        let heard = Some(Release::of_tokens(release));
        Self {
            is_named_by_catalog: true,
            ..Self::new(format!("gateway {name}"), None, heard)
        }
    }

    /// Why the bazaar cannot be at that version with it, if it cannot.
    fn objection(&self, wanted: Protocol) -> Option<String> {
        let Self { service, .. } = self;
        match &self.heard {
            // The catalog sees to those: others can open a session until it does.
            _ if self.is_named_by_catalog => None,
            None => Some(format!(
                "{service} does not answer, and each has to say that it speaks version {wanted}: start it, or \
                 start this gateway without it"
            )),
            Some(release) if !release.speaks().contains(wanted) => {
                Some(format!("{service} is to be upgraded first: {release}"))
            }
            Some(_) => None,
        }
    }
}

pub(super) async fn show(State(admin): State<Arc<Admin>>) -> Result<Json<Shown>, Refusal> {
    admin.protocol().await.map(Json)
}

/// Has the bazaar be at the newest version that this gateway speaks.
pub(super) async fn raise(
    State(admin): State<Arc<Admin>>,
    Extension(reason): Extension<Reason>,
) -> Result<Json<Shown>, Refusal> {
    let wanted = Protocols::OWN.newest();
    let before = admin.protocol().await?;
    if before.protocol >= wanted.get() {
        return Ok(Json(before));
    }
    let mut objections = before.services.iter();
    if let Some(objection) = objections.find_map(|service| service.objection(wanted)) {
        return Err(Refusal::NotRaised(objection));
    }
    let replicas = &admin.gateway.backend.replicas;
    // One that this gateway does not know cannot be asked.
    let in_sync = replicas.journal().map(|journal| journal.in_sync);
    let unknown = in_sync
        .into_iter()
        .flatten()
        .find(|id| replicas.get(*id).is_none());
    if let Some(id) = unknown {
        let why = format!(
            "replica {id} is in sync, and this gateway does not know it: name it by --order"
        );
        return Err(Refusal::NotRaised(why));
    }
    tracing::info!(
        from = before.protocol,
        to = %wanted,
        who = reason.who,
        known_by = reason.known_by,
        address = reason.address.map(tracing::field::display),
        why = reason.why,
        "the bazaar's protocol is to be raised"
    );
    let raise = Reason {
        why: format!(
            "from version {} to {wanted}: {}",
            before.protocol, reason.why
        ),
        ..reason
    };
    // First: it is not taken back.
    admin.note("raise", raise.clone()).await?;
    let request = RaiseProtocolRequest {
        protocol: wanted.get(),
        journal: replicas.own_journal().to_wire(),
    };
    let mut catalog = replicas.catalog().clone();
    match timeout(RAISE_TIME_MAX, catalog.raise_protocol(request)).await {
        Ok(Ok(_)) => {}
        Ok(Err(status))
            if RetryClass::of(&status) != RetryClass::Later
                || status.code() == Code::FailedPrecondition =>
        {
            let why = status.message().to_owned();
            let not_raised = Reason {
                why: why.clone(),
                ..raise
            };
            if let Err(error) = admin.note("not-raised", not_raised).await {
                tracing::warn!(%error, "that it was not raised is not in the log of changes");
            }
            return Err(Refusal::NotRaised(why));
        }
        Ok(Err(status)) => {
            tracing::warn!(%status, "nobody knows whether the protocol was raised");
            return Err(Refusal::NotReady(UNKNOWN.into()));
        }
        Err(_) => return Err(Refusal::NotReady(UNKNOWN.into())),
    }
    tracing::info!(to = %wanted, "the bazaar's protocol was raised");
    admin.protocol().await.map(Json)
}

/// Asking again is safe.
const UNKNOWN: &str = "the catalog does not say whether it did; ask again";

impl Admin {
    async fn protocol(&self) -> Result<Shown, Refusal> {
        let replicas = &self.gateway.backend.replicas;
        if replicas.ask_catalog().await.is_err() {
            return Err(Refusal::NotReady("the catalog does not answer".into()));
        }
        let this = Service::new("this gateway".to_owned(), None, Some(Release::own()));
        let (catalogs, orders, gateways) = tokio::join!(
            self.catalogs.heard(),
            self.heard_of_replicas(),
            self.named_gateways()
        );
        let catalogs = catalogs
            .into_iter()
            .map(|(url, heard)| Service::new(format!("catalog {url}"), Some(url), heard.release));
        Ok(Shown {
            protocol: replicas.protocol().map_or(0, Protocol::get),
            newest: Protocols::OWN.newest().get(),
            services: [this]
                .into_iter()
                .chain(catalogs)
                .chain(orders)
                .chain(gateways)
                .collect(),
        })
    }

    /// The other gateways that have a session with the catalog, as it says; none where it is of release 0.1.0.
    async fn named_gateways(&self) -> Vec<Service> {
        let replicas = &self.gateway.backend.replicas;
        let request = ListGatewaysRequest {
            names_alone: true,
            journal: replicas.own_journal().to_wire(),
        };
        let mut catalog = replicas.catalog().clone();
        let said = timeout(ANSWER_TIME_MAX, catalog.list_gateways(request)).await;
        let named = said.map(|said| said.map(|said| said.into_inner().gateways));
        let named = named.ok().and_then(Result::ok).unwrap_or_default();
        let own = self.gateway.cache.lease().current(BootTime::now());
        let own = own.map_or(0, SessionId::get);
        let others = named.iter().filter(|gateway| gateway.session != own);
        let others = others.map(|it| Service::named_by_catalog(&it.name, &it.release));
        others.collect()
    }

    async fn heard_of_replicas(&self) -> Vec<Service> {
        let (all, _) = self.gateway.backend.replicas.all();
        let mut asked = JoinSet::new();
        for (place, replica) in all.iter().enumerate() {
            let mut orders = replica.spare.clone();
            #[expect(clippy::disallowed_methods, reason = "joined below")]
            asked.spawn(async move {
                let asking = async {
                    loop {
                        match orders.status(StatusRequest {}).await {
                            Ok(answer) => return Release::of_callee(answer.metadata().as_ref()),
                            // Who refuses says as well which release it is.
                            Err(status) if status.code() == Code::FailedPrecondition => {
                                return Release::of_callee(status.metadata().as_ref());
                            }
                            // A connection that broke is made anew.
                            Err(_) => sleep(ASK_PAUSE).await,
                        }
                    }
                };
                let release = timeout(ANSWER_TIME_MAX, asking).await;
                (place, release.ok())
            });
        }
        let mut heard = vec![None; all.len()];
        while let Some(answer) = asked.join_next().await {
            if let Ok((place, release)) = answer {
                heard[place] = release;
            }
        }
        let services = all.iter().zip(heard).map(|(replica, heard)| {
            let name = format!("order {}", replica.id);
            Service::new(name, Some(replica.url.clone()), heard)
        });
        services.collect()
    }
}
