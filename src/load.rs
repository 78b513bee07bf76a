//! `bazaar load`: trades as many clients at once, checks every order, and measures.
//!
//! - [`connection`]: one client's connection;
//! - [`trader`]: what one client does;
//! - [`figures`]: latencies and failures;
//! - [`report`]: the table and the JSON of one run;
//! - [`sweep`]: runs of several trade probabilities, with the cache and without;
//! - [`caching`]: which of the two; [`points`]: what each run measured;
//! - [`cached`]: what the gateway's cache held meanwhile;
//! - [`page`]: tables and plots in one HTML page, and the figures as CSV.

mod connection;
mod trader;
mod figures;
mod report;
mod caching;
mod points;
mod sweep;
mod cached;
mod page;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use catalog::stocks::STOCKS_MAX;
use fastrand::Rng;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::admin::AdminError;
use crate::answer::{self, Page, Stock};
use crate::cli::Load;
use crate::client::{Client, ClientError, Server};
use crate::output;

use self::figures::Figures;
use self::report::Report;
use self::trader::Trader;

/// How long a client waits for an answer before it counts the request as failed.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The first page of the stocks that are traded; each says where the next one is.
const FIRST_PAGE: &str = "/stocks?limit=10000";

/// Why `load` ended with a failure.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The list of stocks is the first thing it asks for.
    #[error("cannot list the stocks: {0}")]
    List(#[from] ClientError),
    /// The gateway answered something else.
    #[error("cannot list the stocks: the gateway answered {status}: {body}")]
    NoList {
        status: u16,
        /// The beginning of the answer.
        body: String,
    },
    /// There is nothing to trade.
    #[error("the catalog has no stocks")]
    NoStocks,
    /// A client stopped before it was done.
    #[error("a client failed: {0}")]
    Client(#[from] tokio::task::JoinError),
    /// The figures cannot be written.
    #[error("cannot write the figures: {0}")]
    Output(#[from] std::io::Error),
    /// A plot cannot be drawn.
    #[error(transparent)]
    Chart(#[from] charts::ChartError),
    /// A sweep changes the gateway's policy for a while.
    #[error("the sweep needs the gateway's admin API (--admin): {0}")]
    Admin(#[from] AdminError),
    /// A signal ended the sweep. The gateway has its policy again.
    #[error("interrupted; the gateway has its policy again")]
    Interrupted,
    /// The report says which.
    #[error("{failed} requests failed, {mismatches} orders are not as they were placed")]
    Wrong {
        /// How many requests failed.
        failed: u64,
        /// How many orders are not as they were placed.
        mismatches: usize,
    },
}

/// What the clients of a run have in common.
#[derive(Debug)]
struct Run {
    server: Server,
    clients: u64,
    iterations: u64,
    trade_probability: f64,
    /// How many of all iterations begin in a second, at most.
    rate: Option<f64>,
    seed: u64,
    /// In front of every idempotency key, so that two runs of one seed are two.
    key_prefix: String,
    stocks: Arc<[String]>,
}

impl Run {
    /// A run as the flags have it.
    fn new(args: &Load, server: Server, stocks: Arc<[String]>) -> Self {
        let random = RandomState::new();
        Self {
            server,
            clients: args.clients,
            iterations: args.iterations,
            trade_probability: args.trade_probability,
            rate: args.rate,
            seed: args.seed.unwrap_or_else(|| random.hash_one("seed")),
            key_prefix: format!("load-{:016x}", random.hash_one("key prefix")),
            stocks,
        }
    }

    /// When a client's iteration begins at the earliest, after the run began: clients take turns.
    fn due(&self, client: u64, iteration: u64) -> Duration {
        let before = iteration * self.clients + client;
        self.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(before as f64 / rate)
        })
    }

    /// Its clients. All that they choose, the seed repeats.
    fn traders(self: &Arc<Self>) -> impl Iterator<Item = Trader> {
        let mut seeds = Rng::with_seed(self.seed);
        (0..self.clients).map(move |number| Trader::new(number, seeds.fork(), self.clone()))
    }
}

/// What a run found out.
#[derive(Debug)]
struct Measured {
    run: Arc<Run>,
    figures: Figures,
    /// How long the clients traded.
    trading: Duration,
    /// How long they checked.
    checking: Duration,
}

/// Runs the load, prints the figures, and fails where any request failed or any order is not
/// as it was placed.
pub async fn run(args: Load) -> Result<(), LoadError> {
    let server = Server::new(args.url.clone(), &args.admin.tls.trust())?;
    let stocks = list_stocks(&server).await?;
    if args.sweep {
        return sweep::run(&args, server, stocks).await;
    }
    let measured = measure(Run::new(&args, server, stocks)).await?;
    let report = Report::of(&measured);
    output::print(&report.to_string())?;
    if let Some(file) = &args.json {
        std::fs::write(file, format!("{:#}\n", report.to_json()))?;
    }
    if let Some(dir) = &args.report {
        page::write_run(dir, &measured)?;
    }
    judge([&measured])
}

/// Whether every request was answered and every order found as it was placed.
fn judge<'a>(runs: impl IntoIterator<Item = &'a Measured>) -> Result<(), LoadError> {
    let (mut failed, mut mismatches) = (0, 0);
    for Measured { figures, .. } in runs {
        failed += figures.failed();
        mismatches += figures.mismatches.len();
    }
    match (failed, mismatches) {
        (0, 0) => Ok(()),
        (failed, mismatches) => Err(LoadError::Wrong { failed, mismatches }),
    }
}

/// Trades, then checks every order.
async fn measure(run: Run) -> Result<Measured, LoadError> {
    let run = Arc::new(run);
    let traders: Vec<Trader> = run.traders().collect();
    let bar = progress("trading", run.clients * run.iterations);
    let (traders, trading) = all(traders, Phase::Trade, bar).await?;
    let twice = given_twice(&traders);
    let orders = traders
        .iter()
        .map(|trader| trader.placed().len() as u64)
        .sum();
    let (traders, checking) = all(traders, Phase::Check, progress("checking", orders)).await?;

    let mut figures = Figures::default();
    figures.mismatches = twice;
    for trader in traders {
        figures.merge(trader.into_figures());
    }
    Ok(Measured {
        run,
        figures,
        trading,
        checking,
    })
}

/// What the traders are at. Checks begin when all have traded, so that the figures of one
/// are not those of the other.
#[derive(Debug, Clone, Copy)]
enum Phase {
    Trade,
    Check,
}

/// Runs one phase of every trader side by side, and says how long it took.
async fn all(
    traders: Vec<Trader>,
    phase: Phase,
    bar: ProgressBar,
) -> Result<(Vec<Trader>, Duration), LoadError> {
    let start = Instant::now();
    let mut running = JoinSet::new();
    for mut trader in traders {
        let bar = bar.clone();
        #[expect(clippy::disallowed_methods, reason = "joined below")]
        running.spawn(async move {
            match phase {
                Phase::Trade => trader.trade(&bar).await,
                Phase::Check => trader.check(&bar).await,
            }
            trader
        });
    }
    let mut done = Vec::new();
    while let Some(trader) = running.join_next().await {
        done.push(trader?);
    }
    bar.finish_and_clear();
    Ok((done, start.elapsed()))
}

async fn list_stocks(server: &Server) -> Result<Arc<[String]>, LoadError> {
    let mut client = Client::new(server.clone(), PATIENCE);
    let (mut names, mut next) = (Vec::new(), Some(FIRST_PAGE.to_owned()));
    while let Some(target) = next.filter(|_| names.len() < STOCKS_MAX) {
        let response = client.get(&target).await?;
        let (status, body) = (response.status().as_u16(), response.into_body());
        let page = match serde_json::from_slice::<Page<Stock>>(&body) {
            Ok(page) if status == 200 => page,
            _ => {
                return Err(LoadError::NoList {
                    status,
                    body: answer::beginning(&body),
                });
            }
        };
        // A page without stocks leads nowhere new.
        next = page.next.filter(|_| !page.data.is_empty());
        names.extend(page.data.into_iter().map(|stock| stock.name));
    }
    if names.is_empty() {
        Err(LoadError::NoStocks)
    } else {
        Ok(names.into())
    }
}

/// Two acknowledged orders of one number are a mismatch even where they look alike.
fn given_twice(traders: &[Trader]) -> Vec<String> {
    let mut owners = HashMap::new();
    let placed = traders.iter().flat_map(|trader| {
        trader
            .placed()
            .iter()
            .map(move |placed| (placed.number, trader.number()))
    });
    let twice = placed.filter_map(|(number, owner)| {
        let before = owners.insert(number, owner)?;
        Some(format!(
            "order {number} was acknowledged to client {before} and to client {owner}"
        ))
    });
    twice.collect()
}

/// Seen only where standard error is a terminal.
fn progress(what: &'static str, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix:>8} {wide_bar} {pos}/{len} {eta}");
    let style = style.expect("the template is well-formed");
    ProgressBar::new(steps).with_prefix(what).with_style(style)
}
