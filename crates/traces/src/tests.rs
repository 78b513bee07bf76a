mod failing;

use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use http::HeaderValue;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;
use crate::otlp::proto::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use crate::otlp::proto::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use crate::queue::{Counts, EXPORT_SPANS_MAX, QUEUE_SPANS_MAX};

const SENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// How long whatever happens may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A collector, which answers as it is told to.
struct Collector {
    exports: mpsc::UnboundedSender<ExportTraceServiceRequest>,
    /// The next answers; after them it takes everything.
    answers: Mutex<Vec<Answer>>,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    Unavailable,
    Invalid,
    RefusesOne,
    /// It asks to be left alone for so long.
    Busy(Duration),
    /// And it does not say for how long.
    Full,
    Never,
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let answer = self.answers.lock().unwrap().pop();
        let mut taken = ExportTraceServiceResponse::default();
        match answer {
            Some(Answer::Unavailable) => return Err(Status::unavailable("not now")),
            Some(Answer::Invalid) => return Err(Status::invalid_argument("not these")),
            Some(Answer::Busy(asked)) => {
                let details = ErrorDetails::with_retry_info(Some(asked));
                let code = tonic::Code::Unavailable;
                return Err(Status::with_error_details(code, "busy", details));
            }
            Some(Answer::Full) => return Err(Status::resource_exhausted("no more room")),
            Some(Answer::Never) => std::future::pending().await,
            Some(Answer::RefusesOne) => {
                taken.partial_success = Some(ExportTracePartialSuccess {
                    rejected_spans: 1,
                    error_message: "one is odd".into(),
                });
            }
            None => {}
        }
        self.exports.send(request.into_inner()).unwrap();
        Ok(Response::new(taken))
    }
}

type Exports = mpsc::UnboundedReceiver<ExportTraceServiceRequest>;

/// Answers in this order. Returns where it is, and what it takes.
async fn collector(mut answers: Vec<Answer>) -> (String, Exports) {
    let (exports, taken) = mpsc::unbounded_channel();
    answers.reverse();
    let collector = Collector {
        exports,
        answers: Mutex::new(answers),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(collector))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(serving);
    (url, taken)
}

const ALL: Sampling = Sampling {
    share: 1.0,
    asked_max: 10,
};

fn service() -> Service {
    Service {
        name: "bazaar-test",
        instance: "1".into(),
    }
}

fn start(url: &str) -> Traces {
    start_at(url.parse().unwrap())
}

fn start_at(target: Target) -> Traces {
    let config = Config {
        target,
        sampling: ALL,
    };
    Traces::start(config, service()).unwrap()
}

/// Where nothing is exported.
fn not_exporting(share: f64) -> Traces {
    Traces(Some(Arc::new(Tracing::new(&Sampling {
        share,
        asked_max: 10,
    }))))
}

fn counts(traces: &Traces) -> Counts {
    traces.0.as_ref().unwrap().queue.counts()
}

async fn counted(traces: &Traces, wanted: Counts) {
    let began = Instant::now();
    while counts(traces) != wanted {
        assert!(began.elapsed() < PATIENCE, "{:?}", counts(traces));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn headers(sent: &[&'static str]) -> HeaderMap {
    let sent = sent.iter().copied().map(HeaderValue::from_static);
    sent.map(|value| (TRACEPARENT, value))
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
}

#[test]
fn a_trace_goes_on_with_what_its_client_says_once_and_correctly() {
    let traces = not_exporting(1.0);
    let sampled = |sent: &[&'static str]| traces.sample(&headers(sent)).unwrap();
    let joined = sampled(&[SENT]);
    assert_eq!(joined.trace.to_string(), SENT[3..35]);
    assert_eq!(joined.span.unwrap().to_string(), SENT[36..52]);
    for wrong in [&[][..], &["00-0af7-b7ad-01"], &[SENT, SENT]] {
        let begun = sampled(wrong);
        assert_ne!(begun.trace.to_string(), SENT[3..35], "{wrong:?}");
        assert_eq!(begun.span, None, "{wrong:?}");
    }
    let off = Traces::default();
    assert!(off.sample(&headers(&[SENT])).is_none());
}

#[test]
fn another_service_s_call_is_traced_where_it_says_so() {
    let traces = not_exporting(0.0);
    assert!(traces.join(SENT).is_some());
    let unsampled = format!("{}00", &SENT[..53]);
    for not in ["", "nonsense", &unsampled] {
        assert!(traces.join(not).is_none(), "{not}");
    }
    assert!(Traces::default().join(SENT).is_none());
}

#[test]
fn so_many_spans_wait_at_most_and_those_without_room_are_counted() {
    let traces = not_exporting(1.0);
    let parent = traces.sample(&HeaderMap::new()).unwrap();
    for _ in 0..QUEUE_SPANS_MAX + 7 {
        drop(parent.begin(Kind::Internal, "span"));
    }
    assert_eq!(counts(&traces).dropped, 7);
    let queue = &traces.0.as_ref().unwrap().queue;
    let batches = std::iter::from_fn(|| Some(queue.take()).filter(|batch| !batch.is_empty()));
    let batches: Vec<usize> = batches.map(|batch| batch.len()).collect();
    assert_eq!(batches.iter().sum::<usize>(), QUEUE_SPANS_MAX);
    assert!(batches.iter().all(|batch| *batch <= EXPORT_SPANS_MAX));
}

#[tokio::test]
async fn spans_reach_the_collector_with_whose_and_under_which_they_are() {
    let (url, mut exports) = collector(Vec::new()).await;
    let traces = start(&url);
    let server = traces.sample(&headers(&[SENT])).unwrap();
    let server = server
        .begin(Kind::Server, "GET stock")
        .with("url.path", String::from("/stocks/nvidia"))
        .with("http.response.status_code", 503_u16);
    let mut client = server.parent().begin(Kind::Client, "a call");
    client.fail("it broke");
    let (outer, inner) = (server.context(), client.context());
    drop(client);
    drop(server);
    traces.flush().await;
    let export = exports.recv().await.unwrap();
    let [resource] = &export.resource_spans[..] else {
        panic!("{export:?}")
    };
    let whose = format!("{:?}", resource.resource);
    assert!(whose.contains("bazaar-test"), "{whose}");
    let spans = &resource.scope_spans[0].spans;
    let [client, server] = &spans[..] else {
        panic!("{spans:?}")
    };
    assert_eq!(outer.trace.to_string(), SENT[3..35]);
    for (span, context) in [(server, outer), (client, inner)] {
        assert_eq!(span.trace_id, outer.trace.as_bytes());
        assert_eq!(span.span_id, context.span.as_bytes());
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
    }
    assert_eq!(client.parent_span_id, outer.span.as_bytes());
    assert_eq!((client.flags, server.flags), (0x101, 0x301));
    let parent = domain::hex::Hex(&server.parent_span_id).to_string();
    assert_eq!(parent, SENT[36..52]);
    assert!(client.start_time_unix_nano >= server.start_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    assert_eq!(client.status.as_ref().unwrap().message, "it broke");
    assert_eq!(server.status, None);
    let said = format!("{:?}", server.attributes);
    assert!(
        said.contains("/stocks/nvidia") && said.contains("503"),
        "{said}"
    );
    let exported = 2;
    let counts = counts(&traces);
    assert_eq!(counts.exported, exported);
}

#[tokio::test]
async fn what_may_be_taken_later_is_tried_again_and_what_is_refused_is_not() {
    use Answer::{Invalid, RefusesOne, Unavailable};
    let answers = vec![Unavailable, Unavailable, RefusesOne, Invalid];
    let (url, mut exports) = collector(answers).await;
    let traces = start(&url);
    let parent = traces.sample(&HeaderMap::new()).unwrap();
    for _ in 0..3 {
        drop(parent.begin(Kind::Internal, "first"));
    }
    let taken = tokio::time::timeout(PATIENCE, exports.recv()).await;
    let taken = taken.unwrap().unwrap();
    assert_eq!(taken.resource_spans[0].scope_spans[0].spans.len(), 3);
    let first = Counts {
        exported: 2,
        refused: 1,
        dropped: 0,
    };
    counted(&traces, first).await;
    drop(parent.begin(Kind::Internal, "second"));
    counted(
        &traces,
        Counts {
            refused: 2,
            ..first
        },
    )
    .await;
    drop(parent.begin(Kind::Internal, "third"));
    let third = Counts {
        exported: 3,
        refused: 2,
        dropped: 0,
    };
    counted(&traces, third).await;
}

/// With a certificate for `localhost`, which is its own authority. Returns its port, and what it takes.
async fn encrypted_collector(certificate: &Path) -> (u16, Exports) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(certificate, made.cert.pem()).unwrap();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let (exports, taken) = mpsc::unbounded_channel();
    let collector = TraceServiceServer::new(Collector {
        exports,
        answers: Mutex::default(),
    });
    let listener = TcpListener::bind("localhost:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(stream) = acceptor.accept(stream).await else {
                continue; // it is not believed
            };
            let service = TowerToHyperService::new(collector.clone());
            let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::spawn(serving);
        }
    });
    (port, taken)
}

#[tokio::test]
async fn an_encrypted_collector_is_believed_for_its_authority_alone() {
    let dir = tempfile::tempdir().unwrap();
    let [own, others] = ["own.crt", "others.crt"].map(|name| dir.path().join(name));
    let (port, mut exports) = encrypted_collector(&own).await;
    let (_, _other) = encrypted_collector(&others).await;
    let target = || {
        format!("https://localhost:{port}")
            .parse::<Target>()
            .unwrap()
    };
    for (authority, exported) in [(others, 0), (own, 1)] {
        let traces = start_at(target().believing(Some(authority)).unwrap());
        let parent = traces.sample(&HeaderMap::new()).unwrap();
        drop(parent.begin(Kind::Internal, "span"));
        traces.flush().await;
        assert_eq!(counts(&traces).exported, exported);
    }
    assert!(exports.recv().await.is_some());
    let nowhere = target()
        .believing(Some(dir.path().join("none.crt")))
        .unwrap();
    let config = Config {
        target: nowhere,
        sampling: ALL,
    };
    let refused = Traces::start(config, service()).unwrap_err();
    assert!(refused.to_string().contains("none.crt"), "{refused}");
}

/// As where the collector's authority is replaced by another one.
#[tokio::test]
async fn a_file_of_authorities_is_read_anew_and_where_it_will_not_do_what_it_said_stays_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let [own, others, named] =
        ["own.crt", "others.crt", "named.crt"].map(|name| dir.path().join(name));
    let (port, mut exports) = encrypted_collector(&own).await;
    let (_, _other) = encrypted_collector(&others).await;
    std::fs::copy(&others, &named).unwrap();
    let target: Target = format!("https://localhost:{port}").parse().unwrap();
    let traces = start_at(target.believing(Some(named.clone())).unwrap());
    let parent = traces.sample(&HeaderMap::new()).unwrap();
    for put in [std::fs::read(&own).unwrap(), b"no certificate".to_vec()] {
        drop(parent.begin(Kind::Internal, "span"));
        std::fs::write(&named, put).unwrap();
        let taken = tokio::time::timeout(PATIENCE, exports.recv()).await;
        assert!(taken.expect("it is believed").is_some());
    }
}

/// It does not come to an end with a collector that says nothing, nor with one that is not there.
#[tokio::test]
async fn a_service_stops_in_time_whatever_the_collector_does() {
    let (hanging, _exports) = collector(vec![Answer::Never; 9]).await;
    let gone = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        format!("http://{}/v1/traces", listener.local_addr().unwrap())
    };
    for url in [&hanging, &gone] {
        let traces = start(url);
        drop(
            traces
                .sample(&HeaderMap::new())
                .unwrap()
                .begin(Kind::Internal, "span"),
        );
        let began = Instant::now();
        traces.flush().await;
        assert!(began.elapsed() < FLUSH_TIME_MAX * 10, "{url}");
        assert_eq!(counts(&traces).exported, 0, "{url}");
    }
}
