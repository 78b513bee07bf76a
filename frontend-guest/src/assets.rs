//! What the default policy serves as it is: a page for people, and the description of the API for programs.

use crate::types::Response;

/// Something that is served as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asset {
    /// `GET /`: stocks, trades and one's own orders, in a browser.
    Page,
    /// `GET /page.css`
    Style,
    /// `GET /page.js`
    Script,
    /// `GET /openapi.json`: the API, as OpenAPI 3.1 describes it.
    OpenApi,
}

/// The page has what came with it, asks nobody but its server, and is in no other page (Content Security Policy
/// Level 3).
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; \
    frame-ancestors 'none'";

impl Asset {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::Page, Self::Style, Self::Script, Self::OpenApi];

    /// The path that it has.
    pub const fn path(self) -> &'static str {
        match self {
            Self::Page => "/",
            Self::Style => "/page.css",
            Self::Script => "/page.js",
            Self::OpenApi => "/openapi.json",
        }
    }

    /// The one that has this path.
    pub(crate) fn at(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|asset| asset.path() == path)
    }

    const fn content(self) -> (&'static str, &'static str) {
        match self {
            Self::Page => ("text/html; charset=utf-8", include_str!("assets/page.html")),
            Self::Style => ("text/css; charset=utf-8", include_str!("assets/page.css")),
            Self::Script => (
                "text/javascript; charset=utf-8",
                include_str!("assets/page.js"),
            ),
            Self::OpenApi => ("application/json", include_str!("assets/openapi.json")),
        }
    }

    /// The response. Caches ask before each use whether it is still the one of the policy in service.
    pub fn response(self) -> Response {
        let (content_type, content) = self.content();
        let tag = entity_tag(content);
        let mut headers = vec![
            ("content-type", content_type),
            ("cache-control", "no-cache"),
            ("etag", &tag),
            ("x-content-type-options", "nosniff"),
        ];
        if self == Self::Page {
            headers.push(("content-security-policy", PAGE_POLICY));
            headers.push(("referrer-policy", "no-referrer"));
        }
        let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        Response {
            status: 200,
            headers: headers.into_iter().map(owned).collect(),
            body: content.into(),
            keep_ms: None,
        }
    }
}

/// Of the content: FNV-1a, with 64 bits. Nobody but this policy makes contents that could have the same.
fn entity_tag(content: &str) -> String {
    let hash = content.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("\"{hash:016x}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Route, types::Method};
    use serde_json::Value;

    #[test]
    fn each_asset_is_found_by_its_path_and_is_tagged() {
        for asset in Asset::ALL {
            let path = asset.path();
            let routed = Route::parse(Method::Get, path);
            assert_eq!(routed, Ok(Route::ReadAsset(asset)), "{path}");
            let response = asset.response();
            let tag = &response.headers[2];
            assert_eq!((tag.0.as_str(), tag.1.len()), ("etag", 18), "{path}");
            assert_eq!(asset.response().headers[2], *tag);
        }
        assert_ne!(entity_tag("a"), entity_tag("b"));
    }

    /// As its policy wants it, and small enough for a slow network.
    #[test]
    fn the_page_is_small_and_takes_nothing_from_elsewhere() {
        let content = |asset: Asset| asset.content().1;
        let page = [Asset::Page, Asset::Style, Asset::Script].map(content);
        let bytes: usize = page.iter().map(|content| content.len()).sum();
        assert!(bytes <= 32 << 10, "{bytes}");
        let [html, ..] = page;
        for forbidden in ["<style", "style=", "onclick", "javascript:", "<script>"] {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
        for source in ["src=\"", "href=\""] {
            for (_, rest) in html.match_indices(source).map(|(at, _)| html.split_at(at)) {
                let value = &rest[source.len()..];
                let is_own = ["/", "#", "data:"].iter().any(|own| value.starts_with(own));
                assert!(is_own && !value.starts_with("//"), "{value:.40}");
            }
        }
    }

    /// Whatever this policy has a route for.
    #[test]
    fn all_that_is_served_is_described() {
        let (_, description) = Asset::OpenApi.content();
        let description: Value = serde_json::from_str(description).unwrap();
        let paths = description["paths"].as_object().unwrap();
        for path in Asset::ALL.map(Asset::path) {
            assert!(paths.contains_key(path), "{path}");
        }
        for path in paths.keys() {
            let target = path.replace("{name}", "nvidia").replace("{number}", "0");
            assert!(Route::parse(Method::Get, &target).is_ok(), "{path}");
        }
        for path in ["/stocks", "/stocks/{name}", "/orders", "/orders/{number}"] {
            assert!(paths.contains_key(path), "{path}");
        }
    }
}
