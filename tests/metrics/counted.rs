//! What is only seen while something is the matter: a replica that lags, trades that wait for a gateway's lease, elections, and
//! followers that fail.

use std::net::SocketAddr;
use std::time::Instant;

use super::{ask, monitored, value};
use crate::harness::{Conduct, Link, Options, Order, Server, request, wait_until};

/// Of those above it is known that they waited for a lease: whoever answers does so within milliseconds.
const LONG: f64 = 0.2;

fn sample(at: SocketAddr, name: &str) -> f64 {
    let text = ask(at);
    value(&text, &format!("{name} ")).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// It knows from the catalog how many rows there are. Those that do not come by themselves it fetches after a second.
#[test]
fn a_follower_that_is_cut_off_from_its_leader_says_how_far_it_is_behind_until_it_has_all() {
    let bazaar = monitored(Options {
        proxied: true,
        ..Options::default()
    });
    let (leader, follower) = (bazaar.leader(), bazaar.follower());
    let at = bazaar.metrics_address(Server::Order(follower));
    // Rows that it has, that it lacks, and for how many seconds.
    let rows = || {
        let text = ask(at);
        ["ledger_rows ", "lag_rows ", "lag_seconds "].map(|name| {
            let name = format!("bazaar_order_{name}");
            value(&text, &name).unwrap_or_else(|| panic!("no {name} in {text}"))
        })
    };
    let has_all = || rows() == [bazaar.acknowledged() as f64, 0.0, 0.0];
    let trade = || bazaar.trade(&Order::sell(1, "meta"));
    trade();
    wait_until("it to lack nothing", has_all);

    let link = bazaar.link(Link {
        from: Server::Order(leader),
        to: Server::Order(follower),
    });
    link.set(Conduct {
        holds_there: true,
        holds_back: true,
        ..Conduct::default()
    });
    wait_until("it to say that it lags", || {
        trade();
        let [_, lacks, seconds] = rows();
        lacks > 0.0 && seconds > 0.3
    });
    wait_until("it to have fetched what it lacked", has_all);

    link.set(Conduct::default());
    let catalog = bazaar.metrics_address(Server::Catalog);
    let in_sync = || sample(catalog, "bazaar_catalog_in_sync_replicas") == 3.0;
    wait_until("it to be in sync again", in_sync);
    trade();
    wait_until("it to lack nothing again", has_all);
}

#[test]
fn leases_are_counted_as_they_are_renewed_and_run_out_and_trades_that_wait_for_them() {
    let mut bazaar = monitored(Options {
        gateways: 2,
        ..Options::default()
    });
    let (gateway, catalog) = (Server::Gateway(1), Server::Catalog);
    let [gateway_at, catalog_at] = [gateway, catalog].map(|server| bazaar.metrics_address(server));
    let clients = bazaar.gateway_address(1);
    let of_gateway = |event: &str| {
        let name = format!("bazaar_session_events_total{{event=\"{event}\"}}");
        sample(gateway_at, &name)
    };
    let of_catalog = |event: &str| {
        let name = format!("bazaar_catalog_session_events_total{{event=\"{event}\"}}");
        sample(catalog_at, &name)
    };
    // Trades that waited long for caches, and how long all have.
    let waited = || {
        let text = ask(catalog_at);
        let stage = |part: &str, bound: &str| {
            let name = format!("bazaar_trade_stage_seconds_{part}{{stage=\"show\"{bound}}} ");
            value(&text, &name).unwrap_or_else(|| panic!("no {name} in {text}"))
        };
        let short = stage("bucket", &format!(",le=\"{LONG}\""));
        (stage("count", "") - short, stage("sum", ""))
    };

    let (renewed, lent) = (of_gateway("renewed"), of_catalog("renewed"));
    wait_until("the leases of both to be renewed", || {
        of_gateway("renewed") > renewed && of_catalog("renewed") > lent + 1.0
    });
    wait_until("it to hold a stock", || {
        let answer = request(clients, "GET", "/stocks/meta", &[], b"");
        answer
            .header("cache-status")
            .is_some_and(|it| it.contains("hit"))
    });

    let (long, sum) = waited();
    let (expired, lost) = (of_catalog("expired"), of_gateway("lost"));
    bazaar.server(gateway).suspend();
    let began = Instant::now();
    bazaar.trade(&Order::sell(1, "meta"));
    let took = began.elapsed().as_secs_f64();
    bazaar.server(gateway).resume();
    let (long_after, sum_after) = waited();
    assert!(took > LONG, "it took {took} s");
    assert_eq!(long_after, long + 1.0, "of {sum} s, then {sum_after} s");
    let waited_for = sum_after - sum;
    // An order that is not answered within a second is asked about once more, and then waits as well.
    assert!(
        (LONG..2.0 * took).contains(&waited_for),
        "{waited_for} of {took}"
    );
    assert_eq!(of_catalog("expired"), expired + 1.0);

    wait_until("it to have noticed, and another lease", || {
        of_gateway("lost") > lost && sample(gateway_at, "bazaar_lease_valid") == 1.0
    });
}

#[test]
fn elections_are_counted_where_they_are_asked_for_and_made_and_calls_to_who_is_gone() {
    let mut bazaar = monitored(Options::default());
    let [gateway, catalog] =
        [Server::Gateway(0), Server::Catalog].map(|server| bazaar.metrics_address(server));
    let elections = || {
        [
            sample(gateway, "bazaar_elections_total{result=\"elected\"}"),
            sample(catalog, "bazaar_catalog_elections_total"),
        ]
    };
    let (killed, before) = (bazaar.leader(), elections());
    bazaar.kill(killed);
    wait_until("an election to be counted by both", || {
        let mut both = elections().into_iter().zip(before);
        both.all(|(now, before)| now > before)
    });
    let mut leader = killed;
    wait_until("another leader to be known", || {
        leader = bazaar.leader();
        leader != killed
    });
    let at = bazaar.metrics_address(Server::Order(leader));
    let failures = format!("bazaar_order_append_failures_total{{follower=\"{killed}\"}}");
    wait_until("calls to the one that is gone to be counted", || {
        sample(at, &failures) > 0.0
    });
}
