//! What a policy comes as: a component with its signature beside it, or an image with both in it.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use frontend_policy::Upload;
use frontend_policy::admission::signature_path;
use serde::Deserialize;

use super::image::{Image, ImageError};
use crate::cli::Config;

/// A policy as it is pushed.
#[derive(Debug)]
pub struct Package {
    pub component: Bytes,
    /// What it is signed with, in the form that the admin API takes.
    pub signature: Option<String>,
    /// What it is to be configured with; empty without a configuration.
    pub config: Bytes,
}

/// Why a file cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// It is an image, and not a sound one of a component.
    #[error("{}: {source}", path.display())]
    Image { path: PathBuf, source: ImageError },
    /// What lies beside a component has no signature in it.
    #[error("{}: it is a bundle without a signature of a file, as cosign makes one of an image", .0.display())]
    Bundle(PathBuf),
}

impl Package {
    /// Reads a component, with the signature beside it where there is one, or an image: a tar or a
    /// directory.
    pub fn open(path: &Path) -> Result<Self, PackageError> {
        match open_image(path)? {
            Some(image) => Ok(Self {
                signature: image.signature(),
                component: image.component.into(),
                config: image.configuration.unwrap_or_default().into(),
            }),
            None => Ok(Self {
                signature: signature_beside(path)?,
                ..Self::of(read(path)?)
            }),
        }
    }

    /// These bytes alone.
    pub fn of(component: impl Into<Bytes>) -> Self {
        Self {
            component: component.into(),
            signature: None,
            config: Bytes::new(),
        }
    }

    /// With the configuration in a file, where one is named, instead of its own.
    pub fn with_config(self, config: &Config) -> Result<Self, PackageError> {
        match &config.config {
            None => Ok(self),
            Some(file) => Ok(Self {
                config: read(file)?.into(),
                ..self
            }),
        }
    }

    /// To have it checked here.
    pub fn upload(&self) -> Upload<'_> {
        Upload {
            component: &self.component,
            signature: self.signature.as_deref(),
            config: &self.config,
        }
    }
}

/// The image at a path. None where it is a file of another kind.
pub fn open_image(path: &Path) -> Result<Option<Image>, PackageError> {
    Image::open(path).map_err(|source| PackageError::Image {
        path: path.to_owned(),
        source,
    })
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>, PackageError> {
    std::fs::read(path).map_err(|source| PackageError::File {
        path: path.to_owned(),
        source,
    })
}

/// The signature beside a component: `FILE.sig`, or else what cosign calls a bundle, by the name that
/// its documents give it.
pub fn signature_beside(component: &Path) -> Result<Option<String>, PackageError> {
    let mut bundle = component.as_os_str().to_owned();
    bundle.push(".sigstore.json");
    for path in [signature_path(component), bundle.into()] {
        if path.exists() {
            return read_signature(&path).map(Some);
        }
    }
    Ok(None)
}

/// A bundle of cosign's, as far as it is looked at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    message_signature: MessageSignature,
}

#[derive(Debug, Deserialize)]
struct MessageSignature {
    signature: String,
}

/// A detached signature, as a header has it: tools break lines of base64, and cosign has it in a bundle.
pub fn read_signature(path: &Path) -> Result<String, PackageError> {
    let contents = read(path)?;
    let text = String::from_utf8_lossy(&contents);
    if !text.trim_start().starts_with('{') {
        return Ok(text.split_whitespace().collect());
    }
    let bundle: Bundle =
        serde_json::from_str(&text).map_err(|_| PackageError::Bundle(path.to_owned()))?;
    Ok(bundle.message_signature.signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_signature_beside_a_component_is_text_or_a_bundle() {
        let dir = tempfile::tempdir().unwrap();
        let component = dir.path().join("policy.wasm");
        let signature = || signature_beside(&component);
        assert_eq!(signature().unwrap(), None);
        // As `cosign sign-blob --key KEY --bundle FILE` writes it.
        let bundle = r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"aGludA=="}},"messageSignature":{"messageDigest":{"algorithm":"SHA2_256","digest":"ZGlnZXN0"},"signature":"c2lnbmF0dXJl"}}"#;
        fs::write(dir.path().join("policy.wasm.sigstore.json"), bundle).unwrap();
        assert_eq!(signature().unwrap().as_deref(), Some("c2lnbmF0dXJl"));
        let of_image = bundle.replace("messageSignature", "dsseEnvelope");
        fs::write(dir.path().join("policy.wasm.sigstore.json"), of_image).unwrap();
        assert!(matches!(signature(), Err(PackageError::Bundle(_))));
        fs::write(dir.path().join("policy.wasm.sig"), "c2ln\nbmF0\n dXJl\n").unwrap();
        assert_eq!(signature().unwrap().as_deref(), Some("c2lnbmF0dXJl"));
    }
}
