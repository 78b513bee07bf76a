//! Who a service is, by its certificate, and the TLS that proves it.
//!
//! - [`principal`]: who a certificate says that its holder is;
//! - [`files`]: certificates and keys, as they are read from disk, anew when they change;
//! - `chain`: whether certificates hold, and until when;
//! - `words`: what TLS fails for, for people;
//! - `accept`: taking a connection, so that a client that is refused hears why;
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

pub mod principal;
pub mod files;
mod chain;
mod words;
mod accept;
pub mod cluster;
pub mod server;
pub mod client;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, ring};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::either::Either;

pub use chain::Validity;
pub use cluster::{Cluster, Proof};
pub use files::{Error, Files};
pub use principal::{Expected, Principal, Role};
pub use server::{Chain, ClientCertificates, Server, Shown};
pub use words::{in_words, readable, rustls_error, words_of};

/// A connection: in the clear on the left, encrypted on the right.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// How long who has proven who it is is believed without another look at its certificate.
pub const PROVEN_FOR: Duration = Duration::from_secs(10);

/// What a connection holds of what its peer has not taken, beside what others count: a record of TLS (RFC 8446,
/// section 5.1).
const BUFFER_BYTES_MAX: usize = 16 << 10;

/// The algorithms of all that is encrypted here.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}
