//! Reading the target and headers of a request. The host passes the headers that the manifest asks for.

use crate::route;
use crate::types::Request;

impl Request {
    /// The target without its query, percent-encoded as it was sent.
    pub fn path(&self) -> &str {
        route::path(&self.target)
    }

    /// What follows the question mark; empty without one.
    pub fn query(&self) -> &str {
        route::query(&self.target)
    }

    /// All values of a header, in their order. `name` is in lower case.
    pub fn header_values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        let named = self.headers.iter().filter(move |(other, _)| other == name);
        named.map(|(_, value)| value.as_slice())
    }

    /// The value of a header that comes once, as text; `None` where it is not there, comes more than
    /// once, or is not printable ASCII. `name` is in lower case.
    ///
    /// One that comes twice is none, since nobody knows which of them counts.
    pub fn header_text(&self, name: &str) -> Option<&str> {
        let mut values = self.header_values(name);
        let value = values.next().filter(|_| values.next().is_none())?;
        let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t');
        let text = value.iter().all(is_text).then_some(value)?;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use crate::types::{Method, Request};

    fn request(headers: &[(&str, &[u8])]) -> Request {
        let header = |(name, value): &(&str, &[u8])| ((*name).to_owned(), value.to_vec());
        Request {
            method: Method::Get,
            target: "/".to_owned(),
            headers: headers.iter().map(header).collect(),
            connection: None,
            body: None,
            now_ms: 0,
        }
    }

    #[test]
    fn a_header_is_text_where_it_is_there_once_and_is_ascii() {
        for (headers, text) in [
            (&[][..], None),
            (&[("a", &b"one"[..])][..], Some("one")),
            (&[("b", b"x"), ("a", b"one\ttwo")], Some("one\ttwo")),
            (&[("a", b"")], Some("")),
            (&[("a", b"one"), ("a", b"one")], None),
            (&[("a", b"na\xefve")], None),
            (&[("a", "na\u{ef}ve".as_bytes())], None),
        ] {
            let request = request(headers);
            assert_eq!(request.header_text("a"), text, "{headers:?}");
        }
        let request = request(&[("a", b"1"), ("b", b"2"), ("a", b"\xff")]);
        assert!(request.header_values("a").eq([&b"1"[..], b"\xff"]));
    }
}
