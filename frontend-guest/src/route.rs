//! From method and target to a route, parsed once: nothing past it compares paths.

use crate::assets::Asset;
use crate::error::ApiError;
use crate::page_query::{OrderQuery, PageQuery, followed_after};
use crate::stock_name::{NAME_BYTES_MAX, is_stock_name, percent_decode};
use crate::types::Method;

/// What comes before the name of a stock.
const STOCK_PREFIX: &str = "/stocks/";

/// Allowed where there is something to read.
const READ_METHODS: &str = "GET, HEAD";
/// Allowed where orders are listed and placed.
const ORDERS_METHODS: &str = "GET, HEAD, POST";

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// `GET /stocks`
    ListStocks(PageQuery),
    /// `GET /stocks/{name}`
    ReadStock {
        /// Percent-decoded; a name that a stock can have.
        name: String,
    },
    /// `GET /orders`
    ListOrders(OrderQuery),
    /// `POST /orders`
    PlaceOrder,
    /// `GET /orders/{number}`
    ReadOrder {
        /// As the trade's answer gave it.
        number: u64,
    },
    /// `GET /events`
    FollowOrders {
        /// From behind this order; `None`: from now on.
        after: Option<u64>,
    },
    /// `GET /`, `GET /openapi.json` and others
    ReadAsset(Asset),
}

impl Route {
    /// Finds the route of a request. `target` is its path and query as they were sent; only lists
    /// look at the query. `HEAD` is routed like `GET`: leaving the body out is the host's part.
    pub fn parse(method: Method, target: &str) -> Result<Self, ApiError> {
        // Nearly every request is this one, and what it costs is paid for each of them.
        let plain = target
            .strip_prefix(STOCK_PREFIX)
            .filter(|name| is_plain(name) && reads(method).is_ok());
        if let Some(name) = plain {
            return Ok(Self::ReadStock {
                name: name.to_owned(),
            });
        }
        Self::parse_any(method, target)
    }

    // Inlined, it would make the code of a lookup longer than what a lookup runs.
    #[inline(never)]
    fn parse_any(method: Method, target: &str) -> Result<Self, ApiError> {
        if method == Method::Other {
            return Err(ApiError::NoSuchMethod);
        }
        let path = path(target);
        if let Some(name) = path.strip_prefix(STOCK_PREFIX).and_then(single_segment) {
            reads(method)?;
            Ok(Self::ReadStock {
                name: stock_name(name)?,
            })
        } else if path == "/stocks" {
            reads(method)?;
            Ok(Self::ListStocks(PageQuery::parse(query(target))?))
        } else if path == "/orders" {
            match method {
                Method::Post => Ok(Self::PlaceOrder),
                Method::Get | Method::Head => {
                    Ok(Self::ListOrders(OrderQuery::parse(query(target))?))
                }
                _ => Err(ApiError::MethodNotAllowed {
                    allow: ORDERS_METHODS,
                }),
            }
        } else if let Some(number) = path.strip_prefix("/orders/").and_then(single_segment) {
            reads(method)?;
            Ok(Self::ReadOrder {
                number: order_number(number)?,
            })
        } else if path == "/events" {
            reads(method)?;
            Ok(Self::FollowOrders {
                after: followed_after(query(target))?,
            })
        } else if let Some(asset) = Asset::at(path) {
            reads(method)?;
            Ok(Self::ReadAsset(asset))
        } else {
            Err(ApiError::NoSuchPath)
        }
    }
}

/// A target without its query.
pub(crate) fn path(target: &str) -> &str {
    target.find(['?', '#']).map_or(target, |end| &target[..end])
}

/// What follows the question mark; empty without one.
pub(crate) fn query(target: &str) -> &str {
    let query = target[path(target).len()..].strip_prefix('?');
    let query = query.unwrap_or_default();
    query.find('#').map_or(query, |end| &query[..end])
}

fn single_segment(path: &str) -> Option<&str> {
    (!path.contains('/')).then_some(path)
}

fn reads(method: Method) -> Result<(), ApiError> {
    allow(matches!(method, Method::Get | Method::Head), READ_METHODS)
}

fn allow(allowed: bool, methods: &'static str) -> Result<(), ApiError> {
    if allowed {
        Ok(())
    } else {
        Err(ApiError::MethodNotAllowed { allow: methods })
    }
}

/// Whether the rest of a target is the name of a stock and stands for itself: no escape, no other
/// segment, no query. There are names that are not plain.
fn is_plain(rest: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&rest.len())
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// No stock has the name of a segment that is not a valid name.
fn stock_name(segment: &str) -> Result<String, ApiError> {
    percent_decode(segment)
        .filter(|name| is_stock_name(name))
        .ok_or(ApiError::StockNotFound)
}

/// No order has the number of a segment that is not a number.
fn order_number(segment: &str) -> Result<u64, ApiError> {
    // `u64::from_str` takes a leading plus sign, too.
    let digits = segment.bytes().all(|byte| byte.is_ascii_digit());
    segment
        .parse()
        .ok()
        .filter(|_| digits)
        .ok_or(ApiError::OrderNotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page_query::LIMIT_DEFAULT;
    use proptest::prelude::*;

    fn check(method: Method, target: &str, expected: Result<Route, ApiError>) {
        assert_eq!(
            Route::parse(method, target),
            expected,
            "{method:?} {target}"
        );
    }

    fn stock(name: &str) -> Result<Route, ApiError> {
        Ok(Route::ReadStock {
            name: name.to_owned(),
        })
    }

    fn list(after: Option<&str>, limit: u32) -> Route {
        let after = after.map(str::to_owned);
        Route::ListStocks(PageQuery { after, limit })
    }

    #[test]
    fn requests_find_their_routes() {
        check(Method::Get, "/stocks", Ok(list(None, LIMIT_DEFAULT)));
        check(
            Method::Head,
            "/stocks?page=2",
            Ok(list(None, LIMIT_DEFAULT)),
        );
        check(
            Method::Get,
            "/stocks?limit=2&after=nike#limit=3",
            Ok(list(Some("nike"), 2)),
        );
        check(Method::Get, "/stocks/nvidia", stock("nvidia"));
        check(Method::Head, "/stocks/nvidia", stock("nvidia"));
        check(Method::Get, "/stocks/nvidia?fresh=1/2", stock("nvidia"));
        check(
            Method::Get,
            "/stocks/berkshire%20hathaway",
            stock("berkshire hathaway"),
        );
        check(Method::Get, "/stocks/a%2Fb%3f", stock("a/b?"));
        check(Method::Get, "/stocks/L%27Or%C3%A9al", stock("L'Oréal"));
        check(Method::Post, "/orders", Ok(Route::PlaceOrder));
        let all = Route::ListOrders(OrderQuery::default());
        check(Method::Get, "/orders", Ok(all.clone()));
        check(Method::Head, "/orders?page=2", Ok(all));
        let some = OrderQuery {
            after: Some(7),
            limit: 2,
            stock: Some("nike".to_owned()),
        };
        check(
            Method::Get,
            "/orders?stock=nike&limit=2&after=7#1",
            Ok(Route::ListOrders(some)),
        );
        let follow = |after| Ok(Route::FollowOrders { after });
        check(Method::Get, "/events", follow(None));
        check(Method::Get, "/events?after=7", follow(Some(7)));
        check(Method::Get, "/orders/0", Ok(Route::ReadOrder { number: 0 }));
        check(
            Method::Get,
            "/orders/18446744073709551615",
            Ok(Route::ReadOrder { number: u64::MAX }),
        );
    }

    #[test]
    fn what_cannot_be_a_stock_is_not_found() {
        let long = format!("/stocks/{}", "x".repeat(NAME_BYTES_MAX + 1));
        for target in [
            "/stocks/",
            "/stocks/%",
            "/stocks/%4",
            "/stocks/%zz",
            "/stocks/%FF",
            "/stocks/a%00b",
            &long,
        ] {
            check(Method::Get, target, Err(ApiError::StockNotFound));
        }
    }

    #[test]
    fn what_cannot_be_an_order_is_not_found() {
        for target in [
            "/orders/",
            "/orders/abc",
            "/orders/-1",
            "/orders/+1",
            "/orders/1.0",
            "/orders/18446744073709551616",
        ] {
            check(Method::Get, target, Err(ApiError::OrderNotFound));
        }
    }

    #[test]
    fn other_methods_are_told_what_is_allowed() {
        let reads = Err(ApiError::MethodNotAllowed { allow: "GET, HEAD" });
        let orders = Err(ApiError::MethodNotAllowed {
            allow: "GET, HEAD, POST",
        });
        for method in [Method::Put, Method::Patch, Method::Delete, Method::Options] {
            check(method, "/stocks", reads.clone());
            check(method, "/stocks/nvidia", reads.clone());
            check(method, "/orders/0", reads.clone());
            check(method, "/orders", orders.clone());
        }
        check(Method::Post, "/stocks/nvidia", reads.clone());
    }

    #[test]
    fn there_are_no_other_methods() {
        for target in ["/stocks", "/stocks/nvidia", "/orders", "/orders/0", "/"] {
            check(Method::Other, target, Err(ApiError::NoSuchMethod));
        }
    }

    #[test]
    fn there_are_no_other_paths() {
        for target in [
            "",
            "*",
            "/stock",
            "/stocks/a/b",
            "/orders/0/",
            "/STOCKS",
            "//stocks",
            "/ordersx",
        ] {
            check(Method::Get, target, Err(ApiError::NoSuchPath));
        }
    }

    proptest! {
        #[test]
        fn no_target_breaks_the_router(target in "(/stocks/|/orders/|)[\\PC%/?0-9]{0,40}") {
            let _ = Route::parse(Method::Get, &target);
        }

        #[test]
        fn plain_names_are_routed_as_all_targets_are(target in "/stocks/[a-zA-Z0-9%/?#.é]{0,70}") {
            for method in [Method::Get, Method::Head, Method::Post] {
                prop_assert_eq!(
                    Route::parse(method, &target),
                    Route::parse_any(method, &target)
                );
            }
        }

        #[test]
        fn every_name_can_be_asked_for(name in "[^\\pC]{1,16}") {
            let escaped: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(Route::parse(Method::Get, &format!("/stocks/{escaped}")), stock(&name));
        }
    }
}
