//! From a query to the page of a list that it asks for: `limit=` and `after=`, and of orders also
//! `stock=`. Other parameters are ignored.

use std::fmt::Write as _;
use std::str::FromStr;

use crate::error::ApiError;
use crate::stock_name::{is_stock_name, percent_decode};

/// The most entries of a page that says nothing of its limit.
pub const LIMIT_DEFAULT: u32 = 1_000;
/// The highest limit of a page.
pub const LIMIT_MAX: u32 = 10_000;

/// Which page of a list a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageQuery {
    /// From the first entry on whose name comes after this one, whether or not there is one of that
    /// name. `None`: from the first of all.
    pub after: Option<String>,
    /// Most entries: 1 to [`LIMIT_MAX`].
    pub limit: u32,
}

impl Default for PageQuery {
    fn default() -> Self {
        Self {
            after: None,
            limit: LIMIT_DEFAULT,
        }
    }
}

impl PageQuery {
    /// Reads the query of a request's target, without its question mark. Percent-encoded, with `+` for
    /// a space as forms have it.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let [after, limit] = parameters(query, ["after", "limit"])?;
        Ok(Self {
            after: after.map(name_of).transpose()?.flatten(),
            limit: limit.map_or(Ok(LIMIT_DEFAULT), limit_of)?,
        })
    }

    /// The path and query of the page after this one, whose last entry is `last`.
    pub fn next(&self, path: &str, last: &str) -> String {
        let mut next = format!("{path}?limit={}&after=", self.limit);
        push_encoded(&mut next, last);
        next
    }
}

/// Which page of the orders a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderQuery {
    /// From the first order on whose number is higher than this one. `None`: from order 0.
    pub after: Option<u64>,
    /// Most orders: 1 to [`LIMIT_MAX`].
    pub limit: u32,
    /// Those of this stock alone, whether or not there is one of that name. `None`: of all.
    pub stock: Option<String>,
}

impl Default for OrderQuery {
    fn default() -> Self {
        Self {
            after: None,
            limit: LIMIT_DEFAULT,
            stock: None,
        }
    }
}

impl OrderQuery {
    /// Reads the query of a request's target, without its question mark. Percent-encoded, with `+` for
    /// a space as forms have it.
    pub fn parse(query: &str) -> Result<Self, ApiError> {
        let [after, limit, stock] = parameters(query, ["after", "limit", "stock"])?;
        Ok(Self {
            after: after.map(number_of).transpose()?,
            limit: limit.map_or(Ok(LIMIT_DEFAULT), limit_of)?,
            stock: stock.map(stock_of).transpose()?,
        })
    }

    /// The path and query of the page after this one, which begins after that number.
    pub fn next(&self, path: &str, after: u64) -> String {
        let mut next = format!("{path}?limit={}&after={after}", self.limit);
        if let Some(stock) = &self.stock {
            next.push_str("&stock=");
            push_encoded(&mut next, stock);
        }
        next
    }
}

/// After which order a request follows orders: `after=`. `None`: from now on.
pub(crate) fn followed_after(query: &str) -> Result<Option<u64>, ApiError> {
    let [after] = parameters(query, ["after"])?;
    after.map(number_of).transpose()
}

/// The values of these parameters, still encoded.
fn parameters<'q, const N: usize>(
    query: &'q str,
    names: [&str; N],
) -> Result<[Option<&'q str>; N], ApiError> {
    let mut values = [None; N];
    for parameter in query.split('&') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let Some(index) = names.iter().position(|known| *known == name) else {
            continue;
        };
        if values[index].replace(value).is_some() {
            return Err(invalid(format!("`{name}` was given more than once")));
        }
    }
    Ok(values)
}

fn push_encoded(query: &mut String, value: &str) {
    for byte in value.bytes() {
        // What RFC 3986, section 2.3, calls unreserved stands for itself.
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            query.push(char::from(byte));
        } else {
            let _ = write!(query, "%{byte:02X}"); // a String takes all that is written to it
        }
    }
}

/// An empty name comes before all others.
fn name_of(value: &str) -> Result<Option<String>, ApiError> {
    match percent_decode(&value.replace('+', " ")) {
        Some(name) if name.is_empty() => Ok(None),
        Some(name) if is_stock_name(&name) => Ok(Some(name)),
        _ => Err(invalid(
            "`after` must be the name of a stock, percent-encoded: at most 64 bytes of UTF-8 without control characters",
        )),
    }
}

fn stock_of(value: &str) -> Result<String, ApiError> {
    percent_decode(&value.replace('+', " "))
        .filter(|name| is_stock_name(name))
        .ok_or_else(|| {
            invalid(
                "`stock` must be the name of a stock, percent-encoded: 1 to 64 bytes of UTF-8 without control characters",
            )
        })
}

fn number_of(value: &str) -> Result<u64, ApiError> {
    integer(value).ok_or_else(|| {
        invalid(format!(
            "`after` must be the number of an order, an integer from 0 to {}",
            u64::MAX
        ))
    })
}

fn integer<N: FromStr>(value: &str) -> Option<N> {
    let digits = percent_decode(value)?;
    // `from_str` takes a leading plus sign, too.
    let number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| number)
}

fn limit_of(value: &str) -> Result<u32, ApiError> {
    integer(value)
        .filter(|limit| (1..=LIMIT_MAX).contains(limit))
        .ok_or_else(|| invalid(format!("`limit` must be an integer from 1 to {LIMIT_MAX}")))
}

fn invalid(problem: impl Into<String>) -> ApiError {
    ApiError::InvalidQuery(problem.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(after: Option<&str>, limit: u32) -> PageQuery {
        let after = after.map(str::to_owned);
        PageQuery { after, limit }
    }

    #[test]
    fn a_query_says_which_page() {
        for (query, expected) in [
            ("", page(None, 1_000)),
            ("page=2&&=&after", page(None, 1_000)),
            ("limit=%31", page(None, 1)),
            ("limit=10000&after=nike", page(Some("nike"), 10_000)),
            ("after=&limit=0007", page(None, 7)),
            ("after=L%27Or%c3%A9al", page(Some("L'Oréal"), 1_000)),
            ("after=a+b%2Bc%20%26d=e", page(Some("a b+c &d=e"), 1_000)),
        ] {
            assert_eq!(PageQuery::parse(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn a_query_that_says_no_page_is_told_why() {
        let limit = "the query's `limit` must be an integer from 1 to 10000";
        let after = "the query's `after` must be the name of a stock, percent-encoded: \
            at most 64 bytes of UTF-8 without control characters";
        let long = format!("after={}", "x".repeat(65));
        for (query, message) in [
            ("limit", limit),
            ("limit=", limit),
            ("limit=0", limit),
            ("limit=10001", limit),
            ("limit=4294967297", limit),
            ("limit=+1", limit),
            ("limit=-1", limit),
            ("limit=1.0", limit),
            ("limit=%2", limit),
            ("limit=ten", limit),
            ("after=%", after),
            ("after=%ff", after),
            ("after=a%00", after),
            (&long, after),
            (
                "limit=1&limit=1",
                "the query's `limit` was given more than once",
            ),
            (
                "after=a&limit=1&after=",
                "the query's `after` was given more than once",
            ),
        ] {
            let error = PageQuery::parse(query).expect_err(query);
            assert_eq!((error.status(), error.to_string().as_str()), (400, message));
        }
    }

    fn orders(after: Option<u64>, limit: u32, stock: Option<&str>) -> OrderQuery {
        let stock = stock.map(str::to_owned);
        OrderQuery {
            after,
            limit,
            stock,
        }
    }

    #[test]
    fn a_query_says_which_orders() {
        for (query, expected) in [
            ("", orders(None, 1_000, None)),
            ("page=2&&=", orders(None, 1_000, None)),
            ("after=0&limit=%31", orders(Some(0), 1, None)),
            (
                "after=18446744073709551615",
                orders(Some(u64::MAX), 1_000, None),
            ),
            (
                "stock=L%27Or%c3%A9al+%26&limit=7",
                orders(None, 7, Some("L'Oréal &")),
            ),
        ] {
            assert_eq!(OrderQuery::parse(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn a_query_that_says_no_orders_is_told_why() {
        let after = "the query's `after` must be the number of an order, \
            an integer from 0 to 18446744073709551615";
        let stock = "the query's `stock` must be the name of a stock, percent-encoded: \
            1 to 64 bytes of UTF-8 without control characters";
        let limit = "the query's `limit` must be an integer from 1 to 10000";
        for (query, message) in [
            ("after", after),
            ("after=", after),
            ("after=-1", after),
            ("after=+1", after),
            ("after=1e3", after),
            ("after=18446744073709551616", after),
            ("after=nike", after),
            ("stock=", stock),
            ("stock=a%00", stock),
            ("stock=%ff", stock),
            ("limit=0", limit),
            ("limit=10001", limit),
            (
                "stock=a&stock=a",
                "the query's `stock` was given more than once",
            ),
        ] {
            let error = OrderQuery::parse(query).expect_err(query);
            assert_eq!((error.status(), error.to_string().as_str()), (400, message));
        }
    }

    proptest! {
        #[test]
        fn no_query_breaks_the_reader(query in "(after=|limit=|stock=|&|[\\PC%+0-9]{0,4}){0,8}") {
            let _ = PageQuery::parse(&query);
            let _ = OrderQuery::parse(&query);
        }

        #[test]
        fn the_next_page_is_of_the_same_stock(stock in "[^\\pC]{1,16}", after: u64) {
            let next = orders(None, 5, Some(&stock)).next("/orders", after);
            let query = next.strip_prefix("/orders?").expect("the path comes first");
            prop_assert!(query.is_ascii());
            let expected = orders(Some(after), 5, Some(&stock));
            prop_assert_eq!(OrderQuery::parse(query), Ok(expected));
        }

        #[test]
        fn every_name_leads_to_the_next_page(last in "[^\\pC]{1,16}", limit in 1..=LIMIT_MAX) {
            let next = page(None, limit).next("/stocks", &last);
            let query = next.strip_prefix("/stocks?").expect("the path comes first");
            prop_assert!(query.is_ascii());
            prop_assert_eq!(PageQuery::parse(query), Ok(page(Some(&last), limit)));
        }
    }
}
