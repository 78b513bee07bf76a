//! Disks that are full, and a catalog that is away: what goes on, and what waits.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Bazaar, Options, Order, Server, SmallDisk, guest, in_own_network, lose_connections_to, request,
    try_request, wait_until,
};

/// Orders until one is refused for want of room: what the write-ahead log has room for already
/// still fits.
const TRADES_MAX: u64 = 5000;

const LEASE_MS: u64 = 400;

fn with_small_disk(server: Server) -> Option<Bazaar> {
    SmallDisk::is_possible().then(|| {
        Bazaar::start(Options {
            small_disks: vec![server],
            lease_ms: LEASE_MS,
            monitored: true,
            ..Options::default()
        })
    })
}

#[test]
fn a_catalog_whose_disk_is_full_refuses_trades_serves_reads_and_goes_on_when_it_has_room() {
    let Some(mut bazaar) = with_small_disk(Server::Catalog) else {
        return;
    };
    bazaar.trade(&Order::sell(1, "nvidia"));
    bazaar.disk(Server::Catalog).fill();
    let filled = Instant::now();
    let refused = (0..TRADES_MAX)
        .map(|_| bazaar.order(&Order::sell(1, "nvidia")))
        .find(|answer| answer.status != 200)
        .expect("the disk is full");
    assert_eq!(refused.error().0, 503);
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let metrics = bazaar.metrics_address(Server::Catalog);
    let metrics = request(metrics, "GET", "/metrics", &[], b"").body;
    let failed = "bazaar_catalog_commits_total{result=\"failed\"} ";
    let failed = metrics.lines().find_map(|line| line.strip_prefix(failed));
    assert!(failed.is_some_and(|many| many != "0"), "{metrics}");
    let acknowledged = bazaar.acknowledged();

    // Reads go on, and tell of all that was acknowledged.
    let sold = i64::try_from(acknowledged).unwrap();
    assert_eq!(bazaar.quantity("nvidia"), 1000 + sold);
    assert_eq!(bazaar.quantity("meta"), 1000);
    assert_eq!(bazaar.get("/orders/0").data()["name"], "nvidia");
    assert!(bazaar.server(Server::Catalog).is_running());

    // Whoever asks is told why, and the logs say it once a second at most.
    wait_until("the gateway to say why", || {
        let ready = bazaar.admin("GET", "/readyz", b"");
        ready.status == 503 && ready.error().1.contains("commits fail")
    });
    let seconds = usize::try_from(filled.elapsed().as_secs()).unwrap();
    let said = bazaar.server(Server::Catalog).log();
    let said = said.matches("a commit failed").count();
    assert!(
        (1..=seconds + 1).contains(&said),
        "{said} times in {seconds} s"
    );
    for id in [1, 2, 3] {
        let said = bazaar.server(Server::Order(id)).log();
        let said = said.matches("holds the whole journal").count();
        assert!(said <= 10, "replica {id}: {said} times");
    }
    bazaar.disk(Server::Catalog).free();
    // No client is needed for it to find out.
    bazaar.wait_until_ready();
    wait_until("a trade", || {
        bazaar.order(&Order::sell(1, "meta")).status == 200
    });
    bazaar.check_acknowledged();
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

#[test]
fn a_catalog_that_is_killed_with_a_full_disk_has_every_acknowledged_order() {
    let Some(mut bazaar) = with_small_disk(Server::Catalog) else {
        return;
    };
    bazaar.trade(&Order::sell(1, "nvidia"));
    bazaar.disk(Server::Catalog).fill();
    while bazaar.order(&Order::sell(1, "nvidia")).status == 200 {}
    bazaar.kill_catalog();
    bazaar.disk(Server::Catalog).free();
    bazaar.restart_catalog();
    wait_until("a trade", || {
        bazaar.order(&Order::sell(1, "meta")).status == 200
    });
    bazaar.check_acknowledged();
    bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
}

/// So often a bazaar is started for one that the highest replica leads.
const STARTS_MAX: usize = 5;

#[test]
fn a_replica_whose_disk_is_full_is_not_missed_whether_it_leads_or_follows() {
    for leads in [true, false] {
        // The default policy has the highest lead.
        let full = Server::Order(if leads { 3 } else { 1 });
        // Which on a busy machine may be there too late to lead from the start on.
        let start = || {
            let bazaar = with_small_disk(full)?;
            bazaar.trade(&Order::sell(1, "nvidia"));
            Some(bazaar)
        };
        let mut starts = (0..STARTS_MAX).map_while(|_| start());
        let Some(mut bazaar) = starts.find(|bazaar| bazaar.leader() == 3) else {
            assert!(
                with_small_disk(full).is_none(),
                "another one leads each time"
            );
            return;
        };
        bazaar.disk(full).fill();
        for _ in 0..600 {
            let answer = bazaar.order(&Order::sell(1, "nvidia"));
            assert!([200, 503].contains(&answer.status), "{answer:?}");
        }
        wait_until("a trade", || {
            bazaar.order(&Order::sell(1, "meta")).status == 200
        });
        bazaar.check_acknowledged();
        assert!(bazaar.server(full).is_running());

        bazaar.disk(full).free();
        bazaar.wait_for_equal_ledgers(&[1, 2, 3]);
        bazaar.check_acknowledged();
    }
}

const AGE_MAX: Duration = Duration::from_millis(300);
const AGE_ON_ERROR_MAX: Duration = Duration::from_millis(4_000);

/// How long an answer may take that the gateway has, on a busy machine.
const AT_ONCE: Duration = Duration::from_millis(1_500);

#[test]
fn bounded_staleness_outlives_the_catalog_within_its_bound_and_linearizable_reads_do_not() {
    // The first gateway serves what is old, within bounds; the second what is current.
    let mut bazaar = Bazaar::start(Options {
        policies: vec![Some(guest("brief")), None],
        gateways: 2,
        lease_ms: LEASE_MS,
        ..Options::default()
    });
    let [stale, current] = [0, 1].map(|gateway| bazaar.gateway_address(gateway));
    let look_up = |gateway| {
        let patience = Duration::from_secs(20);
        let began = Instant::now();
        let answer = try_request(gateway, "GET", "/stocks/nvidia", &[], b"", patience);
        (answer.expect("a gateway answers"), began.elapsed())
    };

    // A trade is seen by then where old numbers are served, and at once where they are not.
    assert_eq!(look_up(stale).0.data()["quantity"], 1000);
    assert_eq!(look_up(current).0.data()["quantity"], 1000);
    bazaar.trade(&Order::sell(7, "nvidia"));
    assert_eq!(look_up(current).0.data()["quantity"], 1007);
    thread::sleep(AGE_MAX);
    assert_eq!(look_up(stale).0.data()["quantity"], 1007);

    // What either has now is at most as old as this. Outages begin.
    look_up(current).0.data();
    bazaar.kill_catalog();
    let killed = Instant::now();
    let mut outlived = false;
    loop {
        let asked = killed.elapsed();
        let (answer, took) = look_up(stale);
        if answer.status == 200 {
            assert!(
                asked <= AGE_ON_ERROR_MAX,
                "served {asked:?} after the last answer"
            );
            assert_eq!(answer.data()["quantity"], 1007);
            assert!(took < AT_ONCE, "what it has took it {took:?}");
            outlived |= asked > AGE_MAX + Duration::from_millis(LEASE_MS);
        } else {
            assert_eq!(answer.error().0, 503);
            assert!(
                asked + took > AGE_ON_ERROR_MAX / 2,
                "given up {asked:?} after"
            );
            break;
        }
    }
    assert!(outlived, "nothing was served from before the outage");
    // Its lease is over by now.
    for target in ["/stocks/nvidia", "/stocks/meta", "/stocks"] {
        let answer = try_request(current, "GET", target, &[], b"", Duration::from_secs(20));
        assert_eq!(
            answer.expect("a gateway answers").error().0,
            503,
            "{target}"
        );
    }

    bazaar.restart_catalog();
    bazaar.wait_until_ready();
    for gateway in [stale, current] {
        assert_eq!(look_up(gateway).0.data()["quantity"], 1007);
    }
}

/// As where a router on the way forgets them. By keep-alive alone that is found out after 4 s, and a read
/// has 3 s.
#[test]
fn connections_whose_packets_are_lost_are_made_anew_before_a_request_fails() {
    if !in_own_network() {
        return;
    }
    let bazaar = Bazaar::start_default();
    bazaar.trade(&Order::sell(1, "nvidia"));
    let catalog = bazaar.server_address(Server::Catalog).port();
    assert!(lose_connections_to(catalog) > 0);
    assert_eq!(bazaar.quantity("meta"), 1000);
    assert!(lose_connections_to(catalog) > 0);
    bazaar.trade(&Order::sell(1, "meta"));
    bazaar.check_acknowledged();
}

#[test]
fn a_gateway_is_not_ready_while_the_catalog_waits_for_leases_of_before() {
    let mut bazaar = Bazaar::start(Options {
        lease_ms: 4000,
        ..Options::default()
    });
    bazaar.trade(&Order::sell(1, "nvidia"));
    bazaar.kill_catalog();
    bazaar.restart_catalog();
    wait_until("the gateway to say what is waited for", || {
        let ready = bazaar.admin("GET", "/readyz", b"");
        // It is the catalog that holds trades up; the leader, and this gateway's session, are there.
        ready.status == 503
            && ready.error().1.starts_with("the catalog waits ")
            && ready
                .error()
                .1
                .contains(" s more for leases of before its start")
    });
    assert_eq!(bazaar.status()["ready"], false);
    bazaar.wait_until_ready();
    bazaar.trade(&Order::sell(1, "nvidia"));
}

/// Nobody knows by then whether the release before is still to come back.
#[test]
fn a_policy_that_the_release_before_could_not_start_waits_for_the_catalog() {
    let mut bazaar = Bazaar::start_default();
    let component = fs::read(guest("marked")).unwrap();
    assert!(bazaar.server(Server::Gateway(0)).terminate().success());
    bazaar.kill_catalog();
    bazaar.start_server(Server::Gateway(0));
    let (admin, patience) = (bazaar.admin_address(), Duration::from_secs(5));
    wait_until("the gateway to answer operators", || {
        let alive = try_request(admin, "GET", "/healthz", &[], b"", patience);
        alive.is_ok_and(|alive| alive.status == 200)
    });
    let refused = bazaar.admin("PUT", "/policy", &component);
    assert_eq!(refused.status, 503, "{refused:?}");
    let why = refused.error().1;
    assert!(why.contains("the catalog has not said yet"), "{why}");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    bazaar.restart_catalog();
    bazaar.wait_until_ready();
    let pushed = bazaar.admin("PUT", "/policy", &component);
    assert_eq!(pushed.status, 200, "{pushed:?}");
}
