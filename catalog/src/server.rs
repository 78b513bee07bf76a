//! Puts the parts together, serves, and takes them apart again.

use std::collections::BTreeSet;
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use daemon::tasks;
use domain::time::BootTime;
use domain::{CatalogRun, Identity, Protocols, ReplicaId};
use monitor::Monitor;
use monitor::figures::figures;
use monitor::health::{Serves, health};
use rpc::clients::PerClient;
use rpc::listen::{self, Incoming};
use rpc::release::BazaarProtocol;
use storage::StorageError;
use storage::damage::DamageReporter;
use tokio::sync::{oneshot, watch};
use traces::Traces;

use crate::access::ACCESS;
use crate::callers::Callers;
use crate::config::{SESSIONS_PER_CLIENT_MAX, SESSIONS_PER_PRINCIPAL_MAX, lease_margin};
use crate::error::Error;
use crate::gateways::Gateways;
use crate::observed;
use crate::service::{Lists, Service, TRADES_PER_CLIENT_MAX};
use crate::session::Sessions;
use crate::shared::Shared;
use crate::standby::Door;
use crate::store::{Journal, Loaded, Store};
use crate::takes::Takes;
use crate::takes::handover::{Left, Of};
use crate::writer::healing::Healing;
use crate::writer::{self, Beginning};
use wire::reflection::reflection;

use catalog_core::limits::Snapshot;
use catalog_core::self_healing::Found;
use catalog_core::{Leases, Reach, SaidCallers, Visibility};

/// How long a stop waits for requests that are being answered, before the writer is stopped.
const DRAIN_MIN: Duration = Duration::from_millis(100);

/// And from then on.
const DRAIN_MAX: Duration = Duration::from_secs(3);

/// How long it waits for the writer: longer than for a commit.
const WRITER_END_MAX: Duration = Duration::from_secs(6);

/// And how long it waits for gateways to release what they hold: longer than a lease where another catalog takes over.
const RECALL_TIME_MAX: Duration = Duration::from_millis(600);

/// What a catalog is made of.
pub struct Parts {
    /// The writer's side of the store.
    pub store: Box<dyn Store>,
    /// The readers' side of it.
    pub journal: Arc<dyn Journal>,
    /// What the store held when it was opened.
    pub loaded: Loaded,
    /// As gateways count it.
    pub lease: Duration,
    /// What the run before left of its limits, and where this one leaves its own.
    pub left: Option<Snapshot>,
    pub handover: Option<Left>,
    /// Longest wait for ledgers where nothing is missing, nor may be.
    pub healing_wait_max: Duration,
    /// Replicas of which what only they have is given up.
    pub accept_loss_of: BTreeSet<ReplicaId>,
    /// See [`Config`](crate::Config).
    pub is_rebuilt: bool,
    pub reporter: DamageReporter,
    /// Where orders that are traced are.
    pub traces: Traces,
}

/// What answers while this catalog is active.
const SERVES: Serves = &[("catalog.v1.Catalog", |role| role == observed::ACTIVE)];

/// What it says of its protos.
const REFLECTED: [&str; 3] = [
    "catalog.v1.Catalog",
    "grpc.health.v1.Health",
    "monitor.v1.Monitor",
];

/// A catalog that stands by until it has its parts, and then is active.
pub struct Server<P, L> {
    pub parts: P,
    /// Where the active one is reached.
    pub elsewhere: watch::Receiver<Option<String>>,
    /// Who asks this one.
    pub callers: Callers,
    pub monitor: Monitor,
    pub listener: L,
}

impl<P, L> Server<P, L>
where
    P: Future<Output = Result<Parts, Error>>,
    L: Into<Incoming>,
{
    /// Serves until `shutdown`, then finishes what has queued and lets go of the store. Until there are parts it
    /// stands by: clients are told who is active.
    ///
    /// # Errors
    /// Among others [`Error::TurnedAway`], after it has finished in the same way.
    pub async fn serve(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self {
            parts,
            elsewhere,
            callers,
            monitor,
            listener,
        } = self;
        observed::standby(&monitor, elsewhere.clone());
        let listener = listener.into();
        monitor.export(Arc::new(listener.usage()));
        let (close, closing) = watch::channel(false);
        let door = Door::new(elsewhere, callers.clone());
        let protocol = BazaarProtocol::default();
        let server = listen::server(ACCESS, protocol.clone())
            .add_service(door.clone())
            .add_service(health(monitor.clone(), SERVES))
            .add_service(figures(monitor.clone()))
            .add_service(reflection(&REFLECTED))
            .serve_with_incoming_shutdown(listener, closed(closing.clone()));
        tokio::pin!(server, shutdown);
        let ended = |served: Result<(), _>| served.map_or_else(Error::Serve, |()| Error::Ended);
        let starting = async {
            let mut parts = parts.await?;
            let handover = parts.handover.take();
            Ok::<_, Error>((start(parts, closing, protocol)?, handover))
        };
        let ((service, mut writer_ended), handover) = tokio::select! {
            biased; // what is at hand is served before anybody is refused
            started = starting => started?,
            served = &mut server => return Err(ended(served)),
            () = &mut shutdown => return Ok(()),
        };
        let (shared, writer) = (Arc::clone(&service.shared), service.writer.clone());
        let (takes, journal) = (Arc::clone(&service.takes), service.identity.journal);
        // Ends with this function.
        let _expiry = tasks::spawn("expire sessions", {
            let shared = Arc::clone(&shared);
            async move { shared.expire_sessions().await }
        });
        door.open(service);
        observed::active(&monitor, Arc::clone(&shared));
        monitor.watch("writer", shared.measured.writing.clone());
        let stopping = async {
            let said = tokio::select! {
                () = &mut shutdown => None,
                said = turned_away(&shared, &callers) => Some(said),
            };
            monitor.stop();
            match said {
                None => tracing::info!("stopping"),
                Some(SaidCallers { callers, .. }) => tracing::warn!(
                    callers,
                    "more callers reach a catalog that stands by than this one: handing over"
                ),
            }
            // Meanwhile it serves; nobody has to wait for what it lent afterwards.
            let _ = tokio::time::timeout(RECALL_TIME_MAX, shared.recall()).await; // or for its leases
            said.is_some()
        };
        let is_turned_away = tokio::select! {
            served = &mut server => return Err(ended(served)),
            _ = &mut writer_ended => return Err(Error::Writer),
            is_turned_away = stopping => is_turned_away,
        };
        close.send_replace(true);
        shared.close();
        // A client that does not answer any more holds its connection: it does not hold up who takes over.
        let drained = tokio::time::timeout(DRAIN_MIN, &mut server).await.is_ok();
        let limits = takes.close();
        if let (Some(handover), Some(limits)) = (&handover, &limits) {
            // Where another one is elected yet, the next catalog has none.
            let epoch = shared.leadership().term.epoch;
            handover.leave_with_store(Of { journal, epoch }, limits);
        }
        writer.stop().await;
        let ending = tokio::time::timeout(WRITER_END_MAX, writer_ended);
        let draining =
            async { drained || tokio::time::timeout(DRAIN_MAX, &mut server).await.is_ok() };
        let (ended, drained) = tokio::join!(ending, draining);
        if !drained {
            tracing::warn!("some requests were not answered before the stop");
        }
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Err(Error::Writer),
        }
        if let (Some(handover), Some(limits)) = (handover, limits) {
            let epoch = shared.leadership().term.epoch; // it changes no more
            let leave = move || handover.leave_in_directory(Of { journal, epoch }, &limits);
            let _ = tokio::task::spawn_blocking(leave).await; // the next start does without
        }
        match is_turned_away {
            true => Err(Error::TurnedAway),
            false => Ok(()),
        }
    }
}

/// Ready once more callers have turned to a catalog that stands by, for long enough; with what that said.
async fn turned_away(shared: &Shared, callers: &Callers) -> SaidCallers {
    let mut standbys = shared.standby_callers();
    let mut reach = Reach::new(BootTime::now());
    loop {
        if standbys.changed().await.is_err() {
            return pending().await; // nobody reads it any more
        }
        let said = *standbys.borrow_and_update();
        let now = BootTime::now();
        // A gateway that knows of no other catalog asks none, but has a session.
        let own = callers.count(now).max(shared.sessions() as u64);
        if let Some(said) = said
            && reach.is_lost(said, own, now)
        {
            return said;
        }
    }
}

pub(crate) fn start(
    parts: Parts,
    closing: watch::Receiver<bool>,
    protocol: BazaarProtocol,
) -> Result<(Service, oneshot::Receiver<()>), Error> {
    let Parts {
        store,
        journal,
        loaded,
        lease,
        left,
        handover: _,
        healing_wait_max,
        accept_loss_of,
        is_rebuilt,
        reporter,
        traces,
    } = parts;
    if !Protocols::OWN.contains(loaded.protocol) {
        return Err(Error::OtherProtocol(loaded.protocol));
    }
    protocol.set(loaded.protocol);
    let leases = Leases::new(lease, lease_margin(lease));
    let lease_max = leases.lease_max();
    let identity = Identity {
        journal: loaded.journal,
        listing: loaded.listing,
        // Leases of the run before may have been longer.
        lease_horizon: lease_max.max(loaded.sessions_out.unwrap_or_default()),
    };
    let unsettled = loaded.sessions_out.unwrap_or_default();
    if !unsettled.is_zero() {
        tracing::info!(
            ?unsettled,
            "waiting for leases that gateways may still have"
        );
    }
    let visibility = Visibility::new(
        loaded.state.stocks().cloned(),
        leases,
        unsettled,
        BootTime::now(),
    );
    let leadership = loaded.state.leadership();
    let found = Found {
        journal: leadership.end,
        term: leadership.term.clone(),
        may_lack_rows: loaded.may_lack_rows,
        is_unbroken: loaded.is_unbroken,
    };
    let gives_up_at = BootTime::now() + healing_wait_max;
    let shared = Arc::new(Shared::new(visibility, leadership, lease, protocol));
    // Before the writer begins this run's first epoch.
    let takes = Takes::new(Arc::clone(&shared), left.as_ref(), BootTime::now());
    let is_nested = store.writer_lease().is_some();
    let beginning = Beginning {
        store,
        loaded,
        journal: Arc::clone(&journal),
        healing: Healing::new(found, accept_loss_of, gives_up_at).of_rebuilt(is_rebuilt),
    };
    let (writer, ended) = writer::start(beginning, Arc::clone(&shared))?;
    let sessions = Sessions {
        shared: Arc::clone(&shared),
        writer: writer.clone(),
        lease,
        lease_max,
        is_nested,
        journal: identity.journal,
        per_client: PerClient::new(SESSIONS_PER_CLIENT_MAX),
        per_principal: PerClient::new(SESSIONS_PER_PRINCIPAL_MAX),
        gateways: Gateways::default(),
    };
    Ok((
        Service {
            shared,
            writer,
            journal,
            sessions: Arc::new(sessions),
            takes: Arc::new(takes),
            trades: Arc::new(PerClient::new(TRADES_PER_CLIENT_MAX)),
            lists: Arc::new(Lists::default()),
            identity,
            run: random_run()?,
            since: BootTime::now(),
            reporter,
            traces,
            closing,
        },
        ended,
    ))
}

/// A number that no other run of a catalog has.
fn random_run() -> Result<CatalogRun, Error> {
    loop {
        let number = getrandom::u64();
        let number =
            number.map_err(|error| StorageError::Random(io::Error::other(error.to_string())));
        if let Some(run) = CatalogRun::new(number?) {
            return Ok(run);
        }
    }
}

async fn closed(mut closing: watch::Receiver<bool>) {
    let _ = closing.wait_for(|&closing| closing).await; // or gone: as good
}
