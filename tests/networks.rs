//! What networks that lose packets, and machines that are busy, do to trading: nobody who works is deposed.
//!
//! Each fault lasts for some seconds; `BAZAAR_NETWORKS_SECONDS` says for how many.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::{
    Bazaar, Busy, Link, Options, Server, Trades, in_own_network, lose_nothing, lose_packets_of,
    lose_share_of, nicely, wait_until,
};

const SECONDS_DEFAULT: u64 = 12;

/// Elections while packets get lost, or the machine is busy.
const ELECTIONS_MAX: u64 = 3;

const CLIENTS: usize = 4;

/// Other work, and how much nicer the services are than it. Unoptimised, beside compilers on two processors, some four
/// trades a second are left.
const BUSY_LOOPS: usize = 30;
const NICE: i32 = 5;

fn while_it_lasts() -> Duration {
    Duration::from_secs(number("BAZAAR_NETWORKS_SECONDS").unwrap_or(SECONDS_DEFAULT))
}

fn number(variable: &str) -> Option<u64> {
    let value = env::var(variable).ok().filter(|value| !value.is_empty())?;
    let number = value.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is not a number: {value}")))
}

/// The epoch that all gateways see by now.
fn epoch(bazaar: &mut Bazaar) -> u64 {
    bazaar.wait_until_ready();
    bazaar.status()["epoch"]
        .as_u64()
        .expect("an epoch is a number")
}

fn in_sync(bazaar: &Bazaar) -> usize {
    let status = bazaar.status();
    status["catalog"]["in_sync"].as_array().map_or(0, Vec::len)
}

fn wait_until_all_are_in_sync(bazaar: &Bazaar) {
    wait_until("all replicas to be in sync", || in_sync(bazaar) == 3);
}

/// Everybody to everybody, both ways.
#[test]
fn a_tenth_of_all_packets_lost_fails_no_trade_and_deposes_next_to_nobody() {
    if !in_own_network() {
        return;
    }
    let mut bazaar = Bazaar::start_default();
    wait_until_all_are_in_sync(&bazaar);
    let before = epoch(&mut bazaar);
    let servers = [1, 2, 3]
        .map(Server::Order)
        .into_iter()
        .chain([Server::Catalog]);
    let ports: Vec<u16> = servers
        .map(|server| bazaar.server_address(server).port())
        .collect();
    let trades = Trades::of(&[bazaar.address()], CLIENTS, || {
        lose_share_of(&ports, 10);
        thread::sleep(while_it_lasts());
        lose_nothing();
    });
    let elections = epoch(&mut bazaar) - before;
    println!(
        "a tenth lost for {:?}: {elections} elections, {}",
        while_it_lasts(),
        trades.summary()
    );
    assert!(trades.failed.is_empty(), "{:?}", trades.failed);
    assert!(elections <= ELECTIONS_MAX, "{elections} elections");
}

/// It judges by what it hears now.
#[test]
fn a_gateway_that_was_cut_off_deposes_nobody_when_it_is_back() {
    if !in_own_network() {
        return;
    }
    let mut bazaar = Bazaar::start(Options {
        gateways: 2,
        proxied: true,
        ..Options::default()
    });
    wait_until_all_are_in_sync(&bazaar);
    let before = epoch(&mut bazaar);
    let others = [1, 2, 3]
        .map(Server::Order)
        .into_iter()
        .chain([Server::Catalog]);
    let from = Server::Gateway(1);
    let links = others.map(|to| bazaar.link(Link { from, to }).address().port());
    let links: Vec<u16> = links.collect();
    let mut times = 0;
    let trades = Trades::of(&[bazaar.address()], 1, || {
        let began = Instant::now();
        while began.elapsed() < while_it_lasts() {
            times += 1;
            lose_packets_of(&links);
            thread::sleep(Duration::from_millis([250, 600, 1_500, 3_000][times % 4]));
            lose_nothing();
            thread::sleep(Duration::from_millis(1_500));
        }
    });
    let elections = epoch(&mut bazaar) - before;
    println!(
        "cut off {times} times: {elections} elections, {}",
        trades.summary()
    );
    assert!(trades.failed.is_empty(), "{:?}", trades.failed);
    assert_eq!(elections, 0);
}

/// Services that get what other work leaves of the processors. As busy as that, other tests would see it.
#[test]
#[ignore = "takes the processors: `make networks`"]
fn a_busy_machine_fails_no_trade_and_deposes_next_to_nobody() {
    let busy = Busy::later(BUSY_LOOPS);
    let (elections, trades) = nicely(NICE, move || {
        let mut bazaar = Bazaar::start_default();
        wait_until_all_are_in_sync(&bazaar);
        let before = epoch(&mut bazaar);
        let trades = Trades::of(&[bazaar.address()], CLIENTS, || {
            busy.begin();
            thread::sleep(while_it_lasts());
            drop(busy);
        });
        (epoch(&mut bazaar) - before, trades)
    });
    println!(
        "busy for {:?}: {elections} elections, {}",
        while_it_lasts(),
        trades.summary()
    );
    assert!(trades.failed.is_empty(), "{:?}", trades.failed);
    assert!(elections <= ELECTIONS_MAX, "{elections} elections");
}

/// A trade waits for a follower in sync until it is found to lag.
#[test]
fn a_follower_that_stops_again_and_again_holds_fewer_and_fewer_trades_up() {
    let mut bazaar = Bazaar::start_default();
    wait_until_all_are_in_sync(&bazaar);
    let follower = Server::Order(bazaar.follower());
    let mut times = 0;
    let trades = Trades::of(&[bazaar.address()], 1, || {
        let began = Instant::now();
        while began.elapsed() < while_it_lasts() {
            times += 1;
            bazaar.server(follower).suspend();
            thread::sleep(Duration::from_millis(500));
            bazaar.server(follower).resume();
            thread::sleep(Duration::from_millis(700));
        }
    });
    let held_up = trades.longer_than(Duration::from_millis(250));
    println!(
        "stopped {times} times: {held_up} trades held up, {}",
        trades.summary()
    );
    assert!(trades.failed.is_empty(), "{:?}", trades.failed);
    assert!(held_up <= times * 2 / 3, "{held_up} of {times}");
    // And it comes back.
    wait_until_all_are_in_sync(&bazaar);
}
