//! The policy of Bazaar's front end, and what it takes to write another one.
//!
//! A policy is a pure function over values: the host gives it a request, the outcome of an action
//! or a view of the replicas, and it answers what to do. It performs no I/O and keeps nothing
//! between calls. See `wit/policy.wit` for the contract and `examples/` for policies to copy.
//!
//! In reading order:
//!
//! - [`types`] (`bindings`): the values exchanged with the host, generated from the WIT.
//! - [`Policy`] (`policy`): a policy, each of whose methods has the default behaviour, and
//!   [`export!`], which makes a component of one.
//! - [`NAME_BYTES_MAX`] (`stock_name`): what a stock can be called.
//! - [`Route`] (`route`): a request's method and target, parsed once.
//! - [`PageQuery`] (`page_query`): which page of a list a request asks for, parsed once.
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
//!         Caching { freshness: Freshness::Bypass, stale_on_error_ms: 0 }
//!     }
//! }
//!
//! export!(Fresh);
//! ```

#![warn(missing_docs)]

#[doc(hidden)]
pub mod bindings;
mod policy;
mod stock_name;
mod route;
mod page_query;
pub mod trade_order;
pub mod idempotency;
pub mod response;
pub mod election;
mod error;

pub use bindings::bazaar::policy::types;
pub use error::ApiError;
pub use page_query::{LIMIT_DEFAULT, LIMIT_MAX, PageQuery};
pub use policy::{DefaultPolicy, Policy};
pub use route::Route;
pub use stock_name::NAME_BYTES_MAX;
pub use trade_order::IDEMPOTENCY_KEY_HEADER;

/// The examples of the guide compile.
#[cfg(doctest)]
#[doc = include_str!("../../docs/POLICIES.md")]
struct Guide;
