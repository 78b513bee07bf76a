//! The trade protocol, explored exhaustively.
//!
//! What runs here are the shipped cores, not a copy: `catalog::core::Books` commits, numbers and
//! fences, and `order::core::Replica`, two or three of them, lead and follow. `stateright` goes
//! through everything that can happen to them within bounds, breadth first, and checks in every
//! state what is promised of a trade. There is no code outside of tests.
//!
//! - `bounds`: what can happen, how often, and which rule is taken out;
//! - `world`: the catalog, the replicas and their disks;
//! - `network`: the calls and answers on their way;
//! - `identity`: when two states are one;
//! - `properties`: what must always hold, and what must happen somewhere;
//! - `tests`: the bounds that are explored.
//!
//! # What can happen
//!
//! The catalog elects a leader; a gateway announces it, to whom it likes and as late as it likes;
//! clients place orders at whoever leads, and place them again under the same key. Calls and
//! answers arrive in any order or never. A caller gives a call up, which then arrives late, or
//! has been done without its knowing. Disks make durable what queues, or fail. A replica crashes,
//! loses what was not durable, and starts again. Its clock leaps over all that it waits for. It
//! hears from the catalog how long the journal is.
//!
//! # What is left out
//!
//! - The catalog's own crashes: a commit is one transaction, so all that a crash adds is calls
//!   without an answer, which are given up.
//! - One deadline of a replica passing before another: all pass at once.
//! - A save that is half done: what queues at a disk becomes durable in one group.
//! - Journals longer than one answer to a fetch, and batches of several orders.
//! - Cache leases: a trade's value is shown at once.
//! - By symmetry, first elections that replica 1 does not win.
//!
//! What differs only in how calls are numbered or in the order in which packets were sent is one
//! state.
//!
//! # What was explored
//!
//! All of it holds. Times are of one thread on a busy machine with two cores; together the first
//! six take half a minute.
//!
//! | replicas | epochs | attempts at each order | given up | crashes | disk failures | leaps | polls | states | transitions | longest |
//! |---|---|---|---|---|---|---|---|---|---|---|
//! | 2 | 2 | 2, 1 | | | | | | 189,299 | 905,995 | 36 |
//! | 2 | 2 | 1 | 2 | | | 1 | | 203,306 | 823,726 | 37 |
//! | 2 | 2 | 1 | 1 | 1 | | | | 141,653 | 545,035 | 40 |
//! | 2 | 2 | 1 | | 1 | 1 | | | 102,519 | 384,164 | 38 |
//! | 2 | 2 | 1 | 1 | | | | 1 | 89,187 | 339,040 | 33 |
//! | 3 | 1 | 1 | 1 | | | 1 | | 50,606 | 179,395 | 35 |
//! | 3 | 2 | 1 | | | | | | 261,126 | 1,267,565 | 43 |
//! | 2 | 2 | 2, 1 | 1 | | | | | 1,598,003 | 8,300,380 | 41 |
//!
//! The last two take minutes: `cargo test -p model -- --ignored`.
//!
//! # What each rule is for
//!
//! The cores' feature `ablation` lets a test take one rule out (`Rules::without`). It is off in
//! every other build: only this crate's tests ask for it, and dev-dependencies' features stay out
//! of builds without tests. Where it is compiled in, all rules are in force until a test says
//! otherwise.
//!
//! | without | breaks after | because |
//! |---|---|---|
//! | epoch check | 17 steps | a leader that was replaced acknowledges what the new one lacks |
//! | key check | 11 steps | one order gets two rows |
//! | order of in-sync changes | 20 steps | a late change takes in a replica that lacks acknowledged orders |
//! | activation catch-up | 13 steps | a leader lacks what the one before acknowledged |
//! | confirmed absence | 11 steps | a replica denies an order that another one acknowledged |
//! | confirmed removal | 16 steps | an order is acknowledged while the catalog counts on a replica without it |

#[cfg(test)]
mod bounds;
#[cfg(test)]
mod world;
#[cfg(test)]
mod network;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
