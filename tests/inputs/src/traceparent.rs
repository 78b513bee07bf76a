//! What a request says of its trace.

use traces::TraceContext;

/// What is taken for one is of the form, and is written as it was read, but for what only later versions know.
pub fn check(header: &[u8]) {
    let Some(context) = TraceContext::parse(header) else {
        return;
    };
    let written = context.to_string();
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
    assert!(written.bytes().all(|byte| is_digit(&byte)));
    assert_eq!(TraceContext::parse(written.as_bytes()), Some(context));
    let ids = 2..written.len() - 2;
    assert_eq!(header[ids.clone()], written.as_bytes()[ids]);
}
