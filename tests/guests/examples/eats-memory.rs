//! Allocates until it dies on a target that starts with `/stocks/eat`.

use std::hint;

use frontend_guest::types::{Decision, Request};
use frontend_guest::{DefaultPolicy, Policy, export};

/// What it takes at a time, in bytes.
const BITE_BYTES: usize = 1 << 20;

struct EatsMemory;

impl Policy for EatsMemory {
    fn name(&self) -> &'static str {
        "eats-memory"
    }

    fn on_request(&self, request: &Request) -> Decision {
        let mut eaten = Vec::new();
        while request.target.starts_with("/stocks/eat") {
            eaten.push(hint::black_box(vec![1_u8; BITE_BYTES]));
        }
        DefaultPolicy.on_request(request)
    }
}

export!(EatsMemory);
