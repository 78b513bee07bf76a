//! A service of stocks and orders as it is mostly built: it keeps nothing itself, and asks PostgreSQL about everything, by
//! prepared statements over connections that stay. nginx is in front of it. Each of nginx's connections has a task and a
//! connection to the database of its own, so that nobody waits behind anybody else's commit.
//!
//! The parent runs it as a process of its own, `bench application`. It answers `GET /stocks/{name}`, `POST /orders`, and
//! `GET /lookups` with how many stocks it has been asked for.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Statement};

use crate::error::Error;
use crate::messages::{Message, Messages};

/// What looks a stock up.
const LOOKUP: &str = "SELECT price, quantity FROM stock WHERE name = $1";

/// A trade: one statement, one transaction, as in `contenders/postgres-trade.sql`.
const TRADE: &str = include_str!("../contenders/application-trade.sql");

/// Where it listens, and what it asks.
#[derive(Debug, Clone, clap::Args)]
pub struct Application {
    #[arg(long)]
    pub listen: SocketAddr,
    /// The URL of its database
    #[arg(long)]
    pub database: String,
    /// How many threads serve
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: u16,
}

impl Application {
    /// Serves until this process is ended.
    pub fn serve(&self) -> Result<(), Error> {
        let failed = || Error::machine("cannot serve as the application");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.workers.into())
            .enable_all()
            .build()
            .map_err(failed())?;
        runtime.block_on(self.accept()).map_err(failed())
    }

    async fn accept(&self) -> io::Result<()> {
        let listener = TcpListener::bind(self.listen).await?;
        let shared = Arc::new(Shared {
            database: self.database.clone(),
            idle: Mutex::default(),
            lookups: AtomicU64::new(0),
        });
        loop {
            let (stream, _) = listener.accept().await?;
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                if let Err(error) = shared.serve(stream).await {
                    eprintln!("a connection ended: {error}");
                }
            });
        }
    }
}

/// What all connections have in common.
struct Shared {
    database: String,
    /// Connections to the database that nobody uses. There are no more than nginx has connections at a time.
    idle: Mutex<Vec<Database>>,
    lookups: AtomicU64,
}

impl Shared {
    async fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let idle = self.lock_idle().pop();
        let database = match idle {
            Some(database) => database,
            None => Database::connect(&self.database)
                .await
                .map_err(io::Error::other)?,
        };
        let served = self.serve_with(stream, &database).await;
        self.lock_idle().push(database);
        served
    }

    fn lock_idle(&self) -> MutexGuard<'_, Vec<Database>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn serve_with(&self, stream: TcpStream, database: &Database) -> io::Result<()> {
        let mut client = Messages::over(stream)?;
        loop {
            let Some(request) = client.next().await? else {
                return Ok(());
            };
            let is_last = request.is_last();
            let answered = self.answer(request, database).await;
            let (status, body) = answered.unwrap_or_else(|error| {
                eprintln!("the database failed: {error}");
                ("500 Internal Server Error", error.to_string())
            });
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            );
            client.send(answer.as_bytes()).await?;
            if is_last {
                return Ok(());
            }
        }
    }

    async fn answer(
        &self,
        request: Message<'_>,
        database: &Database,
    ) -> Result<(&'static str, String), tokio_postgres::Error> {
        match request.request() {
            ("GET", "/lookups") => {
                let lookups = self.lookups.load(Ordering::Relaxed);
                Ok(("200 OK", lookups.to_string()))
            }
            ("GET", target) => {
                let Some(name) = target.strip_prefix("/stocks/") else {
                    return Ok(NOT_FOUND.owned());
                };
                self.lookups.fetch_add(1, Ordering::Relaxed);
                database.look_up(name).await
            }
            ("POST", "/orders") => match serde_json::from_slice::<Order<'_>>(request.body) {
                Ok(order) => database.trade(&order).await,
                Err(error) => Ok(("400 Bad Request", error.to_string())),
            },
            _ => Ok(NOT_FOUND.owned()),
        }
    }
}

/// An answer that is always the same.
struct Constant {
    status: &'static str,
    body: &'static str,
}

const NOT_FOUND: Constant = Constant {
    status: "404 Not Found",
    body: r#"{"error":"stock not found"}"#,
};

const TOO_FEW: Constant = Constant {
    status: "409 Conflict",
    body: r#"{"error":"not enough shares"}"#,
};

impl Constant {
    fn owned(&self) -> (&'static str, String) {
        (self.status, self.body.to_owned())
    }
}

/// An order, as clients of Bazaar write it.
#[derive(Debug, Deserialize)]
struct Order<'a> {
    name: &'a str,
    #[serde(rename = "type")]
    side: Side,
    quantity: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Side {
    Buy,
    Sell,
}

impl Order<'_> {
    /// By how much the stock's quantity changes.
    fn change(&self) -> i64 {
        match self.side {
            Side::Buy => -i64::from(self.quantity),
            Side::Sell => self.quantity.into(),
        }
    }
}

/// One connection to the database.
struct Database {
    client: Client,
    lookup: Statement,
    trade: Statement,
}

impl Database {
    async fn connect(url: &str) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("the connection to the database ended: {error}");
            }
        });
        Ok(Self {
            lookup: client.prepare(LOOKUP).await?,
            trade: client.prepare(TRADE).await?,
            client,
        })
    }

    async fn look_up(&self, name: &str) -> Result<(&'static str, String), tokio_postgres::Error> {
        let found = self.client.query_opt(&self.lookup, &[&name]).await?;
        let Some(row) = found else {
            return Ok(NOT_FOUND.owned());
        };
        let (price, quantity): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        let (units, cents) = (price / 100, price % 100);
        let body = format!(
            r#"{{"data":{{"name":"{name}","price":{units}.{cents:02},"quantity":{quantity}}}}}"#
        );
        Ok(("200 OK", body))
    }

    async fn trade(
        &self,
        order: &Order<'_>,
    ) -> Result<(&'static str, String), tokio_postgres::Error> {
        let change = order.change();
        let parameters: [&(dyn ToSql + Sync); 2] = [&order.name, &change];
        let traded = self.client.query_opt(&self.trade, &parameters).await?;
        let Some(row) = traded else {
            return Ok(TOO_FEW.owned());
        };
        let number: i64 = row.try_get(0)?;
        Ok(("200 OK", format!(r#"{{"data":{{"number":{number}}}}}"#)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_clients_write_them() {
        let order = |text: &'static str| serde_json::from_str::<Order<'_>>(text);
        let bought = order(r#"{"name":"stock-7","type":"buy","quantity":3}"#).unwrap();
        assert_eq!((bought.name, bought.change()), ("stock-7", -3));
        let sold = order(r#"{"name":"stock-7","type":"sell","quantity":1}"#).unwrap();
        assert_eq!(sold.change(), 1);
        for text in ["{}", r#"{"name":"stock-7","type":"give","quantity":1}"#] {
            assert!(order(text).is_err(), "{text}");
        }
    }
}
