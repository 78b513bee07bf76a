//! Limits of policies, over several gateways of one catalog.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use crate::catalogs::{is_active, replicated, roles};
use crate::harness::{
    Bazaar, Conduct, Link, Options, Server, guest, request, try_request, wait_until,
};

/// Lookups that `metered` grants to all clients together, before a day is over.
const BURST: usize = 30;

/// Longer than a gateway waits for the catalog.
const PATIENCE: Duration = Duration::from_secs(20);

fn metered(gateways: usize) -> Options {
    Options {
        gateways,
        policy: Some(guest("metered")),
        ..Options::default()
    }
}

fn look_up(gateway: SocketAddr) -> u16 {
    let answer = try_request(gateway, "GET", "/stocks/nvidia", &[], b"", PATIENCE);
    answer.expect("a gateway answers").status
}

/// Looks up so often at each of the gateways, by two clients of each at once; how often that was granted.
fn granted(gateways: &[SocketAddr], lookups: usize) -> usize {
    let client = |gateway| {
        let statuses = (0..lookups).map(move |_| look_up(gateway));
        let count = |granted, status| match status {
            200 => granted + 1,
            429 => granted,
            other => panic!("{other}"),
        };
        statuses.fold(0, count)
    };
    thread::scope(|scope| {
        let twice = gateways.iter().flat_map(|gateway| [*gateway; 2]);
        let clients: Vec<_> = twice
            .map(|gateway| scope.spawn(move || client(gateway)))
            .collect();
        clients.into_iter().map(|it| it.join().unwrap()).sum()
    })
}

#[test]
fn clients_of_any_number_of_gateways_get_one_burst_together() {
    for gateways in [1, 2, 3] {
        let bazaar = Bazaar::start(metered(gateways));
        let all: Vec<_> = (0..gateways).map(|it| bazaar.gateway_address(it)).collect();
        assert_eq!(granted(&all, BURST), BURST, "{gateways} gateways");
        let denied = request(all[0], "GET", "/stocks/nvidia", &[], b"");
        let seconds: u32 = denied.header("retry-after").unwrap().parse().unwrap();
        assert!((80_000..=86_400).contains(&seconds), "{seconds}");
    }
}

#[test]
fn a_gateway_that_is_cut_off_from_the_catalog_grants_nothing_and_the_others_all_that_is_left() {
    let bazaar = Bazaar::start(Options {
        proxied: true,
        ..metered(3)
    });
    let gateways = [0, 1, 2].map(|gateway| bazaar.gateway_address(gateway));
    let mut sum = granted(&gateways, 2);
    assert_eq!(sum, 12);
    let catalog = bazaar.link(Link {
        from: Server::Gateway(1),
        to: Server::Catalog,
    });
    catalog.set(Conduct {
        holds_there: true,
        holds_back: true,
        ..Conduct::default()
    });
    let [first, cut_off, third] = gateways;
    assert_eq!(look_up(cut_off), 503);
    sum += granted(&[first, third], BURST);
    assert_eq!(sum, BURST);
    catalog.set(Conduct::default());
    // What it asked for meanwhile may arrive only now.
    wait_until("the gateway to reach the catalog", || {
        match look_up(cut_off) {
            503 => false,
            429 => true,
            other => panic!("{other}"),
        }
    });
    assert_eq!(granted(&gateways, 5), 0);
}

#[test]
fn a_burst_that_a_gateway_took_in_vain_is_not_granted_to_others_as_well() {
    let bazaar = Bazaar::start(Options {
        proxied: true,
        ..metered(2)
    });
    let [cut_off, other] = [0, 1].map(|gateway| bazaar.gateway_address(gateway));
    assert_eq!(look_up(cut_off), 200);
    let catalog = bazaar.link(Link {
        from: Server::Gateway(0),
        to: Server::Catalog,
    });
    // The catalog hears of it, and its answers do not come back.
    catalog.set(Conduct {
        holds_back: true,
        ..Conduct::default()
    });
    let statuses: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..10).map(|_| scope.spawn(|| look_up(cut_off))).collect();
        clients.into_iter().map(|it| it.join().unwrap()).collect()
    });
    assert_eq!(statuses, [503; 10]);
    let left = granted(&[other], BURST);
    assert!(left < BURST - 1, "{left} were left, as if none had arrived");
    catalog.reset();
    catalog.set(Conduct::default());
    wait_until("the gateway to reach the catalog", || {
        match look_up(cut_off) {
            503 => false,
            429 => true,
            other => panic!("{other}"),
        }
    });
    assert_eq!(granted(&[cut_off, other], 5), 0);
}

#[test]
fn a_catalog_that_stops_leaves_the_next_one_what_was_taken_and_no_other() {
    let mut bazaar = Bazaar::start(metered(2));
    let gateways = [0, 1].map(|gateway| bazaar.gateway_address(gateway));
    assert_eq!(granted(&gateways, 3), 12);
    assert!(bazaar.server(Server::Catalog).terminate().success());
    bazaar.restart_catalog();
    bazaar.wait_until_ready();
    assert_eq!(granted(&gateways, 2), 8);
    bazaar.kill_catalog();
    bazaar.restart_catalog();
    bazaar.wait_until_ready();
    assert_eq!(granted(&gateways, BURST), 0, "what was left was left once");
}

#[test]
fn a_catalog_over_postgresql_that_hands_over_leaves_the_other_one_what_was_taken() {
    let Some(cluster) = replicated() else { return };
    let mut bazaar = Bazaar::start(Options {
        store: Some(cluster.database("bazaar")),
        catalogs: 2,
        lease_ms: 300,
        ..metered(2)
    });
    let gateways = [0, 1].map(|gateway| bazaar.gateway_address(gateway));
    assert_eq!(granted(&gateways, 3), 12);
    let (active, standby) = roles(&bazaar);
    assert!(bazaar.server(active).terminate().success());
    bazaar.start_server(active);
    assert!(roles(&bazaar) == (standby, active));
    bazaar.wait_until_ready();
    assert_eq!(granted(&gateways, 2), 8);
    bazaar.server(standby).kill();
    bazaar.start_server(standby);
    roles(&bazaar);
    bazaar.wait_until_ready();
    assert_eq!(granted(&gateways, BURST), 0, "what was left was left once");
}

#[test]
fn a_catalog_that_comes_back_after_its_term_grants_nothing() {
    let Some(cluster) = replicated() else { return };
    let mut bazaar = Bazaar::start(Options {
        store: Some(cluster.database("bazaar")),
        catalogs: 2,
        lease_ms: 300,
        ..metered(2)
    });
    let gateways = [0, 1].map(|gateway| bazaar.gateway_address(gateway));
    assert_eq!(granted(&gateways, 3), 12);
    let (active, standby) = roles(&bazaar);
    bazaar.server(active).suspend();
    wait_until("the standby to be active", || is_active(&bazaar, standby));
    // Nobody knows what the other one has granted: until its last message is known to be lost, 503.
    for gateway in gateways {
        wait_until("it to be asked for tokens", || match look_up(gateway) {
            200 => panic!("it may have been granted before"),
            status => status == 429,
        });
    }
    bazaar.server(active).resume();
    wait_until("the catalog of before to end", || {
        !bazaar.server(active).is_running()
    });
    assert_eq!(granted(&gateways, BURST), 0);
    bazaar.start_server(active);
}

#[test]
fn a_catalog_that_is_killed_grants_nothing_that_it_may_have_granted_before() {
    let mut bazaar = Bazaar::start(metered(2));
    let gateways = [0, 1].map(|gateway| bazaar.gateway_address(gateway));
    assert_eq!(granted(&gateways, 3), 12);
    bazaar.kill_catalog();
    assert_eq!(look_up(gateways[0]), 503);
    bazaar.restart_catalog();
    bazaar.wait_until_ready();
    assert_eq!(granted(&gateways, BURST), 0);
    // What is not limited is served.
    let order = request(gateways[1], "GET", "/orders/0", &[], b"");
    assert_eq!(order.status, 404, "{order:?}");
}
