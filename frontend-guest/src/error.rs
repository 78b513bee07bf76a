//! All that can go wrong with a request, and its one table to HTTP.

use crate::types::{Refusal, Unavailability};

/// Why a request is not answered with what it asks for. Displays as the message that the client
/// gets.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// Nothing has that path.
    #[error("no such path")]
    NoSuchPath,
    /// No path has that method.
    #[error("no such method")]
    NoSuchMethod,
    /// The path has no such method.
    #[error("method not allowed, only {allow}")]
    MethodNotAllowed {
        /// The methods that it has, as the `Allow` header lists them.
        allow: &'static str,
    },
    /// The query is not what it should be.
    #[error("the query's {0}")]
    InvalidQuery(String),
    /// The body is not what it should be.
    #[error("{0}")]
    InvalidBody(String),
    /// The idempotency key is not one.
    #[error("the Idempotency-Key {0}")]
    InvalidKey(&'static str),
    /// The order's type is neither `buy` nor `sell`.
    #[error("invalid request type")]
    InvalidType,
    /// The order's quantity is zero or negative.
    #[error("invalid number of stocks")]
    InvalidQuantity,
    /// No stock of that name.
    #[error("stock not found")]
    StockNotFound,
    /// Fewer shares are left than the order would buy.
    #[error("not enough stocks available to buy")]
    NotEnough,
    /// More shares than a stock can have.
    #[error("the quantity would take the stock past the most it can have")]
    TooMany,
    /// No order of that number.
    #[error("transaction not found")]
    OrderNotFound,
    /// The key belongs to another order.
    #[error("the Idempotency-Key was used for a different order")]
    KeyConflict,
    /// It was done too often.
    #[error("too many requests, try again later")]
    TooManyRequests {
        /// After how long it can be done again, in milliseconds.
        retry_after_ms: u32,
    },
    /// The catalog did not answer in time.
    #[error("catalog unavailable, try again")]
    NoCatalog,
    /// No order replica answered in time.
    #[error("no order replica available, try again")]
    NoReplica,
}

impl ApiError {
    /// The HTTP status, which the body repeats.
    pub fn status(&self) -> u16 {
        match self {
            Self::InvalidQuery(_)
            | Self::InvalidBody(_)
            | Self::InvalidKey(_)
            | Self::InvalidType
            | Self::TooMany => 400,
            Self::NoSuchPath
            | Self::InvalidQuantity
            | Self::StockNotFound
            | Self::NotEnough
            | Self::OrderNotFound => 404,
            Self::MethodNotAllowed { .. } => 405,
            Self::KeyConflict => 409,
            Self::TooManyRequests { .. } => 429,
            Self::NoSuchMethod => 501,
            Self::NoCatalog | Self::NoReplica => 503,
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::StockNotFound => Self::StockNotFound,
            Refusal::NotEnough => Self::NotEnough,
            Refusal::OrderNotFound => Self::OrderNotFound,
            Refusal::KeyConflict => Self::KeyConflict,
            Refusal::TooMany => Self::TooMany,
        }
    }
}

impl From<Unavailability> for ApiError {
    fn from(unavailability: Unavailability) -> Self {
        match unavailability {
            Unavailability::NoCatalog => Self::NoCatalog,
            Unavailability::NoReplica => Self::NoReplica,
        }
    }
}
