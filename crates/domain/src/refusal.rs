//! Orders that the catalog refuses.

/// Why an order was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// No stock of that name.
    StockNotFound,
    /// Fewer shares are left than it would buy.
    NotEnough,
    /// It would take the stock past [`Quantity::MAX`](crate::Quantity::MAX) shares.
    TooMany,
    /// Its idempotency key was used for a different order.
    KeyConflict,
}
