//! Who may use the admin API, what it stands from those who may not, and how it says no.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use frontend_host::config::{ADMIN_CONNECTIONS_MAX, SEND_TIME_MAX};

use crate::harness::{
    Bazaar, KeepAlive, Options, Order, Ports, Response, Server, request, run_ok, run_with,
    send_raw, try_request, wait_until,
};

/// How long an answer may take while others misbehave, on a busy machine.
const SERVED_WITHIN: Duration = Duration::from_secs(5);

/// How long what goes out may go on, and come, on a busy machine: 12 s by themselves.
const ENDED_WITHIN: Duration = Duration::from_secs(40);

const TOKEN: &str = "s3cr3t";

fn bazaar_with_token() -> Bazaar {
    Bazaar::start(Options {
        gateway_flags: vec![format!("--admin-token={TOKEN}")],
        ..Options::default()
    })
}

/// Its token is `first`, until the file says another one.
fn bazaar_with_token_file(file: &Path) -> Bazaar {
    fs::write(file, "first\n").unwrap();
    Bazaar::start(Options {
        gateway_flags: vec![format!("--admin-token-file={}", file.display())],
        ..Options::default()
    })
}

fn ask(bazaar: &Bazaar, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
    request(bazaar.admin_address(), method, target, headers, b"")
}

#[test]
fn an_empty_or_blank_secret_is_refused_wherever_one_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let blank = dir.path().join("blank");
    fs::write(&blank, " \n").unwrap();
    let blank = blank.to_str().unwrap();
    // What is not refused ends all the same: by the end of its standard input, or at a taken port.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("--listen={}", taken.local_addr().unwrap());
    let gateway = [
        "gateway",
        "--stop-at-eof",
        "--listen=127.0.0.1:0",
        "--admin=127.0.0.1:0",
        "--catalog=http://127.0.0.1:1",
        "--order=1=http://127.0.0.1:1",
    ];
    let up = ["up", "--port-base=0", &taken, "--admin=127.0.0.1:0"];
    let status = ["status", "--admin=http://127.0.0.1:1"];
    let sign = ["policy", "sign", "policy.wasm"];
    for (command, variable, value, code) in [
        (&gateway[..], "BAZAAR_ADMIN_TOKEN", "", 2),
        (&gateway, "BAZAAR_ADMIN_TOKEN", " \t", 2),
        (&gateway, "BAZAAR_ADMIN_TOKEN_FILE", "", 2),
        (&gateway, "BAZAAR_ADMIN_TOKEN_FILE", blank, 2),
        (&gateway, "BAZAAR_ADMIN_READ_TOKEN", "", 2),
        (&gateway, "BAZAAR_ADMIN_READ_TOKEN_FILE", "", 2),
        (&gateway, "BAZAAR_CLUSTER_CERT", "", 2),
        (&gateway, "BAZAAR_TLS_CERT", "", 2),
        (&gateway, "BAZAAR_TLS_CLIENT_CA", "", 2),
        (&gateway, "BAZAAR_POLICY_TRUST", "", 2),
        (&gateway, "BAZAAR_POLICY_TRUST", blank, 1),
        (&up, "BAZAAR_ADMIN_TOKEN", "", 2),
        (&up, "BAZAAR_ADMIN_TOKEN", " \t", 2),
        (&up, "BAZAAR_ADMIN_TOKEN_FILE", "", 2),
        (&up, "BAZAAR_ADMIN_TOKEN_FILE", blank, 2),
        (&up, "BAZAAR_POLICY_TRUST", "", 2),
        (&status, "BAZAAR_ADMIN_TOKEN", "", 2),
        (&status, "BAZAAR_ADMIN_TOKEN", " \t", 2),
        (&status, "BAZAAR_ADMIN_TOKEN_FILE", "", 2),
        (&status, "BAZAAR_ADMIN_TOKEN_FILE", blank, 2),
        (&sign, "BAZAAR_KEY", "", 2),
        (&sign, "BAZAAR_KEY", blank, 1),
    ] {
        let refused = run_with(&[(variable, value)], command);
        let message = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(
            refused.status.code(),
            Some(code),
            "{} with {variable}={value:?}: {message}",
            command[0]
        );
    }
}

#[test]
fn any_other_variable_that_is_empty_counts_as_absent() {
    let nobody = Ports::claim();
    let url = format!("--url=http://{}", nobody.address(0));
    let empty = [
        ("BAZAAR_CLIENTS", ""),
        ("BAZAAR_SEED", ""),
        ("BAZAAR_REPORT", ""),
        ("BAZAAR_SWEEP", ""),
        ("BAZAAR_ADMIN", ""),
    ];
    let ran = run_with(&empty, ["load", &url]);
    let message = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot connect"), "{message}");
}

#[test]
fn beyond_loopback_the_admin_api_needs_a_token() {
    for admin in ["0.0.0.0:0", "[::]:0"] {
        let admin = format!("--admin={admin}");
        let refused = run_with(
            &[],
            [
                "gateway",
                "--listen=127.0.0.1:0",
                &admin,
                "--catalog=http://127.0.0.1:1",
                "--order=1=http://127.0.0.1:1",
            ],
        );
        let message = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{message}");
        assert!(message.contains("--admin-token-file"), "{message}");
    }
}

#[test]
fn a_probe_needs_no_token_and_everybody_else_does() {
    let bazaar = bazaar_with_token();
    for target in ["/healthz", "/readyz"] {
        assert_eq!(ask(&bazaar, "GET", target, &[]).status, 200, "{target}");
        // As kubelet asks: by whatever address it has.
        let probe = format!("GET {target} HTTP/1.1\r\nhost: 10.1.2.3\r\nconnection: close\r\n\r\n");
        assert_eq!(
            send_raw(bazaar.admin_address(), probe.as_bytes())
                .unwrap()
                .status,
            200
        );
    }
    for (method, target) in [
        ("GET", "/status"),
        ("GET", "/metrics"),
        ("GET", "/policy"),
        ("PUT", "/policy"),
        ("DELETE", "/policy/candidate"),
        ("POST", "/policy/rollback"),
        ("POST", "/policy/recording"),
        ("POST", "/policy"),
        ("GET", "/nothing"),
    ] {
        for shown in [
            &[][..],
            &[("authorization", "Bearer other")],
            &[("authorization", "Basic s3cr3t")],
        ] {
            let refused = ask(&bazaar, method, target, shown);
            assert_eq!(refused.error().0, 401, "{method} {target}");
            let challenge = refused.header("www-authenticate").unwrap_or_default();
            assert!(challenge.starts_with("Bearer"), "{refused:?}");
        }
    }
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let shown = format!("{scheme} {TOKEN}");
        let answer = ask(&bazaar, "GET", "/policy", &[("authorization", &shown)]);
        assert_eq!(answer.status, 200, "{scheme}");
    }
}

#[test]
fn a_token_may_be_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let flag = format!("--admin-token-file={}", file.display());
    let bazaar = Bazaar::start(Options {
        gateway_flags: vec![flag.clone()],
        ..Options::default()
    });
    assert_eq!(ask(&bazaar, "GET", "/status", &[]).status, 401);
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let status = run_ok(["status", &admin, &flag]);
    assert!(status.contains("ready"), "{status}");
}

#[test]
fn who_may_only_read_changes_nothing() {
    let bazaar = Bazaar::start(Options {
        gateway_flags: vec![
            format!("--admin-token={TOKEN}"),
            "--admin-read-token=looker".to_owned(),
        ],
        ..Options::default()
    });
    let before = ask(
        &bazaar,
        "GET",
        "/policy",
        &[("authorization", "Bearer looker")],
    );
    for target in [
        "/status",
        "/metrics",
        "/policy",
        "/policy/changes",
        "/policy/rollout",
    ] {
        let answer = ask(
            &bazaar,
            "GET",
            target,
            &[("authorization", "Bearer looker")],
        );
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
    }
    for (method, target) in [
        ("PUT", "/policy"),
        ("PUT", "/policy/candidate?shadow=0.1"),
        ("DELETE", "/policy/candidate"),
        ("PUT", "/policy/configuration"),
        ("POST", "/policy/promote"),
        ("POST", "/policy/rollback"),
        ("POST", "/policy/activate?digest=0"),
        ("PUT", "/policy/rollout"),
        ("POST", "/policy/rollout/pause"),
        ("POST", "/policy/rollout/resume"),
        ("POST", "/policy/rollout/skip"),
        ("POST", "/policy/recording?seconds=0"),
        ("DELETE", "/whatever"),
    ] {
        let refused = ask(
            &bazaar,
            method,
            target,
            &[("authorization", "Bearer looker")],
        );
        assert_eq!(refused.error().0, 403, "{method} {target}: {refused:?}");
        let allowed = ask(
            &bazaar,
            method,
            target,
            &[("authorization", "Bearer s3cr3t")],
        );
        assert!(
            ![401, 403].contains(&allowed.status),
            "{method} {target}: {allowed:?}"
        );
    }
    let after = ask(
        &bazaar,
        "GET",
        "/policy",
        &[("authorization", "Bearer looker")],
    );
    assert_eq!(
        before.json()["active"]["digest"],
        after.json()["active"]["digest"]
    );
}

#[test]
fn a_token_for_reading_alone_or_for_everything_is_refused() {
    let gateway = [
        "gateway",
        "--stop-at-eof",
        "--listen=127.0.0.1:0",
        "--admin=127.0.0.1:0",
        "--catalog=http://127.0.0.1:1",
        "--order=1=http://127.0.0.1:1",
    ];
    for (flags, said) in [
        (
            &["--admin-read-token=a"][..],
            "nothing says who may change anything",
        ),
        (
            &["--admin-read-token=a", "--admin-token=a"],
            "make another one",
        ),
    ] {
        let refused = run_with(&[], gateway.iter().chain(flags));
        let message = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{message}");
        assert!(message.contains(said), "{message}");
    }
}

#[test]
fn a_token_that_is_replaced_in_its_file_is_asked_for_from_then_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let bazaar = bazaar_with_token_file(&file);
    let is_let_in = |token: &str| {
        let bearer = format!("Bearer {token}");
        let answer = ask(&bazaar, "GET", "/status", &[("authorization", &bearer)]);
        assert!([200, 401].contains(&answer.status), "{answer:?}");
        answer.status == 200
    };
    assert!(is_let_in("first") && !is_let_in("second"));
    // What is no token leaves the one that is in force.
    fs::write(&file, " \n").unwrap();
    assert!(is_let_in("first") && !is_let_in(""));
    fs::write(&file, "second\n").unwrap();
    wait_until("the new token to be asked for", || is_let_in("second"));
    assert!(!is_let_in("first"));
}

/// Reads until it comes.
fn read_to(wanted: &str, from: &mut TcpStream) {
    let began = Instant::now();
    let (mut read, mut part) = (Vec::new(), [0; 4096]);
    while !String::from_utf8_lossy(&read).contains(wanted) {
        let count = from.read(&mut part).unwrap();
        read.extend_from_slice(&part[..count]);
        let in_time = count > 0 && began.elapsed() < ENDED_WITHIN;
        assert!(in_time, "{wanted:?}: {}", String::from_utf8_lossy(&read));
    }
}

/// Clients' requests go to who may see them now, and not for as long as they were asked for.
#[test]
fn what_goes_out_to_an_operator_ends_once_their_token_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let bazaar = bazaar_with_token_file(&file);
    let asked = ["POST /policy/recording?seconds=600", "GET /console/events"];
    let streams = asked.map(|asked| {
        let mut stream = TcpStream::connect(bazaar.admin_address()).unwrap();
        stream.set_read_timeout(Some(ENDED_WITHIN)).unwrap();
        let request = format!(
            "{asked} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer first\r\n\
             connection: close\r\ncontent-length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        read_to(" 200 OK\r\n", &mut stream);
        stream
    });
    fs::write(&file, "second\n").unwrap();
    for mut stream in streams {
        read_to("0\r\n\r\n", &mut stream); // the last of its chunks
    }
    let shown = [("authorization", "Bearer second")];
    wait_until("the end to be written down", || {
        let log = ask(&bazaar, "GET", "/policy/changes", &shown);
        log.body.contains("\"recorded\"")
    });
}

#[test]
fn so_is_one_for_reading_and_who_has_it_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [for_all, for_reading] = ["all", "reading"].map(|name| dir.path().join(name));
    fs::write(&for_all, "operate\n").unwrap();
    fs::write(&for_reading, "first\n").unwrap();
    let bazaar = Bazaar::start(Options {
        gateway_flags: vec![
            format!("--admin-token-file={}", for_all.display()),
            format!("--admin-read-token-file={}", for_reading.display()),
        ],
        ..Options::default()
    });
    let asked = |token: &str, method: &str, target: &str| {
        let bearer = format!("Bearer {token}");
        ask(&bazaar, method, target, &[("authorization", &bearer)]).status
    };
    let may = |token: &str| {
        [
            asked(token, "GET", "/status"),
            asked(token, "POST", "/policy/rollback"),
        ]
    };
    let (may_read, may_change, is_unknown) = ([200, 403], [200, 409], [401, 401]);
    assert_eq!(may("first"), may_read);
    assert_eq!(may("operate"), may_change);
    fs::write(&for_reading, "second\n").unwrap();
    wait_until("the new token to be asked for", || {
        may("second") == may_read
    });
    assert_eq!(may("first"), is_unknown);
    assert_eq!(may("operate"), may_change);
    // Where one token is in both files by now, it is nobody's who may change anything.
    fs::write(&for_reading, "operate\n").unwrap();
    wait_until("it to be for reading", || may("operate") == may_read);
    assert_eq!(may("second"), is_unknown);
}

#[test]
fn the_log_of_changes_says_who_did_it_from_where_and_what_said_that_they_may() {
    let bazaar = bazaar_with_token();
    let headers = [
        ("authorization", "Bearer s3cr3t"),
        ("x-operator", "ada"),
        ("x-reason", "to see"),
    ];
    let policy = fs::read(crate::harness::example("no-cache")).unwrap();
    let pushed = request(bazaar.admin_address(), "PUT", "/policy", &headers, &policy);
    assert_eq!(pushed.status, 200, "{pushed:?}");
    let changes = ask(&bazaar, "GET", "/policy/changes", &headers).json();
    let change = changes["changes"].as_array().unwrap().last().unwrap();
    for (what, expected) in [
        ("what", "activate"),
        ("who", "ada"),
        ("why", "to see"),
        ("known_by", "token"),
        ("address", "127.0.0.1"),
    ] {
        assert_eq!(change[what], expected, "{change}");
    }
    let log = run_ok([
        "policy".to_owned(),
        "log".to_owned(),
        format!("--admin=http://{}", bazaar.admin_address()),
        format!("--admin-token={TOKEN}"),
    ]);
    assert!(log.contains("ada") && log.contains("127.0.0.1"), "{log}");
}

#[test]
fn no_web_page_can_have_a_browser_use_the_admin_api() {
    for bazaar in [Bazaar::start_default(), bazaar_with_token()] {
        let shown = ("authorization", "Bearer s3cr3t");
        for (method, target) in [
            ("GET", "/status"),
            ("POST", "/policy/rollback"),
            ("POST", "/policy/recording?seconds=1"),
        ] {
            for page in [
                ("origin", "http://evil.example"),
                ("origin", "null"),
                ("sec-fetch-site", "cross-site"),
                ("sec-fetch-site", "same-site"),
            ] {
                let answer = ask(&bazaar, method, target, &[page, shown]);
                assert_eq!(answer.error().0, 403, "{method} {target} with {page:?}");
            }
            // A name of its own that was made to resolve to this machine.
            let rebound = format!(
                "{method} {target} HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\
                 origin: http://evil.example\r\nauthorization: Bearer {TOKEN}\r\ncontent-length: 0\r\n\r\n"
            );
            let answer = send_raw(bazaar.admin_address(), rebound.as_bytes()).unwrap();
            assert_eq!(answer.error().0, 403, "{method} {target}");
        }
        // A picture's source, say.
        let picture = ask(&bazaar, "GET", "/policy/recording?seconds=1", &[shown]);
        assert_eq!(picture.error().0, 405);
        assert_eq!(picture.header("allow"), Some("POST"));
    }
}

#[test]
fn every_error_is_json() {
    let bazaar = Bazaar::start_default();
    for (method, target, code) in [
        ("POST", "/", 405),
        ("GET", "/nothing", 404),
        ("DELETE", "/policy", 405),
        ("POST", "/status", 405),
        ("GET", "/policy/promote", 405),
        ("POST", "/policy/promote", 409),
        ("POST", "/policy/recording?seconds=x", 400),
        ("POST", "/policy/recording?seconds=0", 400),
        ("GET", "/policy/changes?limit=0", 400),
        ("GET", "/policy/changes?limit=all", 400),
        ("GET", "/cache?limit=0", 400),
        ("PUT", "/policy/candidate", 400),
        ("PUT", "/policy/candidate?shadow=2", 400),
        ("GET", "/policy/differences", 404),
        ("PUT", "/policy", 422),
    ] {
        let answer = ask(&bazaar, method, target, &[]);
        assert_eq!(answer.error().0, code, "{method} {target}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("allow").is_some(), code == 405, "{answer:?}");
    }
    let too_large = b"PUT /policy HTTP/1.1\r\nhost: localhost\r\ncontent-length: 99999999\r\n\r\n";
    assert_eq!(
        send_raw(bazaar.admin_address(), too_large)
            .unwrap()
            .error()
            .0,
        413
    );
    for hosts in ["", "host: localhost\r\nhost: localhost\r\n"] {
        let doubtful = format!("GET /status HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
        let answer = send_raw(bazaar.admin_address(), doubtful.as_bytes()).unwrap();
        assert_eq!(answer.error().0, 400, "{hosts:?}");
    }
}

#[test]
fn strangers_at_the_admin_port_keep_neither_clients_nor_operators_out() {
    const STRANGERS: usize = 1_100;
    let mut bazaar = bazaar_with_token();
    // More than the gateway needs, and fewer than there are strangers.
    bazaar.server(Server::Gateway(0)).limit_open_files(512);
    let admin = bazaar.admin_address();
    let strangers: Vec<_> = (0..STRANGERS)
        .map(|_| {
            let mut connection = TcpStream::connect(admin).expect("there is a queue");
            connection
                .write_all(b"GET /status HTTP/1.1\r\nhost: x\r\n")
                .ok();
            connection
        })
        .collect();
    let ask = |to, target, headers: &[(&str, &str)]| {
        try_request(to, "GET", target, headers, b"", SERVED_WITHIN).map(|answer| answer.status)
    };
    assert_eq!(ask(bazaar.address(), "/stocks/nvidia", &[]).ok(), Some(200));
    bazaar.trade(&Order::sell(1, "nvidia"));
    assert_eq!(ask(admin, "/readyz", &[]).ok(), Some(200));
    let shown = format!("Bearer {TOKEN}");
    let status = ask(admin, "/status", &[("authorization", &shown)]);
    assert_eq!(status.ok(), Some(200));
    drop(strangers);
}

#[test]
fn who_asks_the_admin_api_for_nothing_or_too_slowly_is_cut_off() {
    /// Beyond what a limit says, on a busy machine.
    const SLACK: Duration = Duration::from_secs(8);
    let bazaar = bazaar_with_token();
    let begun = Instant::now();
    let mut slow: Vec<_> = ["", "GET /status HTTP/1.1\r\nhost: localhost\r\nx: "]
        .map(|sent| {
            let mut connection = TcpStream::connect(bazaar.admin_address()).unwrap();
            connection.write_all(sent.as_bytes()).unwrap();
            connection.set_nonblocking(true).unwrap();
            connection
        })
        .into();
    wait_until("slow senders to be cut off", || {
        slow.retain_mut(|connection| {
            let open = match connection.read(&mut [0; 512]) {
                Ok(bytes) => bytes > 0,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            };
            open && connection.write(b"x").is_ok()
        });
        slow.is_empty()
    });
    let cut_off_after = begun.elapsed();
    assert!(cut_off_after < SEND_TIME_MAX + SLACK, "{cut_off_after:?}");
}

#[test]
fn an_operator_is_not_taken_for_a_stranger_where_there_are_too_many_of_those() {
    let bazaar = bazaar_with_token();
    let admin = bazaar.admin_address();
    let mut operator = KeepAlive::connect(admin).unwrap();
    let request =
        format!("GET /policy HTTP/1.1\r\nhost: localhost\r\nauthorization: bearer {TOKEN}\r\n\r\n");
    assert_eq!(operator.exchange(request.as_bytes()).unwrap().status, 200);
    let strangers: Vec<_> = (0..2 * ADMIN_CONNECTIONS_MAX)
        .map(|_| TcpStream::connect(admin).unwrap())
        .collect();
    // Connections are taken in one after the other.
    assert_eq!(ask(&bazaar, "GET", "/healthz", &[]).status, 200);
    assert_eq!(operator.exchange(request.as_bytes()).unwrap().status, 200);
    drop(strangers);
}
