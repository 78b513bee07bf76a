//! TLS for clients and operators of a gateway: its certificate proves who it is, and theirs, where they are asked for
//! one, who they are.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use daemon::watched::{Contents, Watched};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::either::Either;

use crate::Stream;
use crate::cluster::Cluster;
use crate::files::{Error, Pem, certified};
use crate::identity::Identity;

/// Which certificates clients are asked for.
#[derive(Debug, Clone)]
pub struct ClientCertificates {
    /// Those of these authorities: a file of certificates.
    pub authorities: Option<PathBuf>,
    /// Whoever has none of them is not served at all.
    pub are_required: bool,
    /// Whoever has one of this cluster is who it says.
    pub cluster: Option<Cluster>,
}

/// What a client has shown.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// A certificate that is believed, of whichever authority.
    pub is_certified: bool,
    /// Whom it names, where it is the cluster's authority that vouches for it.
    pub identity: Option<Identity>,
}

/// A gateway's certificate, for a listener. Clones are of one.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: Watched<Material>,
    clients: ClientCertificates,
    alpn: &'static [&'static [u8]],
}

#[derive(Debug)]
struct Material {
    own: Arc<SingleCertAndKey>,
    authorities: Option<Arc<RootCertStore>>,
    /// Of these very files. None where the cluster's are asked for, too: those change by themselves.
    server: Option<Arc<ServerConfig>>,
}

impl Server {
    /// Reads the files, now and whenever they change. `alpn` are the protocols that are spoken, the best first.
    ///
    /// # Errors
    /// Where they cannot be read, or do not belong together.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn load(
        certificate: PathBuf,
        key: PathBuf,
        clients: ClientCertificates,
        alpn: &'static [&'static [u8]],
    ) -> Result<Self, Error> {
        let mut paths = vec![certificate, key];
        paths.extend(clients.authorities.clone());
        let (is_fixed, are_required) = (clients.cluster.is_none(), clients.are_required);
        let own = Watched::new(paths, move |contents| {
            Material::of(contents, are_required, is_fixed, alpn)
        })?;
        Ok(Self(Arc::new(Inner { own, clients, alpn })))
    }

    /// Takes a connection, with what its client has shown.
    ///
    /// # Errors
    /// Where the client has none of those that are required, or breaks off.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Shown)> {
        let Inner { own, clients, alpn } = &*self.0;
        let material = own.now();
        let config = match (&material.server, &clients.cluster) {
            (Some(config), _) => Arc::clone(config),
            (None, cluster) => {
                let cluster = cluster.as_ref().map(Cluster::authorities);
                material
                    .config(cluster, clients.are_required, alpn)
                    .map_err(io::Error::other)?
            }
        };
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let identity = match &clients.cluster {
            Some(cluster) => vouched_for(chain, cluster.authorities()),
            None => None,
        };
        let shown = Shown {
            is_certified: !chain.is_empty(), // it was verified
            identity,
        };
        Ok((Either::Right(Box::new(stream.into())), shown))
    }
}

/// Who the cluster's authority says that the holder of a certificate is. It may be another authority's, which has no
/// say in that.
fn vouched_for(chain: &[CertificateDer<'_>], authorities: Arc<RootCertStore>) -> Option<Identity> {
    let [first, between @ ..] = chain else {
        return None;
    };
    let verifier = WebPkiClientVerifier::builder_with_provider(authorities, crate::provider());
    let verifier = verifier.build().ok()?;
    verifier
        .verify_client_cert(first, between, UnixTime::now())
        .ok()?;
    Identity::of(first).ok()
}

impl Material {
    fn of(
        contents: &[Contents],
        are_required: bool,
        is_fixed: bool,
        alpn: &[&[u8]],
    ) -> Result<Self, Error> {
        let [certificate, key, authorities @ ..] = contents else {
            unreachable!("two files are read at least");
        };
        let own = certified(certificate, key)?;
        let mut material = Self {
            own: Arc::new(SingleCertAndKey::from(own)),
            authorities: authorities.first().map(Pem::authorities).transpose()?,
            server: None,
        };
        if is_fixed {
            let config = material.config(None, are_required, alpn);
            let path = authorities
                .first()
                .map_or(&certificate.path, |file| &file.path);
            material.server = Some(config.map_err(|error| Error::unusable(path, error))?);
        }
        Ok(material)
    }

    fn config(
        &self,
        cluster: Option<Arc<RootCertStore>>,
        are_required: bool,
        alpn: &[&[u8]],
    ) -> Result<Arc<ServerConfig>, rustls::server::VerifierBuilderError> {
        let mut authorities = RootCertStore::empty();
        let both = [self.authorities.as_deref(), cluster.as_deref()];
        for some in both.into_iter().flatten() {
            authorities.roots.extend(some.roots.iter().cloned());
        }
        let clients: Arc<dyn ClientCertVerifier> = if authorities.is_empty() {
            WebPkiClientVerifier::no_client_auth()
        } else {
            let verifier = WebPkiClientVerifier::builder_with_provider(
                Arc::new(authorities),
                crate::provider(),
            );
            match are_required {
                true => verifier.build()?,
                false => verifier.allow_unauthenticated().build()?,
            }
        };
        let mut config = ServerConfig::builder_with_provider(crate::provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has TLS 1.2 and 1.3")
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::clone(&self.own) as _);
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}
