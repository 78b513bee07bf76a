//! Shows stocks to people: a page of all at `/`, and one of each stock to who accepts `text/html`. Everybody
//! else gets JSON, as from the default policy.
//!
//! Names are whatever the operator listed, so they are escaped; and no page may run or load anything. What
//! is rendered depends on `Accept`, so that is in the `vary-key`, and `Vary` tells caches in front.

use std::fmt::{self, Display};

use frontend_guest::types::{
    Action, Decision, ListStocks, Method, Outcome, Page, ReplyHeader, Request, Response, Stock,
};
use frontend_guest::{ApiError, DefaultPolicy, PageQuery, Policy, export, response};

/// Stocks on a page.
const LIMIT: u32 = 100;

/// A page has text and the style that is in it, and is in no other's frame.
const CONTENT_SECURITY_POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

struct Html;

impl Policy for Html {
    fn name(&self) -> &'static str {
        "html"
    }

    fn wanted_headers(&self) -> Vec<String> {
        vec!["accept".to_owned()]
    }

    fn reply_headers(&self) -> Vec<ReplyHeader> {
        vec![
            ReplyHeader::always("content-security-policy", CONTENT_SECURITY_POLICY),
            ReplyHeader::always("x-content-type-options", "nosniff"),
            ReplyHeader::always("vary", "accept"),
        ]
    }

    fn vary_key(&self, request: &Request) -> Vec<u8> {
        let form: &[u8] = if wants_html(request) { b"html" } else { b"" };
        form.to_vec()
    }

    fn action(&self, request: &Request) -> Result<Action, ApiError> {
        let is_read = matches!(request.method, Method::Get | Method::Head);
        if request.path() == "/" && is_read {
            let PageQuery { after, .. } = PageQuery::parse(request.query())?;
            return Ok(Action::ListStocks(ListStocks {
                after,
                limit: LIMIT,
            }));
        }
        let mut action = DefaultPolicy.action(request)?;
        if let Action::ReadStock(read) = &mut action {
            read.caching.vary_key = self.vary_key(request);
        }
        Ok(action)
    }

    fn on_outcome(&self, request: &Request, memo: &[u8], outcome: &Outcome) -> Decision {
        let rendered = match outcome {
            Outcome::Stocks(page) if request.path() == "/" => html(200, "Stocks", &list(page)),
            Outcome::Stock(stock) if wants_html(request) => Response {
                keep_ms: Some(response::STOCK_KEEP_MS),
                ..html(200, &stock.name, &details(stock))
            },
            Outcome::Refused(refusal) if wants_html(request) => {
                let error = ApiError::from(*refusal);
                html(
                    error.status(),
                    "Error",
                    &format!("<p>{}</p>", Escaped(&error.to_string())),
                )
            }
            _ => return DefaultPolicy.on_outcome(request, memo, outcome),
        };
        Action::Respond(rendered).into()
    }
}

export!(Html);

/// Whether a client says that it accepts HTML: browsers do, by name. `*/*` is not enough.
fn wants_html(request: &Request) -> bool {
    let is_html = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let is_named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case("text/html"));
        let is_refused = |weight: &str| {
            let weight = weight
                .strip_prefix("q=")
                .or_else(|| weight.strip_prefix("Q="));
            weight.is_some_and(|weight| weight.trim_matches(['0', '.']).is_empty())
        };
        is_named && !parts.any(is_refused)
    };
    request
        .header_text("accept")
        .is_some_and(|accept| accept.split(',').any(is_html))
}

/// `title` is text, `body` is HTML.
fn html(status: u16, title: &str, body: &str) -> Response {
    let title = Escaped(title);
    let page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>{title}</title>\n\
         <style>body {{ font-family: sans-serif }}</style>\n<h1>{title}</h1>\n{body}\n</html>\n"
    );
    Response {
        status,
        headers: vec![(
            "content-type".to_owned(),
            "text/html; charset=utf-8".to_owned(),
        )],
        body: page.into(),
        keep_ms: None,
    }
}

fn list(page: &Page) -> String {
    let mut rows = String::from("<table><tr><th>Stock<th>Price<th>Shares\n");
    for stock in &page.stocks {
        let (name, price) = (Escaped(&stock.name), Price(stock.price_minor));
        let link = Encoded(&stock.name);
        rows += &format!(
            "<tr><td><a href=\"/stocks/{link}\">{name}</a><td>{price}<td>{}\n",
            stock.quantity
        );
    }
    rows += "</table>";
    if let Some(last) = page.stocks.last().filter(|_| page.more) {
        rows += &format!(
            "\n<p><a href=\"/?after={}\">More</a></p>",
            Encoded(&last.name)
        );
    }
    rows
}

fn details(stock: &Stock) -> String {
    let price = Price(stock.price_minor);
    format!(
        "<p>{price} a share, {} to be had.</p>\n<p><a href=\"/\">All stocks</a></p>",
        stock.quantity
    )
}

/// Text in HTML, between tags or quotes.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => write!(f, "{other}")?,
            }
        }
        Ok(())
    }
}

/// Text in a URL, percent-encoded: nothing of it needs to be escaped in HTML.
struct Encoded<'a>(&'a str);

impl Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                write!(f, "{}", char::from(byte))?;
            } else {
                write!(f, "%{byte:02X}")?;
            }
        }
        Ok(())
    }
}

/// Minor units as people write prices.
struct Price(u64);

impl Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}", self.0 / 100, self.0 % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, accept: &str) -> Request {
        Request {
            method: Method::Get,
            target: target.to_owned(),
            headers: vec![("accept".to_owned(), accept.as_bytes().to_vec())],
            connection: None,
            body: None,
            now_ms: 0,
        }
    }

    const BROWSER: &str = "text/html,application/xhtml+xml,*/*;q=0.8";

    fn shown(target: &str, accept: &str, outcome: &Outcome) -> String {
        match Html
            .on_outcome(&request(target, accept), &[], outcome)
            .action
        {
            Action::Respond(response) => String::from_utf8(response.body).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn pages_are_for_who_names_html() {
        for (accept, wants) in [
            (BROWSER, true),
            ("application/json, TEXT/HTML; q=0.1", true),
            ("*/*", false),
            ("text/html;q=0", false),
            ("text/html; q=0.000", false),
            ("text/htmlx", false),
            ("", false),
        ] {
            let request = request("/stocks/nvidia", accept);
            assert_eq!(wants_html(&request), wants, "{accept}");
            assert_eq!(Html.vary_key(&request) == b"html", wants, "{accept}");
        }
    }

    #[test]
    fn a_name_is_text_wherever_it_stands() {
        let stock = Stock {
            name: "<script>'\"&</script>".to_owned(),
            price_minor: 2405,
            quantity: 7,
        };
        let page = Page {
            stocks: vec![stock.clone()],
            more: true,
        };
        let list = shown("/", "*/*", &Outcome::Stocks(page));
        let one = shown("/stocks/x", BROWSER, &Outcome::Stock(stock.clone()));
        for html in [&list, &one] {
            assert!(!html.contains("<script>"), "{html}");
            assert!(
                html.contains("&lt;script&gt;&#39;&quot;&amp;&lt;/script&gt;"),
                "{html}"
            );
        }
        assert!(
            list.contains("<a href=\"/?after=%3Cscript%3E%27%22%26%3C%2Fscript%3E\">"),
            "{list}"
        );
        assert!(one.contains("24.05 a share, 7 to be had"), "{one}");
        let json = shown("/stocks/x", "*/*", &Outcome::Stock(stock));
        assert!(json.starts_with(r#"{"data":{"name":"<script>"#), "{json}");
    }
}
