//! Watches the order replicas and carries out the policy's elections.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protocol::time::BootTime;
use protocol::wire::catalog::v1::catalog_client::CatalogClient;
use protocol::wire::catalog::v1::{self as catalog, ElectRequest, GetLeadershipRequest};
use protocol::wire::order::v1::orders_client::OrdersClient;
use protocol::wire::order::v1::{self as order, AnnounceRequest, StatusRequest};
use protocol::{ChainHash, Epoch, OrderNumber, ReplicaId};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use tonic::transport::Channel;

use crate::election::{self, History, Leadership, Probed, Role, Status, Step};
use crate::policy::Versions;

/// Pause between two health probes of a replica.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// How long a replica may take to answer a probe. A paused leader is deposed after this: longer
/// would hold trades up, shorter would depose leaders that are merely busy.
const PROBE_TIME_MAX: Duration = Duration::from_millis(180);

/// Longest pause between two looks at who leads.
const ELECTION_INTERVAL: Duration = Duration::from_millis(200);

/// How long the very first election waits for replicas that have not answered yet: services that
/// start together should not be led by whoever was first.
const FIRST_ELECTION_PATIENCE: Duration = Duration::from_millis(500);

/// Shortest pause between two steps, so that a step that does not help is not repeated at once.
const STEP_PAUSE: Duration = Duration::from_millis(5);

/// How long the catalog may take to answer.
const CATALOG_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a replica may take to acknowledge an announcement.
const ANNOUNCE_TIME_MAX: Duration = Duration::from_millis(500);

/// One replica, and how to call it.
#[derive(Clone)]
pub struct Replica {
    /// Which.
    pub id: ReplicaId,
    /// Its URL.
    pub url: String,
    /// How to call it.
    pub orders: OrdersClient<Channel>,
}

/// The replicas of one catalog.
pub struct Replicas {
    all: Vec<Replica>,
    catalog: CatalogClient<Channel>,
    policy: Arc<Versions>,
    probed: Mutex<Vec<Probed>>,
    /// Who leads and whether it takes trades.
    leader: watch::Sender<Led>,
    /// What the catalog said last; `None` where it does not answer.
    journal: Mutex<Option<Journal>>,
    /// Wakes the elector: something changed.
    changed: Notify,
    /// Wakes the probes: somebody has a suspicion.
    suspicion: watch::Sender<u64>,
}

/// Who leads, as trades go by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Led {
    /// According to the catalog.
    pub leadership: Leadership,
    /// The leader says that it takes trades.
    pub active: bool,
}

/// How far the catalog's journal reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// How many rows it holds.
    pub rows: OrderNumber,
    /// Chain hash of the last.
    pub chain: ChainHash,
    /// Who must hold a row before it is acknowledged.
    pub in_sync: Vec<u32>,
}

impl Replicas {
    /// Of which nothing is known yet.
    pub fn new(all: Vec<Replica>, catalog: CatalogClient<Channel>, policy: Arc<Versions>) -> Self {
        let unknown = |replica: &Replica| Probed {
            id: replica.id,
            status: None,
            round_trip: Duration::ZERO,
        };
        Self {
            probed: Mutex::new(all.iter().map(unknown).collect()),
            all,
            catalog,
            policy,
            leader: watch::Sender::new(Led::default()),
            journal: Mutex::new(None),
            changed: Notify::new(),
            suspicion: watch::Sender::new(0),
        }
    }

    /// All replicas, and what their probes say, in the same order.
    pub fn all(&self) -> (&[Replica], Vec<Probed>) {
        (&self.all, self.probed())
    }

    /// Who leads, now and after every change.
    pub fn leader(&self) -> watch::Receiver<Led> {
        self.leader.subscribe()
    }

    /// A replica by its id.
    pub fn get(&self, id: ReplicaId) -> Option<&Replica> {
        self.all.iter().find(|replica| replica.id == id)
    }

    /// What the catalog said last.
    pub fn journal(&self) -> Option<Journal> {
        self.journal
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A call failed as it does when a replica is gone or does not lead: look at once.
    pub fn suspect(&self) {
        self.suspicion.send_modify(|count| *count += 1);
        self.changed.notify_one();
    }

    fn probed(&self) -> Vec<Probed> {
        self.probed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Probes all replicas and elects; never ends.
    pub async fn watch(self: Arc<Self>) {
        let mut probes = tokio::task::JoinSet::new();
        for place in 0..self.all.len() {
            probes.spawn(Arc::clone(&self).probe(place));
        }
        self.elect().await;
    }

    async fn probe(self: Arc<Self>, place: usize) {
        let mut suspicion = self.suspicion.subscribe();
        let mut client = self.all[place].orders.clone();
        loop {
            let asked = Instant::now();
            let answer = timeout(PROBE_TIME_MAX, client.status(StatusRequest {})).await;
            let status = answer.ok().and_then(Result::ok);
            let status = status.and_then(|status| read_status(status.into_inner()));
            self.note(place, status, asked.elapsed());
            // However many have a suspicion, probes do not come without a pause.
            sleep(STEP_PAUSE).await;
            tokio::select! {
                () = sleep(PROBE_INTERVAL) => {}
                _ = suspicion.changed() => {}
            }
        }
    }

    fn note(&self, place: usize, status: Option<Status>, round_trip: Duration) {
        let changed = {
            let mut probed = self.probed.lock().unwrap_or_else(PoisonError::into_inner);
            let probed = &mut probed[place];
            if status.is_some() {
                probed.round_trip = round_trip;
            }
            let before = std::mem::replace(&mut probed.status, status);
            // More orders are no reason to elect.
            before.map(|status| Status {
                orders: OrderNumber(0),
                chain: ChainHash::EMPTY,
                ..status
            }) != status.map(|status| Status {
                orders: OrderNumber(0),
                chain: ChainHash::EMPTY,
                ..status
            })
        };
        if changed {
            let id = self.all[place].id;
            match status {
                Some(status) => {
                    tracing::info!(replica = %id, role = status.role.name(), epoch = %status.epoch, "replica answers")
                }
                None => tracing::warn!(replica = %id, "replica does not answer"),
            }
            self.changed.notify_one();
        }
    }

    async fn elect(&self) {
        let mut history = History::default();
        let mut refused = None;
        let started = Instant::now();
        loop {
            let all_answer = self.probed().iter().all(|probed| probed.status.is_some());
            let patient = !all_answer && started.elapsed() < FIRST_ELECTION_PATIENCE;
            if let Some(leadership) = self.ask_catalog().await
                && !(patient && leadership.leader.is_none())
            {
                refused = self.step(leadership, refused, &mut history).await;
            }
            sleep(STEP_PAUSE).await;
            let _ = timeout(ELECTION_INTERVAL, self.changed.notified()).await;
        }
    }

    /// Who leads, according to the catalog; notes how far its journal reaches.
    pub async fn ask_catalog(&self) -> Option<Leadership> {
        let mut catalog = self.catalog.clone();
        let asked = timeout(
            CATALOG_TIME_MAX,
            catalog.get_leadership(GetLeadershipRequest {}),
        )
        .await;
        let answer = match asked {
            Ok(Ok(answer)) => Some(answer.into_inner()),
            Ok(Err(status)) => {
                tracing::debug!(%status, "the catalog does not say who leads");
                None
            }
            Err(_) => None,
        };
        let leadership = answer.as_ref().map(read_leadership);
        *self.journal.lock().unwrap_or_else(PoisonError::into_inner) =
            answer.as_ref().and_then(read_journal);
        leadership
    }

    /// One step towards a leader that leads. `refused` is the epoch in which its leader
    /// refused to lead, which takes an election of another term.
    async fn step(
        &self,
        leadership: Leadership,
        refused: Option<Epoch>,
        history: &mut History,
    ) -> Option<Epoch> {
        let probed = self.probed();
        self.publish(leadership, &probed);
        history.observed(leadership.epoch, BootTime::now());
        let seen = history.seen(&probed, BootTime::now());
        let view = election::view(leadership, &seen);
        let wanted = self.policy.elect(unix_ms(), &view).ok().flatten();
        let same = wanted.is_none_or(|wanted| leadership.leader == Some(wanted));
        let again =
            same && refused == Some(leadership.epoch) && !election::leads(leadership, &probed);
        let step = match leadership.leader {
            Some(leader) if again => Step::Elect(leader),
            _ => election::next_step(leadership, &seen, wanted),
        };
        match step {
            Step::Elect(_) if !history.may_elect(BootTime::now(), fastrand::f64()) => refused,
            Step::Nothing => refused,
            Step::Announce(uninformed) => self.announce(leadership, &uninformed).await.or(refused),
            Step::Elect(candidate) => {
                let elected = self.elect_at_catalog(leadership.epoch, candidate).await?;
                history.elected(candidate, BootTime::now());
                self.publish(elected, &probed);
                let everyone: Vec<_> = self.all.iter().map(|replica| replica.id).collect();
                self.announce(elected, &everyone).await
            }
        }
    }

    async fn elect_at_catalog(&self, expected: Epoch, candidate: ReplicaId) -> Option<Leadership> {
        let mut catalog = self.catalog.clone();
        let request = ElectRequest {
            expected_epoch: expected.0,
            candidate: candidate.get(),
        };
        match timeout(CATALOG_TIME_MAX, catalog.elect(request)).await {
            Ok(Ok(elected)) => {
                let elected = read_leadership(&elected.into_inner());
                tracing::info!(epoch = %elected.epoch, leader = ?elected.leader.map(ReplicaId::get), wanted = %candidate, "elected");
                Some(elected)
            }
            Ok(Err(status)) => {
                tracing::warn!(%status, "election failed");
                None
            }
            Err(_) => {
                tracing::warn!("election not answered in time");
                None
            }
        }
    }

    /// Tells replicas who leads. The epoch, where its own leader refused to lead it.
    async fn announce(&self, leadership: Leadership, replicas: &[ReplicaId]) -> Option<Epoch> {
        let leader = leadership.leader?;
        let request = AnnounceRequest {
            epoch: leadership.epoch.0,
            leader: leader.get(),
        };
        let mut announcements = tokio::task::JoinSet::new();
        for (place, replica) in self.all.iter().enumerate() {
            if replicas.contains(&replica.id) {
                let mut client = replica.orders.clone();
                announcements.spawn(async move {
                    (
                        place,
                        timeout(ANNOUNCE_TIME_MAX, client.announce(request)).await,
                    )
                });
            }
        }
        let mut refused = None;
        while let Some(announced) = announcements.join_next().await {
            let Ok((place, Ok(answer))) = announced else {
                continue;
            };
            let id = self.all[place].id;
            match answer {
                Ok(status) => {
                    let status = read_status(status.into_inner());
                    if status.is_some() {
                        self.note(place, status, self.probed()[place].round_trip);
                    }
                }
                Err(status) if id == leader && is_refusal(&status) => {
                    tracing::info!(replica = %id, epoch = %leadership.epoch, %status, "will not lead this epoch");
                    refused = Some(leadership.epoch);
                    self.changed.notify_one();
                }
                Err(status) => tracing::debug!(replica = %id, %status, "announcement failed"),
            }
        }
        self.publish(leadership, &self.probed());
        refused
    }

    fn publish(&self, leadership: Leadership, probed: &[Probed]) {
        let led = Led {
            leadership,
            active: election::leads(leadership, probed),
        };
        self.leader.send_if_modified(|before| {
            // An answer that was overtaken by an election is old.
            let newer = leadership.epoch >= before.leadership.epoch && *before != led;
            if newer {
                *before = led;
            }
            newer
        });
    }
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Whether a replica said no, rather than nothing.
fn is_refusal(status: &tonic::Status) -> bool {
    !matches!(
        status.code(),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown
    )
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
        orders: OrderNumber(status.orders),
        chain: ChainHash::try_from(status.chain_hash.as_slice()).ok()?,
        reaches_catalog: status.reaches_catalog,
    })
}

fn read_leadership(leadership: &catalog::Leadership) -> Leadership {
    Leadership {
        epoch: Epoch(leadership.epoch),
        leader: ReplicaId::new(leadership.leader),
    }
}

fn read_journal(leadership: &catalog::Leadership) -> Option<Journal> {
    Some(Journal {
        rows: OrderNumber(leadership.journal_rows),
        chain: ChainHash::try_from(leadership.chain_hash.as_slice()).ok()?,
        in_sync: leadership.in_sync.clone(),
    })
}
