//! Gives lists an entity tag, so that who has a page already is told so by a 304 without a body.
//!
//! Stocks and orders get a tag from the gateway by itself, and so does whatever a policy has tagged: it
//! compares `If-None-Match` (a list of tags, `*`, `W/` or not) and `If-Match`, also for responses that it
//! kept. So this policy need not see these headers, and nothing that it answers depends on them.

use frontend_guest::types::{Action, Response};
use frontend_guest::types::{Decision, Outcome, Request};
use frontend_guest::{DefaultPolicy, Policy, export};
use sha2::{Digest, Sha256};

/// Bytes of a digest that make a tag.
const TAG_BYTES: usize = 16;

struct Etag;

impl Policy for Etag {
    fn name(&self) -> &'static str {
        "etag"
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        let mut decision = DefaultPolicy.on_outcome(request, memo, outcome);
        if let (Action::Respond(response), Outcome::Stocks(_)) = (&mut decision.action, outcome) {
            tag(response);
        }
        decision
    }
}

export!(Etag);

/// The same of the same content. Weak: a list that is written differently but says the same could keep it.
fn tag(response: &mut Response) {
    let digest = Sha256::digest(&response.body);
    let mut tag = "W/\"".to_owned();
    for byte in &digest[..TAG_BYTES] {
        tag += &format!("{byte:02x}");
    }
    tag += "\"";
    response.headers.push(("etag".to_owned(), tag));
    // Caches may keep it, and ask whether it has changed before each use.
    response
        .headers
        .push(("cache-control".to_owned(), "no-cache".to_owned()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::{Method, Page, Stock};

    fn tag_of(price_minor: u64) -> String {
        let request = Request {
            method: Method::Get,
            target: "/stocks".to_owned(),
            headers: vec![],
            connection: None,
            body: None,
            now_ms: 0,
        };
        let name = "nvidia".to_owned();
        let page = Page {
            stocks: vec![Stock {
                name,
                price_minor,
                quantity: 1,
            }],
            more: false,
        };
        let decision = Etag.on_outcome(&request, &[], &Outcome::Stocks(page));
        let Action::Respond(response) = decision.action else {
            panic!("a list is answered");
        };
        let tag = response.headers.iter().find(|(name, _)| name == "etag");
        tag.unwrap().1.clone()
    }

    #[test]
    fn a_list_has_another_tag_once_it_has_changed() {
        assert_eq!(tag_of(1), tag_of(1));
        assert_ne!(tag_of(1), tag_of(2));
        assert!(tag_of(1).starts_with("W/\""));
    }
}
