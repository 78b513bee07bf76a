//! What a policy is told and what it may decide, in types that cannot be wrong.
//!
//! A component's answer becomes a [`Decision`] in `bindings`, once; whatever does not fit is an
//! [`InvalidDecision`], and the policy that gave it is not asked again about that request.

mod reply_headers;

use std::time::Duration;

use bytes::Bytes;
use domain::{IdempotencyKey, OrderNumber, Price, Quantity, Side, StockName};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

pub use domain::Rate;
pub use frontend_core::Freshness;
pub use frontend_core::election::{ReplicaView, View};
pub use reply_headers::{ReplyHeader, ReplyHeaders};

/// What a policy says of itself.
#[derive(Debug, Clone)]
pub struct Manifest {
    pub name: String,
    /// Its version, for people to read.
    pub version: String,
    /// The request headers that it wants to see.
    pub headers: Vec<HeaderName>,
    /// Whether it wants to see how requests came.
    pub connection: bool,
    /// How the host should keep what it lets it cache.
    pub cache: CacheSettings,
    /// What becomes of a request about which it fails to decide.
    pub on_failure: OnFailure,
    /// The buckets that it takes out of, of different names.
    pub buckets: Vec<Bucket>,
    /// The counters of its own, of different names.
    pub counters: Vec<Counter>,
    /// What every reply gets.
    pub reply_headers: ReplyHeaders,
}

/// A counter of a policy's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counter {
    /// As Prometheus has names, without a prefix.
    pub name: String,
    /// What it counts, for people.
    pub help: String,
    /// Names of its labels.
    pub labels: Vec<String>,
}

/// So much is added to a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observation {
    /// The counter's name.
    pub counter: String,
    /// Values of its labels, in their order.
    pub labels: Vec<String>,
    pub value: u64,
}

/// What a policy counts and says with a decision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    pub observations: Vec<Observation>,
    /// Lines for the log.
    pub log: Vec<String>,
}

/// Buckets of tokens, one for each key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Bucket {
    pub name: String,
    pub rate: Rate,
}

/// What becomes of a request about which a policy fails to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// The version before decides about it.
    #[default]
    LastGood,
    /// It is refused, and no version that would let it through takes this one's place unless an
    /// operator says so.
    Refuse,
}

/// How the host should keep what a policy lets it cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSettings {
    pub stocks_max: u32,
    pub orders_max: u32,
    /// Which entry makes room for a new one.
    pub eviction: Eviction,
}

/// Which entry makes room for a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eviction {
    /// The one used least recently.
    Lru,
    /// The one used least often, by estimate.
    TinyLfu,
}

/// A request as a policy sees it. Borrows from the request as the host has it.
#[derive(Debug, Clone, Copy)]
pub struct PolicyRequest<'a> {
    pub method: &'a http::Method,
    /// Path and query, percent-encoded.
    pub target: &'a str,
    /// The headers that the manifest asks for, where present.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// How it came, where the manifest asks for that.
    pub connection: Option<PolicyConnection<'a>>,
    /// The body, where there is one.
    pub body: Option<&'a [u8]>,
    /// Wall clock when the request came in, in milliseconds since 1970.
    pub now_ms: u64,
}

/// A header's value as text: printable ASCII, blanks and tabs.
pub fn header_text(value: &[u8]) -> Option<&str> {
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
    str::from_utf8(value)
        .ok()
        .filter(|text| text.as_bytes().iter().all(is_text))
}

/// How a request came, as a policy sees it.
#[derive(Debug, Clone, Copy)]
pub struct PolicyConnection<'a> {
    /// The address at the other end.
    pub client: &'a str,
    pub scheme: Scheme,
    /// Host and port that the client asked for; empty where it named none.
    pub authority: &'a str,
    /// HTTP/1.0, HTTP/1.1 or HTTP/2.
    pub version: http::Version,
}

/// What a connection is under HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    Http,
    Https,
}

/// What a policy decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What the host is to do next.
    pub action: Action,
    /// Handed back with the outcome of the step.
    pub memo: Vec<u8>,
    /// What it counts and says with it. Boxed: most decisions come without.
    pub remarks: Option<Box<Remarks>>,
}

/// What the host is to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Answer the client. Boxed: a hit needs none, and decisions are moved about.
    Respond(Box<Reply>),
    /// Read or trade; the outcome is to be decided about.
    Perform(Operation),
    /// Perform the last operation again after a while.
    Retry(Duration),
}

/// A read or a trade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    ReadStock {
        name: StockName,
        caching: Caching,
    },
    ListStocks(Listing),
    ReadOrder {
        number: OrderNumber,
        caching: Caching,
    },
    ListOrders(OrderListing),
    FollowOrders {
        /// From behind this order; `None`: from now on.
        after: Option<OrderNumber>,
    },
    Trade(TradeAction),
    Take(TakeAction),
}

/// Tokens to take out of a bucket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakeAction {
    /// The name of one that the manifest declares.
    pub bucket: String,
    /// Whose.
    pub key: Vec<u8>,
    /// How many: 1 to the bucket's burst.
    pub cost: u32,
}

/// Which stocks to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// A page of them.
    Page {
        /// From the first on whose name comes after this one; `None`: from the first of all.
        after: Option<StockName>,
        /// Most stocks: 1 to [`limits::LISTED_MAX`](super::limits::LISTED_MAX).
        limit: u32,
    },
    /// All of them, as a policy of world 1.0 asks. It has no say in how many there are, and cannot
    /// be told that there are more.
    All,
}

/// Which orders to look up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderListing {
    /// From the first on whose number is higher; `None`: from order 0.
    pub after: Option<OrderNumber>,
    /// Most orders: 1 to [`limits::LISTED_MAX`](super::limits::LISTED_MAX).
    pub limit: u32,
    /// Of this stock alone; `None`: of all.
    pub stock: Option<StockName>,
}

/// An order to place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TradeAction {
    pub name: StockName,
    pub side: Side,
    pub quantity: Quantity,
    /// The client's key; without one the host makes one.
    pub key: Option<IdempotencyKey>,
}

impl Operation {
    /// What a response to it depends on besides the outcome.
    pub fn vary_key(&self) -> &[u8] {
        match self {
            Self::ReadStock { caching, .. } | Self::ReadOrder { caching, .. } => &caching.vary_key,
            Self::ListStocks(_)
            | Self::ListOrders(_)
            | Self::FollowOrders { .. }
            | Self::Trade(_)
            | Self::Take(_) => &[],
        }
    }
}

/// How fresh a read must be, what will do where the backend cannot answer, and what is kept of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caching {
    pub freshness: Freshness,
    /// Age of a kept value that will do on error; zero for none.
    pub stale_on_error: Duration,
    /// What the response depends on besides the outcome; of a policy of world 1.0, its memo.
    // Not a vector: decisions are moved about, and are the cheaper for being small.
    pub vary_key: Box<[u8]>,
}

/// An answer for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its status, 200 to 599.
    pub status: StatusCode,
    /// Its headers; none that HTTP itself manages.
    pub headers: HeaderMap,
    pub body: Bytes,
    /// How long the host may keep it, as an answer to a read.
    pub keep: Option<Duration>,
}

impl Decision {
    /// Whether it is to take tokens.
    pub fn takes(&self) -> bool {
        matches!(self.action, Action::Perform(Operation::Take(_)))
    }
}

impl Manifest {
    /// Whether all that is counted is declared.
    ///
    /// # Errors
    /// Where a counter is not, or not with as many labels.
    pub fn check_counted(&self, remarks: &Remarks) -> Result<(), InvalidDecision> {
        for observation in &remarks.observations {
            let declared = |counter: &&Counter| {
                counter.name == observation.counter
                    && counter.labels.len() == observation.labels.len()
            };
            if !self.counters.iter().any(|counter| declared(&counter)) {
                return Err(InvalidDecision(format!(
                    "it counts `{}` with {} labels, which its manifest does not declare",
                    observation.counter.escape_debug(),
                    observation.labels.len()
                )));
            }
        }
        Ok(())
    }

    /// The bucket that tokens are to be taken out of.
    ///
    /// # Errors
    /// Where it is not declared, or never holds so many.
    pub fn bucket_of(&self, take: &TakeAction) -> Result<&Bucket, InvalidDecision> {
        let named = |bucket: &&Bucket| bucket.name == take.bucket;
        let invalid = |problem: String| InvalidDecision(problem);
        let Some(bucket) = self.buckets.iter().find(named) else {
            let name = take.bucket.escape_debug();
            return Err(invalid(format!(
                "it takes out of the bucket `{name}`, which its manifest does not declare"
            )));
        };
        let burst = bucket.rate.burst();
        if (1..=burst).contains(&take.cost) {
            Ok(bucket)
        } else {
            Err(invalid(format!(
                "it takes {} tokens out of the bucket `{}`, where 1 to {burst} can be",
                take.cost, bucket.name
            )))
        }
    }
}

impl Reply {
    /// Whether this one in the place of that one, which is kept, would make no difference. For how long
    /// they are kept may differ.
    pub fn is_kept_as(&self, kept: &Self) -> bool {
        self.status == kept.status
            && self.headers == kept.headers
            && self.body == kept.body
            && self.keep.is_some() == kept.keep.is_some()
    }

    /// How much memory its headers and body take, about.
    pub fn bytes(&self) -> usize {
        let header = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
        self.headers.iter().map(header).sum::<usize>() + self.body.len()
    }
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    Stock(Stock),
    Stocks(Page),
    Order(Order),
    Orders(OrderPage),
    /// The order was placed and got this number.
    Traded(OrderNumber),
    /// The backend said no.
    Refused(Refusal),
    /// The backend did not say.
    Unavailable(Unavailability),
    /// The tokens were taken.
    Granted,
    /// There are not so many. There may be after so many milliseconds.
    Denied(u32),
}

impl Outcome {
    /// Whether it can only be that of a [`Operation::Take`].
    pub fn is_of_take(&self) -> bool {
        matches!(self, Self::Granted | Self::Denied(_))
    }
}

impl Outcome {
    /// Whether it can only be that of a [`Operation::ListOrders`].
    pub fn is_of_orders(&self) -> bool {
        matches!(self, Self::Orders(_))
    }

    /// In a word, as recordings have it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stock(_) => "stock",
            Self::Stocks(_) => "stocks",
            Self::Order(_) => "order",
            Self::Orders(_) => "orders",
            Self::Traded(_) => "traded",
            Self::Refused(_) => "refused",
            Self::Unavailable(_) => "unavailable",
            Self::Granted => "granted",
            Self::Denied(_) => "denied",
        }
    }
}

/// A stock as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stock {
    pub name: StockName,
    /// Price of one share.
    pub price: Price,
    /// Shares to be had.
    pub quantity: u64,
}

/// Stocks in name order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PageLine")]
pub struct Page {
    /// At most as many as were asked for.
    pub stocks: Vec<Stock>,
    /// There are stocks after these.
    pub more: bool,
}

/// A page as recordings have it: those of before there were pages have a list of all.
#[derive(Deserialize)]
#[serde(untagged)]
enum PageLine {
    Page { stocks: Vec<Stock>, more: bool },
    All(Vec<Stock>),
}

impl From<PageLine> for Page {
    fn from(line: PageLine) -> Self {
        let (stocks, more) = match line {
            PageLine::Page { stocks, more } => (stocks, more),
            PageLine::All(stocks) => (stocks, false),
        };
        Self { stocks, more }
    }
}

/// An order as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    pub number: OrderNumber,
    pub name: StockName,
    pub side: Side,
    pub quantity: Quantity,
}

/// Orders in number order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPage {
    /// At most as many as were asked for.
    pub orders: Vec<Order>,
    /// There may be more, after this number; `None` where there are none.
    pub next_after: Option<OrderNumber>,
}

/// Why the backend said no, as policies and recordings have it: the reasons of [`domain::Refusal`]
/// for an order, and that there is no order of a number, which is asked for by reads alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    StockNotFound,
    /// Fewer shares are left than the order would buy.
    NotEnough,
    OrderNotFound,
    /// The idempotency key was used for a different order.
    KeyConflict,
    /// The trade would take a quantity past its upper bound.
    TooMany,
}

/// Which backend did not answer in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unavailability {
    NoCatalog,
    NoReplica,
}

/// A decision that no host could act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDecision(pub String);
