//! A gateway, and its stream to the catalog.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};

use catalog_core::Round;
use domain::time::BootTime;
use domain::{SessionId, StockName, Version};
use frontend_core::{Answer, Ask, Fetches, Freshness, Lease, Session, Tag};

/// A gateway: what it believes and keeps, and what it waits for.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Gateway {
    pub session: Option<Session>,
    /// When the Open was sent that is not answered yet.
    pub opening: Option<BootTime>,
    pub stream: Stream,
    pub fetches: Fetches,
    pub entries: BTreeMap<StockName, (Tag, Version)>,
    pub asking: Vec<Asking>,
}

/// A question to the catalog, on a connection of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct Asking {
    pub ask: Ask,
    /// What any client had seen when it was asked.
    pub seen: Version,
    pub answer: Option<Answer>,
}

/// A gateway's stream to the catalog and back. Keeps the order, and loses only its end.
#[derive(Debug, Clone, Default, PartialEq, Hash)]
pub struct Stream {
    /// What the catalog takes it for.
    pub serves: Option<SessionId>,
    pub up: VecDeque<Request>,
    pub down: VecDeque<Event>,
    pub broken: bool,
}

/// What a gateway sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    Open,
    Renew(u64),
    Acknowledge(Round),
    Release,
}

/// What the catalog sends.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    Opened(SessionId),
    Renewed(u64),
    Invalidation(Round, Vec<(StockName, Version)>),
    Over,
}

impl Gateway {
    pub fn lease(&self) -> Lease {
        self.session
            .as_ref()
            .map(Session::lease)
            .unwrap_or_default()
    }

    /// Whether what is kept under a tag would be served if the lease never ended.
    pub fn believes(&self, tag: &Tag) -> bool {
        tag.is_fresh(Freshness::Linearizable, &self.lease(), BootTime::default())
    }

    /// What a client would be served from the cache.
    pub fn hits(&self, now: BootTime) -> impl Iterator<Item = (&StockName, Version)> {
        let lease = self.lease();
        let fresh = move |tag: &Tag| tag.is_fresh(Freshness::Linearizable, &lease, now);
        let entries = self.entries.iter();
        entries.filter_map(move |(name, (tag, version))| fresh(tag).then_some((name, *version)))
    }
}

/// States are one that differ only in when a question began: reads by age are left out.
impl Hash for Gateway {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            session,
            opening,
            stream,
            fetches,
            entries,
            asking,
        } = self;
        (session, opening, stream, fetches).hash(state);
        for (name, (tag, version)) in entries {
            (name, self.believes(tag), version).hash(state);
        }
        for Asking { ask, seen, answer } in asking {
            (ask.name(), ask.session(), seen, answer).hash(state);
        }
    }
}
