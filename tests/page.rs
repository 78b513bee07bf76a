//! The front page, in a browser.

use std::fs;
use std::process::{Command, Stdio};

use crate::harness::{Bazaar, Options, example, run_ok, skip};

/// How the script says that the browser is not to be had (`EX_UNAVAILABLE`).
const UNAVAILABLE: i32 = 69;

/// Where screenshots are left, to be looked at.
const SCREENSHOTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/screenshots/page");

#[test]
fn people_trade_and_see_what_others_do() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/page");
    let fetched = Command::new(format!("{dir}/fetch"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&fetched.stderr);
    if fetched.status.code() == Some(UNAVAILABLE) {
        skip("a browser is not to be had", log);
        return;
    }
    assert!(fetched.status.success(), "{}: {log}", fetched.status);
    let fetched = String::from_utf8(fetched.stdout).unwrap();
    let (python, chromium) = fetched.trim().split_once('\n').unwrap();

    let bazaar = Bazaar::start_default();
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let hostile = "<img src=x onerror=alert(1)>";
    let listed = ["stock", "add", hostile, "--price=1", "--quantity=100"];
    let said = ["--operator=alice", "--reason=the test", &admin];
    run_ok(listed.into_iter().chain(said));
    fs::create_dir_all(SCREENSHOTS).unwrap();
    let driven = Command::new(python)
        .arg(format!("{dir}/drive.py"))
        .args([&format!("http://{}/", bazaar.address()), chromium])
        .arg(SCREENSHOTS)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&driven.stderr);
    assert!(driven.status.success(), "{said}");
    bazaar.check_acknowledged();
}

#[test]
fn the_page_comes_with_what_keeps_it_safe_and_is_asked_for_once() {
    let bazaar = Bazaar::start_default();
    let page = bazaar.get("/");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';"),
        "{policy}"
    );
    assert!(!policy.contains("unsafe"), "{policy}");
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/openapi.json", "application/json"),
    ] {
        let found = bazaar.get(path);
        assert_eq!(found.status, 200, "{path}");
        assert!(
            found.header("content-type").unwrap().starts_with(kind),
            "{path}"
        );
        assert_eq!(found.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(found.header("cache-control"), Some("no-cache"));
        let head = bazaar.send("HEAD", path, &[], b"");
        let length = found.body.len().to_string();
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-length"), Some(length.as_str()));
        let tag = found.header("etag").unwrap();
        let again = bazaar.send("GET", path, &[("if-none-match", tag)], b"");
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
    }
}

/// The page is a policy's, like every answer.
#[test]
fn a_policy_has_another_page_or_none() {
    let older = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/policies/default-1.1.wasm"
    );
    let bazaar = Bazaar::start(Options {
        policy: Some(older.into()),
        ..Options::default()
    });
    for path in ["/", "/page.js", "/openapi.json", "/events"] {
        assert_eq!(bazaar.get(path).error().0, 404, "{path}");
    }
    let html = fs::read(example("html")).unwrap();
    assert_eq!(bazaar.admin("PUT", "/policy", &html).status, 200);
    let page = bazaar.get("/").body;
    assert!(
        page.contains("<html") && !page.contains("/page.js"),
        "{page}"
    );
}
