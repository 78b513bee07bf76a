//! Whom a catalog believes to be its server, over TLS.

use std::time::Instant;

use test_postgres::certificates::Certificates;
use test_postgres::{Cluster, Options, SUPERUSER};

use catalog::store::Store;
use catalog::store::postgres::{OpenError, PostgresError};

use super::{PATIENCE, open, options};

/// A server that encrypts, and has an empty database; with certificates that are its, and others.
struct Encrypting {
    cluster: Cluster,
    own: Certificates,
    /// By another authority.
    others: Certificates,
    _dirs: [tempfile::TempDir; 2],
}

impl Encrypting {
    /// `None` where there is no PostgreSQL.
    fn start() -> Option<Self> {
        if test_postgres::programs().is_none() {
            test_postgres::skip::skip("PostgreSQL", "scripts/test-setup installs it");
            return None;
        }
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        // The server reads its own.
        test_postgres::process::chown(dirs[0].path());
        let [own, others] = dirs.each_ref().map(|dir| Certificates::make(dir.path()));
        let cluster = Cluster::start(&Options {
            settings: vec![
                ("ssl", "on".into()),
                ("ssl_cert_file", own.certificate.display().to_string()),
                ("ssl_key_file", own.key.display().to_string()),
            ],
            ..Options::default()
        });
        let cluster = cluster.expect("there is PostgreSQL");
        cluster.sql("CREATE DATABASE bazaar");
        Some(Self {
            cluster,
            own,
            others,
            _dirs: dirs,
        })
    }
}

#[tokio::test]
async fn with_verify_full_only_the_host_that_was_asked_for_is_believed() {
    let Some(server) = Encrypting::start() else {
        return;
    };
    let Encrypting {
        cluster,
        own,
        others,
        ..
    } = &server;
    let port = cluster.port();
    let open = async |host: &str, mode: &str, roots: Option<&Certificates>| {
        let roots = roots.map(|roots| format!("&sslrootcert={}", roots.authority.display()));
        let roots = roots.unwrap_or_default();
        let url = format!("postgres://{SUPERUSER}@{host}:{port}/bazaar?sslmode={mode}{roots}");
        let mut store = open(options(&url)).await?;
        let is_encrypted = cluster.sql(
            "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
             WHERE application_name = 'bazaar catalog'",
        );
        store.close().await?;
        Ok::<bool, OpenError>(is_encrypted == "t")
    };
    // The certificate is for `localhost` alone.
    for (host, mode, roots, encrypted) in [
        ("localhost", "verify-full", Some(own), true),
        ("127.0.0.1", "verify-ca", Some(own), true),
        ("127.0.0.1", "require", Some(own), true),
        ("127.0.0.1", "require", None, true),
        ("127.0.0.1", "prefer", None, true),
        ("127.0.0.1", "disable", None, false),
    ] {
        let opened = open(host, mode, roots).await;
        let opened = opened.unwrap_or_else(|error| panic!("{mode} {host}: {error}"));
        assert_eq!(opened, encrypted, "{mode}");
    }
    for (host, mode, roots) in [
        ("127.0.0.1", "verify-full", own),
        ("localhost", "verify-full", others),
        ("localhost", "verify-ca", others),
        ("localhost", "require", others),
    ] {
        match open(host, mode, Some(roots)).await {
            Err(OpenError::Refused(PostgresError::Connect { problem, .. })) => {
                let said = "the other end's certificate ";
                assert!(problem.contains(said), "{mode} {host}: {problem}");
            }
            other => panic!("{mode} {host}: {other:?}"),
        }
    }
}

/// A catalog that stands by was started long before it is connected again.
#[tokio::test]
async fn a_server_is_believed_by_the_authorities_that_the_file_names_when_it_is_connected_to() {
    let Some(server) = Encrypting::start() else {
        return;
    };
    let Encrypting {
        cluster,
        own,
        others,
        ..
    } = &server;
    let dir = tempfile::tempdir().unwrap();
    let roots = dir.path().join("roots.pem");
    std::fs::copy(&own.authority, &roots).unwrap();
    let url = format!(
        "postgres://{SUPERUSER}@localhost:{}/bazaar?sslmode=verify-full&sslrootcert={}",
        cluster.port(),
        roots.display()
    );
    let options = options(&url);
    let connect = async || {
        let mut store = open(options.clone()).await?;
        store.close().await?;
        Ok::<_, OpenError>(())
    };
    connect().await.unwrap();
    // A file that is just being written changes nothing.
    std::fs::write(&roots, "").unwrap();
    connect().await.unwrap();
    // The server gets a certificate by another authority.
    std::fs::copy(&others.certificate, &own.certificate).unwrap();
    std::fs::copy(&others.key, &own.key).unwrap();
    cluster.sql("SELECT pg_reload_conf()");
    let began = Instant::now();
    while connect().await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "the server shows what it did");
    }
    std::fs::copy(&others.authority, &roots).unwrap();
    connect().await.unwrap();
}
