//! `bazaar stock`: what is traded.

use std::time::{Duration, Instant};

use bytes::Bytes;
use domain::StockName;
use frontend_host::admin::MAY_BE_DONE;
use http::header::CONTENT_TYPE;
use http::{Method, Request};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::admin::{Admin, AdminError};
use crate::cli::{Change, Stock};
use crate::client::ClientError;
use crate::output::{self, Table};

/// How long a change is tried again where nobody says whether it was made.
const TRIED_FOR: Duration = Duration::from_secs(15);

/// The pause between two tries.
const TRY_INTERVAL: Duration = Duration::from_millis(500);

/// Stocks of a page.
const PAGE: usize = 10_000;

/// Why stocks were not listed or changed.
#[derive(Debug, thiserror::Error)]
pub enum StockError {
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// It may have been made.
    #[error(
        "{}; it may have been done: to be sure, say the whole command again with --idempotency-key {key}",
        told(error)
    )]
    Unknown {
        key: String,
        #[source]
        error: AdminError,
    },
    /// There is no randomness to make a key of.
    #[error("cannot make an idempotency key: {0}")]
    NoKey(getrandom::Error),
    /// Standard output does not take the result.
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
}

/// What the gateway says, without what it says to programs of what may have been done.
fn told(error: &AdminError) -> String {
    let told = error.to_string();
    let told = told.strip_suffix(MAY_BE_DONE).unwrap_or(&told);
    told.strip_suffix("; ").unwrap_or(told).to_owned()
}

/// Does what the command says.
pub async fn run(command: Stock) -> Result<(), StockError> {
    let (name, method, body, change) = match command {
        Stock::List { json, admin } => return list(&mut Admin::new(admin)?, json).await,
        Stock::Add {
            name,
            price,
            quantity,
            change,
        } => {
            let body = json!({
                "name": name.as_str(), "price": price.to_string(), "quantity": quantity,
            });
            (None, Method::POST, body, change)
        }
        Stock::Price {
            name,
            price,
            change,
        } => {
            let body = json!({ "price": price.to_string() });
            (Some(name), Method::PATCH, body, change)
        }
        Stock::Restock {
            name,
            quantity,
            change,
        } => {
            let body = json!({ "restock": quantity });
            (Some(name), Method::PATCH, body, change)
        }
        Stock::Delist { name, change } => (Some(name), Method::DELETE, Value::Null, change),
    };
    let body = match body {
        Value::Null => Bytes::new(),
        body => body.to_string().into(),
    };
    let path = match &name {
        None => "/stocks".to_owned(),
        Some(name) => path_of(name),
    };
    let Made { name, change, row } = make(change, &method, &path, &body).await?;
    let line = format!("{name}: {change}, row {row} of the journal\n");
    Ok(output::print(&line)?)
}

fn path_of(name: &StockName) -> String {
    let name = percent_encode(name.as_str().as_bytes(), NON_ALPHANUMERIC);
    format!("/stocks/{name}")
}

/// Has a change made, once however often it has to be asked for.
async fn make(
    change: Change,
    method: &Method,
    path: &str,
    body: &Bytes,
) -> Result<Made, StockError> {
    let key = match change.idempotency_key {
        Some(key) => key,
        None => new_key()?,
    };
    let mut admin = Admin::new(change.admin)?;
    let started = Instant::now();
    // Whether somebody may have got it, who has not said what became of it.
    let mut may_be_made = false;
    loop {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(CONTENT_TYPE, "application/json");
        let request = request.header("idempotency-key", &key).body(body.clone());
        let request = request.map_err(|error| AdminError::from(ClientError::from(error)))?;
        let said = admin.send(request).await;
        let said = said.and_then(|said| Ok(serde_json::from_slice::<Changed>(&said)?));
        let error = match said {
            Ok(Changed { data }) => return Ok(data),
            Err(error) => error,
        };
        // The catalog has said so, under this key; or nothing was ever sent.
        let is_certain = matches!(
            &error,
            AdminError::Refused {
                status: 404 | 409,
                ..
            }
        );
        may_be_made |= error.may_be_made();
        if is_certain || !may_be_made && !error.is_of_now() {
            return Err(error.into());
        }
        if !error.is_of_now() || started.elapsed() >= TRIED_FOR {
            return Err(match may_be_made {
                true => StockError::Unknown { key, error },
                false => error.into(),
            });
        }
        tokio::time::sleep(TRY_INTERVAL).await;
    }
}

fn new_key() -> Result<String, StockError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(StockError::NoKey)?;
    Ok(format!("operator-{}", domain::Hex(&random)))
}

#[derive(Deserialize)]
struct Changed {
    data: Made,
}

#[derive(Deserialize)]
struct Made {
    name: String,
    change: String,
    row: u64,
}

#[derive(Deserialize)]
struct Page {
    data: Vec<Listed>,
    more: bool,
}

#[derive(Deserialize, serde::Serialize)]
struct Listed {
    name: String,
    price: Box<RawValue>,
    quantity: u64,
}

async fn list(admin: &mut Admin, as_json: bool) -> Result<(), StockError> {
    let mut stocks: Vec<Listed> = Vec::new();
    loop {
        let after = stocks.last().map_or_else(String::new, |last| {
            let name = percent_encode(last.name.as_bytes(), NON_ALPHANUMERIC);
            format!("&after={name}")
        });
        let page = admin.get(&format!("/stocks?limit={PAGE}{after}")).await?;
        let page: Page = serde_json::from_slice(&page).map_err(AdminError::from)?;
        let is_last = !page.more || page.data.is_empty();
        stocks.extend(page.data);
        if is_last {
            break;
        }
    }
    if as_json {
        let text = serde_json::to_string(&stocks).map_err(AdminError::from)?;
        return Ok(output::print(&(text + "\n"))?);
    }
    let mut table = Table::new(["name", "price", "quantity"]);
    for Listed {
        name,
        price,
        quantity,
    } in stocks
    {
        table.row([name, price.get().to_owned(), quantity.to_string()]);
    }
    Ok(output::print(&table.render())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_have_been_done_is_said_once() {
        let unknown = |reason: &str| {
            let error = AdminError::Refused {
                status: 503,
                reason: reason.to_owned(),
            };
            let key = "operator-84".to_owned();
            StockError::Unknown { key, error }.to_string()
        };
        let expected = "the gateway refused (503): no order replica answers; it may have been done: to be sure, say the \
                        whole command again with --idempotency-key operator-84";
        let reason = "no order replica answers";
        assert_eq!(unknown(&format!("{reason}; {MAY_BE_DONE}")), expected);
        assert_eq!(unknown(reason), expected);
    }
}
