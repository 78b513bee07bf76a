//! Who is believed over real connections, with certificates of authorities that the tests make.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use daemon::watched::LOOK_INTERVAL;
use domain::ReplicaId;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::client;
use crate::{
    ClientCertificates, Cluster, Error, Expected, Files, Principal, Proof, Role, Server, Shown,
    Stream,
};

/// Longest wait for what is to happen.
const PATIENCE: Duration = Duration::from_secs(60);

const DAY: Duration = Duration::from_hours(24);

/// An authority, and where its certificates are put.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate says.
struct Says<'a> {
    uris: &'a [&'a str],
    host: &'a str,
    until: SystemTime,
}

impl Default for Says<'_> {
    fn default() -> Self {
        Self {
            uris: &[],
            host: "127.0.0.1",
            until: SystemTime::now() + DAY,
        }
    }
}

impl Authority {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.path().join("ca.crt"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        Self { dir, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a certificate that says this, and its key, under a name.
    fn certify(&self, name: &str, says: &Says<'_>) -> Files {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.not_before = (SystemTime::now() - 2 * DAY).into();
        params.not_after = says.until.into();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let host = match says.host.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(says.host.try_into().unwrap()),
        };
        let uris = says.uris.iter();
        let uris = uris.map(|uri| SanType::URI((*uri).try_into().unwrap()));
        params.subject_alt_names = uris.chain([host]).collect();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = Files {
            authorities: self.path("ca.crt"),
            certificate: self.path(&format!("{name}.crt")),
            key: self.path(&format!("{name}.key")),
        };
        fs::write(&files.key, key.serialize_pem()).unwrap();
        fs::write(&files.certificate, certificate.pem()).unwrap();
        files
    }

    /// A service of that role and name.
    fn service(&self, role: Role, name: &str) -> Files {
        let principal = Principal::new(role, name).unwrap().to_string();
        let says = Says {
            uris: &[&principal],
            ..Says::default()
        };
        self.certify(&format!("{}-{name}", role.name()), &says)
    }
}

fn cluster(files: &Files, role: Role) -> Cluster {
    Cluster::load(files, Expected::Role(role)).unwrap()
}

fn replica(id: u32) -> Expected {
    Expected::Replica(ReplicaId::new(id).unwrap())
}

/// Both ends of a connection, and who has proven to be at the client's.
type Met = (Result<Stream, String>, Result<(Stream, Proof), String>);

/// What became of a connection, at its client and at its server: each has had a byte of the other's.
async fn meet(server: &Cluster, client: &Cluster, (host, expected): (&str, Expected)) -> Met {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connecting = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let (mut stream, _) = client.connect(stream, host, expected).await?;
        stream.write_all(b"?").await?;
        // The server's word on the client's certificate comes after the handshake (RFC 8446, section 4.4).
        stream.read_u8().await?;
        Ok(stream)
    };
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, proof) = server.accept(stream).await?;
        stream.read_u8().await?;
        stream.write_all(b"!").await?;
        Ok::<_, std::io::Error>((stream, proof))
    };
    let (client, server) = timeout(PATIENCE, async { tokio::join!(connecting, accepting) })
        .await
        .expect("a handshake comes to its end");
    let said = |error: std::io::Error| error.to_string();
    (client.map_err(said), server.map_err(said))
}

#[tokio::test]
async fn services_of_one_authority_believe_each_other_for_who_they_are() {
    let authority = Authority::new();
    let third = Cluster::load(&authority.service(Role::Order, "3"), replica(3)).unwrap();
    let gateway = cluster(&authority.service(Role::Gateway, "a"), Role::Gateway);
    let (client, server) = meet(&third, &gateway, ("127.0.0.1", replica(3))).await;
    client.unwrap();
    let (_, proof) = server.unwrap();
    assert_eq!(proof.principal().to_string(), "spiffe://bazaar/gateway/a");
    assert!(proof.holds());
}

#[tokio::test]
async fn nobody_else_is_taken_for_a_service() {
    let (own, other) = (Authority::new(), Authority::new());
    let gateway = cluster(&own.service(Role::Gateway, "a"), Role::Gateway);
    let catalog = cluster(&own.service(Role::Catalog, "a"), Role::Catalog);
    let foreign_catalog = cluster(&other.service(Role::Catalog, "a"), Role::Catalog);
    let foreign_gateway = cluster(&other.service(Role::Gateway, "a"), Role::Gateway);
    let third = Cluster::load(&own.service(Role::Order, "3"), replica(3)).unwrap();
    let to_catalog = ("127.0.0.1", Expected::Role(Role::Catalog));
    for (what, server, client, to) in [
        (
            "another authority's server",
            &foreign_catalog,
            &gateway,
            to_catalog,
        ),
        (
            "another authority's client",
            &catalog,
            &foreign_gateway,
            to_catalog,
        ),
        (
            "a gateway in a catalog's place",
            &gateway,
            &catalog,
            to_catalog,
        ),
        (
            "a replica in another's place",
            &third,
            &gateway,
            ("127.0.0.1", replica(2)),
        ),
        (
            "another host",
            &catalog,
            &gateway,
            ("localhost", Expected::Role(Role::Catalog)),
        ),
    ] {
        let (client, server) = meet(server, client, to).await;
        assert!(
            client.is_err() && server.is_err(),
            "{what}: {client:?}, {server:?}"
        );
        if what.starts_with("another authority's") {
            // Authorities that are made alike have one name.
            let why = "certificate is of another authority than the one of the same name";
            let (client, server) = (client.unwrap_err(), server.unwrap_err());
            assert!(
                client.contains(why) && server.contains(why),
                "{client}\n{server}"
            );
        }
    }
    let (client, server) = meet(&catalog, &gateway, to_catalog).await;
    assert!(client.is_ok() && server.is_ok(), "{client:?}, {server:?}");
}

#[tokio::test]
async fn whoever_shows_no_certificate_or_speaks_an_old_tls_is_not_served() {
    let authority = Authority::new();
    let files = authority.service(Role::Catalog, "a");
    let catalog = cluster(&files, Role::Catalog);
    let own = (files.certificate.as_path(), files.key.as_path());
    for (what, config) in [
        (
            "no certificate",
            client::config(Some(&files.authorities), None).unwrap(),
        ),
        ("an old TLS", {
            let config = client::config(Some(&files.authorities), Some(own)).unwrap();
            old(&config, &files)
        }),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asking = async {
            let stream = TcpStream::connect(address).await.unwrap();
            let name = ServerName::try_from("127.0.0.1").unwrap();
            let mut stream = TlsConnector::from(config).connect(name, stream).await?;
            stream.read_u8().await
        };
        let accepting = async {
            let (stream, _) = listener.accept().await.unwrap();
            catalog.accept(stream).await
        };
        let (asked, accepted) = tokio::join!(asking, accepting);
        assert!(asked.is_err() && accepted.is_err(), "{what}");
    }
}

/// The same client with TLS 1.2 alone.
fn old(_: &rustls::ClientConfig, files: &Files) -> std::sync::Arc<rustls::ClientConfig> {
    use crate::files::Pem as _;
    let read = |path: &Path| daemon::watched::Contents::read(path).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(crate::provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .with_root_certificates(read(&files.authorities).authorities().unwrap());
    let (chain, key) = (read(&files.certificate), read(&files.key));
    let config = config.with_client_auth_cert(chain.certificates().unwrap(), key.key().unwrap());
    config.unwrap().into()
}

#[tokio::test]
async fn files_that_will_not_do_are_refused_with_what_is_wrong() {
    let (authority, other) = (Authority::new(), Authority::new());
    let files = authority.service(Role::Catalog, "a");
    let says = |name: &str, uris: &[&str], until| {
        authority.certify(
            name,
            &Says {
                uris,
                until,
                ..Says::default()
            },
        )
    };
    let later = SystemTime::now() + DAY;
    let catalog = "spiffe://bazaar/catalog/a";
    for (files, said) in [
        (
            Files {
                key: "/nowhere".into(),
                ..files.clone()
            },
            "cannot read /nowhere",
        ),
        (
            Files {
                key: files.certificate.clone(),
                ..files.clone()
            },
            "has no private key in it",
        ),
        (
            Files {
                certificate: files.key.clone(),
                ..files.clone()
            },
            "has no certificate in it",
        ),
        (
            Files {
                key: other.service(Role::Catalog, "a").key,
                ..files.clone()
            },
            "is not the key to the certificate in",
        ),
        (
            Files {
                authorities: other.path("ca.crt"),
                ..files.clone()
            },
            "is not vouched for by",
        ),
        (says("nobody", &[], later), "has 0 names that begin with"),
        (
            says("two", &[catalog, "spiffe://bazaar/order/1"], later),
            "has 2 names that begin with",
        ),
        (
            says("none", &["spiffe://bazaar/king/a"], later),
            "`spiffe://bazaar/king/a` is not",
        ),
        (
            says("old", &[catalog], SystemTime::now() - DAY),
            "old.crt has expired: it was valid until 20",
        ),
        (
            authority.service(Role::Gateway, "a"),
            "is spiffe://bazaar/gateway/a's: this service needs one of spiffe://bazaar/catalog/NAME",
        ),
    ] {
        let refused = Cluster::load(&files, Expected::Role(Role::Catalog)).unwrap_err();
        assert!(refused.to_string().contains(said), "{refused}\n{said}");
    }
    let third = authority.service(Role::Order, "3");
    let refused = Cluster::load(&third, replica(2)).unwrap_err();
    assert!(matches!(refused, Error::OtherPrincipal { .. }), "{refused}");
}

#[tokio::test]
async fn certificates_are_read_anew_and_no_connection_is_dropped_for_it() {
    let (old, new) = (Authority::new(), Authority::new());
    let gateway = cluster(&old.service(Role::Gateway, "a"), Role::Gateway);
    let files = old.service(Role::Catalog, "a");
    let catalog = cluster(&files, Role::Catalog);
    let to = ("127.0.0.1", Expected::Role(Role::Catalog));
    let (near, far) = meet(&catalog, &gateway, to).await;
    let (mut near, (mut far, proof)) = (near.unwrap(), far.unwrap());

    // Half of a change, which will not do: what was there stays in force.
    let replacing = new.service(Role::Catalog, "a");
    let put = |from: &Path, to: &Path| fs::copy(from, to).map(drop).unwrap();
    put(&replacing.key, &files.key);
    tokio::time::sleep(2 * LOOK_INTERVAL).await;
    let (client, _) = meet(&catalog, &gateway, to).await;
    client.expect("the certificate of before is in force");

    put(&replacing.certificate, &files.certificate);
    put(&replacing.authorities, &files.authorities);
    let successor = cluster(&new.service(Role::Gateway, "b"), Role::Gateway);
    let changed = async {
        while meet(&catalog, &successor, to).await.0.is_err() {
            tokio::time::sleep(LOOK_INTERVAL / 10).await;
        }
    };
    timeout(PATIENCE, changed)
        .await
        .expect("the files are read anew");
    let (client, server) = meet(&catalog, &gateway, to).await;
    assert!(
        client.is_err() && server.is_err(),
        "nobody is believed by the old authority"
    );
    near.write_all(b"?").await.unwrap();
    assert_eq!(far.read_u8().await.unwrap(), b'?', "it is not dropped");
    assert!(
        !proof.holds(),
        "but who is there would not be believed any more"
    );
}

#[tokio::test]
async fn who_was_believed_is_not_when_the_certificate_has_expired() {
    let authority = Authority::new();
    let catalog = cluster(&authority.service(Role::Catalog, "a"), Role::Catalog);
    let says = Says {
        uris: &["spiffe://bazaar/gateway/a"],
        until: SystemTime::now() + Duration::from_secs(3),
        ..Says::default()
    };
    let gateway = cluster(&authority.certify("gateway", &says), Role::Gateway);
    let to = ("127.0.0.1", Expected::Role(Role::Catalog));
    let (_, met) = meet(&catalog, &gateway, to).await;
    let (_, proof) = met.unwrap();
    let expired = async {
        while proof.holds() {
            tokio::time::sleep(LOOK_INTERVAL / 10).await;
        }
    };
    timeout(PATIENCE, expired).await.expect("it expires");
    assert!(SystemTime::now() >= says.until);
}

/// What a client of a gateway meets: what the gateway has of it.
async fn visit(server: &Server, client: &TlsConnector) -> Result<Shown, String> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asking = async {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("127.0.0.1").unwrap();
        let mut stream = client.connect(name, stream).await?;
        stream.read_u8().await
    };
    let accepting = async {
        let (stream, _) = listener.accept().await.unwrap();
        let (mut stream, chain) = server.accept(stream).await?;
        stream.write_all(b"!").await?;
        assert!(server.is_served(&chain));
        Ok::<_, std::io::Error>(server.judge(&chain))
    };
    let (asked, shown) = tokio::join!(asking, accepting);
    let shown = shown.map_err(|error| error.to_string())?;
    asked.map_err(|error| error.to_string())?;
    Ok(shown)
}

#[tokio::test]
async fn a_gateway_asks_for_the_certificates_that_it_is_told_to() {
    let (own, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let gateway = own.service(Role::Gateway, "a");
    let in_cluster = cluster(&gateway, Role::Gateway);
    let serve = |authorities: Option<&Authority>, are_required, cluster| {
        let certificates = ClientCertificates {
            authorities: authorities.map(|authority| authority.path("ca.crt")),
            are_required,
            cluster,
        };
        let (certificate, key) = (gateway.certificate.clone(), gateway.key.clone());
        Server::load(certificate, key, certificates, &[b"http/1.1"]).unwrap()
    };
    let with = |files: Option<&Files>| {
        let shows = files.map(|files| (files.certificate.as_path(), files.key.as_path()));
        TlsConnector::from(client::config(Some(&gateway.authorities), shows).unwrap())
    };
    let nobody = with(None);
    let operator = with(Some(&own.service(Role::Operator, "ada")));
    let customer = with(Some(&clients.certify("customer", &Says::default())));
    // Says of itself what only the cluster's authority can say.
    let impostor = with(Some(&clients.service(Role::Operator, "ada")));
    let stranger = with(Some(&strangers.service(Role::Operator, "ada")));

    let of_anybody = serve(None, false, None);
    let of_customers = serve(Some(&clients), true, None);
    let of_operators = serve(Some(&clients), false, Some(in_cluster));
    let shown = |certified, named: bool| {
        let name = "spiffe://bazaar/operator/ada".to_owned();
        Some((certified, named.then_some(name)))
    };
    for (what, server, client, expected) in [
        ("anybody", &of_anybody, &nobody, shown(false, false)),
        (
            "a certificate that is not asked for",
            &of_anybody,
            &operator,
            shown(false, false),
        ),
        ("a customer", &of_customers, &customer, shown(true, false)),
        ("no customer", &of_customers, &nobody, None),
        ("an operator, who is none", &of_customers, &operator, None),
        ("an operator", &of_operators, &operator, shown(false, true)),
        (
            "nobody among operators",
            &of_operators,
            &nobody,
            shown(false, false),
        ),
        (
            "a customer among operators",
            &of_operators,
            &customer,
            shown(true, false),
        ),
        ("an impostor", &of_operators, &impostor, shown(true, false)),
        ("a stranger", &of_operators, &stranger, None),
    ] {
        let met = visit(server, client).await;
        let met = met.map(|shown| {
            let principal = shown.principal.map(|principal| principal.to_string());
            (shown.is_certified, principal)
        });
        assert_eq!(met.as_ref().ok(), expected.as_ref(), "{what}: {met:?}");
    }
}

#[tokio::test]
async fn a_pinned_certificate_is_believed_under_any_name_and_no_other_is() {
    let authority = Authority::new();
    let gateway = authority.certify(
        "gateway",
        &Says {
            host: "example.org",
            ..Says::default()
        },
    );
    let certificates = ClientCertificates {
        authorities: None,
        are_required: false,
        cluster: None,
    };
    let server = Server::load(gateway.certificate.clone(), gateway.key, certificates, &[]).unwrap();
    let pinned = TlsConnector::from(client::pinned(&gateway.certificate).unwrap());
    visit(&server, &pinned).await.unwrap();
    let other = authority.certify("other", &Says::default());
    let pinned = TlsConnector::from(client::pinned(&other.certificate).unwrap());
    visit(&server, &pinned).await.unwrap_err();
}

#[tokio::test]
async fn clients_believe_no_other_service_to_be_the_gateway() {
    let authority = Authority::new();
    let certificates = ClientCertificates {
        authorities: None,
        are_required: false,
        cluster: None,
    };
    let client = client::config(Some(&authority.path("ca.crt")), None).unwrap();
    let client = TlsConnector::from(client);
    let public = authority.certify("public", &Says::default());
    for (what, files, is_believed) in [
        ("a gateway", authority.service(Role::Gateway, "a"), true),
        ("a replica", authority.service(Role::Order, "3"), false),
        ("a catalog", authority.service(Role::Catalog, "a"), false),
        ("a certificate that knows of no services", public, true),
    ] {
        let own = (files.certificate, files.key);
        let server = Server::load(own.0, own.1, certificates.clone(), &[]).unwrap();
        let met = visit(&server, &client).await;
        assert_eq!(met.is_ok(), is_believed, "{what}: {met:?}");
    }
}
