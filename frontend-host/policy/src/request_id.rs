//! What a request is called in its reply, in logs, differences and recordings.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue};
use smol_str::{SmolStr, format_smolstr};

/// The header that has it.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest one that is taken from a client, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

/// A request's id: its client's, where that is one to 64 letters, digits, `.`, `_` and `-`; else one that is made once
/// somebody wants it. Most requests are never called anything.
#[derive(Debug, Default)]
pub struct RequestId {
    text: OnceLock<SmolStr>,
    was_sent: bool,
}

impl RequestId {
    /// Of a request with these headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let Some(sent) = headers.get(REQUEST_ID) else {
            return Self::default();
        };
        Self {
            text: parse(sent.as_bytes())
                .map(OnceLock::from)
                .unwrap_or_default(),
            was_sent: true,
        }
    }

    /// Whether the client has sent one, if only one that will not do: it wants to know its request's.
    pub fn was_sent(&self) -> bool {
        self.was_sent
    }

    pub fn text(&self) -> &SmolStr {
        self.text.get_or_init(made)
    }

    /// For the reply.
    pub fn header(&self) -> HeaderValue {
        HeaderValue::from_str(self.text()).expect("letters, digits, dots, underscores and hyphens")
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
        static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed);
        static MADE: Cell<u64> = const { Cell::new(0) };
    }
    let number = MADE.replace(MADE.get() + 1);
    let thread = THREAD.with(|thread| *thread);
    format_smolstr!("{:010x}-{thread:x}-{number:x}", *PROCESS)
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
            assert!(id.was_sent());
            assert!(parse(id.text().as_bytes()).is_some(), "{id:?}");
            assert_eq!(id.text(), id.text(), "it is the same from then on");
        }
        assert!(!RequestId::of(&HeaderMap::new()).was_sent());
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
