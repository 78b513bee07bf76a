//! Rows of the tables, and what they are in the domain.

use domain::{ChainHash, Epoch, Price, Row, RowNumber, StockName, Version};
use storage::StorageError;
use tokio_postgres::types::FromSql;

use crate::stocks::Listing;
use crate::store::checksums::of_refused;
use crate::store::shares;
use crate::store::words::{entry, refusal};
use catalog_core::{RefusedOrder, Stock};
use domain::JournalId;

/// The columns of a journal's row, in the order in which [`journal_row`] takes them.
pub(super) const JOURNAL: &str = "j.number, j.epoch, j.key, j.name, j.side, j.quantity, j.price, j.chain, j.stock_changes, j.stock_change";

/// How many they are.
pub(super) const JOURNAL_COLUMNS: usize = 10;

/// The columns of an order that was refused.
pub(super) const REFUSED: &str =
    "key, name, side, quantity, refusal, checksum, stock_change, stock_refusal, id";

/// Which of these is the id.
pub(super) const REFUSED_ID: usize = 8;

/// One column. What is not of the type that was written is damage.
pub(super) fn get<'a, T: FromSql<'a>>(
    row: &'a tokio_postgres::Row,
    column: usize,
) -> Result<T, StorageError> {
    row.try_get(column)
        .map_err(|error| StorageError::Damaged(super::error::told(&error)))
}

/// A number that is not negative.
pub(super) fn number(row: &tokio_postgres::Row, column: usize) -> Result<u64, StorageError> {
    let found: i64 = get(row, column)?;
    u64::try_from(found).map_err(|_| StorageError::Damaged(format!("{found} is below 0")))
}

/// As the tables have it. What the domain counts has 63 bits.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).expect("numbers of the domain have 63 bits")
}

/// # Errors
/// [`StorageError::Damaged`] where a value is not one that was written; the same with the others.
pub(super) fn journal_row(row: &tokio_postgres::Row, first: usize) -> Result<Row, StorageError> {
    Ok(Row {
        number: RowNumber(number(row, first)?),
        stock_changes: number(row, first + 8)?,
        epoch: Epoch(number(row, first + 1)?),
        entry: entry(
            (get(row, first + 2)?, get(row, first + 3)?),
            (get(row, first + 4)?, number(row, first + 5)?),
            get(row, first + 9)?,
        )?,
        price: Price::from_minor(number(row, first + 6)?)?,
        chain: ChainHash::try_from(get::<&[u8]>(row, first + 7)?)?,
    })
}

pub(super) fn refused(
    row: &tokio_postgres::Row,
    journal: JournalId,
) -> Result<RefusedOrder, StorageError> {
    let entry = entry(
        (get(row, 0)?, get(row, 1)?),
        (get(row, 2)?, number(row, 3)?),
        get(row, 6)?,
    )?;
    let of_stock: Option<&str> = get(row, 7)?;
    let refusal = match of_stock {
        Some(of_stock) => refusal(of_stock)?,
        None => refusal(get(row, 4)?)?,
    };
    let refused = RefusedOrder { entry, refusal };
    of_refused(journal, &refused).check(Some(get(row, 5)?))?;
    Ok(refused)
}

pub(super) fn stock(row: &tokio_postgres::Row) -> Result<Stock, StorageError> {
    Ok(Stock {
        name: StockName::new(get(row, 0)?)?,
        price: Price::from_minor(number(row, 1)?)?,
        quantity: shares(number(row, 2)?)?,
        volume: number(row, 3)?,
        version: Version(number(row, 4)?),
        is_listed: true,
    })
}

pub(super) fn listing(row: &tokio_postgres::Row) -> Result<Listing, StorageError> {
    Ok(Listing {
        name: StockName::new(get(row, 0)?)?,
        price: Price::from_minor(number(row, 1)?)?,
        quantity: shares(number(row, 2)?)?,
    })
}
