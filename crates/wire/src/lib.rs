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
    ChainHash, Entry, Epoch, IdempotencyKey, Invalid, Note, Order, Price, Quantity, Refusal, Row,
    RowNumber, Side, StockChange, StockChangeKind, StockName,
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

/// Package `monitor.v1`.
pub mod monitor {
    #[allow(missing_docs, clippy::all, reason = "generated")]
    /// Version 1.
    pub mod v1 {
        tonic::include_proto!("monitor.v1");
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
///
/// # Errors
/// Where it is neither of the two.
pub fn side(field: i32) -> Result<Side, Malformed> {
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
            Refusal::StockExists => Self::StockExists,
            Refusal::TooManyStocks => Self::TooManyStocks,
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
        Ok(v1::Refusal::StockExists) => Ok(Refusal::StockExists),
        Ok(v1::Refusal::TooManyStocks) => Ok(Refusal::TooManyStocks),
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
            ..Self::default()
        }
    }
}

impl From<&StockChange> for v1::Order {
    fn from(change: &StockChange) -> Self {
        Self {
            idempotency_key: change.key.as_str().into(),
            name: change.name.as_str().into(),
            stock_change: Some(stock_change(change)),
            ..Self::default()
        }
    }
}

impl From<&Entry> for v1::Order {
    fn from(entry: &Entry) -> Self {
        match entry {
            Entry::Order(order) => order.into(),
            Entry::StockChange(change) => change.into(),
        }
    }
}

impl TryFrom<v1::Order> for Entry {
    type Error = Malformed;

    fn try_from(order: v1::Order) -> Result<Self, Malformed> {
        let key = IdempotencyKey::new(&order.idempotency_key)?;
        let name = StockName::new(&order.name)?;
        entry(key, name, (order.side, order.quantity), order.stock_change)
    }
}

impl From<&Row> for v1::JournalRow {
    fn from(row: &Row) -> Self {
        let v1::Order {
            idempotency_key,
            name,
            side,
            quantity,
            stock_change,
            traceparent: _,
        } = (&row.entry).into();
        Self {
            number: row.number.0,
            epoch: row.epoch.0,
            idempotency_key,
            name,
            side,
            quantity,
            price_minor: row.price.minor(),
            chain_hash: row.chain.as_bytes().to_vec(),
            stock_changes: row.stock_changes,
            stock_change,
        }
    }
}

impl TryFrom<v1::JournalRow> for Row {
    type Error = Malformed;

    fn try_from(row: v1::JournalRow) -> Result<Self, Malformed> {
        let key = IdempotencyKey::new(&row.idempotency_key)?;
        let name = StockName::new(&row.name)?;
        Ok(Self {
            number: row_number(row.number)?,
            stock_changes: stock_changes(row.stock_changes, row.number)?,
            epoch: epoch(row.epoch)?,
            entry: entry(key, name, (row.side, row.quantity), row.stock_change)?,
            price: Price::from_minor(row.price_minor)?,
            chain: ChainHash::try_from(row.chain_hash.as_slice())?,
        })
    }
}

fn entry(
    key: IdempotencyKey,
    name: StockName,
    (side, quantity): (i32, u64),
    stock_change: Option<v1::StockChange>,
) -> Result<Entry, Malformed> {
    let Some(change) = stock_change else {
        return Ok(Entry::Order(Order {
            key,
            name,
            side: self::side(side)?,
            quantity: Quantity::new(quantity)?,
        }));
    };
    if (side, quantity) != (v1::Side::Unspecified.into(), 0) {
        return Err(Invalid::new("order", "is an order and a change of a stock at once").into());
    }
    Ok(Entry::StockChange(StockChange {
        key,
        name,
        kind: kind(change.kind)?.check()?,
        note: Note::as_written(&change.who, &change.why)?,
    }))
}

fn stock_change(change: &StockChange) -> v1::StockChange {
    use v1::stock_change::{Add, Delist, Kind};
    let kind = match change.kind {
        StockChangeKind::Add { price, quantity } => Kind::Add(Add {
            price_minor: price.minor(),
            quantity,
        }),
        StockChangeKind::Price { price } => Kind::PriceMinor(price.minor()),
        StockChangeKind::Restock { quantity } => Kind::Restock(quantity.get()),
        StockChangeKind::Delist => Kind::Delist(Delist {}),
    };
    v1::StockChange {
        kind: Some(kind),
        who: change.note.who().into(),
        why: change.note.why().into(),
    }
}

fn kind(kind: Option<v1::stock_change::Kind>) -> Result<StockChangeKind, Malformed> {
    use v1::stock_change::Kind;
    Ok(match kind {
        Some(Kind::Add(add)) => StockChangeKind::Add {
            price: Price::from_minor(add.price_minor)?,
            quantity: add.quantity,
        },
        Some(Kind::PriceMinor(minor)) => StockChangeKind::Price {
            price: Price::from_minor(minor)?,
        },
        Some(Kind::Restock(quantity)) => StockChangeKind::Restock {
            quantity: Quantity::new(quantity)?,
        },
        Some(Kind::Delist(_)) => StockChangeKind::Delist,
        None => {
            return Err(Invalid::new("change of a stock", "is not one that is known here").into());
        }
    })
}

/// The highest epoch and row number that the stores hold: their integers have 63 bits, and
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

/// Reads a row's number, or a count of rows, off its field.
///
/// # Errors
/// Where it is past what the stores hold.
pub fn row_number(field: u64) -> Result<RowNumber, Malformed> {
    if field <= NUMBER_MAX {
        Ok(RowNumber(field))
    } else {
        let problem = format!("{field} is above {NUMBER_MAX}");
        Err(Invalid::new("row number", problem).into())
    }
}

/// Reads how many of so many rows change stocks off its field.
///
/// # Errors
/// Where that are more.
pub fn stock_changes(field: u64, rows: u64) -> Result<u64, Malformed> {
    match field <= rows {
        true => Ok(field),
        false => {
            let problem = format!("are {field} of {rows} rows");
            Err(Invalid::new("changes of stocks", problem).into())
        }
    }
}

/// Reads rows off a message.
pub fn rows(rows: Vec<v1::JournalRow>) -> Result<Vec<Row>, Malformed> {
    rows.into_iter().map(Row::try_from).collect()
}
