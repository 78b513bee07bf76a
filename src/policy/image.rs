//! Policies as OCI images, in files: what `pack` writes, and what every command that takes a
//! component reads as well.
//!
//! - here: an image of a component ([Wasm OCI artifact](https://tag-runtime.cncf.io/wgs/wasm/deliverables/wasm-oci-artifact/)),
//!   and cosign's signatures of it;
//! - `layout`: the files of it, a directory or a tar.
//!
//! A policy's own configuration, where there is one, is in the image's configuration, whose format
//! has room for more, since such an image has one layer and no other.

mod layout;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use frontend_policy::admission::oci::{Descriptor, MANIFEST, Manifest, WASM_CONFIG, WASM_LAYER};
use frontend_policy::admission::signature::image::{
    ImageSignature, PAYLOAD, is_payload_of, payload,
};
use frontend_policy::admission::signature::{SIGNATURES_BYTES_MAX, SIGNATURES_MAX, Signatory};
use frontend_policy::limits::COMPONENT_BYTES_MAX;
use serde::{Deserialize, Serialize};
use wasmparser::{Parser, Payload};

use layout::{INDEX, JSON_BYTES_MAX, Layout, LayoutWriter};

pub use layout::LayoutError;

/// Says in cosign's layouts what a manifest is, and how.
const KIND: &str = "kind";
const KIND_IMAGE: &str = "dev.cosignproject.cosign/image";
const KIND_PREFIX: &str = "dev.cosignproject.cosign/";
const KIND_SIGNATURES: &str = "dev.cosignproject.cosign/sigs";

/// A manifest's name in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The name of the image, for tools that want one.
const TAG: &str = "latest";

/// How the name of the manifest with cosign's signatures ends.
const SIGNATURES_TAG_END: &str = ".sig";

/// Where cosign has a signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// Where a component's detached signature is in an image.
const DETACHED_SIGNATURE: &str = "bazaar.policy.signature";

/// Media type of the configuration of an image of signatures.
const IMAGE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// When images were made, by what they say: the same for all, so that the same component makes the same
/// image.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// Largest payload that is signed, in bytes.
const PAYLOAD_BYTES_MAX: u64 = 16 << 10;

/// Why there is no image, or nothing to take out of one.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It names no image.
    #[error("it has no image in it")]
    Empty,
    /// It names several images.
    #[error("it has several images in it, and which one is meant is not said: {0}")]
    Several(String),
    /// It is for several platforms.
    #[error("it names an index of images, as those for several platforms do, and not an image")]
    Nested,
    /// What it names is of another kind.
    #[error("it names {0:?}, which is no image")]
    NoImage(String),
    /// Its manifest is not that of a component.
    #[error("its manifest {0}")]
    Manifest(String),
    /// Its configuration is not that of a component.
    #[error("its configuration {0}")]
    Config(String),
    /// Its signatures are not cosign's.
    #[error("its signatures {0}")]
    Signatures(String),
    /// What should be packed is no component.
    #[error("it is not a WebAssembly component: {0}")]
    NotAComponent(String),
}

/// A component as an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    pub component: Vec<u8>,
    /// The policy's configuration.
    pub configuration: Option<Vec<u8>>,
    /// A detached signature of the component.
    pub detached_signature: Option<String>,
    /// Cosign's signatures of the image.
    pub signatures: Vec<ImageSignature>,
    manifest: Vec<u8>,
    config: Vec<u8>,
}

/// The configuration of an image of a component.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WasmConfig {
    #[serde(default)]
    created: Option<String>,
    architecture: String,
    os: String,
    layer_digests: Vec<String>,
    #[serde(default)]
    component: Option<Component>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bazaar: Option<Extension>,
}

/// What a component imports and exports.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Component {
    #[serde(default)]
    exports: Vec<String>,
    #[serde(default)]
    imports: Vec<String>,
}

/// What Bazaar adds to it.
#[derive(Debug, Serialize, Deserialize)]
struct Extension {
    /// The policy's configuration, in base64.
    configuration: String,
}

impl Image {
    /// Makes an image of a component.
    pub fn pack(
        component: Vec<u8>,
        configuration: Option<Vec<u8>>,
        detached_signature: Option<String>,
    ) -> Result<Self, ImageError> {
        let mut layer = Descriptor::of(WASM_LAYER, &component);
        let config = WasmConfig {
            created: Some(CREATED.to_owned()),
            architecture: "wasm".to_owned(),
            os: "wasip2".to_owned(),
            layer_digests: vec![layer.digest.to_string()],
            component: Some(describe(&component).map_err(ImageError::NotAComponent)?),
            bazaar: configuration.as_ref().map(|configuration| Extension {
                configuration: BASE64.encode(configuration),
            }),
        };
        let config = serde_json::to_vec(&config).expect("strings are JSON");
        if let Some(signature) = &detached_signature {
            let name = DETACHED_SIGNATURE.to_owned();
            layer.annotations.insert(name, signature.clone());
        }
        let manifest = Manifest::new(Descriptor::of(WASM_CONFIG, &config), vec![layer]);
        Ok(Self {
            component,
            configuration,
            detached_signature,
            signatures: Vec::new(),
            manifest: serde_json::to_vec(&manifest).expect("strings are JSON"),
            config,
        })
    }

    /// Reads the image at a path, a tar or a directory. None where it is a file of another kind.
    ///
    /// # Errors
    /// Where it is an image, and not a sound one of a component.
    pub fn open(path: &Path) -> Result<Option<Self>, ImageError> {
        let Some(layout) = Layout::open(path)? else {
            return Ok(None);
        };
        let manifest = layout.blob(the_image(&layout.manifests)?, JSON_BYTES_MAX)?;
        let (named, layer) = Manifest::parse_component(&manifest).map_err(ImageError::Manifest)?;
        let config = layout.blob(&named.config, JSON_BYTES_MAX)?;
        let component = layout.blob(&layer, COMPONENT_BYTES_MAX as u64)?;
        let configuration = configuration(&config, &layer).map_err(ImageError::Config)?;
        let mut signatures = Vec::new();
        for named in layout.manifests.iter().filter(|it| is_signatures(it)) {
            signatures.extend(read_signatures(&layout, named, &manifest)?);
        }
        let image = Self {
            component,
            configuration,
            detached_signature: layer.annotations.get(DETACHED_SIGNATURE).cloned(),
            signatures,
            manifest,
            config,
        };
        image.check_signatures()?;
        Ok(Some(image))
    }

    /// Makes sure that a gateway looks at all of its signatures.
    fn check_signatures(&self) -> Result<(), ImageError> {
        let number = self.signatures.len() + usize::from(self.detached_signature.is_some());
        let bytes = self.signature().map_or(0, |signature| signature.len());
        let problem = if number > SIGNATURES_MAX {
            format!("are {number}, and a gateway looks at {SIGNATURES_MAX} at most")
        } else if bytes > SIGNATURES_BYTES_MAX {
            format!(
                "have {bytes} bytes with the manifest, and a gateway takes {SIGNATURES_BYTES_MAX} at most"
            )
        } else {
            return Ok(());
        };
        Err(ImageError::Signatures(problem))
    }

    /// Signs it, as `cosign sign` does.
    pub fn sign(&mut self, signatory: &Signatory) {
        let payload = payload(&self.manifest);
        let signature = BASE64.decode(signatory.sign(&payload));
        let signature = ImageSignature {
            signature: signature.expect("a signature is in base64"),
            payload,
            manifest: self.manifest.clone(),
        };
        if !self.signatures.contains(&signature) {
            self.signatures.push(signature);
        }
    }

    /// All that it is signed with, as a gateway takes it. None where there is nothing.
    pub fn signature(&self) -> Option<String> {
        let detached = self.detached_signature.iter().cloned();
        let of_image = self.signatures.iter().map(ImageSignature::to_string);
        let all: Vec<_> = detached.chain(of_image).collect();
        Some(all.join(",")).filter(|all| !all.is_empty())
    }

    /// The tar that it is as a file.
    pub fn to_tar(&self) -> std::io::Result<Vec<u8>> {
        let mut layout = LayoutWriter::default();
        layout.add(WASM_LAYER, self.component.clone());
        layout.add(WASM_CONFIG, self.config.clone());
        let mut image = layout.add(MANIFEST, self.manifest.clone());
        let tag = format!("sha256-{}{SIGNATURES_TAG_END}", image.digest.hex());
        image.annotations = annotations(KIND_IMAGE, TAG);
        layout.name(image);
        if !self.signatures.is_empty() {
            let mut signatures = self.add_signatures(&mut layout);
            signatures.annotations = annotations(KIND_SIGNATURES, &tag);
            layout.name(signatures);
        }
        layout.into_tar()
    }

    /// Adds the image that cosign has signatures in.
    fn add_signatures(&self, layout: &mut LayoutWriter) -> Descriptor {
        let mut layers = Vec::new();
        for signature in &self.signatures {
            let mut layer = layout.add(PAYLOAD, signature.payload.clone());
            let text = BASE64.encode(&signature.signature);
            layer.annotations.insert(SIGNATURE.to_owned(), text);
            layers.push(layer);
        }
        let payloads: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
        let history = vec![serde_json::json!({ "created": CREATED }); layers.len()];
        let config = serde_json::json!({
            "architecture": "",
            "config": {},
            "created": CREATED,
            "history": history,
            "os": "",
            "rootfs": { "type": "layers", "diff_ids": payloads },
        });
        let config = layout.add(IMAGE_CONFIG, config.to_string().into_bytes());
        let manifest = serde_json::to_vec(&Manifest::new(config, layers));
        layout.add(MANIFEST, manifest.expect("strings are JSON"))
    }

    /// The digest by which registries know it.
    pub fn digest(&self) -> String {
        Descriptor::of(MANIFEST, &self.manifest).digest.to_string()
    }
}

fn annotations(kind: &str, name: &str) -> BTreeMap<String, String> {
    [(KIND, kind), (REF_NAME, name)]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}

/// The one manifest that is not cosign's.
fn the_image(manifests: &[Descriptor]) -> Result<&Descriptor, ImageError> {
    let is_cosigns = |named: &&Descriptor| {
        let kind = named.annotations.get(KIND);
        is_signatures(named)
            || kind.is_some_and(|kind| kind.starts_with(KIND_PREFIX) && kind != KIND_IMAGE)
    };
    let images: Vec<_> = manifests.iter().filter(|it| !is_cosigns(it)).collect();
    match images.as_slice() {
        [] => Err(ImageError::Empty),
        [image] if image.media_type == MANIFEST => Ok(image),
        [index] if index.media_type == INDEX => Err(ImageError::Nested),
        [other] => Err(ImageError::NoImage(other.media_type.clone())),
        several => {
            let digests: Vec<_> = several.iter().map(|it| it.digest.to_string()).collect();
            Err(ImageError::Several(digests.join(", ")))
        }
    }
}

/// Whether a manifest has cosign's signatures: by cosign's own word for it, or by the tag that it has
/// in a registry.
fn is_signatures(named: &Descriptor) -> bool {
    let annotation = |name| named.annotations.get(name).map(String::as_str);
    let by_tag = || {
        let tag = annotation(REF_NAME)?.strip_prefix("sha256-")?;
        tag.strip_suffix(SIGNATURES_TAG_END)
    };
    annotation(KIND) == Some(KIND_SIGNATURES) || by_tag().is_some()
}

/// The signatures that an image of cosign's has, which must be of this image.
fn read_signatures(
    layout: &Layout,
    named: &Descriptor,
    manifest: &[u8],
) -> Result<Vec<ImageSignature>, ImageError> {
    let wrong = |problem: &str| ImageError::Signatures(problem.to_owned());
    let json = layout.blob(named, JSON_BYTES_MAX)?;
    let signatures: Manifest =
        serde_json::from_slice(&json).map_err(|_| wrong("are not in an OCI image"))?;
    layout.blob(&signatures.config, JSON_BYTES_MAX)?;
    let mut read = Vec::new();
    for layer in &signatures.layers {
        if layer.media_type != PAYLOAD {
            let problem = format!("are of {:?}, and not of cosign's kind", layer.media_type);
            return Err(ImageError::Signatures(problem));
        }
        let signature = layer.annotations.get(SIGNATURE);
        let signature = signature.and_then(|text| BASE64.decode(text).ok());
        let signature = signature.ok_or_else(|| wrong("are not in base64"))?;
        let payload = layout.blob(layer, PAYLOAD_BYTES_MAX)?;
        if !is_payload_of(&payload, manifest) {
            return Err(wrong("are of another image"));
        }
        read.push(ImageSignature {
            signature,
            payload,
            manifest: manifest.to_owned(),
        });
    }
    Ok(read)
}

/// The policy's configuration in that of the image, which must be of the component.
fn configuration(config: &[u8], layer: &Descriptor) -> Result<Option<Vec<u8>>, String> {
    let config: WasmConfig = serde_json::from_slice(config)
        .map_err(|error| format!("is not that of a Wasm OCI artifact: {error}"))?;
    if config.layer_digests != [layer.digest.to_string()] {
        return Err("is of another component".to_owned());
    }
    let encoded = config.bazaar.map(|extension| extension.configuration);
    let decoded = encoded.map(|text| BASE64.decode(text)).transpose();
    decoded.map_err(|_| "has a policy's configuration that is not in base64".to_owned())
}

/// What a component imports and exports.
fn describe(component: &[u8]) -> Result<Component, String> {
    if !Parser::is_component(component) {
        return Err("it does not begin as one".to_owned());
    }
    let mut described = Component::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| error.to_string())? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let import = import.map_err(|error| error.to_string())?;
                    described.imports.push(import.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    let export = export.map_err(|error| error.to_string())?;
                    described.exports.push(export.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(described)
}

#[cfg(test)]
mod tests;
