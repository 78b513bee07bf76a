//! What a request is called in its reply, in logs, differences and recordings.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use smol_str::{SmolStr, format_smolstr};

/// The header that has it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest one that is taken from a client, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// Room that the values of some replies share, in bytes: some 60 of them.
const BLOCK_BYTES: usize = 1 << 10;

/// A request's id: its client's, where that is one to 64 letters, digits, `.`, `_` and `-`; else one that is made.
#[derive(Debug, Default)]
pub struct RequestId(OnceLock<SmolStr>);

impl RequestId {
    /// Of a request with these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(REQUEST_ID);
        let sent = sent.and_then(|sent| parse(sent.as_bytes()));
        Self(sent.map(OnceLock::from).unwrap_or_default())
    }

    pub fn text(&self) -> &SmolStr {
        self.0.get_or_init(made)
    }

    /// For the reply. A hit costs little more than this: the value has no memory of its own, but shares a block with others of
    /// its thread.
    pub fn header(&self) -> HeaderValue {
        thread_local! {
            static BLOCK: RefCell<BytesMut> = RefCell::default();
        }
        let text = self.text().as_bytes();
        let value = BLOCK.with_borrow_mut(|block| {
            if block.capacity() < text.len() {
                *block = BytesMut::with_capacity(BLOCK_BYTES);
            }
            block.extend_from_slice(text);
            block.split().freeze()
        });
        let value = HeaderValue::from_maybe_shared(value);
        let mut value = value.expect("letters, digits, dots, underscores and hyphens");
        // No other has it, so HTTP/2 is not to keep it for the next (RFC 7541, section 7.1.3), and a block with it.
        value.set_sensitive(true);
        value
    }
}

/// An id that may be taken from elsewhere.
pub(crate) fn parse(id: &[u8]) -> Option<SmolStr> {
    let is_valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-".contains(byte);
    let fits = (1..=REQUEST_ID_BYTES_MAX).contains(&id.len());
    let id = str::from_utf8(id).ok()?;
    (fits && id.as_bytes().iter().all(is_valid)).then(|| SmolStr::new(id))
}

/// One that nobody else makes: 40 random bits of this process, the thread, and how many it has made. Short enough to be
/// kept without memory of its own.
fn made() -> SmolStr {
    static PROCESS: LazyLock<u64> = LazyLock::new(|| {
        let mut random = [0; 8];
        getrandom::fill(&mut random[..5]).expect("the system has randomness");
        u64::from_le_bytes(random)
    });
    static THREADS: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static BEGIN: SmolStr = {
            let thread = THREADS.fetch_add(1, Ordering::Relaxed);
            format_smolstr!("{:010x}-{thread:x}-", *PROCESS)
        };
        static MADE: Cell<u64> = const { Cell::new(0) };
    }
    let number = MADE.replace(MADE.get() + 1);
    BEGIN.with(|begin| {
        let mut text = [0; 64];
        let (before, digits) = text.split_at_mut(begin.len());
        before.copy_from_slice(begin.as_bytes());
        let end = begin.len() + write_hexadecimal(number, digits);
        SmolStr::new(str::from_utf8(&text[..end]).expect("it is ASCII"))
    })
}

/// As `{:x}` has it, without its machinery. Returns how many digits there are.
fn write_hexadecimal(number: u64, digits: &mut [u8]) -> usize {
    let bits = u64::BITS - number.leading_zeros();
    let count = bits.div_ceil(4).max(1) as usize;
    for (place, digit) in digits[..count].iter_mut().rev().enumerate() {
        let nibble = (number >> (4 * place)) & 0xf;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    count
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::thread;

    use super::*;

    fn sent(id: &[u8]) -> RequestId {
        let value = HeaderValue::from_bytes(id).unwrap();
        RequestId::of(&HeaderMap::from_iter([(REQUEST_ID, value)]))
    }

    #[test]
    fn a_client_s_is_taken_where_it_can_do_no_harm_and_another_is_made_where_not() {
        let longest = "x".repeat(REQUEST_ID_BYTES_MAX);
        for id in ["7", "Aa0._-", &longest] {
            assert_eq!(sent(id.as_bytes()).text(), id);
        }
        let too_long = format!("{longest}x");
        for id in ["", "a b", "a\"b", "a,b", "é", "a/b", "{}", &too_long] {
            let id = sent(id.as_bytes());
            assert!(parse(id.text().as_bytes()).is_some(), "{id:?}");
            assert_eq!(
                id.header(),
                id.text().as_str(),
                "it is the same from then on"
            );
        }
    }

    #[test]
    fn replies_have_the_ids_of_their_requests_however_many_share_a_block() {
        let longest = "y".repeat(REQUEST_ID_BYTES_MAX);
        let ids: Vec<_> = (0..1_000)
            .map(|at| match at % 3 {
                0 => sent(longest.as_bytes()),
                _ => RequestId::default(),
            })
            .collect();
        let values: Vec<_> = ids.iter().map(RequestId::header).collect();
        for (id, value) in ids.iter().zip(&values) {
            assert_eq!(value, id.text().as_str());
            assert!(value.is_sensitive());
        }
    }

    #[test]
    fn digits_are_those_that_are_written_elsewhere() {
        for number in [0, 1, 9, 10, 15, 16, 255, 256, 0xdead_beef, u64::MAX] {
            let mut digits = [b'-'; 20];
            let count = write_hexadecimal(number, &mut digits);
            let written = str::from_utf8(&digits[..count]).unwrap();
            assert_eq!(written, format!("{number:x}"));
        }
    }

    #[test]
    fn no_two_are_made_alike() {
        let some = || (0..1_000).map(|_| RequestId::default().text().clone());
        let threads = [0; 4].map(|_| thread::spawn(move || some().collect::<Vec<_>>()));
        let ids: BTreeSet<_> = threads
            .into_iter()
            .flat_map(|made| made.join().unwrap())
            .collect();
        assert_eq!(ids.len(), 4_000);
    }
}
