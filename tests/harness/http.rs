//! A blocking HTTP client: one connection for each request.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use http::response::Parts;
use serde_json::Value;

/// Longest wait for an answer: more than a gateway gives itself.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    head: String,
    pub body: String,
    /// All that came after the head, body or not.
    pub rest: String,
}

impl Response {
    /// One that came over HTTP/2.
    pub(super) fn of_http2(head: &Parts, body: String) -> Self {
        let headers = head.headers.iter();
        let lines = headers.map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            format!("{name}: {value}\r\n")
        });
        Self {
            status: head.status.as_u16(),
            head: lines.collect(),
            rest: body.clone(),
            body,
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(':'));
        headers
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// The body, which is JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// What `{"data":…}` holds; the answer is a 200.
    pub fn data(&self) -> Value {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()["data"].take()
    }

    /// The code and the message of an error.
    pub fn error(&self) -> (u16, String) {
        let error = &self.json()["error"];
        let code = error["code"]
            .as_u64()
            .unwrap_or_else(|| panic!("no code in {self:?}"));
        assert_eq!(code, u64::from(self.status), "{self:?}");
        let message = error["message"]
            .as_str()
            .unwrap_or_else(|| panic!("no message in {self:?}"));
        (self.status, message.to_owned())
    }
}

/// Sends a request and reads the answer.
///
/// # Panics
/// Where there is none: no client request may fail.
pub fn request(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Response {
    try_request(to, method, target, headers, body, PATIENCE)
        .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
}

/// Sends a request and reads the answer, with `patience` for each part of it to arrive.
pub fn try_request(
    to: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    patience: Duration,
) -> io::Result<Response> {
    let mut head = format!("{method} {target} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || matches!(method, "POST" | "PUT") {
        head += &format!("content-length: {}\r\n", body.len());
    }
    head += "\r\n";
    exchange(to, &[head.as_bytes(), body].concat(), patience)
}

/// Sends bytes, whatever they are, and reads the answer up to the end of the connection.
pub fn send_raw(to: SocketAddr, bytes: &[u8]) -> io::Result<Response> {
    exchange(to, bytes, PATIENCE)
}

fn exchange(to: SocketAddr, bytes: &[u8], patience: Duration) -> io::Result<Response> {
    let mut connection = TcpStream::connect_timeout(&to, patience)?;
    connection.set_read_timeout(Some(patience))?;
    connection.set_nodelay(true)?;
    // A server may answer and close before it has read everything.
    let sent = connection.write_all(bytes);
    let mut answer = Vec::new();
    let read = connection.read_to_end(&mut answer);
    parse(&answer).ok_or_else(|| {
        sent.and(read)
            .err()
            .unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())
    })
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8(answer[..end].to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut response = Response {
        status,
        head,
        body: String::new(),
        rest: String::from_utf8_lossy(&answer[end + 4..]).into_owned(),
    };
    let body = &answer[end + 4..];
    // A body that broke off is no answer.
    let length = response
        .header("content-length")
        .map_or(Some(body.len()), |length| length.parse().ok())?;
    let chunked = response.header("transfer-encoding").is_some();
    response.body = String::from_utf8(body.get(..length).unwrap_or_default().to_vec()).ok()?;
    assert!(!chunked, "this client does not read chunks: {response:?}");
    Some(response)
}
