//! The generated gRPC messages, and their conversion from and to the domain types.
//!
//! A message that does not convert is the sender's fault: [`Malformed`] says which field, and
//! becomes INVALID_ARGUMENT. [`identity`]: which journal a message is about;
//! [`leadership`]: who leads, and how long the journal is; [`takes`]: tokens out of buckets; [`reflection`]: what the
//! protos say.

#![warn(missing_docs)]

pub mod identity;
pub mod leadership;
pub mod takes;
pub mod reflection;

use domain::{
    ChainHash, Epoch, IdempotencyKey, Invalid, Order, OrderNumber, Price, Quantity, Refusal, Row,
    Side, StockName,
};

/// Package `catalog.v1`.
pub mod catalog {
    #[allow(missing_docs, clippy::all, reason = "generated")]
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("catalog.v1");
    }
}

/// Package `order.v1`.
pub mod order {
    #[allow(missing_docs, clippy::all, reason = "generated")]
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("order.v1");
    }
}

/// What the protos say, as a `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors"));

use self::catalog::v1;

/// A message's field that does not convert.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct Malformed(#[from] pub Invalid);

impl From<Malformed> for tonic::Status {
    fn from(malformed: Malformed) -> Self {
        tonic::Status::invalid_argument(malformed.to_string())
    }
}

impl From<Side> for v1::Side {
    fn from(side: Side) -> Self {
        match side {
            Side::Buy => Self::Buy,
            Side::Sell => Self::Sell,
        }
    }
}

/// Reads a side off its field.
fn side(field: i32) -> Result<Side, Malformed> {
    match v1::Side::try_from(field) {
        Ok(v1::Side::Buy) => Ok(Side::Buy),
        Ok(v1::Side::Sell) => Ok(Side::Sell),
        _ => Err(Invalid::new("side", format!("{field} is neither buy nor sell")).into()),
    }
}

impl From<Refusal> for v1::Refusal {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::StockNotFound => Self::StockNotFound,
            Refusal::NotEnough => Self::NotEnough,
            Refusal::TooMany => Self::TooMany,
            Refusal::KeyConflict => Self::KeyConflict,
        }
    }
}

/// Reads a refusal off its field.
///
/// # Errors
/// Where it is not a value that is known here.
pub fn refusal(field: i32) -> Result<Refusal, Malformed> {
    match v1::Refusal::try_from(field) {
        Ok(v1::Refusal::StockNotFound) => Ok(Refusal::StockNotFound),
        Ok(v1::Refusal::NotEnough) => Ok(Refusal::NotEnough),
        Ok(v1::Refusal::TooMany) => Ok(Refusal::TooMany),
        Ok(v1::Refusal::KeyConflict) => Ok(Refusal::KeyConflict),
        Ok(v1::Refusal::Unspecified) | Err(_) => {
            Err(Invalid::new("refusal", format!("{field} is not known")).into())
        }
    }
}

impl From<&Order> for v1::Order {
    fn from(order: &Order) -> Self {
        Self {
            idempotency_key: order.key.as_str().into(),
            name: order.name.as_str().into(),
            side: v1::Side::from(order.side).into(),
            quantity: order.quantity.get(),
        }
    }
}

impl TryFrom<v1::Order> for Order {
    type Error = Malformed;

    fn try_from(order: v1::Order) -> Result<Self, Malformed> {
        Ok(Self {
            key: IdempotencyKey::new(&order.idempotency_key)?,
            name: StockName::new(&order.name)?,
            side: side(order.side)?,
            quantity: Quantity::new(order.quantity)?,
        })
    }
}

impl From<&Row> for v1::JournalRow {
    fn from(row: &Row) -> Self {
        Self {
            number: row.number.0,
            epoch: row.epoch.0,
            idempotency_key: row.order.key.as_str().into(),
            name: row.order.name.as_str().into(),
            side: v1::Side::from(row.order.side).into(),
            quantity: row.order.quantity.get(),
            price_minor: row.price.minor(),
            chain_hash: row.chain.as_bytes().to_vec(),
        }
    }
}

impl TryFrom<v1::JournalRow> for Row {
    type Error = Malformed;

    fn try_from(row: v1::JournalRow) -> Result<Self, Malformed> {
        Ok(Self {
            number: order_number(row.number)?,
            epoch: epoch(row.epoch)?,
            order: Order {
                key: IdempotencyKey::new(&row.idempotency_key)?,
                name: StockName::new(&row.name)?,
                side: side(row.side)?,
                quantity: Quantity::new(row.quantity)?,
            },
            price: Price::from_minor(row.price_minor)?,
            chain: ChainHash::try_from(row.chain_hash.as_slice())?,
        })
    }
}

/// The highest epoch and order number that the stores hold: their integers have 63 bits, and
/// there is always a next one.
const NUMBER_MAX: u64 = i64::MAX as u64 - 1;

/// Reads an epoch in which there is a leader off its field.
///
/// # Errors
/// Where it is 0, or past what the stores hold.
pub fn epoch(field: u64) -> Result<Epoch, Malformed> {
    if (1..=NUMBER_MAX).contains(&field) {
        Ok(Epoch(field))
    } else {
        let problem = format!("{field} is not from 1 to {NUMBER_MAX}");
        Err(Invalid::new("epoch", problem).into())
    }
}

/// Reads an order's number, or a count of orders, off its field.
///
/// # Errors
/// Where it is past what the stores hold.
pub fn order_number(field: u64) -> Result<OrderNumber, Malformed> {
    if field <= NUMBER_MAX {
        Ok(OrderNumber(field))
    } else {
        let problem = format!("{field} is above {NUMBER_MAX}");
        Err(Invalid::new("order number", problem).into())
    }
}

/// Reads rows off a message.
pub fn rows(rows: Vec<v1::JournalRow>) -> Result<Vec<Row>, Malformed> {
    rows.into_iter().map(Row::try_from).collect()
}
