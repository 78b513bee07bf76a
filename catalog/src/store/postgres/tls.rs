//! TLS to the database, and who is believed to be it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio_postgres_rustls_improved::MakeRustlsConnect;

use super::error::PostgresError;

/// Makes connections that are encrypted. Clones are of one.
///
/// The file of authorities is read for each: a catalog that stands by may be connected again after months, and has to
/// believe then whom the file names by then.
#[derive(Clone)]
pub(super) struct Connector(Arc<Inner>);

struct Inner {
    verification: Verification,
    last: Mutex<Last>,
}

/// What did at last.
struct Last {
    made: MakeRustlsConnect,
    /// Why the file did not since, as the log has it.
    problem: Option<String>,
}

impl Connector {
    /// # Errors
    /// Where the file cannot be used.
    pub(super) fn new(verification: Verification) -> Result<Self, PostgresError> {
        let made = made(&verification)?;
        let problem = None;
        Ok(Self(Arc::new(Inner {
            verification,
            last: Mutex::new(Last { made, problem }),
        })))
    }

    /// For a connection that is made now. Where the file will not do, what it said last stays in force, and the log says so
    /// once. Reads it: not for a thread that serves.
    pub(super) fn now(&self) -> MakeRustlsConnect {
        let made = made(&self.0.verification);
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        match made {
            Ok(made) => {
                *last = Last {
                    made,
                    problem: None,
                }
            }
            Err(error) => {
                let problem = error.to_string();
                if last.problem.as_ref() != Some(&problem) {
                    tracing::error!(%problem, "a file has changed and will not do: what it said before stays in force");
                    last.problem = Some(problem);
                }
            }
        }
        last.made.clone()
    }
}

/// Who is believed to be the server.
#[derive(Debug)]
pub(super) enum Verification {
    /// Whoever answers.
    None,
    /// Whoever has a certificate of one of these, for whatever name.
    Chain(PathBuf),
    /// Whoever has a certificate of one of these, for the host that was asked for.
    Full(PathBuf),
}

fn made(verification: &Verification) -> Result<MakeRustlsConnect, PostgresError> {
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| PostgresError::Url(error.to_string()))?;
    let of_roots = match verification {
        Verification::Full(path) => {
            let config = config.with_root_certificates(roots(path)?);
            return Ok(MakeRustlsConnect::new(config.with_no_client_auth()));
        }
        Verification::Chain(path) => {
            let roots = Arc::new(roots(path)?);
            let of_roots =
                WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(&provider)).build();
            Some(of_roots.map_err(|error| unusable(path, error.to_string()))?)
        }
        Verification::None => None,
    };
    let config = config
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyName { of_roots, provider }));
    Ok(MakeRustlsConnect::new(config.with_no_client_auth()))
}

fn unusable(path: &Path, problem: String) -> PostgresError {
    PostgresError::RootCertificates {
        path: path.to_owned(),
        problem,
    }
}

fn roots(path: &Path) -> Result<RootCertStore, PostgresError> {
    let unusable = |problem: String| unusable(path, problem);
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| unusable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| unusable(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("there is none in it".into()));
    }
    Ok(roots)
}

/// Believes a certificate that one of the roots vouches for, whatever name it has; where there are none, everybody, as
/// libpq does without `verify-…`: against who listens, not against who answers in the server's place.
#[derive(Debug)]
struct AnyName {
    of_roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(of_roots) = &self.of_roots else {
            return Ok(ServerCertVerified::assertion());
        };
        let verified =
            of_roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verified {
            // The name is looked at last, once all else is found good.
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
