//! A blocking HTTP/2 client that keeps its connection: by prior knowledge, or over TLS.

use std::future::Future;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::http::Response;

/// Longest wait for a connection or an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often who reads a body that has no end looks whether it is over.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// HTTP/2 over TLS (RFC 7301).
const ALPN: &[u8] = b"h2";

/// One connection, over which requests go one after the other. What the server says between them is heard as it comes.
#[derive(Debug)]
pub struct Http2 {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    scheme: &'static str,
}

impl Http2 {
    /// Connects: over TLS where there is a configuration, and then the server is to choose HTTP/2.
    pub fn connect(to: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let sender = runtime.block_on(in_time(connected(to, tls)))?;
        Ok(Self {
            runtime,
            sender,
            scheme: if tls.is_some() { "https" } else { "http" },
        })
    }

    /// Sends a request and reads its answer; `None` where the connection had ended, so that the request was never sent.
    pub fn exchange(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Option<Response>> {
        let request = self.request(method, target, headers, body);
        let answer = answered(&mut self.sender, request);
        self.runtime.block_on(in_time(answer))
    }

    /// Asks for what may have no end: returns the status, and the body to be read until it is over. `None` as for
    /// [`exchange`](Self::exchange).
    pub fn follow<'a>(
        &'a mut self,
        target: &str,
        headers: &[(&str, &str)],
        is_over: &'a AtomicBool,
    ) -> io::Result<Option<(u16, Body<'a>)>> {
        let request = self.request("GET", target, headers, b"");
        let answer = send(&mut self.sender, request);
        let Some(answer) = self.runtime.block_on(in_time(answer))? else {
            return Ok(None);
        };
        let (head, incoming) = answer.into_parts();
        let body = Body {
            runtime: &self.runtime,
            incoming,
            chunk: Bytes::new(),
            is_over,
        };
        Ok(Some((head.status.as_u16(), body)))
    }

    fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Request<Full<Bytes>> {
        let uri = format!("{}://bazaar{target}", self.scheme);
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = Full::new(Bytes::copy_from_slice(body));
        request.body(body).expect("the test makes requests")
    }
}

/// The body of an answer, as it comes. It ends also where that is over for which it is read.
#[derive(Debug)]
pub struct Body<'a> {
    runtime: &'a Runtime,
    incoming: Incoming,
    chunk: Bytes,
    is_over: &'a AtomicBool,
}

impl Read for Body<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            if self.is_over.load(Ordering::Relaxed) {
                return Ok(0);
            }
            let incoming = &mut self.incoming;
            let next = async move { timeout(LOOK_INTERVAL, incoming.frame()).await };
            match self.runtime.block_on(next) {
                Err(_) => {} // nothing has come
                Ok(None) => return Ok(0),
                Ok(Some(frame)) => {
                    let frame = frame.map_err(io::Error::other)?;
                    self.chunk = frame.into_data().unwrap_or_default();
                }
            }
        }
        let read = self.chunk.len().min(buffer.len());
        buffer[..read].copy_from_slice(&self.chunk.split_to(read));
        Ok(read)
    }
}

/// Connects over TLS. To be used within a runtime.
pub async fn handshake(
    to: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(to).await?;
    let name = ServerName::from(to.ip());
    timeout(PATIENCE, TlsConnector::from(config).connect(name, stream)).await?
}

async fn connected(
    to: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
) -> io::Result<SendRequest<Full<Bytes>>> {
    let Some(config) = tls else {
        return begin(TcpStream::connect(to).await?).await;
    };
    let mut config = (**config).clone();
    config.alpn_protocols = vec![ALPN.to_vec()];
    let stream = handshake(to, config.into()).await?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(io::Error::other("the server did not choose HTTP/2"));
    }
    begin(stream).await
}

/// Begins HTTP/2 on a connection.
async fn begin<S>(stream: S) -> io::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let builder = http2::Builder::new(TokioExecutor::new());
    let begun = builder.handshake(TokioIo::new(stream)).await;
    let (sender, connection) = begun.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// The answer to a request; none where that was not sent, since the connection had ended.
async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> io::Result<Option<http::Response<Incoming>>> {
    let mut failed = match sender.try_send_request(request).await {
        Ok(answer) => return Ok(Some(answer)),
        Err(failed) => failed,
    };
    match failed.take_message() {
        Some(_) => Ok(None),
        None => Err(io::Error::other(failed.into_error())),
    }
}

/// The same, read to its end.
async fn answered(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> io::Result<Option<Response>> {
    let Some(answer) = send(sender, request).await? else {
        return Ok(None);
    };
    let (head, body) = answer.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?;
    let body = String::from_utf8(body.to_bytes().to_vec()).map_err(io::Error::other)?;
    Ok(Some(Response::of_http2(&head, body)))
}

async fn in_time<T>(doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, doing).await?
}
