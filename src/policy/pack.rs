//! `bazaar policy pack`: a component as an OCI image, in a file.

use std::io;
use std::path::PathBuf;

use daemon::atomic_file;

use super::image::{Image, ImageError};
use super::package::{PackageError, open_image, read, read_signature, signature_beside};
use super::sign::{SignError, read_key};
use crate::cli;

/// Why nothing was packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    #[error(transparent)]
    Package(#[from] PackageError),
    /// What should be packed is an image.
    #[error("{}: it is an image already", .0.display())]
    Packed(PathBuf),
    /// It cannot be an image.
    #[error("{}: {source}", path.display())]
    Image { path: PathBuf, source: ImageError },
    /// There is no key to sign it with.
    #[error(transparent)]
    Sign(#[from] SignError),
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
}

/// Writes the image; returns the digest by which registries know it.
pub fn pack(args: cli::Pack) -> Result<String, PackError> {
    if open_image(&args.file)?.is_some() {
        return Err(PackError::Packed(args.file));
    }
    let signature = match args.signature {
        Some(file) => Some(read_signature(&file)?),
        None => signature_beside(&args.file)?,
    };
    let configuration = args.config.as_deref().map(read).transpose()?;
    let image = Image::pack(read(&args.file)?, configuration, signature);
    let mut image = image.map_err(|source| PackError::Image {
        path: args.file,
        source,
    })?;
    if let Some(key) = args.key {
        image.sign(&read_key(&key)?);
    }
    let written = image
        .to_tar()
        .and_then(|tar| atomic_file::write(&args.output, &tar));
    match written {
        Ok(()) => Ok(format!("{}: {}\n", args.output.display(), image.digest())),
        Err(source) => Err(PackError::Write {
            path: args.output,
            source,
        }),
    }
}
