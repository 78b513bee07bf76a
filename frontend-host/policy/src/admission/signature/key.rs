//! The keys of signatures: ed25519 (RFC 8032), and ECDSA with P-256 and SHA-256 (FIPS 186-5), whose
//! signatures are ASN.1, as `cosign` and `openssl dgst -sha256` make and check them.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::pkcs8::{DecodePrivateKey as _, DecodePublicKey as _};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use p256::ecdsa;
use p256::ecdsa::signature::Verifier as _;
use p256::pkcs8::{EncodePrivateKey as _, EncodePublicKey as _, LineEnding};

/// How a public key begins in PEM, and how it ends.
const PEM_BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_END: &str = "-----END PUBLIC KEY-----";

/// Keys that are tried before the system's randomness is given up on: one in 2³² is none of P-256.
const TRIES: usize = 16;

/// Why a key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A line, counted from 1, does not begin with a public key.
    #[error(
        "line {0} does not begin with an ed25519 public key in base64; `bazaar policy keygen` makes one"
    )]
    Line(usize),
    /// What begins in a line, counted from 1, is not a public key.
    #[error("what begins in line {0} is not a public key of P-256 or ed25519 in PEM")]
    Pem(usize),
    /// It lists no key, so nothing could be trusted.
    #[error("it contains no key")]
    Empty,
    /// The text is not a secret key as [`Signatory::secret`] writes it, and not one in PEM.
    #[error(
        "not an ed25519 secret key in base64, nor one of P-256 or ed25519 in PEM (PKCS #8); `bazaar policy keygen` makes one"
    )]
    Secret,
    /// The secret key is encrypted, as `cosign generate-key-pair` makes it.
    #[error(
        "the secret key is encrypted: sign with `cosign sign-blob`, and name what it gives with --signature"
    )]
    Encrypted,
}

/// A key whose signatures count.
#[derive(Debug, Clone)]
pub(super) enum PublicKey {
    Ed25519(VerifyingKey),
    P256(ecdsa::VerifyingKey),
}

impl PublicKey {
    /// Reads a key file: an ed25519 key in base64 a line, or keys in PEM.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>, KeyError> {
        let mut keys = Vec::new();
        let mut lines = (1..).zip(text.lines());
        while let Some((number, line)) = lines.next() {
            let Some(word) = line
                .split_whitespace()
                .next()
                .filter(|word| !word.starts_with('#'))
            else {
                continue;
            };
            if !line.trim_start().starts_with("-----") {
                keys.push(Self::from_base64(word).ok_or(KeyError::Line(number))?);
                continue;
            }
            let mut pem = format!("{}\n", line.trim());
            for (_, line) in lines.by_ref() {
                pem += &format!("{}\n", line.trim());
                if line.trim() == PEM_END {
                    break;
                }
            }
            keys.push(Self::from_pem(&pem).ok_or(KeyError::Pem(number))?);
        }
        if keys.is_empty() {
            Err(KeyError::Empty)
        } else {
            Ok(keys)
        }
    }

    fn from_base64(text: &str) -> Option<Self> {
        let bytes: [u8; 32] = BASE64.decode(text).ok()?.try_into().ok()?;
        VerifyingKey::from_bytes(&bytes).ok().map(Self::Ed25519)
    }

    fn from_pem(pem: &str) -> Option<Self> {
        if !pem.starts_with(PEM_BEGIN) {
            return None;
        }
        let p256 = ecdsa::VerifyingKey::from_public_key_pem(pem).map(Self::P256);
        p256.ok().or_else(|| {
            VerifyingKey::from_public_key_pem(pem)
                .ok()
                .map(Self::Ed25519)
        })
    }

    /// Whether it made this signature of exactly these bytes. None where the signature is not one
    /// of its kind.
    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> Option<bool> {
        Some(match self {
            Self::Ed25519(key) => {
                let signature = ed25519_dalek::Signature::from_slice(signature).ok()?;
                key.verify_strict(message, &signature).is_ok()
            }
            Self::P256(key) => {
                let signature = ecdsa::Signature::from_der(signature).ok()?;
                key.verify(message, &signature).is_ok()
            }
        })
    }
}

/// Which signatures a key makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    Ed25519,
    /// As cosign's are.
    EcdsaP256,
}

/// A secret key to sign policies with.
pub struct Signatory(SecretKey);

enum SecretKey {
    Ed25519(SigningKey),
    P256(ecdsa::SigningKey),
}

impl Signatory {
    /// Makes a key from the system's randomness.
    ///
    /// # Errors
    /// Where the system has no randomness.
    pub fn generate(kind: KeyKind) -> Result<Self, getrandom::Error> {
        for _ in 0..TRIES {
            let mut secret = [0; 32];
            getrandom::fill(&mut secret)?;
            match kind {
                KeyKind::Ed25519 => {
                    return Ok(Self(SecretKey::Ed25519(SigningKey::from_bytes(&secret))));
                }
                KeyKind::EcdsaP256 => {
                    if let Ok(key) = ecdsa::SigningKey::from_slice(&secret) {
                        return Ok(Self(SecretKey::P256(key)));
                    }
                }
            }
        }
        Err(getrandom::Error::UNEXPECTED)
    }

    /// Reads one as [`Signatory::secret`] wrote it, or one in PEM that is not encrypted.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        if text.contains("-----BEGIN ENCRYPTED") {
            return Err(KeyError::Encrypted);
        }
        let key = if text.starts_with("-----BEGIN") {
            ecdsa::SigningKey::from_pkcs8_pem(text)
                .map(SecretKey::P256)
                .or_else(|_| SigningKey::from_pkcs8_pem(text).map(SecretKey::Ed25519))
                .ok()
        } else {
            let secret = BASE64.decode(text).ok().and_then(|it| it.try_into().ok());
            secret.map(|secret| SecretKey::Ed25519(SigningKey::from_bytes(&secret)))
        };
        key.map(Self).ok_or(KeyError::Secret)
    }

    /// The secret key: of ed25519 in base64, of P-256 in PEM.
    pub fn secret(&self) -> String {
        match &self.0 {
            SecretKey::Ed25519(key) => BASE64.encode(key.to_bytes()),
            SecretKey::P256(key) => {
                let pem = key.to_pkcs8_pem(LineEnding::LF);
                pem.expect("a key has a PEM").trim_end().to_owned()
            }
        }
    }

    /// The public key, for a key file: of ed25519 a line in base64, of P-256 in PEM.
    pub fn public(&self) -> String {
        match &self.0 {
            SecretKey::Ed25519(key) => BASE64.encode(key.verifying_key().to_bytes()),
            SecretKey::P256(key) => {
                let pem = key.verifying_key().to_public_key_pem(LineEnding::LF);
                pem.expect("a key has a PEM").trim_end().to_owned()
            }
        }
    }

    /// A detached signature, in base64. The same bytes always get the same one (RFC 6979).
    pub fn sign(&self, message: &[u8]) -> String {
        match &self.0 {
            SecretKey::Ed25519(key) => BASE64.encode(key.sign(message).to_bytes()),
            SecretKey::P256(key) => {
                let signature: ecdsa::Signature = key.sign(message);
                BASE64.encode(signature.to_der())
            }
        }
    }
}

/// Tells nothing of the secret.
impl fmt::Debug for Signatory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signatory({})", self.public())
    }
}
