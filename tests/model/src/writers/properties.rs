//! What must always hold, and what must be possible, lest it hold only because nothing happens.

use domain::Version;
use stateright::Property;

use super::bounds::Bounds;
use super::store::Key;
use super::world::World;

/// No read of any kind is older than what any client had seen when it began: neither one from the cache nor one
/// that a catalog answers, each of which may come at any time.
pub const CURRENT: &str = "nobody is served anything older than what anybody has seen";

/// Every trade that was acknowledged is in every journal that is served from, where its client was told.
pub const KEPT: &str = "no acknowledged trade is lost, or made twice";

/// No read was overtaken on its way; and no core's assertion fails.
pub const UNBROKEN: &str = "nothing breaks on the way";

/// Two catalogs do not answer at one moment.
pub const ALONE: &str = "at most one catalog serves at a time";

/// The second catalog serves.
pub const TAKEN_OVER: &str = "another catalog takes over";

/// It does so before any time has passed.
pub const HANDED_OVER: &str = "a catalog that stops is not waited for";

/// A gateway serves what a catalog lent it that serves nothing more itself.
pub const LENT: &str = "a gateway serves on when its catalog has stepped down";

/// A trade of an earlier term is acknowledged in a later one.
pub const FOUND_AGAIN: &str = "a trade whose outcome was unknown is found by its key";

/// A catalog serves after another one did, or after its own term was over.
pub const SERVED_AGAIN: &str = "a catalog serves again in a later term";

/// A catalog serves what it has put back.
pub const HEALED: &str = "lost rows are put back";

/// What harms nobody: all of the first three. For a rule that is taken out, since of two that break at once either may
/// be found first.
pub const HARMLESS: &str = "no client is harmed";

/// What is checked where all rules are in force.
pub fn all() -> Vec<Property<Bounds>> {
    vec![
        Property::always(UNBROKEN, |_, world: &World| world.broken.is_none()),
        Property::always(CURRENT, |_, world: &World| world.is_current()),
        Property::always(KEPT, |_, world: &World| world.is_kept()),
        Property::always(ALONE, |_, world: &World| world.answered().count() <= 1),
        Property::sometimes(TAKEN_OVER, |_, world: &World| world.serves(1)),
        Property::sometimes(HANDED_OVER, |_, world: &World| {
            world.serves(1) && world.spent.ticks == 0
        }),
        Property::sometimes(LENT, |_, world: &World| {
            world.hit().is_some() && world.answered().next().is_none()
        }),
        Property::sometimes(FOUND_AGAIN, |_, world: &World| {
            world.spent.retries > 0 && world.serves(1) && !world.acknowledged.is_empty()
        }),
        Property::sometimes(SERVED_AGAIN, |_, world: &World| {
            world.serves(0) && world.spent.take_overs > 0
        }),
        Property::sometimes(HEALED, |_, world: &World| {
            world.spent.healed > 0 && world.answered().any(|(_, journal)| !journal.is_empty())
        }),
    ]
}

/// What is checked where one is taken out: harm alone, not what may lead to it.
pub fn harm() -> Vec<Property<Bounds>> {
    let harmless =
        |_: &Bounds, world: &World| world.broken.is_none() && world.is_current() && world.is_kept();
    vec![Property::always(HARMLESS, harmless)]
}

impl World {
    fn is_current(&self) -> bool {
        let mut read = self.answered().map(|(version, _)| version);
        read.all(|version| version >= self.seen)
            && self.hit().is_none_or(|version| version >= self.seen)
    }

    fn is_kept(&self) -> bool {
        let mut journals = self.answered().map(|(_, journal)| journal);
        journals.all(|journal| {
            let mut told = self.acknowledged.iter();
            told.all(|(key, row)| journal.get(*row) == Some(key))
        })
    }

    /// What the catalogs that serve would answer.
    fn answered(&self) -> impl Iterator<Item = (Version, &[Key])> {
        (0..self.catalogs.len()).filter_map(|at| self.answers(at))
    }
}
