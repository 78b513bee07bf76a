//! The catalog and the gateways, and all that happens to them.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog::config::lease_margin;
use catalog_core::{Batch, Invalidation, Leases, Renewal, Stock, Visibility};
use domain::time::BootTime;
use domain::{Price, SessionId, StockName, Version};
use frontend_core::{Answer, Fetches, Freshness, Session};

use super::bounds::{Action, Bounds};
use super::gateway::{Asking, Event, Gateway, Request, Stream};

/// As gateways count it.
const LEASE: Duration = Duration::from_millis(1000);

#[derive(Debug, Clone, PartialEq, Hash)]
pub struct World {
    pub now: BootTime,
    pub visibility: Visibility,
    /// The stocks as the disk has them.
    pub durable: Vec<Stock>,
    /// What is on its way to the disk.
    pub writing: Option<Stock>,
    /// Durable trades whose answers wait to be shown.
    pub unanswered: Vec<(StockName, Version)>,
    /// Sessions whose streams are broken, which the catalog has not noticed.
    pub severed: Vec<SessionId>,
    pub gateways: Vec<Gateway>,
    /// Sessions that were opened so far.
    pub sessions: u64,
    /// The newest version of each stock that any client has seen.
    pub seen: BTreeMap<StockName, Version>,
    pub spent: Spent,
    /// What should not have happened.
    pub broken: Option<&'static str>,
}

/// What has happened as often as it may, or less.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Spent {
    pub trades: u8,
    pub asks: u8,
    pub retries: u8,
    pub ticks: u8,
    pub renewals: u8,
    pub breaks: u8,
    pub reopenings: u8,
    pub releases: u8,
    pub crashes: u8,
    pub disk_failures: u8,
}

impl World {
    /// All gateways have a session, and nothing is kept.
    pub fn new(bounds: &Bounds) -> Self {
        let durable: Vec<Stock> = (0..bounds.stocks).map(listed).collect();
        let gateway = Gateway {
            fetches: Fetches::default().under(bounds.gateway_rules()),
            ..Gateway::default()
        };
        let now = BootTime::from_millis(1_000_000);
        let mut world = Self {
            now,
            visibility: visibility(bounds, &durable, Duration::ZERO, now),
            seen: durable
                .iter()
                .map(|it| (it.name.clone(), it.version))
                .collect(),
            durable,
            writing: None,
            unanswered: Vec::new(),
            severed: Vec::new(),
            gateways: vec![gateway; bounds.gateways],
            sessions: 0,
            spent: Spent::default(),
            broken: None,
        };
        for gateway in 0..bounds.gateways {
            world.open(gateway);
            world.hear(gateway);
            world.obey(bounds, gateway);
        }
        world
    }

    pub fn is_settled(&self) -> bool {
        self.now >= self.visibility.serving_from()
    }

    pub fn may_trade(&self) -> bool {
        self.writing.is_none() && self.is_settled()
    }

    pub fn has_expired(&self) -> bool {
        self.visibility
            .next_expiry()
            .is_some_and(|at| at <= self.now)
    }

    pub fn act(&mut self, bounds: &Bounds, action: Action) {
        let spent = &mut self.spent;
        match action {
            Action::Trade { .. } => spent.trades += 1,
            Action::Abandon => spent.disk_failures += 1,
            Action::Ask { .. } => spent.asks += 1,
            Action::AskAgain { .. } => spent.retries += 1,
            Action::Renew { .. } => spent.renewals += 1,
            Action::Break { .. } => spent.breaks += 1,
            Action::Reopen { .. } => spent.reopenings += 1,
            Action::Release { .. } => spent.releases += 1,
            Action::Tick => spent.ticks += 1,
            Action::Crash { .. } => spent.crashes += 1,
            _ => {}
        }
        match action {
            Action::Trade { stock } => self.trade(stock),
            Action::Commit => self.commit(),
            Action::Abandon => {
                self.writing = None;
                self.visibility.abandon();
            }
            Action::Ask { gateway, stock } => self.ask(gateway, stock),
            Action::Answer { gateway, ask } => self.answer(gateway, ask),
            Action::AskAgain { gateway, ask } => self.gateways[gateway].asking[ask].answer = None,
            Action::Take { gateway, ask } => self.take(gateway, ask),
            Action::Renew { gateway } => self.renew(gateway),
            Action::Hear { gateway } => self.hear(gateway),
            Action::Obey { gateway } => self.obey(bounds, gateway),
            Action::Break { gateway } => self.sever(gateway),
            Action::Cut { stream } => self.visibility.disconnect(self.severed.remove(stream)),
            Action::Reopen { gateway } => {
                self.gateways[gateway].session = None;
                self.gateways[gateway].stream = Stream::default();
                self.open(gateway);
            }
            Action::Release { gateway } => self.release(gateway),
            Action::Expire => self.expire(),
            Action::Tick => self.now = self.now + bounds.step,
            Action::Crash { durable } => self.crash(bounds, durable),
        }
        self.answer_trades();
        if bounds.without.is_none() {
            self.forget();
        }
    }

    /// Takes out what can never be served again, so that fewer states differ: sessions do not
    /// come back.
    fn forget(&mut self) {
        for gateway in &mut self.gateways {
            let mut entries = std::mem::take(&mut gateway.entries);
            entries.retain(|_, (tag, _)| gateway.believes(tag));
            gateway.entries = entries;
        }
    }

    fn trade(&mut self, stock: usize) {
        let before = &self.durable[stock];
        let stock = Stock {
            version: Version(before.version.0 + 1),
            ..before.clone()
        };
        let batch = Batch {
            stocks: vec![stock.clone()],
            ..Batch::default()
        };
        self.writing = Some(stock);
        for Invalidation {
            session,
            round,
            floors,
        } in self.visibility.prepare(&batch)
        {
            let floors = floors.into_iter().map(|floor| (floor.name, floor.version));
            self.tell(session, Event::Invalidation(round, floors.collect()));
        }
    }

    fn commit(&mut self) {
        let stock = self.writing.take().expect("something is being written");
        self.visibility.mark_durable(std::slice::from_ref(&stock));
        self.unanswered.push((stock.name.clone(), stock.version));
        self.make_durable(stock);
    }

    fn make_durable(&mut self, stock: Stock) {
        let mut all = self.durable.iter_mut();
        let before = all.find(|it| it.name == stock.name);
        *before.expect("trades make no stocks") = stock;
    }

    /// Whoever traded is told, once all readers see it.
    fn answer_trades(&mut self) {
        let (visibility, seen) = (&self.visibility, &mut self.seen);
        self.unanswered.retain(|(name, version)| {
            let shown = visibility.is_shown(name, *version);
            if shown {
                see(seen, name, *version);
            }
            !shown
        });
    }

    fn ask(&mut self, at: usize, stock: usize) {
        let name = &self.durable[stock].name;
        let seen = self.seen[name];
        let gateway = &mut self.gateways[at];
        let lease = gateway.lease();
        let ask = gateway
            .fetches
            .begin(name.clone(), Freshness::Linearizable, &lease, self.now);
        gateway.asking.push(Asking {
            ask,
            seen,
            answer: None,
        });
    }

    fn answer(&mut self, at: usize, ask: usize) {
        let asking = &mut self.gateways[at].asking[ask];
        let (name, session) = (asking.ask.name(), asking.ask.session());
        let read = self.visibility.read(name, session, self.now);
        let read = read.expect("the stock is listed");
        let durable = self.durable.iter().find(|it| it.name == *name);
        if durable.is_none_or(|durable| durable.version < read.stock.version) {
            self.broken = Some("a reader sees what is not durable");
        }
        asking.answer = Some(Answer {
            version: read.stock.version,
            registered: read.cacheable,
        });
    }

    fn take(&mut self, at: usize, ask: usize) {
        let gateway = &mut self.gateways[at];
        let Asking { ask, seen, answer } = gateway.asking.remove(ask);
        let answer = answer.expect("it was answered");
        if answer.version < seen {
            self.broken = Some("a read is older than what was seen before it began");
        }
        let lease = gateway.lease();
        if let Some(tag) = gateway.fetches.admit(&ask, answer, &lease) {
            let entry = (tag, answer.version);
            gateway.entries.insert(ask.name().clone(), entry);
        }
        gateway.fetches.end(&ask);
        see(&mut self.seen, ask.name(), answer.version);
    }

    fn open(&mut self, at: usize) {
        let gateway = &mut self.gateways[at];
        gateway.opening = Some(self.now);
        gateway.stream.up.push_back(Request::Open);
    }

    fn renew(&mut self, at: usize) {
        let gateway = &mut self.gateways[at];
        let session = gateway.session.as_mut().expect("it has a session");
        let nonce = session.renew(self.now);
        if !gateway.stream.broken {
            gateway.stream.up.push_back(Request::Renew(nonce));
        }
    }

    fn release(&mut self, at: usize) {
        let gateway = &mut self.gateways[at];
        gateway.session = None;
        if !gateway.stream.broken {
            gateway.stream.down.clear();
            gateway.stream.up.push_back(Request::Release);
        }
    }

    fn hear(&mut self, at: usize) {
        let stream = &mut self.gateways[at].stream;
        let request = stream.up.pop_front().expect("something was sent");
        if request == Request::Open {
            return self.opened(at);
        }
        let Some(id) = stream.serves else { return };
        let heard = match request {
            Request::Open => unreachable!("dealt with above"),
            Request::Renew(nonce) => self
                .visibility
                .renew(id, nonce, self.now)
                .map(|renewal| (renewal == Renewal::Granted).then_some(nonce)),
            Request::Acknowledge(round) => self.visibility.acknowledge(id, round, self.now),
            Request::Release => {
                self.visibility.release(id);
                stream.serves = None;
                Ok(None)
            }
        };
        match heard {
            Ok(None) => {}
            Ok(Some(nonce)) => self.tell(id, Event::Renewed(nonce)),
            Err(_) => {
                self.tell(id, Event::Over);
                self.visibility.disconnect(id);
                self.gateways[at].stream.serves = None;
            }
        }
    }

    fn opened(&mut self, at: usize) {
        self.expire();
        self.sessions += 1;
        let id = SessionId::new(self.sessions).expect("numbers from 1 on");
        let opened = self.visibility.open(id, self.now);
        opened.expect("there are few sessions, with ids of their own");
        self.gateways[at].stream.serves = Some(id);
        self.tell(id, Event::Opened(id));
    }

    fn obey(&mut self, bounds: &Bounds, at: usize) {
        let gateway = &mut self.gateways[at];
        let event = gateway.stream.down.pop_front();
        match event.expect("something was sent") {
            Event::Opened(id) => {
                let sent = gateway.opening.take().expect("it sent an Open");
                let session = Session::opened(id, LEASE, sent);
                gateway.session = Some(session.under(bounds.gateway_rules()));
            }
            Event::Renewed(nonce) => {
                let session = gateway.session.as_mut();
                session.expect("it has a session").renewed(nonce);
            }
            Event::Invalidation(round, floors) => {
                for (name, floor) in floors {
                    let held = gateway.entries.get(&name).map(|(tag, _)| *tag);
                    if gateway.fetches.invalidate(&name, floor, held) {
                        gateway.entries.remove(&name);
                    }
                }
                gateway.stream.up.push_back(Request::Acknowledge(round));
            }
            Event::Over => {
                gateway.session = None;
                gateway.stream.broken = true;
            }
        }
    }

    /// Sends a session an event, if it still has a stream, and somebody at its other end.
    fn tell(&mut self, id: SessionId, event: Event) {
        let mut gateways = self.gateways.iter_mut();
        if let Some(told) = gateways.find(|it| it.stream.serves == Some(id))
            && (told.session.is_some() || told.opening.is_some())
        {
            told.stream.down.push_back(event);
        }
    }

    fn sever(&mut self, at: usize) {
        let stream = &mut self.gateways[at].stream;
        self.severed.extend(stream.serves);
        *stream = Stream {
            broken: true,
            ..Stream::default()
        };
    }

    fn expire(&mut self) {
        for id in self.visibility.expire(self.now) {
            self.tell(id, Event::Over);
            self.severed.retain(|severed| *severed != id);
            for gateway in &mut self.gateways {
                gateway.stream.serves = gateway.stream.serves.filter(|serves| *serves != id);
            }
        }
    }

    fn crash(&mut self, bounds: &Bounds, durable: bool) {
        if let Some(stock) = self.writing.take().filter(|_| durable) {
            self.make_durable(stock);
        }
        for gateway in 0..self.gateways.len() {
            self.sever(gateway);
        }
        self.severed.clear();
        self.unanswered.clear();
        self.visibility = visibility(bounds, &self.durable, LEASE + lease_margin(LEASE), self.now);
    }
}

fn visibility(bounds: &Bounds, stocks: &[Stock], unsettled: Duration, now: BootTime) -> Visibility {
    let leases = Leases::new(LEASE, lease_margin(LEASE)).under(bounds.catalog_rules());
    Visibility::new(stocks.iter().cloned(), leases, unsettled, now)
}

fn see(seen: &mut BTreeMap<StockName, Version>, name: &StockName, version: Version) {
    let newest = seen.get_mut(name).expect("the stock is listed");
    *newest = version.max(*newest);
}

fn listed(stock: usize) -> Stock {
    let name = StockName::new(["meta", "nvidia"][stock]).expect("it is a name");
    Stock::first(name, Price::from_minor(100).expect("it is a price"), 0)
}
