//! What becomes of one request, through all services, as a collector of OpenTelemetry's has it; and that nobody pays for it
//! who is not traced.
//!
//! - [`rotel`]: the same by a collector that people run.

mod rotel;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use domain::hex::Hex;
use test_postgres::free_port;

use crate::harness::{
    Bazaar, Collector, KeepAlive, Options, Order, Response, Seen, Server, Speaks, in_own_network,
    lose_connections_to, run, wait_for, wait_until,
};

/// A client's trace, and its span.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN: &str = "b7ad6b7169203331";

/// How long after another span of another process one may seem to end that is within it: by the wall clock, which is steered.
const SKEW: Duration = Duration::from_millis(2);

/// Longest wait of a request for a collector that does not answer: none. This is for a busy machine.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(4);

/// What is kept of a text: see `traces::span`.
const TEXT_BYTES_MAX: usize = traces::span::TEXT_BYTES_MAX;

/// What waits in a process at most: see `traces::queue`.
const SPANS_WAITING_MAX: u64 = traces::queue::QUEUE_SPANS_MAX as u64;

/// How long it may take, on a busy machine, until traces arrive again where a collector has vanished without a word.
const FOUND_AGAIN_MAX: Duration = Duration::from_secs(30);

/// With further flags, of which one says where traces go.
fn traced(flags: &[&str], otlp: String) -> Options {
    let flags = flags.iter().map(|flag| (*flag).to_owned());
    Options {
        flags: flags.chain([otlp]).collect(),
        ..Options::default()
    }
}

fn traceparent(span: usize) -> String {
    format!("00-{TRACE}-{span:016x}-01")
}

/// Sends a request that is under the client's span.
fn send(bazaar: &Bazaar, (method, target): (&str, &str), body: &str) -> Response {
    let under = format!("00-{TRACE}-{SPAN}-01");
    let headers = [
        ("traceparent", under.as_str()),
        ("x-request-id", "of-the-test"),
    ];
    bazaar.send(method, target, &headers, body.as_bytes())
}

/// The value of a sample of a gateway's.
fn metric(bazaar: &Bazaar, sample: &str) -> u64 {
    let metrics = bazaar.admin("GET", "/metrics", b"").body;
    let line = metrics.lines().find_map(|line| line.strip_prefix(sample));
    let value = line.unwrap_or_else(|| panic!("no {sample} in {metrics}"));
    value.trim().parse().unwrap()
}

fn begun(bazaar: &Bazaar, why: &str) -> u64 {
    metric(bazaar, &format!("bazaar_traces_total{{why=\"{why}\"}}"))
}

fn spans(bazaar: &Bazaar, result: &str) -> u64 {
    metric(
        bazaar,
        &format!("bazaar_trace_spans_total{{result=\"{result}\"}}"),
    )
}

/// The spans of one trace, once there are so many.
struct Trace(BTreeMap<Vec<u8>, Seen>);

impl Trace {
    fn wait_for(collector: &Collector, count: usize) -> Self {
        wait_until(&format!("{count} spans"), || {
            Self::so_far(collector).0.len() >= count
        });
        Self::so_far(collector)
    }

    fn so_far(collector: &Collector) -> Self {
        let spans = collector.spans().into_iter();
        let spans = spans.filter(|seen| Hex(&seen.span.trace_id).to_string() == TRACE);
        Self(
            spans
                .map(|seen| (seen.span.span_id.clone(), seen))
                .collect(),
        )
    }

    fn all(&self, service: &str, name: &str) -> Vec<&Seen> {
        let of = |seen: &&Seen| seen.service == service && seen.span.name == name;
        self.0.values().filter(of).collect()
    }

    fn one(&self, service: &str, name: &str) -> &Seen {
        match self.all(service, name)[..] {
            [one] => one,
            ref other => panic!("{service} {name}: {other:?} of {}", self.shown()),
        }
    }

    /// By service, name, and that of the span that it is under.
    fn shown(&self) -> String {
        let line = |seen: &Seen| {
            let parent = self.0.get(&seen.span.parent_span_id);
            let parent = parent.map_or("", |parent| &parent.span.name);
            format!("{} {} < {parent}", seen.service, seen.span.name)
        };
        self.0.values().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Of each: whether it is under the other one, and within its time.
    fn check_within(&self, inner: &Seen, outer: &Seen) {
        let (inside, outside) = (&inner.span, &outer.span);
        assert_eq!(inside.parent_span_id, outside.span_id, "{}", self.shown());
        let skew = SKEW.as_nanos() as u64;
        assert!(
            outside.start_time_unix_nano <= inside.start_time_unix_nano + skew
                && inside.start_time_unix_nano <= inside.end_time_unix_nano
                && inside.end_time_unix_nano <= outside.end_time_unix_nano + skew,
            "{inner:?} is not within {outer:?}"
        );
    }
}

/// What one order comes to: with three replicas, of which two follow.
const TRADE_SPANS: usize = 15;

/// As it comes to the collector, by way of what the services are told of.
fn a_trade_is_one_trace(collector: &Collector, otlp: String) {
    let log = tempfile::tempdir().unwrap();
    let log = log.path().join("access");
    let mut options = traced(&["--trace-sample=1"], otlp);
    options.gateway_flags = vec![
        "--access-log=json".into(),
        format!("--access-log-file={}", log.display()),
    ];
    let mut bazaar = Bazaar::start(options);
    let leader = bazaar.leader();
    let order = Order::buy(10, "nvidia").json().to_string();
    let answer = send(&bazaar, ("POST", "/orders"), &order);
    assert_eq!(answer.status, 200, "{answer:?}");
    let trace = Trace::wait_for(collector, TRADE_SPANS);
    assert_eq!(trace.0.len(), TRADE_SPANS, "{}", trace.shown());
    for seen in trace.0.values() {
        let said = |name| seen.of_service(name);
        assert_eq!(said("service.namespace").as_deref(), Some("bazaar"));
        assert_eq!(
            said("service.version").as_deref(),
            Some(env!("CARGO_PKG_VERSION"))
        );
        let pid: u32 = said("process.pid").unwrap().parse().unwrap();
        assert_ne!(pid, 0);
        assert_eq!(seen.scope, "bazaar");
        assert_eq!(seen.failure(), None, "{seen:?}");
    }

    let root = trace.one("bazaar-gateway", "POST trade");
    assert_eq!(Hex(&root.span.parent_span_id).to_string(), SPAN);
    for (name, value) in [
        ("http.request.method", "POST"),
        ("http.response.status_code", "200"),
        ("url.path", "/orders"),
        ("bazaar.request_id", "of-the-test"),
        ("bazaar.route", "trade"),
    ] {
        assert_eq!(root.attribute(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(root.attribute("bazaar.policy").unwrap().len(), 64);
    let said = answer.header("traceresponse").unwrap();
    let own = Hex(&root.span.span_id);
    assert_eq!(said, format!("00-{TRACE}-{own}-01"));

    for name in ["decide on-request", "decide on-outcome"] {
        trace.check_within(trace.one("bazaar-gateway", name), root);
    }
    let place = trace.one("bazaar-gateway", "order.v1.Orders/PlaceMany");
    trace.check_within(place, root);
    let lead = trace.one("bazaar-order", "order.v1.Orders/PlaceMany");
    trace.check_within(lead, place);
    assert_eq!(lead.instance, leader.to_string());
    assert_eq!(lead.attribute("bazaar.order").as_deref(), Some("0"));
    let call = trace.one("bazaar-order", "catalog.v1.Catalog/TradeMany");
    trace.check_within(call, lead);
    let trade = trace.one("bazaar-catalog", "catalog.v1.Catalog/TradeMany");
    trace.check_within(trade, call);
    for step in ["wait for the writer", "COMMIT", "wait for caches"] {
        trace.check_within(trace.one("bazaar-catalog", step), trade);
    }
    let commit = trace.one("bazaar-catalog", "COMMIT");
    assert_eq!(
        commit.attribute("db.system.name").as_deref(),
        Some("sqlite")
    );
    assert_eq!(
        commit.attribute("db.operation.batch.size").as_deref(),
        Some("1")
    );
    trace.check_within(trace.one("bazaar-order", "COMMIT"), lead);

    let appends = trace.all("bazaar-order", "order.v1.Replication/AppendMany");
    let (calls, answers): (Vec<&Seen>, Vec<&Seen>) = appends
        .into_iter()
        .partition(|seen| seen.instance == lead.instance);
    assert_eq!((calls.len(), answers.len()), (2, 2), "{}", trace.shown());
    for append in answers {
        let call = calls
            .iter()
            .find(|call| call.span.span_id == append.span.parent_span_id);
        let call = call.unwrap_or_else(|| panic!("no call of {append:?}"));
        assert_eq!(
            call.attribute("bazaar.replica").as_ref(),
            Some(&append.instance)
        );
        trace.check_within(append, call);
        trace.check_within(call, lead);
    }

    let mut line = String::new();
    wait_until("the request to be logged", || {
        line = std::fs::read_to_string(&log).unwrap_or_default();
        line.contains("of-the-test")
    });
    assert!(
        line.contains(&format!("\"trace_id\":\"{TRACE}\"")),
        "{line}"
    );

    // And what goes wrong.
    bazaar.kill_catalog();
    assert_eq!(send(&bazaar, ("GET", "/stocks/meta"), "").status, 503);
    let failed = || {
        let mut spans = Trace::so_far(collector).0.into_values();
        spans.find(|seen| seen.span.name == "GET stock")
    };
    wait_until("the lookup's span", || failed().is_some());
    let failed = failed().unwrap();
    assert_eq!(failed.failure(), Some("Service Unavailable"));
    assert_eq!(
        failed.attribute("http.response.status_code").as_deref(),
        Some("503")
    );
}

#[test]
fn a_trade_is_one_trace_from_its_client_to_every_disk() {
    let collector = Collector::start(Speaks::Grpc);
    a_trade_is_one_trace(&collector, collector.flag());
}

#[test]
fn the_same_goes_over_http() {
    let collector = Collector::start(Speaks::Http);
    a_trade_is_one_trace(&collector, collector.flag());
}

#[test]
fn a_lookup_s_trace_says_where_its_answer_came_from() {
    let collector = Collector::start(Speaks::Grpc);
    let bazaar = Bazaar::start(traced(&["--trace-sample=1"], collector.flag()));
    // Before it holds a lease it may not keep anything.
    wait_until("a hit", || {
        let answer = bazaar.get("/stocks/nvidia");
        answer.header("cache-status").unwrap().contains("hit")
    });
    assert_eq!(
        send(&bazaar, ("GET", "/stocks/nvidia?key=s3cret"), "").status,
        200
    );
    let hit = Trace::wait_for(&collector, 2);
    assert_eq!(hit.0.len(), 2, "{}", hit.shown());
    let root = hit.one("bazaar-gateway", "GET stock");
    assert_eq!(root.attribute("bazaar.cache").as_deref(), Some("hit"));
    // There may be a secret in a query.
    assert_eq!(
        root.attribute("url.path").as_deref(),
        Some("/stocks/nvidia")
    );
    hit.check_within(hit.one("bazaar-gateway", "decide on-request"), root);

    assert_eq!(send(&bazaar, ("GET", "/stocks/meta"), "").status, 200);
    let miss = Trace::wait_for(&collector, 2 + 5);
    let call = miss.one("bazaar-gateway", "catalog.v1.Catalog/GetStock");
    let answer = miss.one("bazaar-catalog", "catalog.v1.Catalog/GetStock");
    miss.check_within(answer, call);
    let root = miss.0.get(&call.span.parent_span_id).unwrap();
    assert_eq!(root.attribute("bazaar.cache").as_deref(), Some("miss"));
    assert_eq!(send(&bazaar, ("GET", "/orders/99"), "").status, 404);
    let read = Trace::wait_for(&collector, 2 + 5 + 5);
    let call = read.one("bazaar-gateway", "order.v1.Orders/Get");
    read.check_within(read.one("bazaar-order", "order.v1.Orders/Get"), call);
    // That there is none is an answer.
    assert_eq!(call.span.status, None);
}

/// Lookups over one connection, each of which says that its client traces it.
fn ask(to: SocketAddr, count: usize) -> Duration {
    let mut connection = KeepAlive::connect(to).unwrap();
    let mut longest = Duration::ZERO;
    for number in 1..=count {
        let under = traceparent(number);
        let request =
            format!("GET /stocks/nvidia HTTP/1.1\r\nhost: x\r\ntraceparent: {under}\r\n\r\n");
        let began = Instant::now();
        let answer = connection.exchange(request.as_bytes()).unwrap();
        assert_eq!(answer.status, 200);
        longest = longest.max(began.elapsed());
    }
    longest
}

#[test]
fn an_outsider_gets_no_more_traced_than_the_bound_and_nothing_where_nothing_is() {
    const ASKED_MAX: u64 = 5;
    const ASKED: u64 = 300;
    let collector = Collector::start(Speaks::Grpc);
    let rare = ["--trace-sample=0.000000001", "--trace-asked-max=5"];
    let mut bazaar = Bazaar::start(traced(&rare, collector.flag()));
    let began = Instant::now();
    ask(bazaar.address(), ASKED as usize);
    let asked = begun(&bazaar, "asked");
    let most = ASKED_MAX + 1 + (began.elapsed().as_secs_f64() * ASKED_MAX as f64) as u64;
    assert!((ASKED_MAX..=most).contains(&asked), "{asked} of {most}");
    assert_eq!(begun(&bazaar, "refused"), ASKED - asked);
    Trace::wait_for(&collector, 2 * asked as usize);

    // What it is told last counts.
    bazaar.server(Server::Gateway(0)).terminate();
    let nothing: Vec<String> = bazaar
        .arguments(Server::Gateway(0), &["--stop-at-eof"])
        .into_iter()
        .map(|flag| match flag.starts_with("--trace-sample") {
            true => "--trace-sample=0".into(),
            false => flag,
        })
        .collect();
    let gateway = crate::harness::Process::start("gateway-of-none", bazaar.dir(), nothing);
    bazaar.put_server(Server::Gateway(0), gateway);
    bazaar.wait_until_ready();
    let of_gateways = || {
        let spans = collector.spans().into_iter();
        spans
            .filter(|seen| seen.service == "bazaar-gateway")
            .count()
    };
    // The gateway before had its last exported when it ended.
    let before = of_gateways();
    ask(bazaar.address(), ASKED as usize);
    let answer = send(&bazaar, ("GET", "/stocks/nvidia"), "");
    assert_eq!(answer.header("traceresponse"), None);
    assert_eq!(begun(&bazaar, "refused"), ASKED + 1);
    assert_eq!((begun(&bazaar, "asked"), begun(&bazaar, "sampled")), (0, 0));
    assert_eq!(spans(&bazaar, "dropped"), 0);
    bazaar.stop();
    assert_eq!(of_gateways(), before);
}

/// Its collector takes connections and says nothing, or is not there.
fn a_collector_that_fails(speaks: Option<Speaks>) {
    let at = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let collector = speaks.map(|speaks| Collector::start_at(at, speaks));
    let options = Options {
        flags: vec![format!("--otlp=http://{at}"), "--trace-sample=1".into()],
        ..Options::default()
    };
    let mut bazaar = Bazaar::start(options);
    assert_eq!(bazaar.get("/stocks/nvidia").status, 200);
    let before = bazaar.server(Server::Gateway(0)).resident_kib();
    // Each has two spans at least.
    let lookups = SPANS_WAITING_MAX as usize;
    let longest = ask(bazaar.address(), lookups);
    assert!(longest < REQUEST_TIME_MAX, "{longest:?}");
    for _ in 0..20 {
        let began = Instant::now();
        bazaar.trade(&Order::buy(1, "nvidia"));
        assert!(began.elapsed() < REQUEST_TIME_MAX, "{:?}", began.elapsed());
    }
    let dropped = spans(&bazaar, "dropped");
    assert!(dropped >= SPANS_WAITING_MAX / 2, "{dropped}");
    let grown = bazaar
        .server(Server::Gateway(0))
        .resident_kib()
        .saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB");
    let gateway = bazaar.server(Server::Gateway(0));
    wait_until("a word about it", || {
        gateway.log().contains("traces are not exported")
    });
    let said = gateway.log().matches("traces are not exported").count();
    assert_eq!(said, 1, "it says so once: {}", gateway.log());

    drop(collector);
    let collector = Collector::start_at(at, Speaks::Grpc);
    // By then there was a pause between two tries.
    wait_for(
        "traces to be exported again",
        Duration::from_secs(120),
        || {
            bazaar
                .server(Server::Gateway(0))
                .log()
                .contains("traces are exported again")
        },
    );
    wait_until("what waited", || {
        collector
            .spans()
            .iter()
            .any(|seen| seen.service == "bazaar-gateway")
    });
    bazaar.stop();
}

#[test]
fn a_collector_that_is_gone_costs_no_request_anything_and_is_found_again() {
    a_collector_that_fails(None);
}

#[test]
fn a_collector_that_says_nothing_costs_no_request_anything_and_is_found_again() {
    a_collector_that_fails(Some(Speaks::Nothing));
}

/// Its host is gone, and nobody says so: packets of the connections to it get lost, and others can be made.
fn a_collector_that_vanishes(speaks: Speaks) {
    let collector = Collector::start(speaks);
    let bazaar = Bazaar::start(traced(&["--trace-sample=1"], collector.flag()));
    let order = Order::buy(1, "nvidia").json().to_string();
    assert_eq!(send(&bazaar, ("POST", "/orders"), &order).status, 200);
    Trace::wait_for(&collector, TRADE_SPANS);

    let services = 5;
    let lost = lose_connections_to(collector.address().port());
    assert!(lost >= services, "{lost}");
    let began = Instant::now();
    assert_eq!(send(&bazaar, ("POST", "/orders"), &order).status, 200);
    assert!(began.elapsed() < REQUEST_TIME_MAX, "{:?}", began.elapsed());
    wait_for("the second trade's spans", FOUND_AGAIN_MAX, || {
        Trace::so_far(&collector).0.len() == 2 * TRADE_SPANS
    });
    println!("{speaks:?}: {:?} until they were there", began.elapsed());
    assert_eq!(spans(&bazaar, "dropped"), 0);
}

#[test]
fn a_collector_that_vanishes_without_a_word_is_found_again_within_seconds() {
    if in_own_network() {
        a_collector_that_vanishes(Speaks::Grpc);
    }
}

#[test]
fn one_that_is_spoken_to_over_http_is_found_again_as_soon() {
    if in_own_network() {
        a_collector_that_vanishes(Speaks::Http);
    }
}

#[test]
fn of_what_a_client_sends_little_is_in_a_span_and_nothing_that_may_be_a_secret() {
    const SECRET: &str = "s3cret";
    let collector = Collector::start(Speaks::Grpc);
    let bazaar = Bazaar::start(traced(&["--trace-sample=1"], collector.flag()));
    let under = format!("00-{TRACE}-{SPAN}-01");
    let long = SECRET.repeat(500);
    let secrets = [
        ("authorization", "Bearer s3cret"),
        ("cookie", "session=s3cret"),
        ("idempotency-key", "s3cret"),
        ("x-api-key", "s3cret"),
        ("user-agent", "s3cret"),
        ("tracestate", &*long),
        ("baggage", "key=s3cret"),
        // Neither is this one: it is none.
        ("x-request-id", "s3cret s3cret"),
    ];
    let send = |method, target: &str, traceparents: &[&str], body: &str| {
        let traceparents = traceparents.iter().map(|value| ("traceparent", *value));
        let headers: Vec<_> = secrets.into_iter().chain(traceparents).collect();
        bazaar.send(method, target, &headers, body.as_bytes())
    };
    let order = Order::buy(1, "nvidia").json().to_string();
    let path = format!("/{}", "p".repeat(2_000));
    let requests = [
        ("POST", "/orders?key=s3cret", &*order, 200),
        // Another order under the same key.
        (
            "POST",
            "/orders",
            r#"{"name":"meta","type":"buy","quantity":1}"#,
            409,
        ),
        ("POST", "/orders", "s3cret", 400),
        ("GET", "/stocks/nvidia?key=s3cret", "", 200),
        ("GET", &path, "", 404),
        ("PROPFIND-s3cret", "/stocks/nvidia", "", 501),
    ];
    for (method, target, body, status) in requests {
        let answer = send(method, target, &[&*under], body);
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
    }
    let roots = || {
        let spans = Trace::so_far(&collector).0.into_values();
        spans.filter(|seen| Hex(&seen.span.parent_span_id).to_string() == SPAN)
    };
    wait_until("a span of each", || roots().count() == requests.len());
    for seen in Trace::so_far(&collector).0.values() {
        let said = format!("{seen:?}");
        assert!(!said.contains(SECRET), "{said}");
        let name = &seen.span.name;
        assert!(name.len() < 64, "{name}");
        let path = seen.attribute("url.path").unwrap_or_default();
        assert!(path.len() <= TEXT_BYTES_MAX, "{path}");
    }

    // Of whose trace it is, one that is none says nothing.
    let endless = under.clone() + &"0".repeat(6_000);
    let later = format!("ff{}", &under[2..]);
    for garbage in [
        &[&*endless][..],
        &[&*later],
        &[&*under, &*under],
        &["nonsense", ""],
    ] {
        let answer = send("GET", "/stocks/nvidia", garbage, "");
        assert_eq!(answer.status, 200);
        let trace = answer.header("traceresponse").unwrap();
        assert!(!trace.contains(TRACE), "{garbage:?}: {trace}");
    }
}

#[test]
fn what_cannot_be_a_collector_is_refused_with_what_to_say_instead() {
    for (flags, advice) in [
        (&["--otlp=collector:4317"][..], "http://host:4317"),
        (&["--otlp=http://collector:4318"], "/v1/traces"),
        (&["--otlp=http://u:p@collector:4317"], "leave them out"),
        (&["--trace-sample=2"], "not from 0 to 1"),
        (&["--otlp-ca=ca.crt"], "--otlp"),
        (&["--otlp=http://h:4317", "--otlp-ca=ca.crt"], "https://"),
    ] {
        let line = [
            "catalog",
            "--data-dir=/nowhere/at/all",
            "--listen=127.0.0.1:0",
        ];
        let refused = run(line.iter().chain(flags));
        let said = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{flags:?}: {said}");
        assert!(said.contains(advice), "{flags:?}: {said}");
    }
}
