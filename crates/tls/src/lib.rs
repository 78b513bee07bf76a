//! Who a service is, by its certificate, and the TLS that proves it.
//!
//! - [`identity`]: who a certificate says that its holder is;
//! - [`files`]: certificates and keys, as they are read from disk, anew when they change;
//! - [`cluster`]: mutual TLS between services;
//! - [`server`]: TLS for clients and operators, and [`client`] theirs to a gateway.
//!
//! What holds everywhere: nobody is believed for a certificate that the authority in question has not signed,
//! a connection is encrypted by TLS 1.3 between services, by 1.2 at least else, and files that will not do
//! leave those in force that did.

#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod identity;
pub mod files;
pub mod cluster;
pub mod server;
pub mod client;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::either::Either;

pub use cluster::Cluster;
pub use files::{Error, Files};
pub use identity::{Expected, Identity, Role};
pub use server::{ClientCertificates, Server, Shown};

/// A connection: in the clear on the left, encrypted on the right.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The algorithms of all that is encrypted here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
