//! Whose policies a gateway takes: detached ed25519 signatures (RFC 8032) over a component's
//! bytes.
//!
//! A key file has a public key a line, in base64, and after it whatever tells people whose it is.
//! Empty lines and those that begin with `#` are passed over. A signature is in base64, too.

use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};

use crate::guest::digest::Digest;

/// A component from outside, and its configuration.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// A WebAssembly component, or what claims to be one.
    pub component: &'a [u8],
    /// A detached signature over the component, in base64.
    pub signature: Option<&'a str>,
    /// What it is to be configured with, of at most
    /// [`CONFIG_BYTES_MAX`](crate::limits::CONFIG_BYTES_MAX) bytes; empty without one.
    pub config: &'a [u8],
}

impl Upload<'_> {
    /// What names the version that it makes.
    pub(crate) fn digest(&self) -> Digest {
        Digest::of_version(Digest::of(self.component), self.config)
    }
}

impl<'a> From<&'a [u8]> for Upload<'a> {
    fn from(component: &'a [u8]) -> Self {
        Self {
            component,
            signature: None,
            config: &[],
        }
    }
}

impl<'a> From<&'a Vec<u8>> for Upload<'a> {
    fn from(component: &'a Vec<u8>) -> Self {
        component.as_slice().into()
    }
}

/// A component whose origin will do.
pub(super) struct Verified<'a>(&'a [u8]);

impl<'a> Verified<'a> {
    pub(super) fn component(&self) -> &'a [u8] {
        self.0
    }
}

/// Takes components that `trust` covers; all components without a `trust`.
pub(super) fn verify<'a>(
    upload: Upload<'a>,
    trust: Option<&Trust>,
) -> Result<Verified<'a>, Untrusted> {
    if let Some(trust) = trust {
        trust.verify(upload.component, upload.signature)?;
    }
    Ok(Verified(upload.component))
}

/// The keys whose signatures count.
#[derive(Debug, Clone)]
pub struct Trust {
    keys: Vec<VerifyingKey>,
}

/// Why a key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A line, counted from 1, does not begin with a public key.
    #[error(
        "line {0} does not begin with an ed25519 public key in base64; `bazaar policy keygen` makes one"
    )]
    Line(usize),
    /// It lists no key, so nothing could be trusted.
    #[error("it contains no key")]
    Empty,
    /// The text is not a secret key as [`Signatory::secret`] writes it.
    #[error("not an ed25519 secret key in base64; `bazaar policy keygen` makes one")]
    Secret,
}

/// Why a component is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// It came without a signature.
    #[error("it is not signed, and this gateway takes signed policies only: `bazaar policy sign`")]
    Unsigned,
    /// The signature is not one.
    #[error("its signature is not an ed25519 signature in base64")]
    Malformed,
    /// No listed key made the signature for these bytes.
    #[error("no key that this gateway trusts has signed it")]
    Unknown,
}

impl Trust {
    /// Reads a key file.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let Some(key) = line
                .split_whitespace()
                .next()
                .filter(|key| !key.starts_with('#'))
            else {
                continue;
            };
            let bytes = decode::<32>(key).ok_or(KeyError::Line(index + 1))?;
            keys.push(VerifyingKey::from_bytes(&bytes).map_err(|_| KeyError::Line(index + 1))?);
        }
        if keys.is_empty() {
            Err(KeyError::Empty)
        } else {
            Ok(Self { keys })
        }
    }

    /// Makes sure that a listed key has signed exactly these bytes.
    pub fn verify(&self, component: &[u8], signature: Option<&str>) -> Result<(), Untrusted> {
        let signature = signature.ok_or(Untrusted::Unsigned)?;
        let signature =
            Signature::from_bytes(&decode::<64>(signature.trim()).ok_or(Untrusted::Malformed)?);
        let signed = self
            .keys
            .iter()
            .any(|key| key.verify_strict(component, &signature).is_ok());
        if signed {
            Ok(())
        } else {
            Err(Untrusted::Unknown)
        }
    }
}

/// A secret key to sign policies with.
pub struct Signatory(SigningKey);

impl Signatory {
    /// Makes a key from the system's randomness.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)?;
        Ok(Self(SigningKey::from_bytes(&secret)))
    }

    /// Reads one as [`Signatory::secret`] wrote it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let secret = decode::<32>(text.trim()).ok_or(KeyError::Secret)?;
        Ok(Self(SigningKey::from_bytes(&secret)))
    }

    /// The secret key, in base64.
    pub fn secret(&self) -> String {
        BASE64.encode(self.0.to_bytes())
    }

    /// The public key, in base64: a line of a key file.
    pub fn public(&self) -> String {
        BASE64.encode(self.0.verifying_key().to_bytes())
    }

    /// A detached signature, in base64.
    pub fn sign(&self, component: &[u8]) -> String {
        BASE64.encode(self.0.sign(component).to_bytes())
    }
}

/// Tells nothing of the secret.
impl fmt::Debug for Signatory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signatory({})", self.public())
    }
}

fn decode<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    BASE64.decode(text).ok()?.try_into().ok()
}

/// Where a component's detached signature lies: beside it, with `.sig` after its name.
pub fn signature_path(component: &Path) -> PathBuf {
    let mut path = component.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_listed_key_signed_is_trusted() {
        let (mine, other) = (
            Signatory::generate().unwrap(),
            Signatory::generate().unwrap(),
        );
        let trust =
            Trust::parse(&format!("# ours\n\n{} the release key\n", mine.public())).unwrap();
        let signature = mine.sign(b"component");
        assert_eq!(trust.verify(b"component", Some(&signature)), Ok(()));
        assert_eq!(trust.verify(b"component", None), Err(Untrusted::Unsigned));
        assert_eq!(
            trust.verify(b"componenT", Some(&signature)),
            Err(Untrusted::Unknown)
        );
        assert_eq!(
            trust.verify(b"component", Some(&other.sign(b"component"))),
            Err(Untrusted::Unknown)
        );
        assert_eq!(
            trust.verify(b"component", Some("nonsense")),
            Err(Untrusted::Malformed)
        );
        let again = Signatory::parse(&mine.secret()).unwrap();
        assert_eq!(again.sign(b"component"), signature);
    }

    #[test]
    fn a_key_file_without_a_key_is_refused() {
        assert_eq!(Trust::parse("# nobody\n").unwrap_err(), KeyError::Empty);
        assert_eq!(Trust::parse("\nnonsense\n").unwrap_err(), KeyError::Line(2));
        assert!(Signatory::parse("short").is_err());
    }
}
