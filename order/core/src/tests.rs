//! The core's rules, one by one, and all of them against a random world.

pub(crate) mod bench;
mod following;
mod activating;
mod trading;
mod proposing;
mod membership;
mod simulation;
