//! Idempotency keys of clients that a policy tells apart. The host knows one set of keys.

use sha2::{Digest as _, Sha256};

/// What the key of a client that is known begins with.
const PREFIX: &str = "scoped-";

/// The key that the host is given for a client's own. In a scope it is a digest of both, so that no
/// two scopes share a key, nor one of them with those who have none, and it has 71 bytes however
/// long they are.
// Inlined, it would lengthen the code of a lookup.
#[inline(never)]
pub fn scoped(scope: Option<String>, key: String) -> String {
    // A key that only looks as if it were in a scope must not be another's.
    if scope.is_none() && !key.starts_with(PREFIX) {
        return key;
    }
    let scope = scope.as_deref();
    let mut digest = Sha256::new();
    digest.update([u8::from(scope.is_some())]);
    let scope = scope.unwrap_or_default();
    digest.update((scope.len() as u64).to_be_bytes());
    digest.update(scope);
    digest.update(key);
    let mut scoped = PREFIX.to_owned();
    for byte in digest.finalize() {
        for digit in [byte >> 4, byte & 0xf] {
            scoped.extend(char::from_digit(digit.into(), 16));
        }
    }
    scoped
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::trade_order::KEY_BYTES_MAX;

    fn key(scope: Option<&str>, key: &str) -> String {
        scoped(scope.map(str::to_owned), key.to_owned())
    }

    #[test]
    fn without_a_scope_a_key_is_itself() {
        assert_eq!(key(None, "1"), "1");
    }

    #[test]
    fn no_two_clients_share_a_key() {
        let borrowed = key(Some("alice"), "1");
        let keys = [
            key(None, "1"),
            key(Some("alice"), "1"),
            key(Some("bob"), "1"),
            key(Some("alice"), "2"),
            key(Some("alice1"), ""),
            key(Some(""), "alice1"),
            key(None, &borrowed),
            key(Some(""), &borrowed),
        ];
        let distinct: HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len(), "{keys:?}");
        assert_eq!(key(Some("alice"), "1"), borrowed, "the same again");
    }

    #[test]
    fn a_key_in_a_scope_is_one_that_the_host_takes() {
        let long = "\u{e9}".repeat(10_000);
        let key = key(Some(&long), &"k".repeat(KEY_BYTES_MAX));
        assert!(key.len() <= KEY_BYTES_MAX && key.bytes().all(|byte| byte.is_ascii_graphic()));
    }
}
