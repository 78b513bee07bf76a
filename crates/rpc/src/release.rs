//! What every call says of the caller's release, and every answer of the callee's: its number, and which versions of the
//! [protocol](domain::protocol) it speaks.
//!
//! Both are product tokens of HTTP (RFC 9110, section 10.1.5), `bazaar/0.2.0 bazaar-protocol/1-2`, in the first frame of a
//! call in each direction: `user-agent` there, `server` back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use domain::{Protocol, Protocols};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::header::{SERVER, USER_AGENT};
use tonic::{Code, Status};

use crate::retry::{RetryClass, RetryStatus as _};

/// This release's number.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Longest number of a release that is repeated.
const NUMBER_BYTES_MAX: usize = 32;

/// What names a release, and what its versions of the protocol.
const BAZAAR: &str = "bazaar/";
const PROTOCOL: &str = "bazaar-protocol/";

/// What a process says of its release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `None` where it does not say.
    number: Option<String>,
    speaks: Protocols,
}

impl Release {
    /// This one.
    pub fn own() -> Self {
        Self {
            number: Some(RELEASE.to_owned()),
            speaks: Protocols::OWN,
        }
    }

    /// What a caller says of its own.
    pub fn of_caller(request: &HeaderMap) -> Self {
        Self::said(request, USER_AGENT)
    }

    /// What a callee says of its own.
    pub fn of_callee(answer: &HeaderMap) -> Self {
        Self::said(answer, SERVER)
    }

    /// What somebody says that another one said.
    pub fn of_tokens(tokens: &str) -> Self {
        let tokens = || tokens.split_ascii_whitespace();
        let number = tokens().find_map(|token| token.strip_prefix(BAZAAR));
        let speaks = tokens().find_map(|token| token.strip_prefix(PROTOCOL)?.parse().ok());
        Self {
            number: number
                .filter(|number| number.len() <= NUMBER_BYTES_MAX)
                .map(str::to_owned),
            speaks: speaks.unwrap_or(Protocols::UNSAID),
        }
    }

    fn said(headers: &HeaderMap, name: HeaderName) -> Self {
        let tokens = headers.get(name).and_then(|value| value.to_str().ok());
        Self::of_tokens(tokens.unwrap_or_default())
    }

    /// What it says, to be said again; nothing where it says nothing.
    pub fn tokens(&self) -> String {
        match &self.number {
            Some(number) => format!("{BAZAAR}{number} {PROTOCOL}{}", self.speaks),
            None if self.speaks == Protocols::UNSAID => String::new(),
            None => format!("{PROTOCOL}{}", self.speaks),
        }
    }

    /// Its number, where it says one.
    pub fn number(&self) -> Option<&str> {
        self.number.as_deref()
    }

    /// Which versions of the protocol it speaks.
    pub fn speaks(&self) -> Protocols {
        self.speaks
    }

    /// Whether it can be of a bazaar at that version, where that is known, together with this release.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION`, with which of the two is to be upgraded.
    pub fn check(&self, bazaar: Option<Protocol>) -> Result<(), Status> {
        let own = Protocols::OWN;
        let is_of_it = bazaar.is_none_or(|bazaar| self.speaks.contains(bazaar));
        if is_of_it && self.speaks.overlaps(own) {
            return Ok(());
        }
        let (newest, there) = match bazaar {
            Some(bazaar) => (bazaar, format!("the bazaar is at version {bazaar}")),
            None => (own.oldest(), format!("this release speaks {own}")),
        };
        let remedy = match self.speaks.newest() < newest {
            true => "upgrade it",
            false => "upgrade the rest of the bazaar first, one release after another",
        };
        let why = format!("{self}, and {there}: {remedy}");
        Err(RetryClass::Never.status(Code::FailedPrecondition, why))
    }
}

/// `release 0.1.0 speaks versions 1-1 of the protocol`
impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.number {
            Some(number) => write!(f, "release {}", number.escape_debug())?,
            None => write!(f, "a release that says nothing of itself, as 0.1.0 does,")?,
        }
        write!(f, " speaks versions {} of the protocol", self.speaks)
    }
}

/// Whether a caller is of this very release: then there is nothing to be read.
pub(crate) fn is_own(request: &HeaderMap, own: &HeaderValue) -> bool {
    let agent = request.get(USER_AGENT).map(HeaderValue::as_bytes);
    let rest = agent.and_then(|agent| agent.strip_prefix(own.as_bytes()));
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b' ')
}

/// What this release says of itself.
pub fn own_tokens() -> String {
    Release::own().tokens()
}

/// The same, as a header.
pub(crate) fn own_header() -> HeaderValue {
    HeaderValue::try_from(own_tokens()).expect("tokens are visible ASCII")
}

/// At which version of the protocol the bazaar is, as far as this process knows: nothing, until it hears.
#[derive(Debug, Clone, Default)]
pub struct BazaarProtocol(Arc<AtomicU32>);

impl BazaarProtocol {
    /// At that one.
    pub fn new(protocol: Protocol) -> Self {
        Self(Arc::new(AtomicU32::new(protocol.get())))
    }

    /// The version, once it is known.
    pub fn get(&self) -> Option<Protocol> {
        Protocol::new(self.0.load(Ordering::Relaxed))
    }

    /// The catalog says that it is at that one.
    pub fn set(&self, protocol: Protocol) {
        self.0.store(protocol.get(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(agent: &str) -> Release {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_str(agent).unwrap());
        Release::of_caller(&headers)
    }

    #[test]
    fn a_release_is_known_by_what_it_says_and_0_1_0_by_saying_nothing() {
        assert_eq!(
            caller(&format!("{} tonic/0.14", own_tokens())),
            Release::own()
        );
        let before = caller("tonic/0.14.2");
        assert_eq!(
            (before.number(), before.speaks()),
            (None, Protocols::UNSAID)
        );
        assert_eq!(Release::of_caller(&HeaderMap::new()), before);
        for nonsense in [
            "bazaar-protocol/2-1",
            "bazaar-protocol/",
            "bazaar-protocol/1-2,",
        ] {
            assert_eq!(caller(nonsense).speaks(), Protocols::UNSAID, "{nonsense}");
        }
        for said in [Release::own(), before, caller("bazaar-protocol/1-2")] {
            assert_eq!(Release::of_tokens(&said.tokens()), said);
        }
        let long = caller(&format!("bazaar/{} bazaar-protocol/1-2", "9".repeat(33)));
        assert_eq!((long.number(), long.speaks()), (None, Protocols::OWN));
    }

    #[test]
    fn who_does_not_speak_the_bazaars_version_is_refused_and_told_who_is_to_be_upgraded() {
        let [first, second] = [1, 2].map(|number| Protocol::new(number).unwrap());
        assert!(
            Release::own().check(Some(first)).is_ok() && Release::own().check(Some(second)).is_ok()
        );
        let before = caller("tonic/0.14.2");
        assert!(before.check(Some(first)).is_ok());
        let refused = before.check(Some(second)).unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert_eq!(RetryClass::of(&refused), RetryClass::Never);
        assert!(
            refused.message().ends_with("version 2: upgrade it"),
            "{refused}"
        );
        // Who does not know yet at which it is refuses nobody that it understands.
        assert!(before.check(None).is_ok() && Release::own().check(None).is_ok());
        let stranger = caller("bazaar/9.0.0 bazaar-protocol/8-9");
        assert!(stranger.check(None).is_err());
        let later = caller("bazaar/0.9.0 bazaar-protocol/2-3");
        assert!(later.check(Some(second)).is_ok());
        let refused = later.check(Some(first)).unwrap_err();
        assert_eq!(
            refused.message(),
            "release 0.9.0 speaks versions 2-3 of the protocol, and the bazaar is at version 1: \
             upgrade the rest of the bazaar first, one release after another"
        );
    }
}
