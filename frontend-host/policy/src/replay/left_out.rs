//! What is left out of decisions that people are shown: secrets, wherever a policy has put them.
//!
//! They are looked for before a value is escaped. A value stays that whoever sees the decision is shown of its
//! request anyway, as a word of its own: the stock that a path names, and a cookie as well.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::decision::Outcome;
use crate::evaluate::sent::VALUE_BYTES_MIN;

/// What stands for a value that is left out.
pub(super) const LEFT_OUT: &str = "(left out)";

/// What JSON has in places of its own is no secret.
const LITERALS: [&[u8]; 3] = [b"false", b"null", b"true"];

/// Texts that are left out.
#[derive(Debug, Default)]
pub(super) struct LeftOut<'a> {
    /// What others are part of goes first.
    texts: Vec<Text>,
    shown: Shown<'a>,
}

/// What whoever sees a decision is shown of what it was about.
#[derive(Debug, Default)]
pub(super) struct Shown<'a> {
    /// Parts of the request.
    pub(super) parts: Vec<&'a [u8]>,
    pub(super) outcome: Option<&'a Outcome>,
}

#[derive(Debug)]
struct Text {
    text: String,
    /// Whether it stays where it is shown anyway.
    may_stay: bool,
}

impl<'a> LeftOut<'a> {
    /// These values of a request, in whichever way they are written down, and these secrets of
    /// configurations.
    pub(super) fn new<'s>(
        values: BTreeSet<Vec<u8>>,
        shown: Shown<'a>,
        secrets: impl Iterator<Item = &'s str>,
    ) -> Self {
        let is_secret = |value: &&Vec<u8>| {
            value.len() >= VALUE_BYTES_MIN && !LITERALS.contains(&value.as_slice())
        };
        let values = values.iter().filter(is_secret);
        let values = values.flat_map(|value| forms_of(value)).map(|text| Text {
            text,
            may_stay: true,
        });
        let secrets = secrets.map(|text| Text {
            text: text.to_owned(),
            may_stay: false,
        });
        let texts = values.chain(secrets).filter(|it| !it.text.is_empty());
        let mut texts: Vec<_> = texts.collect();
        texts.sort_by_key(|it| Reverse(it.text.len()));
        Self { texts, shown }
    }

    /// A text without them.
    pub(super) fn text(&self, text: &str) -> String {
        self.without(text).unwrap_or_else(|| text.to_owned())
    }

    /// Bytes without them; the same bytes where they have none of them.
    pub(super) fn bytes<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        match self.without(&String::from_utf8_lossy(bytes)) {
            Some(without) => Cow::Owned(without.into_bytes()),
            None => Cow::Borrowed(bytes),
        }
    }

    /// None where the text has none of them.
    fn without(&self, text: &str) -> Option<String> {
        let mut without: Option<String> = None;
        for secret in &self.texts {
            let text = without.as_deref().unwrap_or(text);
            let is_there = text.contains(&secret.text);
            if is_there && !(secret.may_stay && self.shown.has(&secret.text)) {
                without = Some(text.replace(&secret.text, LEFT_OUT));
            }
        }
        without
    }
}

impl Shown<'_> {
    fn has(&self, word: &str) -> bool {
        let is_in = |part: &[u8]| has_word(&String::from_utf8_lossy(part), word);
        let outcome = || serde_json::to_vec(self.outcome?).ok();
        self.parts.iter().any(|part| is_in(part)) || outcome().is_some_and(|it| is_in(&it))
    }
}

/// Whether it is a word of a text, and no part of a longer one.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        ![before, after].into_iter().flatten().any(char::is_alphanumeric)
    })
}

/// A value as policies write it down: as it is, escaped as in a program or in JSON, and read as Latin-1.
fn forms_of(value: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(value).into_owned();
    let in_json = serde_json::to_string(&text).unwrap_or_default();
    let in_json = in_json.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
    let latin_1 = value.iter().copied().map(char::from).collect();
    let escaped = value.escape_ascii().to_string();
    BTreeSet::from([in_json.unwrap_or_default().to_owned(), latin_1, escaped, text])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Stock;
    use domain::{Price, StockName};

    fn left_out<'a>(values: &[&[u8]], shown: &[&'a [u8]]) -> LeftOut<'a> {
        let values = values.iter().map(|value| value.to_vec()).collect();
        let shown = Shown {
            parts: shown.to_vec(),
            outcome: None,
        };
        LeftOut::new(values, shown, ["c0nfigured"].into_iter())
    }

    #[test]
    fn a_value_is_left_out_in_whichever_way_it_is_written_down() {
        let left_out = left_out(&[b"na\xefve", b"\"quoted\"", b"S3CRET"], &[]);
        for (text, shown) in [
            (&b"a na\xefve b"[..], &b"a (left out) b"[..]),
            (b"a na\\xefve b", b"a (left out) b"),
            ("a naïve b".as_bytes(), b"a (left out) b"),
            (br#"{"a":"\"quoted\""}"#, br#"{"a":"(left out)"}"#),
            (b"keyS3CRETs", b"key(left out)s"),
            (b"with c0nfigured", b"with (left out)"),
            (b"nothing \xff of it", b"nothing \xff of it"),
        ] {
            assert_eq!(&*left_out.bytes(text), shown, "{}", text.escape_ascii());
        }
    }

    /// Else no decision about that stock could be compared.
    #[test]
    fn what_is_shown_anyway_stays_and_so_does_what_json_is_made_of() {
        let values: [&[u8]; 5] = [b"nvidia", b"nike", b"enron", b"true", b"c0nfigured"];
        let shown: [&[u8]; 2] = [b"/stocks/nvidia?c0nfigured", b"{\"name\":\"nikelodeon\"}"];
        let outcome = Outcome::Stock(Stock {
            name: StockName::new("enron").unwrap(),
            price: Price::from_minor(100).unwrap(),
            quantity: 1,
        });
        let mut left_out = left_out(&values, &shown);
        left_out.shown.outcome = Some(&outcome);
        let text = left_out.text("nvidia enron true nike c0nfigured");
        assert_eq!(text, "nvidia enron true (left out) (left out)");
    }
}
