//! Exports spans, on a thread of its own: it is not a request's time that writing them down takes.
//!
//! One export is under way at a time. Where the collector does not take it, it is tried again, later and later; meanwhile what
//! ends waits in the queue, and is dropped where that is full.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daemon::tasks;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{DefaultServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use prost::Message as _;
use tokio::time::{sleep, timeout};
use tonic::Code;
use tonic::body::Body;

use crate::Service;
use crate::otlp::Origin;
use crate::otlp::proto::collector::trace::v1::trace_service_client::TraceServiceClient;
use crate::otlp::proto::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use crate::queue::Queue;
use crate::target::{Protocol, Target, TargetError};

/// How long after a first span has ended what there is by then is exported.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// How long the collector may take for one export.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(5);

/// How long after an export has failed there is another try, at first and at most.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(500);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How often one export is tried: there may be something in it that the collector cannot take.
const ATTEMPTS_MAX: u32 = 10;

/// What is read of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// By which a collector knows who exports.
const AGENT: &str = concat!("bazaar/", env!("CARGO_PKG_VERSION"));

type Connector = HttpsConnector<HttpConnector>;

/// How to reach a collector.
enum Collector {
    Grpc(TraceServiceClient<Client<Connector, Body>>),
    Http(Client<Connector, Full<Bytes>>),
}

/// Why an export was not taken.
#[derive(Debug)]
enum Failed {
    /// It may be taken later.
    Later(String),
    /// It never is.
    Refused(String),
}

/// Exports the spans of a queue.
pub(crate) struct Exporter {
    target: Target,
    collector: Collector,
    origin: Origin,
    /// Whether the last export was taken.
    is_failing: bool,
}

impl Exporter {
    pub(crate) fn new(target: &Target, service: Service) -> Result<Self, TargetError> {
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
        let names = Arc::new(DefaultServerNameResolver::default());
        let connector = HttpsConnector::new(tcp, tls, false, names);
        let mut client = Client::builder(Tasks);
        client.pool_max_idle_per_host(1);
        let collector = match target.protocol {
            Protocol::Http => Collector::Http(client.build(connector)),
            Protocol::Grpc => {
                let client = client.http2_only(true).build(connector);
                let client = TraceServiceClient::with_origin(client, target.uri.clone());
                Collector::Grpc(client.max_decoding_message_size(ANSWER_BYTES_MAX))
            }
        };
        Ok(Self {
            target: target.clone(),
            collector,
            origin: Origin::of(service),
            is_failing: false,
        })
    }

    /// Exports until the service stops.
    pub(crate) fn run(mut self, queue: &Queue) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        match runtime {
            Ok(runtime) => runtime.block_on(self.export_all(queue)),
            Err(error) => tracing::warn!(%error, "traces are not exported: restart this service"),
        }
        queue.note_closed();
    }

    async fn export_all(&mut self, queue: &Queue) {
        let mut closing = std::pin::pin!(queue.closing());
        while !queue.is_closing() {
            tokio::select! {
                () = queue.filled() => {}
                () = &mut closing => break,
            }
            if !queue.is_enough() {
                tokio::select! {
                    () = sleep(GATHER_TIME) => {}
                    () = queue.filled() => {}
                    () = &mut closing => break,
                }
            }
            while !queue.is_closing() && !queue.is_empty() {
                self.export(queue, closing.as_mut()).await;
            }
        }
        // What there is by now is tried once.
        while !queue.is_empty() {
            self.export(queue, closing.as_mut()).await;
        }
    }

    /// Exports what waits, as much of it as one export takes, until the collector has taken it.
    async fn export(&mut self, queue: &Queue, mut closing: Pin<&mut impl Future<Output = ()>>) {
        let spans = queue.take();
        let count = spans.len();
        let request = self.origin.export(spans);
        let mut pause = RETRY_PAUSE_MIN;
        for _ in 0..ATTEMPTS_MAX {
            let sent = timeout(EXPORT_TIME_MAX, self.send(request.clone())).await;
            let late = || Failed::Later(format!("no answer within {EXPORT_TIME_MAX:?}"));
            let why = match sent.unwrap_or_else(|_| Err(late())) {
                Ok(answer) => return self.taken(queue, count, answer),
                Err(Failed::Refused(why)) => {
                    self.failed(&why);
                    return queue.note_refused(count);
                }
                Err(Failed::Later(why)) => why,
            };
            self.failed(&why);
            if queue.is_closing() {
                break;
            }
            tokio::select! {
                () = sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)) => {}
                () = &mut closing => {}
            }
            pause = (2 * pause).min(RETRY_PAUSE_MAX);
        }
        queue.note_dropped(count);
    }

    /// The collector has taken them, unless it says that it does not want some.
    fn taken(&mut self, queue: &Queue, count: usize, answer: ExportTraceServiceResponse) {
        let partial = answer.partial_success.unwrap_or_default();
        let refused = usize::try_from(partial.rejected_spans)
            .unwrap_or(0)
            .min(count);
        queue.note_exported(count - refused);
        queue.note_refused(refused);
        if refused > 0 {
            self.failed(&partial.error_message);
        } else if std::mem::take(&mut self.is_failing) {
            tracing::info!(collector = %self.target, "traces are exported again");
        }
    }

    /// Says so once, until an export is taken again.
    fn failed(&mut self, why: &str) {
        if !std::mem::replace(&mut self.is_failing, true) {
            tracing::warn!(
                collector = %self.target,
                why,
                "traces are not exported: see to the collector, or to --otlp. Nothing else is held up"
            );
        }
    }

    async fn send(
        &mut self,
        request: ExportTraceServiceRequest,
    ) -> Result<ExportTraceServiceResponse, Failed> {
        match &mut self.collector {
            Collector::Grpc(client) => {
                let mut request = tonic::Request::new(request);
                let agent = AGENT.parse().expect("it is visible ASCII");
                request.metadata_mut().insert("user-agent", agent);
                match client.export(request).await {
                    Ok(answer) => Ok(answer.into_inner()),
                    Err(status) if is_for_later(status.code()) => {
                        Err(Failed::Later(innermost(&status)))
                    }
                    Err(status) => Err(Failed::Refused(innermost(&status))),
                }
            }
            Collector::Http(client) => post(client, &self.target, &request).await,
        }
    }
}

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
    let answer = client.request(request).await;
    let (head, body) = answer
        .map_err(|error| Failed::Later(innermost(&error)))?
        .into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Failed::Later(error.to_string()))?;
    let why = || format!("it answers {}", head.status);
    match head.status {
        // What a collector answers in another encoding is not looked at: it has taken them.
        StatusCode::OK => {
            Ok(ExportTraceServiceResponse::decode(body.to_bytes()).unwrap_or_default())
        }
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Err(Failed::Later(why())),
        _ => Err(Failed::Refused(why())),
    }
}

/// What OTLP says may be tried again.
fn is_for_later(code: Code) -> bool {
    matches!(
        code,
        Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss
            | Code::ResourceExhausted
            // How a connection that cannot be made, or breaks, is told.
            | Code::Unknown
            | Code::Internal
    )
}

/// What is behind an error.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
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
