//! HTTP/2 requests in the clear by h2load, of nghttp2, from one thread.

use std::net::SocketAddr;

use super::Load;
use crate::error::Error;
use crate::process;

/// What h2load is to send.
#[derive(Debug, Clone, Copy)]
pub struct Streams<'a> {
    pub address: SocketAddr,
    /// What each request asks for.
    pub path: &'a str,
    /// How many each connection has under way at a time.
    pub streams: u32,
}

impl Streams<'_> {
    /// Drives the server; requests answered in a second. `name` is what the server is called.
    ///
    /// # Errors
    /// Also where a single request failed.
    pub fn per_second(&self, load: &Load, name: &str) -> Result<f64, Error> {
        let mut command = load.command(process::find("h2load")?);
        command
            .args(["--threads", "1"])
            .args(["--clients", &load.connections.to_string()])
            .args(["--max-concurrent-streams", &self.streams.to_string()])
            .args(["--duration", &load.seconds.to_string()])
            .arg(format!("http://{}{}", self.address, self.path));
        let printed = process::run(command)?;
        let Some((rate, counts)) = figures(&printed) else {
            return Err(Error::NoFigures {
                generator: "h2load".to_owned(),
                output: printed,
            });
        };
        if counts.failed > 0 || counts.total == 0 {
            return Err(Error::Errors {
                name: name.to_owned(),
                requests: counts.total,
                refused: counts.failed,
                broken: 0,
            });
        }
        Ok(rate)
    }
}

/// How many requests were answered, and how many were not, or with an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Counts {
    total: u64,
    failed: u64,
}

/// The lines that begin with `finished in` and `requests:` say it.
fn figures(printed: &str) -> Option<(f64, Counts)> {
    let after = |begin: &str| printed.lines().find_map(|line| line.strip_prefix(begin));
    let mut finished = after("finished in ")?.split(", ");
    let rate = finished.nth(1)?.strip_suffix(" req/s")?.parse().ok()?;
    let counted = after("requests: ")?;
    let count = |what: &str| -> Option<u64> {
        let mut counts = counted.split(", ").map(|count| count.split_once(' '));
        let found = counts.find(|count| count.is_some_and(|(_, name)| name == what))?;
        found?.0.parse().ok()
    };
    let failed = count("failed")? + count("errored")? + count("timeout")?;
    let total = count("total")?;
    Some((rate, Counts { total, failed }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "starting benchmark...\nApplication protocol: h2c\n\n\
        finished in 3.00s, 123456.50 req/s, 12.34MB/s\n\
        requests: 370369 total, 370369 started, 370369 done, 370367 succeeded, 2 failed, 1 errored, 0 timeout\n\
        status codes: 370367 2xx, 0 3xx, 0 4xx, 2 5xx\n";

    #[test]
    fn h2load_says_how_many_a_second_and_how_many_failed() {
        let (rate, counts) = figures(PRINTED).unwrap();
        assert_eq!(rate, 123_456.5);
        let expected = Counts {
            total: 370_369,
            failed: 3,
        };
        assert_eq!(counts, expected);
        for printed in ["", "finished in 3.00s\n", "requests: 1 total\n"] {
            assert!(figures(printed).is_none(), "{printed}");
        }
    }
}
