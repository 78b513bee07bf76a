//! A collector of OpenTelemetry's, as far as tests need one: it speaks OTLP over gRPC or HTTP, and keeps the spans.

use std::convert::Infallible;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::traces::otlp::proto::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use ::traces::otlp::proto::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use ::traces::otlp::proto::common::v1::any_value::Value as Any;
use ::traces::otlp::proto::common::v1::{AnyValue, KeyValue};
use ::traces::otlp::proto::trace::v1::Span;
use ::traces::otlp::proto::trace::v1::status::StatusCode;
use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// How it is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    Grpc,
    Http,
    /// It takes connections, and never answers.
    Nothing,
}

impl Speaks {
    /// What services are told of a collector at an address that is spoken to like this.
    pub fn flag(self, address: SocketAddr) -> String {
        match self {
            Self::Http => format!("--otlp=http://{address}/v1/traces"),
            Self::Grpc | Self::Nothing => format!("--otlp=http://{address}"),
        }
    }
}

/// A span, and of which service it is.
#[derive(Debug, Clone)]
pub struct Seen {
    pub service: String,
    pub instance: String,
    /// What is said of that service besides.
    resource: Arc<Vec<KeyValue>>,
    /// What recorded it.
    pub scope: String,
    pub span: Span,
}

impl Seen {
    /// An attribute, as text.
    pub fn attribute(&self, name: &str) -> Option<String> {
        attribute(&self.span.attributes, name)
    }

    /// One of its service, as text.
    pub fn of_service(&self, name: &str) -> Option<String> {
        attribute(&self.resource, name)
    }

    /// What went wrong, if anything did.
    pub fn failure(&self) -> Option<&str> {
        let status = self.span.status.as_ref()?;
        (status.code == StatusCode::Error as i32).then_some(&*status.message)
    }
}

fn attribute(attributes: &[KeyValue], name: &str) -> Option<String> {
    let found = attributes.iter().find(|found| found.key == name)?;
    match &found.value {
        Some(AnyValue {
            value: Some(Any::StringValue(text)),
        }) => Some(text.clone()),
        Some(AnyValue {
            value: Some(Any::IntValue(number)),
        }) => Some(number.to_string()),
        other => panic!("{name} is {other:?}"),
    }
}

/// What has come so far.
#[derive(Debug, Clone, Default)]
struct Spans(Arc<Mutex<Vec<Seen>>>);

impl Spans {
    fn take_in(&self, export: ExportTraceServiceRequest) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for resource in export.resource_spans {
            let whose = Arc::new(resource.resource.unwrap_or_default().attributes);
            let say = |name| attribute(&whose, name).expect("every service says it");
            let (service, instance) = (say("service.name"), say("service.instance.id"));
            for recorded in resource.scope_spans {
                let scope = recorded.scope.unwrap_or_default().name;
                all.extend(recorded.spans.into_iter().map(|span| Seen {
                    service: service.clone(),
                    instance: instance.clone(),
                    resource: Arc::clone(&whose),
                    scope: scope.clone(),
                    span,
                }));
            }
        }
    }
}

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.take_in(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// Runs until it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    speaks: Speaks,
    spans: Spans,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Collector {
    /// On a free port.
    pub fn start(speaks: Speaks) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), speaks)
    }

    pub fn start_at(address: SocketAddr, speaks: Speaks) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("there are threads");
        let listener = runtime.block_on(TcpListener::bind(address));
        let listener = listener.expect("the port is free");
        let address = listener.local_addr().expect("it listens");
        let spans = Spans::default();
        match speaks {
            Speaks::Grpc => {
                let serving = tonic::transport::Server::builder()
                    .add_service(TraceServiceServer::new(spans.clone()))
                    .serve_with_incoming(TcpListenerStream::new(listener));
                runtime.spawn(serving);
            }
            Speaks::Http => {
                runtime.spawn(serve_http(listener, spans.clone()));
            }
            Speaks::Nothing => {
                runtime.spawn(async move {
                    let mut taken = Vec::new();
                    loop {
                        taken.push(listener.accept().await);
                    }
                });
            }
        }
        Self {
            address,
            speaks,
            spans,
            runtime: Some(runtime),
        }
    }

    /// What services are told.
    pub fn flag(&self) -> String {
        self.speaks.flag(self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has come so far.
    pub fn spans(&self) -> Vec<Seen> {
        let spans = self.spans.0.lock().unwrap_or_else(PoisonError::into_inner);
        spans.clone()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(1));
        }
    }
}

async fn serve_http(listener: TcpListener, spans: Spans) {
    while let Ok((stream, _)) = listener.accept().await {
        let spans = spans.clone();
        let service = service_fn(move |request| answer(request, spans.clone()));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    spans: Spans,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    assert_eq!(
        (head.method.as_str(), head.uri.path()),
        ("POST", "/v1/traces")
    );
    assert_eq!(head.headers["content-type"], "application/x-protobuf");
    let body = body.collect().await.expect("the export comes whole");
    let mut body = body.to_bytes();
    if let Some(encoding) = head.headers.get("content-encoding") {
        assert_eq!(encoding, "gzip");
        let mut plain = Vec::new();
        let read = GzDecoder::new(&*body).read_to_end(&mut plain);
        read.expect("it is compressed");
        body = plain.into();
    }
    let export = ExportTraceServiceRequest::decode(body);
    spans.take_in(export.expect("it is one"));
    let answer = ExportTraceServiceResponse::default().encode_to_vec();
    Ok(hyper::Response::new(Full::new(answer.into())))
}
