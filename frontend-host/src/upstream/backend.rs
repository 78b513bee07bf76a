//! Carries out a decision's reads, takes and trades at the backends: makes the calls that
//! [`frontend_core::attempts`] says, and tells it how they end.
//!
//! A trade has one idempotency key through every attempt, so however many leaders it meets, and on
//! however many connections, it is made once. An attempt is given up as soon as another leader is
//! known, and made on another connection as well where its own is silent.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use domain::time::BootTime;
use domain::{
    Invalid, OrderNumber, Price, Protocol, Quantity, ReplicaId, Row, RowNumber, SessionId,
    StockChange, StockName, Term, Version,
};
use frontend_core::attempts::{CatalogRead, Next, OrderRead, Placement};
use frontend_core::election::Way;
use frontend_core::timing::{ATTEMPT_TIME_MAX, LIST_TIME_MAX};
use rpc::retry::{RetryClass, RetryStatus as _};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::transport::Channel;
use tonic::{Code, Status};
use wire::Malformed;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::catalog::v1::{self as catalog, GetStockRequest, ListStocksRequest};
use wire::order::v1::place_many_response::answer;
use wire::order::v1::{GetRequest, ListRequest, ListResponse, ListedOrder};

use crate::upstream::attempt::attempt;
use crate::upstream::call::Call;
use crate::upstream::replicas::{Replica, Replicas};
use crate::upstream::takes::Takes;
use frontend_policy::decision::{
    Bucket, Order, OrderListing, OrderPage, Outcome, Page, Refusal, Stock, Unavailability,
};

/// The catalog and the order replicas.
pub struct Backend {
    /// How to call the catalog.
    pub catalog: CatalogClient<Channel>,
    /// Another connection, for reads that the first is silent about.
    pub spare_catalog: CatalogClient<Channel>,
    pub replicas: Arc<Replicas>,
    /// How to take tokens at the catalog.
    pub takes: Takes,
    /// Of who asks where orders end.
    pub end_turn: Mutex<()>,
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
        call: Call<'_>,
    ) -> Result<StockAnswer, Unavailability> {
        let read = move |catalog| self.read_stock_once(catalog, name, session, call);
        let read = || self.attempt_at_catalog(read);
        self.ask_catalog(call.deadline, read).await
    }

    /// Reads a page of the stocks at the catalog: at most `limit` of those whose names come after
    /// `after`.
    pub async fn list_stocks(
        &self,
        after: Option<&StockName>,
        limit: u32,
        call: Call<'_>,
    ) -> Result<Page, Unavailability> {
        let list = move |catalog| self.list_stocks_once(catalog, after, limit, call);
        let list = || self.attempt_at_catalog(list);
        self.ask_catalog(call.deadline, list).await
    }

    /// Takes so many tokens out of the bucket of that key, at the catalog. An attempt whose answer is
    /// lost, or late, may have taken some: never more than there are, and the client got nothing for them.
    pub async fn take(&self, bucket: &Bucket, key: &[u8], cost: u32, call: Call<'_>) -> Outcome {
        let identify = || self.takes.identify(bucket, key, cost);
        let identified = identify();
        let known_wait = identified.and_then(|take| self.takes.known_wait(&take));
        if let Some(wait) = known_wait {
            return denied(wait);
        }
        let take = || async {
            let unknown = || Status::unavailable("the journal is not known yet");
            let take = identified.or_else(identify).ok_or_else(unknown)?;
            let _span = call.begin("catalog.v1.Catalog/TakeMany");
            self.takes.take(take).await
        };
        match self.ask_catalog(call.deadline, take).await {
            Ok(Ok(())) => Outcome::Granted,
            Ok(Err(wait)) => denied(wait),
            Err(why) => Outcome::Unavailable(why),
        }
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
        let mut read = CatalogRead::default();
        let mut said = self.replicas.catalog_said();
        let asking = async {
            loop {
                let answered = said.borrow_and_update().answered();
                match read.next(BootTime::now(), answered) {
                    Next::Call(()) => match ask().await {
                        Ok(answer) => return Some(answer),
                        Err(status) => {
                            let class = RetryClass::of(&status);
                            log(class, "the catalog did not answer", &status);
                            read.failed(class, BootTime::now(), fastrand::f64());
                        }
                    },
                    Next::Suspect => self.replicas.suspect_catalog(),
                    Next::Wait(Some(until)) => sleep(until.since(BootTime::now())).await,
                    Next::Wait(None) => changed(&mut said).await,
                    Next::GiveUp => return None,
                }
            }
        };
        let answer = timeout_at(deadline, asking).await;
        answer.ok().flatten().ok_or(Unavailability::NoCatalog)
    }

    /// Makes an attempt, and makes it on the spare connection as well where the catalog is silent on the first. On that it is
    /// asked all the time who leads: while it answers that, a read takes as long as it takes.
    async fn attempt_at_catalog<T, F>(
        &self,
        ask: impl Fn(CatalogClient<Channel>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let make = |before: Option<&Way>| match before {
            Some(Way::Main) => (Way::Spare, ask(self.spare_catalog.clone())),
            None | Some(Way::Spare) => (Way::Main, ask(self.catalog.clone())),
        };
        let heard = |way: &Way| match way {
            Way::Main => self.replicas.catalog_said.borrow().answered(),
            Way::Spare => None,
        };
        attempt(ATTEMPT_TIME_MAX, make, heard).await
    }

    async fn read_stock_once(
        &self,
        mut catalog: CatalogClient<Channel>,
        name: &StockName,
        session: Option<SessionId>,
        call: Call<'_>,
    ) -> Result<StockAnswer, Status> {
        let request = GetStockRequest {
            name: name.as_str().to_owned(),
            session: session.map_or(0, SessionId::get),
            journal: self.replicas.own_journal().to_wire(),
        };
        let get = async |request| catalog.get_stock(request).await;
        match call.make("catalog.v1.Catalog/GetStock", request, get).await {
            Ok(answer) => Ok(read_answer(answer).map_err(Malformed)?),
            Err(status) if status.code() == Code::NotFound => Ok(StockAnswer::NotFound),
            Err(status) => Err(status),
        }
    }

    async fn list_stocks_once(
        &self,
        mut catalog: CatalogClient<Channel>,
        after: Option<&StockName>,
        limit: u32,
        call: Call<'_>,
    ) -> Result<Page, Status> {
        let request = ListStocksRequest {
            after: after.map_or_else(String::new, |after| after.as_str().to_owned()),
            limit,
            journal: self.replicas.own_journal().to_wire(),
        };
        let list = async |request| catalog.list_stocks(request).await;
        let listed = call.make("catalog.v1.Catalog/ListStocks", request, list);
        Ok(read_page(listed.await?).map_err(Malformed)?)
    }

    /// Places an order with whoever leads, until one answers.
    pub async fn trade(&self, order: &domain::Order, call: Call<'_>) -> Outcome {
        let traded = self.place_until_answered(|| order.into(), call, traded);
        traded.await.unwrap_or_else(Outcome::Unavailable)
    }

    /// Has a stock changed by whoever leads, until one answers. Returns the number of the change's row.
    ///
    /// # Errors
    /// Where nobody answers in time: it may have been changed, and asking again under the same key is safe.
    pub async fn change_stock(
        &self,
        change: &StockChange,
        deadline: Instant,
    ) -> Result<Result<RowNumber, domain::Refusal>, Unavailability> {
        self.place_until_answered(|| change.into(), deadline.into(), changed_stock)
            .await
    }

    async fn place_until_answered<T>(
        &self,
        order: impl Fn() -> catalog::Order,
        call: Call<'_>,
        read: impl Fn(answer::Result) -> Result<T, Status>,
    ) -> Result<T, Unavailability> {
        let mut placement = Placement::default();
        let mut leader = self.replicas.leader();
        let placing = async {
            loop {
                let current = *leader.borrow_and_update();
                // What it answers from now on is not missed.
                let answered = current
                    .term
                    .leader
                    .and_then(|id| self.replicas.answered(id));
                let now = BootTime::now();
                let next = self
                    .replicas
                    .with_probed(|probed| placement.next(now, current, probed));
                match next {
                    Next::Call(id) => {
                        let mut span = call.begin("order.v1.Orders/PlaceMany");
                        let traceparent = span.as_mut().map(|span| {
                            span.set("bazaar.replica", id.get());
                            span.traceparent()
                        });
                        let order = || placed_under(order(), traceparent.as_deref());
                        let placed = tokio::select! {
                            placed = self.place(id, order, &read) => placed,
                            _ = leader.wait_for(|now| placement.is_overtaken(now)) => continue,
                        };
                        match placed {
                            Ok(outcome) => return Ok(outcome),
                            Err(status) => {
                                if let Some(span) = &mut span {
                                    span.fail(status.message());
                                }
                                let class = RetryClass::of(&status);
                                log(
                                    class,
                                    &format!("replica {id} did not place an order"),
                                    &status,
                                );
                                placement.failed(class, BootTime::now(), fastrand::f64());
                            }
                        }
                    }
                    Next::Suspect => self.replicas.suspect(),
                    Next::Wait(Some(until)) => tokio::select! {
                        () = sleep(until.since(BootTime::now())) => {}
                        () = changed(&mut leader) => {}
                    },
                    Next::Wait(None) => tokio::select! {
                        () = next_answer(answered) => {}
                        () = changed(&mut leader) => {}
                    },
                    Next::GiveUp => return Err(Unavailability::NoReplica),
                }
            }
        };
        let placed = timeout_at(call.deadline, placing).await;
        placed.unwrap_or_else(|_| Err(self.unavailable()))
    }

    /// Reads an order at any replica that answers; the leader is asked first.
    pub async fn read_order(&self, number: OrderNumber, call: Call<'_>) -> Outcome {
        let term = || self.replicas.leader().borrow().term;
        let read = |id| self.read_order_at(id, number, call);
        let read = self.ask_replicas((term, ATTEMPT_TIME_MAX), call.deadline, read);
        read.await.unwrap_or_else(Outcome::Unavailable)
    }

    /// Reads a page of the orders at any replica that answers. The leader is not preferred: it has trades to see to.
    ///
    /// # Errors
    /// Where none answers in time.
    pub async fn list_orders(
        &self,
        listing: &OrderListing,
        call: Call<'_>,
    ) -> Result<OrderPage, Unavailability> {
        self.check_order_pages()?;
        let read = |id| self.list_orders_at(id, (listing, false), call);
        self.ask_replicas((Term::default, LIST_TIME_MAX), call.deadline, read)
            .await
    }

    /// Whether every replica is of a release that gives them.
    fn check_order_pages(&self) -> Result<(), Unavailability> {
        match self.replicas.protocol() >= Some(Protocol::ORDER_PAGES) {
            true => Ok(()),
            false => Err(Unavailability::NoReplica),
        }
    }

    /// Asks one replica after the other, whoever leads in `term` first, until one answers.
    async fn ask_replicas<T, F>(
        &self,
        (term, time_max): (impl Fn() -> Term, Duration),
        deadline: Instant,
        ask: impl Fn(ReplicaId) -> F,
    ) -> Result<T, Unavailability>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let mut read = OrderRead::default();
        let mut answered = self.replicas.any_answered();
        let reading = async {
            loop {
                answered.mark_unchanged();
                let (now, random) = (BootTime::now(), fastrand::f64());
                let next = self
                    .replicas
                    .with_probed(|probed| read.next(now, term(), probed, random));
                match next {
                    Next::Call(id) => match timeout(time_max, ask(id)).await {
                        Ok(Ok(answer)) => return Ok(answer),
                        Ok(Err(status)) => {
                            let class = RetryClass::of(&status);
                            let what = format!("replica {id} did not give orders");
                            log(class, &what, &status);
                            read.failed(class);
                        }
                        Err(_) => {
                            tracing::debug!(replica = %id, "orders not read in time");
                            read.failed(RetryClass::Later);
                        }
                    },
                    Next::Suspect => self.replicas.suspect(),
                    Next::Wait(Some(until)) => sleep(until.since(BootTime::now())).await,
                    Next::Wait(None) => changed(&mut answered).await,
                    Next::GiveUp => return Err(Unavailability::NoReplica),
                }
            }
        };
        let read = timeout_at(deadline, reading).await;
        read.unwrap_or_else(|_| Err(self.unavailable()))
    }

    /// The number that the next order will have, or a lower one that has one by now: of all orders that are acknowledged
    /// after this was asked it is below none.
    ///
    /// # Errors
    /// Where the catalog does not answer.
    pub async fn orders_end(&self) -> Result<OrderNumber, Unavailability> {
        let wanted_since = BootTime::now();
        // One question at a time, however many want to know: what was asked since will do.
        let _turn = self.end_turn.lock().await;
        let mut said = self.replicas.catalog_said();
        let answered = said.borrow_and_update().clone();
        let journal = if answered.asked >= wanted_since {
            answered.journal
        } else {
            let asked = self.replicas.ask_catalog().await;
            asked.ok().and_then(|_| self.replicas.journal())
        };
        let journal = journal.ok_or(Unavailability::NoCatalog)?;
        self.check_order_pages()?;
        Ok(orders_of(journal.rows, journal.stock_changes))
    }

    /// A replica that has said that it has this order, or may have it in a moment: any of those but the leader, which has trades
    /// to see to. Another one each time, since one may fail at it that answers everything else.
    pub fn replica_beyond(&self, order: OrderNumber) -> Option<ReplicaId> {
        let leader = self.replicas.leader().borrow().term.leader;
        self.replicas.with_probed(|probed| {
            let ahead = probed.iter().filter_map(|probed| {
                let status = probed.status.ok()?;
                let is_ahead = orders_of(status.rows, status.stock_changes) > order;
                is_ahead.then(|| (Some(probed.id) != leader, fastrand::u32(..), probed.id))
            });
            ahead.max().map(|(_, _, id)| id)
        })
    }

    /// Orders from this one on, as one replica has them.
    ///
    /// # Errors
    /// Where it does not give them in time.
    pub async fn orders_from(
        &self,
        id: ReplicaId,
        from: OrderNumber,
        limit: u32,
    ) -> Result<Vec<Order>, Status> {
        let listing = OrderListing {
            after: from.0.checked_sub(1).map(OrderNumber),
            limit,
            stock: None,
        };
        let deadline = Instant::now() + LIST_TIME_MAX;
        let listed = self.list_orders_at(id, (&listing, true), deadline.into());
        let listed = timeout_at(deadline, listed);
        let page = listed
            .await
            .map_err(|_| Status::deadline_exceeded("late"))??;
        Ok(page.orders)
    }

    async fn list_orders_at(
        &self,
        id: ReplicaId,
        (listing, may_lag): (&OrderListing, bool),
        call: Call<'_>,
    ) -> Result<OrderPage, Status> {
        let stock = listing.stock.as_ref();
        let request = ListRequest {
            // There is no number above the highest, and no order has that.
            from: listing.after.map_or(0, |after| after.0.saturating_add(1)),
            limit: listing.limit,
            stock: stock.map_or_else(String::new, |stock| stock.as_str().to_owned()),
            may_lag,
            journal: self.replicas.own_journal().to_wire(),
        };
        let mut orders = self.replica(id)?.orders.clone();
        let list = async |request| orders.list(request).await;
        let listed = call.make("order.v1.Orders/List", request, list);
        Ok(read_order_page(listed.await?)?)
    }

    async fn read_order_at(
        &self,
        id: ReplicaId,
        number: OrderNumber,
        call: Call<'_>,
    ) -> Result<Outcome, Status> {
        let mut orders = self.replica(id)?.orders.clone();
        let request = GetRequest {
            number: number.0,
            journal: self.replicas.own_journal().to_wire(),
        };
        let get = async |request| orders.get(request).await;
        match call.make("order.v1.Orders/Get", request, get).await {
            Ok(answer) => {
                let row = answer.row.map(Row::try_from);
                let order = row.and_then(|row| order_of(&row.ok()?));
                let order = order.filter(|order| order.number == number);
                let nonsense =
                    || RetryClass::Elsewhere.status(Code::Internal, "the answer makes no sense");
                order.map(Outcome::Order).ok_or_else(nonsense)
            }
            Err(status) if status.code() == Code::NotFound => {
                Ok(Outcome::Refused(Refusal::OrderNotFound))
            }
            Err(status) => Err(status),
        }
    }

    async fn place<T>(
        &self,
        id: ReplicaId,
        order: impl Fn() -> catalog::Order,
        read: impl Fn(answer::Result) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let read = |answered: answer::Result| match answered {
            answer::Result::Unavailable(why) => {
                Err(RetryClass::Later.status(Code::Unavailable, why))
            }
            answer::Result::Invalid(why) => {
                Err(RetryClass::Never.status(Code::InvalidArgument, why))
            }
            answered => read(answered),
        };
        self.replica(id)?.order_streams.place(order, read).await
    }

    fn replica(&self, id: ReplicaId) -> Result<&Replica, Status> {
        let unknown = || RetryClass::Elsewhere.status(Code::Internal, "no such replica");
        self.replicas.get(id).ok_or_else(unknown)
    }

    /// Which backend is to blame.
    fn unavailable(&self) -> Unavailability {
        let catalog_answers = self.replicas.journal().is_some();
        if catalog_answers {
            Unavailability::NoReplica
        } else {
            Unavailability::NoCatalog
        }
    }
}

/// An order as it goes to a replica under a span, where it is traced.
fn placed_under(order: catalog::Order, traceparent: Option<&str>) -> catalog::Order {
    match traceparent {
        None => order,
        Some(traceparent) => catalog::Order {
            traceparent: traceparent.to_owned(),
            ..order
        },
    }
}

/// Says that a call failed: what more attempts may mend quietly.
fn log(class: RetryClass, what: &str, status: &Status) {
    match class {
        RetryClass::Later => tracing::debug!(%status, "{what}"),
        RetryClass::Elsewhere | RetryClass::Never => tracing::error!(%status, "{what}"),
    }
}

/// Waits for a change.
async fn changed<T>(watched: &mut watch::Receiver<T>) {
    watched.changed().await.expect("its sender is here");
}

/// Waits for a replica's next answer; for ever where there is no such replica.
async fn next_answer(answered: Option<watch::Receiver<()>>) {
    match answered {
        Some(mut answered) => changed(&mut answered).await,
        None => pending().await,
    }
}

fn denied(wait: Duration) -> Outcome {
    let wait_ms = wait.as_nanos().div_ceil(1_000_000).max(1);
    Outcome::Denied(wait_ms.try_into().unwrap_or(u32::MAX))
}

fn traded(answered: answer::Result) -> Result<Outcome, Status> {
    match answered {
        answer::Result::Number(number) => Ok(Outcome::Traded(OrderNumber(number))),
        answer::Result::Refusal(refusal) => Ok(Outcome::Refused(match wire::refusal(refusal)? {
            domain::Refusal::StockNotFound => Refusal::StockNotFound,
            domain::Refusal::NotEnough => Refusal::NotEnough,
            domain::Refusal::KeyConflict => Refusal::KeyConflict,
            domain::Refusal::TooMany => Refusal::TooMany,
            domain::Refusal::StockExists | domain::Refusal::TooManyStocks => {
                return Err(of_another_kind());
            }
        })),
        _ => Err(of_another_kind()),
    }
}

fn changed_stock(answered: answer::Result) -> Result<Result<RowNumber, domain::Refusal>, Status> {
    match answered {
        answer::Result::StockChanged(row) => Ok(Ok(wire::row_number(row)?)),
        answer::Result::Refusal(refusal) => Ok(Err(wire::refusal(refusal)?)),
        _ => Err(of_another_kind()),
    }
}

fn of_another_kind() -> Status {
    RetryClass::Never.status(Code::Internal, "the answer is to something else")
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

fn read_order_page(page: ListResponse) -> Result<OrderPage, Malformed> {
    let order = |order: ListedOrder| {
        Ok::<_, Malformed>(Order {
            number: OrderNumber(order.number),
            name: StockName::new(&order.name)?,
            side: wire::side(order.side)?,
            quantity: Quantity::new(order.quantity)?,
        })
    };
    // The next page begins behind at least one order, or this one would be the last.
    let next_after = page.next.checked_sub(1).filter(|_| page.more);
    Ok(OrderPage {
        orders: page
            .orders
            .into_iter()
            .map(order)
            .collect::<Result<_, _>>()?,
        next_after: next_after.map(OrderNumber),
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

fn orders_of(rows: RowNumber, stock_changes: u64) -> OrderNumber {
    OrderNumber(rows.0.saturating_sub(stock_changes))
}

fn order_of(row: &Row) -> Option<Order> {
    let order = row.order()?;
    Some(Order {
        number: row.order_number()?,
        name: order.name.clone(),
        side: order.side,
        quantity: order.quantity,
    })
}

#[cfg(test)]
mod tests;
