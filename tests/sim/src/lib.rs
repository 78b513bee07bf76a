//! The whole system in a seeded simulation.

#[cfg(test)]
mod messages;
#[cfg(test)]
mod network;
#[cfg(test)]
mod timeline;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod catalog;
#[cfg(test)]
mod replica;
#[cfg(test)]
mod elector;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod client;
#[cfg(test)]
mod nemesis;
#[cfg(test)]
mod world;
#[cfg(test)]
mod tests;
