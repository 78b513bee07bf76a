//! Places an order only if the price is right: `price_max` of an order to buy, `price_min` of one to sell.
//!
//! ```json
//! {"name": "nvidia", "type": "buy", "quantity": 1, "price_max": 240.63}
//! ```
//!
//! The price is looked up first, as linearizable as can be, and an order that would miss its limit gets 412.
//! **The price may move between the look and the trade**: the order is then placed at the new price. What is
//! ruled out is a price that was wrong when the order came in, not one that is wrong a moment later.
//!
//! An order that is sent again under its idempotency key is looked at again, too: 412 then says that this
//! attempt placed nothing, not that an earlier one did not.

use frontend_guest::types::{
    Action, Caching, Decision, Freshness, OnFailure, Outcome, ReadStock, Request, Response, Side,
    Stock,
};
use frontend_guest::{ApiError, DefaultPolicy, Policy, Route, export, response};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Responses that others were given are kept of the same read, under other keys: one of them must not be
/// found in the place of a decision about an order. Nothing is kept under this one.
const KEY: &[u8] = b"price check";

struct PriceLimits;

/// The limits of an order, as they stand in its body; other fields are the default policy's business.
#[derive(Deserialize)]
struct Limits<'a> {
    #[serde(borrow)]
    price_max: Option<&'a RawValue>,
    #[serde(borrow)]
    price_min: Option<&'a RawValue>,
}

/// In minor units (cents).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    AtMost(u64),
    AtLeast(u64),
}

impl Limit {
    /// That of an order's body, for a side that it makes sense for.
    fn parse(body: Option<&[u8]>, side: Side) -> Result<Option<Self>, ApiError> {
        let limits: Limits = serde_json::from_slice(body.unwrap_or_default())
            .map_err(|error| ApiError::InvalidBody(format!("the body is not JSON: {error}")))?;
        let invalid = |problem: &str| Err(ApiError::InvalidBody(problem.to_owned()));
        let (price, limit): (_, fn(u64) -> Self) = match (side, limits.price_max, limits.price_min)
        {
            (_, None, None) => return Ok(None),
            (Side::Buy, Some(price), None) => (price, Self::AtMost),
            (Side::Sell, None, Some(price)) => (price, Self::AtLeast),
            _ => {
                return invalid("`price_max` is for orders to buy, `price_min` for orders to sell");
            }
        };
        match minor(price.get()) {
            Some(minor) => Ok(Some(limit(minor))),
            None => invalid("a price is a decimal number with at most two places, such as 240.63"),
        }
    }

    fn is_met_by(self, stock: &Stock) -> bool {
        match self {
            Self::AtMost(most) => stock.price_minor <= most,
            Self::AtLeast(least) => stock.price_minor >= least,
        }
    }
}

/// A decimal number in minor units, exactly: never by way of a float.
fn minor(text: &str) -> Option<u64> {
    let (whole, cents) = text.split_once('.').unwrap_or((text, "0"));
    let are_digits =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !are_digits(whole) || !are_digits(cents) || cents.len() > 2 {
        return None;
    }
    let tenths = if cents.len() == 1 { 10 } else { 1 };
    let whole: u64 = whole.parse().ok()?;
    whole
        .checked_mul(100)?
        .checked_add(cents.parse::<u64>().ok()? * tenths)
}

impl PriceLimits {
    /// The limit and the trade of an order; none of the first where it has none.
    fn order(&self, request: &Request) -> Result<(Option<Limit>, Action), ApiError> {
        let action = DefaultPolicy.action(request)?;
        let limit = match &action {
            Action::Trade(trade) => Limit::parse(request.body.as_deref(), trade.side)?,
            _ => None,
        };
        Ok((limit, action))
    }
}

impl Policy for PriceLimits {
    fn name(&self) -> &'static str {
        "price-limits"
    }

    /// Another version would trade at any price.
    fn on_failure(&self) -> OnFailure {
        OnFailure::Refuse
    }

    /// An order is checked in every way before anything is looked up for it.
    fn action(&self, request: &Request) -> Result<Action, ApiError> {
        Ok(match self.order(request)? {
            (Some(_), Action::Trade(trade)) => Action::ReadStock(ReadStock {
                name: trade.name,
                caching: Caching {
                    freshness: Freshness::Linearizable,
                    stale_on_error_ms: 0,
                    vary_key: KEY.to_vec(),
                },
            }),
            (_, action) => action,
        })
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        let places = Route::parse(request.method, &request.target) == Ok(Route::PlaceOrder);
        let (Outcome::Stock(stock), true) = (outcome, places) else {
            return DefaultPolicy.on_outcome(request, memo, outcome);
        };
        match self.order(request) {
            Ok((Some(limit), _)) if !limit.is_met_by(stock) => {
                Action::Respond(missed(stock)).into()
            }
            Ok((_, action)) => action.into(),
            Err(error) => Action::Respond(error.response()).into(),
        }
    }
}

export!(PriceLimits);

/// It is not kept.
fn missed(stock: &Stock) -> Response {
    let (whole, cents) = (stock.price_minor / 100, stock.price_minor % 100);
    response::error(
        412,
        &format!("nothing was placed: the price is {whole}.{cents:02}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::Method;

    fn order(body: &str) -> Request {
        Request {
            method: Method::Post,
            target: "/orders".to_owned(),
            headers: vec![],
            connection: None,
            body: Some(body.as_bytes().to_vec()),
            now_ms: 0,
        }
    }

    fn at(price_minor: u64) -> Outcome {
        Outcome::Stock(Stock {
            name: "nvidia".to_owned(),
            price_minor,
            quantity: 1,
        })
    }

    #[test]
    fn an_order_that_misses_its_limit_is_not_placed() {
        for (side, limit, price, is_placed) in [
            ("buy", r#""price_max": 240.63"#, 24063, true),
            ("buy", r#""price_max": 240.63"#, 24064, false),
            ("buy", r#""price_max": 240"#, 24000, true),
            ("sell", r#""price_min": 240.6"#, 24060, true),
            ("sell", r#""price_min": 240.6"#, 24059, false),
        ] {
            let body = format!(r#"{{"name": "nvidia", "type": "{side}", "quantity": 1, {limit}}}"#);
            let request = order(&body);
            let Action::ReadStock(read) = PriceLimits.on_request(&request).action else {
                panic!("the price is looked up");
            };
            assert_eq!(read.caching.freshness, Freshness::Linearizable);
            assert!(!read.caching.vary_key.is_empty());
            match PriceLimits.on_outcome(&request, &[], &at(price)).action {
                Action::Trade(_) => assert!(is_placed, "{body}"),
                Action::Respond(response) => {
                    assert!(!is_placed && response.status == 412 && response.keep_ms.is_none());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_order_without_a_limit_and_one_with_a_bad_one_are_looked_up_nowhere() {
        let plain = order(r#"{"name": "nvidia", "type": "buy", "quantity": 1}"#);
        assert!(matches!(
            PriceLimits.on_request(&plain).action,
            Action::Trade(_)
        ));
        for limit in [
            r#""price_min": 1"#,
            r#""price_max": 1, "price_min": 1"#,
            r#""price_max": "1""#,
            r#""price_max": -1"#,
            r#""price_max": 1.005"#,
            r#""price_max": 1e3"#,
            r#""price_max": 999999999999999999999"#,
            r#""price_max": [1]"#,
        ] {
            let body = format!(r#"{{"name": "nvidia", "type": "buy", "quantity": 1, {limit}}}"#);
            match PriceLimits.on_request(&order(&body)).action {
                Action::Respond(response) => assert_eq!(response.status, 400, "{limit}"),
                other => panic!("{limit}: {other:?}"),
            }
        }
    }
}
