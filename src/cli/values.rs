//! What flags take.

use std::net::{SocketAddr, ToSocketAddrs};

use domain::ReplicaId;

use crate::client::Origin;

/// A host and a port; also as a URL, so that one variable can say where to listen and where to
/// connect.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    let url = ["http://", "https://"].iter();
    let mut url = url.filter_map(|scheme| text.strip_prefix(scheme));
    let text = url.next().unwrap_or(text);
    let mut found = text
        .to_socket_addrs()
        .map_err(|error| format!("not an address such as 127.0.0.1:8080: {error}"))?;
    found
        .next()
        .ok_or_else(|| "no address of that name".to_owned())
}

pub(super) fn replica(text: &str) -> Result<(ReplicaId, Origin), String> {
    let (id, url) = text
        .split_once('=')
        .ok_or("not a replica's number and URL, such as 3=http://127.0.0.1:56891")?;
    let id = id
        .parse()
        .map_err(|error: domain::Invalid| error.to_string())?;
    Ok((id, url.parse()?))
}

/// Iterations in a second.
const RATE_MIN: f64 = 0.01;
const RATE_MAX: f64 = 1e6;

pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number")?;
    if (RATE_MIN..=RATE_MAX).contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("not from {RATE_MIN} to {RATE_MAX} a second"))
    }
}

pub(super) fn probability(text: &str) -> Result<f64, String> {
    let probability: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.0..=1.0).contains(&probability) {
        Ok(probability)
    } else {
        Err("not from 0 to 1".to_owned())
    }
}
