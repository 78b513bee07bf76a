//! The order replicas: which of them answer, how far they have got, and which of them leads.

use std::error::Error;
use std::future::{Future, pending};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::time::BootTime;
use domain::{ChainHash, Epoch, Protocol, ReplicaId, RowNumber, StartWaits};
use frontend_core::election::{
    Contact, CurrentLeader, Detector, ProbeFailure, Probed, Role, Status, Unanswered, Watch, Way,
};
use frontend_core::timing::PROBE_TIME_MAX;
use rpc::release::{BazaarProtocol, Release};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::identity;
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::{self as order, StatusRequest};

use crate::journal::OwnJournal;
use crate::measured::Measured;
use crate::upstream::order_stream::OrderStreams;
use frontend_policy::Versions;

/// One replica, and how to call it.
#[derive(Clone)]
pub struct Replica {
    pub id: ReplicaId,
    pub url: String,
    /// How to call it.
    pub orders: OrdersClient<Channel>,
    /// Another connection, for probes alone.
    pub spare: OrdersClient<Channel>,
    /// How to place orders with it.
    pub order_streams: OrderStreams,
}

/// The replicas of one catalog.
pub struct Replicas {
    pub(super) all: Vec<Replica>,
    pub(super) catalog: CatalogClient<Channel>,
    pub(super) own_journal: Arc<OwnJournal>,
    pub(super) policy: Arc<Versions>,
    heard: Mutex<Heard>,
    /// Each replica answered something, in the order of `all`.
    answered: Vec<watch::Sender<()>>,
    /// Any of them did.
    any_answered: watch::Sender<()>,
    /// Who leads and whether it takes trades.
    pub(super) leader: watch::Sender<CurrentLeader>,
    /// What the catalog said last.
    pub(super) catalog_said: watch::Sender<CatalogSaid>,
    /// The catalog was last found to be another bazaar's.
    pub(super) foreign: AtomicBool,
    /// The version that the bazaar is at, as the catalog said last.
    pub(super) protocol: BazaarProtocol,
    /// Wakes the elector: something changed.
    pub(super) changed: Notify,
    /// Wakes the probes: somebody has a suspicion.
    suspicion: watch::Sender<u64>,
    /// How often something has changed.
    pub(super) changes: AtomicU64,
    /// What the gateway has done so far.
    pub measured: Arc<Measured>,
}

/// What is heard of whom.
struct Heard {
    /// Of the replicas, in the order of `all`.
    probed: Vec<Probed>,
    /// The same of their releases.
    releases: Vec<Option<Release>>,
    /// Of anybody.
    contact: Contact,
}

/// A probe that is under way.
type Probing = Pin<Box<dyn Future<Output = Result<Status, ProbeFailure>> + Send>>;

/// What the catalog said when it was asked last.
#[derive(Debug, Clone, Default)]
pub(super) struct CatalogSaid {
    /// When it was asked.
    pub(super) asked: BootTime,
    /// `None` where it does not answer.
    pub(super) journal: Option<Journal>,
    /// Where it has not started to serve.
    pub(super) starting: Option<Starting>,
}

/// What a catalog that starts said of what it waits for.
#[derive(Debug, Clone)]
pub(super) struct Starting {
    pub(super) heard: BootTime,
    pub(super) waits: StartWaits,
}

impl CatalogSaid {
    /// When it was asked, where it answered.
    pub(super) fn answered(&self) -> Option<BootTime> {
        self.journal.is_some().then_some(self.asked)
    }
}

/// How far the catalog's journal reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// How many rows it holds.
    pub rows: RowNumber,
    /// How many of them change stocks.
    pub stock_changes: u64,
    /// Chain hash of the last.
    pub chain: ChainHash,
    /// The catalog's last commit failed.
    pub commits_fail: bool,
    /// Who must hold a row before it is acknowledged.
    pub in_sync: Vec<ReplicaId>,
}

impl Replicas {
    /// Of which nothing is known yet.
    pub fn new(
        all: Vec<Replica>,
        catalog: CatalogClient<Channel>,
        own_journal: Arc<OwnJournal>,
        policy: Arc<Versions>,
    ) -> Self {
        let probed = all.iter().map(|replica| Probed::unknown(replica.id));
        let heard = Heard {
            probed: probed.collect(),
            releases: vec![None; all.len()],
            contact: Contact::new(BootTime::now()),
        };
        Self {
            heard: Mutex::new(heard),
            answered: all.iter().map(|_| watch::Sender::default()).collect(),
            any_answered: watch::Sender::default(),
            all,
            catalog,
            own_journal,
            policy,
            leader: watch::Sender::new(CurrentLeader::default()),
            catalog_said: watch::Sender::default(),
            foreign: AtomicBool::new(false),
            protocol: BazaarProtocol::default(),
            changed: Notify::new(),
            suspicion: watch::Sender::new(0),
            changes: AtomicU64::new(0),
            measured: Arc::default(),
        }
    }

    /// All replicas, and what their probes say, in the same order.
    pub fn all(&self) -> (&[Replica], Vec<Probed>) {
        (&self.all, self.probed())
    }

    /// Who leads, now and after every change.
    pub fn leader(&self) -> watch::Receiver<CurrentLeader> {
        self.leader.subscribe()
    }

    /// A replica by its id.
    pub fn get(&self, id: ReplicaId) -> Option<&Replica> {
        self.all.iter().find(|replica| replica.id == id)
    }

    /// How to call the catalog.
    pub fn catalog(&self) -> &CatalogClient<Channel> {
        &self.catalog
    }

    /// The journal that all of this is about.
    pub fn own_journal(&self) -> &OwnJournal {
        &self.own_journal
    }

    /// What the catalog said last.
    pub fn journal(&self) -> Option<Journal> {
        self.catalog_said.borrow().journal.clone()
    }

    /// What the catalog still waits for before it serves, as it said last.
    pub fn start_waits(&self) -> Option<StartWaits> {
        let said = self.catalog_said.borrow();
        let Starting { heard, waits } = said.starting.as_ref()?;
        let waits = waits.clone().after(BootTime::now().since(*heard));
        (!waits.are_over()).then_some(waits)
    }

    /// What each replica said of its release when it answered last, in the order of [`all`](Self::all).
    pub fn releases(&self) -> Vec<Option<Release>> {
        self.with_heard(|heard| heard.releases.clone())
    }

    /// The version of the protocol that the bazaar is at, as the catalog said last.
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol.get()
    }

    /// What the catalog said last, now and after every change.
    pub(super) fn catalog_said(&self) -> watch::Receiver<CatalogSaid> {
        self.catalog_said.subscribe()
    }

    /// A call to the catalog failed as it does when it is gone: ask at once.
    pub fn suspect_catalog(&self) {
        self.changed.notify_one();
    }

    /// Changes whenever a replica answers; `None` for one that is none of these.
    pub(super) fn answered(&self, id: ReplicaId) -> Option<watch::Receiver<()>> {
        let place = self.all.iter().position(|replica| replica.id == id)?;
        Some(self.answered[place].subscribe())
    }

    /// Changes whenever any replica answers.
    pub(super) fn any_answered(&self) -> watch::Receiver<()> {
        self.any_answered.subscribe()
    }

    /// A call failed as it does when a replica is gone or does not lead: look at once.
    pub fn suspect(&self) {
        self.suspicion.send_modify(|count| *count += 1);
        self.changed.notify_one();
    }

    /// How often [`suspect`](Self::suspect) was called.
    #[cfg(test)]
    pub fn suspicions(&self) -> u64 {
        *self.suspicion.borrow()
    }

    pub(super) fn probed(&self) -> Vec<Probed> {
        self.with_probed(<[Probed]>::to_vec)
    }

    /// Looks at what probes say, which all requests that wait do: not for what takes long.
    pub fn with_probed<T>(&self, look: impl FnOnce(&[Probed]) -> T) -> T {
        self.with_heard(|heard| look(&heard.probed))
    }

    fn with_heard<T>(&self, look: impl FnOnce(&mut Heard) -> T) -> T {
        look(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The catalog answered.
    pub(super) fn heard_catalog(&self) {
        self.with_heard(|heard| heard.contact.heard(BootTime::now()));
    }

    /// Probes one replica, for ever.
    pub(super) async fn probe(self: Arc<Self>, place: usize) {
        let mut suspicion = self.suspicion.subscribe();
        let mut detector = Detector::new(BootTime::now());
        let (mut main, mut spare) = (None, None);
        loop {
            let now = BootTime::now();
            let next =
                self.with_heard(|heard| detector.next(now, &heard.probed[place], &heard.contact));
            let wake = match next {
                Watch::Probe(Way::Main) => {
                    main = Some(self.ask(place, Way::Main));
                    continue;
                }
                Watch::Probe(Way::Spare) => {
                    spare = Some(self.ask(place, Way::Spare));
                    continue;
                }
                Watch::Note(unanswered) => {
                    self.note(place, Err(unanswered), now, None);
                    continue;
                }
                Watch::Wait(until) => until,
            };
            let (way, answer) = tokio::select! {
                answer = over(&mut main) => (Way::Main, answer),
                answer = over(&mut spare) => (Way::Spare, answer),
                () = sleep(wake.since(now)) => continue,
                _ = suspicion.changed(), if !detector.is_hurried() => {
                    detector.hurry();
                    continue;
                }
            };
            let now = BootTime::now();
            let changes = self.changes.load(Ordering::Relaxed);
            if let (asked, Some(status)) = detector.over(way, answer, now, changes) {
                self.note(place, status, asked, Some(now.since(asked)));
            }
        }
    }

    fn ask(self: &Arc<Self>, place: usize, way: Way) -> Probing {
        let replicas = Arc::clone(self);
        let mut client = match way {
            Way::Main => self.all[place].orders.clone(),
            Way::Spare => self.all[place].spare.clone(),
        };
        Box::pin(async move {
            match timeout(PROBE_TIME_MAX, client.status(StatusRequest {})).await {
                Ok(Ok(status)) => {
                    let release = Release::of_callee(status.metadata().as_ref());
                    replicas.with_heard(|heard| heard.releases[place] = Some(release));
                    let read = replicas.read_status(status.into_inner());
                    read.map_err(|unanswered| match unanswered {
                        Unanswered::Foreign => ProbeFailure::Foreign,
                        _ => ProbeFailure::Silent,
                    })
                }
                Ok(Err(status)) => Err(probe_failure(&status)),
                Err(_) => Err(ProbeFailure::Silent),
            }
        })
    }

    /// A replica said something, or nothing, when it was asked at `asked`.
    pub(super) fn note(
        &self,
        place: usize,
        status: Result<Status, Unanswered>,
        asked: BootTime,
        round_trip: Option<Duration>,
    ) {
        let now = BootTime::now();
        let changed = self.with_heard(|heard| {
            if !matches!(status, Err(Unanswered::Silent | Unanswered::Unheard)) {
                heard.contact.heard(now);
            }
            heard.probed[place].note(status, asked, round_trip, now)
        });
        if status.is_ok() {
            self.answered[place].send_replace(());
            self.any_answered.send_replace(());
        }
        if changed {
            let id = self.all[place].id;
            match status {
                Ok(status) => {
                    tracing::info!(replica = %id, role = status.role.name(), epoch = %status.epoch, "replica answers")
                }
                Err(unanswered) => {
                    tracing::warn!(replica = %id, %unanswered, "replica does not answer")
                }
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    /// Reads a replica's status. One that makes no sense, or is of another journal's ledger, is as
    /// good as none.
    pub(super) fn read_status(&self, status: order::ReplicaStatus) -> Result<Status, Unanswered> {
        let journal = identity::named(&status.journal).map_err(|_| Unanswered::Silent)?;
        let heard = self.own_journal.note_replica(journal);
        heard.map_err(|_| Unanswered::Foreign)?;
        read_status(status).ok_or(Unanswered::Silent)
    }
}

/// The answer to the probe under way, which is over then.
async fn over(probing: &mut Option<Probing>) -> Result<Status, ProbeFailure> {
    let Some(asked) = probing else {
        return pending().await;
    };
    let answer = asked.await;
    *probing = None;
    answer
}

/// Why a probe was not answered. A process that is gone leaves a machine behind that refuses
/// connections, and resets those that there were.
fn probe_failure(status: &tonic::Status) -> ProbeFailure {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                ErrorKind::ConnectionRefused => ProbeFailure::Refused,
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof => ProbeFailure::Broken,
                _ => ProbeFailure::Silent,
            };
        }
        cause = error.source();
    }
    ProbeFailure::Silent
}

/// `None` where a replica says what makes no sense.
fn read_status(status: order::ReplicaStatus) -> Option<Status> {
    let role = match order::Role::try_from(status.role).ok()? {
        order::Role::Follower => Role::Follower,
        order::Role::Activating => Role::Activating,
        order::Role::Leader => Role::Leader,
        order::Role::Unspecified => return None,
    };
    Some(Status {
        role,
        epoch: Epoch(status.epoch),
        leader: ReplicaId::new(status.leader),
        rows: RowNumber(status.rows),
        stock_changes: status.stock_changes,
        chain: ChainHash::try_from(status.chain_hash.as_slice()).ok()?,
        reaches_catalog: status.reaches_catalog,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rpc::connect::Security;
    use std::net::SocketAddr;

    use rpc::connect;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// How a probe of whatever listens there ends.
    async fn probe(address: SocketAddr) -> ProbeFailure {
        let channel = connect::lazy(&format!("http://{address}"), &Security::NONE).unwrap();
        let mut orders = OrdersClient::new(channel);
        match timeout(PROBE_TIME_MAX, orders.status(StatusRequest {})).await {
            Ok(answer) => probe_failure(&answer.unwrap_err()),
            Err(_) => ProbeFailure::Silent,
        }
    }

    #[tokio::test]
    async fn who_refuses_connections_is_told_from_who_breaks_them_and_who_is_slow() {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let slow = listen().await.unwrap();
        assert_eq!(
            probe(slow.local_addr().unwrap()).await,
            ProbeFailure::Silent
        );

        let dying = listen().await.unwrap();
        let address = dying.local_addr().unwrap();
        let dies = async move {
            let (mut stream, _) = dying.accept().await.unwrap();
            stream.read_u8().await.unwrap(); // resets the connection when it is dropped
        };
        let (probed, ()) = tokio::join!(probe(address), dies);
        assert_eq!(probed, ProbeFailure::Broken);
        assert_eq!(probe(address).await, ProbeFailure::Refused);
    }
}
