//! What is taken for service, without a component.

use bytes::Bytes;

use super::*;

/// What clients get for whatever they ask does not make a route of it, by which metrics tell requests apart.
#[test]
fn nobody_is_served_by_an_error_nor_by_an_answer_that_says_nothing() {
    for (status, serves) in [
        (StatusCode::OK, true),
        (StatusCode::PERMANENT_REDIRECT, true),
        (StatusCode::NO_CONTENT, false),
        (StatusCode::NOT_FOUND, false),
        (StatusCode::SERVICE_UNAVAILABLE, false),
    ] {
        let reply = Reply {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            keep: None,
        };
        let decision = Decision {
            action: Action::Respond(Box::new(reply)),
            memo: Vec::new(),
            remarks: None,
        };
        assert_eq!(decision.serves(), serves, "{status}");
    }
}
