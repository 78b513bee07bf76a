//! How every service connects to another.

use std::time::Duration;

use tonic::transport::{Channel, Endpoint, Error};

/// Longest wait for a connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// How often an idle connection is probed, and how long the answer may take. Finds peers
/// that are gone without a word.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A channel that connects when it is first used, and again whenever it must.
/// Each call sets a deadline of its own.
///
/// # Errors
/// Where `url` is not an `http://host:port` URL.
pub fn lazy(url: &str) -> Result<Channel, Error> {
    let endpoint = Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_lazy())
}
