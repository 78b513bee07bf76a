//! `bazaar policy keygen` and `sign`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use daemon::atomic_file;
use frontend_policy::admission::{KeyError, KeyKind, Signatory, signature_path};

use super::package::{PackageError, open_image};

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// The file does not hold a key.
    #[error("{}: {source}", path.display())]
    Key { path: PathBuf, source: KeyError },
    /// The system gives no random bytes.
    #[error("cannot get random bytes for a key: {0}")]
    Randomness(#[from] getrandom::Error),
    /// What should be signed cannot be taken.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The image is a directory.
    #[error("{}: only an image in a tar can be signed here: `tar -cf image.tar -C {} .`", .0.display(), .0.display())]
    Directory(PathBuf),
}

/// Makes a secret key that only this user can read; returns what belongs into a key file.
pub fn keygen(file: &Path, kind: KeyKind) -> Result<String, SignError> {
    let key = Signatory::generate(kind)?;
    let write = || {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(file)?;
        writeln!(file, "{}", key.secret())
    };
    write().map_err(failed(file))?;
    Ok(format!("{}\n", key.public()))
}

/// Signs a component or an image; returns where the signature is.
pub fn sign(file: &Path, key: &Path) -> Result<String, SignError> {
    let signatory = read_key(key)?;
    let (signed, contents) = match open_image(file)? {
        Some(_) if file.is_dir() => return Err(SignError::Directory(file.to_owned())),
        Some(mut image) => {
            image.sign(&signatory);
            (file.to_owned(), image.to_tar().map_err(failed(file))?)
        }
        None => {
            let component = fs::read(file).map_err(failed(file))?;
            let line = signatory.sign(&component) + "\n";
            (signature_path(file), line.into_bytes())
        }
    };
    atomic_file::write(&signed, &contents).map_err(failed(&signed))?;
    Ok(format!("{}\n", signed.display()))
}

/// Reads a secret key.
pub fn read_key(key: &Path) -> Result<Signatory, SignError> {
    let secret = fs::read_to_string(key).map_err(failed(key))?;
    Signatory::parse(&secret).map_err(|source| SignError::Key {
        path: key.to_owned(),
        source,
    })
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SignError {
    let path = path.to_owned();
    move |source| SignError::File { path, source }
}
