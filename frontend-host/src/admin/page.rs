//! What the console's page is made of: it comes with the binary, and asks for nothing else.

use axum::http::HeaderValue;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::response::{IntoResponse as _, Response};

/// It has what came with it, asks nobody but its server, and is in no other page (Content Security Policy Level 3).
const PAGE_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// One file of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asset {
    pub(super) path: &'static str,
    content_type: &'static str,
    content: &'static str,
}

macro_rules! asset {
    ($path:literal, $type:expr, $file:literal) => {
        Asset {
            path: $path,
            content_type: $type,
            content: include_str!(concat!("page/", $file)),
        }
    };
}

/// All of them. They hold nothing that is not in the binary: anybody may have them.
pub(super) const FILES: [Asset; 12] = [
    asset!("/", HTML, "index.html"),
    asset!("/console/style.css", CSS, "style.css"),
    asset!("/console/main.js", SCRIPT, "main.js"),
    asset!("/console/link.js", SCRIPT, "link.js"),
    asset!("/console/figures.js", SCRIPT, "figures.js"),
    asset!("/console/alarms.js", SCRIPT, "alarms.js"),
    asset!("/console/dom.js", SCRIPT, "dom.js"),
    asset!("/console/seen.js", SCRIPT, "seen.js"),
    asset!("/console/glance.js", SCRIPT, "glance.js"),
    asset!("/console/services.js", SCRIPT, "services.js"),
    asset!("/console/requests.js", SCRIPT, "requests.js"),
    asset!("/console/policy.js", SCRIPT, "policy.js"),
];

impl Asset {
    pub(super) fn response(self) -> Response {
        let headers = [
            (CONTENT_TYPE, HeaderValue::from_static(self.content_type)),
            (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
            (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
            (CONTENT_SECURITY_POLICY, PAGE_POLICY),
        ];
        (headers, self.content).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Most bytes of the page, all of it, as it goes over the wire.
    const BYTES_MAX: usize = 200_000;

    /// Least contrast of a text with what is behind it (WCAG 2.2, 1.4.3, level AA).
    const CONTRAST_MIN: f64 = 4.5;

    #[test]
    fn the_page_is_small_and_takes_nothing_from_elsewhere() {
        let bytes: usize = FILES.iter().map(|asset| asset.content.len()).sum();
        assert!(bytes <= BYTES_MAX, "{bytes}");
        for asset in FILES {
            let content = asset.content;
            for forbidden in [
                "<style",
                "style=",
                "onclick=",
                "javascript:",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "url(http",
                "@import",
            ] {
                assert!(!content.contains(forbidden), "{}: {forbidden}", asset.path);
            }
            for (at, _) in content.match_indices("://") {
                let from = content[..at].rfind(['"', '\'', '`', ' ']).unwrap_or(0);
                let named = &content[from..(at + 40).min(content.len())];
                assert!(named.contains("www.w3.org"), "{}: {named}", asset.path);
            }
        }
    }

    #[test]
    fn texts_stand_out_from_what_is_behind_them_in_the_light_and_in_the_dark() {
        let mut files = FILES.iter();
        let style = files.find(|asset| asset.content_type == CSS).unwrap();
        let (light, dark) = style.content.split_once("scheme: dark)").unwrap();
        for theme in [light, dark] {
            let luminance = |name: &str| {
                let (_, colour) = theme.split_once(&format!("--{name}: #")).unwrap();
                luminance(colour.split(';').next().unwrap())
            };
            let texts = ["ink", "soft", "faint", "brand", "ok", "warn", "bad"];
            let plain = texts.map(|text| ["paper", "card", "well"].map(|behind| (text, behind)));
            let marked = [
                ("ok", "ok-paper"),
                ("warn", "warn-paper"),
                ("bad", "bad-paper"),
                ("faint", "own-paper"),
                ("brand", "own-paper"),
                ("on-brand", "brand"),
            ];
            for (text, behind) in plain.into_iter().flatten().chain(marked) {
                let [one, other] = [text, behind].map(luminance);
                let contrast = (one.max(other) + 0.05) / (one.min(other) + 0.05);
                assert!(contrast >= CONTRAST_MIN, "{text} on {behind}: {contrast}");
            }
        }
    }

    /// Relative luminance of a colour in hexadecimal (WCAG 2.2).
    fn luminance(colour: &str) -> f64 {
        let digits: String = match colour.len() {
            3 => colour.chars().flat_map(|digit| [digit, digit]).collect(),
            _ => colour.to_owned(),
        };
        let channel = |at: usize| {
            let value = u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            let value = f64::from(value) / 255.0;
            match value <= 0.04045 {
                true => value / 12.92,
                false => ((value + 0.055) / 1.055).powf(2.4),
            }
        };
        0.2126 * channel(0) + 0.7152 * channel(2) + 0.0722 * channel(4)
    }

    #[test]
    fn every_module_that_is_imported_is_served() {
        for asset in FILES {
            for (_, rest) in asset
                .content
                .match_indices(" from \"./")
                .map(|(at, text)| asset.content.split_at(at + text.len()))
            {
                let name = rest.split('"').next().unwrap();
                let path = format!("/console/{name}");
                assert!(
                    FILES.iter().any(|it| it.path == path),
                    "{}: {path}",
                    asset.path
                );
            }
        }
    }
}
