//! Mutual TLS between services: each shows its certificate, and believes those that the cluster's authority signed.

use std::io;
use std::sync::Arc;

use daemon::watched::{Contents, Watched};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_util::either::Either;

use crate::Stream;
use crate::files::{Error, Files, Pem as _, certified};
use crate::identity::{Expected, Identity, NoIdentity};

/// gRPC's protocol, by which a peer that speaks another is refused (RFC 7301).
const ALPN: &[u8] = b"h2";

/// A service's part of a cluster. Clones are of one.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Watched<Material>>);

/// What the files say.
#[derive(Debug)]
struct Material {
    authorities: Arc<RootCertStore>,
    own: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl Cluster {
    /// Reads the files of a service that is to be `own`, now and whenever they change.
    ///
    /// # Errors
    /// Where they cannot be read, do not belong together, or are another's.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn load(files: &Files, own: Expected) -> Result<Self, Error> {
        let Files {
            authorities,
            certificate,
            key,
        } = files.clone();
        let watched = Watched::new(vec![authorities, certificate, key], move |contents| {
            let (material, identity) = Material::of(contents)?;
            match own.is(&identity) {
                true => Ok(material),
                false => Err(Error::OtherIdentity {
                    path: contents[1].path.clone(),
                    identity,
                    expected: own,
                }),
            }
        })?;
        Ok(Self(Arc::new(watched)))
    }

    /// Whom the authorities vouch for, of those that are believed now.
    pub(crate) fn authorities(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0.now().authorities)
    }

    /// Takes a connection: whose it is, is proven then.
    ///
    /// # Errors
    /// Where the peer has no certificate that is believed, or breaks off.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Identity)> {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.0.now().server));
        let stream = acceptor.accept(stream).await?;
        let certificates = stream.get_ref().1.peer_certificates();
        let certificate = certificates.and_then(<[_]>::first);
        // The verifier wants a certificate.
        let identity = certificate
            .ok_or(NoIdentity::Count(0))
            .and_then(Identity::of);
        let identity = identity.map_err(io::Error::other)?;
        Ok((Either::Right(Box::new(stream.into())), identity))
    }

    /// Makes a connection one to whom is expected at a host, and to nobody else.
    ///
    /// # Errors
    /// Where somebody else is there, whoever is there does not believe this service, or the host is none.
    pub async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        expected: Expected,
    ) -> io::Result<Stream> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = self.connector(expected).connect(host, stream).await?;
        Ok(Either::Right(Box::new(stream.into())))
    }

    fn connector(&self, expected: Expected) -> TlsConnector {
        let material = self.0.now();
        let verifier = Expecting {
            chain: Arc::clone(&material.verifier),
            expected,
        };
        let own = SingleCertAndKey::from(Arc::clone(&material.own));
        let mut config = ClientConfig::builder_with_provider(crate::provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(own));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Each connection proves anew who is there.
        config.resumption = rustls::client::Resumption::disabled();
        TlsConnector::from(Arc::new(config))
    }
}

/// Whose a certificate is that has this key to it, and that one of these authorities vouches for: in this order, the
/// authorities, the certificate and the key.
///
/// # Errors
/// Where any of it is not so.
pub fn check(contents: &[Contents; 3]) -> Result<Identity, Error> {
    Material::of(contents).map(|(_, identity)| identity)
}

impl Material {
    fn of(contents: &[Contents]) -> Result<(Self, Identity), Error> {
        let [authorities, certificate, key] = contents else {
            unreachable!("three files are read");
        };
        let believed = authorities.authorities()?;
        let own = certified(certificate, key)?;
        let identity = own
            .end_entity_cert()
            .map_err(|error| Error::unusable(&certificate.path, error))
            .and_then(|own| {
                Identity::of(own).map_err(|problem| Error::NoIdentity {
                    path: certificate.path.clone(),
                    problem,
                })
            })?;
        let unusable =
            |error: rustls::server::VerifierBuilderError| Error::unusable(&authorities.path, error);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&believed), crate::provider());
        let clients = clients.build().map_err(unusable)?;
        // A service whose peers would not believe it had better not replace one that they do.
        let [first, between @ ..] = own.cert.as_slice() else {
            unreachable!("a chain has a certificate");
        };
        clients
            .verify_client_cert(first, between, UnixTime::now())
            .map_err(|error| {
                Error::unusable(
                    &certificate.path,
                    format!(
                        "is not vouched for by {}: {error}",
                        authorities.path.display()
                    ),
                )
            })?;
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::clone(&believed), crate::provider());
        let verifier = verifier.build().map_err(unusable)?;
        let mut server = ServerConfig::builder_with_provider(crate::provider())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&own))));
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let material = Self {
            authorities: believed,
            own,
            server: Arc::new(server),
            verifier,
        };
        Ok((material, identity))
    }
}

/// Believes a server that the authorities vouch for, for the host that was asked for, and that is who is expected.
/// The host alone would not do: all services of a machine have it.
#[derive(Debug)]
struct Expecting {
    chain: Arc<WebPkiServerVerifier>,
    expected: Expected,
}

/// Somebody else answers there.
#[derive(Debug, thiserror::Error)]
#[error("{found} answers, and {expected} is expected")]
struct SomebodyElse {
    found: Identity,
    expected: Expected,
}

impl ServerCertVerifier for Expecting {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let other = |error: Arc<dyn std::error::Error + Send + Sync>| {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(error)))
        };
        let verified = self.chain.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let found = Identity::of(end_entity).map_err(|problem| other(Arc::new(problem)))?;
        let expected = self.expected;
        match expected.is(&found) {
            true => Ok(verified),
            false => Err(other(Arc::new(SomebodyElse { found, expected }))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
