//! Limits hold within these bounds, and would not without their rules.

use catalog_core::Rule::{CrowdsRest, EmptyStart};
use frontend_core::Rule::{DenialFromAsking, DenialMargin};

use super::bounds::{Bounds, Rule};
use super::properties::{LATE, REFILLED, REMEMBERED, RESTARTED, RIGHTLY, SHARED, WITHIN};
use super::world::PER_TOKEN;
use crate::explore::{check, check_broken};

/// Two gateways and one bucket of two tokens.
const CALM: Bounds = Bounds {
    gateways: 2,
    keys: 1,
    room: 9,
    cost_max: 2,
    asks: 4,
    given_up: 0,
    ticks: 1,
    step: PER_TOKEN,
    crashes: 0,
    without: None,
};

/// One gateway, and one bucket more than there is room for.
const CROWDED: Bounds = Bounds {
    gateways: 1,
    keys: 3,
    room: 2,
    asks: 4,
    ..CALM
};

#[test]
fn gateways_share_what_there_is() {
    check(CALM, &[SHARED, REMEMBERED, REFILLED], 102_597);
}

#[test]
fn what_is_late_or_lost_takes_no_more_than_there_is() {
    let bounds = Bounds {
        asks: 3,
        given_up: 2,
        ..CALM
    };
    check(bounds, &[SHARED, REMEMBERED, LATE, REFILLED], 16_879);
}

#[test]
fn a_catalog_that_restarts_grants_nothing_twice() {
    let bounds = Bounds {
        asks: 3,
        given_up: 1,
        ticks: 2,
        crashes: 1,
        ..CALM
    };
    check(bounds, &[REMEMBERED, RESTARTED, REFILLED, LATE], 310_565);
}

#[test]
fn nobody_gains_by_a_crowd() {
    check(CROWDED, &[REMEMBERED, REFILLED], 748_556);
}

#[test]
fn without_an_empty_start_a_burst_is_granted_twice() {
    let bounds = Bounds { crashes: 1, ..CALM };
    check_broken(without(Rule::Catalog(EmptyStart), bounds), WITHIN, 5);
}

#[test]
fn without_the_crowds_rest_who_finds_room_has_a_burst_more() {
    check_broken(without(Rule::Catalog(CrowdsRest), CROWDED), WITHIN, 9);
}

#[test]
fn counted_from_its_answer_a_denial_outlasts_what_it_says() {
    check_broken(without(Rule::Gateway(DenialFromAsking), CALM), RIGHTLY, 6);
}

#[test]
fn without_a_margin_a_denial_outlasts_what_it_says_by_a_slow_clock() {
    check_broken(without(Rule::Gateway(DenialMargin), CALM), RIGHTLY, 6);
}

fn without(rule: Rule, bounds: Bounds) -> Bounds {
    Bounds {
        without: Some(rule),
        ..bounds
    }
}
