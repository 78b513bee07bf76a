//! Mutual TLS between services: each shows its certificate, and believes those that the cluster's authority signed.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use daemon::tasks::{self, Task};
use daemon::watched::{Contents, Watched};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::either::Either;

use crate::accept::accept;
use crate::chain::{self, Purpose, Validity, watch_end};
use crate::files::{Error, Files, Pem as _, certified};
use crate::principal::{Expected, NoPrincipal, Principal, Role};
use crate::words::{of_chain, readable};
use crate::{BUFFER_BYTES_MAX, Stream};

/// gRPC's protocol, by which a peer that speaks another is refused (RFC 7301).
const ALPN: &[u8] = b"h2";

/// Whose ends the log tells of.
const OWN: &str = "this service's certificate";
const AUTHORITY: &str = "an authority's certificate";

/// A service's part of a cluster. Clones are of one.
#[derive(Debug, Clone)]
pub struct Cluster {
    material: Arc<Watched<Material>>,
    _watch: Arc<Task<()>>,
}

/// What the files say.
#[derive(Debug)]
struct Material {
    authorities: Arc<RootCertStore>,
    own: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
    verifier: Arc<WebPkiServerVerifier>,
    /// Of whose ends the log is to say.
    validities: Vec<(&'static str, Validity)>,
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
        let material = Watched::new(vec![authorities, certificate, key], move |contents| {
            let (material, principal) = Material::of(contents)?;
            match own.is(&principal) {
                true => Ok(material),
                false => Err(Error::OtherPrincipal {
                    path: contents[1].path.clone(),
                    principal,
                    expected: own,
                }),
            }
        })?;
        let material = Arc::new(material);
        let watch = watch_end({
            let material = Arc::clone(&material);
            move || material.now().validities.clone()
        });
        Ok(Self {
            material,
            _watch: Arc::new(tasks::spawn("watch certificates", watch)),
        })
    }

    /// When the certificates in force expire: this service's, and the first of its authorities'.
    pub fn expiries(&self) -> (Option<SystemTime>, Option<SystemTime>) {
        let material = self.material.now();
        let first = |whose| {
            let validities = material.validities.iter();
            let of_them = validities.filter(|(what, _)| *what == whose);
            of_them.map(|(_, validity)| validity.until).min()
        };
        (first(OWN), first(AUTHORITY))
    }

    /// Whom the authorities vouch for, of those that are believed now.
    pub(crate) fn authorities(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.material.now().authorities)
    }

    /// Takes a connection: whose it is, is proven then.
    ///
    /// # Errors
    /// Where the peer has no certificate that is believed, or breaks off.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Proof)> {
        let config = Arc::clone(&self.material.now().server);
        let stream = accept(config, stream).await?;
        let (_, session) = stream.get_ref();
        let proof = self.proof(session, Purpose::Client)?;
        Ok((Either::Right(Box::new(stream.into())), proof))
    }

    /// Makes a connection one to whom is expected at a host, and to nobody else, and says what proves that.
    ///
    /// # Errors
    /// Where somebody else is there, whoever is there does not believe this service, or the host is none.
    pub async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        expected: Expected,
    ) -> io::Result<(Stream, Proof)> {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let connected = self.connector(expected).connect(host, stream).await;
        let mut stream = connected.map_err(readable)?;
        let (_, session) = stream.get_mut();
        session.set_buffer_limit(Some(BUFFER_BYTES_MAX));
        let proof = self.proof(session, Purpose::Server)?;
        Ok((Either::Right(Box::new(stream.into())), proof))
    }

    /// What a peer has proven in a handshake that is done. Verifiers want a certificate, so there is one.
    fn proof(&self, session: &CommonState, purpose: Purpose) -> io::Result<Proof> {
        let chain = session.peer_certificates().unwrap_or_default().to_vec();
        let principal = chain.first().ok_or(NoPrincipal::Count(0));
        Ok(Proof {
            principal: principal
                .and_then(Principal::of)
                .map_err(io::Error::other)?,
            chain: chain.into(),
            cluster: self.clone(),
            purpose,
        })
    }

    fn connector(&self, expected: Expected) -> TlsConnector {
        let material = self.material.now();
        let verifier = Expecting {
            chain: Arc::clone(&material.verifier),
            expected,
            or_nobody: false,
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

/// Who has proven to be at the other end of a connection.
#[derive(Debug, Clone)]
pub struct Proof {
    principal: Principal,
    chain: Arc<[CertificateDer<'static>]>,
    cluster: Cluster,
    /// What the certificate was shown for.
    purpose: Purpose,
}

impl Proof {
    /// Who it is.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether it would be believed now as well: the certificate may have expired meanwhile, and its authority may be
    /// believed no more. Takes some 0.1 ms.
    pub fn holds(&self) -> bool {
        chain::verify(&self.chain, &self.cluster.authorities(), self.purpose).is_ok()
    }
}

/// Whom the first certificate of a file names, whether or not it holds.
///
/// # Errors
/// Where there is no certificate in it, or it names nobody.
pub fn named(certificate: &Contents) -> Result<Principal, Error> {
    let first = &certificate.certificates()?[0];
    Principal::of(first).map_err(|problem| Error::NoPrincipal {
        path: certificate.path.clone(),
        problem,
    })
}

/// The hosts that the first certificate of a file names, and from when to when it is valid.
///
/// # Errors
/// Where there is none, or it cannot be read.
pub fn described(certificate: &Contents) -> Result<(Vec<String>, Validity), Error> {
    let first = &certificate.certificates()?[0];
    let validity = Validity::of(first);
    let validity = validity.ok_or_else(|| {
        Error::unusable(&certificate.path, "has a certificate that cannot be read")
    })?;
    Ok((chain::hosts(first), validity))
}

/// Whose a certificate is that has this key to it, and that one of these authorities vouches for: in this order, the
/// authorities, the certificate and the key.
///
/// # Errors
/// Where any of it is not so.
pub fn check(contents: &[Contents; 3]) -> Result<Principal, Error> {
    Material::of(contents).map(|(_, principal)| principal)
}

impl Material {
    fn of(contents: &[Contents]) -> Result<(Self, Principal), Error> {
        let [authorities, certificate, key] = contents else {
            unreachable!("three files are read");
        };
        let believed = authorities.authorities()?;
        let own = certified(certificate, key)?;
        let principal = own
            .end_entity_cert()
            .map_err(|error| Error::unusable(&certificate.path, error))
            .and_then(|own| {
                Principal::of(own).map_err(|problem| Error::NoPrincipal {
                    path: certificate.path.clone(),
                    problem,
                })
            })?;
        let unusable =
            |error: rustls::server::VerifierBuilderError| Error::unusable(&authorities.path, error);
        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&believed), crate::provider());
        let clients = clients.build().map_err(unusable)?;
        // A certificate that peers would not believe had better not replace one that they do.
        let purposes: &[Purpose] = match principal.role() {
            Role::Gateway | Role::Catalog | Role::Order => &[Purpose::Client, Purpose::Server],
            Role::Operator | Role::Viewer => &[Purpose::Client],
        };
        for purpose in purposes {
            chain::verify(&own.cert, &believed, *purpose).map_err(|error| {
                let by = authorities.path.display();
                let problem = of_chain(&error);
                let problem =
                    format!("{problem}, so it is not vouched for by {by}, to be a {purpose}'s");
                Error::unusable(&certificate.path, problem)
            })?;
        }
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
        let of_own = Validity::of(&own.cert[0]).map(|validity| (OWN, validity));
        // rustls does not look at them: others, as curl, do.
        let of_authorities = authorities.certificates()?;
        let of_authorities = of_authorities.iter().filter_map(Validity::of);
        let of_authorities = of_authorities.map(|validity| (AUTHORITY, validity));
        let material = Self {
            validities: of_own.into_iter().chain(of_authorities).collect(),
            authorities: believed,
            own,
            server: Arc::new(server),
            verifier,
        };
        Ok((material, principal))
    }
}

/// Believes a server that the authorities vouch for, for the host that was asked for, and that is who is expected.
/// The host alone would not do: all services of a machine have it.
#[derive(Debug)]
pub(crate) struct Expecting {
    chain: Arc<WebPkiServerVerifier>,
    expected: Expected,
    /// A certificate that says of nobody in a cluster who it is will do as well.
    or_nobody: bool,
}

impl Expecting {
    /// For clients of a gateway, whose certificate may be of an authority that knows of no clusters; but that of
    /// another service will not do.
    pub(crate) fn gateway(chain: Arc<WebPkiServerVerifier>) -> Self {
        Self {
            chain,
            expected: Expected::Role(Role::Gateway),
            or_nobody: true,
        }
    }
}

/// Somebody else answers there.
#[derive(Debug, thiserror::Error)]
#[error("{found} answers, and {expected} is expected")]
struct SomebodyElse {
    found: Principal,
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
        let found = match Principal::of(end_entity) {
            Ok(found) => found,
            Err(NoPrincipal::Count(0)) if self.or_nobody => return Ok(verified),
            Err(problem) => return Err(other(Arc::new(problem))),
        };
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
