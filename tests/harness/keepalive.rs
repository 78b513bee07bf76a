//! A blocking HTTP/1.1 client that keeps its connection: for load.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// What is read at a time, in bytes: more than the answer to a lookup has.
const CHUNK_BYTES: usize = 4 << 10;

/// One connection, over which requests go one after the other.
#[derive(Debug)]
pub struct KeepAlive<S = TcpStream> {
    stream: S,
    answer: Vec<u8>,
}

/// An answer, until the next request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer<'a> {
    pub status: u16,
    /// Status line and headers.
    pub head: &'a str,
    pub body: &'a str,
}

impl<'a> Answer<'a> {
    pub fn header(&self, name: &str) -> Option<&'a str> {
        header(self.head, name)
    }
}

impl KeepAlive {
    pub fn connect(to: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(connect(to)?))
    }

    /// Waits for the other end to close the connection, which is to send nothing before.
    pub fn wait_for_the_end(mut self) -> io::Result<()> {
        match self.stream.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// A connection on which answers are waited for.
pub fn connect(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl<S: Read + Write> KeepAlive<S> {
    /// Over a connection that there is.
    pub fn over(stream: S) -> Self {
        Self {
            stream,
            answer: Vec::with_capacity(CHUNK_BYTES),
        }
    }

    /// Sends a request as it stands and reads its answer, which must have a `Content-Length`.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<Answer<'_>> {
        self.send(request)?;
        self.receive()
    }

    /// Sends a request as it stands, whose answer is to be [received](Self::receive) before the next.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.stream.write_all(request)?;
        self.stream.flush()
    }

    /// Reads the answer to what was sent.
    pub fn receive(&mut self) -> io::Result<Answer<'_>> {
        self.answer.clear();
        let (head_end, end) = loop {
            let mut chunk = [0; CHUNK_BYTES];
            let read = self.stream.read(&mut chunk)?;
            self.answer.extend_from_slice(&chunk[..read]);
            let frame = frame(&self.answer)?;
            if let Some(frame) = frame.filter(|(_, end)| *end <= self.answer.len()) {
                break frame;
            }
            if read == 0 || self.answer.len() > ANSWER_BYTES_MAX {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let answer = text(&self.answer[..end])?;
        let (head, body) = answer.split_at(head_end);
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        Ok(Answer {
            status: status.ok_or(io::ErrorKind::InvalidData)?,
            head,
            body,
        })
    }
}

/// Where the head of an answer ends, and where the answer does, once its head is there.
fn frame(answer: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let Some(head) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let length = header(text(&answer[..head])?, "content-length").and_then(|it| it.parse().ok());
    let length: usize = length.ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some((head + 4, head + 4 + length)))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let found = headers.find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim())
}

fn text(bytes: &[u8]) -> io::Result<&str> {
    str::from_utf8(bytes).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    #[test]
    fn answers_that_come_in_pieces_are_read_one_by_one() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut client = KeepAlive::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        thread::scope(|scope| {
            scope.spawn(move || {
                for answer in [
                    &["HTTP/1.1 200 OK\r\ncontent-le", "ngth: 2\r\n\r\na", "b"][..],
                    &["HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"],
                    &["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nshor"],
                ] {
                    assert_eq!(server.read(&mut [0]).unwrap(), 1);
                    for piece in answer {
                        server.write_all(piece.as_bytes()).unwrap();
                        thread::yield_now();
                    }
                }
            });
            let answer = client.exchange(b"1").unwrap();
            assert_eq!((answer.status, answer.body), (200, "ab"));
            assert_eq!(client.exchange(b"2").unwrap().status, 404);
            assert!(client.exchange(b"3").is_err(), "it breaks off");
        });
    }
}
