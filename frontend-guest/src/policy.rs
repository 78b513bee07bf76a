//! What a policy is: a few methods, each with a default.

use crate::election;
use crate::error::ApiError;
use crate::idempotency;
use crate::page_query::{OrderQuery, PageQuery};
use crate::response;
use crate::route::Route;
use crate::trade_order;
use crate::trade_order::IDEMPOTENCY_KEY_HEADER;
use crate::types::{
    Action, Bucket, CacheSettings, Caching, Counter, Decision, Eviction, FollowOrders, Freshness,
    ListOrders, ListStocks, Manifest, Observation, OnFailure, Outcome, ReadOrder, ReadStock,
    ReplicaId, ReplyHeader, Request, Take, View,
};

/// The most stocks that the default policy has the host keep.
const STOCKS_MAX: u32 = 10_000;
/// The most orders that the default policy has the host keep.
const ORDERS_MAX: u32 = 100_000;

/// A policy of the front end. It must be pure: the same arguments, the same answer.
///
/// Every method but [`name`](Policy::name) does by default what the default policy does, so that a
/// policy consists of that in which it differs. [`on_request`](Policy::on_request),
/// [`on_outcome`](Policy::on_outcome) and [`elect`](Policy::elect) are functions of the WIT interface,
/// and [`describe`](Policy::describe) is what its `configure` returns; the others are finer places to
/// differ in.
pub trait Policy {
    /// What the policy is called, 1 to 64 bytes.
    fn name(&self) -> &'static str;

    /// Its version for people to read, 1 to 64 bytes: by default, that of this crate.
    fn version(&self) -> &'static str {
        env!("CARGO_PKG_VERSION")
    }

    /// How the host should keep what this policy lets it cache: 10,000 stocks, 100,000 orders,
    /// the least recently used going first.
    fn cache_settings(&self) -> CacheSettings {
        CacheSettings {
            stocks_max: STOCKS_MAX,
            orders_max: ORDERS_MAX,
            eviction: Eviction::Lru,
        }
    }

    /// Whether it wants to see how requests came: `Request::connection` is `None` otherwise.
    fn wants_connection(&self) -> bool {
        false
    }

    /// What becomes of a request about which this policy fails to decide: the version before decides
    /// about it. A policy that keeps clients out wants [`OnFailure::Refuse`].
    fn on_failure(&self) -> OnFailure {
        OnFailure::LastGood
    }

    /// The counters of this policy's own, which are among the host's metrics as
    /// `bazaar_policy_custom_NAME_total`: by default none. [`Decision::counting`] adds to them.
    fn counters(&self) -> Vec<Counter> {
        Vec::new()
    }

    /// The request headers that it wants to see, in lower case, besides `idempotency-key`: by default
    /// none. The host passes no other.
    fn wanted_headers(&self) -> Vec<String> {
        Vec::new()
    }

    /// The headers that the host adds to every reply, its own errors included: by default none.
    /// See [`ReplyHeader::always`] and [`ReplyHeader::when`].
    fn reply_headers(&self) -> Vec<ReplyHeader> {
        Vec::new()
    }

    /// The buckets of tokens that [`take`](Policy::take) takes out of, which all gateways share: by
    /// default none.
    fn buckets(&self) -> Vec<Bucket> {
        Vec::new()
    }

    /// What a request takes out of a bucket before anything is done about it: by default nothing. One
    /// for which there are not enough tokens is answered with 429, and with 503 where the catalog, which
    /// keeps the buckets, does not answer.
    fn take(&self, _request: &Request) -> Option<Take> {
        None
    }

    /// How fresh a stock must be: never older than what any client has seen.
    fn stock_caching(&self) -> Caching {
        Caching {
            freshness: Freshness::Linearizable,
            stale_on_error_ms: 0,
            vary_key: Vec::new(),
        }
    }

    /// How fresh an order must be. Orders never change, so a kept one is always right.
    fn order_caching(&self) -> Caching {
        Caching {
            freshness: Freshness::Linearizable,
            stale_on_error_ms: 0,
            vary_key: Vec::new(),
        }
    }

    /// Whether whoever asks for an order may have it, so that caches in front may keep it for all. A policy
    /// that lets in some alone says no: else a cache lets in the others.
    fn orders_are_public(&self) -> bool {
        true
    }

    /// What a kept response to a request depends on besides the stock or order: a header, the query, how
    /// the request came. By default nothing, and 1 KiB at most. A policy that renders by any of these puts
    /// it here, or answers without `keep_ms`: another client with the same key gets the kept response.
    fn vary_key(&self, _request: &Request) -> Vec<u8> {
        Vec::new()
    }

    /// Whom the idempotency key of a request belongs to, in a policy that knows its clients: each
    /// name that this gives has keys of its own. By default none, so that all share them, and who
    /// guesses a key gets the answer to another's order. The headers that tell clients apart must be
    /// [wanted](Policy::wanted_headers), and somebody must have checked them.
    ///
    /// The same client must get the same name from one version to the next: under another, an order
    /// that is sent again is another order.
    fn idempotency_scope(&self, _request: &Request) -> Option<String> {
        None
    }

    /// Says what the policy is and what it wants of the host.
    fn describe(&self) -> Manifest {
        let mut headers = self.wanted_headers();
        // Once: of a header that is there twice nobody knows which counts.
        headers.retain(|name| name != IDEMPOTENCY_KEY_HEADER);
        headers.insert(0, IDEMPOTENCY_KEY_HEADER.to_owned());
        Manifest {
            name: self.name().to_owned(),
            version: self.version().to_owned(),
            headers,
            connection: self.wants_connection(),
            cache: self.cache_settings(),
            on_failure: self.on_failure(),
            buckets: self.buckets(),
            counters: self.counters(),
            reply_headers: self.reply_headers(),
        }
    }

    /// Decides what to do about a request: [take](Policy::take) what it takes; then route it, validate
    /// it, and read or trade.
    fn on_request(&self, request: &Request) -> Decision {
        match self.take(request) {
            Some(take) => Action::Take(take).into(),
            None => self.on_granted(request),
        }
    }

    /// Decides what to do about a request for which there were enough tokens, or which takes none.
    fn on_granted(&self, request: &Request) -> Decision {
        match self.action(request) {
            Ok(action) => action.into(),
            Err(error) => Action::Respond(error.response()).into(),
        }
    }

    /// The action that a request asks for, or why there is none. A policy that adds a route
    /// overrides this one.
    fn action(&self, request: &Request) -> Result<Action, ApiError> {
        Ok(match Route::parse(request.method, &request.target)? {
            Route::ListStocks(PageQuery { after, limit }) => {
                Action::ListStocks(ListStocks { after, limit })
            }
            Route::ListOrders(OrderQuery {
                after,
                limit,
                stock,
            }) => Action::ListOrders(ListOrders {
                after,
                limit,
                stock,
            }),
            Route::ReadStock { name } => Action::ReadStock(ReadStock {
                name,
                caching: self.keyed(self.stock_caching(), request),
            }),
            Route::ReadOrder { number } => Action::ReadOrder(ReadOrder {
                number,
                caching: self.keyed(self.order_caching(), request),
            }),
            Route::FollowOrders { after } => Action::FollowOrders(FollowOrders { after }),
            Route::ReadAsset(asset) => Action::Respond(asset.response()),
            Route::PlaceOrder => {
                let mut trade = trade_order::parse(&request.headers, request.body.as_deref())?;
                trade.idempotency_key = trade
                    .idempotency_key
                    .map(|key| idempotency::scoped(self.idempotency_scope(request), key));
                Action::Trade(trade)
            }
        })
    }

    /// Puts the [key](Policy::vary_key) of a request into how its read is to be cached.
    #[doc(hidden)]
    fn keyed(&self, caching: Caching, request: &Request) -> Caching {
        Caching {
            vary_key: self.vary_key(request),
            ..caching
        }
    }

    /// Decides what to do about the outcome of the action decided last: answer it.
    fn on_outcome(&self, request: &Request, _memo: &[u8], outcome: &Outcome) -> Decision {
        match outcome {
            Outcome::Granted => self.on_granted(request),
            _ => {
                let control = match self.orders_are_public() {
                    true => response::ORDER_CACHE_CONTROL,
                    false => response::PRIVATE_ORDER_CACHE_CONTROL,
                };
                let response = response::render_order_with(control, request, outcome);
                Action::Respond(response).into()
            }
        }
    }

    /// The replica that should lead, or `None` for as it is: a leader that works stays, else the
    /// highest id that works and can lead at once takes over.
    fn elect(&self, view: &View) -> Option<ReplicaId> {
        election::keep_working_leader(view)
    }
}

/// A policy that is made from its configuration, once for each instance: `export!(configured Type)`
/// makes a component of one. There is an example at the top of this crate.
pub trait Configured: Policy + Sized {
    /// Makes the policy from what an operator gave with the component: at most 64 KiB, and empty where
    /// nothing was given.
    ///
    /// # Errors
    /// What is wrong with it, for the operator to read. The version is then refused.
    fn from_config(config: &[u8]) -> Result<Self, String>;
}

/// For a policy that has no configuration: none may be given.
#[doc(hidden)]
pub fn expect_no_config(config: &[u8]) -> Result<(), String> {
    if config.is_empty() {
        Ok(())
    } else {
        Err("this policy takes no configuration".to_owned())
    }
}

/// The policy that Bazaar runs unless told otherwise.
#[derive(Debug, Clone, Copy)]
pub struct DefaultPolicy;

impl Policy for DefaultPolicy {
    fn name(&self) -> &'static str {
        "default"
    }
}

/// A decision that needs no memo.
impl From<Action> for Decision {
    fn from(action: Action) -> Self {
        Self {
            action,
            memo: Vec::new(),
            observations: Vec::new(),
            log: Vec::new(),
        }
    }
}

impl Decision {
    /// Adds to a counter that the manifest declares, with the values of its labels in their order. Each is
    /// cut after 64 bytes. A decision can count 16 times.
    #[must_use]
    pub fn counting(mut self, counter: &str, labels: &[&str], value: u64) -> Self {
        let cut = |label: &&str| label[..end_within(label, LABEL_BYTES_MAX)].to_owned();
        self.observations.push(Observation {
            counter: counter.to_owned(),
            labels: labels.iter().map(cut).collect(),
            value,
        });
        self
    }

    /// Has the host write a line to its log, at info: cut after 512 bytes. A decision can come with 8.
    #[must_use]
    pub fn logging(mut self, line: impl Into<String>) -> Self {
        let mut line = line.into();
        line.truncate(end_within(&line, LOG_LINE_BYTES_MAX));
        self.log.push(line);
        self
    }
}

/// The value of a label that the host takes, in bytes.
const LABEL_BYTES_MAX: usize = 64;
/// A line that the host takes, in bytes.
const LOG_LINE_BYTES_MAX: usize = 512;

/// Where to cut a text, so that it has no more bytes.
fn end_within(text: &str, bytes_max: usize) -> usize {
    let ends = (0..=text.len().min(bytes_max)).rev();
    let mut ends = ends.filter(|end| text.is_char_boundary(*end));
    ends.next().unwrap_or(0)
}

/// Makes a component of a policy.
///
/// - `export!(MyPolicy)`, where `MyPolicy` is a constant expression whose type implements [`Policy`]: it
///   has no configuration, and one that is given to it is refused.
/// - `export!(configured MyPolicy)`, where `MyPolicy` is a type that implements [`Configured`].
///
/// Natively it exports nothing and checks the types only, so that a policy's tests need no
/// WebAssembly.
#[macro_export]
macro_rules! export {
    (configured $policy:ty) => {
        const _: () = {
            #[cfg(not(target_family = "wasm"))]
            #[used]
            static CONFIGURE: fn(
                &[u8],
            ) -> ::core::result::Result<
                $crate::types::Manifest,
                ::std::string::String,
            > = |config| {
                let policy = <$policy as $crate::Configured>::from_config(config)?;
                Ok($crate::Policy::describe(&policy))
            };

            /// Of this instance, from its first call on.
            #[cfg(target_family = "wasm")]
            static POLICY: ::std::sync::OnceLock<$policy> = ::std::sync::OnceLock::new();

            #[cfg(target_family = "wasm")]
            fn configured(
                config: &[u8],
            ) -> ::core::result::Result<&'static dyn $crate::Policy, ::std::string::String> {
                let made = <$policy as $crate::Configured>::from_config(config)?;
                assert!(POLICY.set(made).is_ok(), "an instance is configured once");
                Ok(policy())
            }

            #[cfg(target_family = "wasm")]
            fn policy() -> &'static dyn $crate::Policy {
                POLICY.get().expect("an instance is configured first")
            }

            $crate::export!(@component policy, configured);
        };
    };
    ($policy:expr) => {
        const _: () = {
            const POLICY: &dyn $crate::Policy = &$policy;

            // Natively nothing else uses the policy, which would be reported as dead code.
            #[cfg(not(target_family = "wasm"))]
            #[used]
            static DESCRIBE: fn() -> $crate::types::Manifest = || POLICY.describe();

            #[cfg(target_family = "wasm")]
            fn configured(
                config: &[u8],
            ) -> ::core::result::Result<&'static dyn $crate::Policy, ::std::string::String> {
                $crate::expect_no_config(config)?;
                Ok(POLICY)
            }

            #[cfg(target_family = "wasm")]
            #[inline(always)]
            fn policy() -> &'static dyn $crate::Policy {
                POLICY
            }

            $crate::export!(@component policy, configured);
        };
    };
    (@component $policy:ident, $configured:ident) => {
        #[cfg(target_family = "wasm")]
        struct Component;

        #[cfg(target_family = "wasm")]
        impl $crate::bindings::exports::bazaar::policy::policy::Guest for Component {
            fn configure(
                config: ::std::vec::Vec<u8>,
            ) -> ::core::result::Result<$crate::types::Manifest, ::std::string::String> {
                Ok($configured(&config)?.describe())
            }

            fn on_request(request: $crate::types::Request) -> $crate::types::Decision {
                $policy().on_request(&request)
            }

            fn on_outcome(
                request: $crate::types::Request,
                memo: ::std::vec::Vec<u8>,
                outcome: $crate::types::Outcome,
            ) -> $crate::types::Decision {
                $policy().on_outcome(&request, &memo, &outcome)
            }

            fn elect(
                view: $crate::types::View,
            ) -> ::core::option::Option<$crate::types::ReplicaId> {
                $policy().elect(&view)
            }
        }

        #[cfg(target_family = "wasm")]
        $crate::bindings::export_component!(Component with_types_in $crate::bindings);
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Method;

    #[test]
    fn the_default_policy_describes_itself() {
        let manifest = DefaultPolicy.describe();
        assert_eq!(manifest.name, "default");
        assert_eq!(manifest.version, env!("CARGO_PKG_VERSION"));
        assert_eq!(manifest.headers, ["idempotency-key"]);
        assert_eq!(
            manifest.cache,
            CacheSettings {
                stocks_max: 10_000,
                orders_max: 100_000,
                eviction: Eviction::Lru
            }
        );
        assert_eq!(manifest.on_failure, OnFailure::LastGood);
    }

    #[test]
    fn what_a_policy_says_of_itself_is_in_its_manifest() {
        struct Sees;
        impl Policy for Sees {
            fn name(&self) -> &'static str {
                "sees"
            }
            fn wanted_headers(&self) -> Vec<String> {
                ["idempotency-key", "cookie"].map(str::to_owned).into()
            }
            fn reply_headers(&self) -> Vec<ReplyHeader> {
                vec![ReplyHeader::always("x-a", "1").when("x-b", "2")]
            }
        }
        let manifest = Sees.describe();
        assert_eq!(manifest.headers, ["idempotency-key", "cookie"]);
        let when = manifest.reply_headers[0].when.as_ref();
        assert_eq!(when, Some(&("x-b".to_owned(), "2".to_owned())));
    }

    #[test]
    fn what_is_counted_and_said_is_cut_where_the_host_takes_no_more() {
        let long = "\u{e9}".repeat(1000);
        let decision = Decision::from(Action::Retry(0));
        let decision = decision
            .counting("seen", &["a", &long], 2)
            .logging(&long[..]);
        assert_eq!(decision.observations[0].labels, ["a", &long[..64]]);
        assert_eq!(decision.log, [&long[..512]]);
        assert_eq!(end_within("a\u{e9}", 2), 1);
    }

    #[test]
    fn a_lookup_asks_for_the_stock_and_nothing_else() {
        let request = Request {
            method: Method::Get,
            target: "/stocks/nvidia".to_owned(),
            headers: Vec::new(),
            connection: None,
            body: None,
            now_ms: 0,
        };
        let caching = Caching {
            freshness: Freshness::Linearizable,
            stale_on_error_ms: 0,
            vary_key: Vec::new(),
        };
        let read = ReadStock {
            name: "nvidia".to_owned(),
            caching,
        };
        assert_eq!(
            DefaultPolicy.on_request(&request),
            Action::ReadStock(read).into()
        );
    }
}
