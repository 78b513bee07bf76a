//! On a target that starts with `/stocks/mistyped` calls a function of WASI's sockets that it
//! imports without the result that WASI gives it.

use frontend_guest::types::{Decision, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

mod bindings {
    #![allow(missing_docs, reason = "generated from the WIT")]

    wit_bindgen::generate!({ path: "wit/mistyped", world: "client" });
}

struct MistypedImport;

impl Policy for MistypedImport {
    fn name(&self) -> &'static str {
        "mistyped-import"
    }

    fn on_request(&self, request: &Request) -> Decision {
        if request.target.starts_with("/stocks/mistyped") {
            bindings::wasi::sockets::tcp_create_socket::create_tcp_socket();
        }
        DefaultPolicy.on_request(request)
    }
}

export!(MistypedImport);
