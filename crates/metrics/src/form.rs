//! In which form figures are answered, as who asks accepts it (RFC 9110, 12.5.1).

use std::str;

use mime::{Mime, MimeIter};
use prometheus_client::encoding::prometheus_text;

/// Prometheus' protobuf form, and what it is asked for with.
const PROTOBUF: &str = "application/vnd.google.protobuf";
const FAMILY: &str = "io.prometheus.client.MetricFamily";
const DELIMITED: &str = "delimited";

/// A form that Prometheus reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Prometheus' text format, version 0.0.4, for whoever says nothing else.
    Text,
    /// `io.prometheus.client.MetricFamily`, one after the other, each behind its length: with native histograms beside
    /// the classic ones, which the text cannot carry.
    Protobuf,
}

impl Form {
    /// The one that an `Accept` of these lines prefers. What cannot be read of it says nothing.
    pub fn accepted(accept: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let (mut text, mut protobuf) = (0.0, 0.0);
        for line in accept {
            let line = str::from_utf8(line.as_ref()).unwrap_or_default();
            for range in MimeIter::new(line).filter_map(Result::ok) {
                match range.essence_str() {
                    "text/plain" | "text/*" | "*/*" => text = quality(&range).max(text),
                    PROTOBUF if is_ours(&range) => protobuf = quality(&range).max(protobuf),
                    _ => {}
                }
            }
        }
        match protobuf > 0.0 && protobuf >= text {
            true => Self::Protobuf,
            false => Self::Text,
        }
    }

    /// The `Content-Type` of an answer in it.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
        }
    }
}

/// How much a range is wanted, from 0 to 1.
fn quality(range: &Mime) -> f32 {
    let quality = range.get_param("q").map(|quality| quality.as_str().parse());
    quality.map_or(1.0, |quality| quality.unwrap_or(0.0))
}

fn is_ours(range: &Mime) -> bool {
    let is = |name: &str, value: &str| range.get_param(name).is_some_and(|it| it.as_str() == value);
    is("proto", FAMILY) && is("encoding", DELIMITED)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Prometheus 2.42 asks with native histograms, and 3.5 with and without them.
    const NATIVE: [&str; 2] = [
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
         application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
         text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
         application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
         application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
         text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
    ];
    const CLASSIC: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
        application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";

    #[test]
    fn protobuf_is_for_whoever_asks_for_it_and_text_for_everybody_else() {
        for accept in NATIVE {
            assert_eq!(Form::accepted([accept]), Form::Protobuf, "{accept}");
        }
        // In several lines, and in capitals.
        let own = Form::Protobuf.content_type();
        let capitals = own.replace("app", "APP");
        for accept in [&["text/html", own][..], &[capitals.as_str()]] {
            assert_eq!(Form::accepted(accept), Form::Protobuf, "{accept:?}");
        }
        for accept in [
            CLASSIC,
            "",
            "*/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/vnd.google.protobuf",
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text",
            "application/vnd.google.protobuf;proto=another;encoding=delimited",
            &format!("{own};q=0"),
            &format!("{own};q=x"),
            &format!("text/plain, {own};q=0.5"),
            "\u{e4}, ,;,;q=1,//",
        ] {
            assert_eq!(Form::accepted([accept]), Form::Text, "{accept}");
        }
        assert_eq!(Form::accepted([[0xff_u8; 9]]), Form::Text);
        assert_eq!(Form::accepted([""; 0]), Form::Text);
    }
}
