//! What each listener of `bazaar up --secure` accepts of another's TLS: asked by OpenSSL's `s_client`, one version and one
//! cipher after another, as scanners of TLS do.

use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};

use super::Up;
use crate::harness::{Process, skip, wait_until};

/// What was agreed on.
#[derive(Debug, PartialEq, Eq)]
struct Agreed {
    version: String,
    cipher: String,
}

/// Connects with further flags; none where there is no handshake.
fn connect(to: SocketAddr, up: &Up, flags: &[&str]) -> Option<Agreed> {
    let file = |name: &str| up.file(name).display().to_string();
    let output = Command::new("openssl")
        .args(["s_client", "-brief", "-connect", &to.to_string()])
        .args(["-CAfile", &file("ca.crt"), "-verify_return_error"])
        .args(["-cert", &file("gateway.crt"), "-key", &file("gateway.key")])
        .args(flags)
        .stdin(Stdio::null())
        .output()
        .expect("openssl starts");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let value = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    Some(Agreed {
        version: value("Protocol version:")?,
        cipher: value("Ciphersuite:")?,
    })
}

/// Every cipher of before TLS 1.3 that this OpenSSL has, by any means.
fn ciphers() -> Vec<String> {
    let listed = Command::new("openssl")
        .args(["ciphers", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"])
        .output()
        .expect("openssl starts");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let old = listed
        .trim()
        .split(':')
        .filter(|name| !name.starts_with("TLS_"));
    old.map(str::to_owned).collect()
}

/// Where services listen for each other, as `up` says it.
fn services(up: &Up) -> Vec<SocketAddr> {
    let out = up.process.out();
    let words = out
        .split_whitespace()
        .map(|word| word.trim_start_matches("https://"));
    let mut all: Vec<SocketAddr> = words.filter_map(|word| word.parse().ok()).collect();
    all.retain(|address| ![up.clients, up.admin].contains(address));
    all.sort_unstable();
    all.dedup();
    all
}

/// A replica that is asked for its metrics from anywhere, as `up`'s are not; returns where.
fn monitored(up: &Up) -> (Process, SocketAddr) {
    let at = up.ports.address(2);
    let file = |name: &str| up.file(name).display().to_string();
    let replica = Process::start(
        "monitored",
        up.dir.path(),
        [
            "order".to_owned(),
            "--id=1".to_owned(),
            "--listen=127.0.0.1:0".to_owned(),
            format!("--metrics=0.0.0.0:{}", at.port()),
            "--catalog=https://127.0.0.1:1".to_owned(),
            format!("--data-dir={}", up.dir.path().join("monitored").display()),
            format!("--cluster-ca={}", file("ca.crt")),
            format!("--cluster-cert={}", file("order-1.crt")),
            format!("--cluster-key={}", file("order-1.key")),
        ],
    );
    wait_until("its listener for metrics", || {
        TcpStream::connect(at).is_ok()
    });
    (replica, at)
}

#[test]
fn nothing_but_what_is_held_to_be_safe_today_is_agreed_on() {
    if Command::new("openssl").arg("version").output().is_err() {
        skip("what TLS is accepted", "there is no openssl");
        return;
    }
    let up = Up::start();
    let services = services(&up);
    assert_eq!(services.len(), 4, "{}", up.process.out());
    let (_monitored, metrics) = monitored(&up);
    // By clients that need not prove who they are.
    let open = [up.clients, up.admin, metrics];
    let all = || open.into_iter().chain(services.iter().copied());
    for address in all() {
        for old in ["-tls1", "-tls1_1"] {
            let flags = [old, "-cipher", "ALL:@SECLEVEL=0"];
            assert_eq!(connect(address, &up, &flags), None, "{address} {old}");
        }
        let newest = connect(address, &up, &[]).expect("it is TLS");
        assert_eq!(newest.version, "TLSv1.3", "{address}: {newest:?}");
        let weak = connect(
            address,
            &up,
            &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_8_SHA256"],
        );
        assert_eq!(weak, None, "{address}: an authentication of 8 bytes");
    }
    for address in &services {
        let older = connect(*address, &up, &["-tls1_2"]);
        assert_eq!(older, None, "{address}: services speak TLS 1.3 alone");
        let file = |name: &str| up.file(name).display().to_string();
        let unproven = Command::new("openssl")
            .args(["s_client", "-quiet", "-connect", &address.to_string()])
            .args(["-CAfile", &file("ca.crt")])
            .stdin(Stdio::null())
            .output()
            .expect("openssl starts");
        let said = String::from_utf8_lossy(&unproven.stderr).into_owned();
        assert!(said.contains("certificate required"), "{address}: {said}");
    }
    let mut agreed = Vec::new();
    for cipher in ciphers() {
        let flags = ["-tls1_2", "-cipher", &format!("{cipher}:@SECLEVEL=0")];
        for address in open {
            agreed.extend(connect(address, &up, &flags).map(|agreed| agreed.cipher));
        }
    }
    agreed.sort();
    agreed.dedup();
    println!("agreed on with TLS 1.2: {agreed:?}");
    assert!(!agreed.is_empty(), "clients may speak TLS 1.2");
    for cipher in &agreed {
        // Forward secrecy, and encryption that authenticates (RFC 9325, section 4.2).
        let is_safe = cipher.starts_with("ECDHE-")
            && (cipher.contains("-GCM-") || cipher.contains("-CHACHA20-"));
        assert!(is_safe, "{cipher}");
    }
}
