//! The protocol holds within these bounds, and would not without its rules.

use catalog_core::Rule;

use super::bounds::Bounds;
use super::properties::{
    CURRENT, FOUND_AGAIN, HANDED_OVER, HEALED, KEPT, LENT, SERVED_AGAIN, TAKEN_OVER,
};
use crate::explore::{check, check_broken};

/// Time for one take-over, and no faults.
const CALM: Bounds = Bounds {
    trades: 1,
    retries: 0,
    asks: 1,
    ticks: 2,
    losses: 0,
    fail_overs: 0,
    loses: false,
    stops: 0,
    without: None,
};

#[test]
fn one_catalog_takes_over_from_another() {
    check(CALM, &[TAKEN_OVER, LENT], 1);
}
