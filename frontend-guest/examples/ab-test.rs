//! Shows some clients another form of a stock, always the same ones: variant `b` has prices in cents.
//!
//! ```json
//! {"share_of_b": 0.1}
//! ```
//!
//! A client is in the variant that its cookie says. One without is put in one by chance, and gets the cookie
//! with the first stock that it looks up; clients that keep no cookies see now one, now the other.
//!
//! What this shows about caches: the variant is in the `vary-key`, so that a kept response is for those in its
//! variant alone; a response that sets a cookie is not kept, here or elsewhere, or others would get the cookie.

use frontend_guest::types::{Action, Decision, Outcome, Request, Stock};
use frontend_guest::{Configured, DefaultPolicy, Policy, export};
use serde::Deserialize;
use sha2::{Digest, Sha256};

const COOKIE: &str = "variant";
const COOKIE_SECONDS: u32 = 30 * 24 * 3600;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    A,
    B,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AbTest {
    share_of_b: f64,
}

impl Configured for AbTest {
    fn from_config(config: &[u8]) -> Result<Self, String> {
        let test: Self = serde_json::from_slice(config)
            .map_err(|error| format!(r#"write {{"share_of_b": 0.1}}: {error}"#))?;
        let is_share = (0.0..=1.0).contains(&test.share_of_b);
        is_share
            .then_some(test)
            .ok_or_else(|| "`share_of_b` must be 0 to 1".to_owned())
    }
}

impl Variant {
    const ALL: [Self; 2] = [Self::A, Self::B];

    fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// That of a request's cookie, if it has one that this policy could have set.
    fn of(request: &Request) -> Option<Self> {
        let cookies = request.header_text("cookie")?.split(';');
        let mut cookies = cookies.filter_map(|cookie| cookie.trim().split_once('='));
        let (_, value) = cookies.find(|(name, _)| *name == COOKIE)?;
        Self::ALL
            .into_iter()
            .find(|variant| variant.name() == value)
    }
}

impl AbTest {
    /// By chance, but the same for the same request: when it came, and from where.
    fn draw(&self, request: &Request) -> Variant {
        let client = request.connection.as_ref().map(|it| it.client.as_bytes());
        let mut seen = Sha256::new();
        seen.update(request.now_ms.to_be_bytes());
        seen.update(client.unwrap_or_default());
        let digest = seen.finalize();
        let point = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        let is_b = f64::from(point) < self.share_of_b * f64::from(u32::MAX);
        if is_b { Variant::B } else { Variant::A }
    }
}

impl Policy for AbTest {
    fn name(&self) -> &'static str {
        "ab-test"
    }

    fn wants_connection(&self) -> bool {
        true
    }

    fn wanted_headers(&self) -> Vec<String> {
        vec!["cookie".to_owned()]
    }

    /// The variant; of who is in none yet another key, under which nothing is kept.
    fn vary_key(&self, request: &Request) -> Vec<u8> {
        if !request.path().starts_with("/stocks/") {
            return Vec::new();
        }
        Variant::of(request).map_or("none", Variant::name).into()
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        let mut decision = DefaultPolicy.on_outcome(request, memo, outcome);
        if let (Action::Respond(response), Outcome::Stock(stock)) = (&mut decision.action, outcome)
        {
            let known = Variant::of(request);
            let variant = known.unwrap_or_else(|| self.draw(request));
            if variant == Variant::B {
                response.body = in_cents(stock);
            }
            let mut header =
                |name: &str, value: String| response.headers.push((name.to_owned(), value));
            // For caches in front that know nothing of variants: the client's own may keep it, and ask
            // before each use.
            header("vary", "cookie".to_owned());
            let control = if known.is_some() {
                "private, no-cache"
            } else {
                "no-store"
            };
            header("cache-control", control.to_owned());
            if known.is_none() {
                header("set-cookie", cookie(variant));
                response.keep_ms = None;
            }
        }
        decision
    }
}

export!(configured AbTest);

fn in_cents(stock: &Stock) -> Vec<u8> {
    let Stock {
        name,
        price_minor,
        quantity,
    } = stock;
    let stock =
        serde_json::json!({ "name": name, "price_cents": price_minor, "quantity": quantity });
    serde_json::json!({ "data": stock }).to_string().into()
}

fn cookie(variant: Variant) -> String {
    let variant = variant.name();
    format!("{COOKIE}={variant}; Path=/; Max-Age={COOKIE_SECONDS}; SameSite=Lax; HttpOnly")
}

#[cfg(test)]
mod tests {
    use super::*;
    use frontend_guest::types::{Method, Response};

    fn request(cookie: Option<&str>, now_ms: u64) -> Request {
        let cookie = cookie.map(|value| ("cookie".to_owned(), value.as_bytes().to_vec()));
        Request {
            method: Method::Get,
            target: "/stocks/nvidia".to_owned(),
            headers: cookie.into_iter().collect(),
            connection: None,
            body: None,
            now_ms,
        }
    }

    fn answer(test: &AbTest, request: &Request) -> Response {
        let stock = Stock {
            name: "nvidia".to_owned(),
            price_minor: 24063,
            quantity: 1,
        };
        match test.on_outcome(request, &[], &Outcome::Stock(stock)).action {
            Action::Respond(response) => response,
            other => panic!("{other:?}"),
        }
    }

    fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
        let mut headers = response.headers.iter();
        headers
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_client_stays_in_the_variant_of_its_cookie() {
        let test = AbTest { share_of_b: 0.5 };
        for (cookie, variant) in [
            ("variant=a", Some(Variant::A)),
            ("x=1; variant=b", Some(Variant::B)),
            ("variant=c", None),
            ("variant=", None),
            ("myvariant=b", None),
        ] {
            let request = request(Some(cookie), 7);
            assert_eq!(Variant::of(&request), variant, "{cookie}");
            let answer = answer(&test, &request);
            assert_eq!(answer.keep_ms.is_some(), variant.is_some(), "{cookie}");
            assert_eq!(header(&answer, "set-cookie").is_none(), variant.is_some());
            if let Some(variant) = variant {
                let in_cents = String::from_utf8(answer.body)
                    .unwrap()
                    .contains("price_cents");
                assert_eq!(in_cents, variant == Variant::B, "{cookie}");
                assert_eq!(test.vary_key(&request), variant.name().as_bytes());
            }
        }
    }

    #[test]
    fn about_so_many_are_put_in_b() {
        let test = AbTest { share_of_b: 0.1 };
        let drawn = (0..10_000).map(|now_ms| test.draw(&request(None, now_ms)));
        let in_b = drawn.filter(|variant| *variant == Variant::B).count();
        assert!((850..1150).contains(&in_b), "{in_b}");
        let none = AbTest { share_of_b: 0.0 };
        assert_eq!(none.draw(&request(None, 1)), Variant::A);
    }
}
