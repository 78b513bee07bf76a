//! Carries out a decision's reads and trades at the backends.
//!
//! A trade has one idempotency key through every attempt, so however many leaders it meets it
//! is made once. An attempt is given up as soon as another leader is known.
//!
//! Whoever waits for a backend that does not answer does not ask it: `replicas` does, for all, and
//! their own attempts follow when it answers. What no attempt can mend is not tried again, and nobody
//! is suspected for it: `RetryClass` says which failures those are.

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::time::BootTime;
use domain::{Invalid, OrderNumber, Price, ReplicaId, Row, SessionId, StockName, Version};
use frontend_core::Backoff;
use frontend_core::election::{CurrentLeader, reading_order};
use frontend_core::timing::ATTEMPT_TIME_MAX;
use rpc::retry::{RetryClass, RetryStatus as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};
use wire::Malformed;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::catalog::v1::{self as catalog, GetStockRequest, ListStocksRequest};
use wire::order::v1::GetRequest;
use wire::order::v1::place_many_response::answer;

use crate::upstream::replicas::{Replica, Replicas};
use frontend_policy::decision::{Order, Outcome, Page, Refusal, Stock, Unavailability};

/// The catalog and the order replicas.
pub struct Backend {
    /// How to call the catalog.
    pub catalog: CatalogClient<Channel>,
    pub replicas: Arc<Replicas>,
}

/// What the catalog said of a stock.
pub enum StockAnswer {
    Found {
        stock: Stock,
        version: Version,
        /// The catalog will tell the session of changes.
        registered: bool,
    },
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
        let read = || self.read_stock_once(name, session);
        self.ask_catalog(deadline, read).await
    }

    /// Reads a page of the stocks at the catalog: at most `limit` of those whose names come after
    /// `after`.
    pub async fn list_stocks(
        &self,
        after: Option<&StockName>,
        limit: u32,
        deadline: Instant,
    ) -> Result<Page, Unavailability> {
        let list = || self.list_stocks_once(after, limit);
        self.ask_catalog(deadline, list).await
    }

    /// Asks the catalog until it answers. A catalog that does not is asked by the elector, for all
    /// who wait; their own questions follow when it answers.
    async fn ask_catalog<T, F>(
        &self,
        deadline: Instant,
        ask: impl Fn() -> F,
    ) -> Result<T, Unavailability>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut pause = Backoff::of_request();
        let mut failed = None;
        let asking = async {
            loop {
                self.replicas.catalog_answers(failed).await;
                match ask().await {
                    Ok(answer) => return Some(answer),
                    Err(status) if RetryClass::of(&status) == RetryClass::Later => {
                        tracing::debug!(%status, "the catalog did not answer");
                    }
                    // There is no other one to ask.
                    Err(status) => {
                        tracing::error!(%status, "the catalog cannot answer");
                        return None;
                    }
                }
                failed = Some(BootTime::now());
                self.replicas.suspect_catalog();
                sleep(pause.pause(fastrand::f64())).await;
            }
        };
        let answer = timeout_at(deadline, asking).await;
        answer.ok().flatten().ok_or(Unavailability::NoCatalog)
    }

    async fn read_stock_once(
        &self,
        name: &StockName,
        session: Option<SessionId>,
    ) -> Result<StockAnswer, Status> {
        let request = GetStockRequest {
            name: name.as_str().to_owned(),
            session: session.map_or(0, SessionId::get),
            journal: self.replicas.own_journal().to_wire(),
        };
        match self.catalog.clone().get_stock(request).await {
            Ok(answer) => Ok(read_answer(answer.into_inner()).map_err(Malformed)?),
            Err(status) if status.code() == Code::NotFound => Ok(StockAnswer::NotFound),
            Err(status) => Err(status),
        }
    }

    async fn list_stocks_once(
        &self,
        after: Option<&StockName>,
        limit: u32,
    ) -> Result<Page, Status> {
        let request = ListStocksRequest {
            after: after.map_or_else(String::new, |after| after.as_str().to_owned()),
            limit,
            journal: self.replicas.own_journal().to_wire(),
        };
        let answer = self.catalog.clone().list_stocks(request).await?;
        Ok(read_page(answer.into_inner()).map_err(Malformed)?)
    }

    /// Places an order with whoever leads, until one answers.
    pub async fn trade(&self, order: &domain::Order, deadline: Instant) -> Outcome {
        let mut leader = self.replicas.leader();
        let mut pause = Backoff::of_request();
        let mut failed = None;
        loop {
            let led = *leader.borrow_and_update();
            let replica = led.leadership.leader.and_then(|id| self.replicas.get(id));
            let Some(replica) = replica else {
                if timeout_at(deadline, leader.changed()).await.is_err() {
                    return self.unavailable();
                }
                continue;
            };
            let ready = self.replicas.may_take_orders(replica.id, failed);
            tokio::select! {
                ready = timeout_at(deadline, ready) => if ready.is_err() {
                    return self.unavailable();
                },
                () = until(&mut leader, |now| now != led) => {
                    failed = None;
                    continue;
                }
            }
            let problem = tokio::select! {
                placed = timeout_at(deadline, place(replica, order)) => match placed {
                    Ok(Ok(outcome)) => return outcome,
                    Ok(Err(status)) => status,
                    Err(_) => return self.unavailable(),
                },
                () = until(&mut leader, |now| now.leadership.leader != Some(replica.id)) => {
                    failed = None;
                    continue;
                }
            };
            match RetryClass::of(&problem) {
                RetryClass::Never => {
                    tracing::error!(replica = %replica.id, status = %problem, "nobody can place this order");
                    return Outcome::Unavailable(Unavailability::NoReplica);
                }
                RetryClass::Elsewhere => {
                    tracing::error!(replica = %replica.id, status = %problem, "the leader cannot place an order, waiting for another one");
                    self.replicas.suspect();
                    let other = until(&mut leader, |now| now.leadership != led.leadership);
                    if timeout_at(deadline, other).await.is_err() {
                        return self.unavailable();
                    }
                    failed = None;
                }
                RetryClass::Later => {
                    tracing::debug!(replica = %replica.id, status = %problem, "order not placed, trying again");
                    failed = Some(BootTime::now());
                    self.replicas.suspect();
                    let wake = deadline.min(Instant::now() + pause.pause(fastrand::f64()));
                    if timeout_at(wake, leader.changed()).await.is_ok() {
                        failed = None;
                    }
                }
            }
        }
    }

    /// Reads an order at any replica that answers; the leader is asked first.
    pub async fn read_order(&self, number: OrderNumber, deadline: Instant) -> Outcome {
        let mut pause = Backoff::of_request();
        let reading = async {
            let mut out = BTreeSet::new();
            loop {
                match self.read_order_once(number, &mut out).await {
                    Ok(outcome) => return outcome,
                    Err(RetryClass::Later) => {}
                    Err(RetryClass::Elsewhere | RetryClass::Never) => {
                        return Outcome::Unavailable(Unavailability::NoReplica);
                    }
                }
                let failed = BootTime::now();
                self.replicas.suspect();
                sleep(pause.pause(fastrand::f64())).await;
                self.replicas.any_answers(failed).await;
            }
        };
        let read = timeout_at(deadline, reading).await;
        read.unwrap_or_else(|_| self.unavailable())
    }

    /// Asks one replica after another but for those that are `out`: they would not answer this,
    /// whenever they are asked.
    async fn read_order_once(
        &self,
        number: OrderNumber,
        out: &mut BTreeSet<ReplicaId>,
    ) -> Result<Outcome, RetryClass> {
        for replica in self.readers() {
            if out.contains(&replica.id) {
                continue;
            }
            let read = timeout(ATTEMPT_TIME_MAX, self.read_order_at(replica, number)).await;
            let Ok(read) = read else {
                tracing::debug!(replica = %replica.id, "order not read in time");
                continue;
            };
            let status = match read {
                Ok(outcome) => return Ok(outcome),
                Err(status) => status,
            };
            match RetryClass::of(&status) {
                RetryClass::Later => {
                    tracing::debug!(replica = %replica.id, %status, "order not read");
                }
                RetryClass::Elsewhere => {
                    tracing::error!(replica = %replica.id, %number, %status, "a replica cannot give an order");
                    out.insert(replica.id);
                }
                RetryClass::Never => {
                    tracing::error!(replica = %replica.id, %number, %status, "nobody can give this order");
                    return Err(RetryClass::Never);
                }
            }
        }
        let is_out = |replica: &Replica| out.contains(&replica.id);
        Err(match self.replicas.all().0.iter().all(is_out) {
            true => RetryClass::Elsewhere,
            false => RetryClass::Later,
        })
    }

    async fn read_order_at(
        &self,
        replica: &Replica,
        number: OrderNumber,
    ) -> Result<Outcome, Status> {
        let request = GetRequest {
            number: number.0,
            journal: self.replicas.own_journal().to_wire(),
        };
        match replica.orders.clone().get(request).await {
            Ok(answer) => match answer.into_inner().row.map(Row::try_from) {
                Some(Ok(row)) if row.number == number => Ok(Outcome::Order(order_of(&row))),
                _ => Err(RetryClass::Elsewhere.status(Code::Internal, "the answer makes no sense")),
            },
            Err(status) if status.code() == Code::NotFound => {
                Ok(Outcome::Refused(Refusal::OrderNotFound))
            }
            Err(status) => Err(status),
        }
    }

    /// The replicas in the order in which they are asked.
    fn readers(&self) -> impl Iterator<Item = &Replica> {
        let leadership = self.replicas.leader().borrow().leadership;
        let (_, probed) = self.replicas.all();
        let order = reading_order(leadership, &probed);
        order.into_iter().filter_map(|id| self.replicas.get(id))
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

/// Waits until that is so of who leads.
async fn until(leader: &mut watch::Receiver<CurrentLeader>, is_so: impl Fn(CurrentLeader) -> bool) {
    if leader.wait_for(|led| is_so(*led)).await.is_err() {
        // The watch is over because the gateway stops; the call's deadline ends it.
        std::future::pending::<()>().await;
    }
}

async fn place(replica: &Replica, order: &domain::Order) -> Result<Outcome, Status> {
    match replica.order_streams.place(order).await? {
        answer::Result::Number(number) => Ok(Outcome::Traded(OrderNumber(number))),
        answer::Result::Refusal(refusal) => Ok(Outcome::Refused(read_refusal(refusal)?)),
        answer::Result::Unavailable(why) => Err(RetryClass::Later.status(Code::Unavailable, why)),
        answer::Result::Invalid(why) => Err(RetryClass::Never.status(Code::InvalidArgument, why)),
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

fn read_page(page: catalog::ListStocksResponse) -> Result<Page, Invalid> {
    let stocks = page.stocks.into_iter().map(read_stock);
    let stocks = stocks.map(|read| read.map(|(stock, _)| stock));
    Ok(Page {
        stocks: stocks.collect::<Result<_, _>>()?,
        more: page.more,
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

#[cfg(test)]
mod tests;
