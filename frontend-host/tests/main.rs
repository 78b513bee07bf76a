//! What clients, and policies, can do to a gateway without a backend.
//!
//! - [`alone`], [`served`]: such a gateway;
//! - [`machine_code`]: of components, compiled once;
//! - [`frames`], [`client`]: HTTP/2, frame by frame;
//! - [`clients`]: what a client can do to it;
//! - [`streams`]: the same over HTTP/2;
//! - [`candidates`]: what versions that are not the active one change for clients;
//! - [`replies`]: what a policy adds to every reply.
//!
//! One test binary: it links once, and while one test waits, another one runs.

mod alone;
mod served;
#[path = "../policy/tests/machine_code.rs"]
mod machine_code;
#[path = "../../tests/frames/mod.rs"]
mod frames;
#[path = "../../tests/frames/client.rs"]
mod client;
mod clients;
mod streams;
mod candidates;
mod replies;
