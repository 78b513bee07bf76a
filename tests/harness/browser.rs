//! A headless Chromium, driven by a script of Playwright's as people would use it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::skip;

/// How a script says that what it needs is not to be had (`EX_UNAVAILABLE`).
const UNAVAILABLE: i32 = 69;

const PROJECT: &str = env!("CARGO_MANIFEST_DIR");

/// The browser, and what drives it.
pub struct Browser {
    /// Playwright's Python.
    python: String,
    chromium: String,
}

impl Browser {
    /// `None` where it is not to be had, which is said.
    pub fn find() -> Option<Self> {
        let fetch = format!("{PROJECT}/tests/page/fetch");
        let fetched = Command::new(fetch).stdin(Stdio::null()).output().unwrap();
        let log = String::from_utf8_lossy(&fetched.stderr);
        if fetched.status.code() == Some(UNAVAILABLE) {
            skip("a browser is not to be had", log);
            return None;
        }
        assert!(fetched.status.success(), "{}: {log}", fetched.status);
        let fetched = String::from_utf8(fetched.stdout).unwrap();
        let (python, chromium) = fetched.trim().split_once('\n').unwrap();
        Some(Self {
            python: python.to_owned(),
            chromium: chromium.to_owned(),
        })
    }

    /// Runs `tests/NAME/drive.py URL CHROMIUM SCREENSHOTS` with what is given besides, to its end. `carry_out` does what the
    /// script wants to happen behind the browser's back, which it says by a line, and has a line for an answer. Screenshots
    /// are left in `target/screenshots/NAME`, to be looked at.
    ///
    /// # Panics
    /// Where the script is not content.
    pub fn drive(
        &self,
        name: &str,
        url: &str,
        besides: &[&str],
        mut carry_out: impl FnMut(&str) -> String,
    ) {
        let screenshots = format!("{PROJECT}/target/screenshots/{name}");
        fs::create_dir_all(&screenshots).unwrap();
        let mut driven = Command::new(&self.python)
            .arg(format!("{PROJECT}/tests/{name}/drive.py"))
            .args([url, &self.chromium, &screenshots])
            .args(besides)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (mut answers, wishes) = (driven.stdin.take().unwrap(), driven.stdout.take().unwrap());
        for wish in BufReader::new(wishes).lines() {
            let done = carry_out(&wish.unwrap());
            writeln!(answers, "{done}").unwrap();
        }
        assert!(driven.wait().unwrap().success(), "see what the script said");
    }
}
