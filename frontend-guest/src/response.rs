//! From an outcome to the HTTP response.

use std::fmt::{self, Display};

use crate::error::ApiError;
use crate::page_query::{OrderQuery, PageQuery};
use crate::route;
use crate::types::{Order, OrderPage, Outcome, Page, Request, Response, Side, Stock};

/// How long a stock may be kept, in milliseconds, within the freshness that was asked for.
pub const STOCK_KEEP_MS: u32 = 60_000;
/// How long an order may be kept, in milliseconds. It never changes; this only bounds memory.
pub const ORDER_KEEP_MS: u32 = 3_600_000;

/// What caches in front of Bazaar are told of an order. Of the rest the host says that it is not to
/// be kept, or only with a question before each use.
pub const ORDER_CACHE_CONTROL: &str = "public, max-age=31536000, immutable";

/// The same, in a policy that does not let everybody in: no cache that several people share keeps it.
pub const PRIVATE_ORDER_CACHE_CONTROL: &str = "private, max-age=31536000, immutable";

/// How many seconds a client should leave an unavailable service alone.
const RETRY_AFTER_S: &str = "1";

/// Room for the answer to a read, in bytes, so that it is allocated once.
const BODY_BYTES_TYPICAL: usize = 128;

/// The response to an outcome of what a request asked for.
pub fn render(request: &Request, outcome: &Outcome) -> Response {
    render_order_with(ORDER_CACHE_CONTROL, request, outcome)
}

/// The same, with what caches in front are told of an order.
pub fn render_order_with(control: &str, request: &Request, outcome: &Outcome) -> Response {
    match outcome {
        Outcome::Stock(stock) => Response {
            keep_ms: Some(STOCK_KEEP_MS),
            ..data(StockJson(stock))
        },
        Outcome::Stocks(page) => list(&request.target, page),
        Outcome::Order(order) => {
            let mut response = data(OrderJson(order));
            response
                .headers
                .push(("cache-control".to_owned(), control.to_owned()));
            response.keep_ms = Some(ORDER_KEEP_MS);
            response
        }
        Outcome::Orders(page) => list_orders(&request.target, page),
        Outcome::Traded(number) => data(format_args!("{{\"transaction_number\":{number}}}")),
        Outcome::Refused(refusal) => ApiError::from(*refusal).response(),
        Outcome::Unavailable(unavailability) => ApiError::from(*unavailability).response(),
        // There is nothing to say about what was done to no effect but this.
        Outcome::Granted => data("null"),
        Outcome::Denied(retry_after_ms) => ApiError::TooManyRequests {
            retry_after_ms: *retry_after_ms,
        }
        .response(),
    }
}

impl ApiError {
    /// The response that tells the client. It is never kept.
    pub fn response(&self) -> Response {
        let mut response = error(self.status(), &self.to_string());
        match self {
            Self::MethodNotAllowed { allow } => response
                .headers
                .push(("allow".to_owned(), (*allow).to_owned())),
            Self::NoCatalog | Self::NoReplica => {
                response
                    .headers
                    .push(("retry-after".to_owned(), RETRY_AFTER_S.to_owned()));
            }
            Self::TooManyRequests { retry_after_ms } => {
                let seconds = retry_after_ms.div_ceil(1000).max(1);
                response
                    .headers
                    .push(("retry-after".to_owned(), seconds.to_string()));
            }
            _ => {}
        }
        response
    }
}

/// An error in the one shape that errors have.
pub fn error(status: u16, message: &str) -> Response {
    json(
        status,
        format_args!(
            "{{\"error\":{{\"code\":{status},\"message\":{}}}}}",
            JsonString(message)
        ),
    )
}

/// A page, which says where the next one is.
fn list(target: &str, page: &Page) -> Response {
    let stocks = ListJson(&page.stocks, StockJson);
    match page.stocks.last().filter(|_| page.more) {
        None => data(stocks),
        Some(last) => {
            let next = next(target, &last.name);
            let next = JsonString(&next);
            json(200, format_args!("{{\"data\":{stocks},\"next\":{next}}}"))
        }
    }
}

fn next(target: &str, last: &str) -> String {
    let asked = PageQuery::parse(route::query(target)).unwrap_or_default();
    asked.next(route::path(target), last)
}

/// A page of orders, which says where the next one is.
fn list_orders(target: &str, page: &OrderPage) -> Response {
    let orders = ListJson(&page.orders, OrderJson);
    match page.next_after {
        None => data(orders),
        Some(after) => {
            let asked = OrderQuery::parse(route::query(target)).unwrap_or_default();
            let next = asked.next(route::path(target), after);
            let next = JsonString(&next);
            json(200, format_args!("{{\"data\":{orders},\"next\":{next}}}"))
        }
    }
}

fn data(value: impl Display) -> Response {
    json(200, format_args!("{{\"data\":{value}}}"))
}

fn json(status: u16, body: fmt::Arguments<'_>) -> Response {
    let mut text = String::with_capacity(BODY_BYTES_TYPICAL);
    fmt::Write::write_fmt(&mut text, body).expect("a String takes all that is written to it");
    Response {
        status,
        headers: vec![("content-type".to_owned(), "application/json".to_owned())],
        body: text.into_bytes(),
        keep_ms: None,
    }
}

struct StockJson<'a>(&'a Stock);

impl Display for StockJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Stock {
            name,
            price_minor,
            quantity,
        } = self.0;
        let (name, price) = (JsonString(name), Decimal(*price_minor));
        write!(
            f,
            "{{\"name\":{name},\"price\":{price},\"quantity\":{quantity}}}"
        )
    }
}

/// A list, each of whose entries the function makes JSON of.
struct ListJson<'a, T, J>(&'a [T], fn(&'a T) -> J);

impl<T, J: Display> Display for ListJson<'_, T, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, entry) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator}{}", self.1(entry))?;
        }
        f.write_str("]")
    }
}

struct OrderJson<'a>(&'a Order);

impl Display for OrderJson<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Order {
            number,
            name,
            side,
            quantity,
        } = self.0;
        let side = match side {
            Side::Buy => "buy",
            Side::Sell => "sell",
        };
        let name = JsonString(name);
        write!(
            f,
            "{{\"number\":{number},\"name\":{name},\"type\":\"{side}\",\"quantity\":{quantity}}}"
        )
    }
}

/// Minor units as a decimal number: `240.63`, and `20.0` for a whole one.
struct Decimal(u64);

impl Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, cents) = (self.0 / 100, self.0 % 100);
        if cents % 10 == 0 {
            write!(f, "{whole}.{}", cents / 10)
        } else {
            write!(f, "{whole}.{cents:02}")
        }
    }
}

/// Text as a JSON string, quotes included.
struct JsonString<'a>(&'a str);

impl Display for JsonString<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self.0).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Method, Refusal, Unavailability};

    fn stock(name: &str, price_minor: u64, quantity: u64) -> Stock {
        Stock {
            name: name.to_owned(),
            price_minor,
            quantity,
        }
    }

    /// The response to `outcome` of a request for `target`.
    fn rendered(target: &str, outcome: &Outcome) -> Response {
        let request = Request {
            method: Method::Get,
            target: target.to_owned(),
            headers: Vec::new(),
            connection: None,
            body: None,
            now_ms: 0,
        };
        render(&request, outcome)
    }

    fn check(outcome: Outcome, status: u16, keep_ms: Option<u32>, body: &str) {
        let response = rendered("/", &outcome);
        assert_eq!(String::from_utf8(response.body).unwrap(), body);
        assert_eq!(
            (response.status, response.keep_ms),
            (status, keep_ms),
            "{body}"
        );
        assert_eq!(
            response.headers[0],
            ("content-type".to_owned(), "application/json".to_owned())
        );
    }

    #[test]
    fn what_was_asked_for_is_answered() {
        check(
            Outcome::Stock(stock("nvidia", 24063, 1000)),
            200,
            Some(60_000),
            r#"{"data":{"name":"nvidia","price":240.63,"quantity":1000}}"#,
        );
        check(
            Outcome::Stock(stock("a\"\\\u{7f}é\u{1}", 2000, 0)),
            200,
            Some(60_000),
            "{\"data\":{\"name\":\"a\\\"\\\\\u{7f}é\\u0001\",\"price\":20.0,\"quantity\":0}}",
        );
        check(
            Outcome::Order(Order {
                number: 3,
                name: "tesla".to_owned(),
                side: Side::Sell,
                quantity: 10,
            }),
            200,
            Some(3_600_000),
            r#"{"data":{"number":3,"name":"tesla","type":"sell","quantity":10}}"#,
        );
        check(
            Outcome::Traded(0),
            200,
            None,
            r#"{"data":{"transaction_number":0}}"#,
        );
    }

    #[test]
    fn caches_may_keep_an_order_for_ever() {
        let order = Order {
            number: 3,
            name: "tesla".to_owned(),
            side: Side::Sell,
            quantity: 10,
        };
        let control = "public, max-age=31536000, immutable";
        assert_eq!(
            rendered("/orders/3", &Outcome::Order(order)).headers[1],
            ("cache-control".to_owned(), control.to_owned())
        );
    }

    #[test]
    fn a_page_says_where_the_next_one_is() {
        let listed = |target: &str, stocks: &[Stock], more: bool| {
            let stocks = stocks.to_vec();
            let page = Page { stocks, more };
            let response = rendered(target, &Outcome::Stocks(page));
            assert_eq!((response.status, response.keep_ms), (200, None));
            String::from_utf8(response.body).unwrap()
        };
        let stocks = [stock("amc", 5, 1), stock("L'Oréal & Cie", 750, 2)];
        let data = r#"[{"name":"amc","price":0.05,"quantity":1},{"name":"L'Oréal & Cie","price":7.5,"quantity":2}]"#;
        let alone = format!(r#"{{"data":{data}}}"#);
        assert_eq!(listed("/stocks", &stocks, false), alone);
        assert_eq!(listed("/stocks?limit=2&after=a", &stocks, false), alone);
        for (target, next) in [
            ("/stocks", "/stocks?limit=1000"),
            ("/stocks?after=a&limit=2", "/stocks?limit=2"),
            ("/v2/\"stocks\"?limit=2#1", r#"/v2/\"stocks\"?limit=2"#),
        ] {
            let next = format!("{next}&after=L%27Or%C3%A9al%20%26%20Cie");
            let body = format!(r#"{{"data":{data},"next":"{next}"}}"#);
            assert_eq!(listed(target, &stocks, true), body);
        }
        assert_eq!(listed("/stocks", &[], false), r#"{"data":[]}"#);
    }

    #[test]
    fn a_page_of_orders_says_where_the_next_one_is() {
        let order = |number| Order {
            number,
            name: "L'Oréal".to_owned(),
            side: Side::Buy,
            quantity: 2,
        };
        let listed = |target: &str, orders: &[Order], next_after| {
            let orders = orders.to_vec();
            let page = OrderPage { orders, next_after };
            let response = rendered(target, &Outcome::Orders(page));
            assert_eq!((response.status, response.keep_ms), (200, None));
            String::from_utf8(response.body).unwrap()
        };
        let data = r#"[{"number":3,"name":"L'Oréal","type":"buy","quantity":2},{"number":9,"name":"L'Oréal","type":"buy","quantity":2}]"#;
        let orders = [order(3), order(9)];
        let alone = format!(r#"{{"data":{data}}}"#);
        assert_eq!(listed("/orders?limit=2", &orders, None), alone);
        let target = "/orders?stock=L%27Or%C3%A9al&limit=2";
        let next = "/orders?limit=2&after=9&stock=L%27Or%C3%A9al";
        let body = format!(r#"{{"data":{data},"next":"{next}"}}"#);
        assert_eq!(listed(target, &orders, Some(9)), body);
        assert_eq!(
            listed("/orders", &[], Some(20_000)),
            r#"{"data":[],"next":"/orders?limit=1000&after=20000"}"#
        );
        assert_eq!(listed("/orders", &[], None), r#"{"data":[]}"#);
    }

    #[test]
    fn refusals_say_why() {
        for (refusal, status, message) in [
            (Refusal::StockNotFound, 404, "stock not found"),
            (
                Refusal::NotEnough,
                404,
                "not enough stocks available to buy",
            ),
            (Refusal::OrderNotFound, 404, "transaction not found"),
            (
                Refusal::KeyConflict,
                409,
                "the Idempotency-Key was used for a different order",
            ),
            (
                Refusal::TooMany,
                400,
                "the quantity would take the stock past the most it can have",
            ),
        ] {
            let body = format!(r#"{{"error":{{"code":{status},"message":"{message}"}}}}"#);
            check(Outcome::Refused(refusal), status, None, &body);
        }
    }

    #[test]
    fn unavailability_says_whose_and_when_to_come_back() {
        for (unavailability, message) in [
            (Unavailability::NoCatalog, "catalog unavailable, try again"),
            (
                Unavailability::NoReplica,
                "no order replica available, try again",
            ),
        ] {
            let body = format!(r#"{{"error":{{"code":503,"message":"{message}"}}}}"#);
            check(Outcome::Unavailable(unavailability), 503, None, &body);
            let headers = rendered("/", &Outcome::Unavailable(unavailability)).headers;
            assert_eq!(headers[1], ("retry-after".to_owned(), "1".to_owned()));
        }
    }

    #[test]
    fn a_price_is_exact_whatever_its_size() {
        for (minor, text) in [
            (0, "0.0"),
            (5, "0.05"),
            (10, "0.1"),
            (24063, "240.63"),
            (u64::MAX, "184467440737095516.15"),
        ] {
            assert_eq!(Decimal(minor).to_string(), text);
        }
    }
}
