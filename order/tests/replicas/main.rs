//! Replicas over real gRPC on loopback, around a catalog in memory.

mod catalog;
mod support;
mod trades;
mod streams;
mod leaders;
mod followers;
mod reads;
mod identity;
mod reports;
