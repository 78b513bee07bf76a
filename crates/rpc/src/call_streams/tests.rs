use crate::access::Access;
use crate::connect::Security;
use crate::release::BazaarProtocol;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::*;
use crate::connect;
use crate::listen::{self, Incoming, Limits};
use wire::order::v1::replication_client::ReplicationClient;
use wire::order::v1::replication_server::{Replication, ReplicationServer};
use wire::order::v1::{AppendRequest, AppendResponse, FetchRequest, FetchResponse};

/// Longest wait for what must come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// A leader of this id is answered together with another one.
const TOGETHER: u32 = 2;

/// A leader of this id is answered with two messages.
const TWO_MESSAGES: u32 = 3;

fn answer(rows: u64) -> AppendResponse {
    AppendResponse {
        rows,
        ..AppendResponse::default()
    }
}

/// Answers with the epoch asked about, and refuses epoch 0.
#[derive(Clone)]
struct Callee {
    streams: Arc<AtomicUsize>,
    together: Arc<Barrier>,
    closing: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Replication for Callee {
    type FetchStream = ReceiverStream<Result<FetchResponse, Status>>;
    type AppendManyStream = ReceiverStream<Result<AppendResponse, Status>>;

    async fn append_many(
        &self,
        request: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendManyStream>, Status> {
        self.streams.fetch_add(1, Ordering::Relaxed);
        let mut closing = self.closing.clone();
        let closed = async move {
            let _ = closing.wait_for(|&closing| closing).await;
        };
        let together = Arc::clone(&self.together);
        let answers = serve(request, closed, move |request, early| {
            let together = Arc::clone(&together);
            async move {
                if request.leader == TOGETHER {
                    together.wait().await;
                }
                if request.epoch == 0 {
                    return Err(Status::failed_precondition("epoch 0"));
                }
                if request.leader == TWO_MESSAGES {
                    early.send(answer(0)).await;
                }
                Ok(answer(request.epoch))
            }
        });
        Ok(Response::new(answers))
    }

    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        Err(Status::unimplemented("not asked for here"))
    }
}

struct Caller {
    calls: Calls<AppendRequest, AppendResponse>,
    client: ReplicationClient<Channel>,
    streams: Arc<AtomicUsize>,
    close: watch::Sender<bool>,
    _serving: JoinSet<()>,
}

impl Caller {
    async fn start() -> Self {
        Self::within(Limits::default()).await
    }

    /// Of a callee that lets in so much.
    async fn within(limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let streams = Arc::new(AtomicUsize::new(0));
        let (close, closing) = watch::channel(false);
        let callee = Callee {
            streams: Arc::clone(&streams),
            together: Arc::new(Barrier::new(2)),
            closing,
        };
        let server = listen::server(Access(&[]), BazaarProtocol::default())
            .add_service(ReplicationServer::new(callee));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let incoming = Incoming::new(listener, limits);
            server.serve_with_incoming(incoming).await.unwrap();
        });
        Self {
            calls: Calls::default(),
            client: ReplicationClient::new(connect::lazy(&url, &Security::NONE).unwrap()),
            streams,
            close,
            _serving: serving,
        }
    }

    async fn call(&self, epoch: u64, leader: u32) -> Result<u64, Status> {
        let request = AppendRequest {
            epoch,
            leader,
            rows: Vec::new(),
            committed: 0,
            traced: Vec::new(),
            journal: Vec::new(),
        };
        let mut client = self.client.clone();
        let open = async |requests| client.append_many(requests).await;
        let mut call = self.calls.call(request, open).await?;
        if leader == TWO_MESSAGES {
            assert_eq!(call.message().await?.rows, 0);
        }
        let answer = call.message().await?;
        call.end();
        Ok(answer.rows)
    }

    fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn calls_one_after_another_share_a_stream() {
    let caller = Caller::start().await;
    for epoch in 1..20 {
        assert_eq!(caller.call(epoch, 1).await.unwrap(), epoch);
        assert_eq!(caller.call(epoch, TWO_MESSAGES).await.unwrap(), epoch);
    }
    assert_eq!(caller.streams(), 1);
}

#[tokio::test]
async fn calls_at_once_do_not_wait_for_each_other() {
    let caller = Caller::start().await;
    for _ in 0..3 {
        // The callee answers neither before it has both.
        let (one, other) = tokio::join!(caller.call(1, TOGETHER), caller.call(2, TOGETHER));
        assert_eq!((one.unwrap(), other.unwrap()), (1, 2));
    }
    assert_eq!(caller.streams(), 2);
}

#[tokio::test]
async fn an_error_ends_one_call_and_the_next_is_made() {
    let caller = Caller::start().await;
    let (refused, other) = tokio::join!(caller.call(0, TOGETHER), caller.call(2, TOGETHER));
    assert_eq!(refused.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(other.unwrap(), 2);
    assert_eq!(caller.call(3, 1).await.unwrap(), 3);
}

#[tokio::test]
async fn a_call_that_is_given_up_is_not_answered_by_the_next() {
    let caller = Caller::start().await;
    assert_eq!(caller.call(1, 1).await.unwrap(), 1);
    let given_up = caller.call(2, TOGETHER);
    let answered = tokio::select! {
        biased;
        // Sent, and then dropped without its answer.
        answered = given_up => answered,
        answered = caller.call(3, TOGETHER) => answered,
    };
    assert!(matches!(answered.unwrap(), 2 | 3));
    assert_eq!(caller.call(4, 1).await.unwrap(), 4);
}

#[tokio::test]
async fn a_callee_that_closes_ends_idle_streams() {
    let caller = Caller::start().await;
    assert_eq!(caller.call(1, 1).await.unwrap(), 1);
    let mut stream = caller.calls.take().expect("one is idle");
    caller.close.send_replace(true);
    assert!(stream.answers.message().await.unwrap().is_none());
}

#[tokio::test]
async fn a_callee_that_ends_an_idle_connection_is_called_again() {
    let caller = Caller::within(Limits {
        idle_max: Duration::from_millis(200),
        ..Limits::default()
    })
    .await;
    for streams in 1..3 {
        assert_eq!(caller.call(1, 1).await.unwrap(), 1);
        assert_eq!(caller.streams(), streams);
        let stream = caller.calls.take().expect("one is idle");
        let ended = timeout(PATIENCE, stream.requests.closed()).await;
        ended.expect("an idle stream ends");
        caller.calls.idle().push(stream);
    }
}
