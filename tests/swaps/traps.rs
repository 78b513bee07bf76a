//! What a version that traps costs, and what others notice of it.

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Bazaar, KeepAlive, Options, Raise, Server, Spread, alone, guest, no_latencies, number,
};

use super::load::CLIENT_HEADER;

/// Requests of a batch that trap, and of one that do not: processor time is told in steps of 10 ms, of which
/// either is to take many.
const TRAPS: u64 = 400;
const HARMLESS: u64 = 2_000;

/// Clients that look up while one has the version trap, and for how long.
const OTHERS: u64 = 8;
const TIME: Duration = Duration::from_millis(500);

/// The version is not taken out of service, whatever it fails.
fn bazaar() -> Bazaar {
    let bazaar = Bazaar::start(Options {
        gateway_flags: vec![
            format!("--client-header={CLIENT_HEADER}"),
            "--probation-failures-max=1000000".to_owned(),
        ],
        ..Options::default()
    });
    let component = fs::read(guest("traps")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &component).status, 200);
    bazaar
}

fn lookup(name: &str, client: u64) -> Vec<u8> {
    format!("GET /stocks/{name} HTTP/1.1\r\nhost: bazaar\r\n{CLIENT_HEADER}: {client}\r\n\r\n")
        .into_bytes()
}

/// How often the version has trapped.
fn traps(bazaar: &Bazaar) -> u64 {
    let active = bazaar.status()["policy"]["active"].take();
    assert_eq!(active["name"], "traps", "{active}");
    active["traps"].as_u64().expect("a number")
}

/// Each request is of a client of its own, for a path of its own: so none is broken off. The version behind
/// answers what traps.
#[test]
fn what_a_trap_costs_in_processor_time_is_measured() {
    let _alone = alone();
    let mut bazaar = bazaar();
    let mut connection = KeepAlive::connect(bazaar.address()).unwrap();
    let mut asked = 0;
    let mut cost = |bazaar: &mut Bazaar, name: &str, requests: u64, trapping: u64| {
        let trapped = traps(bazaar);
        let gateway = Server::Gateway(0);
        let before = bazaar.server(gateway).processor_time();
        for _ in 0..requests {
            asked += 1;
            let answer = connection.exchange(&lookup(&format!("{name}{asked}"), asked));
            let answer = answer.expect("an answer to every request");
            assert_eq!(answer.status, 404, "{answer:?}");
        }
        let took = bazaar.server(gateway).processor_time() - before;
        assert_eq!(traps(bazaar) - trapped, trapping, "{name}");
        took.as_micros() as f64 / requests as f64
    };
    let ratios = (0..number("BAZAAR_SWAPS_SECONDS", 3)).map(|_| {
        let none = cost(&mut bazaar, "none", HARMLESS, 0);
        let trap = cost(&mut bazaar, "trap", TRAPS, TRAPS);
        println!(
            "a request of a stock that is not there costs {none:.0} us, one that traps {trap:.0} us"
        );
        trap / none
    });
    let name = "processor time of a request that traps as a ratio";
    println!("{name}: {:.2}", Spread::of(ratios));
}

/// Beside what they notice of the same client while it asks for what costs little, and of nobody, in turns.
#[test]
fn what_others_notice_of_a_client_that_makes_a_version_trap_is_measured() {
    let _alone = alone();
    let bazaar = bazaar();
    let mut client = OTHERS;
    let mut p99 = |name: Option<&str>| {
        let before = traps(&bazaar);
        client += 1; // of which nothing is known
        let (asked, p99) = beside(&bazaar, name.map(|name| (client, name)));
        (asked, traps(&bazaar) - before, p99)
    };
    let ratios = (0..number("BAZAAR_SWAPS_SECONDS", 3)).map(|_| {
        let (_, _, alone) = p99(None);
        let (harmless, _, none) = p99(Some("none"));
        let (asked, trapped, trap) = p99(Some("trap"));
        assert!(trapped > 0);
        println!(
            "p99 of others {alone} us alone, {none} us beside {harmless} requests of a client, and {trap} us \
             beside {asked} of which {trapped} trap"
        );
        (trap as f64 / alone as f64, trap as f64 / none as f64)
    });
    let (to_alone, to_none): (Vec<_>, Vec<_>) = ratios.unzip();
    let name = "p99 of others beside a client that makes a version trap, to that";
    println!("{name} alone: {:.2}", Spread::of(to_alone));
    println!(
        "{name} beside a client that does not: {:.2}",
        Spread::of(to_none)
    );
}

/// How many requests a client makes that asks for a name and numbers as fast as it can, if there is one; and
/// the p99 of others meanwhile, in microseconds.
fn beside(bazaar: &Bazaar, client: Option<(u64, &str)>) -> (u64, u64) {
    let (asked, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let latencies = Mutex::new(no_latencies());
    let ask = |client: u64, name: &str| {
        let mut connection = KeepAlive::connect(bazaar.address()).unwrap();
        while !done.load(Ordering::Relaxed) {
            let number = asked.fetch_add(1, Ordering::Relaxed);
            let answer = connection.exchange(&lookup(&format!("{name}{number}"), client));
            let answer = answer.expect("an answer to every request");
            assert_eq!(answer.status, 404, "{answer:?}");
        }
    };
    let look_up = |client| {
        let mut connection = KeepAlive::connect(bazaar.address()).unwrap();
        let (request, mut mine) = (lookup("nvidia", client), no_latencies());
        while !done.load(Ordering::Relaxed) {
            let begun = Instant::now();
            let answer = connection
                .exchange(&request)
                .expect("an answer to every request");
            assert_eq!(answer.status, 200, "{answer:?}");
            mine.saturating_record(begun.elapsed().as_micros() as u64);
        }
        latencies
            .lock()
            .unwrap()
            .add(mine)
            .expect("both have the same bounds");
    };
    thread::scope(|scope| {
        let _done = Raise(&done);
        if let Some((client, name)) = client {
            scope.spawn(move || ask(client, name));
        }
        for other in 0..OTHERS {
            scope.spawn(move || look_up(other));
        }
        thread::sleep(TIME);
    });
    let p99 = latencies.into_inner().unwrap().value_at_quantile(0.99);
    (asked.into_inner(), p99)
}
