//! Orders that are followed as they are placed.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use frontend_host::config::RECEIVE_TIME_MAX;
use socket2::{Domain, Socket, Type};

use crate::harness::{Bazaar, Event, Options, Order, Server, guest, next_event, wait_until};

/// Nothing takes so long here.
const PATIENCE: Duration = Duration::from_secs(20);

/// Beyond what a limit says, on a busy machine.
const SLACK: Duration = Duration::from_secs(8);

/// Between two orders while others wait.
const PAUSE: Duration = Duration::from_millis(250);

/// A stream of events, over HTTP/1.0: it ends with the connection.
struct Stream {
    reader: BufReader<TcpStream>,
    status: u16,
    head: String,
}

impl Stream {
    fn open(gateway: SocketAddr, target: &str, headers: &str) -> Self {
        Self::over(TcpStream::connect(gateway).unwrap(), target, headers)
    }

    fn over(mut stream: TcpStream, target: &str, headers: &str) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!("GET {target} HTTP/1.0\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
        }
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Self {
            reader,
            status: status.unwrap_or_else(|| panic!("no status in {head}")),
            head: head.to_lowercase(),
        }
    }

    /// The next event; `None` at the end.
    fn next(&mut self) -> Option<Event> {
        next_event(&mut self.reader).expect("an event comes")
    }

    fn take(&mut self, events: usize) -> Vec<Event> {
        let next = |_| self.next().expect("there are more");
        (0..events).map(next).collect()
    }
}

fn numbers(events: &[Event]) -> Vec<u64> {
    events.iter().map(|(number, _)| *number).collect()
}

#[test]
fn every_order_comes_once_and_in_order_to_whoever_follows_and_to_who_comes_back() {
    let bazaar = Bazaar::start(Options {
        gateways: 2,
        ..Options::default()
    });
    let before = bazaar.trade(&Order::sell(1, "intel"));
    let [one, other] = [0, 1].map(|gateway| bazaar.gateway_address(gateway));
    let mut streams = [one, one, other].map(|gateway| Stream::open(gateway, "/events", ""));
    for stream in &streams {
        assert_eq!(stream.status, 200);
        for header in [
            "content-type: text/event-stream\r\n",
            "cache-control: no-store\r\n",
        ] {
            assert!(stream.head.contains(header), "{}", stream.head);
        }
    }
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for quantity in 1..=25 {
                    bazaar.trade(&Order::sell(quantity, "intel"));
                }
            });
        }
    });
    for stream in &mut streams {
        let events = stream.take(100);
        assert!(numbers(&events).into_iter().eq(before + 1..=before + 100));
        let (number, data) = &events[57];
        assert_eq!(*data, bazaar.get(&format!("/orders/{number}")).data());
    }
    // From further back than the feed of either gateway is, and on.
    let mut resumed = [
        Stream::open(one, "/events", "last-event-id: 10\r\n"),
        Stream::open(other, "/events?after=10", ""),
        Stream::open(other, "/events?after=99", "Last-Event-ID: 10\r\n"),
    ];
    let newest = bazaar.trade(&Order::buy(3, "intel"));
    for stream in &mut resumed {
        let events = stream.take((newest - 10) as usize);
        assert!(numbers(&events).into_iter().eq(11..=newest));
    }
    for stream in &mut streams {
        assert_eq!(numbers(&stream.take(1)), [newest]);
    }
    // Another journal's number stands for now.
    let mut foreign = Stream::open(one, "/events?after=123456", "");
    let next = bazaar.trade(&Order::buy(1, "intel"));
    assert_eq!(numbers(&foreign.take(1)), [next]);
}

#[test]
fn a_ledger_of_any_length_is_followed_from_its_beginning() {
    let bazaar = Bazaar::start_default();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    bazaar.trade(&Order::sell(1, "intel"));
                }
            });
        }
    });
    let mut stream = Stream::open(bazaar.address(), "/events?after=0", "");
    let events = stream.take(799);
    assert!(numbers(&events).into_iter().eq(1..800));
    let newest = bazaar.trade(&Order::sell(1, "intel"));
    assert_eq!(numbers(&stream.take(1)), [newest]);
}

#[test]
fn who_cannot_follow_is_told_why() {
    let bazaar = Bazaar::start_default();
    for (target, headers, what) in [
        ("/events?after=nike", "", "`after`"),
        ("/events", "last-event-id: nike\r\n", "`Last-Event-ID`"),
    ] {
        let mut refused = Stream::open(bazaar.address(), target, headers);
        let mut body = String::new();
        refused.reader.read_to_string(&mut body).unwrap();
        assert!(refused.status == 400 && body.contains(what), "{body}");
    }
    let posted = bazaar.send("POST", "/events", &[], b"");
    assert_eq!(posted.error().0, 405);
    let head = bazaar.send("HEAD", "/events", &[], b"");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-type"), Some("text/event-stream"));
}

#[test]
fn there_are_no_more_streams_than_a_gateway_has_room_for() {
    let bazaar = Bazaar::start_default();
    let address = bazaar.address();
    let mut streams: Vec<_> = (0..1_024)
        .map(|_| Stream::open(address, "/events", ""))
        .collect();
    assert!(streams.iter().all(|stream| stream.status == 200));
    let refused = Stream::open(address, "/events", "");
    assert_eq!(refused.status, 503, "{}", refused.head);
    assert!(refused.head.contains("retry-after: 1\r\n"));
    let newest = bazaar.trade(&Order::sell(1, "intel"));
    for stream in &mut streams {
        assert_eq!(numbers(&stream.take(1)), [newest]);
    }
    drop(streams);
    wait_until("there is room again", || {
        Stream::open(address, "/events", "").status == 200
    });
}

/// A connection on which little is under way at a time: some 100 kB, most of it in the gateway and its system.
fn narrow(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4 << 10).unwrap();
    socket.set_tcp_mss(536).unwrap(); // systems keep so many segments for a connection
    socket.connect(&to.into()).unwrap();
    socket.into()
}

/// Clients that follow events at the moment.
fn followed(bazaar: &Bazaar) -> usize {
    let metrics = bazaar.admin("GET", "/metrics", b"").body;
    let mut lines = metrics.lines();
    let figure = lines.find_map(|line| line.strip_prefix("bazaar_event_streams "));
    figure.expect("it is exported").parse().expect("a number")
}

#[test]
fn who_takes_nothing_is_cut_off_within_the_bound_and_others_hear_of_every_order() {
    const CLIENTS: u64 = 8;
    const ORDERS_EACH: u64 = 200; // 250 kB of events, and fewer than a gateway keeps
    const NAME: &str = "a stock whose name is as long as the name of a stock can be: 64b";
    let stocks = format!("name,price,quantity\n{NAME},1.00,1000\n");
    let bazaar = Bazaar::start(Options {
        stocks: Some(stocks.leak()),
        ..Options::default()
    });
    let gateway = bazaar.address();
    let mut stuck = Stream::over(narrow(gateway), "/events", "");
    let mut other = Stream::open(gateway, "/events", "");
    assert_eq!((stuck.status, other.status), (200, 200));
    assert_eq!(followed(&bazaar), 2);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                for _ in 0..ORDERS_EACH {
                    bazaar.trade(&Order::sell(1, NAME));
                }
            });
        }
    });
    let orders = CLIENTS * ORDERS_EACH;
    assert!(
        numbers(&other.take(orders as usize))
            .into_iter()
            .eq(0..orders)
    );
    let placed = Instant::now();
    while followed(&bazaar) == 2 {
        assert!(placed.elapsed() < RECEIVE_TIME_MAX + SLACK, "it is not");
        let next = bazaar.trade(&Order::sell(1, NAME));
        assert_eq!(numbers(&other.take(1)), [next]);
        thread::sleep(PAUSE);
    }
    let next = bazaar.trade(&Order::sell(1, NAME));
    assert_eq!(numbers(&other.take(1)), [next]);
    // What was on its way is all that it gets.
    let mut rest = Vec::new();
    if let Err(error) = stuck.reader.read_to_end(&mut rest) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "it has no end");
    }
    let got = String::from_utf8_lossy(&rest)
        .matches("event: order")
        .count() as u64;
    assert!((1..orders).contains(&got), "{got} of {orders}");
}

#[test]
fn a_leader_that_is_killed_leaves_no_gap() {
    let mut bazaar = Bazaar::start_default();
    let mut stream = Stream::open(bazaar.address(), "/events", "");
    let mut last = 0;
    for round in 0..3 {
        for _ in 0..10 {
            last = bazaar.trade(&Order::sell(1, "intel"));
        }
        if round < 2 {
            let leader = bazaar.leader();
            bazaar.kill(leader);
        }
    }
    assert!(numbers(&stream.take(30)).into_iter().eq(0..=last));
}

/// A version that is new may not let these clients in.
#[test]
fn streams_end_where_the_policy_is_another_one() {
    let bazaar = Bazaar::start_default();
    let mut stream = Stream::open(bazaar.address(), "/events", "");
    let first = bazaar.trade(&Order::sell(1, "intel"));
    assert_eq!(numbers(&stream.take(1)), [first]);
    let marked = std::fs::read(guest("marked")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &marked).status, 200);
    // Nor does an order go out that is placed from then on.
    bazaar.trade(&Order::sell(1, "intel"));
    assert_eq!(stream.next(), None);
}

#[test]
fn streams_hold_no_stop_up() {
    let mut bazaar = Bazaar::start_default();
    let mut stream = Stream::open(bazaar.address(), "/events", "");
    let first = bazaar.trade(&Order::sell(1, "intel"));
    assert_eq!(numbers(&stream.take(1)), [first]);
    let began = Instant::now();
    let stopped = thread::spawn(move || (stream.next(), began.elapsed()));
    assert!(bazaar.server(Server::Gateway(0)).terminate().success());
    let (event, after) = stopped.join().unwrap();
    assert_eq!(event, None);
    assert!(after < Duration::from_secs(3), "{after:?}");
}
