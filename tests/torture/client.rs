//! Clients that look up, trade and query, and write down what they were told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use crate::harness::{Order, Response, try_request};

use super::history::{Attempt, Clock, FoundOrder, History, Seen, Trade};
use super::judge::{NEVER, Span};

/// How long clients wait for an answer, drawn anew for each request: often not as long as the
/// gateway takes, so that a retry meets its own first attempt under way at the other gateway.
const PATIENCE: [Duration; 3] = [
    Duration::from_millis(150),
    Duration::from_secs(1),
    Duration::from_secs(30),
];

/// Pause after a request that was not answered.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Pause between two operations, at most: keeps the machine from being all clients.
const THINK_TIME_MAX: Duration = Duration::from_millis(8);

/// Longest that an order may stay without an answer once everything is healed.
const SETTLE_TIME_MAX: Duration = Duration::from_secs(90);

/// How it ends what is wrong where [`look_at_the_end`] got no answer.
pub const UNANSWERED: &str = "reads were not answered though all is healed";

#[derive(Debug, Clone, Copy)]
pub struct Door {
    pub address: SocketAddr,
    /// How old the stocks may be that its policy serves.
    pub stale_max: Duration,
}

/// What all clients of a run share.
pub struct Scene {
    /// Where clients ask. The last one serves what is current.
    pub gateways: Vec<Door>,
    pub stocks: &'static [&'static str],
    pub clock: Clock,
    /// Set when faults are over and clients shall finish.
    pub finish: AtomicBool,
    /// One more than the highest number that any client was told.
    pub numbers: AtomicU64,
    /// The end of the name of every key of this run.
    pub seed: u64,
}

/// Acts until it shall finish, and then until its last order is answered.
pub fn act(scene: &Scene, client: usize) -> History {
    let mut client = Client {
        scene,
        random: Rng::with_seed(scene.seed ^ (client as u64 + 1) << 32),
        name: format!("client-{client}"),
        history: History::default(),
    };
    while !scene.finish.load(Ordering::Relaxed) {
        client.act_once();
        thread::sleep(THINK_TIME_MAX.mul_f64(client.random.f64()));
    }
    client.history
}

/// Looks up every stock and every order at every gateway once more. All is healed, so each
/// must be answered.
pub fn look_at_the_end(scene: &Scene) -> History {
    let mut history = History::default();
    for gateway in 0..scene.gateways.len() {
        let mut client = Client {
            scene: &Scene {
                gateways: vec![scene.gateways[gateway]],
                finish: AtomicBool::new(true),
                numbers: AtomicU64::new(scene.numbers.load(Ordering::Relaxed)),
                ..*scene
            },
            random: Rng::with_seed(scene.seed),
            name: String::new(),
            history: History::default(),
        };
        for stock in scene.stocks {
            client.look_up(stock);
        }
        for number in 0..scene.numbers.load(Ordering::Relaxed) {
            client.query(number);
        }
        if client.history.unanswered > 0 {
            let wrong = format!(
                "gateway {gateway}: {} {UNANSWERED}",
                client.history.unanswered
            );
            client.history.wrong_answers.push(wrong);
        }
        history.append(client.history);
    }
    history
}

struct Client<'a> {
    scene: &'a Scene,
    random: Rng,
    name: String,
    history: History,
}

impl Client<'_> {
    fn act_once(&mut self) {
        let stocks = self.scene.stocks;
        let stock = stocks[self.random.usize(0..stocks.len())];
        match self.random.u32(0..100) {
            0..55 => self.look_up(stock),
            55..58 => self.list(),
            58..83 => self.trade(stock),
            83..88 => self.trade_again(),
            _ => {
                // Also numbers that nobody was given yet, and often those that a replica that
                // is behind lacks.
                let known = self.scene.numbers.load(Ordering::Relaxed);
                let back = if self.random.bool() { 3 } else { 200 };
                let oldest = known.saturating_sub(back);
                let number = self.random.u64(oldest..known + 3);
                self.query(number);
            }
        }
    }

    /// What may be old is right where it was right at any time within its bound.
    fn look_up(&mut self, stock: &str) {
        let door = self.door();
        let (mut span, answer) = self.send_to(door, "GET", &format!("/stocks/{stock}"), None, b"");
        let stale_max = u64::try_from(door.stale_max.as_nanos()).expect("bounds are short");
        span.began = span.began.saturating_sub(stale_max);
        if let Some(answer) = self.answered(&answer, 200) {
            self.saw_stock(span, &answer["data"]);
        }
    }

    fn list(&mut self) {
        let (span, answer) = self.send("GET", "/stocks", None, b"");
        if let Some(answer) = self.answered(&answer, 200) {
            for stock in answer["data"].as_array().into_iter().flatten() {
                self.saw_stock(span, stock);
            }
        }
    }

    fn saw_stock(&mut self, span: Span, stock: &Value) {
        match (stock["name"].as_str(), stock["quantity"].as_i64()) {
            (Some(name), Some(quantity)) => {
                let name = name.to_owned();
                self.history
                    .seen
                    .push((span, Seen::Quantity { name, quantity }));
            }
            _ => self
                .history
                .wrong_answers
                .push(format!("a stock that is none: {stock}")),
        }
    }

    fn query(&mut self, number: u64) {
        let (span, answer) = self.send("GET", &format!("/orders/{number}"), None, b"");
        let absent = is_refusal(&answer, "transaction not found");
        if absent {
            self.history.seen.push((
                span,
                Seen::Order {
                    number,
                    found: None,
                },
            ));
        } else if let Some(answer) = self.answered(&answer, 200) {
            let order = &answer["data"];
            let text = |field: &str| order[field].as_str().unwrap_or_default().to_owned();
            let found = FoundOrder {
                name: text("name"),
                side: text("type"),
                quantity: order["quantity"].as_i64().unwrap_or_default(),
            };
            if order["number"].as_u64() != Some(number) {
                let wrong = format!("asked for order {number}, got {order}");
                self.history.wrong_answers.push(wrong);
            }
            let found = Some(found);
            self.history
                .seen
                .push((span, Seen::Order { number, found }));
        }
    }

    /// Places an order and tries until it is answered, but for some that it forgets about.
    fn trade(&mut self, stock: &'static str) {
        let quantity = self.random.i64(1..100);
        // Buys prevail, so that stocks run out and orders are refused.
        let order = if self.random.u32(0..100) < 55 {
            Order::buy(quantity, stock)
        } else {
            Order::sell(quantity, stock)
        };
        let key = format!("{}-{}", self.name, self.history.trades.len());
        let trade = Trade {
            order: order.clone(),
            attempts: Vec::new(),
        };
        self.history.trades.insert(key.clone(), trade);
        let forgets = self.random.u32(0..10) == 0;
        let mut settling = None;
        loop {
            let attempt = self.place(&key, &order);
            let finish = self.scene.finish.load(Ordering::Relaxed);
            if attempt != Attempt::Unknown || forgets {
                return;
            }
            let since = *settling.get_or_insert_with(Instant::now);
            if !finish {
                settling = None;
            } else if since.elapsed() > SETTLE_TIME_MAX {
                let wrong = format!("{key} was not answered though all is healed");
                self.history.wrong_answers.push(wrong);
                return;
            }
            thread::sleep(RETRY_PAUSE);
        }
    }

    /// Places one of its own orders once more, or another one under the same key.
    fn trade_again(&mut self) {
        let recent = self
            .history
            .trades
            .len()
            .saturating_sub(self.random.usize(1..10));
        let key = format!("{}-{recent}", self.name);
        let Some(trade) = self.history.trades.get(&key) else {
            return;
        };
        let order = trade.order.clone();
        let placed = |(_, attempt): &(Span, Attempt)| matches!(attempt, Attempt::Number(_));
        if trade.attempts.iter().any(placed) && self.random.bool() {
            let other = Order {
                quantity: order.quantity + 1,
                ..order
            };
            self.place_conflicting(&key, &other);
        } else {
            self.place(&key, &order);
        }
    }

    fn place(&mut self, key: &str, order: &Order) -> Attempt {
        let body = order.json().to_string();
        let (span, answer) = self.send("POST", "/orders", Some(key), body.as_bytes());
        let attempt = if is_refusal(&answer, "not enough stocks available to buy") {
            Attempt::NotEnough
        } else {
            let number = self
                .answered(&answer, 200)
                .and_then(|answer| answer["data"]["transaction_number"].as_u64());
            number.map_or(Attempt::Unknown, Attempt::Number)
        };
        if let Attempt::Number(number) = attempt {
            self.scene.numbers.fetch_max(number + 1, Ordering::Relaxed);
        }
        let span = match attempt {
            Attempt::Unknown => Span {
                over: NEVER,
                ..span
            },
            _ => span,
        };
        let trade = self
            .history
            .trades
            .get_mut(key)
            .expect("it was noted before");
        trade.attempts.push((span, attempt));
        attempt
    }

    fn place_conflicting(&mut self, key: &str, order: &Order) {
        let body = order.json().to_string();
        let (_, answer) = self.send("POST", "/orders", Some(key), body.as_bytes());
        self.answered(&answer, 409);
    }

    fn door(&mut self) -> Door {
        let gateways = &self.scene.gateways;
        gateways[self.random.usize(0..gateways.len())]
    }

    /// Sends a request to either gateway.
    fn send(
        &mut self,
        method: &str,
        target: &str,
        key: Option<&str>,
        body: &[u8],
    ) -> (Span, Option<Response>) {
        let door = self.door();
        self.send_to(door, method, target, key, body)
    }

    fn send_to(
        &mut self,
        door: Door,
        method: &str,
        target: &str,
        key: Option<&str>,
        body: &[u8],
    ) -> (Span, Option<Response>) {
        let patience = if self.scene.finish.load(Ordering::Relaxed) {
            PATIENCE[PATIENCE.len() - 1]
        } else {
            PATIENCE[self.random.usize(0..PATIENCE.len())]
        };
        let headers: Vec<(&str, &str)> = key
            .map(|key| ("idempotency-key", key))
            .into_iter()
            .collect();
        let began = self.scene.clock.now();
        let answer = try_request(door.address, method, target, &headers, body, patience).ok();
        let over = self.scene.clock.now();
        let cache = answer
            .as_ref()
            .and_then(|answer| answer.header("cache-status"));
        self.history.hits += u64::from(cache.is_some_and(|status| status.contains("; hit")));
        (Span { began, over }, answer)
    }

    /// The body of an answer that has the status that is right. 503 and none at all are not
    /// wrong; whatever else comes is.
    fn answered(&mut self, answer: &Option<Response>, right: u16) -> Option<Value> {
        match answer {
            Some(answer) if answer.status == right => match serde_json::from_str(&answer.body) {
                Ok(body) => return Some(body),
                Err(_) => self
                    .history
                    .wrong_answers
                    .push(format!("not JSON: {answer:?}")),
            },
            Some(answer) if answer.status != 503 => {
                self.history
                    .wrong_answers
                    .push(format!("neither {right} nor 503: {answer:?}"));
            }
            Some(_) | None => self.history.unanswered += 1,
        }
        None
    }
}

fn is_refusal(answer: &Option<Response>, message: &str) -> bool {
    answer
        .as_ref()
        .is_some_and(|answer| answer.status == 404 && answer.body.contains(message))
}

/// Quantities as the operations at the end saw them.
pub fn quantities(history: &History) -> BTreeMap<String, i64> {
    let quantity = |(_, seen): &(Span, Seen)| match seen {
        Seen::Quantity { name, quantity } => Some((name.clone(), *quantity)),
        Seen::Order { .. } => None,
    };
    history.seen.iter().filter_map(quantity).collect()
}
