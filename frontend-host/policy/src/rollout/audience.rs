//! Which requests a canary is tried on.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};
use ipnet::IpNet;

/// Conditions of one audience.
const CONDITIONS_MAX: usize = 8;

/// Which requests a canary is tried on: all that meet each condition. Without one, all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Audience(Vec<Condition>);

/// What is asked of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It has this header with just this value.
    Header(HeaderName, String),
    /// It has this cookie with just this value.
    Cookie(String, String),
    /// Its path is this one, or below it.
    Path(String),
    /// It comes from an address of this network.
    Network(IpNet),
}

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a condition such as header:x-beta=1, cookie:beta=1, path:/orders or network:10.0.0.0/8, of which there may be {CONDITIONS_MAX}"
)]
pub struct NoCondition(String);

/// A request, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// Path and query.
    pub target: &'a str,
    pub headers: &'a HeaderMap,
    /// The address at the other end of the connection.
    pub address: IpAddr,
}

impl Audience {
    /// Of conditions as texts: `header:NAME=VALUE`, `cookie:NAME=VALUE`, `path:/PATH` or `network:CIDR`.
    ///
    /// # Errors
    /// Where one is none, or there are too many.
    pub fn parse(conditions: &[impl AsRef<str>]) -> Result<Self, NoCondition> {
        if let Some(excess) = conditions.get(CONDITIONS_MAX) {
            return Err(NoCondition(excess.as_ref().to_owned()));
        }
        let conditions = conditions.iter().map(|text| text.as_ref().parse());
        Ok(Self(conditions.collect::<Result<_, _>>()?))
    }

    /// As texts that can be parsed.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(ToString::to_string).collect()
    }

    /// Whether a request is of it. One of which nothing is known is not, where something is asked.
    pub(crate) fn includes(&self, arrival: Option<Arrival<'_>>) -> bool {
        self.0.is_empty()
            || arrival.is_some_and(|arrival| self.0.iter().all(|asked| asked.is_met(arrival)))
    }
}

impl Condition {
    fn is_met(&self, arrival: Arrival<'_>) -> bool {
        match self {
            Self::Header(name, value) => {
                let mut values = arrival.headers.get_all(name).iter();
                values.any(|sent| sent.as_bytes() == value.as_bytes())
            }
            Self::Cookie(name, value) => {
                let headers = arrival.headers.get_all(COOKIE).iter();
                let mut pairs = headers
                    .filter_map(|header| header.to_str().ok())
                    .flat_map(|header| header.split(';'));
                pairs.any(|pair| pair.trim().split_once('=') == Some((name, value)))
            }
            Self::Path(path) => {
                let sent = arrival.target.split('?').next().unwrap_or_default();
                let rest = sent.strip_prefix(path.as_str());
                rest.is_some_and(|rest| {
                    rest.is_empty() || rest.starts_with('/') || path.ends_with('/')
                })
            }
            Self::Network(network) => network.contains(&arrival.address.to_canonical()),
        }
    }
}

impl FromStr for Condition {
    type Err = NoCondition;

    fn from_str(text: &str) -> Result<Self, NoCondition> {
        let parse = || {
            let (kind, asked) = text.split_once(':')?;
            let pair = || asked.split_once('=').filter(|(name, _)| !name.is_empty());
            Some(match kind {
                "header" => {
                    let (name, value) = pair()?;
                    Self::Header(HeaderName::try_from(name).ok()?, value.to_owned())
                }
                "cookie" => {
                    let (name, value) = pair()?;
                    Self::Cookie(name.to_owned(), value.to_owned())
                }
                "path" if asked.starts_with('/') => Self::Path(asked.to_owned()),
                "network" => Self::Network(asked.parse().ok()?),
                _ => return None,
            })
        };
        parse().ok_or_else(|| NoCondition(text.to_owned()))
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name, value) => write!(f, "header:{name}={value}"),
            Self::Cookie(name, value) => write!(f, "cookie:{name}={value}"),
            Self::Path(path) => write!(f, "path:{path}"),
            Self::Network(network) => write!(f, "network:{network}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn an_audience_is_whoever_meets_each_condition() {
        let mut headers = HeaderMap::new();
        headers.append("x-beta", HeaderValue::from_static("1"));
        headers.append(COOKIE, HeaderValue::from_static("a=b; beta=yes"));
        let arrival = Arrival {
            target: "/orders/7?beta=no",
            headers: &headers,
            address: "::ffff:10.1.2.3".parse().unwrap(),
        };
        for (conditions, is_included) in [
            (&[][..], true),
            (&["header:x-beta=1"], true),
            (
                &[
                    "header:X-Beta=1",
                    "cookie:beta=yes",
                    "path:/orders",
                    "network:10.0.0.0/8",
                ],
                true,
            ),
            (&["header:x-beta=1", "cookie:beta=no"], false),
            (&["header:x-beta="], false),
            (&["path:/orders/"], true),
            (&["path:/order"], false),
            (&["path:/"], true),
            (&["network:10.1.2.3/32"], true),
            (&["network:2001:db8::/32"], false),
        ] {
            let audience = Audience::parse(conditions).unwrap();
            assert_eq!(
                audience.includes(Some(arrival)),
                is_included,
                "{conditions:?}"
            );
            assert_eq!(Audience::parse(&audience.texts()), Ok(audience.clone()));
            assert_eq!(audience.includes(None), conditions.is_empty());
        }
    }

    #[test]
    fn what_is_no_condition_is_refused_by_name() {
        for text in [
            "",
            "beta",
            "header:",
            "header:=1",
            "header:a b=1",
            "cookie:x",
            "path:orders",
            "network:10.0.0.0",
            "query:a=b",
        ] {
            let error = Audience::parse(&[text]).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("`{text}` is not a condition such as")),
                "{error}"
            );
        }
        assert!(Audience::parse(&["path:/"; 9]).is_err());
    }
}
