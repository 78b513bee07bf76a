//! The gateway's rules, without a clock, a network, or the policy sandbox: values come in,
//! decisions go out. `frontend-host` acts on them; the model checker explores them.
//!
//! - [`lease`]: until when the gateway may believe its cache;
//! - [`cache`]: what may be kept, what may be served, and what an invalidation does;
//! - [`session`]: when the session with the catalog is opened, renewed and given up;
//! - [`election`]: who is to lead, and what to do about it;
//! - [`rollout`]: whether a version on trial is within its limits;
//! - [`denials`]: what it knows of buckets of tokens that are not full;
//! - [`attempts`]: whom a request calls, and when again;
//! - [`recurring`]: when what is done again and again is next to be done;
//! - [`backoff`]: when what failed is tried again; [`timing`]: how long what is waited for;
//! - [`ablation`]: the protective rules that a test can take out.

pub mod lease;
pub mod cache;
pub mod session;
pub mod election;
pub mod rollout;
pub mod denials;
pub mod attempts;
pub mod recurring;
pub mod backoff;
pub mod timing;
pub mod ablation;

pub use ablation::{Rule, Rules};
pub use backoff::Backoff;
pub use cache::{Answer, Ask, Fetches, Freshness, Tag};
pub use denials::Denials;
pub use lease::{Lease, Session};
pub use session::{SessionKeeper, SessionStep};
