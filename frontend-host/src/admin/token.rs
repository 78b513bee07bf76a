//! What an operator shows to be let in.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use daemon::watched::{Contents, Unread, Watched};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// A bearer token (RFC 6750): never empty, and such that a header can carry it.
#[derive(Clone)]
pub struct Token(String);

/// Why a text cannot be a token. Says nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It would let everybody in.
    #[error("the token is empty or blank; give one that nobody can guess, or none at all")]
    Blank,
    /// No client could send it.
    #[error("the token has characters that are not visible ASCII, or spaces in it")]
    Unsendable,
}

impl FromStr for Token {
    type Err = TokenError;

    /// Spaces and line ends around it do not count: a file ends in one.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let token = text.trim();
        if token.is_empty() {
            Err(TokenError::Blank)
        } else if token.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(token.to_owned()))
        } else {
            Err(TokenError::Unsendable)
        }
    }
}

impl Token {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is what was given. How long it takes tells nothing of either: hashes have one
    /// length, and are compared to the end.
    fn matches(&self, given: &str) -> bool {
        let [token, given] = [&self.0, given].map(Sha256::digest);
        token.ct_eq(&given).into()
    }
}

/// Where a token is told.
#[derive(Debug, Clone)]
pub enum TokenSource {
    /// Here, for as long as the gateway runs.
    Given(Token),
    /// In a file, which is read anew when it changes.
    File(PathBuf),
}

/// Why a file's token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("{}: {source}", path.display())]
    Invalid { path: PathBuf, source: TokenError },
    /// Who may only read could change things, too.
    #[error("the token for reading is the one for changing things as well: make another one")]
    Same,
}

/// A token as it is now.
#[derive(Debug)]
pub(super) enum CurrentToken {
    Given(Token),
    File(Watched<Token>),
}

impl CurrentToken {
    /// # Errors
    /// Where a file cannot be read, or has no valid token in it.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub(super) fn of(source: TokenSource) -> Result<Self, TokenFileError> {
        let path = match source {
            TokenSource::Given(token) => return Ok(Self::Given(token)),
            TokenSource::File(path) => path,
        };
        let watched = Watched::new(vec![path], |contents| {
            let Contents { path, bytes } = &contents[0];
            let token = String::from_utf8_lossy(bytes).parse();
            token.map_err(|source| TokenFileError::Invalid {
                path: path.clone(),
                source,
            })
        });
        Ok(Self::File(watched?))
    }

    /// Whether another one is the same now.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        match other {
            Self::Given(other) => self.matches(&other.0),
            Self::File(other) => self.matches(&other.now().0),
        }
    }

    pub(super) fn matches(&self, given: &str) -> bool {
        match self {
            Self::Given(token) => token.matches(given),
            Self::File(token) => token.now().matches(given),
        }
    }
}

/// Tells nothing of the token.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_blank_or_cannot_be_sent_is_no_token() {
        for (text, expected) in [
            ("secret", Ok("secret")),
            ("  se=cr/et\n", Ok("se=cr/et")),
            ("", Err(TokenError::Blank)),
            (" \t\r\n", Err(TokenError::Blank)),
            ("\u{a0}\u{2003}", Err(TokenError::Blank)),
            ("two words", Err(TokenError::Unsendable)),
            ("one\ntwo", Err(TokenError::Unsendable)),
            ("gehëim", Err(TokenError::Unsendable)),
            ("nul\0", Err(TokenError::Unsendable)),
        ] {
            let token = text.parse::<Token>();
            let token = token.as_ref().map(Token::as_str).map_err(|error| *error);
            assert_eq!(token, expected, "{text:?}");
        }
    }

    #[test]
    fn a_token_is_itself_alone_and_is_not_shown() {
        let token: Token = "secret".parse().unwrap();
        assert!(token.matches("secret"));
        for other in ["", "secre", "secret ", "Secret", "secretsecret"] {
            assert!(!token.matches(other), "{other}");
        }
        assert!(!format!("{token:?}").contains("secret"));
    }
}
