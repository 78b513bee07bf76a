//! The policy of Bazaar's front end, and what it takes to write another one.
//!
//! A policy is a pure function over values: the host gives it a request, the outcome of an action
//! or a view of the replicas, and it answers what to do. It performs no I/O and keeps nothing
//! between calls but its configuration. See `wit/policy.wit` for the contract and `examples/` for policies to copy.
//!
//! In reading order:
//!
//! - [`types`] (`bindings`): the values exchanged with the host, generated from the WIT.
//! - `request`: reading the target and headers of a [`Request`](types::Request).
//! - [`ReplyHeader`](types::ReplyHeader) (`reply_header`): headers that every reply gets.
//! - [`Policy`] (`policy`): a policy, each of whose methods has the default behaviour, and
//!   [`export!`], which makes a component of one; [`Configured`], one that is made from a configuration.
//! - [`NAME_BYTES_MAX`] (`stock_name`): what a stock can be called.
//! - [`Route`] (`route`): a request's method and target, parsed once.
//! - [`PageQuery`] and [`OrderQuery`] (`page_query`): which page of a list a request asks for, parsed
//!   once.
//! - [`Asset`] (`assets`): what is served as it is.
//! - [`trade_order`] (`trade_order`): the body and headers of `POST /orders`, parsed once.
//! - [`idempotency`]: a client's key, where a policy knows its clients.
//! - [`response`]: from an outcome to the HTTP response.
//! - [`election`]: who should lead.
//! - [`ApiError`] (`error`): all that can go wrong with a request, and its one table to HTTP.
//!
//! ```
//! use frontend_guest::types::{Caching, Freshness};
//! use frontend_guest::{Policy, export};
//!
//! struct Fresh;
//!
//! impl Policy for Fresh {
//!     fn name(&self) -> &'static str {
//!         "fresh"
//!     }
//!
//!     fn stock_caching(&self) -> Caching {
//!         Caching {
//!             freshness: Freshness::Bypass,
//!             stale_on_error_ms: 0,
//!             vary_key: Vec::new(),
//!         }
//!     }
//! }
//!
//! export!(Fresh);
//! ```
//!
//! A policy with a configuration is made from it, once for each instance, before anything else; what it
//! says is wrong with it is what an operator gets to read. Here that is text, but it can be any format:
//!
//! ```
//! use frontend_guest::types::{Caching, Freshness};
//! use frontend_guest::{Configured, Policy, export};
//!
//! struct Aged {
//!     age_ms_max: u32,
//! }
//!
//! impl Configured for Aged {
//!     fn from_config(config: &[u8]) -> Result<Self, String> {
//!         let text = std::str::from_utf8(config).map_err(|_| "it is not UTF-8")?;
//!         let age = text.trim().parse();
//!         let age_ms_max = age.map_err(|error| format!("`{text}` is no number of ms: {error}"))?;
//!         Ok(Self { age_ms_max })
//!     }
//! }
//!
//! impl Policy for Aged {
//!     fn name(&self) -> &'static str {
//!         "aged"
//!     }
//!
//!     fn stock_caching(&self) -> Caching {
//!         Caching {
//!             freshness: Freshness::AtMost(self.age_ms_max),
//!             stale_on_error_ms: 0,
//!             vary_key: Vec::new(),
//!         }
//!     }
//! }
//!
//! export!(configured Aged);
//!
//! // As in every other test of a policy, natively:
//! let aged = Aged::from_config(b"500\n").unwrap();
//! assert_eq!(aged.stock_caching().freshness, Freshness::AtMost(500));
//! assert!(Aged::from_config(b"soon").is_err());
//! ```

#![warn(missing_docs)]

#[doc(hidden)]
pub mod bindings;
mod request;
mod reply_header;
mod policy;
mod stock_name;
mod assets;
mod route;
mod page_query;
pub mod trade_order;
pub mod idempotency;
pub mod response;
pub mod election;
mod error;

pub use assets::Asset;
pub use bindings::bazaar::policy::types;
pub use error::ApiError;
pub use page_query::{LIMIT_DEFAULT, LIMIT_MAX, OrderQuery, PageQuery};
#[doc(hidden)]
pub use policy::expect_no_config;
pub use policy::{Configured, DefaultPolicy, Policy};
pub use route::Route;
pub use stock_name::NAME_BYTES_MAX;
pub use trade_order::IDEMPOTENCY_KEY_HEADER;

/// The examples of the guide compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/POLICIES.md")]
struct Guide;
