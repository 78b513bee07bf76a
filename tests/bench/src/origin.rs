//! The server behind the caches: one small answer to everything, good for an hour.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use crate::error::Error;

/// What Bazaar answers about this stock when nobody has traded: 57 bytes.
pub const BODY: &str = r#"{"data":{"name":"nvidia","price":240.63,"quantity":1000}}"#;

/// Starts it; it serves for as long as this process lives. Caches ask it once each.
pub fn start() -> Result<SocketAddr, Error> {
    let failed = || Error::machine("cannot listen as the origin server");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
    let address = listener.local_addr().map_err(failed())?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // That a cache closes its connection is no failure.
            thread::spawn(move || serve(stream));
        }
    });
    Ok(address)
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        // Requests are heads without bodies: an empty line ends one.
        if line == "\r\n" {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
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
        let address = start().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET /stocks/nvidia HTTP/1.1\r\nhost: x\r\n\r\n")
            .unwrap();
        let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
        assert_eq!(lines.next().unwrap(), "HTTP/1.1 200 OK");
        assert!(lines.any(|line| line == "content-length: 57"));
    }
}
