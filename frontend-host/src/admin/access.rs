//! Who may use the admin API.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest as _, Sha256};

use super::{Admin, failed};

/// Lets only those in who may: with the token where there is one, else whoever is on this
/// machine, but not a web page that a browser on it shows.
pub(super) async fn authorize(
    State(admin): State<Arc<Admin>>,
    request: Request,
    next: Next,
) -> Response {
    if request.headers().contains_key(ORIGIN) {
        return failed(StatusCode::FORBIDDEN, "web pages may not use the admin API");
    }
    let host = request
        .headers()
        .get(HOST)
        .and_then(|host| host.to_str().ok());
    if admin.token.is_none() && !host.is_none_or(names_this_machine) {
        return failed(
            StatusCode::FORBIDDEN,
            "call the admin API by a loopback address or `localhost`",
        );
    }
    if let Some(token) = &admin.token {
        let given = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let given = given
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        // Hashes are compared, so that the time it takes tells nothing of the token.
        if Sha256::digest(given) != Sha256::digest(token) {
            return failed(
                StatusCode::UNAUTHORIZED,
                "send the admin token: `Authorization: Bearer …`",
            );
        }
    }
    next.run(request).await
}

/// Whether a `Host` header names a loopback address. A name that was made to resolve to one
/// (DNS rebinding) does not.
fn names_this_machine(host: &str) -> bool {
    let name = host
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let name = name.map_or(host, |(name, _)| name);
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_addresses_name_this_machine() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:8081",
            "localhost:8081",
            "LOCALHOST",
            "[::1]:8081",
            "[::1]",
        ] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:8081",
            "127.0.0.1.evil.example",
            "10.0.0.1:8081",
            "",
        ] {
            assert!(!names_this_machine(host), "{host}");
        }
    }
}
