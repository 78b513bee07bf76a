//! What a client sent: by which texts it is found in what a policy made of it.

use std::collections::BTreeSet;
use std::iter;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};
use percent_encoding::percent_decode;
use serde_json::Value;

/// Shorter values are not looked for, in bytes: they are in many texts by chance.
pub(crate) const VALUE_BYTES_MIN: usize = 4;

/// Shorter words are not taken for base64, in bytes.
const BASE64_BYTES_MIN: usize = 5;

/// What stands between values in a query, in cookies and in lists.
const SEPARATORS: [u8; 3] = *b"&;,";

/// A part of a request (a query, a header, a body) as it came, each value in it, and all of these decoded.
/// Names are none of them.
pub(crate) fn values_of(part: &[u8]) -> BTreeSet<Vec<u8>> {
    let pairs = part.split(|byte| SEPARATORS.contains(byte));
    let values = iter::once(part).chain(pairs.flat_map(values_of_pair));
    let decoded = values.filter(|value| is_long(value)).flat_map(decoded);
    decoded.filter(|value| is_long(value)).collect()
}

/// The names in a part that is a JSON document, without their escapes.
pub(crate) fn json_names(part: &[u8]) -> Vec<Vec<u8>> {
    let [names, _] = json_texts(part);
    names
}

/// A target without the values in its query.
pub(crate) fn without_values(target: &str) -> String {
    let (path, query) = path_and_query(target);
    let Some(query) = query else {
        return path.to_owned();
    };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) => format!("{name}=*"),
        None if pair.is_empty() => String::new(),
        // Without a name it is a value.
        None => "*".to_owned(),
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// A target's path, and its query where it has one.
pub(crate) fn path_and_query(target: &str) -> (&str, Option<&str>) {
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

fn is_long(value: &[u8]) -> bool {
    value.len() >= VALUE_BYTES_MIN
}

/// A pair as it came, what is behind its name or, of credentials, behind their scheme, and that without
/// quotation marks.
fn values_of_pair(pair: &[u8]) -> impl Iterator<Item = &[u8]> {
    let pair = pair.trim_ascii();
    let values = [Some(pair), behind(pair, b'='), behind(pair, b' ')];
    let values = values.into_iter().flatten();
    values.flat_map(|value| [value, unquoted(value)])
}

fn behind(pair: &[u8], separator: u8) -> Option<&[u8]> {
    let at = pair.iter().position(|byte| *byte == separator)?;
    Some(pair[at + 1..].trim_ascii())
}

fn unquoted(value: &[u8]) -> &[u8] {
    match value {
        [b'"', within @ .., b'"'] => within,
        _ => value,
    }
}

/// A value as it came, and as a policy has it that decodes a query, a form, JSON or credentials.
fn decoded(value: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![value.to_vec()];
    if value.contains(&b'%') {
        forms.push(percent_decode(value).collect());
    }
    if value.iter().any(|byte| b"%+".contains(byte)) {
        let plus_to_space = |byte: &u8| if *byte == b'+' { b' ' } else { *byte };
        let spaced: Vec<u8> = value.iter().map(plus_to_space).collect();
        forms.push(percent_decode(&spaced).collect());
    }
    let words = value.split(|byte| !byte.is_ascii_alphanumeric() && !b"+/-_=".contains(byte));
    for text in words.filter_map(from_base64) {
        // A name and a password (RFC 7617).
        if let Some(at) = text.iter().position(|byte| *byte == b':') {
            forms.push(text[..at].to_vec());
            forms.push(text[at + 1..].to_vec());
        }
        forms.push(text);
    }
    let in_json = |form: &Vec<u8>| {
        let [_, values] = json_texts(form);
        values
    };
    let texts: Vec<_> = forms.iter().flat_map(in_json).collect();
    forms.extend(texts);
    forms
}

/// The texts in a JSON document, without their escapes: names, and values. None where it is no document.
fn json_texts(part: &[u8]) -> [Vec<Vec<u8>>; 2] {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    let mut open: Vec<Value> = serde_json::from_slice(part).into_iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::String(text) => values.push(text.into_bytes()),
            Value::Array(items) => open.extend(items),
            Value::Object(members) => {
                for (name, value) in members {
                    names.push(name.into_bytes());
                    open.push(value);
                }
            }
            _ => {}
        }
    }
    [names, values]
}

/// A word in either alphabet of base64, as credentials are (RFC 7617), where it is one of a text.
fn from_base64(word: &[u8]) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
    let bytes = STANDARD
        .decode(word)
        .or_else(|_| URL_SAFE.decode(word))
        .ok()?;
    (word.len() >= BASE64_BYTES_MIN && str::from_utf8(&bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_whichever_way_they_are_sent_and_names_are_none() {
        for (part, value) in [
            ("a=1; session=S3CRET; theme=dark", "S3CRET"),
            ("session=\"S3 CRET\"; path=/", "S3 CRET"),
            ("session=S3%2FCRET", "S3/CRET"),
            ("token=S3+CRET&x=1", "S3 CRET"),
            ("Bearer S3CRET", "S3CRET"),
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "open sesame"),
            ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "Aladdin"),
            ("session=%7B%22id%22%3A%22S3CRET%22%7D", "S3CRET"),
            (
                "Digest username=\"Mufasa\", response=\"6629fae49393\"",
                "6629fae49393",
            ),
        ] {
            let values = values_of(part.as_bytes());
            assert!(values.contains(value.as_bytes()), "{part}: {values:?}");
            for name in ["session", "theme", "token", "Bearer", "Basic", "username"] {
                assert!(!values.contains(name.as_bytes()), "{part}: {values:?}");
            }
        }
        assert!(values_of(b"a=1; b=22").iter().all(|it| it.len() > 3));
    }

    #[test]
    fn a_target_is_shown_without_the_values_in_its_query() {
        for (target, shown) in [
            ("/stocks/nvidia", "/stocks/nvidia"),
            ("/x?token=s3cret&limit=1&key=", "/x?token=*&limit=*&key=*"),
            ("/x?s3cret", "/x?*"),
            ("/x?", "/x?"),
            ("/x?a=1?b=2&&c", "/x?a=*&&*"),
        ] {
            assert_eq!(without_values(target), shown);
        }
    }
}
