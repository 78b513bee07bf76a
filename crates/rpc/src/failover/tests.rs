use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::access::Access;
use crate::connect::Security;
use crate::release::BazaarProtocol;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming};
use wire::order::v1::replication_client::ReplicationClient;
use wire::order::v1::replication_server::{Replication, ReplicationServer};
use wire::order::v1::{AppendRequest, AppendResponse, FetchRequest, FetchResponse};

use super::*;
use crate::listen::{self, Incoming};

/// Longest wait for what must come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// One of several, which answers while it is active.
#[derive(Clone)]
struct Callee {
    is_active: Arc<AtomicBool>,
    /// Answers nothing at all, as where it is paused.
    is_silent: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    id: u64,
}

#[tonic::async_trait]
impl Replication for Callee {
    type FetchStream = ReceiverStream<Result<FetchResponse, Status>>;
    type AppendManyStream = ReceiverStream<Result<AppendResponse, Status>>;

    /// Says who it is, and keeps the stream open.
    async fn append_many(
        &self,
        _: Request<Streaming<AppendRequest>>,
    ) -> Result<Response<Self::AppendManyStream>, Status> {
        let (answers, stream) = mpsc::channel(1);
        let answer = AppendResponse {
            rows: self.id,
            ..AppendResponse::default()
        };
        answers.send(Ok(answer)).await.unwrap();
        tokio::spawn(async move { answers.closed().await });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    /// The question.
    async fn fetch(&self, _: Request<FetchRequest>) -> Result<Response<Self::FetchStream>, Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.is_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        match self.is_active.load(Ordering::SeqCst) {
            true => Ok(Response::new(ReceiverStream::new(mpsc::channel(1).1))),
            false => Err(Status::unavailable("it stands by")),
        }
    }
}

fn ask() -> AskIfActive {
    Arc::new(|channel| {
        Box::pin(async move {
            let mut client = ReplicationClient::new(channel);
            let fetched = client.fetch(FetchRequest::default()).await;
            fetched.map(|answer| answer.metadata().clone())
        })
    })
}

struct Both {
    callees: [Callee; 2],
    endpoints: Endpoints,
    _serving: JoinSet<()>,
}

impl Both {
    async fn start() -> Self {
        let mut serving = JoinSet::new();
        let mut urls = Vec::new();
        let callees = [0, 1].map(|id| Callee {
            is_active: Arc::default(),
            is_silent: Arc::default(),
            asked: Arc::default(),
            id,
        });
        for callee in callees.clone() {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            urls.push(format!("http://{}", listener.local_addr().unwrap()));
            let server = listen::server(Access(&[]), BazaarProtocol::default())
                .add_service(ReplicationServer::new(callee));
            serving.spawn(async move {
                server
                    .serve_with_incoming(Incoming::from(listener))
                    .await
                    .unwrap();
            });
        }
        Self {
            callees,
            endpoints: Endpoints::several(&urls, &Security::NONE, ask()).unwrap(),
            _serving: serving,
        }
    }

    fn activate(&self, id: usize) {
        for (index, callee) in self.callees.iter().enumerate() {
            callee.is_active.store(index == id, Ordering::SeqCst);
        }
    }
}

/// A stream on that channel, and who is at its other end.
async fn stream(channel: &Channel) -> (u64, Streaming<AppendResponse>) {
    let begun = Instant::now();
    loop {
        let mut client = ReplicationClient::new(channel.clone());
        let opened = client.append_many(tokio_stream::pending()).await;
        match opened.map(Response::into_inner) {
            Ok(mut stream) => {
                // A move may break it before anything is said.
                if let Ok(Some(first)) = stream.message().await {
                    return (first.rows, stream);
                }
            }
            Err(status) => assert!(begun.elapsed() < PATIENCE, "{status}"),
        }
    }
}

#[tokio::test]
async fn streams_break_where_another_one_is_active_and_the_next_are_there() {
    let both = Both::start().await;
    both.activate(0);
    let channels = [both.endpoints.channel(), both.endpoints.channel()];
    for id in [0, 1, 0] {
        both.activate(id);
        let mut streams = Vec::new();
        for channel in &channels {
            let (mut at, mut opened) = stream(channel).await;
            while at != id as u64 {
                // It was opened before the other was found: that breaks it.
                let broken = timeout(PATIENCE, opened.message()).await;
                broken.expect("it breaks").unwrap_err();
                (at, opened) = stream(channel).await;
            }
            streams.push(opened);
        }
        both.activate(1 - id);
        for mut opened in streams {
            let broken = timeout(PATIENCE, opened.message()).await;
            broken.expect("it breaks").unwrap_err();
        }
    }
}

#[tokio::test]
async fn one_that_falls_silent_is_left_once_another_is_active_and_not_before() {
    let both = Both::start().await;
    both.activate(0);
    let channel = both.endpoints.channel();
    let (at, mut opened) = stream(&channel).await;
    assert_eq!(at, 0);
    both.callees[0].is_silent.store(true, Ordering::SeqCst);
    // However often it is suspected meanwhile.
    let asked = both.callees[1].asked.load(Ordering::SeqCst);
    while both.callees[1].asked.load(Ordering::SeqCst) < asked + 3 {
        let still = timeout(Duration::from_millis(10), opened.message()).await;
        still.unwrap_err();
    }
    both.callees[1].is_active.store(true, Ordering::SeqCst);
    let broken = timeout(PATIENCE, opened.message()).await;
    broken.expect("it breaks").unwrap_err();
    assert_eq!(stream(&channel).await.0, 1);
}

#[tokio::test]
async fn what_each_is_is_told_and_who_stands_by_is_not_asked_while_the_active_one_answers() {
    let both = Both::start().await;
    both.activate(1);
    let (at, _opened) = stream(&both.endpoints.channel()).await;
    assert_eq!(at, 1);
    let asked = |id: usize| both.callees[id].asked.load(Ordering::SeqCst);
    let (standby, active) = (asked(0), asked(1));
    while asked(1) < active + 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(asked(0), standby);
    let heard = both.endpoints.heard().await;
    let heard: Vec<Heard> = heard.into_iter().map(|(_, heard)| heard).collect();
    let expected = [Role::Standby, Role::Active].map(|role| Heard {
        role,
        release: Some(Release::own()),
    });
    assert_eq!(heard, expected);
    both.callees[0].is_silent.store(true, Ordering::SeqCst);
    assert_eq!(both.endpoints.heard().await[0].1.role, Role::Silent);
}

#[tokio::test]
async fn a_url_that_makes_no_sense_is_named() {
    let urls = ["http://127.0.0.1:1".to_owned(), "nowhere at all".to_owned()];
    let (named, _) = Endpoints::several(&urls, &Security::NONE, ask())
        .err()
        .unwrap();
    assert_eq!(named, "nowhere at all");
}
