//! What must always hold, and what must be possible, lest it hold only because nothing happens.

use domain::{StockName, Version};
use stateright::Property;

use super::bounds::Bounds;
use super::gateway::Gateway;
use super::world::World;

/// No read of any kind is older than what any client had seen when it began; a read from a
/// cache begins and ends at once, and may come at any time.
pub const CURRENT: &str = "a cache serves nothing older than what anybody has seen";

/// The same of reads that the catalog answers; and no core's assertion fails.
pub const UNBROKEN: &str = "nothing breaks on the way";

/// A stock is kept, taken back by a trade, and kept anew.
pub const KEPT_ANEW: &str = "what was taken back is kept anew";

/// A gateway serves from its cache while its stream is broken.
pub const CUT_OFF: &str = "a gateway that is cut off serves until its lease is over";

/// A trade is answered although a gateway still has the old value in its cache.
pub const WAITED_FOR: &str = "a trade waits until a lease is over";

/// A gateway serves under a session that the catalog that runs now never heard of.
pub const OUTLIVED: &str = "a session outlives the catalog's run";

pub fn all() -> Vec<Property<Bounds>> {
    vec![
        Property::always(UNBROKEN, |_, world: &World| world.broken.is_none()),
        Property::always(CURRENT, |_, world: &World| {
            hits(world).all(|(_, name, version)| version >= world.seen[name])
        }),
        Property::sometimes(KEPT_ANEW, |_, world: &World| {
            hits(world).any(|(_, _, version)| version > Version(1))
        }),
        Property::sometimes(CUT_OFF, |_, world: &World| {
            hits(world).any(|(gateway, _, _)| gateway.stream.broken)
        }),
        Property::sometimes(WAITED_FOR, |_, world: &World| {
            let mut entries = world.gateways.iter().flat_map(|gateway| &gateway.entries);
            entries.any(|(name, (_, version))| *version < world.seen[name])
        }),
        Property::sometimes(OUTLIVED, |_, world: &World| {
            world.spent.crashes > 0 && hits(world).any(|(gateway, _, _)| gateway.stream.broken)
        }),
    ]
}

/// What clients could be served from the caches.
fn hits(world: &World) -> impl Iterator<Item = (&Gateway, &StockName, Version)> {
    world.gateways.iter().flat_map(|gateway| {
        let hits = gateway.hits(world.now);
        hits.map(move |(name, version)| (gateway, name, version))
    })
}
