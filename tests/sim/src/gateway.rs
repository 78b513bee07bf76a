//! A gateway's process: the shipped rules of its cache and its session, with what the policy's
//! defaults want done.

use std::collections::BTreeMap;
use std::time::Duration;

use catalog_core::Stock;
use domain::Refusal;
use domain::time::BootTime;
use domain::{Order, OrderNumber, ReplicaId, Row, StockName};
use frontend_core::timing::{
    ATTEMPT_TIME_MAX, OPEN_TIME_MAX, READ_TIME_MAX, REOPEN_PAUSE_MAX, REOPEN_PAUSE_MIN,
    TRADE_TIME_MAX,
};
use frontend_core::{Answer, Ask, Backoff, Fetches, Freshness, Lease, Session, Tag};
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
    plan: Plan,
    link: Link,
    reopen_pause: Duration,
    lease: Lease,
    fetches: Fetches,
    stocks: BTreeMap<StockName, (Tag, Stock)>,
    orders: BTreeMap<OrderNumber, Row>,
    serving: BTreeMap<u64, Serving>,
    last: u64,
    elector: Elector,
    /// Reads answered from the cache.
    pub hits: u64,
}

/// The session with the catalog.
enum Link {
    Lost {
        until: Time,
    },
    Opening {
        stream: u64,
        sent: BootTime,
        until: Time,
    },
    Open {
        stream: u64,
        session: Box<Session>,
        renew_at: Time,
    },
}

/// A request under way.
struct Serving {
    caller: Caller,
    what: What,
    deadline: Time,
    /// When to try again, where no call is under way.
    retry_at: Option<Time>,
    pause: Backoff,
    call: Option<u64>,
}

impl Serving {
    /// Whether a trade is with another replica than the one that leads, or with none.
    fn is_led_anew(&self, leader: Option<ReplicaId>) -> bool {
        matches!(&self.what, What::Trade(_, placed) if leader.is_some() && leader != *placed)
    }
}

enum What {
    Lookup(Ask),
    /// With whom it was placed.
    Trade(Order, Option<ReplicaId>),
    /// Who is still to be asked.
    Find(OrderNumber, Vec<ReplicaId>),
}

impl Gateway {
    pub fn start(line: &Timeline, plan: &Plan, gateway: usize) -> Self {
        let run = line.run(Node::Gateway(gateway));
        let rules = plan.gateway_rules();
        Self {
            run,
            plan: *plan,
            link: Link::Lost { until: line.now() },
            reopen_pause: REOPEN_PAUSE_MIN,
            lease: Lease::default(),
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
    pub fn wake(&self) -> Option<Time> {
        let link = match self.link {
            Link::Lost { until } | Link::Opening { until, .. } => until,
            Link::Open { renew_at, .. } => renew_at,
        };
        let retries = self.serving.values().map(|serving| match serving.retry_at {
            Some(at) => at.min(serving.deadline),
            None => serving.deadline,
        });
        retries.chain([link, self.elector.wake()]).min()
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
                let fresh = kept
                    .filter(|(tag, _)| tag.is_fresh(Freshness::Linearizable, &self.lease, clock));
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
                    .begin(name, Freshness::Linearizable, &self.lease, clock);
                (What::Lookup(ask), READ_TIME_MAX)
            }
            Operation::Find(number) => {
                if let Some(row) = self.orders.get(&number) {
                    let told = Ok(Response::Row(row.clone()));
                    return line.reply(self.run.node, caller, told);
                }
                (What::Find(number, self.elector.readers()), READ_TIME_MAX)
            }
            Operation::Trade(order) => (What::Trade(order, None), TRADE_TIME_MAX),
        };
        self.last += 1;
        let serving = Serving {
            caller,
            what,
            deadline: line.now() + time_max,
            retry_at: Some(line.now()),
            pause: Backoff::of_request(),
            call: None,
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

    /// Starts what is to be tried (again), and ends what took too long.
    fn go_on(&mut self, line: &mut Timeline) {
        let now = line.now();
        let leader = self.elector.leader();
        let due = |serving: &Serving| {
            let is_time = |at: Time| at <= now;
            is_time(serving.deadline)
                || serving.retry_at.is_some_and(is_time)
                || serving.is_led_anew(leader)
        };
        let due: Vec<u64> = self
            .serving
            .iter()
            .filter(|(_, serving)| due(serving))
            .map(|(&request, _)| request)
            .collect();
        for request in due {
            self.attempt(line, request);
        }
    }

    fn attempt(&mut self, line: &mut Timeline, request: u64) {
        let now = line.now();
        let leader = self.elector.leader();
        let readers = self.elector.readers();
        let Some(serving) = self.serving.get_mut(&request) else {
            return;
        };
        serving.retry_at = None;
        if let Some(call) = serving.call.take() {
            line.give_up(call);
        }
        if serving.deadline <= now {
            return self.end(line, request, Err(Failure::Unavailable));
        }
        let patience = serving.deadline - now;
        let (to, message, timeout) = match &mut serving.what {
            What::Lookup(ask) => {
                let message = Request::ReadStock {
                    name: ask.name().clone(),
                    session: ask.session(),
                };
                (Node::Catalog, message, patience)
            }
            What::Trade(order, placed) => {
                *placed = leader;
                let Some(leader) = leader else {
                    return; // until somebody does
                };
                let message = Request::Place(order.clone());
                (Node::Replica(leader), message, patience)
            }
            What::Find(number, left) => {
                let number = *number;
                if left.is_empty() {
                    *left = readers;
                }
                if left.is_empty() {
                    // Nobody is there: as the shipped one, it looks again after a pause.
                    let pause = serving.pause.pause(line.random.f64());
                    serving.retry_at = Some(now + pause);
                    return self.elector.suspect(line);
                }
                let message = Request::Get(number);
                let timeout = patience.min(ATTEMPT_TIME_MAX);
                (Node::Replica(left.remove(0)), message, timeout)
            }
        };
        let call = line.call(self.run, to, message, timeout, Purpose::Serve(request));
        serving.call = Some(call);
    }

    fn served(&mut self, line: &mut Timeline, request: u64, told: Told) {
        let Some(serving) = self.serving.get_mut(&request) else {
            return;
        };
        serving.call = None;
        match told {
            Ok(response) => self.end(line, request, Ok(response)),
            Err(_) => {
                // The next replica is asked at once; after the last one, as with all else, there
                // is a pause.
                let at_once = matches!(&serving.what, What::Find(_, left) if !left.is_empty());
                let pause = match at_once {
                    true => Duration::ZERO,
                    false => serving.pause.pause(line.random.f64()),
                };
                if !at_once && !matches!(serving.what, What::Lookup(_)) {
                    self.elector.suspect(line);
                }
                serving.retry_at = Some(line.now() + pause);
            }
        }
    }

    fn end(&mut self, line: &mut Timeline, request: u64, told: Told) {
        let serving = self.serving.remove(&request).expect("it is under way");
        match (&serving.what, &told) {
            (What::Lookup(ask), Ok(Response::Stock { stock, cacheable })) => {
                let answer = Answer {
                    version: stock.version,
                    registered: *cacheable,
                };
                if let Some(tag) = self.fetches.admit(ask, answer, &self.lease) {
                    self.stocks.insert(ask.name().clone(), (tag, stock.clone()));
                }
            }
            (What::Find(number, _), Ok(Response::Row(row))) => {
                self.orders.insert(*number, row.clone());
            }
            _ => {}
        }
        if let What::Lookup(ask) = &serving.what {
            self.fetches.end(ask);
        }
        line.reply(self.run.node, serving.caller, told);
    }

    /// Opens, renews and reopens the session.
    fn keep_session(&mut self, line: &mut Timeline) {
        let now = line.now();
        match &mut self.link {
            Link::Lost { until } if *until <= now => {
                let stream = line.open_stream(self.run);
                line.send_up(stream, FromGateway::Open { journal: JOURNAL });
                self.link = Link::Opening {
                    stream,
                    sent: line.clock(self.run.node),
                    until: now + OPEN_TIME_MAX,
                };
            }
            Link::Opening { stream, until, .. } if *until <= now => {
                let stream = *stream;
                line.break_stream(stream, Duration::from_micros(100));
                self.lost(line, stream);
            }
            Link::Open {
                stream,
                session,
                renew_at,
            } if *renew_at <= now => {
                *renew_at = now + session.renewal_interval();
                let nonce = session.renew(line.clock(self.run.node));
                line.send_up(*stream, FromGateway::Renew(nonce));
            }
            _ => {}
        }
    }

    /// What the catalog sends on the session's stream; `None` for its end.
    pub fn streamed(&mut self, line: &mut Timeline, stream: u64, what: Option<FromCatalog>) {
        let Some(what) = what else {
            return self.lost(line, stream);
        };
        match (&mut self.link, what) {
            (
                &mut Link::Opening {
                    stream: opening,
                    sent,
                    ..
                },
                FromCatalog::Opened {
                    session,
                    lease,
                    journal,
                },
            ) if opening == stream => {
                if journal != JOURNAL {
                    return self.lost(line, stream);
                }
                let session = Session::opened(session, lease, sent);
                let session = session.under(self.plan.gateway_rules());
                self.lease = session.lease();
                self.reopen_pause = REOPEN_PAUSE_MIN;
                self.link = Link::Open {
                    stream,
                    renew_at: line.now() + session.renewal_interval(),
                    session: Box::new(session),
                };
            }
            (
                Link::Open {
                    stream: open,
                    session,
                    ..
                },
                what,
            ) if *open == stream => match what {
                FromCatalog::Opened { .. } => panic!("the catalog opened a session twice"),
                FromCatalog::Renewed(nonce) => {
                    session.renewed(nonce);
                    self.lease = session.lease();
                }
                FromCatalog::Invalidation(recall) => {
                    for floor in recall.floors {
                        let kept = self.stocks.get(&floor.name).map(|(tag, _)| *tag);
                        if self.fetches.invalidate(&floor.name, floor.version, kept) {
                            self.stocks.remove(&floor.name);
                        }
                    }
                    line.send_up(stream, FromGateway::Acknowledge(recall.round));
                }
            },
            _ => {}
        }
    }

    /// Serves nothing more from its cache, and says so.
    pub fn release(&mut self, line: &mut Timeline) {
        self.lease = Lease::default();
        if let Link::Open { stream, .. } = self.link {
            line.send_up(stream, FromGateway::Release);
        }
    }

    fn lost(&mut self, line: &Timeline, stream: u64) {
        let ours = match self.link {
            Link::Lost { .. } => false,
            Link::Opening { stream: ours, .. } | Link::Open { stream: ours, .. } => ours == stream,
        };
        if !ours {
            return;
        }
        let pause = self.reopen_pause;
        self.reopen_pause = (pause * 2).min(REOPEN_PAUSE_MAX);
        self.lease = Lease::default();
        self.link = Link::Lost {
            until: line.now() + pause,
        };
    }
}

/// What a placed order came to, for its client.
pub fn placed(told: Told) -> Result<Result<OrderNumber, Refusal>, Failure> {
    match told? {
        Response::Placed(Placed::Number(number)) => Ok(Ok(number)),
        Response::Placed(Placed::Refused(refusal)) => Ok(Err(refusal)),
        other => unreachable!("an order is not answered with {other:?}"),
    }
}
