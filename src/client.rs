//! A small HTTP/1.1 client: one keep-alive connection to one server.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use daemon::tasks;
use frontend_host::admin::Token;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest answer that is read.
const BODY_BYTES_MAX: usize = 64 << 20;

const HTTP_PORT: u16 = 80;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("cannot connect to {origin}: {source}")]
    Connect {
        /// Where.
        origin: Origin,
        /// Why.
        source: std::io::Error,
    },
    /// The server took too long.
    #[error("no answer within {} s", after.as_secs())]
    TimedOut {
        /// The client's patience.
        after: Duration,
    },
    /// The connection broke, or what came over it was not HTTP.
    #[error("the connection failed: {0}")]
    Exchange(#[from] hyper::Error),
    /// The answer broke off, or was longer than 64 MiB.
    #[error("the answer was not complete: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The request could not be written down.
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
}

/// A server, by its `http://host:port` URL or just `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(Authority);

impl Origin {
    fn host_and_port(&self) -> (&str, u16) {
        let host = self.0.host();
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        (host, self.0.port_u16().unwrap_or(HTTP_PORT))
    }
}

impl From<SocketAddr> for Origin {
    fn from(address: SocketAddr) -> Self {
        Self(
            address
                .to_string()
                .parse()
                .expect("an address and a port are an authority"),
        )
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is not a URL such as http://127.0.0.1:8080");
        let uri: Uri = text.parse().map_err(|_| problem())?;
        let plain = uri.scheme_str().is_none_or(|scheme| scheme == "http")
            && matches!(uri.path(), "" | "/");
        match uri.authority() {
            Some(authority) if plain && uri.query().is_none() => Ok(Self(authority.clone())),
            _ => Err(problem()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}", self.0)
    }
}

/// One client of one server, with one connection that is made when it is first used, and
/// again when the one before has ended.
#[derive(Debug)]
pub struct Client {
    origin: Origin,
    token: Option<Token>,
    patience: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client that waits so long for each answer.
    pub fn new(origin: Origin, patience: Duration) -> Self {
        Self {
            origin,
            token: None,
            patience,
            connection: None,
        }
    }

    /// Sends a bearer token along with every request.
    pub fn with_token(mut self, token: Option<Token>) -> Self {
        self.token = token;
        self
    }

    /// `GET`s a path.
    pub async fn get(&mut self, path: &str) -> Result<Response<Bytes>, ClientError> {
        self.send(Request::get(path).body(Bytes::new())?).await
    }

    /// Sends a body of a type to a path.
    pub async fn send_body(
        &mut self,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Response<Bytes>, ClientError> {
        self.send(
            Request::builder()
                .method(method)
                .uri(path)
                .header(CONTENT_TYPE, content_type)
                .body(body)?,
        )
        .await
    }

    /// Sends a request and reads the whole answer. A connection over which that failed is not
    /// used again.
    pub async fn send(
        &mut self,
        mut request: Request<Bytes>,
    ) -> Result<Response<Bytes>, ClientError> {
        let headers = request.headers_mut();
        headers.insert(
            HOST,
            HeaderValue::from_str(self.origin.0.as_str()).map_err(http::Error::from)?,
        );
        if let Some(token) = &self.token {
            headers.insert(
                AUTHORIZATION,
                HeaderValue::from_str(&format!("Bearer {}", token.as_str()))
                    .map_err(http::Error::from)?,
            );
        }
        let after = self.patience;
        timeout(after, self.exchange(request.map(Full::new)))
            .await
            .unwrap_or(Err(ClientError::TimedOut { after }))
    }

    async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, ClientError> {
        let mut connection = self.connected().await?;
        let (head, body) = connection.send_request(request).await?.into_parts();
        let body = Limited::new(body, BODY_BYTES_MAX)
            .collect()
            .await
            .map_err(ClientError::Body)?
            .to_bytes();
        self.connection = Some(connection);
        Ok(Response::from_parts(head, body))
    }

    /// Takes the connection, so that one on which a request fails or is given up is dropped.
    async fn connected(&mut self) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        if let Some(mut connection) = self.connection.take()
            && connection.ready().await.is_ok()
        {
            return Ok(connection);
        }
        let connect = async {
            let stream = TcpStream::connect(self.origin.host_and_port()).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = connect.await.map_err(|source| ClientError::Connect {
            origin: self.origin.clone(),
            source,
        })?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Its failures come back through the request that they hit.
        tasks::spawn_for_caller(connection);
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_host_and_a_port() {
        for (text, expected) in [
            ("http://127.0.0.1:8080", Some(("127.0.0.1", 8080))),
            ("http://127.0.0.1:8080/", Some(("127.0.0.1", 8080))),
            ("localhost:8081", Some(("localhost", 8081))),
            ("http://[::1]:9", Some(("::1", 9))),
            ("http://example.com", Some(("example.com", 80))),
            ("https://example.com", None),
            ("http://x/path", None),
            ("http://x?query", None),
            ("/path", None),
            ("", None),
        ] {
            let origin: Option<Origin> = text.parse().ok();
            assert_eq!(
                origin.as_ref().map(Origin::host_and_port),
                expected,
                "{text}"
            );
        }
    }
}
