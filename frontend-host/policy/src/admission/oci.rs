//! What is read and written of OCI images: a component as a
//! [Wasm OCI artifact](https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/) has a
//! manifest, which names one layer, the component, and a configuration of the image.
//!
//! Unknown fields are passed over, as the specification wants it.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use domain::Hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Media type of an image's manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Media type of the configuration of an image that is a component.
pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";

/// Media type of a component.
pub const WASM_LAYER: &str = "application/wasm";

/// The version of manifests and indexes that there is.
pub const SCHEMA_VERSION: u32 = 2;

/// Says what a blob is, and names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    pub digest: ImageDigest,
    /// Its length in bytes.
    pub size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Describes a blob.
    pub fn of(media_type: &str, blob: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: ImageDigest::of(blob),
            size: blob.len() as u64,
            annotations: BTreeMap::new(),
        }
    }

    /// Whether it is these bytes that it names.
    pub fn names(&self, blob: &[u8]) -> bool {
        self.size == blob.len() as u64 && self.digest == ImageDigest::of(blob)
    }
}

/// What an image is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// The manifest of these.
    pub fn new(config: Descriptor, layers: Vec<Descriptor>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            media_type: Some(MANIFEST.to_owned()),
            config,
            layers,
        }
    }

    /// Reads one that is a component's, and says which it is.
    ///
    /// # Errors
    /// In words that go on after "its manifest": what it is instead.
    pub fn parse_component(json: &[u8]) -> Result<(Self, Descriptor), String> {
        let manifest: Self = serde_json::from_slice(json)
            .map_err(|error| format!("is not one of an OCI image: {error}"))?;
        if manifest.schema_version != SCHEMA_VERSION {
            let version = manifest.schema_version;
            return Err(format!(
                "is of schema version {version}, not {SCHEMA_VERSION}"
            ));
        }
        if manifest.config.media_type != WASM_CONFIG {
            let found = &manifest.config.media_type;
            return Err(format!(
                "is not that of a component: its configuration is {found:?}, not {WASM_CONFIG:?}"
            ));
        }
        let [layer] = manifest.layers.as_slice() else {
            let layers = manifest.layers.len();
            return Err(format!("has {layers} layers, and a component's has one"));
        };
        if layer.media_type != WASM_LAYER {
            let found = &layer.media_type;
            return Err(format!("has a layer of {found:?}, not {WASM_LAYER:?}"));
        }
        let layer = layer.clone();
        Ok((manifest, layer))
    }
}

/// The digest of a blob: SHA-256, the only algorithm that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageDigest([u8; 32]);

impl ImageDigest {
    pub fn of(blob: &[u8]) -> Self {
        Self(Sha256::digest(blob).into())
    }

    /// In hexadecimal: the blob's name in a layout.
    pub fn hex(&self) -> String {
        Hex(&self.0).to_string()
    }
}

impl fmt::Display for ImageDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", Hex(&self.0))
    }
}

impl FromStr for ImageDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digest = text.strip_prefix("sha256:").and_then(|digits| {
            let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
            let digits = digits.as_bytes();
            if digits.len() != 64 || !digits.iter().copied().all(is_digit) {
                return None;
            }
            let mut bytes = [0; 32];
            for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
                let pair = std::str::from_utf8(pair).ok()?;
                *byte = u8::from_str_radix(pair, 16).ok()?;
            }
            Some(Self(bytes))
        });
        digest.ok_or_else(|| format!("{text:?} is not a digest such as sha256:<64 digits>"))
    }
}

impl TryFrom<String> for ImageDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ImageDigest> for String {
    fn from(digest: ImageDigest) -> Self {
        digest.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_digits_of_sha256() {
        let digest = ImageDigest::of(b"");
        let text = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        for wrong in [
            "",
            "sha256:",
            "sha512:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855",
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b85",
            "sha256:../../../../../../../../../../../../../../../../../../../etc/passwd0",
            "sha256:+3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        ] {
            assert!(wrong.parse::<ImageDigest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_manifest_is_a_component_s_or_says_what_it_is() {
        let component = Descriptor::of(WASM_LAYER, b"component");
        let config = Descriptor::of(WASM_CONFIG, b"{}");
        let parse =
            |manifest: &Manifest| Manifest::parse_component(&serde_json::to_vec(manifest).unwrap());
        let sound = Manifest::new(config.clone(), vec![component.clone()]);
        assert_eq!(parse(&sound), Ok((sound.clone(), component.clone())));
        let other = |media_type: &str| Descriptor::of(media_type, b"");
        for (wrong, said) in [
            (
                Manifest::new(other("application/json"), vec![component.clone()]),
                "configuration",
            ),
            (Manifest::new(config.clone(), vec![]), "0 layers"),
            (
                Manifest::new(config.clone(), vec![component.clone(), component.clone()]),
                "2 layers",
            ),
            (
                Manifest::new(config.clone(), vec![other("application/gzip")]),
                "application/gzip",
            ),
            (
                Manifest {
                    schema_version: 1,
                    ..sound.clone()
                },
                "version 1",
            ),
        ] {
            let problem = parse(&wrong).unwrap_err();
            assert!(problem.contains(said), "{problem}");
        }
        assert!(Manifest::parse_component(b"[]").is_err());
    }
}
