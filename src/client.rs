//! The HTTP client of the commands.
//!
//! It is hyper-util's, which tonic has in the tree already: connections that are kept and opened again are
//! its business. This adds what a command wants: one origin, a time for the whole exchange, a bound on
//! what is read, the operator's token, and errors that say what went wrong. [`Server`] is the one place
//! that knows TCP from TLS; `bazaar load` has it, too, and connections of its own.

use std::error::Error;
use std::fmt;
use std::io;
use std::iter;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daemon::tasks;
use frontend_host::admin::Token;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::ClientConfig;
use tokio::time::timeout;

/// The longest answer that is read.
const BODY_BYTES_MAX: usize = 64 << 20;

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("cannot connect to {origin}: {source}")]
    Connect { origin: Origin, source: io::Error },
    /// The two ends do not agree on how to be encrypted.
    #[error("{origin}: {problem}. {advice}")]
    Untrusted {
        origin: Origin,
        problem: String,
        advice: &'static str,
    },
    /// The server took too long.
    #[error("no answer within {} s", after.as_secs())]
    TimedOut { after: Duration },
    /// The connection broke, or what came over it was not HTTP.
    #[error("the connection failed: {}", innermost(&**.0))]
    Exchange(Box<dyn Error + Send + Sync>),
    /// The answer broke off, or was longer than 64 MiB.
    #[error("the answer was not complete: {0}")]
    Body(Box<dyn Error + Send + Sync>),
    /// What was answered cannot be written down.
    #[error("cannot write the answer: {0}")]
    Output(#[source] io::Error),
    /// Certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Certificates are named, and would not be looked at.
    #[error("{0} is not encrypted, and --ca and --client-cert are of no use: name an https:// URL")]
    InTheClear(Origin),
    /// The request could not be written down.
    #[error("not a request: {0}")]
    Request(#[from] http::Error),
}

impl ClientError {
    /// A request over a connection to there got no answer.
    pub fn exchanging(origin: &Origin, error: Box<dyn Error + Send + Sync>) -> Self {
        match untrusted(origin, &*error) {
            Some(untrusted) => untrusted,
            None => Self::Exchange(error),
        }
    }

    /// A connection could not be made.
    pub fn connecting(origin: &Origin, error: Box<dyn Error + Send + Sync>) -> Self {
        if let Some(untrusted) = untrusted(origin, &*error) {
            return untrusted;
        }
        let innermost = innermost(&*error);
        match innermost.downcast_ref::<io::Error>() {
            Some(source) => Self::Connect {
                origin: origin.clone(),
                source: io::Error::new(source.kind(), source.to_string()),
            },
            None => Self::Exchange(error),
        }
    }
}

/// Where TLS is what does not come about, and what to do.
fn untrusted(origin: &Origin, error: &(dyn Error + 'static)) -> Option<ClientError> {
    let mut causes = iter::successors(Some(error), |&error| error.source());
    let (problem, advice) = causes.find_map(|cause| {
        if let Some(failed) = tls::rustls_error(cause) {
            return Some((tls::in_words(failed), tls_advice(failed)?));
        }
        let http = cause.downcast_ref::<hyper::Error>()?;
        (http.is_parse() && !origin.is_secure()).then(|| {
            let advice = "What answers there may want to be spoken to over TLS: name an https:// URL, and the file of its authority's \
                          certificate with --ca";
            (http.to_string(), advice)
        })
    })?;
    Some(ClientError::Untrusted {
        origin: origin.clone(),
        problem,
        advice,
    })
}

/// What to do about one.
fn tls_advice(error: &rustls::Error) -> Option<&'static str> {
    use rustls::{AlertDescription, CertificateError};
    Some(match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "Its certificate has to be renewed: `bazaar cert new DIR --renew`, where it was made by that"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "Name a host in the URL that the certificate names, or make it one that names this host: `bazaar cert new DIR --renew \
                 --host NAME`"
            }
            CertificateError::Other(_) => {
                "Name the URL of a gateway, with its own port for operators"
            }
            _ => {
                "Name the file of the certificate of its authority with --ca (BAZAAR_CA): the ca.crt that `bazaar cert new` made, or \
                 `bazaar up --secure` in DATA/certs"
            }
        },
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateExpired,
        ) => {
            "It wants a certificate of yours that it believes: name one, and the key to it, with --client-cert and --client-key"
        }
        rustls::Error::InvalidMessage(_) => {
            "What answers there does not speak TLS: name an http:// URL, or another port"
        }
        _ => return None,
    })
}

/// What is behind an error.
fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// A server, by its `http://host:port` or `https://host:port` URL, or just `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    is_secure: bool,
    authority: Authority,
}

impl Origin {
    /// What a request calls it.
    pub fn host(&self) -> HeaderValue {
        HeaderValue::from_str(self.authority.as_str()).expect("an authority is visible ASCII")
    }

    /// A path on it, as a URL; without one, its root.
    pub fn target(&self, path: Option<PathAndQuery>) -> Result<Uri, http::Error> {
        let target = Uri::builder()
            .scheme(self.scheme())
            .authority(self.authority.clone());
        target
            .path_and_query(path.unwrap_or_else(|| PathAndQuery::from_static("/")))
            .build()
    }

    /// The same, over TLS.
    pub fn secure(self) -> Self {
        Self {
            is_secure: true,
            ..self
        }
    }

    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    fn scheme(&self) -> Scheme {
        match self.is_secure {
            true => Scheme::HTTPS,
            false => Scheme::HTTP,
        }
    }
}

impl From<SocketAddr> for Origin {
    fn from(address: SocketAddr) -> Self {
        let authority = address.to_string().parse();
        Self {
            is_secure: false,
            authority: authority.expect("an address and a port are an authority"),
        }
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is not a URL such as http://127.0.0.1:8080");
        let uri: Uri = text.parse().map_err(|_| problem())?;
        let is_secure = match uri.scheme_str() {
            None | Some("http") => false,
            Some("https") => true,
            Some(_) => return Err(problem()),
        };
        let is_bare = matches!(uri.path(), "" | "/") && uri.query().is_none();
        match uri.authority() {
            Some(authority) if is_bare => Ok(Self {
                is_secure,
                authority: authority.clone(),
            }),
            _ => Err(problem()),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme(), self.authority)
    }
}

/// How a server is reached, and whom to believe that it is.
#[derive(Debug, Clone)]
pub struct Server {
    pub origin: Origin,
    pub connector: Connector,
}

/// Whom to believe to be a server, and what to show it.
#[derive(Debug, Clone, Default)]
pub struct Trust {
    /// A file of authorities; those that this machine believes where there is none.
    pub authorities: Option<PathBuf>,
    /// Files with a certificate and the key to it.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// Makes the connections of all clients.
pub type Connector = HttpsConnector<HttpConnector>;

impl Server {
    /// Over TLS where the URL is `https://`.
    ///
    /// # Errors
    /// Where a file cannot be read or used, or files are named and the URL is not encrypted.
    pub fn new(origin: Origin, trust: &Trust) -> Result<Self, ClientError> {
        let Trust { authorities, own } = trust;
        let own = own.as_ref();
        let own = own.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
        let config = match origin.is_secure() {
            true => tls::client::config(authorities.as_deref(), own)?,
            false if authorities.is_some() || own.is_some() => {
                return Err(ClientError::InTheClear(origin));
            }
            false => tls::client::nobody(),
        };
        Ok(Self::with(origin, config))
    }

    /// One that has the key to this certificate, where it is over TLS.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn pinned(origin: Origin, certificate: Option<&Path>) -> Result<Self, ClientError> {
        let config = certificate.map(tls::client::pinned).transpose()?;
        Ok(Self::with(
            origin,
            config.unwrap_or_else(tls::client::nobody),
        ))
    }

    fn with(origin: Origin, config: Arc<ClientConfig>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        let names = Arc::new(DefaultServerNameResolver::default());
        Self {
            origin,
            connector: HttpsConnector::new(tcp, config, false, names),
        }
    }
}

/// One client of one server, with one connection that is kept between requests.
#[derive(Debug)]
pub struct Client {
    origin: Origin,
    authorization: Option<HeaderValue>,
    /// Sent along with every request.
    headers: HeaderMap,
    patience: Duration,
    http: legacy::Client<Connector, Full<Bytes>>,
}

impl Client {
    /// A client that waits so long for each answer.
    pub fn new(server: Server, patience: Duration) -> Self {
        let Server { origin, connector } = server;
        let http = legacy::Client::builder(Tasks)
            .pool_max_idle_per_host(1)
            .build(connector);
        Self {
            origin,
            authorization: None,
            headers: HeaderMap::new(),
            patience,
            http,
        }
    }

    /// Sends a bearer token along with every request.
    pub fn with_token(mut self, token: Option<Token>) -> Self {
        self.authorization = token.map(|token| {
            let bearer = format!("Bearer {}", token.as_str());
            let mut bearer = HeaderValue::try_from(bearer).expect("a token is visible ASCII");
            bearer.set_sensitive(true);
            bearer
        });
        self
    }

    /// Sends headers along with every request.
    pub fn with_headers(self, headers: HeaderMap) -> Self {
        Self { headers, ..self }
    }

    pub async fn get(&mut self, path: &str) -> Result<Response<Bytes>, ClientError> {
        self.send(Request::get(path).body(Bytes::new())?).await
    }

    /// Asks for a path. Of an answer of success the body is for the caller to read, for as long as that may take; another one is
    /// read whole.
    pub async fn open(
        &mut self,
        path: &str,
    ) -> Result<Result<Incoming, Response<Bytes>>, ClientError> {
        let request = Request::get(path).body(Bytes::new())?;
        self.in_time(async {
            let (head, body) = self.begin(request).await?.into_parts();
            Ok(match head.status.is_success() {
                true => Ok(body),
                false => Err(Response::from_parts(head, whole(body).await?)),
            })
        })
        .await
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

    /// Sends a request for a path and reads the whole answer.
    pub async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Bytes>, ClientError> {
        self.in_time(async {
            let (head, body) = self.begin(request).await?.into_parts();
            Ok(Response::from_parts(head, whole(body).await?))
        })
        .await
    }

    /// Sends a request for a path, and writes an answer of success to `output` as it comes, however
    /// long it is. Another answer is read whole and returned; of one that was written, the body is empty.
    pub async fn download(
        &mut self,
        request: Request<Bytes>,
        output: &mut impl io::Write,
    ) -> Result<Response<Bytes>, ClientError> {
        self.in_time(async {
            let (head, mut body) = self.begin(request).await?.into_parts();
            if !head.status.is_success() {
                return Ok(Response::from_parts(head, whole(body).await?));
            }
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| ClientError::Body(error.into()))?;
                if let Some(data) = frame.data_ref() {
                    output.write_all(data).map_err(ClientError::Output)?;
                }
            }
            output.flush().map_err(ClientError::Output)?;
            Ok(Response::from_parts(head, Bytes::new()))
        })
        .await
    }

    /// Sends a request; where a connection that was kept has ended meanwhile, over another one.
    async fn begin(&self, mut request: Request<Bytes>) -> Result<Response<Incoming>, ClientError> {
        let path = request.uri().path_and_query().cloned();
        *request.uri_mut() = self.origin.target(path)?;
        request.headers_mut().extend(self.headers.clone());
        if let Some(bearer) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        let answer = self.http.request(request.map(Full::new)).await;
        answer.map_err(|error| match error.is_connect() {
            true => ClientError::connecting(&self.origin, error.into()),
            false => ClientError::exchanging(&self.origin, error.into()),
        })
    }

    async fn in_time<T>(
        &self,
        exchange: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let after = self.patience;
        let late = |_| Err(ClientError::TimedOut { after });
        timeout(after, exchange).await.unwrap_or_else(late)
    }
}

/// Reads an answer's body, which has a bound.
pub async fn whole(body: Incoming) -> Result<Bytes, ClientError> {
    let body = Limited::new(body, BODY_BYTES_MAX).collect().await;
    Ok(body.map_err(ClientError::Body)?.to_bytes())
}

/// Where connections run. Their failures come back through the request that they hit.
#[derive(Debug, Clone, Copy)]
struct Tasks;

impl hyper::rt::Executor<Pin<Box<dyn Future<Output = ()> + Send>>> for Tasks {
    fn execute(&self, task: Pin<Box<dyn Future<Output = ()> + Send>>) {
        tasks::spawn_for_caller(task);
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[test]
    fn an_origin_is_a_host_and_a_port() {
        for (text, expected) in [
            ("http://127.0.0.1:8080", Some("http://127.0.0.1:8080")),
            ("http://127.0.0.1:8080/", Some("http://127.0.0.1:8080")),
            ("localhost:8081", Some("http://localhost:8081")),
            ("http://[::1]:9", Some("http://[::1]:9")),
            ("http://example.com", Some("http://example.com")),
            ("https://example.com:8443", Some("https://example.com:8443")),
            ("ftp://example.com", None),
            ("http://x/path", None),
            ("http://x?query", None),
            ("/path", None),
            ("", None),
        ] {
            let origin: Option<Origin> = text.parse().ok();
            let origin = origin.map(|origin| origin.to_string());
            assert_eq!(origin.as_deref(), expected, "{text}");
        }
    }

    /// Answers so many requests on each connection, and says with the last that it is; returns the
    /// heads that came.
    pub fn serve(
        connections: usize,
        of_each: usize,
        (status, body): (&'static str, Vec<u8>),
    ) -> (Origin, thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin::from(listener.local_addr().unwrap());
        let serving = thread::spawn(move || {
            let mut heads = Vec::new();
            for _ in 0..connections {
                let (mut stream, _) = listener.accept().unwrap();
                for left in (0..of_each).rev() {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let mut byte = [0];
                        stream.read_exact(&mut byte).unwrap();
                        head.push(byte[0]);
                    }
                    heads.push(String::from_utf8(head).unwrap());
                    let close = if left == 0 {
                        "connection: close\r\n"
                    } else {
                        ""
                    };
                    let length = body.len();
                    let head =
                        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{close}\r\n");
                    stream.write_all(head.as_bytes()).unwrap();
                    // The client may have had enough of it.
                    let _ = stream.write_all(&body);
                }
            }
            heads
        });
        (origin, serving)
    }

    fn client(origin: &Origin) -> Client {
        let server = Server::pinned(origin.clone(), None).unwrap();
        Client::new(server, PATIENCE)
    }

    #[tokio::test]
    async fn a_connection_is_kept_and_made_anew_when_it_has_ended() {
        let (origin, serving) = serve(2, 2, ("200 OK", b"ok".to_vec()));
        let mut client = client(&origin).with_token(Some("secret".parse().unwrap()));
        for _ in 0..4 {
            let answered = client.get("/status?all=1").await.unwrap();
            assert_eq!(answered.body(), "ok");
        }
        let heads = serving.join().unwrap();
        assert_eq!(heads.len(), 4);
        let host = client.origin.authority.as_str();
        for head in heads {
            let head = head.to_ascii_lowercase();
            assert!(head.starts_with("get /status?all=1 http/1.1\r\n"), "{head}");
            assert!(head.contains(&format!("\r\nhost: {host}\r\n")), "{head}");
            assert!(
                head.contains("\r\nauthorization: bearer secret\r\n"),
                "{head}"
            );
        }
    }

    #[tokio::test]
    async fn a_recording_may_be_longer_than_other_answers() {
        let long = vec![7; BODY_BYTES_MAX + 1];
        let (origin, serving) = serve(2, 1, ("200 OK", long.clone()));
        let mut client = client(&origin);
        let refused = client.get("/").await.unwrap_err();
        assert!(matches!(refused, ClientError::Body(_)), "{refused}");
        let mut written = Vec::new();
        let request = Request::post("/").body(Bytes::new()).unwrap();
        let answered = client.download(request, &mut written).await.unwrap();
        assert!(answered.body().is_empty());
        assert!(written == long);
        serving.join().unwrap();
    }

    #[tokio::test]
    async fn a_refusal_is_not_taken_for_what_was_asked_for() {
        let (origin, serving) = serve(1, 1, ("409 Conflict", b"busy".to_vec()));
        let mut client = client(&origin);
        let mut written = Vec::new();
        let request = Request::post("/").body(Bytes::new()).unwrap();
        let answered = client.download(request, &mut written).await.unwrap();
        assert_eq!(
            (answered.status().as_u16(), &**answered.body()),
            (409, &b"busy"[..])
        );
        assert!(written.is_empty());
        serving.join().unwrap();
    }

    #[tokio::test]
    async fn an_error_says_whether_nobody_is_there_or_takes_too_long() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin::from(listener.local_addr().unwrap());
        let server = Server::pinned(origin, None).unwrap();
        let mut client = Client::new(server, Duration::from_millis(50));
        let late = client.get("/").await.unwrap_err();
        assert!(matches!(late, ClientError::TimedOut { .. }), "{late}");
        drop(listener);
        let refused = client.get("/").await.unwrap_err();
        let ClientError::Connect { source, .. } = &refused else {
            panic!("{refused}");
        };
        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
    }
}
