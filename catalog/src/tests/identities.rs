//! What one may have where callers prove who they are: it is counted by that, not by connections.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};

use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use tempfile::TempDir;
use tls::{Cluster, Expected, Files, Role};
use tonic::Code;

use super::harness::{
    Client, Elector, LONG_LEASE, Leader, Running, SHORT_LEASE, Session, disk, read_stock, until,
};
use crate::config::{SESSIONS_PER_CLIENT_MAX, SESSIONS_PER_PRINCIPAL_MAX};

/// Who vouches for all services of a cluster.
struct Authority {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
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

    /// A service that has a certificate of its own.
    fn service(&self, is: Expected, name: &str) -> Cluster {
        let role = match is {
            Expected::Role(role) => role,
            Expected::Replica(_) => Role::Order,
        };
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        ];
        let uri = format!("spiffe://bazaar/{}/{name}", role.name());
        params.subject_alt_names = vec![
            SanType::URI(uri.as_str().try_into().unwrap()),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        ];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let file = |suffix: &str| {
            self.dir
                .path()
                .join(format!("{}-{name}.{suffix}", role.name()))
        };
        let files = Files {
            authorities: self.dir.path().join("ca.crt"),
            certificate: file("crt"),
            key: file("key"),
        };
        fs::write(&files.certificate, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        Cluster::load(&files, is).unwrap()
    }

    fn catalog(&self) -> Cluster {
        self.service(Expected::Role(Role::Catalog), "a")
    }

    fn gateway(&self, name: &str) -> Cluster {
        self.service(Expected::Role(Role::Gateway), name)
    }

    /// The replica that tests elect.
    fn leader(&self) -> Cluster {
        self.service(Expected::Replica("3".parse().unwrap()), "3")
    }
}

/// An address of this machine's, of which each counts as a network of its own.
fn network(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, number)
}

/// Two connections of one and the same.
fn two_of(running: &Running, cluster: &Cluster) -> [Client; 2] {
    [running.client_of(cluster), running.client_of(cluster)]
}

#[tokio::test]
async fn connections_of_one_certificate_share_its_sessions_and_another_of_the_host_has_its_own() {
    let authority = Authority::new();
    let running = Running::start_secured(&disk(), LONG_LEASE, authority.catalog()).await;
    let connections = two_of(&running, &authority.gateway("one"));
    let mut sessions = Vec::new();
    for number in 0..SESSIONS_PER_CLIENT_MAX {
        sessions.push(Session::open(&connections[number % 2]).await);
    }
    for connection in &connections {
        let refused = Session::try_open(connection).await.err();
        let refused = refused.expect("one too many");
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    }
    let other = running.client_of(&authority.gateway("other"));
    sessions.push(Session::open(&other).await);
    running.stop().await;
}

#[tokio::test]
async fn who_never_acknowledges_on_several_connections_is_lent_nothing_after_a_few_times_in_all() {
    let authority = Authority::new();
    let running = Running::start_secured(&disk(), SHORT_LEASE, authority.catalog()).await;
    let gateway = authority.gateway("one");
    let elected = Elector(running.client_of(&gateway)).elect_leader().await;
    let leader = Leader {
        client: running.client_of(&authority.leader()),
        ..elected
    };
    let (hostile, mut reader) = (two_of(&running, &gateway), running.client_of(&gateway));
    let mut held = 0;
    for number in 0..10 {
        let session = Session::open(&hostile[number % 2]).await;
        held += u32::from(read_stock(&mut reader, "acme", session.id).await.1);
        // As long as it holds the stock, this waits for its lease.
        let bought = leader.start_buy(&format!("key-{number}"), "acme");
        bought.await.unwrap().unwrap();
    }
    assert!((1..=5).contains(&held), "lent {held} times of 10");
    let other = running.client_of(&authority.gateway("other"));
    let lent = "another gateway of this host to be lent what it asks for";
    until(lent, async || {
        // On a busy machine a lease may be over before anything is asked for under it.
        match Session::try_open(&other).await {
            Ok(session) => read_stock(&mut reader, "acme", session.id).await.1,
            Err(_) => false,
        }
    })
    .await;
    running.stop().await;
}

#[tokio::test]
async fn one_certificate_has_no_more_than_half_of_all_sessions_from_however_many_networks() {
    let authority = Authority::new();
    let running = Running::start_secured(&disk(), LONG_LEASE, authority.catalog()).await;
    let gateway = authority.gateway("one");
    let mut sessions = Vec::new();
    let networks = SESSIONS_PER_PRINCIPAL_MAX / SESSIONS_PER_CLIENT_MAX;
    for number in 0..networks as u8 {
        let client = running.client_from(network(number), &gateway).await;
        for _ in 0..SESSIONS_PER_CLIENT_MAX {
            sessions.push(Session::open(&client).await);
        }
    }
    let elsewhere = network(networks as u8);
    let further = running.client_from(elsewhere, &gateway).await;
    let refused = Session::try_open(&further).await.err();
    let refused = refused.expect("one too many");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(refused.message().contains("gateway/one"), "{refused}");
    let other = authority.gateway("other");
    let other = running.client_from(elsewhere, &other).await;
    sessions.push(Session::open(&other).await);
    running.stop().await;
}

#[tokio::test]
async fn who_never_acknowledges_from_one_network_after_the_other_is_lent_nothing_after_a_while() {
    let authority = Authority::new();
    let running = Running::start_secured(&disk(), SHORT_LEASE, authority.catalog()).await;
    let gateway = authority.gateway("one");
    let elected = Elector(running.client_of(&gateway)).elect_leader().await;
    let leader = Leader {
        client: running.client_of(&authority.leader()),
        ..elected
    };
    let mut reader = running.client_of(&gateway);
    let (networks, turns_each) = (20, 2);
    let mut held = 0;
    for number in 0..networks {
        // None of them too often for itself.
        let hostile = running.client_from(network(number), &gateway).await;
        for turn in 0..turns_each {
            let session = Session::open(&hostile).await;
            held += u32::from(read_stock(&mut reader, "acme", session.id).await.1);
            let bought = leader.start_buy(&format!("key-{number}-{turn}"), "acme");
            bought.await.unwrap().unwrap();
        }
    }
    // 14 times where it holds each trade up for almost a lease, more where a busy machine takes a part of that.
    assert!((1..36).contains(&held), "lent {held} times of 40");
    let other = running.client_of(&authority.gateway("other"));
    let lent = "a gateway of another name to be lent what it asks for";
    until(lent, async || match Session::try_open(&other).await {
        Ok(session) => read_stock(&mut reader, "acme", session.id).await.1,
        Err(_) => false,
    })
    .await;
    running.stop().await;
}
