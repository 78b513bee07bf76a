//! The server behind the caches: one small answer to everything, good for an hour.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::error::Error;

/// What Bazaar answers about this stock when nobody has traded: 57 bytes.
pub const BODY: &str = r#"{"data":{"name":"nvidia","price":240.63,"quantity":1000}}"#;

/// One that serves for as long as this process lives. Caches ask it once each, and it knows whether they do.
#[derive(Debug)]
pub struct Origin {
    pub address: SocketAddr,
    answers: Arc<AtomicU64>,
}

impl Origin {
    /// How many requests it has answered so far.
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::SeqCst)
    }
}

/// Starts it.
pub fn start() -> Result<Origin, Error> {
    let failed = || Error::machine("cannot listen as the origin server");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    let origin = Origin {
        address,
        answers: Arc::default(),
    };
    let answers = Arc::clone(&origin.answers);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answers = Arc::clone(&answers);
            // That a cache closes its connection is no failure.
            thread::spawn(move || serve(stream, &answers));
        }
    });
    Ok(origin)
}

fn serve(mut stream: TcpStream, answers: &AtomicU64) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        // Requests are heads without bodies: an empty line ends one.
        if line == "\r\n" {
            answers.fetch_add(1, Ordering::SeqCst);
            // A server with a clock says when (RFC 9110, 6.6.1); Envoy takes what does not for as old as can be.
            let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now());
            let date = date.map_err(io::Error::other)?;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ndate: {date}\r\ncontent-type: application/json\r\n\
                 cache-control: max-age=3600\r\ncontent-length: {}\r\n\r\n{BODY}",
                BODY.len()
            )?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_answers_with_the_body_that_all_are_compared_on() {
        assert_eq!(BODY.len(), 57);
        let origin = start().unwrap();
        let mut stream = TcpStream::connect(origin.address).unwrap();
        stream
            .write_all(b"GET /stocks/nvidia HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "HTTP/1.1 200 OK");
        assert!(lines.any(|line| line.starts_with("date: ") && line.ends_with(" GMT")));
        assert!(lines.any(|line| line == "content-length: 57"));
        assert_eq!(origin.answers(), 1);
    }
}
