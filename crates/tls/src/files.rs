//! Certificates and keys, as they are read from disk: in PEM.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemon::watched::{Contents, Unread};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use crate::principal::{Expected, NoPrincipal, Principal};

/// Where the certificates and the key of a service are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Certificates of the authorities that are believed.
    pub authorities: PathBuf,
    /// Its own certificate, with those between it and the authority behind it.
    pub certificate: PathBuf,
    /// The key to it.
    pub key: PathBuf,
}

/// Why certificates or keys will not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error(transparent)]
    Unread(#[from] Unread),
    /// It is not what it should be.
    #[error("{} {problem}", path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// The certificate does not say who the service is.
    #[error("{}: {problem}", path.display())]
    NoPrincipal {
        /// Of the certificate.
        path: PathBuf,
        /// What is wrong with it.
        problem: NoPrincipal,
    },
    /// It is somebody else's.
    #[error("the certificate in {} is {principal}'s: this service needs one of {expected}", path.display())]
    OtherPrincipal {
        /// Of the certificate.
        path: PathBuf,
        /// Whose it is.
        principal: Principal,
        /// Whose it is to be.
        expected: Expected,
    },
    /// This machine has no certificates of authorities, and none were named.
    #[error("no authority is believed: name the file of one's certificate with --ca ({0})")]
    NoAuthorities(String),
}

impl Error {
    pub(crate) fn unusable(path: &Path, problem: impl ToString) -> Self {
        Self::Unusable {
            path: path.to_owned(),
            problem: problem.to_string(),
        }
    }
}

/// What is read out of a file.
pub(crate) trait Pem {
    /// The certificates in it, of which there is at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error>;

    /// The authorities whose certificates are in it.
    fn authorities(&self) -> Result<Arc<RootCertStore>, Error>;

    /// The first private key in it.
    fn key(&self) -> Result<PrivateKeyDer<'static>, Error>;
}

impl Pem for Contents {
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, Error> {
        let certificates =
            CertificateDer::pem_slice_iter(&self.bytes).collect::<Result<Vec<_>, _>>();
        let certificates = certificates
            .map_err(|error| Error::unusable(&self.path, format!("is not PEM: {error}")))?;
        match certificates.is_empty() {
            true => Err(Error::unusable(&self.path, "has no certificate in it")),
            false => Ok(certificates),
        }
    }

    fn authorities(&self) -> Result<Arc<RootCertStore>, Error> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates()? {
            let added = roots.add(certificate);
            added.map_err(|error| {
                Error::unusable(
                    &self.path,
                    format!("has a certificate that will not do: {error}"),
                )
            })?;
        }
        Ok(Arc::new(roots))
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_slice(&self.bytes).map_err(|error| {
            Error::unusable(&self.path, format!("has no private key in it: {error}"))
        })
    }
}

/// A certificate and the key to it, which belong together.
pub(crate) fn certified(
    certificate: &Contents,
    key: &Contents,
) -> Result<Arc<CertifiedKey>, Error> {
    let chain = certificate.certificates()?;
    let certified = CertifiedKey::from_der(chain, key.key()?, &crate::provider());
    certified.map(Arc::new).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => Error::unusable(
            &key.path,
            format!(
                "is not the key to the certificate in {}",
                certificate.path.display()
            ),
        ),
        error => Error::unusable(
            &certificate.path,
            format!(
                "will not do with the key in {}: {error}",
                key.path.display()
            ),
        ),
    })
}
