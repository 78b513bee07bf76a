//! `bazaar up --secure`: what it serves to whom, and who says nothing to it.

use super::*;

#[test]
fn up_secure_serves_clients_and_operators_over_tls_alone() {
    let mut up = Up::start();
    let said = up.process.out();
    assert!(
        said.contains("--cacert") && said.contains("https://"),
        "{said}"
    );
    runtime().block_on(async {
        let asked = ask(up.clients, up.shows(None), ("GET", "/stocks/nvidia"))
            .await
            .unwrap();
        assert_eq!(asked.0, 200, "{asked:?}");
        let came = ask(up.clients, up.shows(None), ("GET", "/connection"))
            .await
            .unwrap();
        assert!(came.1.contains("by Scheme::Https to"), "{came:?}");
        // HTTP/2 where the client speaks it (RFC 7301).
        for (offered, expected) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1"], Some("http/1.1")),
            (&[], None),
        ] {
            let mut config = (*up.shows(None)).clone();
            config.alpn_protocols = offered
                .iter()
                .map(|name| name.as_bytes().to_vec())
                .collect();
            let config = Arc::new(config);
            for address in [up.clients, up.admin] {
                let stream = handshake(address, Arc::clone(&config)).await.unwrap();
                let agreed = stream.get_ref().1.alpn_protocol();
                assert_eq!(agreed, expected.map(str::as_bytes), "{offered:?}");
            }
        }
        for (who, target, expected) in [
            (None, ("GET", "/healthz"), 200),
            (None, ("GET", "/readyz"), 200),
            (None, ("GET", "/status"), 401),
            (Some("gateway"), ("GET", "/status"), 401),
            (Some("order-1"), ("POST", "/policy/rollback"), 401),
            (Some("viewer"), ("GET", "/status"), 200),
            (Some("viewer"), ("GET", "/metrics"), 200),
            (Some("viewer"), ("POST", "/policy/rollback"), 403),
            (Some("viewer"), ("PUT", "/policy"), 403),
            (Some("viewer"), ("DELETE", "/policy/candidate"), 403),
            (Some("viewer"), ("POST", "/policy/recording?seconds=1"), 403),
            (Some("operator"), ("GET", "/status"), 200),
            (Some("operator"), ("POST", "/policy/rollback"), 409),
        ] {
            let answer = ask(up.admin, up.shows(who), target).await.unwrap();
            assert_eq!(answer.0, expected, "{who:?} {target:?}: {answer:?}");
        }
    });
    for address in [up.clients, up.admin] {
        let plain = try_request(address, "GET", "/readyz", &[], b"", PATIENCE);
        assert!(plain.is_err(), "{plain:?}");
    }
    let (ca, certificate, key) = (
        up.file("ca.crt"),
        up.file("operator.crt"),
        up.file("operator.key"),
    );
    let by_certificate = [
        format!("--admin=https://{}", up.admin),
        format!("--ca={}", ca.display()),
        format!("--client-cert={}", certificate.display()),
        format!("--client-key={}", key.display()),
    ];
    let operate = |arguments: &[&str]| {
        let flags = by_certificate.iter().map(String::as_str);
        run_ok(arguments.iter().copied().chain(flags))
    };
    let status = operate(&["status"]);
    assert!(status.contains("https://"), "{status}");
    // Whose certificate it was stands with every change.
    let (who, why) = ("--operator=ada", "--reason=the test");
    let policy = example("no-cache");
    operate(&["policy", "push", policy.to_str().unwrap(), who, why]);
    let log = operate(&["policy", "log"]);
    let by = "by ada (certificate spiffe://bazaar/operator/operator, 127.0.0.1)";
    assert!(log.lines().any(|line| line.contains(by)), "{log}");
    operate(&["stock", "price", "meta", "7", who, why]);
    let ledger = up.dir.path().join("data/order-1");
    wait_until("the change to be in a replica's ledger", || {
        let changes = run_ok(["ledger", "show", ledger.to_str().unwrap(), "--changes"]);
        changes.contains("\"operator/operator at 127.0.0.1: ada\"")
    });
    let load = [
        "load".to_owned(),
        format!("--url=https://{}", up.clients),
        format!("--ca={}", ca.display()),
        "--clients=2".to_owned(),
        "--iterations=10".to_owned(),
    ];
    run_ok(&load);
    let unbelieved = run(load.iter().filter(|flag| !flag.starts_with("--ca=")));
    assert_eq!(
        unbelieved.status.code(),
        Some(1),
        "this machine does not know that authority"
    );
    // Whoever asks in another way is told which one will do.
    let [secure, plain] = ["https", "http"].map(|scheme| format!("{scheme}://{}", up.admin));
    let clear = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let clear_address = clear.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut client, _) = clear.accept().unwrap();
        std::io::Write::write_all(&mut client, b"HTTP/1.1 400 Bad Request\r\n\r\n")
    });
    for (flags, advice) in [
        (vec![format!("--admin={secure}")], "with --ca"),
        (vec![format!("--admin={plain}")], "name an https:// URL"),
        (
            vec![
                format!("--admin=https://{clear_address}"),
                format!("--ca={}", ca.display()),
            ],
            "name an http:// URL",
        ),
    ] {
        let refused = run(["status".to_owned()].iter().chain(&flags));
        let told = String::from_utf8_lossy(&refused.stderr);
        let failed = refused.status.code() == Some(1);
        assert!(failed && told.contains(advice), "{flags:?}: {told}");
    }
    assert!(up.process.terminate().success());
}

#[test]
fn who_says_nothing_in_a_handshake_keeps_nobody_from_being_served_and_does_not_hold_up_a_stop() {
    let mut up = Up::start();
    let silent: Vec<_> = (0..200)
        .map(|index| {
            let to = if index % 2 == 0 { up.clients } else { up.admin };
            std::net::TcpStream::connect(to).unwrap()
        })
        .collect();
    runtime().block_on(async {
        let asked = ask(up.clients, up.shows(None), ("GET", "/stocks/nvidia"))
            .await
            .unwrap();
        assert_eq!(asked.0, 200);
        let asked = ask(up.admin, up.shows(Some("viewer")), ("GET", "/status"))
            .await
            .unwrap();
        assert_eq!(asked.0, 200);
    });
    let began = Instant::now();
    assert!(up.process.terminate().success());
    let log = up.process.log();
    assert!(!log.contains("cut off"), "{:?}: {log}", began.elapsed());
    drop(silent);
}
