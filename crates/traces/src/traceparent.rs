//! W3C Trace Context, level 1, section 3.2: `traceparent`.
//!
//! `VERSION-TRACE-PARENT-FLAGS`, all of them lower-case hexadecimal: of 1, 16, 8 and 1 bytes. What is not of that form is as
//! good as not there, and the trace begins anew. `tracestate`, which is for tracers that have something of their own to say,
//! is not kept.

use std::fmt;

use domain::hex::Hex;

/// `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`.
const LEN: usize = 55;

/// Of the version that this writes.
const VERSION: u8 = 0;

/// No version has this number.
const NO_VERSION: u8 = 0xff;

/// The flag of a trace that its sender may have recorded.
pub(crate) const SAMPLED: u8 = 1;

/// Which trace: 16 bytes, not all of them 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// Which span of it: 8 bytes, not all of them 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

impl TraceId {
    /// One that nobody else makes.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        loop {
            getrandom::fill(&mut bytes).expect("the system has randomness");
            if let Some(id) = Self::new(bytes) {
                return id;
            }
        }
    }

    /// `None` where all bytes are 0.
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl SpanId {
    /// One that no other span of a trace has.
    pub fn random() -> Self {
        Self(fastrand::u64(1..).to_be_bytes())
    }

    /// `None` where all bytes are 0.
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a `traceparent` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// Which trace.
    pub trace: TraceId,
    /// The span under which the sender's request is.
    pub span: SpanId,
    /// Whether its sender may have recorded it.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Reads it; `None` where it is not one. A later version may have more behind the flags.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, more) = text.split_at_checked(LEN)?;
        let field = |from: usize, to: usize| &known[from..to];
        let [version] = bytes(field(0, 2))?;
        let fits = match version {
            NO_VERSION => false,
            VERSION => more.is_empty(),
            _ => matches!(more.first(), None | Some(b'-')),
        };
        if !fits || [2, 35, 52].iter().any(|&dash| known[dash] != b'-') {
            return None;
        }
        let [flags] = bytes(field(53, 55))?;
        Some(Self {
            trace: TraceId::new(bytes(field(3, 35))?)?,
            span: SpanId::new(bytes(field(36, 52))?)?,
            is_sampled: flags & SAMPLED != 0,
        })
    }
}

/// As version 00.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace,
            span,
            is_sampled,
        } = self;
        let flags = if *is_sampled { SAMPLED } else { 0 };
        write!(f, "{VERSION:02x}-{trace}-{span}-{flags:02x}")
    }
}

fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// Upper-case ones are none (section 3.2.2).
fn digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    /// The recommendation's examples, and the cases of its test suite
    /// (`w3c/trace-context`, `test/test.py`, `test_traceparent_*`).
    #[test]
    fn it_is_read_as_the_recommendation_says() {
        let whole = |version: &str, flags: &str| format!("{version}-{TRACE}-{SPAN}-{flags}");
        for (text, sampled) in [
            (whole("00", "01"), Some(true)),
            (whole("00", "00"), Some(false)),
            // Other flags say nothing here.
            (whole("00", "ff"), Some(true)),
            (whole("00", "fe"), Some(false)),
            // A later version, with and without more.
            (whole("cc", "01"), Some(true)),
            (whole("cc", "01-what-the-future-will-be-like"), Some(true)),
            (whole("cc", "01-"), Some(true)),
            (whole("cc", "01.what-the-future-will-not-be-like"), None),
            (whole("cc", "010"), None),
            // Nothing is behind version 00.
            (whole("00", "01-"), None),
            (whole("00", "01-what-the-future-will-be-like"), None),
            (whole("00", "010"), None),
            (whole("ff", "01"), None),
            (whole("0", "01"), None),
            (whole("000", "01"), None),
            (whole(".0", "01"), None),
            (whole("0A", "01"), None),
            (whole("00", ".0"), None),
            (whole("00", "0."), None),
            (whole("00", "0F"), None),
            (whole("00", "1"), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-.{}-{SPAN}-01", &TRACE[1..]), None),
            (format!("00-{TRACE}-.{}-01", &SPAN[1..]), None),
            (format!("00-{}-{SPAN}-01", &TRACE[1..]), None),
            (format!("00-{TRACE}-{}-01", &SPAN[1..]), None),
            (format!("00-{TRACE}0-{SPAN}-01"), None),
            (format!("00_{TRACE}-{SPAN}-01"), None),
            (format!(" 00-{TRACE}-{SPAN}-01"), None),
            (String::new(), None),
            ("é".repeat(30), None),
        ] {
            let read = TraceContext::parse(text.as_bytes());
            assert_eq!(read.map(|read| read.is_sampled), sampled, "{text}");
            if let Some(read) = read {
                assert_eq!(read.trace.to_string(), TRACE);
                assert_eq!(read.span.to_string(), SPAN);
            }
        }
    }

    #[test]
    fn ids_are_of_their_own() {
        assert_ne!(TraceId::random(), TraceId::random());
        assert_ne!(SpanId::random(), SpanId::random());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace: [u8; 16], span: [u8; 8], is_sampled: bool) {
            prop_assume!(trace != [0; 16] && span != [0; 8]);
            let context = TraceContext {
                trace: TraceId(trace),
                span: SpanId(span),
                is_sampled,
            };
            prop_assert_eq!(TraceContext::parse(context.to_string().as_bytes()), Some(context));
        }

        /// Of what is one but for a byte, and of anything.
        #[test]
        fn whatever_is_read_is_of_the_form(at in 0..LEN, byte: u8, any: Vec<u8>) {
            let mut text = format!("00-{TRACE}-{SPAN}-01").into_bytes();
            text[at] = byte;
            for text in [text, any] {
                if TraceContext::parse(&text).is_some() {
                    prop_assert!(text.len() >= LEN);
                    let is_of_form = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
                    prop_assert!(text[..LEN].iter().all(is_of_form));
                }
            }
        }
    }
}
