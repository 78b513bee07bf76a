//! The files of an [OCI image layout](https://github.com/opencontainers/image-spec/blob/main/image-layout.md):
//! a directory, or a tar of one.
//!
//! Nothing is taken on trust: a tar has bounds, its entries have the names that a layout has, and each
//! blob has the size and the digest by which it is named.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use frontend_policy::admission::oci::{Descriptor, ImageDigest, SCHEMA_VERSION};
use frontend_policy::limits::COMPONENT_BYTES_MAX;
use serde::{Deserialize, Serialize};
use tar::{Archive, EntryType, Header};

/// Media type of an index.
pub(super) const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The file that says that a directory is a layout, and what is in it.
const MARKER: &str = "oci-layout";
const MARKER_VERSION: &str = "1.0.0";

/// The file that names the images.
const INDEX_FILE: &str = "index.json";

/// Where the blobs are.
const BLOBS: &str = "blobs/sha256";

/// Largest file of JSON, in bytes: registries take manifests of 4 MiB.
pub(super) const JSON_BYTES_MAX: u64 = 4 << 20;

/// Largest tar, in bytes: of a component, with room for what says so.
const TAR_BYTES_MAX: u64 = COMPONENT_BYTES_MAX as u64 + (16 << 20);

/// Entries of a tar.
const ENTRIES_MAX: usize = 256;

/// Images, and signatures of them, that an index names.
const MANIFESTS_MAX: usize = 64;

/// How compressed files begin.
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Where a tar says that it is one, and how.
const TAR_MAGIC_AT: usize = 257;
const TAR_MAGIC: &[u8] = b"ustar";

/// Why there is no layout, or not this blob in it.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("it is compressed: unpack it first, with gunzip or unzstd")]
    Compressed,
    #[error("it is larger than the {TAR_BYTES_MAX} bytes that an image may have")]
    TooLarge,
    #[error("it has more than {ENTRIES_MAX} entries, and an image of a policy has about five")]
    TooMany,
    /// An entry of the tar is none of a layout.
    #[error("its entry {name:?} is {problem}")]
    Entry { name: String, problem: &'static str },
    /// The end of the tar is missing.
    #[error("it ends in the middle of {0:?}: it was not copied whole")]
    Truncated(String),
    /// A file that each layout has is not there.
    #[error("it is no OCI image layout: it has no `{0}`")]
    Missing(&'static str),
    #[error("its `{file}` is not one of an OCI image layout: {problem}")]
    Json { file: &'static str, problem: String },
    #[error("it names the blob {0}, and does not have it")]
    NoBlob(ImageDigest),
    #[error("its blob {digest} has {bytes} bytes, and should have {expected}")]
    Size {
        digest: ImageDigest,
        bytes: u64,
        expected: u64,
    },
    #[error("its blob {digest} is damaged: its digest is {found}")]
    Digest {
        digest: ImageDigest,
        found: ImageDigest,
    },
    #[error("its blob {digest} is too large: {bytes} bytes, and {max} are taken")]
    BlobTooLarge {
        digest: ImageDigest,
        bytes: u64,
        max: u64,
    },
}

/// What a layout consists of.
#[derive(Debug)]
pub(super) struct Layout {
    files: Files,
    /// What its index names.
    pub(super) manifests: Vec<Descriptor>,
}

#[derive(Debug)]
enum Files {
    Dir(PathBuf),
    /// By their names.
    Tar(BTreeMap<String, Vec<u8>>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    schema_version: u32,
    #[serde(default)]
    media_type: Option<String>,
    manifests: Vec<Descriptor>,
}

impl Layout {
    /// Reads the layout at a path. None where it is a file of another kind.
    ///
    /// # Errors
    /// Where it is meant to be a layout, and is not a sound one.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, LayoutError> {
        let kind = fs::metadata(path)?;
        let files = if kind.is_dir() {
            Files::Dir(path.to_owned())
        } else if !kind.is_file() {
            // Of a pipe, what is looked at is gone.
            return Ok(None);
        } else {
            let file = File::open(path)?;
            if file.metadata()?.len() > TAR_BYTES_MAX {
                return match is_tar(path)? {
                    true => Err(LayoutError::TooLarge),
                    false => Ok(None),
                };
            }
            match is_tar(path)? {
                true => Files::Tar(entries(file)?),
                false => return Ok(None),
            }
        };
        let marker: Marker = files.json(MARKER)?;
        if marker.image_layout_version != MARKER_VERSION {
            let version = marker.image_layout_version;
            return Err(LayoutError::Json {
                file: MARKER,
                problem: format!("it is of version {version:?}, not {MARKER_VERSION}"),
            });
        }
        let index: Index = files.json(INDEX_FILE)?;
        let problem = if index.schema_version != SCHEMA_VERSION {
            Some(format!("it is of schema version {}", index.schema_version))
        } else if index.manifests.len() > MANIFESTS_MAX {
            Some(format!("it names {} manifests", index.manifests.len()))
        } else {
            None
        };
        match problem {
            Some(problem) => Err(LayoutError::Json {
                file: INDEX_FILE,
                problem,
            }),
            None => Ok(Some(Self {
                files,
                manifests: index.manifests,
            })),
        }
    }

    /// The blob that a descriptor names, of so many bytes at most.
    pub(super) fn blob(&self, named: &Descriptor, max: u64) -> Result<Vec<u8>, LayoutError> {
        let digest = named.digest;
        if named.size > max {
            return Err(LayoutError::BlobTooLarge {
                digest,
                bytes: named.size,
                max,
            });
        }
        let name = format!("{BLOBS}/{}", digest.hex());
        let blob = match &self.files {
            Files::Tar(files) => files.get(&name).cloned(),
            // One byte more than it may have shows that it has more.
            Files::Dir(dir) => read_bounded(&dir.join(&name), named.size + 1)?,
        };
        let blob = blob.ok_or(LayoutError::NoBlob(digest))?;
        if blob.len() as u64 != named.size {
            return Err(LayoutError::Size {
                digest,
                bytes: blob.len() as u64,
                expected: named.size,
            });
        }
        match ImageDigest::of(&blob) {
            found if found == digest => Ok(blob),
            found => Err(LayoutError::Digest { digest, found }),
        }
    }
}

impl Files {
    fn json<T: for<'a> Deserialize<'a>>(&self, file: &'static str) -> Result<T, LayoutError> {
        let contents = match self {
            Self::Tar(files) => files.get(file).cloned(),
            Self::Dir(dir) => read_bounded(&dir.join(file), JSON_BYTES_MAX)?,
        };
        let contents = contents.ok_or(LayoutError::Missing(file))?;
        serde_json::from_slice(&contents).map_err(|error| LayoutError::Json {
            file,
            problem: error.to_string(),
        })
    }
}

/// A file's beginning; none where there is no such file.
fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut contents = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(bytes_max).read_to_end(&mut contents)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(Some(contents))
}

/// Whether a file is a tar; an error where it was one before it was compressed, as it seems.
fn is_tar(path: &Path) -> Result<bool, LayoutError> {
    let mut beginning = Vec::new();
    File::open(path)?
        .take((TAR_MAGIC_AT + TAR_MAGIC.len()) as u64)
        .read_to_end(&mut beginning)?;
    if beginning.starts_with(&GZIP) || beginning.starts_with(&ZSTD) {
        return Err(LayoutError::Compressed);
    }
    Ok(beginning.get(TAR_MAGIC_AT..) == Some(TAR_MAGIC))
}

/// The files of a tar. Its length has a bound, so all together have.
fn entries(tar: File) -> Result<BTreeMap<String, Vec<u8>>, LayoutError> {
    let mut files = BTreeMap::new();
    let mut archive = Archive::new(tar.take(TAR_BYTES_MAX));
    let mut count = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        count += 1;
        if count > ENTRIES_MAX {
            return Err(LayoutError::TooMany);
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let refused = |problem| LayoutError::Entry {
            name: name.clone(),
            problem,
        };
        let plain = plain(&name).ok_or_else(|| refused("not inside the image"))?;
        match entry.header().entry_type() {
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Regular | EntryType::Continuous => {}
            EntryType::Symlink | EntryType::Link => return Err(refused("a link")),
            _ => return Err(refused("neither a file nor a directory")),
        }
        let size = entry.size();
        let mut contents = Vec::new();
        entry.read_to_end(&mut contents)?;
        if contents.len() as u64 != size {
            return Err(LayoutError::Truncated(name));
        }
        if files.insert(plain.to_owned(), contents).is_some() {
            return Err(refused("there twice"));
        }
    }
    Ok(files)
}

/// A path without the dot that some tools begin with. None where it leads elsewhere.
fn plain(name: &str) -> Option<&str> {
    let name = name.strip_prefix("./").unwrap_or(name);
    let is_plain = |part: &str| !matches!(part, "" | "." | "..");
    let path = name.strip_suffix('/').unwrap_or(name);
    (path.is_empty() || path.split('/').all(is_plain)).then_some(name)
}

/// A layout to write, as a tar: the same bytes for the same contents.
#[derive(Debug, Default)]
pub(super) struct LayoutWriter {
    manifests: Vec<Descriptor>,
    blobs: BTreeMap<ImageDigest, Vec<u8>>,
}

impl LayoutWriter {
    /// Adds a blob; returns how a manifest names it.
    pub(super) fn add(&mut self, media_type: &str, blob: Vec<u8>) -> Descriptor {
        let descriptor = Descriptor::of(media_type, &blob);
        self.blobs.insert(descriptor.digest, blob);
        descriptor
    }

    /// Has the index name a manifest.
    pub(super) fn name(&mut self, manifest: Descriptor) {
        self.manifests.push(manifest);
    }

    /// The tar. Whoever made it, and when, is not in it.
    pub(super) fn into_tar(self) -> io::Result<Vec<u8>> {
        let marker = Marker {
            image_layout_version: MARKER_VERSION.to_owned(),
        };
        let index = Index {
            schema_version: SCHEMA_VERSION,
            media_type: Some(INDEX.to_owned()),
            manifests: self.manifests,
        };
        let mut tar = tar::Builder::new(Vec::new());
        let mut append = |name: &str, contents: &[u8]| {
            let mut header = Header::new_ustar();
            header.set_path(name)?;
            header.set_mode(0o644);
            header.set_size(contents.len() as u64);
            header.set_mtime(0);
            header.set_entry_type(EntryType::Regular);
            header.set_cksum();
            tar.append(&header, contents)
        };
        append(MARKER, &serde_json::to_vec(&marker)?)?;
        append(INDEX_FILE, &serde_json::to_vec(&index)?)?;
        for (digest, blob) in &self.blobs {
            append(&format!("{BLOBS}/{}", digest.hex()), blob)?;
        }
        tar.into_inner()
    }
}
