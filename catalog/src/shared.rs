//! What the writer, the readers and the sessions share: what is visible, the sessions' streams and
//! the replies that wait for a value to be shown. One lock, held for short sections only.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use domain::time::BootTime;
use domain::{LedgerWait, Protocol, ReplicaId, SessionId, StartWaits, StockName, Version};
use rpc::clients::Client;
use rpc::release::BazaarProtocol;
use tls::Principal;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use traces::{Kind, Parent};

use crate::error::RequestError;
use crate::measured::{Answered, Measured, SessionEvent};
use catalog_core::standing::{Owing, Standing};
use catalog_core::{
    Batch, HotStocks, Invalidation, Leadership, Renewal, Round, Rule, Rules, SaidCallers, Seen,
    SessionExpired, Stock, TradeResult, Visibility,
};

/// Most replies that wait for caches to let go.
const WAITING_MAX: usize = 4096;

/// Most events of a session that are yet to be sent. A stream that is further behind is cut.
pub const EVENTS_MAX: usize = 256;

/// Least pause between two looks at whether all is released.
const RECALL_PAUSE: Duration = Duration::from_millis(5);

/// Those who have one name in their certificates may keep trades waiting so many times as long in a row, all together, as each
/// of their clients: in the long run they may no longer than one.
const PRINCIPAL_LEASES: u32 = 4;

/// What a session is told.
#[derive(Debug)]
pub enum Event {
    /// It has begun, with its first lease.
    Opened(SessionId),
    /// Its lease is renewed; the request's nonce.
    Renewed(u64),
    /// Let go of stocks.
    Invalidation(Invalidation),
    /// Let go of everything and release it: the catalog stops.
    Closing,
    Over(RequestError),
}

/// Where a session's events go.
pub type Events = mpsc::Sender<Event>;

/// Whose sessions are, and how long they keep trades waiting: see [`catalog_core::standing`].
#[derive(Debug)]
struct Holders {
    lease_max: Duration,
    sessions: HashMap<SessionId, (Client, Owing)>,
    /// Those that were told of the batch that is on its way to the disk.
    told: Vec<SessionId>,
    /// Of those to whom something is charged.
    standings: HashMap<Client, Standing>,
    /// The same by who they have proven to be, over all networks: honest gateways may share a name, so waits for several of them
    /// at once are one wait.
    of_principals: HashMap<Principal, Standing>,
}

impl Holders {
    fn new(lease_max: Duration) -> Self {
        Self {
            lease_max,
            sessions: HashMap::new(),
            told: Vec::new(),
            standings: HashMap::new(),
            of_principals: HashMap::new(),
        }
    }

    fn open(&mut self, id: SessionId, client: Client) {
        self.sessions
            .insert(id, (client, Owing::new(self.lease_max)));
    }

    fn may_hold(&self, id: SessionId, now: BootTime) -> bool {
        let Some((client, _)) = self.sessions.get(&id) else {
            return true;
        };
        let of_principal = client.principal();
        let of_principal = of_principal.and_then(|principal| self.of_principals.get(principal));
        let mut standings = self.standings.get(client).into_iter().chain(of_principal);
        standings.all(|standing| standing.may_hold(now))
    }

    fn tell(&mut self, id: SessionId, round: Round) {
        if let Some((_, owing)) = self.sessions.get_mut(&id) {
            owing.tell(round);
            self.told.push(id);
        }
    }

    /// What was told is durable, or never will be.
    fn settle(&mut self, durable_at: Option<BootTime>) {
        for id in self.told.drain(..) {
            let Some((_, owing)) = self.sessions.get_mut(&id) else {
                continue;
            };
            match durable_at {
                Some(now) => owing.begin(now),
                None => owing.abandon(),
            }
        }
    }

    fn acknowledge(&mut self, id: SessionId, round: Round, now: BootTime) {
        if let Some((client, owing)) = self.sessions.get_mut(&id) {
            let (waited, client) = (owing.end(round, now), client.clone());
            self.charge(client, waited, now);
        }
    }

    fn end(&mut self, id: SessionId, now: BootTime) {
        if let Some((client, owing)) = self.sessions.remove(&id) {
            self.charge(client, owing.end_all(now), now);
        }
    }

    fn charge(&mut self, client: Client, waited: Duration, now: BootTime) {
        if waited.is_zero() {
            return;
        }
        let principal = client.principal().cloned();
        let first = Standing::new(self.lease_max);
        let of_client = charge(&mut self.standings, client.clone(), first, (waited, now));
        if of_client == Charged::Over {
            tracing::warn!(
                %client,
                ?waited,
                "a gateway keeps trades waiting for longer than it may: it is lent nothing for a while"
            );
        }
        let Some(principal) = principal else {
            return;
        };
        let name = principal.to_string();
        let waited = match self.of_principals.get(&principal) {
            Some(standing) => standing.uncharged(waited, now),
            None => waited,
        };
        let first = Standing::new(self.lease_max * PRINCIPAL_LEASES);
        let of_principal = charge(&mut self.of_principals, principal, first, (waited, now));
        // Where it comes from one network alone, that was said before.
        if of_principal == Charged::Over && of_client == Charged::Within {
            tracing::warn!(
                %name,
                ?waited,
                "gateways of one name keep trades waiting for longer than they may: they are lent nothing for a while"
            );
        }
    }
}

/// What a charge leaves of an allowance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Charged {
    Within,
    /// It is spent by that.
    Over,
    /// It was spent before.
    Again,
}

/// Charges one of those to whom something is charged, or for the `first` time.
fn charge<K: Eq + Hash>(
    standings: &mut HashMap<K, Standing>,
    whose: K,
    first: Standing,
    (waited, now): (Duration, BootTime),
) -> Charged {
    let before = standings.get(&whose).copied().unwrap_or(first);
    let mut standing = before;
    standing.charge(waited, now);
    if !standing.is_settled(now) {
        standings.retain(|_, standing| !standing.is_settled(now));
        standings.insert(whose, standing);
    }
    match (before.may_hold(now), standing.may_hold(now)) {
        (_, true) => Charged::Within,
        (true, false) => Charged::Over,
        (false, false) => Charged::Again,
    }
}

/// The answer to a trade.
pub type TradeReply = oneshot::Sender<Result<Vec<TradeResult>, RequestError>>;

/// A trade's answer that is durable, and goes out once every stock that it tells something
/// about is shown as new as the answer knows it.
#[derive(Debug)]
pub struct Answer {
    /// What the sender is told.
    pub results: Result<Vec<TradeResult>, RequestError>,
    /// What is to be shown before.
    pub awaits: BTreeMap<StockName, Version>,
    /// The calls' spans of the orders that are traced.
    pub traced: Vec<Parent>,
    pub reply: TradeReply,
}

impl Answer {
    fn send(self) {
        let _ = self.reply.send(self.results); // the caller may have left
    }
}

#[derive(Debug)]
pub struct Shared {
    state: Mutex<State>,
    opened: Notify,
    released: Notify,
    healed: watch::Sender<bool>,
    standby_callers: watch::Sender<Option<SaidCallers>>,
    protocol: BazaarProtocol,
    /// What was done so far.
    pub measured: Arc<Measured>,
}

#[derive(Debug)]
struct State {
    measured: Arc<Measured>,
    visibility: Visibility,
    leadership: Leadership,
    /// Who may have rows that the store lacked at the start: in sync as far as it knew, or not heard.
    may_have_more: BTreeSet<ReplicaId>,
    /// Whose rows are given up.
    given_up: BTreeSet<ReplicaId>,
    /// The store lacked something at the start.
    had_lost: bool,
    /// Whose ledgers are waited for before it is healed, and until when; without a time for as long as it takes.
    unheard: (BTreeSet<ReplicaId>, Option<BootTime>),
    /// The last commit failed.
    commits_fail: bool,
    streams: HashMap<SessionId, Events>,
    holders: Holders,
    hot_stocks: HotStocks,
    /// Each since when.
    waiting: Vec<(Instant, Answer)>,
    /// See [`Shared::answer_until`]; `None` where no other catalog can write.
    answers_until: Option<BootTime>,
    /// As gateways count it.
    lease: Duration,
    closed: bool,
    rules: Rules,
}

impl Shared {
    /// A shared without sessions, which will have that lease, as gateways count it.
    pub fn new(
        visibility: Visibility,
        leadership: Leadership,
        lease: Duration,
        protocol: BazaarProtocol,
    ) -> Self {
        let visibility_lease = visibility.lease_max();
        let measured = Arc::<Measured>::default();
        let state = State {
            measured: Arc::clone(&measured),
            visibility,
            may_have_more: leadership.term.in_sync.clone(),
            given_up: BTreeSet::new(),
            had_lost: false,
            unheard: Default::default(),
            commits_fail: false,
            holders: Holders::new(visibility_lease),
            hot_stocks: HotStocks::default(),
            leadership,
            streams: HashMap::new(),
            waiting: Vec::new(),
            answers_until: None,
            lease,
            closed: false,
            rules: Rules::default(),
        };
        Self {
            state: Mutex::new(state),
            opened: Notify::new(),
            released: Notify::new(),
            healed: watch::Sender::new(false),
            standby_callers: watch::Sender::new(None),
            protocol,
            measured,
        }
    }

    /// The same under rules of which one may be missing, for tests.
    pub fn under(self, rules: Rules) -> Self {
        self.lock().rules = rules;
        self
    }

    /// The version of the protocol that the bazaar is at.
    pub fn protocol(&self) -> Protocol {
        self.protocol.get().unwrap_or(Protocol::FIRST)
    }

    /// It is noted durably that the bazaar is at that one.
    pub fn set_protocol(&self, protocol: Protocol) {
        self.protocol.set(protocol);
    }

    /// What the store had lost is in it again, but for what those may have that were not heard: see
    /// [`healing`](crate::writer::healing).
    pub fn set_healed(
        &self,
        unheard: BTreeSet<ReplicaId>,
        given_up: BTreeSet<ReplicaId>,
        has_changed: bool,
    ) {
        let mut state = self.lock();
        state.had_lost = has_changed;
        state.may_have_more.extend(unheard);
        state.given_up = given_up;
        drop(state);
        self.healed.send_replace(true);
    }

    /// These ledgers are waited for until then at most, or for as long as it takes.
    pub fn set_unheard(&self, replicas: BTreeSet<ReplicaId>, until: Option<BootTime>) {
        self.lock().unheard = (replicas, until);
    }

    /// What is still waited for before anything is served.
    pub fn start_waits(&self, now: BootTime) -> StartWaits {
        let is_healed = self.is_healed();
        let state = self.lock();
        let ledgers = || LedgerWait {
            unheard: state.unheard.0.clone(),
            at_most: state.unheard.1.map(|until| until.since(now)),
        };
        StartWaits {
            leases: state.visibility.serving_from().since(now),
            ledgers: (!is_healed).then(ledgers),
        }
    }

    /// Whether the last commit failed.
    pub fn set_commits_fail(&self, fail: bool) {
        self.lock().commits_fail = fail;
    }

    /// The same.
    pub fn commits_fail(&self) -> bool {
        self.lock().commits_fail
    }

    /// Whether the store lacked something at the start, so that what goes with it may be as old.
    pub fn had_lost(&self) -> bool {
        self.lock().had_lost
    }

    pub fn is_healed(&self) -> bool {
        *self.healed.borrow()
    }

    /// Ready once that is so.
    pub async fn healed(&self) {
        let mut healed = self.healed.subscribe();
        let _ = healed.wait_for(|&healed| healed).await; // its sender is here
    }

    /// That was read of catalogs that stand by.
    pub fn set_standby_callers(&self, said: SaidCallers) {
        self.standby_callers.send_replace(Some(said));
    }

    /// The same, each time that it is read.
    pub fn standby_callers(&self) -> watch::Receiver<Option<SaidCallers>> {
        self.standby_callers.subscribe()
    }

    /// From when on stocks may be read and traded.
    pub fn serving_from(&self) -> BootTime {
        self.lock().visibility.serving_from()
    }

    /// See [`Visibility::serve_from`].
    pub fn serve_from(&self, at: BootTime) {
        self.lock().visibility.serve_from(at);
    }

    /// Whether a replica may have an acknowledged order that is not here: it is in sync, or was as far as the store knew
    /// at the start, or was not heard then. What was given up is not believed until the next start.
    pub fn may_have_more(&self, replica: ReplicaId) -> bool {
        let state = self.lock();
        let now = &state.leadership.term.in_sync;
        let may = now.contains(&replica) || state.may_have_more.contains(&replica);
        may && !state.given_up.contains(&replica)
    }

    /// Until then no other catalog can have taken the store over, and what is here is what is committed; it is said
    /// anew with each commit.
    pub fn answer_until(&self, until: BootTime) {
        self.lock().answers_until = Some(until);
    }

    /// Whether an answer that was read before `now` is the truth. To be asked after it was read, with a clock read
    /// after that.
    ///
    /// # Errors
    /// Where another catalog may have taken the store over.
    pub fn check_answer(&self, now: BootTime) -> Result<(), RequestError> {
        match self.lock().may_answer(now) {
            true => Ok(()),
            false => Err(RequestError::Uncertain),
        }
    }

    /// See [`Visibility::read`]. What is [withheld](HotStocks) is read as without a session.
    pub fn read(
        &self,
        name: &StockName,
        session: Option<SessionId>,
        now: BootTime,
    ) -> Option<Seen> {
        let mut state = self.lock();
        let session = session.filter(|id| state.holders.may_hold(*id, now));
        let is_withheld = session.is_some_and(|id| state.withholds(name, id, now));
        let session = session.filter(|_| !is_withheld);
        let seen = state.visibility.read(name, session, now)?;
        drop(state);
        self.measured.answered(match seen.cacheable {
            true => Answered::Lent,
            false if is_withheld => Answered::Withheld,
            false => Answered::NotLent,
        });
        Some(seen)
    }

    /// How many stocks are lent to nobody for a while.
    pub fn withheld(&self, now: BootTime) -> usize {
        self.lock().hot_stocks.withheld(now)
    }

    /// Stocks as they are shown, in name order: at most `limit` of those whose names come after
    /// `after`.
    pub fn stocks_after(&self, after: Option<&StockName>, limit: usize) -> Vec<Stock> {
        let state = self.lock();
        let stocks = state.visibility.stocks_after(after);
        stocks.take(limit).cloned().collect()
    }

    /// Who leads, and how long the journal is: all of it durable.
    pub fn leadership(&self) -> Leadership {
        self.lock().leadership.clone()
    }

    /// A batch goes to the disk: tells its stocks' holders to let go.
    pub fn prepare(&self, batch: &Batch) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let invalidations = state.visibility.prepare(batch);
        for stock in &batch.stocks {
            if state.visibility.is_held(&stock.name) {
                state.hot_stocks.recalled(&stock.name);
            }
        }
        for invalidation in invalidations {
            state.holders.tell(invalidation.session, invalidation.round);
            self.measured.session(SessionEvent::Invalidated);
            state.tell(invalidation.session, Event::Invalidation(invalidation));
        }
    }

    /// The prepared batch is durable, and with it the answers.
    pub fn mark_durable(
        &self,
        stocks: &[Stock],
        leadership: Leadership,
        answers: Vec<Answer>,
        now: BootTime,
    ) {
        self.change(|state| {
            state.holders.settle(Some(now));
            state.visibility.mark_durable(stocks);
            let names = stocks.iter().map(|stock| &stock.name);
            state.hot_stocks.traded(names, now);
            state.leadership = leadership;
            let durable = Instant::now();
            let answers = answers.into_iter().map(|answer| (durable, answer));
            state.waiting.extend(answers);
        });
    }

    /// The prepared batch is not durable, and never will be.
    pub fn abandon(&self) {
        // With it whoever waits for a stock that it would have listed waits for nothing more.
        self.change(|state| {
            state.holders.settle(None);
            state.visibility.abandon();
        });
    }

    /// Opens a session, whose request came in at `received`; tells it so.
    pub fn open(
        &self,
        id: SessionId,
        client: Client,
        events: Events,
        received: BootTime,
        now: BootTime,
    ) -> Result<(), RequestError> {
        self.change(|state| {
            if state.closed {
                return Err(RequestError::Stopping);
            }
            if !state.may_lend(received) {
                return Err(RequestError::Uncertain);
            }
            state.expire(now);
            state.visibility.open(id, received)?;
            state.streams.insert(id, events);
            state.holders.open(id, client);
            state.tell(id, Event::Opened(id));
            Ok(())
        })?;
        self.measured.session(SessionEvent::Opened);
        self.opened.notify_one();
        Ok(())
    }

    /// Renews a session; tells it so, now or after the acknowledgements that it owes, unless another catalog may
    /// serve before its lease is over.
    pub fn renew(
        &self,
        id: SessionId,
        nonce: u64,
        received: BootTime,
    ) -> Result<(), SessionExpired> {
        let mut state = self.lock();
        // What it holds it lets go of by the end of this lease at the latest.
        if !state.holders.may_hold(id, received) && state.visibility.holds_any(id) {
            return Ok(());
        }
        let granted = state.visibility.renew(id, nonce, received)?;
        if granted == Renewal::Granted && state.may_lend(received) {
            self.measured.session(SessionEvent::Renewed);
            state.tell(id, Event::Renewed(nonce));
        }
        Ok(())
    }

    /// Whether the session's stream is open, and its lease not over.
    pub fn is_open(&self, id: SessionId) -> bool {
        self.lock().streams.contains_key(&id)
    }

    /// See [`Visibility::acknowledge`].
    pub fn acknowledge(
        &self,
        id: SessionId,
        round: Round,
        now: BootTime,
    ) -> Result<(), SessionExpired> {
        self.change(|state| {
            let granted = state.visibility.acknowledge(id, round, now)?;
            state.holders.acknowledge(id, round, now);
            if let Some(nonce) = granted.filter(|_| state.may_lend(now)) {
                self.measured.session(SessionEvent::Renewed);
                state.tell(id, Event::Renewed(nonce));
            }
            Ok(())
        })
    }

    /// See [`Visibility::release`]; ends the session's stream.
    pub fn release(&self, id: SessionId, now: BootTime) {
        self.change(|state| {
            state.streams.remove(&id);
            state.holders.end(id, now);
            state.visibility.release(id);
        });
        self.measured.session(SessionEvent::Released);
        self.released.notify_waiters();
    }

    /// Ends the session's stream, saying why; the session lives on until it expires.
    pub fn fail(&self, id: SessionId, error: RequestError) {
        let mut state = self.lock();
        state.tell(id, Event::Over(error));
        state.disconnect(id);
    }

    /// The session's stream is broken; the session lives on until it expires.
    pub fn disconnect(&self, id: SessionId) {
        self.lock().disconnect(id);
    }

    /// Ends sessions when their leases are over. Runs for as long as it is polled.
    pub async fn expire_sessions(&self) {
        loop {
            match self.next_expiry() {
                Some(at) => tokio::time::sleep(at.since(BootTime::now())).await,
                None => self.opened.notified().await,
            }
            self.expire(BootTime::now());
        }
    }

    /// See [`Visibility::next_expiry`].
    pub fn next_expiry(&self) -> Option<BootTime> {
        self.lock().visibility.next_expiry()
    }

    /// Ends the sessions whose leases are over.
    pub fn expire(&self, now: BootTime) {
        self.change(|state| state.expire(now));
    }

    /// Opens no more sessions, and has those that there are released; waits until none holds anything any more, which
    /// is when their leases are over at the latest.
    pub async fn recall(&self) {
        {
            let mut state = self.lock();
            state.closed = true;
            let mut streams: Vec<_> = state.streams.iter().collect();
            streams.sort_by_key(|(id, _)| id.get()); // so that a simulation is the same every time
            for (_, events) in streams {
                let _ = events.try_send(Event::Closing); // who does not hear it waits for its lease
            }
        }
        loop {
            let released = self.released.notified();
            let now = BootTime::now();
            if self.is_unheld(now) {
                return;
            }
            let over = self.next_expiry().unwrap_or(now + RECALL_PAUSE);
            tokio::select! {
                () = released => {}
                () = tokio::time::sleep(over.since(now).max(RECALL_PAUSE)) => {}
            }
        }
    }

    /// Ends all streams and opens no more. The sessions live on until they expire.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.streams.clear();
    }

    /// How many gateways have a session whose stream is open.
    pub fn sessions(&self) -> usize {
        self.lock().streams.len()
    }

    /// See [`Visibility::is_unheld`].
    pub fn is_unheld(&self, now: BootTime) -> bool {
        self.change(|state| {
            state.expire(now);
            state.visibility.is_unheld(now)
        })
    }

    /// Changes the state, then sends the answers that no longer wait for anything.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let changed = change(&mut state);
        let ready = state.take_ready();
        drop(state);
        ready.into_iter().for_each(Answer::send);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("an invariant of the catalog did not hold before")
    }
}

impl State {
    fn may_answer(&self, now: BootTime) -> bool {
        !self.rules.keep(Rule::OwnLease) || self.answers_until.is_none_or(|until| now < until)
    }

    /// Whether a lease that was asked for then is over before another catalog may serve.
    fn may_lend(&self, received: BootTime) -> bool {
        let length = match self.rules.keep(Rule::NestedLease) {
            true => self.lease,
            false => Duration::ZERO,
        };
        self.may_answer(received + length)
    }

    /// Whether that session is not lent the stock since nobody is for a while. Whom it would not be lent anyway, as while
    /// it is changing, does not count.
    fn withholds(&mut self, name: &StockName, id: SessionId, now: BootTime) -> bool {
        let might_be_lent = self.streams.contains_key(&id) && !self.visibility.is_changing(name);
        might_be_lent && !self.hot_stocks.may_lend(name, id, now)
    }

    /// Tells a session something, or cuts its stream where it does not keep up.
    fn tell(&mut self, id: SessionId, event: Event) {
        let Some(events) = self.streams.get(&id) else {
            return;
        };
        if events.try_send(event).is_err() {
            tracing::warn!(session = %id, "cut a session's stream that does not take its events");
            self.measured.session(SessionEvent::Cut);
            self.disconnect(id);
        }
    }

    fn disconnect(&mut self, id: SessionId) {
        self.streams.remove(&id);
        self.visibility.disconnect(id);
    }

    fn expire(&mut self, now: BootTime) {
        for id in self.visibility.expire(now) {
            tracing::info!(session = %id, "a session expired");
            self.measured.session(SessionEvent::Expired);
            self.holders.end(id, now);
            self.tell(id, Event::Over(SessionExpired.into()));
            self.streams.remove(&id);
        }
    }

    fn take_ready(&mut self) -> Vec<Answer> {
        let visibility = &self.visibility;
        let shown = |(_, answer): &mut (Instant, Answer)| {
            answer
                .awaits
                .iter()
                .all(|(name, version)| visibility.is_shown(name, *version))
        };
        let shown = self.waiting.extract_if(.., shown);
        let mut ready: Vec<Answer> = shown
            .map(|(durable, answer)| {
                self.measured.shown(durable.elapsed());
                for parent in &answer.traced {
                    drop(parent.begin_at(durable, Kind::Internal, "wait for caches"));
                }
                answer
            })
            .collect();
        let crowd = self.waiting.drain(self.waiting.len().min(WAITING_MAX)..);
        ready.extend(crowd.map(|(_, answer)| Answer {
            results: Err(RequestError::TooManyWaiters),
            ..answer
        }));
        self.measured.waiting(self.waiting.len());
        ready
    }
}
