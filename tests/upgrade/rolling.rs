//! A bazaar under TLS, each process of which is exchanged for one of the same release, with a certificate that was made just
//! before by the same authority: clients over HTTPS notice nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tokio::runtime::Builder;

use super::clients::{Load, Way, under_load, while_followed};
use super::{Deployment, EDGE, REPLICAS, exchange_all, judge, now};
use crate::harness::{Bazaar, Options, Order, Server, alone, handshake, run_ok};

/// Answers that there are to be of each kind while a process is exchanged.
const ANSWERS: usize = 20;

/// Whose certificate a server shows, as `bazaar cert` has it: a role, and a name.
fn principal(server: Server) -> (&'static str, String) {
    match server {
        Server::Catalog | Server::OtherCatalog => ("catalog", "catalog".to_owned()),
        Server::Order(id) => ("order", id.to_string()),
        Server::Gateway(_) => ("gateway", "gateway".to_owned()),
    }
}

/// Has a server's certificate and key made anew.
fn renew(bazaar: &Bazaar, server: Server) {
    let (role, name) = principal(server);
    let (certs, whose) = (bazaar.certs(), format!("--for={role}/{name}"));
    let certs = certs.to_str().expect("its path is text");
    let made = run_ok(["cert", "new", certs, "--renew", &whose]);
    assert_eq!(made.lines().count(), 1, "{made}");
}

/// Whether a server shows the certificate in that file.
fn shows(server: SocketAddr, certificate: &Path) -> bool {
    let config = tls::client::pinned(certificate).unwrap();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(handshake(server, config)).is_ok()
}

#[test]
fn a_bazaar_under_tls_is_restarted_process_by_process_with_new_certificates_and_no_request_fails() {
    let mut bazaar = Bazaar::start(Options {
        secured: true,
        lease_ms: 300,
        ..Options::default()
    });
    let deployment = Deployment {
        prepare: renew,
        ..Deployment::secured(&mut bazaar)
    };
    let _alone = alone();
    bazaar.trade(&Order::buy(1, "nvidia"));
    let shown = REPLICAS.map(Server::Order).into_iter();
    let shown = shown.chain([Server::Catalog, EDGE]).map(|server| {
        let file = match principal(server) {
            ("order", id) => format!("order-{id}.crt"),
            (role, _) => format!("{role}.crt"),
        };
        let file = bazaar.certs().join(file);
        let before = fs::read(&file).unwrap();
        (bazaar.server_address(server), file, before)
    });
    let shown: Vec<_> = shown.collect();

    let load = Load {
        ways: vec![Way::Http2(deployment.endpoint.clone())],
        answers: ANSWERS,
    };
    let mut placed = 0;
    let followers = while_followed(&mut bazaar, &deployment.endpoint, |bazaar, followers| {
        followers.expect_events();
        let what = "restarted with new certificates";
        placed = under_load(bazaar, &load, what, |bazaar, clients| {
            exchange_all(bazaar, &deployment, clients, &now());
        });
    });
    for (address, file, before) in shown {
        assert_ne!(fs::read(&file).unwrap(), before, "{}", file.display());
        assert!(shows(address, &file), "{}", file.display());
    }
    judge(&bazaar, placed, followers);
}
