//! Carries out a decision's reads and trades at the backends.
//!
//! A trade has one idempotency key through every attempt, so however many leaders it meets it
//! is made once. An attempt is given up as soon as another leader is known.

use std::sync::Arc;
use std::time::Duration;

use frontend_core::election::Led;
use protocol::wire::catalog::v1::catalog_client::CatalogClient;
use protocol::wire::catalog::v1::{self as catalog, GetStockRequest, ListStocksRequest};
use protocol::wire::order::v1::GetRequest;
use protocol::wire::order::v1::place_many_response::answer;
use protocol::{Invalid, OrderNumber, Price, ReplicaId, Row, SessionId, StockName, Version};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::policy::decision::{Order, Outcome, Refusal, Stock, Unavailability};
use crate::replicas::{Replica, Replicas};

/// Pause between two attempts that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// How long one replica may keep a read before the next is asked.
const ATTEMPT_TIME_MAX: Duration = Duration::from_millis(500);

/// Stocks that one listing may hold: what a policy's memory has room for.
const LISTED_MAX: usize = 200_000;

/// The catalog and the order replicas.
pub struct Backend {
    /// How to call the catalog.
    pub catalog: CatalogClient<Channel>,
    /// The order replicas.
    pub replicas: Arc<Replicas>,
}

/// What the catalog said of a stock.
pub enum StockAnswer {
    /// It is there.
    Found {
        /// As it is.
        stock: Stock,
        /// Its version.
        version: Version,
        /// The catalog will tell the session of changes.
        registered: bool,
    },
    /// There is none.
    NotFound,
}

impl Backend {
    /// Reads a stock at the catalog.
    pub async fn read_stock(
        &self,
        name: &StockName,
        session: Option<SessionId>,
        deadline: Instant,
    ) -> Result<StockAnswer, Unavailability> {
        loop {
            let request = GetStockRequest {
                name: name.as_str().to_owned(),
                session: session.map_or(0, SessionId::get),
            };
            let mut catalog = self.catalog.clone();
            let problem = match timeout_at(deadline, catalog.get_stock(request)).await {
                Ok(Ok(answer)) => match read_answer(answer.into_inner()) {
                    Ok(answer) => return Ok(answer),
                    Err(invalid) => invalid.into(),
                },
                Ok(Err(status)) if status.code() == Code::NotFound => {
                    return Ok(StockAnswer::NotFound);
                }
                Ok(Err(status)) => status,
                Err(_) => return Err(Unavailability::NoCatalog),
            };
            pause(&problem, deadline)
                .await
                .ok_or(Unavailability::NoCatalog)?;
        }
    }

    /// Reads all stocks at the catalog.
    pub async fn list_stocks(&self, deadline: Instant) -> Result<Vec<Stock>, Unavailability> {
        loop {
            let problem = match timeout_at(deadline, self.list()).await {
                Ok(Ok(stocks)) => return Ok(stocks),
                Ok(Err(status)) => status,
                Err(_) => return Err(Unavailability::NoCatalog),
            };
            pause(&problem, deadline)
                .await
                .ok_or(Unavailability::NoCatalog)?;
        }
    }

    async fn list(&self) -> Result<Vec<Stock>, Status> {
        let mut catalog = self.catalog.clone();
        let mut pages = catalog
            .list_stocks(ListStocksRequest {})
            .await?
            .into_inner();
        let mut stocks = Vec::new();
        while let Some(page) = pages.message().await? {
            for stock in page.stocks {
                stocks.push(read_stock(stock)?.0);
            }
            if stocks.len() > LISTED_MAX {
                return Err(Status::resource_exhausted(format!(
                    "more than {LISTED_MAX} stocks to list"
                )));
            }
        }
        Ok(stocks)
    }

    /// Places an order with whoever leads, until one answers.
    pub async fn trade(&self, order: &protocol::Order, deadline: Instant) -> Outcome {
        let mut leader = self.replicas.leader();
        loop {
            let led = *leader.borrow_and_update();
            let replica = led.leadership.leader.and_then(|id| self.replicas.get(id));
            let Some(replica) = replica else {
                if timeout_at(deadline, leader.changed()).await.is_err() {
                    return self.unavailable();
                }
                continue;
            };
            let problem = tokio::select! {
                placed = timeout_at(deadline, place(replica, order)) => match placed {
                    Ok(Ok(outcome)) => return outcome,
                    Ok(Err(status)) => status,
                    Err(_) => return self.unavailable(),
                },
                () = replaced(&mut leader, replica.id) => continue,
            };
            self.replicas.suspect();
            tracing::debug!(replica = %replica.id, status = %problem, "order not placed, trying again");
            let wake = deadline.min(Instant::now() + RETRY_PAUSE);
            if timeout_at(wake, leader.changed()).await.is_err() && Instant::now() >= deadline {
                return self.unavailable();
            }
        }
    }

    /// Reads an order at any replica that answers; the leader is asked first.
    pub async fn read_order(&self, number: OrderNumber, deadline: Instant) -> Outcome {
        loop {
            for replica in self.readers() {
                let mut client = replica.orders.clone();
                let patience = deadline.min(Instant::now() + ATTEMPT_TIME_MAX);
                let answer =
                    timeout_at(patience, client.get(GetRequest { number: number.0 })).await;
                match answer {
                    Ok(Ok(answer)) => match answer.into_inner().row.map(Row::try_from) {
                        Some(Ok(row)) if row.number == number => {
                            return Outcome::Order(order_of(&row));
                        }
                        _ => {
                            tracing::error!(replica = %replica.id, %number, "a replica's answer makes no sense")
                        }
                    },
                    Ok(Err(status)) if status.code() == Code::NotFound => {
                        return Outcome::Refused(Refusal::OrderNotFound);
                    }
                    Ok(Err(status)) => {
                        tracing::debug!(replica = %replica.id, %status, "order not read");
                    }
                    Err(_) => tracing::debug!(replica = %replica.id, "order not read in time"),
                }
            }
            self.replicas.suspect();
            if Instant::now() + RETRY_PAUSE >= deadline {
                return self.unavailable();
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// The replicas in the order in which they are asked: the leader, then the healthy ones,
    /// then the rest, whose probes may be behind the times.
    fn readers(&self) -> Vec<Replica> {
        let leader = self.replicas.leader().borrow().leadership.leader;
        let (all, probed) = self.replicas.all();
        let mut ranked: Vec<_> = all
            .iter()
            .zip(probed)
            .map(|(replica, probed)| {
                let healthy = probed.status.is_ok();
                let rank = if healthy && Some(replica.id) == leader {
                    0
                } else {
                    2 - u8::from(healthy)
                };
                (rank, replica)
            })
            .collect();
        ranked.sort_by_key(|(rank, _)| *rank);
        ranked
            .into_iter()
            .map(|(_, replica)| replica.clone())
            .collect()
    }

    /// Which backend is to blame.
    fn unavailable(&self) -> Outcome {
        let catalog_answers = self.replicas.journal().is_some();
        Outcome::Unavailable(if catalog_answers {
            Unavailability::NoReplica
        } else {
            Unavailability::NoCatalog
        })
    }
}

/// Ends when another replica leads.
async fn replaced(leader: &mut tokio::sync::watch::Receiver<Led>, replica: ReplicaId) {
    let over = leader
        .wait_for(|led| led.leadership.leader != Some(replica))
        .await
        .is_err();
    if over {
        // The watch is over because the gateway stops; the call's deadline ends it.
        std::future::pending::<()>().await;
    }
}

/// Waits before the next attempt; `None` where there is no time for one.
async fn pause(problem: &Status, deadline: Instant) -> Option<()> {
    tracing::debug!(status = %problem, "the catalog did not answer, trying again");
    if problem.code() == Code::ResourceExhausted || Instant::now() + RETRY_PAUSE >= deadline {
        return None;
    }
    sleep(RETRY_PAUSE).await;
    Some(())
}

async fn place(replica: &Replica, order: &protocol::Order) -> Result<Outcome, Status> {
    match replica.placing.place(order).await? {
        answer::Result::Number(number) => Ok(Outcome::Traded(OrderNumber(number))),
        answer::Result::Refusal(refusal) => Ok(Outcome::Refused(read_refusal(refusal)?)),
        answer::Result::Unavailable(why) => Err(Status::unavailable(why)),
        answer::Result::Invalid(why) => Err(Status::invalid_argument(why)),
    }
}

fn read_refusal(refusal: i32) -> Result<Refusal, Status> {
    match catalog::Refusal::try_from(refusal) {
        Ok(catalog::Refusal::StockNotFound) => Ok(Refusal::StockNotFound),
        Ok(catalog::Refusal::NotEnough) => Ok(Refusal::NotEnough),
        Ok(catalog::Refusal::KeyConflict) => Ok(Refusal::KeyConflict),
        Ok(catalog::Refusal::TooMany) => Ok(Refusal::TooMany),
        Ok(catalog::Refusal::Unspecified) | Err(_) => {
            Err(Status::internal("a refusal that is not known here"))
        }
    }
}

fn read_answer(answer: catalog::GetStockResponse) -> Result<StockAnswer, Invalid> {
    let stock = answer
        .stock
        .ok_or_else(|| Invalid::new("stock", "is missing from the catalog's answer"))?;
    let (stock, version) = read_stock(stock)?;
    Ok(StockAnswer::Found {
        stock,
        version,
        registered: answer.cacheable,
    })
}

fn read_stock(stock: catalog::Stock) -> Result<(Stock, Version), Invalid> {
    let price = Price::from_minor(stock.price_minor)?;
    Ok((
        Stock {
            name: StockName::new(&stock.name)?,
            price,
            quantity: stock.quantity,
        },
        Version(stock.version),
    ))
}

fn order_of(row: &Row) -> Order {
    Order {
        number: row.number,
        name: row.order.name.clone(),
        side: row.order.side,
        quantity: row.order.quantity,
    }
}
