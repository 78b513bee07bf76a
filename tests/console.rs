//! The console, in a browser.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use frontend_policy::DEFAULT_POLICY;
use rpc::connect::{self, Security};
use serde_json::Value;
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::catalog::v1::session_request::{self, Request};
use wire::catalog::v1::{SessionEvent, SessionRequest};

use crate::harness::{
    Bazaar, Browser, Options, Order, Response, Server, guest, request, run, run_ok, wait_until,
};

/// What operators show, and who may only read.
const TOKEN: &str = "0perat0r";
const READ_TOKEN: &str = "reader";

/// The name of a stock, and what a client calls a request.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// Streams of a gateway's console.
const CONSOLES_MAX: usize = 16;

/// How long an event may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// So many stocks as a page that shows them all would be slow with.
const STOCKS: usize = 1_000;

fn ask(bazaar: &Bazaar, token: &str, method: &str, target: &str, body: &[u8]) -> Response {
    let token = format!("Bearer {token}");
    let headers = [("authorization", token.as_str())];
    request(bazaar.admin_address(), method, target, &headers, body)
}

#[test]
fn operators_see_what_a_bazaar_does_and_why() {
    let Some(browser) = Browser::find() else {
        return;
    };
    let stocks: String = (0..STOCKS)
        .map(|at| format!("stock-{at},1.50,1000\n"))
        .collect();
    let stocks = format!("name,price,quantity\nnvidia,240.63,1000\nmeta,194.02,1000\n{stocks}");
    let mut bazaar = Bazaar::start(Options {
        gateways: 2,
        stocks: Some(stocks.leak()),
        gateway_flags: vec![
            format!("--admin-token={TOKEN}"),
            format!("--admin-read-token={READ_TOKEN}"),
        ],
        ..Options::default()
    });
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let token = format!("--admin-token={TOKEN}");
    let listed = ["stock", "add", HOSTILE, "--price=1", "--quantity=100"];
    let said = ["--operator=alice", "--reason=the test", &admin, &token];
    run_ok(listed.into_iter().chain(said));
    let policies = [guest("hostile"), guest("marked"), guest("traps")];
    let url = format!("http://{}/", bazaar.admin_address());
    browser.drive("console", &url, &[TOKEN, READ_TOKEN], |wish| {
        carry_out(&mut bazaar, &policies, wish)
    });
    bazaar.check_acknowledged();
}

/// What the script wants to happen behind the browser's back.
fn carry_out(bazaar: &mut Bazaar, policies: &[impl AsRef<Path>; 3], wish: &str) -> String {
    let [hostile, marked, traps] = policies;
    let send = |bazaar: &Bazaar, method: &str, target: &str, component: &[u8]| {
        let pushed = ask(bazaar, TOKEN, method, target, component);
        assert_eq!(pushed.status, 200, "{}", pushed.body);
    };
    let push = |bazaar: &Bazaar, method: &str, target: &str, file: &Path| {
        send(bazaar, method, target, &fs::read(file).unwrap());
    };
    match wish {
        "trade" => {
            for _ in 0..20 {
                bazaar.trade(&Order::sell(1, "nvidia"));
                bazaar.get("/stocks/nvidia");
                bazaar.get("/stocks/meta");
            }
            let name = "%3Cimg%20src=x%20onerror=alert(1)%3E";
            assert_eq!(bazaar.get(&format!("/stocks/{name}")).status, 200);
        }
        "look up at the other gateway" => {
            for _ in 0..20 {
                let other = bazaar.gateway_address(1);
                let found = request(other, "GET", "/stocks/nvidia", &[], b"");
                assert_eq!(found.status, 200, "{}", found.body);
            }
        }
        "leader" => return bazaar.leader_known_by(TOKEN).to_string(),
        "kill the leader" => {
            let leader = bazaar.leader_known_by(TOKEN);
            bazaar.kill(leader);
            return leader.to_string();
        }
        "kill a gateway" => bazaar.server(Server::Gateway(1)).kill(),
        "push a bad policy" => {
            push(bazaar, "PUT", "/policy", hostile.as_ref());
            let mut asked = 0;
            wait_until("the policy before to be back", || {
                asked += 1;
                let id = [("x-request-id", HOSTILE)];
                bazaar.send("GET", &format!("/stocks/trap{asked}"), &id, b"");
                let policy = ask(bazaar, TOKEN, "GET", "/policy", b"").json();
                policy["active"]["name"] == "default"
            });
        }
        "shadow" => push(bazaar, "PUT", "/policy/candidate?shadow=1", marked.as_ref()),
        "roll out" => push(bazaar, "PUT", "/policy/rollout", marked.as_ref()),
        "somebody else activates another" => push(bazaar, "PUT", "/policy", traps.as_ref()),
        "somebody else puts it back" => {
            send(bazaar, "PUT", "/policy", DEFAULT_POLICY);
            push(bazaar, "PUT", "/policy", marked.as_ref());
        }
        "shadow a hostile one" => {
            push(
                bazaar,
                "PUT",
                "/policy/candidate?shadow=1",
                hostile.as_ref(),
            );
        }
        "active" => {
            let policy = ask(bazaar, TOKEN, "GET", "/policy", b"").json();
            return policy["active"]["name"].as_str().unwrap().to_owned();
        }
        "last change" => {
            let log = ask(bazaar, TOKEN, "GET", "/policy/changes", b"").json();
            return log["changes"]
                .as_array()
                .unwrap()
                .last()
                .unwrap()
                .to_string();
        }
        "restart the gateway" => {
            bazaar.server(Server::Gateway(0)).kill();
            bazaar.start_server(Server::Gateway(0));
        }
        other => panic!("what is {other}?"),
    }
    "done".to_owned()
}

/// The page holds nothing, so anybody may have it; what it shows is for those who may read.
#[test]
fn the_page_is_anybodys_and_what_it_shows_is_not() {
    let bazaar = Bazaar::start(Options {
        gateway_flags: vec![
            format!("--admin-token={TOKEN}"),
            format!("--admin-read-token={READ_TOKEN}"),
        ],
        ..Options::default()
    });
    let asked = |target: &str, headers: &[(&str, &str)]| {
        request(bazaar.admin_address(), "GET", target, headers, b"")
    };
    let page = asked("/", &[]);
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    for (path, kind) in [
        ("/", "text/html"),
        ("/console/style.css", "text/css"),
        ("/console/main.js", "text/javascript"),
    ] {
        let found = asked(path, &[]);
        assert_eq!(found.status, 200, "{path}");
        let content_type = found.header("content-type").unwrap();
        assert!(content_type.starts_with(kind), "{path}: {content_type}");
        assert_eq!(found.header("x-content-type-options"), Some("nosniff"));
    }
    for path in ["/console/events", "/status", "/policy", "/console"] {
        assert_eq!(asked(path, &[]).status, 401, "{path}");
        let wrong = [("authorization", "Bearer guessed")];
        assert_eq!(asked(path, &wrong).status, 401, "{path}");
    }

    // A page of another site changes nothing, whatever it knows; this one does.
    let host = bazaar.admin_address().to_string();
    let changed = |origin: &str, site: &str| {
        let token = format!("Bearer {TOKEN}");
        let headers = [
            ("origin", origin),
            ("sec-fetch-site", site),
            ("authorization", &token),
        ];
        request(
            bazaar.admin_address(),
            "POST",
            "/policy/rollback",
            &headers,
            b"",
        )
        .status
    };
    let own = format!("http://{host}");
    assert_eq!(changed("http://evil.example", "cross-site"), 403);
    assert_eq!(changed("http://evil.example", "same-origin"), 403);
    assert_eq!(changed(&own, "cross-site"), 403);
    assert_eq!(
        changed(&own, "same-origin"),
        409,
        "there is nothing to roll back to"
    );
}

/// Between a look and a click another operator may have changed the policy.
#[test]
fn a_policy_is_changed_only_where_it_is_as_the_operator_has_seen_it() {
    // Before the policy that it starts with can pass its probation, which it is gone back to then.
    let [marked, traps] = ["marked", "traps"].map(|name| fs::read(guest(name)).unwrap());
    let bazaar = Bazaar::start_default();
    let admin = |method: &str, target: &str, body: &[u8]| {
        request(bazaar.admin_address(), method, target, &[], body)
    };
    let put = |target: &str, component: &[u8]| {
        let put = admin("PUT", target, component);
        assert_eq!(put.status, 200, "{}", put.body);
        put.json()
    };
    let digest = |policy: &Value, which: &str| policy[which]["digest"].as_str().unwrap().to_owned();
    let seen = put("/policy", &marked);
    let (active, behind) = (digest(&seen, "active"), digest(&seen, "previous"));
    // Somebody else activates another, and puts one on trial.
    let now = put("/policy", &traps);
    let candidate = put("/policy/candidate?shadow=0.1", DEFAULT_POLICY);
    let candidate = digest(&candidate, "candidate");
    let refused = |target: &str, now: &str| {
        let refused = admin("POST", target, b"");
        assert_eq!(refused.status, 409, "{target}: {}", refused.body);
        let message = refused.json()["error"]["message"].to_string();
        assert!(message.contains("nothing was changed"), "{message}");
        assert!(message.contains(now), "{message} does not say {now}");
    };
    let traps = digest(&now, "active");
    refused(&format!("/policy/rollback?active={active}"), &traps);
    let promote = format!("/policy/promote?digest={candidate}&active={active}");
    refused(&promote, &traps);
    let activate = format!("/policy/activate?digest={behind}&active={active}");
    refused(&activate, &traps);
    let rollback = format!("/policy/rollback?digest={behind}&active={traps}");
    refused(&rollback, &active);
    assert_eq!(
        digest(&admin("GET", "/policy", b"").json(), "active"),
        traps
    );

    // As it is seen then, by the command, too.
    let admin_url = format!("--admin=http://{}", bazaar.admin_address());
    let stale = ["policy", "rollback", "--active", &active, &admin_url];
    let refused = run(stale);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains(&traps), "{said}");
    let to = ["--digest", &active[..8], "--active", &traps[..8]];
    run_ok(["policy", "rollback", &admin_url].into_iter().chain(to));
    assert_eq!(
        digest(&admin("GET", "/policy", b"").json(), "active"),
        active
    );
}

/// What an alarm is called is what a runbook is looked up by.
#[test]
fn every_alarm_of_the_console_is_one_that_operators_can_look_up() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| fs::read_to_string(project.join(path)).unwrap();
    let script = read("frontend-host/src/admin/page/alarms.js");
    let (rules, runbook) = (
        read("deploy/prometheus/alerts.yml"),
        read("docs/OPERATING.md"),
    );
    let named = script.split('"').filter(|text| {
        let rest = text.strip_prefix("Bazaar");
        rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|it| it.is_ascii_alphabetic()))
    });
    let named: BTreeSet<_> = named.collect();
    assert!(named.len() > 15, "{named:?}");
    for name in named {
        assert!(rules.contains(&format!("- alert: {name}\n")), "{name}");
        assert!(runbook.contains(&format!("`{name}`")), "{name}");
    }
}

/// Begins to follow: the connection, once the answer's first line is there, and its status.
fn follow(bazaar: &Bazaar) -> (BufReader<TcpStream>, String) {
    let address = bazaar.admin_address();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET /console/events HTTP/1.0\r\nhost: {address}\r\n\r\n"
    )
    .unwrap();
    let (mut stream, mut line) = (BufReader::new(stream), String::new());
    stream.read_line(&mut line).unwrap();
    let status = line.split(' ').nth(1).unwrap_or_default().to_owned();
    (stream, status)
}

/// Whoever opens many takes nobody else's place at the admin API, and gives them back.
#[test]
fn there_are_so_many_consoles_at_a_time_and_the_admin_api_answers_beside_them() {
    let bazaar = Bazaar::start_default();
    let open: Vec<_> = (0..CONSOLES_MAX).map(|_| follow(&bazaar)).collect();
    assert!(open.iter().all(|(_, status)| status == "200"));
    assert_eq!(follow(&bazaar).1, "503");
    assert_eq!(bazaar.status()["ready"], true);
    drop(open);
    wait_until("a console to be let in again", || {
        follow(&bazaar).1 == "200"
    });
}

/// Follows until what is shown of everybody and of policies is as it should be.
fn follow_until(bazaar: &Bazaar, is_so: impl Fn(&Value, &Value) -> bool) -> Value {
    let (stream, status) = follow(bazaar);
    assert_eq!(status, "200");
    let (mut name, mut now, mut policy) = (String::new(), Value::Null, Value::Null);
    for line in stream.lines() {
        let line = line.unwrap();
        if let Some(event) = line.strip_prefix("event: ") {
            name = event.to_owned();
        }
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        let data = serde_json::from_str(data).unwrap();
        match name.as_str() {
            "now" => now = data,
            "policy" => policy = data,
            _ => assert_eq!(data["may_change"], true, "{data}"),
        }
        if is_so(&now, &policy) {
            return now;
        }
    }
    panic!("the stream ended; it said last: {now} {policy}");
}

/// Also where services prove who they are: each says how it is to whoever is one of them.
#[test]
fn one_gateway_shows_all_and_what_each_of_them_counts() {
    for secured in [false, true] {
        let bazaar = Bazaar::start(Options {
            gateways: 2,
            secured,
            ..Options::default()
        });
        bazaar.trade(&Order::sell(1, "nvidia"));
        let seen = follow_until(&bazaar, |now, policy| {
            let gateways = now["gateways"].as_array();
            let says = |gateway: &Value| {
                let key = gateway["key"].as_str().unwrap();
                gateway["report"]["figures"]["bazaar_ready"][0][1] == 1
                    && policy[key]["policy"]["active"]["name"] == "default"
            };
            gateways.is_some_and(|all| all.len() == 2 && all.iter().all(says))
        });
        assert_eq!(seen["gateways"][0]["own"], true);
        assert_eq!(seen["gateways_known"], true);
        let replicas = seen["replicas"].as_array().unwrap();
        assert_eq!(replicas.len(), 3);
        for replica in replicas {
            let rows = &replica["said"]["figures"]["bazaar_order_ledger_rows"][0][1];
            assert_eq!(*rows, 1, "{replica}");
        }
        let catalog = &seen["catalogs"][0]["said"];
        let says = (&catalog["says"], &catalog["ready"]);
        assert_eq!(says, (&"active".into(), &true.into()));
        let stages = &catalog["figures"]["bazaar_trade_stage_seconds"];
        assert_eq!(stages[0][2].as_array().unwrap().len(), 20, "{stages}");
    }
}

/// A session with the catalog, of somebody who need not be a gateway.
struct Pretended {
    requests: mpsc::Sender<SessionRequest>,
    events: Streaming<SessionEvent>,
}

impl Pretended {
    async fn open(client: &mut CatalogClient<Channel>) -> Option<Self> {
        let (requests, stream) = mpsc::channel(8);
        let gateway = "0.0.0.0:8080".to_owned();
        let journal = Vec::new();
        let open = Request::Open(session_request::Open { gateway, journal });
        let open = SessionRequest {
            request: Some(open),
        };
        requests.send(open).await.ok()?;
        let events = client.session(ReceiverStream::new(stream)).await.ok()?;
        let events = events.into_inner();
        Some(Self { requests, events })
    }

    /// Renews its lease, and says that it is on a host of that number. `None` where it is over.
    async fn say(&mut self, number: u64) -> Option<()> {
        let json = format!(r#"{{"host":"host-{number}"}}"#).into_bytes();
        let renew = Request::Renew(session_request::Renew { nonce: number });
        let report = Request::Report(session_request::Report { json });
        for request in [renew, report] {
            let request = SessionRequest {
                request: Some(request),
            };
            self.requests.send(request).await.ok()?;
        }
        self.events.message().await.ok()?.map(drop)
    }
}

/// Has so many sessions over one connection, and says in each that it is a gateway, on another host each time.
async fn pretend_to_be_gateways(catalog: String, count: u64) {
    let channel = connect::lazy(&catalog, &Security::NONE).unwrap();
    let mut client = CatalogClient::new(channel);
    let mut sessions = Vec::new();
    for number in 0.. {
        if (sessions.len() as u64) < count {
            sessions.extend(Pretended::open(&mut client).await);
        }
        if u64::is_multiple_of(number, count) {
            sleep(Duration::from_millis(100)).await;
        }
        if let Some(mut session) = sessions.pop()
            && session.say(number).await.is_some()
        {
            sessions.insert(0, session);
        }
    }
}

#[test]
fn who_opens_sessions_without_end_pushes_no_gateway_out_of_the_console() {
    let bazaar = Bazaar::start(Options {
        gateways: 2,
        ..Options::default()
    });
    let other = |now: &Value| {
        let gateways = now["gateways"].as_array().cloned().unwrap_or_default();
        let mut others = gateways.into_iter().filter(|it| it["own"] == false);
        others.find(|it| it["report"]["figures"]["bazaar_ready"][0][1] == 1)
    };
    follow_until(&bazaar, |now, _| other(now).is_some());
    let pretending = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    for _ in 0..2 {
        let catalog = format!("http://{}", bazaar.server_address(Server::Catalog));
        pretending.spawn(pretend_to_be_gateways(catalog, 50));
    }
    let looks = RefCell::new(BTreeSet::new());
    let now = follow_until(&bazaar, |now, _| {
        let left_out = now["gateways_left_out"].as_u64().unwrap_or_default();
        if left_out == 0 {
            return false;
        }
        assert!(other(now).is_some(), "it is one of {left_out} left out");
        looks.borrow_mut().insert(now["at_ms"].as_u64());
        looks.borrow().len() == 5
    });
    assert!(now["gateways"].as_array().unwrap().len() <= 65);
}
