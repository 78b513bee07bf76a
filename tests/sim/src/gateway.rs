//! A gateway's process: the shipped rules of its cache and its session, with what the policy's
//! defaults want done.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog_core::Stock;
use domain::time::BootTime;
use domain::{Entry, OrderNumber, RetryClass, Row, StockName};
use frontend_core::attempts::{CatalogRead, Next, OrderRead, Placement, Repeats};
use frontend_core::timing::{
    ATTEMPT_TIME_MAX, READ_TIME_MAX, TRADE_ATTEMPT_TIME_MAX, TRADE_TIME_MAX,
};
use frontend_core::{Answer, Ask, Fetches, Freshness, SessionKeeper, SessionStep, Tag};
use order_core::message::Placed;

use crate::catalog::JOURNAL;
use crate::elector::Elector;
use crate::messages::{
    Caller, Failure, FromCatalog, FromGateway, Node, Operation, Purpose, Request, Response, Run,
    Told,
};
use crate::plan::Plan;
use crate::timeline::{Time, Timeline};

/// A gateway, while it runs.
pub struct Gateway {
    run: Run,
    session: SessionKeeper,
    /// The session's stream.
    stream: Option<u64>,
    fetches: Fetches,
    stocks: BTreeMap<StockName, (Tag, Stock)>,
    orders: BTreeMap<OrderNumber, Row>,
    serving: BTreeMap<u64, Serving>,
    last: u64,
    elector: Elector,
    /// Reads answered from the cache.
    pub hits: u64,
}

/// A request under way.
struct Serving {
    caller: Caller,
    what: What,
    deadline: Time,
    /// When to go on, where no call is under way.
    retry_at: Option<Time>,
    /// Calls of one attempt that are under way, the first answer to which counts.
    calls: Vec<u64>,
    /// Whom they are to.
    to: Option<Node>,
    /// When there is one more of them; not of orders that are read, which another replica is asked for.
    repeats: Option<Repeats>,
}

impl Serving {
    /// Whom to call once more, where nothing came back yet.
    fn again(
        &mut self,
        clock: BootTime,
        catalog_answered: Option<BootTime>,
    ) -> Option<(Node, Request)> {
        let repeats = self.repeats.as_mut()?;
        if clock < repeats.look_at() {
            return None;
        }
        let (heard, message) = match &self.what {
            // Who leads is asked on the same connection.
            What::Lookup(ask, _) => (catalog_answered, read_stock(ask)),
            What::Trade(order, _) => (None, Request::Place(order.clone())),
            What::Find(..) => return None,
        };
        repeats.look(clock, heard).then_some((self.to?, message))
    }

    /// Is not told any more what comes of its calls.
    fn give_up(&mut self, line: &mut Timeline) {
        for call in self.calls.drain(..) {
            line.give_up(call);
        }
    }
}

enum What {
    Lookup(Ask, CatalogRead),
    Trade(Entry, Placement),
    Find(OrderNumber, OrderRead),
}

impl Gateway {
    pub fn start(line: &Timeline, plan: &Plan, gateway: usize) -> Self {
        let run = line.run(Node::Gateway(gateway));
        let rules = plan.gateway_rules();
        Self {
            run,
            session: SessionKeeper::new(line.clock(run.node)).under(rules),
            stream: None,
            fetches: Fetches::default().under(rules),
            stocks: BTreeMap::new(),
            orders: BTreeMap::new(),
            serving: BTreeMap::new(),
            last: 0,
            elector: Elector::new(line, plan, run),
            hits: 0,
        }
    }

    /// When it has something to do by itself.
    pub fn wake(&self, line: &Timeline) -> Option<Time> {
        let session = line.when(self.run.node, self.session.wake());
        let requests = self.serving.values().map(|serving| {
            let looks = serving
                .repeats
                .as_ref()
                .filter(|_| !serving.calls.is_empty());
            let looks = looks.map(|repeats| line.when(self.run.node, repeats.look_at()));
            let wakes = [Some(serving.deadline), serving.retry_at, looks];
            wakes.into_iter().flatten().min()
        });
        let elector = self.elector.wake(line);
        requests.flatten().chain([session]).chain(elector).min()
    }

    pub fn woken(&mut self, line: &mut Timeline) {
        self.keep_session(line);
        self.elector.woken(line);
        self.go_on(line);
    }

    /// A call reaches it.
    pub fn request(&mut self, line: &mut Timeline, caller: Caller, request: Request) {
        let Request::Operate(operation) = request else {
            unreachable!("a gateway is not asked for {request:?}")
        };
        let clock = line.clock(self.run.node);
        let (what, time_max) = match operation {
            Operation::Lookup(name) => {
                // The lease and the clock after the value: the read's linearization point.
                let kept = self.stocks.get(&name);
                let lease = self.session.lease();
                let fresh =
                    kept.filter(|(tag, _)| tag.is_fresh(Freshness::Linearizable, &lease, clock));
                if let Some((_, stock)) = fresh {
                    self.hits += 1;
                    let told = Ok(Response::Stock {
                        stock: stock.clone(),
                        cacheable: true,
                    });
                    return line.reply(self.run.node, caller, told);
                }
                let ask = self
                    .fetches
                    .begin(name, Freshness::Linearizable, &lease, clock);
                (What::Lookup(ask, CatalogRead::default()), READ_TIME_MAX)
            }
            Operation::Find(number) => {
                if let Some(row) = self.orders.get(&number) {
                    let told = Ok(Response::Row(row.clone()));
                    return line.reply(self.run.node, caller, told);
                }
                (What::Find(number, OrderRead::default()), READ_TIME_MAX)
            }
            Operation::Trade(order) => (What::Trade(order, Placement::default()), TRADE_TIME_MAX),
        };
        self.last += 1;
        let serving = Serving {
            caller,
            what,
            deadline: line.now() + time_max,
            retry_at: None,
            calls: Vec::new(),
            to: None,
            repeats: None,
        };
        self.serving.insert(self.last, serving);
        self.go_on(line);
    }

    /// A call that it made is over.
    pub fn answered(&mut self, line: &mut Timeline, purpose: Purpose, told: Told) {
        match purpose {
            Purpose::Serve(request) => self.served(line, request, told),
            purpose => self.elector.answered(line, purpose, told),
        }
        self.go_on(line);
    }

    /// Goes on with all that waits, and ends what took too long.
    fn go_on(&mut self, line: &mut Timeline) {
        // All are asked whenever anything happens. The shipped gateway waits for what a request waits for,
        // and no simulation sees where it would wait for something else.
        let requests: Vec<u64> = self.serving.keys().copied().collect();
        for request in requests {
            while self.attempt(line, request) {}
        }
    }

    /// Does what a request is to do next. Whether to ask it again at once.
    fn attempt(&mut self, line: &mut Timeline, request: u64) -> bool {
        let (now, clock) = (line.now(), line.clock(self.run.node));
        let current = self.elector.current();
        let probed = self.elector.probed();
        let catalog_answered = self.elector.catalog_answered();
        let Some(serving) = self.serving.get_mut(&request) else {
            return false;
        };
        if serving.deadline <= now {
            self.end(line, request, Err(Failure::Unavailable));
            return false;
        }
        let patience = serving.deadline - now;
        let is_overtaken = match &serving.what {
            What::Trade(_, placement) => placement.is_overtaken(&current),
            What::Lookup(..) | What::Find(..) => false,
        };
        if is_overtaken {
            serving.give_up(line);
        }
        if !serving.calls.is_empty() {
            let again = serving.again(clock, catalog_answered);
            if let Some((to, message)) = again {
                let purpose = Purpose::Serve(request);
                let call = line.call(self.run, to, message, patience, purpose);
                serving.calls.push(call);
            }
            return false;
        }
        let next = match &mut serving.what {
            What::Lookup(ask, read) => {
                let next = read.next(clock, catalog_answered);
                serving.repeats = Some(Repeats::begin(clock, ATTEMPT_TIME_MAX));
                next.map(|()| (Node::Catalog, read_stock(ask), patience))
            }
            What::Trade(order, placement) => {
                let next = placement.next(clock, current, &probed);
                let message = || Request::Place(order.clone());
                serving.repeats = Some(Repeats::begin(clock, TRADE_ATTEMPT_TIME_MAX));
                next.map(|leader| (Node::Replica(leader), message(), patience))
            }
            What::Find(number, read) => {
                let random = line.random.f64();
                let next = read.next(clock, current.term, &probed, random);
                let (message, timeout) = (Request::Get(*number), patience.min(ATTEMPT_TIME_MAX));
                next.map(|replica| (Node::Replica(replica), message, timeout))
            }
        };
        serving.retry_at = None;
        match next {
            Next::Call((to, message, timeout)) => {
                let purpose = Purpose::Serve(request);
                let call = line.call(self.run, to, message, timeout, purpose);
                serving.calls.push(call);
                serving.to = Some(to);
                false
            }
            Next::Suspect => {
                match serving.what {
                    What::Lookup(..) => self.elector.suspect_catalog(),
                    What::Trade(..) | What::Find(..) => self.elector.suspect(),
                }
                true
            }
            Next::Wait(until) => {
                serving.retry_at = until.map(|until| line.when(self.run.node, until));
                false
            }
            Next::GiveUp => {
                self.end(line, request, Err(Failure::Unavailable));
                false
            }
        }
    }

    fn served(&mut self, line: &mut Timeline, request: u64, told: Told) {
        let Some(serving) = self.serving.get_mut(&request) else {
            return;
        };
        serving.calls.retain(|call| line.caller(*call).is_some());
        let failure = match told {
            Ok(response) => return self.end(line, request, Ok(response)),
            Err(failure) => failure,
        };
        if failure.class() == RetryClass::Later && !serving.calls.is_empty() {
            return; // another one may be answered
        }
        serving.give_up(line);
        let (now, random) = (line.clock(self.run.node), line.random.f64());
        match &mut serving.what {
            What::Lookup(_, read) => read.failed(failure.class(), now, random),
            What::Trade(_, placement) => placement.failed(failure.class(), now, random),
            What::Find(_, read) => read.failed(failure.class()),
        }
    }

    fn end(&mut self, line: &mut Timeline, request: u64, told: Told) {
        let mut serving = self.serving.remove(&request).expect("it is under way");
        serving.give_up(line);
        match (&serving.what, &told) {
            (What::Lookup(ask, _), Ok(Response::Stock { stock, cacheable })) => {
                let answer = Answer {
                    version: stock.version,
                    registered: *cacheable,
                };
                if let Some(tag) = self.fetches.admit(ask, answer, &self.session.lease()) {
                    self.stocks.insert(ask.name().clone(), (tag, stock.clone()));
                }
            }
            (What::Find(number, _), Ok(Response::Row(row))) => {
                self.orders.insert(*number, row.clone());
            }
            _ => {}
        }
        if let What::Lookup(ask, _) = &serving.what {
            self.fetches.end(ask);
        }
        line.reply(self.run.node, serving.caller, told);
    }

    /// Opens, renews and reopens the session.
    fn keep_session(&mut self, line: &mut Timeline) {
        let random = line.random.f64();
        match self.session.next(line.clock(self.run.node), random) {
            Some(SessionStep::Open) => {
                let stream = line.open_stream(self.run);
                line.send_up(stream, FromGateway::Open { journal: JOURNAL });
                self.stream = Some(stream);
            }
            Some(SessionStep::GiveUp) => {
                if let Some(stream) = self.stream.take() {
                    line.break_stream(stream, Duration::from_micros(100));
                }
            }
            Some(SessionStep::Renew(nonce)) => {
                if let Some(stream) = self.stream {
                    line.send_up(stream, FromGateway::Renew(nonce));
                }
            }
            None => {}
        }
    }

    /// What the catalog sends on the session's stream; `None` for its end.
    pub fn streamed(&mut self, line: &mut Timeline, stream: u64, what: Option<FromCatalog>) {
        if self.stream != Some(stream) {
            return;
        }
        let now = line.clock(self.run.node);
        match what {
            None => self.lose_session(line, RetryClass::Later),
            Some(FromCatalog::Opened { journal, .. }) if journal != JOURNAL => {
                self.lose_session(line, RetryClass::Elsewhere);
            }
            Some(FromCatalog::Opened { session, lease, .. }) => {
                assert!(!self.is_open(), "the catalog opened a session twice");
                self.session.opened(session, lease, now);
            }
            Some(FromCatalog::Renewed(nonce)) => self.session.renewed(nonce),
            Some(FromCatalog::Closing) => self.release(line),
            Some(FromCatalog::Invalidation(invalidation)) => {
                assert!(
                    self.is_open(),
                    "it is told of changes before it may keep anything"
                );
                for floor in invalidation.floors {
                    let kept = self.stocks.get(&floor.name).map(|(tag, _)| *tag);
                    if self.fetches.invalidate(&floor.name, floor.version, kept) {
                        self.stocks.remove(&floor.name);
                    }
                }
                line.send_up(stream, FromGateway::Acknowledge(invalidation.round));
            }
        }
    }

    fn lose_session(&mut self, line: &mut Timeline, class: RetryClass) {
        self.stream = None;
        let random = line.random.f64();
        self.session.lost(class, line.clock(self.run.node), random);
    }

    fn is_open(&self) -> bool {
        self.session.lease().session().is_some()
    }

    /// Serves nothing more from its cache, and says so.
    pub fn release(&mut self, line: &mut Timeline) {
        let open = self.stream.take();
        if let Some(stream) = open.filter(|_| self.is_open()) {
            line.send_up(stream, FromGateway::Release);
        }
        self.lose_session(line, RetryClass::Later);
    }
}

fn read_stock(ask: &Ask) -> Request {
    Request::ReadStock {
        name: ask.name().clone(),
        session: ask.session(),
    }
}

/// What a placed order came to, for its client.
pub fn placed(told: Told) -> Result<Placed, Failure> {
    match told? {
        Response::Placed(placed) => Ok(placed),
        other => unreachable!("an order is not answered with {other:?}"),
    }
}
