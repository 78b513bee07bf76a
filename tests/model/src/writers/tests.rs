//! The protocol holds within these bounds, and would not without its rules.

use catalog_core::Rule;

use super::bounds::Bounds;
use super::properties::{
    FOUND_AGAIN, HANDED_OVER, HARMLESS, HEALED, LENT, SERVED_AGAIN, TAKEN_OVER,
};
use crate::explore::{check, check_broken};

/// Time for one take-over, and no faults.
const CALM: Bounds = Bounds {
    trades: 1,
    retries: 0,
    asks: 1,
    reads: 0,
    ticks: 2,
    losses: 0,
    fail_overs: 0,
    loses: false,
    stops: 0,
    promises: true,
    without: None,
};

/// The same without a cache.
const UNCACHED: Bounds = Bounds { asks: 0, ..CALM };

/// Takes out a rule, and finds that it takes so many steps until a client is harmed.
fn check_without(rule: Rule, bounds: Bounds, steps: usize) {
    let without = Some(rule);
    check_broken(Bounds { without, ..bounds }, HARMLESS, steps);
}

#[test]
fn one_catalog_takes_over_from_another() {
    let bounds = Bounds { reads: 1, ..CALM };
    check(bounds, &[TAKEN_OVER], 13_558);
}

#[test]
fn catalogs_take_over_from_each_other() {
    let bounds = Bounds {
        ticks: 5,
        ..UNCACHED
    };
    check(bounds, &[TAKEN_OVER, SERVED_AGAIN], 118_481);
}

#[test]
fn what_is_lent_is_over_before_another_catalog_serves() {
    let bounds = Bounds { losses: 1, ..CALM };
    check(bounds, &[TAKEN_OVER, LENT], 50_348);
}

#[test]
fn a_trade_of_which_nobody_knows_is_made_once() {
    let once = Bounds {
        retries: 1,
        ticks: 3,
        losses: 1,
        ..UNCACHED
    };
    check(once, &[TAKEN_OVER, FOUND_AGAIN, SERVED_AGAIN], 51_183);
    let two_trades = Bounds {
        trades: 2,
        ticks: 2,
        ..once
    };
    check(two_trades, &[TAKEN_OVER, FOUND_AGAIN], 14_359);
}

#[test]
fn a_catalog_that_stops_hands_over() {
    let bounds = Bounds {
        ticks: 1,
        stops: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_OVER, HANDED_OVER], 5_131);
}

#[test]
fn a_fail_over_of_the_database_loses_nothing() {
    let bounds = Bounds {
        retries: 1,
        ticks: 3,
        fail_overs: 1,
        ..UNCACHED
    };
    check(bounds, &[TAKEN_OVER, FOUND_AGAIN, SERVED_AGAIN], 68_575);
}

#[test]
fn what_the_database_lost_comes_back() {
    let bounds = Bounds {
        reads: 1,
        ticks: 3,
        fail_overs: 1,
        loses: true,
        ..UNCACHED
    };
    check(bounds, &[TAKEN_OVER, SERVED_AGAIN, HEALED], 34_051);
}

#[test]
#[ignore = "takes minutes"]
fn wider_bounds_hold() {
    let cached = Bounds {
        trades: 2,
        asks: 2,
        ..CALM
    };
    check(cached, &[TAKEN_OVER], 269_372);
    let lost_twice = Bounds {
        retries: 1,
        ticks: 3,
        losses: 2,
        ..UNCACHED
    };
    check(
        lost_twice,
        &[TAKEN_OVER, FOUND_AGAIN, SERVED_AGAIN],
        134_327,
    );
    let stopped = Bounds {
        stops: 2,
        losses: 1,
        ..CALM
    };
    check(stopped, &[TAKEN_OVER, HANDED_OVER], 383_961);
}

#[test]
#[ignore = "takes minutes"]
fn a_fail_over_of_the_database_under_a_cache_loses_nothing() {
    let bounds = Bounds {
        ticks: 3,
        fail_overs: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_OVER, SERVED_AGAIN, LENT], 840_611);
}

#[test]
#[ignore = "takes minutes"]
fn what_the_database_lost_comes_back_under_a_cache() {
    let lossy = Bounds {
        trades: 2,
        ticks: 3,
        fail_overs: 1,
        loses: true,
        ..CALM
    };
    check(lossy, &[TAKEN_OVER, SERVED_AGAIN, HEALED, LENT], 2_053_940);
}

#[test]
fn without_the_fence_a_late_commit_gets_through() {
    check_without(Rule::WriterFence, CALM, 12);
}

#[test]
fn without_its_own_lease_a_catalog_serves_on_after_another_took_over() {
    check_without(Rule::OwnLease, UNCACHED, 9);
}

#[test]
fn without_a_margin_a_fast_clock_takes_over_too_early() {
    check_without(Rule::WriterMargin, UNCACHED, 9);
}

#[test]
fn without_nested_leases_a_gateway_serves_on_after_the_take_over() {
    check_without(Rule::NestedLease, CALM, 12);
}

#[test]
fn without_the_wait_a_living_catalog_is_taken_over_from() {
    check_without(Rule::TakeOverWait, UNCACHED, 6);
}

#[test]
fn without_the_beat_in_the_take_over_a_catalog_that_shows_life_is_taken_over_from() {
    check_without(Rule::TakeOverBeat, UNCACHED, 12);
}

#[test]
fn without_the_barrier_what_is_not_replicated_is_served() {
    let bounds = Bounds {
        reads: 1,
        ticks: 4,
        fail_overs: 1,
        ..UNCACHED
    };
    check_without(Rule::Barrier, bounds, 19);
}

#[test]
fn a_term_that_goes_on_after_an_unknown_commit_serves_what_is_stale() {
    let bounds = Bounds {
        retries: 1,
        losses: 1,
        ..UNCACHED
    };
    check_without(Rule::UnknownEndsTerm, bounds, 4);
}

#[test]
fn without_telling_incarnations_apart_a_database_that_went_back_looks_idle() {
    let bounds = Bounds {
        fail_overs: 1,
        loses: true,
        ..UNCACHED
    };
    check_without(Rule::Incarnation, bounds, 17);
}

#[test]
fn an_own_term_that_is_taken_up_again_too_early_forgets_what_it_lent() {
    let bounds = Bounds {
        ticks: 1,
        losses: 1,
        ..CALM
    };
    check_without(Rule::OwnTermOver, bounds, 13);
}

#[test]
fn a_term_that_is_handed_over_too_early_leaves_its_gateways_behind() {
    let bounds = Bounds {
        ticks: 1,
        stops: 1,
        ..CALM
    };
    check_without(Rule::ReleaseUnheld, bounds, 14);
}

#[test]
fn without_self_healing_an_acknowledged_trade_is_lost() {
    let bounds = Bounds {
        fail_overs: 1,
        loses: true,
        ..UNCACHED
    };
    check_without(Rule::SelfHealing, bounds, 12);
}

#[test]
fn a_replica_that_takes_rows_after_it_has_reported_acknowledges_what_is_lost() {
    let bounds = Bounds {
        fail_overs: 1,
        loses: true,
        promises: false,
        ..CALM
    };
    check_broken(bounds, HARMLESS, 16);
}
