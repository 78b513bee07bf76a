//! Watches the order replicas and carries out the policy's elections.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use daemon::tasks;
use domain::time::BootTime;
use domain::{ChainHash, Epoch, OrderNumber, ReplicaId};
use frontend_core::backoff::{Backoff, CATALOG_PAUSE_MAX};
use frontend_core::election::{Elector, Leadership, Led, Probed, Role, Status, Step, Unanswered};
use rpc::retry::RetryClass;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::catalog::v1::{self as catalog, ElectRequest, GetLeadershipRequest};
use wire::identity;
use wire::identity::OTHER_JOURNAL;
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::{self as order, AnnounceRequest, StatusRequest};

use crate::journal::OwnJournal;
use crate::placing::Placing;
use frontend_policy::Versions;

/// Pause between two health probes of a replica.
const PROBE_INTERVAL: Duration = Duration::from_millis(50);

/// Longest pause between two probes that suspicions hasten: while they find nothing new, pauses
/// double up to it.
const HASTENED_PAUSE_MAX: Duration = Duration::from_millis(20);

/// How long a replica may take to answer a probe. A paused leader is deposed after this: longer
/// would hold trades up, shorter would depose leaders that are merely busy.
const PROBE_TIME_MAX: Duration = Duration::from_millis(180);

/// Longest pause between two looks at who leads.
const ELECTION_INTERVAL: Duration = Duration::from_millis(200);

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
    /// How to place orders with it.
    pub placing: Placing,
}

/// The replicas of one catalog.
pub struct Replicas {
    all: Vec<Replica>,
    catalog: CatalogClient<Channel>,
    own_journal: Arc<OwnJournal>,
    policy: Arc<Versions>,
    probed: Mutex<Vec<Probed>>,
    /// Of each replica: when the last probe was sent that it answered.
    answered: Vec<watch::Sender<BootTime>>,
    /// Of all replicas together.
    any_answered: watch::Sender<BootTime>,
    /// Who leads and whether it takes trades.
    leader: watch::Sender<Led>,
    /// What the catalog said last.
    catalog_said: watch::Sender<CatalogSaid>,
    /// The catalog was last found to be another bazaar's.
    foreign: AtomicBool,
    /// Wakes the elector: something changed.
    changed: Notify,
    /// Wakes the probes: somebody has a suspicion.
    suspicion: watch::Sender<u64>,
    /// How often something has changed.
    changes: AtomicU64,
}

/// What the catalog said when it was asked last.
#[derive(Debug, Clone, Default)]
struct CatalogSaid {
    /// When it was asked.
    asked: BootTime,
    /// `None` where it does not answer.
    journal: Option<Journal>,
}

/// How far the catalog's journal reaches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// How many rows it holds.
    pub rows: OrderNumber,
    /// Chain hash of the last.
    pub chain: ChainHash,
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
        Self {
            probed: Mutex::new(probed.collect()),
            answered: all.iter().map(|_| watch::Sender::default()).collect(),
            any_answered: watch::Sender::default(),
            all,
            catalog,
            own_journal,
            policy,
            leader: watch::Sender::new(Led::default()),
            catalog_said: watch::Sender::default(),
            foreign: AtomicBool::new(false),
            changed: Notify::new(),
            suspicion: watch::Sender::new(0),
            changes: AtomicU64::new(0),
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

    /// The journal that all of this is about.
    pub fn own_journal(&self) -> &OwnJournal {
        &self.own_journal
    }

    /// What the catalog said last.
    pub fn journal(&self) -> Option<Journal> {
        self.catalog_said.borrow().journal.clone()
    }

    /// Waits until the catalog answers; where a call failed, until it has answered a question
    /// that was asked after that.
    pub async fn catalog_answers(&self, failed: Option<BootTime>) {
        let answers = |said: &CatalogSaid| {
            said.journal.is_some() && failed.is_none_or(|failed| said.asked > failed)
        };
        let mut said = self.catalog_said.subscribe();
        said.wait_for(answers).await.expect("its sender is here");
    }

    /// A call to the catalog failed as it does when it is gone: ask at once.
    pub fn suspect_catalog(&self) {
        self.changed.notify_one();
    }

    /// Waits until a replica may take orders; where it failed to, until it has answered a probe
    /// that was sent after that.
    pub async fn may_take_orders(&self, id: ReplicaId, failed: Option<BootTime>) {
        let Some(place) = self.all.iter().position(|replica| replica.id == id) else {
            return;
        };
        let mut answered = self.answered[place].subscribe();
        loop {
            answered.borrow_and_update();
            let probed = self.probed().swap_remove(place);
            let may = match probed.status {
                Ok(status) => status.reaches_catalog,
                // It may be busy.
                Err(Unanswered::Silent) => failed.is_none(),
                Err(Unanswered::Gone | Unanswered::Foreign) => false,
            };
            if may && failed.is_none_or(|failed| probed.asked > failed) {
                return;
            }
            answered.changed().await.expect("its sender is here");
        }
    }

    /// Waits until a replica has answered a probe that was sent after `failed`.
    pub async fn any_answers(&self, failed: BootTime) {
        let mut answered = self.any_answered.subscribe();
        let answers = answered.wait_for(|asked| *asked > failed);
        answers.await.expect("its sender is here");
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

    fn probed(&self) -> Vec<Probed> {
        self.probed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Probes all replicas and elects; never ends.
    pub async fn watch(self: Arc<Self>) {
        let probe = |place| tasks::spawn("probe", Arc::clone(&self).probe(place));
        let _probes: Vec<_> = (0..self.all.len()).map(probe).collect();
        self.elect().await;
    }

    async fn probe(self: Arc<Self>, place: usize) {
        let mut suspicion = self.suspicion.subscribe();
        let mut client = self.all[place].orders.clone();
        let mut hastened = STEP_PAUSE;
        let mut changes = 0;
        loop {
            let asked = BootTime::now();
            let answer = timeout(PROBE_TIME_MAX, client.status(StatusRequest {})).await;
            let status = match answer {
                Ok(Ok(status)) => self.read_status(status.into_inner()),
                Ok(Err(status)) => Err(unanswered(&status)),
                Err(_) => Err(Unanswered::Silent),
            };
            self.note(place, status, asked, Some(BootTime::now().since(asked)));
            let changes_before = mem::replace(&mut changes, self.changes.load(Ordering::Relaxed));
            if changes_before != changes {
                hastened = STEP_PAUSE;
            }
            // However many have a suspicion, probes do not come without a pause.
            sleep(hastened).await;
            hastened = tokio::select! {
                () = sleep(PROBE_INTERVAL - hastened) => STEP_PAUSE,
                _ = suspicion.changed() => (hastened * 2).min(HASTENED_PAUSE_MAX),
            };
        }
    }

    /// A replica said something, or nothing, when it was asked at `asked`.
    fn note(
        &self,
        place: usize,
        status: Result<Status, Unanswered>,
        asked: BootTime,
        round_trip: Option<Duration>,
    ) {
        let changed = {
            let mut probed = self.probed.lock().unwrap_or_else(PoisonError::into_inner);
            let probed = &mut probed[place];
            if status.is_ok() {
                probed.round_trip = round_trip.unwrap_or(probed.round_trip);
            }
            probed.asked = probed.asked.max(asked);
            let before = mem::replace(&mut probed.status, status);
            before.map(without_orders) != status.map(without_orders)
        };
        if status.is_ok() {
            for answered in [&self.answered[place], &self.any_answered] {
                answered.send_if_modified(|last| {
                    let is_later = asked > *last;
                    *last = asked.max(*last);
                    is_later
                });
            }
        }
        if changed {
            let id = self.all[place].id;
            match status {
                Ok(status) => {
                    tracing::info!(replica = %id, role = status.role.name(), epoch = %status.epoch, "replica answers")
                }
                Err(unanswered) => {
                    tracing::warn!(replica = %id, ?unanswered, "replica does not answer")
                }
            }
            self.changes.fetch_add(1, Ordering::Relaxed);
            self.changed.notify_one();
        }
    }

    async fn elect(&self) {
        let mut elector = Elector::new(BootTime::now());
        let mut pause = Backoff::new(STEP_PAUSE, CATALOG_PAUSE_MAX);
        loop {
            let leadership = match self.ask_catalog().await {
                Ok(leadership) => leadership,
                Err(RetryClass::Later) => {
                    sleep(pause.pause(fastrand::f64())).await;
                    continue;
                }
                // It may be another one by then.
                Err(RetryClass::Elsewhere | RetryClass::Never) => {
                    sleep(ELECTION_INTERVAL).await;
                    continue;
                }
            };
            pause.reset();
            self.step(leadership, &mut elector).await;
            sleep(STEP_PAUSE).await;
            let _ = timeout(ELECTION_INTERVAL, self.changed.notified()).await;
        }
    }

    /// Who leads, according to the catalog; notes how far its journal reaches.
    ///
    /// # Errors
    /// Where it does not answer, or is another bazaar's.
    pub async fn ask_catalog(&self) -> Result<Leadership, RetryClass> {
        let mut catalog = self.catalog.clone();
        let asked = BootTime::now();
        let answer = timeout(
            CATALOG_TIME_MAX,
            catalog.get_leadership(GetLeadershipRequest {
                journal: self.own_journal.to_wire(),
            }),
        )
        .await;
        let answer = match answer {
            Ok(Ok(answer)) => Some(answer.into_inner())
                .filter(|answer| self.is_ours(answer))
                .ok_or(RetryClass::Elsewhere),
            Ok(Err(status)) => {
                if status.code() == OTHER_JOURNAL {
                    self.note_foreign(status.message());
                }
                tracing::debug!(%status, "the catalog does not say who leads");
                Err(RetryClass::of(&status))
            }
            Err(_) => Err(RetryClass::Later),
        };
        let leadership = answer.as_ref().map(read_leadership);
        let journal = answer.as_ref().ok().and_then(read_journal);
        self.catalog_said.send_if_modified(|said| {
            // Nobody waits to hear that it still does not answer.
            let is_news = journal.is_some() || said.journal.is_some();
            *said = CatalogSaid { asked, journal };
            is_news
        });
        leadership.map_err(|class| *class)
    }

    /// Whether a catalog's answer is about this gateway's journal, which a new gateway takes from it.
    fn is_ours(&self, leadership: &catalog::Leadership) -> bool {
        let heard = match identity::named(&leadership.journal) {
            Ok(journal) => self
                .own_journal
                .heard_from_catalog(journal)
                .map_err(|other| other.to_string()),
            Err(unnamed) => Err(unnamed.to_string()),
        };
        match heard {
            Ok(()) => {
                self.foreign.store(false, Ordering::Relaxed);
                true
            }
            Err(why) => {
                self.note_foreign(&why);
                false
            }
        }
    }

    /// Says once that another bazaar's catalog is there.
    fn note_foreign(&self, why: &str) {
        if !self.foreign.swap(true, Ordering::Relaxed) {
            tracing::error!(
                why,
                "the catalog is another bazaar's: nothing of it is served"
            );
        }
    }

    /// Reads a replica's status. One that makes no sense, or is of another journal's ledger, is as
    /// good as none.
    fn read_status(&self, status: order::ReplicaStatus) -> Result<Status, Unanswered> {
        let journal = identity::named(&status.journal).map_err(|_| Unanswered::Silent)?;
        let heard = self.own_journal.heard_from_replica(journal);
        heard.map_err(|_| Unanswered::Foreign)?;
        read_status(status).ok_or(Unanswered::Silent)
    }

    /// One step towards a leader that leads.
    async fn step(&self, leadership: Leadership, elector: &mut Elector) {
        let probed = self.probed();
        self.publish(leadership, &probed);
        let in_sync = self.journal().map(|journal| journal.in_sync);
        let in_sync = in_sync.unwrap_or_default();
        let Some(look) = elector.look(leadership, in_sync, probed, BootTime::now()) else {
            return;
        };
        let wanted = self.policy.elect(unix_ms(), &look.view()).ok().flatten();
        let (told, replicas) = match elector.step(&look, wanted, BootTime::now(), fastrand::f64()) {
            Step::Nothing => return,
            Step::Announce(uninformed) => (leadership, uninformed),
            Step::Elect(candidate) => {
                let elected = self.elect_at_catalog(leadership.epoch, candidate).await;
                let Some(elected) = elected else { return };
                elector.elected(candidate, elected, BootTime::now());
                self.publish(elected, &self.probed());
                (elected, self.all.iter().map(|replica| replica.id).collect())
            }
        };
        if self.announce(told, &replicas).await == Announced::Refused {
            elector.refused(told.epoch);
        }
    }

    async fn elect_at_catalog(&self, expected: Epoch, candidate: ReplicaId) -> Option<Leadership> {
        let mut catalog = self.catalog.clone();
        let request = ElectRequest {
            expected_epoch: expected.0,
            candidate: candidate.get(),
            journal: self.own_journal.to_wire(),
        };
        match timeout(CATALOG_TIME_MAX, catalog.elect(request)).await {
            Ok(Ok(elected)) => {
                let elected = read_leadership(&elected.into_inner());
                tracing::info!(epoch = %elected.epoch, leader = elected.leader.map(tracing::field::display), wanted = %candidate, "elected");
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

    /// Tells replicas who leads.
    async fn announce(&self, leadership: Leadership, replicas: &[ReplicaId]) -> Announced {
        let Some(leader) = leadership.leader else {
            return Announced::Told;
        };
        let asked = BootTime::now();
        let request = AnnounceRequest {
            epoch: leadership.epoch.0,
            leader: leader.get(),
            journal: self.own_journal.to_wire(),
        };
        let mut announcements = tokio::task::JoinSet::new();
        for (place, replica) in self.all.iter().enumerate() {
            if replicas.contains(&replica.id) {
                let mut client = replica.orders.clone();
                let request = request.clone();
                #[expect(clippy::disallowed_methods, reason = "joined below")]
                announcements.spawn(async move {
                    (
                        place,
                        timeout(ANNOUNCE_TIME_MAX, client.announce(request)).await,
                    )
                });
            }
        }
        let mut outcome = Announced::Told;
        while let Some(announced) = announcements.join_next().await {
            let Ok((place, Ok(answer))) = announced else {
                continue;
            };
            let id = self.all[place].id;
            match answer {
                Ok(status) => {
                    if let Ok(status) = self.read_status(status.into_inner()) {
                        self.note(place, Ok(status), asked, None);
                    }
                }
                // It said no, rather than nothing or that it cannot answer now.
                Err(status) if id == leader && RetryClass::of(&status) != RetryClass::Later => {
                    tracing::info!(replica = %id, epoch = %leadership.epoch, %status, "will not lead this epoch");
                    outcome = Announced::Refused;
                    self.changed.notify_one();
                }
                Err(status) => tracing::debug!(replica = %id, %status, "announcement failed"),
            }
        }
        self.publish(leadership, &self.probed());
        outcome
    }

    fn publish(&self, leadership: Leadership, probed: &[Probed]) {
        let led = Led::by(leadership, probed);
        self.leader.send_if_modified(|before| {
            let is_news = led.is_news_after(before);
            if is_news {
                *before = led;
                self.changes.fetch_add(1, Ordering::Relaxed);
            }
            is_news
        });
    }
}

/// What became of an announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Announced {
    /// Whoever could be told was told.
    Told,
    /// The leader said that it will not lead.
    Refused,
}

/// More orders are no reason to elect.
fn without_orders(status: Status) -> Status {
    Status {
        orders: OrderNumber(0),
        chain: ChainHash::EMPTY,
        ..status
    }
}

/// Why a call was not answered. A process that is gone leaves a machine behind that refuses
/// connections, and resets those that there were.
fn unanswered(status: &tonic::Status) -> Unanswered {
    let mut cause = status.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return match error.kind() {
                ErrorKind::ConnectionRefused
                | ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof => Unanswered::Gone,
                _ => Unanswered::Silent,
            };
        }
        cause = error.source();
    }
    Unanswered::Silent
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
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
    let in_sync = leadership.in_sync.iter().copied();
    let in_sync = in_sync.filter_map(ReplicaId::new);
    Some(Journal {
        rows: OrderNumber(leadership.journal_rows),
        chain: ChainHash::try_from(leadership.chain_hash.as_slice()).ok()?,
        in_sync: in_sync.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use rpc::connect;
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    /// How a probe of whatever listens there ends.
    async fn probe(address: SocketAddr) -> Unanswered {
        let channel = connect::lazy(&format!("http://{address}")).unwrap();
        let mut orders = OrdersClient::new(channel);
        match timeout(PROBE_TIME_MAX, orders.status(StatusRequest {})).await {
            Ok(answer) => unanswered(&answer.unwrap_err()),
            Err(_) => Unanswered::Silent,
        }
    }

    #[tokio::test]
    async fn who_refuses_connections_or_breaks_them_is_gone_and_who_is_slow_is_not() {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let slow = listen().await.unwrap();
        assert_eq!(probe(slow.local_addr().unwrap()).await, Unanswered::Silent);

        let dying = listen().await.unwrap();
        let address = dying.local_addr().unwrap();
        let dies = async move {
            let (mut stream, _) = dying.accept().await.unwrap();
            stream.read_u8().await.unwrap(); // resets the connection when it is dropped
        };
        let (probed, ()) = tokio::join!(probe(address), dies);
        assert_eq!(probed, Unanswered::Gone);
        assert_eq!(probe(address).await, Unanswered::Gone);
    }
}
