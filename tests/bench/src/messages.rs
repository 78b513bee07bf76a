//! HTTP/1.1 messages whose heads say how long their bodies are, over a connection that is kept: what [`mix`] reads, and the
//! [application](crate::application) in front of PostgreSQL.
//!
//! [`mix`]: crate::generator::mix

use std::io::{self, ErrorKind};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The longest message, head and body.
const MESSAGE_BYTES_MAX: usize = 64 << 10;

/// How much is read at a time, at most.
const READ_BYTES: usize = 16 << 10;

/// One connection.
#[derive(Debug)]
pub struct Messages {
    stream: TcpStream,
    /// What has come, from the message on that was handed out last.
    received: Vec<u8>,
    /// How long that one is.
    taken: usize,
}

/// One message.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Up to and with the empty line.
    pub head: &'a [u8],
    pub body: &'a [u8],
}

impl Messages {
    pub fn over(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            taken: 0,
        })
    }

    /// Sends one.
    pub async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message).await
    }

    /// The next one; none where the peer has closed the connection between two of them.
    pub async fn next(&mut self) -> io::Result<Option<Message<'_>>> {
        self.received.drain(..self.taken);
        self.taken = 0;
        let Some((head_bytes, bytes)) = self.receive().await? else {
            return Ok(None);
        };
        self.taken = bytes;
        let (head, rest) = self.received.split_at(head_bytes);
        Ok(Some(Message {
            head,
            body: &rest[..bytes - head_bytes],
        }))
    }

    /// Reads until a whole one is there: how long its head is, and all of it.
    async fn receive(&mut self) -> io::Result<Option<(usize, usize)>> {
        loop {
            if let Some((head_bytes, bytes)) = bounds(&self.received)?
                && self.received.len() >= bytes
            {
                return Ok(Some((head_bytes, bytes)));
            }
            self.received.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return match self.received.is_empty() {
                    true => Ok(None),
                    false => Err(ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }
}

impl Message<'_> {
    /// An answer's status; 0 where there is none.
    pub fn status(&self) -> u16 {
        let digits = self.head.get(9..12).unwrap_or_default();
        let digits = str::from_utf8(digits).unwrap_or_default();
        digits.parse().unwrap_or(0)
    }

    /// A request's method and target.
    pub fn request(&self) -> (&str, &str) {
        let line = self.head.split(|byte| *byte == b'\r').next();
        let line = str::from_utf8(line.unwrap_or_default()).unwrap_or_default();
        let mut words = line.split(' ');
        let mut word = || words.next().unwrap_or_default();
        (word(), word())
    }

    /// Whether the connection ends with this one.
    pub fn is_last(&self) -> bool {
        header(self.head, b"connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"))
    }
}

/// How long a message's head is, and all of it, once its head is there.
fn bounds(received: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let end = received.windows(4).position(|bytes| bytes == b"\r\n\r\n");
    let Some(end) = end else {
        return match received.len() > MESSAGE_BYTES_MAX {
            true => Err(invalid("a head that does not end")),
            false => Ok(None),
        };
    };
    let head_bytes = end + 4;
    let head = &received[..head_bytes];
    if header(head, b"transfer-encoding").is_some() {
        return Err(invalid("a message in chunks, which says no length"));
    }
    let length = match header(head, b"content-length") {
        Some(digits) => {
            let digits = str::from_utf8(digits).unwrap_or_default();
            let length = digits.parse().ok();
            length.filter(|length: &usize| *length <= MESSAGE_BYTES_MAX)
        }
        None => Some(0),
    };
    let length = length.ok_or_else(|| invalid("a message of no possible length"))?;
    Ok(Some((head_bytes, head_bytes + length)))
}

/// What a head says under a name.
fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Messages, Messages) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
        let server = server.unwrap().0;
        (
            Messages::over(client.unwrap()).unwrap(),
            Messages::over(server).unwrap(),
        )
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(future)
    }

    #[test]
    fn messages_are_told_apart_by_their_lengths() {
        block_on(async {
            let (mut client, mut server) = pair().await;
            let requests = b"POST /orders HTTP/1.1\r\nContent-Length: 3\r\n\r\n{}\nGET / HTTP/1.1\r\nConnection: close\r\n\r\n";
            client.send(requests).await.unwrap();
            let first = server.next().await.unwrap().unwrap();
            assert_eq!(first.request(), ("POST", "/orders"));
            assert_eq!((first.body, first.is_last()), (&b"{}\n"[..], false));
            let second = server.next().await.unwrap().unwrap();
            assert_eq!((second.request(), second.body.len()), (("GET", "/"), 0));
            assert!(second.is_last());
            let answer = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
            server.send(answer).await.unwrap();
            assert_eq!(client.next().await.unwrap().unwrap().status(), 503);
            drop(server);
            assert!(client.next().await.unwrap().is_none());
        });
    }

    #[test]
    fn what_has_no_length_or_ends_early_is_an_error() {
        for part in [
            &b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{",
        ] {
            block_on(async {
                let (mut client, mut server) = pair().await;
                server.send(part).await.unwrap();
                drop(server);
                let said = String::from_utf8_lossy(part);
                assert!(client.next().await.is_err(), "{said}");
            });
        }
    }
}
