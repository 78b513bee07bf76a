//! What one client does: look up, order, and in the end ask for every order it placed.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use domain::Side;
use fastrand::Rng;
use http::header::CONTENT_TYPE;
use http::{Request, Response, StatusCode};
use indicatif::ProgressBar;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;

use super::Run;
use super::connection::Connection;
use super::figures::{Failure, Figures, RequestKind};
use crate::answer::{self, Acknowledged, Found, Order, Stock};
use crate::client::ClientError;

/// An order is about 1 to so many shares.
const QUANTITY_MAX: u64 = 10;

/// The one refusal that is as good an answer as a number.
const NOT_ENOUGH: &str = "not enough stocks available to buy";

/// An order that was acknowledged.
#[derive(Debug)]
pub struct Placed {
    /// The number that it got.
    pub number: u64,
    order: Order,
}

#[derive(Debug)]
pub struct Trader {
    number: u64,
    run: Arc<Run>,
    random: Rng,
    connection: Connection,
    placed: Vec<Placed>,
    figures: Figures,
}

impl Trader {
    /// The client of that number, with choices of its own, which the run's seed can repeat.
    pub fn new(number: u64, random: Rng, run: Arc<Run>) -> Self {
        Self {
            number,
            random,
            connection: Connection::to(run.server.clone()),
            placed: Vec::new(),
            figures: Figures::default(),
            run,
        }
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    /// The orders that were acknowledged to it.
    pub fn placed(&self) -> &[Placed] {
        &self.placed
    }

    /// What it has measured.
    pub fn into_figures(self) -> Figures {
        self.figures
    }

    /// Looks up a random stock, and orders it with the run's probability; again and again.
    pub async fn trade(&mut self, bar: &ProgressBar) {
        let run = self.run.clone();
        let began = tokio::time::Instant::now();
        for iteration in 0..run.iterations {
            tokio::time::sleep_until(began + run.due(self.number, iteration)).await;
            let stock = &run.stocks[self.random.usize(..run.stocks.len())];
            let trades = self.random.f64() < run.trade_probability;
            let order = trades.then(|| self.draw_order(stock));
            self.look_up(stock).await;
            if let Some(order) = order {
                self.place(order, iteration).await;
            }
            bar.inc(1);
        }
    }

    /// Asks for every order that was acknowledged, and compares.
    pub async fn check(&mut self, bar: &ProgressBar) {
        for placed in std::mem::take(&mut self.placed) {
            let request = Request::get(format!("/orders/{}", placed.number)).body(Bytes::new());
            let found = self.ask::<Found>(RequestKind::Query, request).await;
            if let Some(found) = found
                && (found.number, &found.order) != (placed.number, &placed.order)
            {
                self.figures.mismatches.push(format!(
                    "order {} was placed as {} and found as order {}, {}",
                    placed.number, placed.order, found.number, found.order
                ));
            }
            bar.inc(1);
        }
    }

    fn draw_order(&mut self, stock: &str) -> Order {
        let side = if self.random.bool() {
            Side::Buy
        } else {
            Side::Sell
        };
        Order {
            name: stock.to_owned(),
            side,
            quantity: self.random.u64(1..=QUANTITY_MAX),
        }
    }

    async fn look_up(&mut self, stock: &str) {
        let request = Request::get(format!(
            "/stocks/{}",
            utf8_percent_encode(stock, NON_ALPHANUMERIC)
        ))
        .body(Bytes::new());
        let found = self.ask::<Stock>(RequestKind::Lookup, request).await;
        if let Some(found) = found
            && found.name != stock
        {
            self.figures
                .mismatches
                .push(format!("{stock} was looked up and {} found", found.name));
        }
    }

    async fn place(&mut self, order: Order, iteration: u64) {
        let key = format!("{}-{}-{iteration}", self.run.key_prefix, self.number);
        let body = serde_json::to_vec(&order).expect("text and numbers are JSON");
        let request = Request::post("/orders")
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", format!("\"{key}\""))
            .body(body.into());
        if let Some(acknowledged) = self.ask::<Acknowledged>(RequestKind::Trade, request).await {
            self.placed.push(Placed {
                number: acknowledged.transaction_number,
                order,
            });
        }
    }

    /// Sends a request and takes note of how long the answer took, or why there was none.
    async fn ask<T: DeserializeOwned>(
        &mut self,
        kind: RequestKind,
        request: http::Result<Request<Bytes>>,
    ) -> Option<T> {
        let start = Instant::now();
        let answered = match request {
            Ok(request) => self.connection.send(request).await,
            Err(error) => Err(ClientError::Request(error)),
        };
        match understand(kind, answered) {
            Ok(Answer::Data(data)) => {
                self.figures.answered(kind, start.elapsed());
                Some(data)
            }
            Ok(Answer::NotEnough) => {
                self.figures.answered(kind, start.elapsed());
                self.figures.refused += 1;
                None
            }
            Err((failure, example)) => {
                self.figures.failed_with(kind, failure, example);
                None
            }
        }
    }
}

enum Answer<T> {
    Data(T),
    NotEnough,
}

/// What an answer means; else the kind of failure, and what exactly it was.
fn understand<T: DeserializeOwned>(
    kind: RequestKind,
    answered: Result<Response<Bytes>, ClientError>,
) -> Result<Answer<T>, (Failure, String)> {
    let response = answered.map_err(|error| (Failure::of(&error), error.to_string()))?;
    let (status, body) = (response.status(), response.into_body());
    if status == StatusCode::OK {
        let parsed = answer::parse(&body).map(Answer::Data);
        return parsed.map_err(|error| {
            (
                Failure::Nonsense,
                format!("{error}: {}", answer::beginning(&body)),
            )
        });
    }
    if kind == RequestKind::Trade
        && answer::refusal(&body).is_some_and(|message| message == NOT_ENOUGH)
    {
        return Ok(Answer::NotEnough);
    }
    Err((Failure::Status(status.as_u16()), answer::beginning(&body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Server;

    /// What the clients of a run want to order.
    fn orders(seed: u64) -> [Vec<Order>; 2] {
        let run = Arc::new(Run {
            server: Server::pinned("localhost:1".parse().unwrap(), None).unwrap(),
            clients: 2,
            iterations: 0,
            trade_probability: 1.0,
            rate: None,
            seed,
            key_prefix: String::new(),
            stocks: Arc::new([]),
        });
        let mut traders = run.traders();
        let mut orders = || {
            let mut trader = traders.next().unwrap();
            (0..20).map(|_| trader.draw_order("meta")).collect()
        };
        [orders(), orders()]
    }

    #[test]
    fn clients_take_turns_at_a_rate() {
        let run = |rate| Run {
            server: Server::pinned("localhost:1".parse().unwrap(), None).unwrap(),
            clients: 2,
            iterations: 3,
            trade_probability: 1.0,
            rate,
            seed: 1,
            key_prefix: String::new(),
            stocks: Arc::new([]),
        };
        let due = |run: &Run| {
            [(0, 0), (1, 0), (0, 1), (1, 2)]
                .map(|(client, iteration)| run.due(client, iteration).as_millis())
        };
        assert_eq!(due(&run(Some(4.0))), [0, 250, 500, 1250]);
        assert_eq!(due(&run(None)), [0; 4]);
    }

    #[test]
    fn a_seed_repeats_its_choices_and_clients_differ() {
        let [one, other] = orders(7);
        assert_eq!([&one, &other], orders(7).each_ref());
        assert_ne!(one, other);
        assert_ne!(one, orders(8)[0]);
        let mut quantities = one.iter().chain(&other).map(|order| order.quantity);
        assert!(quantities.all(|quantity| (1..=QUANTITY_MAX).contains(&quantity)));
    }

    fn response(status: u16, body: &'static str) -> Result<Response<Bytes>, ClientError> {
        Ok(Response::builder()
            .status(status)
            .body(Bytes::from_static(body.as_bytes()))
            .unwrap())
    }

    #[test]
    fn an_answer_is_data_or_a_refusal_or_a_failure() {
        let refused = r#"{"error":{"code":404,"message":"not enough stocks available to buy"}}"#;
        let number = understand::<Acknowledged>(
            RequestKind::Trade,
            response(200, r#"{"data":{"transaction_number":7}}"#),
        );
        assert!(matches!(
            number,
            Ok(Answer::Data(Acknowledged {
                transaction_number: 7
            }))
        ));
        let outcome = |kind, status, body| {
            understand::<Stock>(kind, response(status, body)).map_err(|(failure, _)| failure)
        };
        assert!(matches!(
            outcome(RequestKind::Trade, 404, refused),
            Ok(Answer::NotEnough)
        ));
        assert!(matches!(
            outcome(RequestKind::Lookup, 404, refused),
            Err(Failure::Status(404))
        ));
        assert!(matches!(
            outcome(RequestKind::Trade, 503, "{}"),
            Err(Failure::Status(503))
        ));
        assert!(matches!(
            outcome(RequestKind::Lookup, 200, "{}"),
            Err(Failure::Nonsense)
        ));
    }
}
