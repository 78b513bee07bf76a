//! Signatures of images, as [cosign makes them](https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md):
//! of a payload ("simple signing") that names an image's manifest, which names the component.
//!
//! All three travel as one text, `image:SIGNATURE:PAYLOAD:MANIFEST`, each in base64, so that they
//! go wherever a detached signature does.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::key::PublicKey;
use crate::admission::oci::{ImageDigest, Manifest};

/// Media type of the payload.
pub const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// What a payload says that it is.
const TYPE: &str = "cosign container image signature";

const PREFIX: &str = "image:";

/// A signature of an image, with what lies between it and the component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageSignature {
    pub signature: Vec<u8>,
    /// What was signed.
    pub payload: Vec<u8>,
    /// The image's manifest.
    pub manifest: Vec<u8>,
}

/// What a signature of an image is of.
#[derive(Debug, Serialize, Deserialize)]
struct Payload {
    critical: Critical,
    /// Claims of whoever signed, which nobody here reads.
    #[serde(default)]
    optional: Option<serde_json::Value>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Critical {
    identity: Identity,
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

/// Where the image was when it was signed. Not a part of what is checked, by cosign's specification.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Identity {
    docker_reference: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Image {
    docker_manifest_digest: ImageDigest,
}

/// The payload to sign for the image with this manifest.
pub fn payload(manifest: &[u8]) -> Vec<u8> {
    let payload = Payload {
        critical: Critical {
            identity: Identity {
                docker_reference: String::new(),
            },
            image: Image {
                docker_manifest_digest: ImageDigest::of(manifest),
            },
            kind: TYPE.to_owned(),
        },
        optional: None,
    };
    serde_json::to_vec(&payload).expect("strings are JSON")
}

/// Whether a payload is one for the image with this manifest.
pub fn is_payload_of(payload: &[u8], manifest: &[u8]) -> bool {
    serde_json::from_slice::<Payload>(payload).is_ok_and(|payload| {
        payload.critical.kind == TYPE
            && payload.critical.image.docker_manifest_digest == ImageDigest::of(manifest)
    })
}

impl ImageSignature {
    /// None where the text is another signature's.
    pub(super) fn parse(text: &str) -> Option<Option<Self>> {
        let mut parts = text.strip_prefix(PREFIX)?.split(':');
        let mut part = || BASE64.decode(parts.next()?).ok();
        let parsed = (|| {
            Some(Self {
                signature: part()?,
                payload: part()?,
                manifest: part()?,
            })
        })();
        Some(parsed.filter(|_| parts.next().is_none()))
    }

    /// Whether a key made it. None where it is not a signature of the key's kind.
    pub(super) fn is_by(&self, key: &PublicKey) -> Option<bool> {
        key.verify(&self.payload, &self.signature)
    }

    /// Whether it is of an image of this component.
    pub(super) fn is_of(&self, component: &[u8]) -> bool {
        is_payload_of(&self.payload, &self.manifest)
            && Manifest::parse_component(&self.manifest)
                .is_ok_and(|(_, layer)| layer.names(component))
    }
}

impl fmt::Display for ImageSignature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [signature, payload, manifest] =
            [&self.signature, &self.payload, &self.manifest].map(|part| BASE64.encode(part));
        write!(f, "{PREFIX}{signature}:{payload}:{manifest}")
    }
}
