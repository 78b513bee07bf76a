//! The protocol holds within these bounds, and would not without its rules.

use std::fmt::Write;
use std::time::Instant;

use catalog::core::Rule::{ChangeOrder, EpochCheck, KeyCheck};
use order::core::Rule::{ActivationCatchUp, ConfirmedAbsence, ConfirmedRemoval};
use stateright::{Checker, HasDiscoveries, Model, Path};

use crate::bounds::{Action, Bounds, Rule};
use crate::properties::{FOUND, IN_SYNC, ONE_ROW, RETRIED, TAKEN_BACK, TRADED_ON};
use crate::world::World;

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
    without: None,
};

/// Explores everything within the bounds: nothing that must hold breaks, what is named
/// happens somewhere, and there are about so many states.
fn check(bounds: Bounds, happens: &[&str], states: usize) {
    let began = Instant::now();
    let checker = bounds.clone().checker().spawn_bfs().join();
    let found = checker.unique_state_count();
    println!(
        "{bounds:?}: {found} states, {} transitions, at most {} steps, {:.1?}",
        checker.state_count(),
        checker.max_depth() - 1,
        began.elapsed()
    );
    let discoveries = checker.discoveries();
    for (name, path) in &discoveries {
        assert!(
            !is_failure(&checker, name),
            "not always: {name}\n{}",
            told(path)
        );
    }
    for name in happens {
        assert!(discoveries.contains_key(name), "never: {name}");
    }
    let expected = states * 9 / 10..=states * 11 / 10;
    assert!(expected.contains(&found), "{found} states, not {states}");
}

/// Takes out a rule, and finds that it takes so many steps to break what is named.
fn check_without(rule: Rule, bounds: Bounds, broken: &str, steps: usize) {
    let bounds = Bounds {
        without: Some(rule),
        ..bounds
    };
    let mut shortest = None;
    // What is found first is nearly the shortest.
    while let Some(found) = counterexample(&bounds, shortest.as_ref().map(|it: &Broken| it.steps)) {
        shortest = Some(found);
    }
    let found = shortest.unwrap_or_else(|| panic!("{rule:?} makes no difference"));
    println!("without {rule:?}, not: {}\n{}", found.property, found.story);
    assert_eq!((found.property, found.steps), (broken, steps), "{rule:?}");
}

/// A property that does not hold.
struct Broken {
    property: &'static str,
    steps: usize,
    story: String,
}

/// A way to break something, in less than so many steps.
fn counterexample(bounds: &Bounds, below: Option<usize>) -> Option<Broken> {
    let checker = bounds
        .clone()
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        // Counts states, which are one more than the steps between them.
        .target_max_depth(below.map_or(usize::MAX, |steps| steps + 1))
        .spawn_bfs()
        .join();
    let mut discoveries = checker.discoveries().into_iter();
    let (property, path) = discoveries.find(|(name, _)| is_failure(&checker, name))?;
    Some(Broken {
        property,
        story: told(&path),
        steps: path.into_actions().len(),
    })
}

fn is_failure(checker: &impl Checker<Bounds>, name: &'static str) -> bool {
    let property = checker.model().property(name);
    property.expectation.discovery_is_failure()
}

/// The steps of a path, one a line.
fn told(path: &Path<World, Action>) -> String {
    let mut story = String::new();
    for (world, action) in path.clone().into_vec() {
        let told = match action {
            Some(Action::Deliver(packet)) => writeln!(story, "  {:?}", world.network[packet]),
            Some(action) => writeln!(story, "  {action:?}"),
            None => Ok(()),
        };
        told.expect("there is room for text");
    }
    story
}

#[test]
fn orders_placed_again_through_another_leader_are_traded_once() {
    let bounds = Bounds {
        attempts: &[2, 1],
        ..CALM
    };
    check(bounds, &[TRADED_ON, RETRIED], 189_000);
}

#[test]
fn calls_that_were_given_up_and_arrive_late_undo_nothing() {
    let bounds = Bounds {
        give_ups: 2,
        leaps: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_BACK], 203_000);
}

#[test]
fn crashes_lose_nothing_that_was_acknowledged() {
    let bounds = Bounds {
        give_ups: 1,
        restarts: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_BACK], 142_000);
}

#[test]
fn disks_that_fail_and_crashes_lose_nothing_that_was_acknowledged() {
    let bounds = Bounds {
        disk_failures: 1,
        restarts: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_BACK], 103_000);
}

#[test]
fn what_the_catalog_says_of_its_journal_is_caught_up_with() {
    let bounds = Bounds {
        give_ups: 1,
        polls: 1,
        ..CALM
    };
    check(bounds, &[TAKEN_BACK], 89_000);
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
    check(bounds, &[TAKEN_BACK], 50_000);
}

#[test]
#[ignore = "takes minutes, and gigabytes of memory"]
fn wider_bounds_hold() {
    let third = Bounds {
        replicas: 3,
        ..CALM
    };
    check(third, &[TAKEN_BACK], 261_000);
    let again = Bounds {
        attempts: &[2, 1],
        give_ups: 1,
        ..CALM
    };
    check(again, &[TRADED_ON, RETRIED, TAKEN_BACK], 1_598_000);
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
