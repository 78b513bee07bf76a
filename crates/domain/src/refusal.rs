//! Orders, and changes of stocks, that the catalog refuses.

/// Most stocks of a catalog.
pub const STOCKS_MAX: usize = 1_000_000;

/// Why an order or a change of a stock was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No stock of that name.
    StockNotFound,
    /// Fewer shares are left than it would buy.
    NotEnough,
    /// It would take the stock past [`Quantity::MAX`](crate::Quantity::MAX) shares.
    TooMany,
    /// Its idempotency key was used for a different one.
    KeyConflict,
    /// A stock of that name is listed already.
    StockExists,
    /// There are [`STOCKS_MAX`] of them.
    TooManyStocks,
}
