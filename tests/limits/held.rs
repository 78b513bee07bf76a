//! What is held for clients over HTTP/2 that neither finish their requests nor take their answers.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use frontend_host::config::{CHUNK_BYTES, RECEIVE_TIME_MAX, SEND_TIME_MAX, STREAMS_MAX};
use tokio::runtime::Runtime;

use super::client::{Client, PAUSE};
use super::frames::{
    DATA, END_STREAM, Frame, HEADERS, RST_STREAM, frame, request, stream, window_update,
};
use super::{FLOOD_KIB_MAX, SLACK, Watch};
use crate::harness::{Bazaar, Options, Order, Server, wait_until};

/// As many as would make lists large enough to be seen in a process's memory.
const STOCKS: usize = 10_000;

/// Lists that are asked of a service at once: without a budget they take 160 MiB.
const SERVICE_LISTS: usize = 400;

/// How often somebody trades, and memory is looked at, while the service waits for what does not come: for more than a
/// minute, in which other tests need the processors.
const BETWEEN_TRADES: Duration = Duration::from_millis(50);

/// Runs a client that misbehaves, while others get what they ask for and memory stays within its
/// bound.
fn while_served<T: Send>(
    watch: &mut Watch<'_>,
    targets: &[&str],
    attack: impl AsyncFnOnce() -> T + Send,
) -> T {
    thread::scope(|scope| {
        let attack = scope.spawn(|| {
            let runtime = Runtime::new().expect("there are threads");
            runtime.block_on(attack())
        });
        while !attack.is_finished() {
            watch.targets_are_served(targets, FLOOD_KIB_MAX);
        }
        attack.join().expect("attackers do not panic")
    })
}

/// A figure of the gateway's, by its name and labels.
fn figure(bazaar: &Bazaar, name: &str) -> u64 {
    let metrics = bazaar.admin("GET", "/metrics", b"").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(name));
    let value = line.unwrap_or_else(|| panic!("no {name} in {metrics}"));
    value.trim().parse().expect("a number")
}

#[test]
fn bodies_that_do_not_end_are_held_within_a_budget_and_let_go_of() {
    const CONNECTIONS: usize = 40;
    const PIECES: usize = 6;
    let mut bazaar = Bazaar::start_default();
    let gateway = bazaar.address();
    let mut watch = Watch::begin(&mut bazaar);
    let streams = STREAMS_MAX as usize;
    while_served(&mut watch, &["/stocks/nvidia", "/stocks"], async || {
        let mut attackers = Vec::new();
        for _ in 0..CONNECTIONS {
            let mut attacker = Client::open(gateway, None).await;
            for number in 0..streams {
                let head = request(stream(number), "POST", "/orders", false);
                attacker.send(&head).await;
            }
            attackers.push(attacker);
        }
        for attacker in &mut attackers {
            'sending: for number in 0..streams {
                for _ in 0..PIECES {
                    if !attacker.send_piece(number, PAUSE).await {
                        break 'sending;
                    }
                }
            }
        }
        for mut attacker in attackers {
            for _ in 0..streams {
                attacker.until(|frame| frame.kind == HEADERS).await;
            }
        }
    });
    let refusals = "bazaar_held_bytes_refusals_total{what=\"received\"}";
    assert!(
        figure(watch.bazaar, refusals) > 0,
        "there was no room for all"
    );
    assert_eq!(
        figure(watch.bazaar, "bazaar_held_bytes{what=\"received\"}"),
        0
    );
    watch.others_are_served(FLOOD_KIB_MAX);
    watch.end();
}

fn many_stocks() -> Options {
    let rows = (0..STOCKS).map(|number| format!("a-stock-of-some-company-{number},10.00,1000\n"));
    let stocks = format!("name,price,quantity\n{}", rows.collect::<String>());
    // The usual ones, for everybody else.
    let stocks = stocks + "nvidia,240.63,1000\nmeta,194.02,1000\n";
    Options {
        stocks: Some(stocks.leak()),
        // What is tried here is not how fast a list is made.
        gateway_flags: vec!["--decision-ms-max=10000".to_owned()],
        ..Options::default()
    }
}

/// Asks for so many lists, and takes nothing of them.
async fn ask_for_lists(
    server: SocketAddr,
    lists: usize,
    request: impl Fn(u32) -> Vec<u8>,
) -> Client {
    let mut client = Client::open(server, Some(0)).await;
    client.send(&window_update(0, 1 << 30)).await;
    for number in 0..lists {
        client.send(&request(stream(number))).await;
    }
    client
}

/// Reads on until so many streams are reset, or the connection has ended.
async fn until_reset(client: &mut Client, mut streams: usize) {
    while streams > 0 {
        match client.next().await {
            Some(frame) => streams -= usize::from(frame.kind == RST_STREAM),
            None => return,
        }
    }
}

#[test]
fn lists_that_nobody_takes_are_held_within_a_budget_and_their_streams_reset() {
    let mut bazaar = Bazaar::start(many_stocks());
    let gateway = bazaar.address();
    let mut watch = Watch::begin(&mut bazaar);
    let begun = Instant::now();
    // The lists of others would wait for those.
    while_served(&mut watch, &["/stocks/nvidia"], async || {
        let head = |stream| request(stream, "GET", "/stocks?limit=10000", true);
        let lists = STREAMS_MAX as usize;
        let mut client = ask_for_lists(gateway, lists, head).await;
        until_reset(&mut client, lists).await;
    });
    // The lists themselves take their time on a busy machine.
    let at_most = RECEIVE_TIME_MAX + SEND_TIME_MAX + 3 * SLACK;
    assert!(begun.elapsed() < at_most, "after {:?}", begun.elapsed());
    assert_eq!(
        figure(watch.bazaar, "bazaar_held_bytes{what=\"unsent\"}"),
        0
    );
    watch.others_are_served(FLOOD_KIB_MAX);
    watch.end();
}

#[test]
fn a_list_that_is_taken_but_for_its_end_has_its_stream_reset_and_its_connection_goes_on() {
    const LIST: &str = "/stocks?limit=10000";
    let bazaar = Bazaar::start(many_stocks());
    let taken = bazaar.get(LIST).body.len() - 1;
    assert!(taken > CHUNK_BYTES, "it goes out in chunks");
    assert_ne!(taken % CHUNK_BYTES, 0, "the last one is begun");
    let window = u32::try_from(taken).expect("a window has so many");
    let runtime = Runtime::new().expect("there are threads");
    runtime.block_on(async {
        let mut client = Client::open(bazaar.address(), Some(window)).await;
        client.send(&window_update(0, 1 << 30)).await;
        client.send(&request(1, "GET", LIST, true)).await;
        let reset = |frame: &Frame| (frame.kind, frame.stream) == (RST_STREAM, 1);
        client.until(reset).await;
        client
            .send(&request(3, "GET", "/stocks/nvidia", true))
            .await;
        let end = |frame: &Frame| frame.stream == 3 && frame.flags & END_STREAM != 0;
        assert_eq!(client.until(end).await.kind, DATA);
    });
    wait_until("what is held to be let go of", || {
        figure(&bazaar, "bazaar_held_bytes{what=\"unsent\"}") == 0
    });
}

#[test]
fn at_the_admin_address_too_a_stream_that_is_not_taken_is_reset_and_who_asks_nothing_more_is_cut_off()
 {
    let bazaar = Bazaar::start_default();
    let runtime = Runtime::new().expect("there are threads");
    runtime.block_on(async {
        let mut client = Client::open(bazaar.admin_address(), Some(0)).await;
        let page = request(1, "GET", "/console/main.js", true);
        let begun = Instant::now();
        client.send(&page).await;
        let reset = |frame: &Frame| (frame.kind, frame.stream) == (RST_STREAM, 1);
        client.until(reset).await;
        let untaken = begun.elapsed();
        assert!(untaken < RECEIVE_TIME_MAX + SLACK, "{untaken:?}");
        // Pings are no requests.
        let begun = Instant::now();
        client.ping_to_the_end().await;
        let idle = begun.elapsed();
        assert!(idle < SEND_TIME_MAX + SLACK, "{idle:?}");
    });
}

#[test]
fn a_service_holds_no_more_of_what_is_not_ended_and_not_taken() {
    let mut bazaar = Bazaar::start(many_stocks());
    let catalog = bazaar.server_address(Server::Catalog);
    bazaar.get("/stocks");
    let before_kib = bazaar.server(Server::Catalog).resident_kib();
    let runtime = Runtime::new().expect("there are threads");
    let list = |stream| {
        let head = request(stream, "POST", "/catalog.v1.Catalog/ListStocks", false);
        let nothing = frame(DATA, END_STREAM, stream, &[0; 5]);
        [head, nothing].concat()
    };
    let attacks = [
        runtime.spawn(async move {
            let mut client = ask_for_lists(catalog, SERVICE_LISTS, list).await;
            client.ping_to_the_end().await;
        }),
        runtime.spawn(async move {
            let mut client = Client::open(catalog, None).await;
            let elections = STREAMS_MAX as usize;
            for number in 0..elections {
                let head = request(stream(number), "POST", "/catalog.v1.Catalog/Elect", false);
                // A message of 256 KiB is announced.
                let announced = frame(DATA, 0, stream(number), &[0, 0, 4, 0, 0]);
                client.send(&[head, announced].concat()).await;
            }
            for number in 0..elections {
                client.send_piece(number, PAUSE).await;
            }
            for _ in 0..elections {
                client
                    .until(|frame| matches!(frame.kind, HEADERS | RST_STREAM))
                    .await;
            }
        }),
    ];
    while attacks.iter().any(|attack| !attack.is_finished()) {
        thread::sleep(BETWEEN_TRADES);
        bazaar.trade(&Order::sell(1, "meta"));
        let resident_kib = bazaar.server(Server::Catalog).resident_kib();
        let added_kib = resident_kib.saturating_sub(before_kib);
        assert!(added_kib <= FLOOD_KIB_MAX, "{added_kib} KiB more");
    }
    for attack in attacks {
        runtime.block_on(attack).expect("attackers do not panic");
    }
    assert_eq!(bazaar.panics(), Vec::<String>::new());
}
