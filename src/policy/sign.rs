//! `bazaar policy keygen` and `sign`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use daemon::atomic_file;
use frontend_policy::admission::{KeyError, KeyKind, Signatory, signature_path};

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
}

/// Makes a secret key that only this user can read; returns the line for a key file.
pub fn keygen(file: &Path) -> Result<String, SignError> {
    let key = Signatory::generate(KeyKind::Ed25519)?;
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

/// Signs a component; returns where the signature is.
pub fn sign(file: &Path, key: &Path) -> Result<String, SignError> {
    let secret = fs::read_to_string(key).map_err(failed(key))?;
    let signatory = Signatory::parse(&secret).map_err(|source| SignError::Key {
        path: key.to_owned(),
        source,
    })?;
    let component = fs::read(file).map_err(failed(file))?;
    let signature = signature_path(file);
    let line = signatory.sign(&component) + "\n";
    atomic_file::write(&signature, line.as_bytes()).map_err(failed(&signature))?;
    Ok(format!("{}\n", signature.display()))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SignError {
    let path = path.to_owned();
    move |source| SignError::File { path, source }
}
