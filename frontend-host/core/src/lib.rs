//! The gateway's rules, without a clock, a network, or the policy sandbox: values come in,
//! decisions go out. `frontend-host` acts on them; the model checker explores them.
//!
//! - [`lease`]: until when the gateway may believe its cache;
//! - [`cache`]: what may be kept, what may be served, and what an invalidation does;
//! - [`election`]: who is to lead, and what to do about it;
//! - [`backoff`]: when what failed is tried again; [`timing`]: how long what is waited for;
//! - [`ablation`]: the protective rules that a test can take out.

pub mod lease;
pub mod cache;
pub mod election;
pub mod backoff;
pub mod timing;
pub mod ablation;

pub use ablation::{Rule, Rules};
pub use backoff::Backoff;
pub use cache::{Answer, Ask, Fetches, Freshness, Tag};
pub use lease::{Lease, Session};
