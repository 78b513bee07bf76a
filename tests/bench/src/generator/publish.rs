//! NATS' own protocol (docs.nats.io, "NATS Client Protocol"): orders are published to a JetStream stream, each on its
//! client's own connection, and the next one once the stream's acknowledgement is there.
//!
//! The parent runs it as a process of its own, `bench publish`, as it does with [`put`](super::put).

use std::io::{self, BufRead as _, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::clients::{Client, Clients};
use super::{Figures, ORDER};
use crate::error::Error;

/// What a client says first: no `+OK` for each line, and nothing optional.
const CONNECT: &str = r#"CONNECT {"verbose":false,"pedantic":false,"tls_required":false,"lang":"bench","version":"1","protocol":1}"#;

/// Where what was asked for alone is answered.
const INBOX: &str = "_INBOX.bench";

/// Where orders go: the stream has all of `orders.*`.
const SUBJECT: &str = "orders.nvidia";

/// The longest line, and the longest answer: what servers take by default.
const LINE_BYTES_MAX: u64 = 4 << 10;
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Longest wait for an answer to what is asked for alone.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where to publish, and for how long.
#[derive(Debug, Clone, clap::Args)]
pub struct Publishes {
    #[command(flatten)]
    pub clients: Clients,
}

impl Publishes {
    /// Drives the cluster from this thread.
    pub fn send(&self) -> Result<Figures, Error> {
        let address = self.clients.address;
        let connect = async |number: u32| Publisher::connect(address, number).await;
        self.clients.drive("publish", connect)
    }
}

/// One connection.
struct Publisher {
    lines: BufReader<OwnedReadHalf>,
    server: OwnedWriteHalf,
    /// What publishes an order, and asks for the acknowledgement.
    publish: String,
}

impl Publisher {
    async fn connect(address: SocketAddr, number: u32) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (lines, mut server) = stream.into_split();
        let inbox = format!("{INBOX}.{number}");
        let begin = format!("{CONNECT}\r\nSUB {inbox} 1\r\n");
        server.write_all(begin.as_bytes()).await?;
        Ok(Self {
            lines: BufReader::new(lines),
            server,
            publish: format!("PUB {SUBJECT} {inbox} {}\r\n{ORDER}\r\n", ORDER.len()),
        })
    }

    /// The next message.
    async fn answer(&mut self) -> io::Result<Vec<u8>> {
        let mut line = String::new();
        loop {
            line.clear();
            let mut bounded = (&mut self.lines).take(LINE_BYTES_MAX);
            if bounded.read_line(&mut line).await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            match Line::parse(&line)? {
                Line::Message { bytes } => {
                    let mut message = vec![0; bytes + 2]; // and the line's end
                    self.lines.read_exact(&mut message).await?;
                    message.truncate(bytes);
                    return Ok(message);
                }
                Line::Ping => self.server.write_all(b"PONG\r\n").await?,
                Line::Other => {}
            }
        }
    }
}

impl Client for Publisher {
    async fn request(&mut self) -> io::Result<bool> {
        self.server.write_all(self.publish.as_bytes()).await?;
        Ok(is_stored(&self.answer().await?))
    }
}

/// What a server says, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// So many bytes follow, and an end of line.
    Message {
        bytes: usize,
    },
    Ping,
    /// Of itself, for the most part.
    Other,
}

impl Line {
    fn parse(line: &str) -> io::Result<Self> {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("MSG") => {
                let bytes = words
                    .next_back()
                    .and_then(|word| word.parse::<usize>().ok());
                let bytes = bytes.filter(|bytes| *bytes <= ANSWER_BYTES_MAX);
                let bytes = bytes.ok_or_else(|| invalid(line))?;
                Ok(Self::Message { bytes })
            }
            Some("PING") => Ok(Self::Ping),
            Some("-ERR") => Err(invalid(line)),
            _ => Ok(Self::Other),
        }
    }
}

fn invalid(line: &str) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("the server said {}", line.trim()),
    )
}

/// An acknowledgement has a number in its stream, and a refusal has an error.
fn is_stored(answer: &[u8]) -> bool {
    let answer: serde_json::Value = serde_json::from_slice(answer).unwrap_or_default();
    answer["seq"].is_u64() && answer["error"].is_null()
}

/// Asks once, on a connection of its own.
pub fn ask(address: SocketAddr, subject: &str, payload: &str) -> io::Result<String> {
    let mut server = std::net::TcpStream::connect(address)?;
    server.set_read_timeout(Some(PATIENCE))?;
    write!(
        server,
        "{CONNECT}\r\nSUB {INBOX} 1\r\nPUB {subject} {INBOX} {}\r\n{payload}\r\n",
        payload.len()
    )?;
    let mut lines = io::BufReader::new(server.try_clone()?);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.by_ref().take(LINE_BYTES_MAX).read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match Line::parse(&line)? {
            Line::Message { bytes } => {
                let mut message = vec![0; bytes];
                lines.read_exact(&mut message)?;
                return String::from_utf8(message).map_err(io::Error::other);
            }
            Line::Ping => server.write_all(b"PONG\r\n")?,
            Line::Other => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;

    #[test]
    fn lines_of_the_protocol_are_told_apart() {
        for (line, expected) in [
            ("MSG _INBOX.bench.3 1 31\r\n", Line::Message { bytes: 31 }),
            (
                "MSG _INBOX.bench 1 reply.to 7\r\n",
                Line::Message { bytes: 7 },
            ),
            ("PING\r\n", Line::Ping),
            ("INFO {\"server_name\":\"node-0\"}\r\n", Line::Other),
            ("+OK\r\n", Line::Other),
            ("\r\n", Line::Other),
        ] {
            assert_eq!(Line::parse(line).unwrap(), expected, "{line}");
        }
        for line in [
            "-ERR 'Authorization Violation'\r\n",
            "MSG\r\n",
            "MSG _INBOX.bench 1 many\r\n",
            "MSG _INBOX.bench 1 99999999\r\n",
        ] {
            assert!(Line::parse(line).is_err(), "{line}");
        }
        assert!(is_stored(br#"{"stream":"orders","seq":7}"#));
        for refusal in [
            &br#"{"error":{"code":503},"stream":"orders","seq":0}"#[..],
            b"{}",
            b"",
        ] {
            assert!(!is_stored(refusal), "{refusal:?}");
        }
    }

    /// A server that pings, speaks of itself, and acknowledges; every third order it refuses.
    fn serve(stream: std::net::TcpStream) -> io::Result<()> {
        let mut answers = stream.try_clone()?;
        answers.write_all(b"INFO {\"server_name\":\"node-0\"}\r\nPING\r\n")?;
        let mut lines = io::BufReader::new(stream).lines();
        let mut number = 0;
        while let Some(line) = lines.next().transpose()? {
            let Some(publish) = line.strip_prefix("PUB ") else {
                continue;
            };
            number += 1;
            let answer = match number % 3 {
                0 => r#"{"error":{"code":503},"seq":0}"#.to_owned(),
                _ => format!(r#"{{"stream":"orders","seq":{number}}}"#),
            };
            let inbox = publish.split(' ').nth(1).unwrap_or_default();
            let message = format!("MSG {inbox} 1 {}\r\n{answer}\r\n", answer.len());
            answers.write_all(message.as_bytes())?;
        }
        Ok(())
    }

    fn server() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // That a client ends is no failure.
                thread::spawn(move || serve(stream));
            }
        });
        address
    }

    #[test]
    fn what_is_acknowledged_counts_and_what_is_refused_is_said() {
        let address = server();
        let answer = ask(address, "$JS.API.INFO", "").unwrap();
        assert_eq!(answer, r#"{"stream":"orders","seq":1}"#);
        let clients = Clients {
            address,
            connections: 2,
            seconds: 1,
        };
        let publishes = Publishes { clients };
        let figures = publishes.send().unwrap();
        assert!(figures.requests > 30, "{figures:?}");
        let third = figures.requests / 3;
        assert!(figures.refused.abs_diff(third) <= 2, "{figures:?}");
        assert!(figures.without_errors("nats").is_err());
    }

    #[test]
    fn a_server_that_goes_is_no_figure() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let clients = Clients {
            address: listener.local_addr().unwrap(),
            connections: 1,
            seconds: 60,
        };
        let publishes = Publishes { clients };
        thread::spawn(move || drop(listener.accept()));
        assert!(publishes.send().is_err());
    }
}
