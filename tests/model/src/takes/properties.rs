//! What must always hold, and what must be possible, lest it hold only because nothing happens.

use stateright::Property;

use super::bounds::Bounds;
use super::world::World;

/// In no time is more granted than the burst and what comes back in it, by all gateways together; and no
/// core's assertion fails.
pub const WITHIN: &str = "no more is granted than a burst and what came back";

/// Of what is denied, a gateway remembers no more than is so.
pub const RIGHTLY: &str = "no gateway denies what the catalog would grant";

/// Two gateways were granted tokens of one bucket.
pub const SHARED: &str = "two gateways use up one burst";

/// Something was denied without a call.
pub const REMEMBERED: &str = "a gateway remembers a denial";

/// Tokens came back that had been used up.
pub const REFILLED: &str = "more than a burst is granted in the course of time";

/// What nobody waited for any more was granted.
pub const LATE: &str = "a take that was given up takes tokens";

/// Something was granted by a catalog that had started again.
pub const RESTARTED: &str = "a catalog that started again grants something";

pub fn all() -> Vec<Property<Bounds>> {
    vec![
        Property::always(WITHIN, |_, world: &World| world.broken.is_none()),
        Property::always(RIGHTLY, |bounds: &Bounds, world: &World| {
            world.denies_rightly(bounds)
        }),
        Property::sometimes(SHARED, |_, world: &World| world.seen.granted == [1, 1]),
        Property::sometimes(REMEMBERED, |_, world: &World| world.seen.denied_at_once),
        Property::sometimes(REFILLED, |_, world: &World| {
            world.seen.granted.iter().sum::<u32>() > 2
        }),
        Property::sometimes(LATE, |_, world: &World| world.seen.granted_late),
        Property::sometimes(RESTARTED, |_, world: &World| world.seen.granted_after_crash),
    ]
}
