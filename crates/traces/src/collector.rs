//! A collector: how it is connected to, and what its answers mean.
//!
//! It may be anybody's, and do anything: it gets so much time and no more, what is read of an answer is bounded, and so is what of
//! it is logged.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use daemon::tasks;
use daemon::watched::Contents;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use prost::Message as _;
use tokio::time::timeout;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::otlp::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use crate::otlp::proto::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use crate::span::bounded;
use crate::target::{Protocol, Target, TargetError};

/// How long the collector may take for one export.
pub(crate) const EXPORT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long the rest of an answer may take that says at its beginning that the spans are taken.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// What is read of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How long the collector's machine may leave what was sent unacknowledged: a connection whose packets get lost, and one that was
/// given up, end then; by retransmission alone it takes a quarter of an hour.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = EXPORT_TIME_MAX;

/// The longest that a collector can have itself left alone for.
pub(crate) const AFTER_MAX: Duration = Duration::from_secs(60);

/// By which a collector knows who exports.
const AGENT: &str = concat!("bazaar/", env!("CARGO_PKG_VERSION"));

type Connector = HttpsConnector<HttpConnector>;

/// Connects when it is first used, and again whenever it must. There is no keep-alive, as there is among Bazaar's own services:
/// servers of gRPC's for Go, the collector of OpenTelemetry's among them, close a connection that is probed more often than every
/// five minutes, or while it is idle (`keepalive.EnforcementPolicy`).
pub(crate) struct Collector {
    target: Target,
    /// The file of the authorities that are believed, as it was when it was looked at last.
    authorities: Option<Contents>,
    connector: Connector,
    client: ProtocolClient,
}

enum ProtocolClient {
    Grpc(TraceServiceClient<Client<Connector, Body>>),
    Http(Client<Connector, Full<Bytes>>),
}

/// Why an export was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    /// It may be gone, and the connection not know it.
    #[error("no answer within {EXPORT_TIME_MAX:?}")]
    Unanswered,
    /// It may be taken later, and no sooner than it says.
    #[error("{why}")]
    Later { why: String, after: Duration },
    /// It never is.
    #[error("{0}")]
    Refused(String),
}

impl Failed {
    fn later(why: &(dyn std::error::Error + 'static)) -> Self {
        Self::Later {
            why: innermost(why),
            after: Duration::ZERO,
        }
    }
}

impl Collector {
    /// # Errors
    /// Where the certificates cannot be used.
    pub(crate) fn new(target: &Target) -> Result<Self, TargetError> {
        // Looked at first: what is written meanwhile is a change.
        let authorities = authorities(target);
        let connector = connector(target)?;
        Ok(Self {
            client: ProtocolClient::new(target, &connector),
            target: target.clone(),
            authorities,
            connector,
        })
    }

    /// Where it is.
    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Believes whom the file of authorities names by now, over another connection, where that has changed. Where it will not do,
    /// what it said before stays in force, and the log says so once. Reads it: not for a thread that serves.
    fn look_at_authorities(&mut self) {
        let authorities = authorities(&self.target);
        if authorities == self.authorities {
            return;
        }
        self.authorities = authorities;
        match connector(&self.target) {
            Ok(connector) => {
                self.client = ProtocolClient::new(&self.target, &connector);
                self.connector = connector;
                tracing::info!(collector = %self.target, "the authorities of --otlp-ca have changed, and are in force as they are now");
            }
            Err(problem) => {
                tracing::error!(%problem, "a file has changed and will not do: what it said before stays in force");
            }
        }
    }

    /// Exports spans. Where no answer comes, the next time is over another connection.
    pub(crate) async fn export(
        &mut self,
        request: ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, Failed> {
        self.look_at_authorities();
        let exported = match &mut self.client {
            ProtocolClient::Grpc(client) => call(client, request).await,
            ProtocolClient::Http(client) => post(client, &self.target, &request).await,
        };
        if matches!(exported, Err(Failed::Unanswered)) {
            self.client = ProtocolClient::new(&self.target, &self.connector);
        }
        exported
    }
}

/// Of the authorities that are believed what is in their file, where one is named and can be read.
fn authorities(target: &Target) -> Option<Contents> {
    Contents::read(target.authorities.as_deref()?).ok()
}

fn connector(target: &Target) -> Result<Connector, TargetError> {
    let tls = match target.is_secure() {
        true => tls::client::of_others(target.authorities.as_deref())?,
        false => tls::client::nobody(),
    };
    let mut tls = Arc::unwrap_or_clone(tls);
    if target.protocol == Protocol::Grpc {
        tls.alpn_protocols = vec![b"h2".to_vec()];
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(EXPORT_TIME_MAX));
    #[cfg(target_os = "linux")]
    tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
    let names = Arc::new(DefaultServerNameResolver::default());
    Ok(HttpsConnector::new(tcp, tls, false, names))
}

impl ProtocolClient {
    fn new(target: &Target, connector: &Connector) -> Self {
        let mut client = Client::builder(Tasks);
        client.pool_max_idle_per_host(1);
        match target.protocol {
            Protocol::Http => Self::Http(client.build(connector.clone())),
            Protocol::Grpc => {
                let client = client.http2_only(true).build(connector.clone());
                let client = TraceServiceClient::with_origin(client, target.uri.clone());
                Self::Grpc(client.max_decoding_message_size(ANSWER_BYTES_MAX))
            }
        }
    }
}

/// OTLP over gRPC.
async fn call(
    client: &mut TraceServiceClient<Client<Connector, Body>>,
    request: ExportTraceServiceRequest,
) -> Result<ExportTraceServiceResponse, Failed> {
    let mut request = tonic::Request::new(request);
    let agent = AGENT.parse().expect("it is visible ASCII");
    request.metadata_mut().insert("user-agent", agent);
    match timeout(EXPORT_TIME_MAX, client.export(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(of_status(&status)),
        Err(_) => Err(Failed::Unanswered),
    }
}

/// What a status means, by OTLP ("OTLP/gRPC Response", "Throttling").
fn of_status(status: &Status) -> Failed {
    let asked = status.get_details_retry_info();
    let asked = asked.and_then(|info| info.retry_delay);
    let why = innermost(status);
    match status.code() {
        // What has no more room for spans says when it will have, or it will not. Where the connection failed there is a source.
        Code::ResourceExhausted
            if asked.is_none() && std::error::Error::source(status).is_none() =>
        {
            Failed::Refused(why)
        }
        Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unavailable
        | Code::DataLoss
        | Code::ResourceExhausted
        // How a connection that cannot be made, or breaks, is told.
        | Code::Unknown
        | Code::Internal => Failed::Later {
            why,
            after: asked.unwrap_or_default().min(AFTER_MAX),
        },
        _ => Failed::Refused(why),
    }
}

/// OTLP over HTTP.
async fn post(
    client: &Client<Connector, Full<Bytes>>,
    target: &Target,
    request: &ExportTraceServiceRequest,
) -> Result<ExportTraceServiceResponse, Failed> {
    const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");
    let request = Request::post(target.uri.clone())
        .header(CONTENT_TYPE, PROTOBUF)
        .header(USER_AGENT, AGENT)
        .body(Full::new(request.encode_to_vec().into()))
        .expect("its parts are right");
    let answer = match timeout(EXPORT_TIME_MAX, client.request(request)).await {
        Ok(answer) => answer.map_err(|error| Failed::later(&error))?,
        Err(_) => return Err(Failed::Unanswered),
    };
    let (head, body) = answer.into_parts();
    let why = format!("it answers {}", head.status);
    match head.status {
        status if status.is_success() => Ok(rest(body).await),
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Failed::Later {
            why,
            after: asked(&head.headers, SystemTime::now()),
        }),
        _ => Err(Failed::Refused(why)),
    }
}

/// What a collector that has taken an export says of it. It has, whatever comes: what is too long or in another encoding, does not
/// come or breaks off, says nothing more.
async fn rest(body: Incoming) -> ExportTraceServiceResponse {
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect();
    match timeout(ANSWER_TIME_MAX, body).await {
        Ok(Ok(body)) => ExportTraceServiceResponse::decode(body.to_bytes()).unwrap_or_default(),
        Ok(Err(_)) | Err(_) => ExportTraceServiceResponse::default(),
    }
}

/// How long `Retry-After` asks to be left alone for, in seconds or until a time (RFC 9110, section 10.2.3).
fn asked(headers: &HeaderMap, now: SystemTime) -> Duration {
    let text = headers
        .get(RETRY_AFTER)
        .and_then(|value| value.to_str().ok());
    let after = text.map(|text| match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text)
            .ok()
            .and_then(|until| until.duration_since(now).ok())
            .unwrap_or_default(),
    });
    after.unwrap_or_default().min(AFTER_MAX)
}

/// What is behind an error. Some of it is the collector's.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    bounded(innermost.to_string())
}

/// Runs connections.
#[derive(Debug, Clone)]
struct Tasks;

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, connection: F) {
        tasks::spawn_for_caller(connection);
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tonic_types::{ErrorDetails, StatusExt as _};
    use tower_service::Service as _;

    use super::*;

    fn later(after_s: u64) -> Option<Duration> {
        Some(Duration::from_secs(after_s))
    }

    fn after(failed: &Failed) -> Option<Duration> {
        match failed {
            Failed::Later { after, .. } => Some(*after),
            Failed::Refused(_) => None,
            Failed::Unanswered => panic!("it is an answer"),
        }
    }

    /// A connection that is given up has to end, too.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_that_nothing_comes_back_on_ends_soon() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut collector = Collector::new(&url.parse().unwrap()).unwrap();
        let connected = collector.connector.call(url.parse().unwrap()).await;
        let hyper_rustls::MaybeHttpsStream::Http(stream) = connected.unwrap() else {
            panic!("nothing encrypts it");
        };
        let socket = SockRef::from(stream.inner());
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
    }

    #[test]
    fn a_status_says_whether_and_when_it_is_tried_again() {
        let asks = |code, delay_s| {
            let delay = Some(Duration::from_secs(delay_s));
            Status::with_error_details(code, "busy", ErrorDetails::with_retry_info(delay))
        };
        for (status, expected) in [
            (Status::unavailable("away"), later(0)),
            (asks(Code::Unavailable, 7), later(7)),
            (asks(Code::ResourceExhausted, 7), later(7)),
            (
                asks(Code::Unavailable, u64::from(u32::MAX)),
                Some(AFTER_MAX),
            ),
            (Status::resource_exhausted("too large"), None),
            (Status::invalid_argument("what is it?"), None),
            (asks(Code::InvalidArgument, 7), None),
            (Status::unauthenticated("who is it?"), None),
            (
                Status::with_details(Code::Unavailable, "odd", vec![0xff; 9].into()),
                later(0),
            ),
        ] {
            assert_eq!(after(&of_status(&status)), expected, "{status:?}");
        }
    }

    #[test]
    fn an_answer_over_http_says_when_it_is_tried_again() {
        let now = httpdate::parse_http_date("Mon, 30 Nov 2026 12:00:00 GMT").unwrap();
        for (text, expected_s) in [
            ("0", 0),
            ("7", 7),
            ("604800", AFTER_MAX.as_secs()),
            ("18446744073709551616", 0),
            ("-1", 0),
            ("soon", 0),
            ("Mon, 30 Nov 2026 12:00:09 GMT", 9),
            ("Tue, 01 Dec 2026 12:00:00 GMT", AFTER_MAX.as_secs()),
            ("Mon, 30 Nov 2026 11:00:00 GMT", 0),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]);
            let expected = Duration::from_secs(expected_s);
            assert_eq!(asked(&headers, now), expected, "{text}");
        }
        assert_eq!(asked(&HeaderMap::new(), now), Duration::ZERO);
    }

    #[test]
    fn little_is_said_of_what_a_collector_says_at_length() {
        let status = Status::internal("é".repeat(20_000));
        let Failed::Later { why, .. } = of_status(&status) else {
            panic!("it may be taken later");
        };
        assert!(why.len() <= crate::span::TEXT_BYTES_MAX, "{}", why.len());
    }
}
