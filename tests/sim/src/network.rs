//! The network: how long messages take, and which do not arrive.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;

use crate::messages::{Node, Run};
use crate::timeline::Time;

const MICROSECOND: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// How bad the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Of a thousand messages of calls so many are lost.
    pub lost: u32,
    /// Of a thousand messages so many take up to `late`.
    pub late_share: u32,
    pub late: Duration,
}

impl Weather {
    pub const FINE: Self = Self {
        lost: 0,
        late_share: 0,
        late: Duration::ZERO,
    };
}

/// What becomes of one message of a call.
pub struct Transit {
    /// It arrives after so long.
    pub arrives: Option<Duration>,
    /// The caller sees the connection break after so long.
    pub fails: Option<Duration>,
}

/// A session's stream. Its messages arrive in order.
struct Stream {
    gateway: Run,
    catalog: Node,
    last_up: Time,
    last_down: Time,
    /// From when on nothing arrives.
    closed: Option<Time>,
    /// Another bazaar's catalog is at its end.
    miswired: bool,
}

/// The links between the machines.
pub struct Network {
    pub weather: Weather,
    /// Pairs that are cut off from each other, and until when.
    cuts: BTreeMap<(Node, Node), Time>,
    /// Who calls whom at an address where another bazaar's process is, and until when.
    miswired: BTreeMap<(Node, Node), Time>,
    streams: BTreeMap<u64, Stream>,
    pub lost: u64,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            weather: Weather::FINE,
            cuts: BTreeMap::new(),
            miswired: BTreeMap::new(),
            streams: BTreeMap::new(),
            lost: 0,
        }
    }
}

fn pair(one: Node, other: Node) -> (Node, Node) {
    (one.min(other), one.max(other))
}

impl Network {
    /// Cuts two machines off from each other.
    pub fn cut(&mut self, one: Node, other: Node, until: Time) {
        self.cuts.insert(pair(one, other), until);
    }

    /// What one sends to the other reaches another bazaar's process until then.
    pub fn miswire(&mut self, one: Node, other: Node, until: Time) {
        self.miswired.insert((one, other), until);
    }

    pub fn is_miswired(&self, now: Time, one: Node, other: Node) -> bool {
        let until = self.miswired.get(&(one, other));
        until.is_some_and(|&until| now < until)
    }

    /// Whether the network does nothing to what these two send each other.
    pub fn is_fine(&self, now: Time, one: Node, other: Node) -> bool {
        self.weather == Weather::FINE
            && self.cut_until(now, one, other).is_none()
            && !self.is_miswired(now, one, other)
    }

    /// All is well from now on.
    pub fn heal(&mut self) {
        self.weather = Weather::FINE;
        self.cuts.clear();
        self.miswired.clear();
    }

    fn cut_until(&self, now: Time, one: Node, other: Node) -> Option<Time> {
        let until = self.cuts.get(&pair(one, other)).copied();
        until.filter(|&until| now < until)
    }

    fn delay(&self, random: &mut Rng) -> Duration {
        let Weather {
            late_share, late, ..
        } = self.weather;
        if random.u32(..1000) < late_share {
            late.mul_f64(random.f64())
        } else {
            50 * MICROSECOND + MILLISECOND.mul_f64(random.f64().powi(3))
        }
    }

    pub fn transit(&mut self, random: &mut Rng, now: Time, from: Node, to: Node) -> Transit {
        let delay = self.delay(random);
        if let Some(until) = self.cut_until(now, from, to) {
            self.lost += 1;
            // TCP tries again: what was sent may still arrive, long after it was given up.
            let arrives = (random.u32(..4) == 0).then(|| until - now + delay);
            return Transit {
                arrives,
                fails: None,
            };
        }
        if random.u32(..1000) < self.weather.lost {
            self.lost += 1;
            let fails = random.bool().then_some(delay);
            return Transit {
                arrives: None,
                fails,
            };
        }
        Transit {
            arrives: Some(delay),
            fails: None,
        }
    }

    pub fn open(&mut self, now: Time, stream: u64, (gateway, catalog): (Run, Node)) {
        let miswired = self.is_miswired(now, gateway.node, catalog);
        let stream_of = Stream {
            gateway,
            catalog,
            last_up: Time::ZERO,
            last_down: Time::ZERO,
            closed: None,
            miswired,
        };
        self.streams.insert(stream, stream_of);
    }

    /// When a stream's next message arrives; `None` where the stream is closed by then.
    pub fn stream_arrival(
        &mut self,
        random: &mut Rng,
        now: Time,
        stream: u64,
        up: bool,
    ) -> Option<Time> {
        let delay = self.delay(random);
        let Stream {
            gateway, catalog, ..
        } = self.streams.get(&stream)?;
        let sent = self.cut_until(now, *catalog, gateway.node).unwrap_or(now);
        let stream = self.streams.get_mut(&stream)?;
        let last = if up {
            &mut stream.last_up
        } else {
            &mut stream.last_down
        };
        let at = (sent + delay).max(*last + Duration::from_nanos(1));
        *last = at;
        stream.closed.is_none_or(|closed| at < closed).then_some(at)
    }

    /// Whether a message that arrives now is still one of an open stream, and whose.
    pub fn gateway(&self, stream: u64) -> Option<Run> {
        self.streams.get(&stream).map(|stream| stream.gateway)
    }

    /// Which catalog a stream is open to.
    pub fn catalog(&self, stream: u64) -> Option<Node> {
        self.streams.get(&stream).map(|stream| stream.catalog)
    }

    /// How long it takes until something is there, on a connection that waits while it does not get through.
    pub fn delay_between(&self, random: &mut Rng, now: Time, between: (Node, Node)) -> Duration {
        let cut = self.cut_until(now, between.0, between.1).unwrap_or(now);
        cut - now + self.delay(random)
    }

    /// Whether another bazaar's catalog is at a stream's end.
    pub fn ends_elsewhere(&self, stream: u64) -> bool {
        let stream = self.streams.get(&stream);
        stream.is_some_and(|stream| stream.miswired)
    }

    pub fn is_open(&self, stream: u64, now: Time) -> bool {
        let stream = self.streams.get(&stream);
        stream.is_some_and(|stream| stream.closed.is_none_or(|closed| now < closed))
    }

    /// Nothing arrives any more from then on. `false` where that was so before.
    pub fn close(&mut self, stream: u64, at: Time) -> bool {
        let Some(stream) = self.streams.get_mut(&stream) else {
            return false;
        };
        let first = stream.closed.is_none();
        stream.closed.get_or_insert(at);
        first
    }

    /// When the ends of a stream hear of what happens to it at that time.
    pub fn heard(&self, stream: u64, at: Time) -> Time {
        let cut = self.streams.get(&stream);
        let cut = cut.and_then(|it| self.cut_until(at, it.catalog, it.gateway.node));
        cut.unwrap_or(at)
    }

    /// The open streams, of one gateway or of one of several catalogs where one is given.
    pub fn open_streams(&self, of: Option<Node>) -> Vec<u64> {
        let open = self.streams.iter().filter(|(_, stream)| {
            let ends = [stream.gateway.node, stream.catalog];
            stream.closed.is_none() && of.is_none_or(|node| ends.contains(&node))
        });
        open.map(|(&id, _)| id).collect()
    }
}
