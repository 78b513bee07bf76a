//! Keeps the messages of calls that go through it: for each method what was sent in each direction, in as many shapes as
//! came by.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::thread;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;

/// Messages of one shape that are kept.
const OF_A_SHAPE: usize = 2;

/// A message's head in gRPC: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// `>` for what a caller sends, `<` for what it is answered.
pub type Direction = char;

/// By method and direction.
pub type Messages = BTreeMap<(String, Direction), Kept>;

#[derive(Debug, Default)]
pub struct Kept {
    shapes: BTreeMap<Vec<u32>, usize>,
    pub messages: BTreeSet<Bytes>,
}

impl Kept {
    fn take(&mut self, message: Bytes) {
        let mut shape = Vec::new();
        shape_of(&message, &mut shape);
        let count = self.shapes.entry(shape).or_default();
        if *count < OF_A_SHAPE && self.messages.insert(message) {
            *count += 1;
        }
    }
}

/// Which fields a message has, those of messages in it included; of those that repeat the first says enough.
fn shape_of(mut message: &[u8], shape: &mut Vec<u32>) -> bool {
    let before = shape.len();
    let mut last = 0;
    while !message.is_empty() {
        let Ok(key) = prost::encoding::decode_varint(&mut message) else {
            shape.truncate(before);
            return false;
        };
        let (field, kind) = ((key >> 3) as u32, key & 7);
        let length = match kind {
            0 => prost::encoding::decode_varint(&mut message).map(|_| 0).ok(),
            1 => Some(8),
            2 => prost::encoding::decode_varint(&mut message).ok(),
            5 => Some(4),
            _ => None,
        };
        let part = length.and_then(|length| message.split_at_checked(length as usize));
        let (Some((part, rest)), true) = (part, field > 0) else {
            shape.truncate(before);
            return false;
        };
        message = rest;
        if field != last {
            shape.push(field);
            if kind == 2 {
                shape.push(0);
                shape_of(part, shape);
            }
        }
        last = field;
    }
    true
}

/// Passes calls on to a service, and keeps what they say. Ends with the process.
#[derive(Debug, Clone, Default)]
pub struct Recorder {
    messages: Arc<Mutex<Messages>>,
}

impl Recorder {
    /// Takes connections for whoever is at `to`; returns where.
    pub fn stand_before(&self, to: SocketAddr) -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let recorder = self.clone();
        thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (connection, _) = listener.accept().await.unwrap();
                    tokio::spawn(recorder.clone().pass_on(connection, to));
                }
            });
        });
        address
    }

    async fn pass_on(self, connection: TcpStream, to: SocketAddr) {
        let Ok(onward) = TcpStream::connect(to).await else {
            return;
        };
        let onward = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .handshake(TokioIo::new(onward))
            .await;
        let Ok((sender, driver)) = onward else {
            return;
        };
        let service = service_fn(move |request: Request<Incoming>| {
            let (recorder, mut sender) = (self.clone(), sender.clone());
            async move {
                let method = request.uri().path().to_owned();
                let request = request.map(|body| recorder.tee(body, &method, '>'));
                let answer: Result<Response<Tee>, hyper::Error> = sender
                    .send_request(request)
                    .await
                    .map(|answer| answer.map(|body| recorder.tee(body, &method, '<')));
                answer
            }
        });
        let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(connection), service);
        // Where one side ends, so does the other.
        tokio::select! {
            _ = driver => {}
            _ = serving => {}
        }
    }

    fn tee(&self, body: Incoming, method: &str, direction: Direction) -> Tee {
        Tee {
            body,
            key: (method.to_owned(), direction),
            partial: BytesMut::new(),
            recorder: self.clone(),
        }
    }

    pub fn with_messages<T>(&self, read: impl FnOnce(&Messages) -> T) -> T {
        read(&self.messages.lock().unwrap())
    }
}

/// A body whose messages are kept.
struct Tee {
    body: Incoming,
    key: (String, Direction),
    partial: BytesMut,
    recorder: Recorder,
}

impl Tee {
    fn take(&mut self, data: &[u8]) {
        self.partial.extend_from_slice(data);
        while let Some(head) = self.partial.get(..HEAD_BYTES) {
            assert_eq!(head[0], 0, "nothing is compressed");
            let length = u32::from_be_bytes(head[1..].try_into().unwrap()) as usize;
            if self.partial.len() < HEAD_BYTES + length {
                return;
            }
            let message = self.partial.split_to(HEAD_BYTES + length).freeze();
            let mut messages = self.recorder.messages.lock().unwrap();
            let kept = messages.entry(self.key.clone()).or_default();
            kept.take(message.slice(HEAD_BYTES..));
        }
    }
}

impl Body for Tee {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let data = data.clone();
            self.take(&data);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }
}
