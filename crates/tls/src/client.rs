//! TLS of clients and operators to a gateway.

use std::path::Path;
use std::sync::Arc;

use daemon::watched::Contents;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::cluster::Expecting;
use crate::files::{Error, Pem as _, certified};

/// What a client believes and shows: the authorities in a file, or else this machine's, and a certificate of its own
/// with the key to it.
///
/// # Errors
/// Where a file cannot be read or used, and where no authority is believed.
pub fn config(
    authorities: Option<&Path>,
    own: Option<(&Path, &Path)>,
) -> Result<Arc<ClientConfig>, Error> {
    let authorities = match authorities {
        Some(path) => Contents::read(path)?.authorities()?,
        None => machines()?,
    };
    let chain = WebPkiServerVerifier::builder_with_provider(authorities, crate::provider());
    let chain = chain
        .build()
        .map_err(|error| Error::NoAuthorities(error.to_string()))?;
    let config = ClientConfig::builder_with_provider(crate::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Expecting::gateway(chain)));
    let config = match own {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let own = certified(&Contents::read(certificate)?, &Contents::read(key)?)?;
            let own = rustls::sign::SingleCertAndKey::from(own);
            config.with_client_cert_resolver(Arc::new(own))
        }
    };
    Ok(Arc::new(config))
}

/// Believes the authorities in a file, or else this machine's, of a server that is none of Bazaar's.
///
/// # Errors
/// Where the file cannot be read or used, and where no authority is believed.
pub fn of_others(authorities: Option<&Path>) -> Result<Arc<ClientConfig>, Error> {
    let authorities = match authorities {
        Some(path) => Contents::read(path)?.authorities()?,
        None => machines()?,
    };
    let config = ClientConfig::builder_with_provider(crate::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_root_certificates(authorities);
    Ok(Arc::new(config.with_no_client_auth()))
}

/// Believes nobody: for what is not encrypted.
pub fn nobody() -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(crate::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .with_root_certificates(RootCertStore::empty());
    Arc::new(config.with_no_client_auth())
}

/// Believes whoever has the key to the certificate in a file, under whatever name: for who started that server and
/// gave it the file.
///
/// # Errors
/// Where the file cannot be read.
pub fn pinned(certificate: &Path) -> Result<Arc<ClientConfig>, Error> {
    let certificates = Contents::read(certificate)?.certificates()?;
    let config = ClientConfig::builder_with_provider(crate::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned {
            certificate: certificates[0].clone(),
            provider: crate::provider(),
        }));
    Ok(Arc::new(config.with_no_client_auth()))
}

#[derive(Debug)]
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match *end_entity == self.certificate {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(CertificateError::UnknownIssuer.into()),
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
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// The authorities that this machine believes, or the variable `SSL_CERT_FILE` names.
fn machines() -> Result<Arc<RootCertStore>, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    match roots.is_empty() {
        false => Ok(Arc::new(roots)),
        true => Err(Error::NoAuthorities(found.errors.first().map_or_else(
            || "this machine has none".to_owned(),
            ToString::to_string,
        ))),
    }
}
