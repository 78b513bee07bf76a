//! Idempotency keys that are each client's own, for a Bazaar behind a proxy that says who the client
//! is: two that use the same key place two orders.

use frontend_guest::types::Request;
use frontend_guest::{Policy, export};

/// Set by the proxy, which lets no client set it.
const CLIENT_HEADER: &str = "x-client";

struct ClientKeys;

impl Policy for ClientKeys {
    fn name(&self) -> &'static str {
        "client-keys"
    }

    fn wanted_headers(&self) -> Vec<String> {
        vec![CLIENT_HEADER.to_owned()]
    }

    fn idempotency_scope(&self, request: &Request) -> Option<String> {
        request.header_text(CLIENT_HEADER).map(str::to_owned)
    }
}

export!(ClientKeys);

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::{Action, Method};

    fn key_of(client: &str) -> Option<String> {
        let header = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        let request = Request {
            method: Method::Post,
            target: "/orders".to_owned(),
            headers: vec![
                header("idempotency-key", "1"),
                header(CLIENT_HEADER, client),
            ],
            connection: None,
            body: Some(br#"{"name":"meta","type":"buy","quantity":1}"#.to_vec()),
            now_ms: 0,
        };
        let Action::Trade(trade) = ClientKeys.on_request(&request).action else {
            panic!("an order is a trade");
        };
        trade.idempotency_key
    }

    #[test]
    fn two_clients_can_use_the_same_key() {
        assert_ne!(key_of("alice"), key_of("bob"));
        assert_eq!(key_of("alice"), key_of("alice"));
    }
}
