//! Imports `acme:telemetry/sink@1.0.0`, which no host grants: refused at upload, by that name.

use frontend_guest::types::{Decision, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

mod bindings {
    #![allow(missing_docs, reason = "generated from the WIT")]

    wit_bindgen::generate!({ path: "wit/telemetry", world: "reporter" });
}

struct ForbiddenImport;

impl Policy for ForbiddenImport {
    fn name(&self) -> &'static str {
        "forbidden-import"
    }

    fn on_request(&self, request: &Request) -> Decision {
        bindings::acme::telemetry::sink::report(&request.target);
        DefaultPolicy.on_request(request)
    }
}

export!(ForbiddenImport);
