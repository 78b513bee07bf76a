//! Authorities, and what `bazaar cert new` adds to them.

use super::*;

#[test]
fn certificates_are_added_to_an_authority_and_none_is_overwritten_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let certs = dir.path().join("deep/certs");
    let certs = certs.to_str().unwrap();
    let made = run_ok([
        "cert",
        "new",
        certs,
        "--host=trade.example.org",
        "--host=10.1.2.3",
    ]);
    for name in [
        "ca", "catalog", "gateway", "operator", "viewer", "order-1", "order-2", "order-3",
    ] {
        assert!(made.contains(&format!("{name}.crt")), "{name}: {made}");
        use std::os::unix::fs::PermissionsExt as _;
        let key = std::fs::metadata(format!("{certs}/{name}.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600, "{name}");
    }
    let read = |name: &str| std::fs::read(format!("{certs}/{name}")).unwrap();
    let (authority, gateway) = (read("ca.crt"), read("gateway.crt"));
    let again = run_ok(["cert", "new", certs]);
    assert!(again.contains("--renew"), "{again}");
    let added = run_ok([
        "cert",
        "new",
        certs,
        "--for=gateway/edge-2",
        "--for=operator/ada",
    ]);
    assert!(
        added.contains("gateway-edge-2.crt") && added.contains("operator-ada.crt"),
        "{added}"
    );
    assert_eq!(
        (read("ca.crt"), read("gateway.crt")),
        (authority.clone(), gateway.clone())
    );
    // Each of those that are there, under the hosts that it had.
    let edge = read("gateway-edge-2.crt");
    run_ok(["cert", "new", certs, "--renew"]);
    assert_eq!(read("ca.crt"), authority);
    assert_ne!(read("gateway.crt"), gateway);
    assert_ne!(read("gateway-edge-2.crt"), edge);
    let hosts = |name: &str| {
        let file = Path::new(certs).join(name);
        let contents = daemon::watched::Contents::read(&file).unwrap();
        tls::cluster::described(&contents).unwrap().0
    };
    let has = |name: &str, host: &str| hosts(name).iter().any(|found| found == host);
    assert!(has("gateway.crt", "trade.example.org") && has("gateway.crt", "10.1.2.3"));
    // A host that is missing is added, though the certificate would do for others.
    run_ok(["cert", "new", certs, "--for=order/2", "--host=host-2"]);
    assert!(has("order-2.crt", "host-2") && has("order-2.crt", "10.1.2.3"));
    assert!(!has("order-1.crt", "host-2"));

    for (flags, code, said) in [
        (
            &["--host=not a host"][..],
            2,
            "neither a host name nor an address",
        ),
        (&["--for=king/a"], 2, "not a role"),
        (&["--for=order/three"], 2, "not a role"),
    ] {
        let refused = run(["cert", "new", certs].iter().chain(flags));
        let message = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(code), "{message}");
        assert!(message.contains(said), "{message}");
    }
    // Another program's authority, which calls itself something else; and half of one.
    let other = tempfile::tempdir().unwrap();
    let other = other.path().to_str().unwrap();
    for name in ["gateway.crt", "gateway.key"] {
        let to = format!("{other}/{}", name.replace("gateway", "ca"));
        std::fs::copy(format!("{certs}/{name}"), to).unwrap();
    }
    let refused = run(["cert", "new", other]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!Path::new(&format!("{other}/catalog.crt")).exists());
    std::fs::remove_file(format!("{certs}/ca.key")).unwrap();
    let refused = run(["cert", "new", certs, "--renew"]);
    let message = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(message.contains("ca.key is not"), "{message}");
}
