//! TLS for clients and operators of a gateway: its certificate proves who it is, and theirs, where they are asked for
//! one, who they are.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use daemon::tasks::{self, Task};
use daemon::watched::{Contents, Watched};
use rustls::pki_types::CertificateDer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_util::either::Either;

use crate::Stream;
use crate::accept::accept;
use crate::chain::{self, Purpose, Validity, watch_end};
use crate::cluster::Cluster;
use crate::files::{Error, Pem, certified};
use crate::principal::Principal;

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

/// What a client has shown, as it is to be judged now.
#[derive(Debug, Clone, Default)]
pub struct Shown {
    /// A certificate of the authorities that were named.
    pub is_certified: bool,
    /// Whom it names, where it is the cluster's authority that vouches for it.
    pub principal: Option<Principal>,
}

/// The certificates that a client has shown, with those up to its authority; none where it has shown none.
pub type Chain = Arc<[CertificateDer<'static>]>;

/// A gateway's certificate, for a listener. Clones are of one.
#[derive(Debug, Clone)]
pub struct Server(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    own: Arc<Watched<Material>>,
    clients: ClientCertificates,
    alpn: &'static [&'static [u8]],
    _watch: Option<Task<()>>,
}

#[derive(Debug)]
struct Material {
    own: Arc<SingleCertAndKey>,
    validity: Option<Validity>,
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
        let own = Arc::new(own);
        // Operators are shown the same one.
        let watch = clients.cluster.is_none().then(|| {
            let own = Arc::clone(&own);
            let validity = move || own.now().validity;
            let named =
                move || validity().map(|validity| ("the certificate for clients", validity));
            tasks::spawn(
                "watch certificates",
                watch_end(move || named().into_iter().collect()),
            )
        });
        Ok(Self(Arc::new(Inner {
            own,
            clients,
            alpn,
            _watch: watch,
        })))
    }

    /// Takes a connection, with what its client has shown.
    ///
    /// # Errors
    /// Where the client has none of those that are required, or breaks off.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<(Stream, Chain)> {
        let Inner {
            own, clients, alpn, ..
        } = &*self.0;
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
        let stream = accept(config, stream).await?;
        let (_, session) = stream.get_ref();
        let chain = session.peer_certificates().unwrap_or_default().to_vec();
        Ok((Either::Right(Box::new(stream.into())), chain.into()))
    }

    /// What that says now: a certificate may have expired since, and its authority may be believed no more. Takes some
    /// 0.1 ms where there is one.
    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Shown {
        let Inner { own, clients, .. } = &*self.0;
        let is_of = |authorities: &RootCertStore| {
            chain::verify(chain, authorities, Purpose::Client).is_ok()
        };
        let named = &own.now().authorities;
        let cluster = clients.cluster.as_ref().map(Cluster::authorities);
        // Another authority has no say in who is who in the cluster.
        let is_of_cluster = cluster.is_some_and(|cluster| is_of(&cluster));
        Shown {
            is_certified: named.as_deref().is_some_and(is_of),
            principal: chain
                .first()
                .filter(|_| is_of_cluster)
                .and_then(|first| Principal::of(first).ok()),
        }
    }

    /// When the certificate that is shown expires.
    pub fn expiry(&self) -> Option<SystemTime> {
        self.0.own.now().validity.map(|validity| validity.until)
    }

    /// Whether a client that has shown this is served at all.
    pub fn is_served(&self, chain: &[CertificateDer<'_>]) -> bool {
        !self.0.clients.are_required || self.judge(chain).is_certified
    }
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
        let validity = Validity::of(&own.cert[0]);
        if validity.is_some_and(|validity| validity.until <= SystemTime::now()) {
            return Err(Error::unusable(&certificate.path, "has expired"));
        }
        let mut material = Self {
            own: Arc::new(SingleCertAndKey::from(own)),
            validity,
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
        let are_asked = !authorities.is_empty();
        let clients: Arc<dyn ClientCertVerifier> = if !are_asked {
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
        if are_asked {
            // Each connection proves anew who is there: rustls takes a session up again without another look.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Arc::new(config))
    }
}
