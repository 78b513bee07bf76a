//! Whose policies a gateway takes: detached signatures over a component's bytes, or over an image
//! of it.
//!
//! - here: what comes from outside, and whether a trusted key has signed it;
//! - `key`: ed25519, and ECDSA with P-256 as cosign has it;
//! - [`image`]: cosign's signatures of images.
//!
//! A key file has an ed25519 public key a line, in base64, and after it whatever tells people whose
//! it is; or public keys in PEM. Empty lines and those that begin with `#` are passed over. A
//! signature is in base64, too; several are divided by commas, and one that counts is enough.

mod key;
pub mod image;

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

pub use self::image::ImageSignature;
use self::key::PublicKey;
pub use self::key::{KeyError, KeyKind, Signatory};

/// Longest text of signatures that is read, in bytes. A gateway takes requests whose head has 32 KiB.
pub const SIGNATURES_BYTES_MAX: usize = 24 << 10;

/// Signatures of a component that are tried.
pub const SIGNATURES_MAX: usize = 8;

use crate::guest::digest::Digest;

/// A component from outside, and its configuration.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// A WebAssembly component, or what claims to be one.
    pub component: &'a [u8],
    /// Detached signatures over them, as the module says.
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
    keys: Vec<PublicKey>,
}

/// Why a component is not trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// It came without a signature.
    #[error("it is not signed, and this gateway takes signed policies only: `bazaar policy sign`")]
    Unsigned,
    /// A signature is not one of any trusted key's kind.
    #[error("its signature is not one in base64 of the kind that this gateway's keys make")]
    Malformed,
    /// No listed key made the signature for these bytes.
    #[error("no key that this gateway trusts has signed it")]
    Unknown,
    /// A listed key made the signature, for an image of something else.
    #[error("its signature is that of another image")]
    OtherImage,
    /// There are more signatures than are tried.
    #[error(
        "it has more than {SIGNATURES_MAX} signatures, or {SIGNATURES_BYTES_MAX} bytes of them"
    )]
    TooMany,
}

impl Trust {
    /// Reads a key file.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        PublicKey::parse_all(text).map(|keys| Self { keys })
    }

    /// Makes sure that a listed key has signed exactly these bytes, or an image of them.
    pub fn verify(&self, component: &[u8], signatures: Option<&str>) -> Result<(), Untrusted> {
        let signatures = signatures.ok_or(Untrusted::Unsigned)?;
        if signatures.len() > SIGNATURES_BYTES_MAX || signatures.split(',').count() > SIGNATURES_MAX
        {
            return Err(Untrusted::TooMany);
        }
        // Tools break lines of base64.
        let signatures: String = signatures.split_whitespace().collect();
        let mut problem = Untrusted::Malformed;
        for signature in signatures.split(',') {
            match self.verify_one(component, signature) {
                Ok(()) => return Ok(()),
                Err(Untrusted::Malformed) => {}
                Err(other) => problem = other,
            }
        }
        Err(problem)
    }

    fn verify_one(&self, component: &[u8], signature: &str) -> Result<(), Untrusted> {
        let (verdicts, is_of_component): (Vec<_>, bool) = match ImageSignature::parse(signature) {
            None => {
                let signature = BASE64.decode(signature).map_err(|_| Untrusted::Malformed)?;
                let verify = |key: &PublicKey| key.verify(component, &signature);
                (self.keys.iter().map(verify).collect(), true)
            }
            Some(image) => {
                let image = image.ok_or(Untrusted::Malformed)?;
                let verdicts = self.keys.iter().map(|key| image.is_by(key)).collect();
                (verdicts, image.is_of(component))
            }
        };
        match verdicts.into_iter().flatten().max() {
            None => Err(Untrusted::Malformed),
            Some(false) => Err(Untrusted::Unknown),
            Some(true) if !is_of_component => Err(Untrusted::OtherImage),
            Some(true) => Ok(()),
        }
    }
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
    use crate::admission::oci::{Descriptor, Manifest, WASM_CONFIG, WASM_LAYER};

    const KINDS: [KeyKind; 2] = [KeyKind::Ed25519, KeyKind::EcdsaP256];

    /// Made by `openssl ecparam -name prime256v1 -genkey` and `openssl pkey -pubout`, which is what
    /// `cosign generate-key-pair` writes, too.
    const OPENSSL_PUBLIC: &str = include_str!("signature/fixtures/p256.pub");

    /// Of the bytes `component`, by `openssl dgst -sha256 -sign` and `base64`: what `cosign
    /// sign-blob` gives.
    const OPENSSL_SIGNATURE: &str = include_str!("signature/fixtures/component.sig");

    /// An ed25519 key of `openssl genpkey -algorithm ed25519`, in PEM.
    const OPENSSL_ED25519: &str = include_str!("signature/fixtures/ed25519.pub");

    /// Of the same bytes by that key, by `openssl pkeyutl -sign -rawin`.
    const OPENSSL_ED25519_SIGNATURE: &str =
        include_str!("signature/fixtures/component.ed25519.sig");

    fn manifest(component: &[u8]) -> Vec<u8> {
        let config = Descriptor::of(WASM_CONFIG, b"{}");
        let manifest = Manifest::new(config, vec![Descriptor::of(WASM_LAYER, component)]);
        serde_json::to_vec(&manifest).unwrap()
    }

    fn image_signature(key: &Signatory, payload: Vec<u8>, manifest: Vec<u8>) -> String {
        let signature = ImageSignature {
            signature: BASE64.decode(key.sign(&payload)).unwrap(),
            payload,
            manifest,
        };
        signature.to_string()
    }

    #[test]
    fn only_what_a_listed_key_signed_is_trusted() {
        for kind in KINDS {
            let (mine, other) = (
                Signatory::generate(kind).unwrap(),
                Signatory::generate(kind).unwrap(),
            );
            let file = format!("# ours\n\n{}\n", mine.public());
            let trust = Trust::parse(&file).unwrap();
            let signature = mine.sign(b"component");
            assert_eq!(trust.verify(b"component", Some(&signature)), Ok(()));
            assert_eq!(trust.verify(b"component", None), Err(Untrusted::Unsigned));
            assert_eq!(
                trust.verify(b"componenT", Some(&signature)),
                Err(Untrusted::Unknown)
            );
            let others = other.sign(b"component");
            assert_eq!(
                trust.verify(b"component", Some(&others)),
                Err(Untrusted::Unknown)
            );
            assert_eq!(
                trust.verify(b"component", Some("nonsense")),
                Err(Untrusted::Malformed)
            );
            let both = format!("{others},\n {signature}\n");
            assert_eq!(trust.verify(b"component", Some(&both)), Ok(()));
            let many = vec![others; SIGNATURES_MAX].join(",") + "," + &signature;
            assert_eq!(
                trust.verify(b"component", Some(&many)),
                Err(Untrusted::TooMany)
            );
            let again = Signatory::parse(&mine.secret()).unwrap();
            assert_eq!(again.sign(b"component"), signature, "{kind:?}");
        }
    }

    #[test]
    fn keys_of_both_kinds_stand_in_one_file() {
        let keys = KINDS.map(|kind| Signatory::generate(kind).unwrap());
        let file = format!(
            "{} the release key\n# and that of the build\n{}\n\n{OPENSSL_ED25519}{OPENSSL_PUBLIC}",
            keys[0].public(),
            keys[1].public()
        );
        let trust = Trust::parse(&file).unwrap();
        let [mine, theirs] = keys.map(|key| key.sign(b"component"));
        for signature in [&mine, &theirs, OPENSSL_SIGNATURE, OPENSSL_ED25519_SIGNATURE] {
            assert_eq!(trust.verify(b"component", Some(signature)), Ok(()));
            let other = trust.verify(b"another", Some(signature));
            assert_eq!(other, Err(Untrusted::Unknown), "{signature}");
        }
    }

    #[test]
    fn a_signature_of_another_kind_than_the_keys_is_malformed() {
        let trust = Trust::parse(OPENSSL_PUBLIC).unwrap();
        let ed25519 = Signatory::generate(KeyKind::Ed25519).unwrap();
        let signature = ed25519.sign(b"component");
        let verified = trust.verify(b"component", Some(&signature));
        assert_eq!(verified, Err(Untrusted::Malformed));
    }

    #[test]
    fn a_signature_of_an_image_is_one_of_the_component_in_it() {
        for kind in KINDS {
            let key = Signatory::generate(kind).unwrap();
            let trust = Trust::parse(&key.public()).unwrap();
            let manifest_of = manifest;
            let manifest = manifest_of(b"component");
            let payload = image::payload(&manifest);
            let signature = image_signature(&key, payload.clone(), manifest.clone());
            assert_eq!(trust.verify(b"component", Some(&signature)), Ok(()));
            let verify = |signature: String| trust.verify(b"component", Some(&signature));
            // Of another component, with and without its own manifest.
            assert_eq!(
                trust.verify(b"another", Some(&signature)),
                Err(Untrusted::OtherImage)
            );
            let another = manifest_of(b"another");
            let exchanged = image_signature(&key, image::payload(&another), manifest.clone());
            assert_eq!(verify(exchanged), Err(Untrusted::OtherImage));
            // Signed for something else than images, by the same key.
            let text = String::from_utf8(payload.clone()).unwrap();
            let blob = text
                .replace("container image signature", "attestation")
                .into_bytes();
            let attested = image_signature(&key, blob, manifest.clone());
            assert_eq!(verify(attested), Err(Untrusted::OtherImage));
            // The payload is what is signed.
            let mut changed = ImageSignature::parse(&signature).unwrap().unwrap();
            changed.payload.push(b' ');
            assert_eq!(verify(changed.to_string()), Err(Untrusted::Unknown));
            // A signature of the payload is none of the component, nor the other way round.
            assert_eq!(verify(key.sign(&payload)), Err(Untrusted::Unknown));
            changed.payload = payload;
            changed.signature = BASE64.decode(key.sign(b"component")).unwrap();
            assert_eq!(verify(changed.to_string()), Err(Untrusted::Unknown));
            for cut in ["image:", "image:AA==:AA==", &format!("{signature}:AA==")] {
                assert_eq!(verify(cut.to_owned()), Err(Untrusted::Malformed), "{cut}");
            }
        }
    }

    #[test]
    fn a_payload_is_what_cosign_signs() {
        // As `cosign sign` writes it, with claims of its own and another order of fields.
        let manifest = manifest(b"component");
        let digest = crate::admission::oci::ImageDigest::of(&manifest);
        let theirs = format!(
            r#"{{"optional":{{"creator":"build"}},"critical":{{"type":"cosign container image signature","image":{{"docker-manifest-digest":"{digest}"}},"identity":{{"docker-reference":"registry.example/policy"}}}}}}"#
        );
        assert!(image::is_payload_of(theirs.as_bytes(), &manifest));
        assert!(!image::is_payload_of(theirs.as_bytes(), b"{}"));
        assert!(!image::is_payload_of(b"{}", &manifest));
        let twice = theirs.replacen(r#""image":{"#, r#""image":{},"image":{"#, 1);
        assert!(!image::is_payload_of(twice.as_bytes(), &manifest));
        let ours = format!(
            r#"{{"critical":{{"identity":{{"docker-reference":""}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
        );
        assert_eq!(image::payload(&manifest), ours.as_bytes());
    }

    #[test]
    fn a_key_file_without_a_key_is_refused() {
        for (file, error) in [
            ("# nobody\n", KeyError::Empty),
            ("\nnonsense\n", KeyError::Line(2)),
            (
                "\n-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
                KeyError::Pem(2),
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                KeyError::Pem(1),
            ),
        ] {
            assert_eq!(Trust::parse(file).unwrap_err(), error, "{file}");
        }
        assert!(Signatory::parse("short").is_err());
        let encrypted = "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n";
        assert_eq!(
            Signatory::parse(encrypted).unwrap_err(),
            KeyError::Encrypted
        );
    }
}
