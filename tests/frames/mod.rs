//! HTTP/2, frame by frame (RFC 9113): for tests that speak it as no library would.

/// What every client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// The setting that tells how much a peer may send on a new stream.
const INITIAL_WINDOW_SIZE: u16 = 4;

const HEAD_BYTES: usize = 9;

/// One frame, to be sent.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("frames are short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A client's opening; `window` is what it takes on a new stream.
pub fn opening(window: Option<u32>) -> Vec<u8> {
    let mut settings = Vec::new();
    if let Some(window) = window {
        settings.extend(INITIAL_WINDOW_SIZE.to_be_bytes());
        settings.extend(window.to_be_bytes());
    }
    [PREFACE, &frame(SETTINGS, 0, 0, &settings)].concat()
}

/// A request's headers, of the authority `x`, without Huffman coding and indexing (RFC 7541).
pub fn request(stream: u32, method: &str, path: &str, is_whole: bool) -> Vec<u8> {
    request_with(stream, method, path, &[], is_whole)
}

/// The same, with more headers.
pub fn request_with(
    stream: u32,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    is_whole: bool,
) -> Vec<u8> {
    // Names from the static table.
    const METHOD: u8 = 2;
    const PATH: u8 = 4;
    // A name of its own.
    const LITERAL: u8 = 0;
    let mut block = vec![0x86, 0x41, 1, b'x']; // `:scheme: http`, `:authority: x`
    for (name, value) in [(METHOD, method), (PATH, path)] {
        block.push(name);
        block.extend(text(value));
    }
    for (name, value) in headers {
        block.push(LITERAL);
        block.extend([text(name), text(value)].concat());
    }
    let ends = if is_whole { END_STREAM } else { 0 };
    frame(HEADERS, END_HEADERS | ends, stream, &block)
}

fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok();
    let length = length.filter(|length| *length < 127).expect("short");
    [&[length], text.as_bytes()].concat()
}

/// How much more may be sent on a stream, or on the connection where it is 0.
pub fn window_update(stream: u32, bytes: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// The number of the stream of a request: a client's are odd.
pub fn stream(request: usize) -> u32 {
    u32::try_from(2 * request + 1).expect("there are not so many")
}

/// A frame that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    /// Its stream, 0 where it is the connection's.
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// Takes a frame from the front of what was read, once it is complete.
pub fn take_frame(read: &mut Vec<u8>) -> Option<Frame> {
    let head: [u8; HEAD_BYTES] = read.get(..HEAD_BYTES)?.try_into().ok()?;
    let [l0, l1, l2, kind, flags, s0, s1, s2, s3] = head;
    let end = HEAD_BYTES + u32::from_be_bytes([0, l0, l1, l2]) as usize;
    let payload = read.get(HEAD_BYTES..end)?.to_vec();
    read.drain(..end);
    Some(Frame {
        kind,
        flags,
        stream: u32::from_be_bytes([s0, s1, s2, s3]),
        payload,
    })
}
