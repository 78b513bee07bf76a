//! Goes through all that can happen, and says what was found.

use std::fmt::Debug;
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model, Path};

/// What is explored: bounds, with all that can happen within them.
pub trait Explored:
    Model<
        State: Clone + Hash + PartialEq + Send + Sync + 'static,
        Action: Clone + PartialEq + Send + Sync + 'static,
    > + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
    /// A step of a counterexample, in words.
    fn told(before: &Self::State, action: &Self::Action) -> String;
}

/// The state after a step. Where an assertion of a core does not hold, `broken` is told of a copy of
/// the state before, since whatever the step left behind means nothing.
pub fn next<S: Clone>(
    before: &S,
    step: impl FnOnce(&mut S),
    broken: impl FnOnce(&mut S, &'static str),
) -> S {
    let mut after = before.clone();
    if catch_unwind(AssertUnwindSafe(|| step(&mut after))).is_err() {
        after = before.clone();
        broken(&mut after, "a core's assertion does not hold");
    }
    after
}

/// Explores everything within the bounds: nothing that must hold breaks, what is named
/// happens somewhere, and there are about so many states: a tenth more or fewer, so that a core
/// can change in what does not matter here.
pub fn check<M: Explored>(bounds: M, happens: &[&str], states: usize) {
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
            story::<M>(path)
        );
    }
    for name in happens {
        assert!(discoveries.contains_key(name), "never: {name}");
    }
    let expected = states * 9 / 10..=states * 11 / 10;
    assert!(expected.contains(&found), "{found} states, not {states}");
}

/// Explores bounds with a rule taken out, and finds that it takes so many steps to break what
/// is named.
pub fn check_broken<M: Explored>(bounds: M, broken: &str, steps: usize) {
    let mut shortest: Option<Broken> = None;
    // What is found first is nearly the shortest.
    while let Some(found) = counterexample(&bounds, shortest.as_ref().map(|it| it.steps)) {
        shortest = Some(found);
    }
    let found = shortest.unwrap_or_else(|| panic!("it makes no difference: {bounds:?}"));
    println!(
        "{bounds:?}\nbreaks: {}, after {} steps\n{}",
        found.property, found.steps, found.story
    );
    assert_eq!((found.property, found.steps), (broken, steps));
}

/// A property that does not hold.
struct Broken {
    property: &'static str,
    steps: usize,
    story: String,
}

/// A way to break something, in less than so many steps.
fn counterexample<M: Explored>(bounds: &M, below: Option<usize>) -> Option<Broken> {
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
        story: story::<M>(&path),
        steps: path.into_actions().len(),
    })
}

fn is_failure<M: Explored>(checker: &impl Checker<M>, name: &'static str) -> bool {
    let property = checker.model().property(name);
    property.expectation.discovery_is_failure()
}

/// The steps of a path, one a line.
fn story<M: Explored>(path: &Path<M::State, M::Action>) -> String {
    let steps = path.clone().into_vec();
    let told = steps
        .iter()
        .filter_map(|(before, action)| Some(M::told(before, action.as_ref()?)));
    told.map(|step| format!("  {step}\n")).collect()
}
