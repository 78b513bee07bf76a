//! What services say of themselves at `--metrics`: on their own machine to everybody, beyond it over TLS, and there to probes
//! that they live, and to the cluster alone what their figures are.

use std::net::{IpAddr, Ipv4Addr};

use test_postgres::free_port;

use super::*;

/// Starts a server again, which is asked for its metrics at that address from then on, and is asked here by the one returned.
fn monitored(bazaar: &mut Bazaar, server: Server, at: Ipv4Addr) -> SocketAddr {
    let port = free_port();
    let metrics = SocketAddr::new(IpAddr::V4(at), port);
    bazaar.server(server).kill();
    bazaar.start_server_with(server, vec![format!("--metrics={metrics}")]);
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

/// Asks as whoever has that certificate does, if any.
fn asked(
    at: SocketAddr,
    (authority, own): (&Path, Option<&Files>),
    target: &str,
) -> io::Result<(u16, String)> {
    runtime().block_on(ask(at, client(authority, own), ("GET", target)))
}

#[test]
fn beyond_its_machine_a_service_tells_everybody_that_it_lives_and_the_cluster_alone_its_figures() {
    let mut bazaar = secured(1);
    let (certs, follower) = (bazaar.certs(), bazaar.follower());
    let ca = certs.join("ca.crt");
    let services = [
        ("catalog".to_owned(), Server::Catalog),
        (format!("order-{follower}"), Server::Order(follower)),
    ];
    let everywhere = services.map(|(name, server)| {
        let at = monitored(&mut bazaar, server, Ipv4Addr::UNSPECIFIED);
        (name, server, at)
    });
    let other = tempfile::tempdir().unwrap();
    run_ok(["cert", "new", other.path().to_str().unwrap()]);
    for (name, server, at) in everywhere {
        wait_until(&format!("{server} to be ready"), || {
            asked(at, (&ca, None), "/readyz").is_ok_and(|(status, _)| status == 200)
        });
        for (who, target, status, said) in [
            (None, "/healthz", 200, "ok"),
            (None, "/metrics", 403, "a certificate of the cluster's"),
            (None, "/nothing", 403, "a certificate of the cluster's"),
            (Some("viewer"), "/metrics", 200, "\nbazaar_ready 1\n"),
            (Some("operator"), "/metrics", 200, "\nbazaar_ready 1\n"),
            (Some("gateway"), "/metrics", 200, "\nbazaar_ready 1\n"),
            (Some("order-1"), "/metrics", 200, "\nbazaar_ready 1\n"),
            (Some("viewer"), "/nothing", 404, "there are /healthz"),
        ] {
            let own = who.map(|who| files(&certs, who));
            let answer = asked(at, (&ca, own.as_ref()), target).unwrap();
            let what = format!("{who:?} asks {server} for {target}: {answer:?}");
            assert!(answer.0 == status && answer.1.contains(said), "{what}");
        }
        let stranger = files(other.path(), "viewer");
        let refused = asked(at, (&ca, Some(&stranger)), "/metrics");
        assert!(refused.is_err(), "{refused:?}");
        let plain = try_request(at, "GET", "/metrics", &[], b"", PATIENCE);
        assert!(plain.is_err(), "{plain:?}");
        // And its certificate is read anew, as everywhere.
        let is_shown = || {
            let config = tls::client::pinned(&certs.join(format!("{name}.crt"))).unwrap();
            runtime().block_on(handshake(at, config)).is_ok()
        };
        assert!(is_shown());
        bazaar.certify(&["--renew"]);
        wait_until("the new certificate to be shown", is_shown);
        let viewer = files(&certs, "viewer");
        assert_eq!(asked(at, (&ca, Some(&viewer)), "/metrics").unwrap().0, 200);
    }
    // On the machine itself whoever is there may read them.
    let own = monitored(&mut bazaar, Server::Order(follower), Ipv4Addr::LOCALHOST);
    wait_until("its listener", || {
        let answer = try_request(own, "GET", "/metrics", &[], b"", PATIENCE);
        answer.is_ok_and(|answer| answer.status == 200)
    });
}
