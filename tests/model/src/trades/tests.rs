//! The protocol holds within these bounds, and would not without its rules.

use catalog_core::Rule::{ChangeOrder, EpochCheck, KeyCheck, Succession};
use order_core::Rule::{ActivationCatchUp, ConfirmedAbsence, ConfirmedRemoval, LetGo};

use super::bounds::{Bounds, Rule};
use super::properties::{
    FOUND, HEALED, IN_SYNC, ONE_ROW, PROMISED, REPLACED, RETRIED, TAKEN_BACK, TRADED_ON, UNBROKEN,
};
use crate::explore::{check, check_broken};

/// Two replicas, two epochs, one order, and no faults.
const CALM: Bounds = Bounds {
    replicas: 2,
    epochs: 2,
    attempts: &[1],
    give_ups: 0,
    restarts: 0,
    disk_failures: 0,
    leaps: 0,
    polls: 0,
    proposes: false,
    losses: 0,
    rollbacks: 0,
    interrupts: 0,
    suspects: false,
    without: None,
};

/// Takes out a rule, and finds that it takes so many steps to break what is named.
fn check_without(rule: Rule, bounds: Bounds, broken: &str, steps: usize) {
    let bounds = Bounds {
        without: Some(rule),
        ..bounds
    };
    check_broken(bounds, broken, steps);
}

#[test]
fn orders_placed_again_through_another_leader_are_traded_once() {
    let bounds = Bounds {
        attempts: &[2, 1],
        ..CALM
    };
    check(bounds, &[TRADED_ON, RETRIED], 272_597);
}

#[test]
fn calls_that_were_given_up_and_arrive_late_undo_nothing() {
    let bounds = Bounds {
        give_ups: 2,
        leaps: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_BACK], 351_455);
}

#[test]
fn crashes_lose_nothing_that_was_acknowledged() {
    let bounds = Bounds {
        give_ups: 1,
        restarts: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_BACK], 173_319);
}

#[test]
fn disks_that_fail_and_crashes_lose_nothing_that_was_acknowledged() {
    let bounds = Bounds {
        disk_failures: 1,
        restarts: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_BACK], 118_204);
}

#[test]
fn what_the_catalog_says_of_its_journal_is_caught_up_with() {
    let bounds = Bounds {
        give_ups: 1,
        polls: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_BACK], 66_906);
}

#[test]
fn three_replicas_keep_each_other_in_sync() {
    let bounds = Bounds {
        replicas: 3,
        epochs: 1,
        give_ups: 1,
        leaps: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_BACK], 180_931);
}

/// Rows are proposed before they are committed, and may be lost with the catalog.
const PROPOSING: Bounds = Bounds {
    proposes: true,
    losses: 1,
    ..CALM
};

#[test]
fn rows_proposed_in_vain_are_nowhere_taken_for_committed() {
    let bounds = Bounds {
        epochs: 1,
        attempts: &[1, 0, 1],
        ..PROPOSING
    };
    check(bounds, &[REPLACED, PROMISED], 96_616);
}

#[test]
fn proposed_rows_are_held_through_crashes() {
    let bounds = Bounds {
        restarts: 1,
        ..PROPOSING
    };
    check(bounds, &[PROMISED], 140_805);
}

#[test]
fn proposed_rows_are_held_by_disks_that_fail() {
    let bounds = Bounds {
        disk_failures: 1,
        leaps: 1,
        ..PROPOSING
    };
    check(bounds, &[PROMISED], 351_753);
}

#[test]
fn calls_that_arrive_late_propose_nothing() {
    let bounds = Bounds {
        give_ups: 1,
        ..PROPOSING
    };
    check(bounds, &[PROMISED], 108_260);
}

/// The database goes back once to what it was before a commit. The catalog that starts on it begins an epoch.
const ROLLING_BACK: Bounds = Bounds {
    epochs: 1,
    attempts: &[1, 0, 1],
    rollbacks: 1,
    suspects: true,
    ..CALM
};

#[test]
fn what_comes_back_in_part_comes_back_after_another_start() {
    let bounds = Bounds {
        interrupts: 1,
        proposes: true,
        suspects: false,
        ..ROLLING_BACK
    };
    check(bounds, &[HEALED], 141_648);
}

#[test]
fn what_an_older_database_lacks_is_put_back() {
    check(ROLLING_BACK, &[HEALED], 38_696);
}

#[test]
fn what_an_older_database_lacks_is_put_back_whoever_led_last() {
    let bounds = Bounds {
        epochs: 2,
        attempts: &[1],
        ..ROLLING_BACK
    };
    check(bounds, &[HEALED], 46_926);
}

#[test]
fn what_an_older_database_lacks_is_put_back_through_crashes_of_replicas() {
    let bounds = Bounds {
        attempts: &[1],
        restarts: 1,
        proposes: true,
        ..ROLLING_BACK
    };
    check(bounds, &[HEALED], 68_585);
}

#[test]
fn without_letting_go_an_order_is_acknowledged_that_nobody_put_back() {
    check_without(Rule::Order(LetGo), ROLLING_BACK, UNBROKEN, 15);
}

#[test]
fn without_succession_a_row_is_taken_for_another_one() {
    let bounds = Bounds {
        attempts: &[1, 0, 1],
        ..PROPOSING
    };
    check_without(Rule::Catalog(Succession), bounds, UNBROKEN, 15);
}

#[test]
#[ignore = "takes minutes, and gigabytes of memory"]
fn wider_bounds_hold_with_three_replicas() {
    let third = Bounds {
        replicas: 3,
        ..CALM
    };
    check(third, &[TAKEN_BACK], 469_593);
}

#[test]
#[ignore = "takes minutes, and gigabytes of memory"]
fn wider_bounds_hold_with_trades_tried_again() {
    let again = Bounds {
        attempts: &[2, 1],
        give_ups: 1,
        ..CALM
    };
    check(again, &[TRADED_ON, RETRIED, TAKEN_BACK], 2_339_729);
}

#[test]
#[ignore = "takes minutes, and gigabytes of memory"]
fn wider_bounds_hold_with_rows_proposed_in_vain() {
    let in_vain = Bounds {
        attempts: &[1, 0, 1],
        ..PROPOSING
    };
    check(in_vain, &[REPLACED, PROMISED], 1_281_988);
}

#[test]
fn without_the_epoch_check_a_replaced_leader_acknowledges() {
    check_without(Rule::Catalog(EpochCheck), CALM, IN_SYNC, 17);
}

#[test]
fn without_the_key_check_an_order_is_traded_twice() {
    let bounds = Bounds {
        attempts: &[2],
        ..CALM
    };
    check_without(Rule::Catalog(KeyCheck), bounds, ONE_ROW, 11);
}

#[test]
fn without_the_order_of_changes_a_late_one_takes_in_who_lacks_orders() {
    let bounds = Bounds {
        give_ups: 2,
        leaps: 1,
        ..CALM
    };
    check_without(Rule::Catalog(ChangeOrder), bounds, IN_SYNC, 20);
}

#[test]
fn without_catching_up_a_new_leader_lacks_orders() {
    check_without(Rule::Order(ActivationCatchUp), CALM, IN_SYNC, 13);
}

#[test]
fn without_the_catalogs_word_an_acknowledged_order_is_denied() {
    check_without(Rule::Order(ConfirmedAbsence), CALM, FOUND, 11);
}

#[test]
fn without_a_confirmed_removal_an_order_is_acknowledged_too_early() {
    let bounds = Bounds {
        give_ups: 1,
        ..CALM
    };
    check_without(Rule::Order(ConfirmedRemoval), bounds, IN_SYNC, 16);
}
