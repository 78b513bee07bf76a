//! The protocol holds within these bounds, and would not without its rules.

use std::time::Duration;

use catalog_core::Rule::{DelayedVisibility, OwedFirst, Registration, RestartWait};
use frontend_core::Rule::{Floor, LeaseCheck, Registered, SessionCheck};

use super::bounds::{Bounds, Rule};
use super::properties::{CURRENT, CUT_OFF, KEPT_ANEW, OUTLIVED, WAITED_FOR};
use crate::explore::{check, check_broken};

/// A step of the clock that ends a lease, for its gateway (after 985 ms) as for the catalog
/// (after 1,100 ms).
const LONG: Duration = Duration::from_millis(1200);

/// Two of these end a lease.
const SHORT: Duration = Duration::from_millis(600);

/// Two gateways, one stock, and no faults.
const CALM: Bounds = Bounds {
    gateways: 2,
    stocks: 1,
    trades: 2,
    asks: 3,
    retries: 0,
    ticks: 0,
    step: LONG,
    renewals: 0,
    breaks: 0,
    reopenings: 0,
    releases: 0,
    crashes: 0,
    disk_failures: 0,
    without: None,
};

/// Takes out a rule, and finds that it takes so many steps until a cache serves what is stale.
fn check_without(rule: Rule, bounds: Bounds, steps: usize) {
    let bounds = Bounds {
        without: Some(rule),
        ..bounds
    };
    check_broken(bounds, CURRENT, steps);
}

#[test]
fn caches_let_go_before_a_trade_is_seen() {
    let bounds = Bounds { retries: 1, ..CALM };
    check(bounds, &[KEPT_ANEW], 79_110);
}

#[test]
fn stocks_do_not_get_into_each_others_way() {
    let bounds = Bounds {
        stocks: 2,
        asks: 2,
        ..CALM
    };
    check(bounds, &[KEPT_ANEW], 8_825);
}

#[test]
fn who_is_cut_off_is_waited_for() {
    let bounds = Bounds {
        trades: 1,
        asks: 2,
        ticks: 1,
        breaks: 1,
        reopenings: 1,
        ..CALM
    };
    check(bounds, &[KEPT_ANEW, CUT_OFF, WAITED_FOR], 125_946);
}

#[test]
fn renewals_do_not_outlast_the_leases_that_they_renew() {
    let bounds = Bounds {
        trades: 1,
        asks: 2,
        ticks: 2,
        step: SHORT,
        renewals: 1,
        ..CALM
    };
    check(bounds, &[KEPT_ANEW, WAITED_FOR], 106_596);
}

#[test]
fn a_catalog_that_restarts_waits_for_leases_of_before() {
    let bounds = Bounds {
        trades: 1,
        asks: 2,
        ticks: 1,
        reopenings: 1,
        crashes: 1,
        ..CALM
    };
    check(bounds, &[KEPT_ANEW, CUT_OFF, OUTLIVED], 72_261);
}

#[test]
fn what_is_let_go_in_vain_or_for_good_is_not_served() {
    let bounds = Bounds {
        asks: 2,
        releases: 1,
        disk_failures: 1,
        ..CALM
    };
    check(bounds, &[KEPT_ANEW], 19_485);
}

#[test]
#[ignore = "takes minutes"]
fn wider_bounds_hold() {
    let two_stocks = Bounds { stocks: 2, ..CALM };
    check(two_stocks, &[KEPT_ANEW], 130_614);
    let in_vain = Bounds {
        releases: 1,
        disk_failures: 1,
        ..CALM
    };
    check(in_vain, &[KEPT_ANEW], 236_817);
    let restarted = Bounds {
        trades: 1,
        asks: 2,
        ticks: 2,
        reopenings: 1,
        crashes: 1,
        ..CALM
    };
    check(
        restarted,
        &[KEPT_ANEW, CUT_OFF, WAITED_FOR, OUTLIVED],
        284_912,
    );
    let everything_at_one_gateway = Bounds {
        gateways: 1,
        renewals: 1,
        breaks: 1,
        ..restarted
    };
    check(
        everything_at_one_gateway,
        &[KEPT_ANEW, WAITED_FOR, OUTLIVED],
        532_806,
    );
}

#[test]
fn without_floors_an_answer_that_was_overtaken_is_kept() {
    check_without(Rule::Gateway(Floor), CALM, 7);
}

#[test]
fn without_the_lease_check_who_is_given_up_serves_on() {
    let bounds = Bounds { ticks: 1, ..CALM };
    check_without(Rule::Gateway(LeaseCheck), bounds, 7);
}

#[test]
fn without_the_session_check_what_nobody_takes_back_is_served() {
    let bounds = Bounds {
        trades: 1,
        asks: 1,
        ticks: 1,
        breaks: 1,
        reopenings: 1,
        ..CALM
    };
    check_without(Rule::Gateway(SessionCheck), bounds, 10);
}

#[test]
fn without_the_catalogs_word_what_it_will_not_take_back_is_kept() {
    check_without(Rule::Gateway(Registered), CALM, 5);
}

#[test]
fn without_delayed_visibility_a_trade_is_seen_while_the_old_value_is_held() {
    check_without(Rule::Catalog(DelayedVisibility), CALM, 5);
}

#[test]
fn without_the_restart_wait_sessions_of_before_are_forgotten() {
    let bounds = Bounds { crashes: 1, ..CALM };
    check_without(Rule::Catalog(RestartWait), bounds, 6);
}

#[test]
fn without_registration_before_reading_a_holder_is_not_told() {
    check_without(Rule::Catalog(Registration), CALM, 5);
}

#[test]
fn without_waiting_for_what_is_owed_a_late_acknowledgement_lets_go_of_too_much() {
    let bounds = Bounds {
        disk_failures: 1,
        ..CALM
    };
    check_without(Rule::Catalog(OwedFirst), bounds, 12);
}
