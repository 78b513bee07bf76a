//! The access log: a line for each request of a client, or for a sample of them.
//!
//! A request that is not logged costs one look at whether it is to be. Of one that is, a few values are copied, bounded, and
//! go through a bounded queue to a thread that writes them down ([`format`]) and to where that is wanted ([`output`]).
//! What there is no room for is dropped and counted: no request waits for it.

mod format;
mod output;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant, SystemTime};

use daemon::tasks;
use frontend_policy::answered::{Cached, Route};
use frontend_policy::{Digest, RequestId};
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::request::Parts;
use http::{StatusCode, Version, response};
use smol_str::SmolStr;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use traces::TraceId;

use output::Output;

pub use format::Format;

/// Requests that wait to be written down: of some 2 KiB each at most.
const QUEUE_MAX: usize = 4_096;

/// What is kept of a request's method, target and `User-Agent`, in bytes.
const METHOD_BYTES_MAX: usize = 32;
const TARGET_BYTES_MAX: usize = 1_024;
const AGENT_BYTES_MAX: usize = 256;

/// Bytes of lines that are written at a time.
const BATCH_BYTES: usize = 64 << 10;

/// How long what waits gets to be written when the gateway stops, and how often there is another try to say so.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);
const FLUSH_PAUSE: Duration = Duration::from_millis(10);

/// By which it is known where an answer came from.
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What is logged of a client that left before there was an answer, as others have it.
const CLIENT_LEFT: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => unreachable!(),
};

/// How requests are logged.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub format: Format,
    /// Where to; standard error where absent. It is opened anew once another file, or none, has its name.
    pub file: Option<PathBuf>,
    /// Which share of the requests is logged, 0 to 1.
    pub sample: f64,
}

/// Where requests are logged. Clones are of one.
#[derive(Clone)]
pub struct AccessLog {
    shared: Arc<Shared>,
    /// A request is logged where a random number is not above it; none is where absent.
    sample: Option<u64>,
}

struct Shared {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

enum Message {
    Entry(Box<Entry>),
    /// All before it has been written.
    Flushed(oneshot::Sender<()>),
}

/// What is logged of a request.
#[derive(Debug)]
struct Entry {
    at: SystemTime,
    client: IpAddr,
    method: SmolStr,
    /// Its path, and its query without most values, see [`format`]; what is beyond the bound is left out.
    target: String,
    version: Version,
    agent: Option<String>,
    id: SmolStr,
    /// Where it is traced.
    trace: Option<TraceId>,
    status: StatusCode,
    /// Of the body, as it went to the connection.
    bytes: usize,
    /// Until there was an answer.
    took: Duration,
    /// What its `Cache-Status` says.
    cache: Option<HeaderValue>,
    policy: Option<Digest>,
}

/// A request that is logged once this is dropped.
pub struct Pending {
    shared: Arc<Shared>,
    began: Instant,
    entry: Option<Box<Entry>>,
}

/// How a response came about: in its extensions, where it is logged or traced.
#[derive(Debug, Clone, Copy)]
pub struct Decided {
    /// By which version of the policy.
    pub policy: Digest,
    /// What was done.
    pub route: Route,
    /// What the cache had for it.
    pub cached: Cached,
}

impl AccessLog {
    /// Opens it.
    ///
    /// # Errors
    /// Where there is no such file and none can be made, or there are no threads.
    pub fn start(config: &Config) -> io::Result<Self> {
        let dropped = Arc::<AtomicU64>::default();
        let output = Output::open(config.file.clone(), Arc::clone(&dropped))?;
        let (queue, entries) = sync_channel(QUEUE_MAX);
        let format = config.format;
        tasks::thread("access log", move || write(&entries, format, output))?;
        let is_any = config.sample > 0.0;
        Ok(Self {
            shared: Arc::new(Shared { queue, dropped }),
            sample: is_any.then_some((config.sample * u64::MAX as f64) as u64),
        })
    }

    /// A request has come. `None` where it is not to be logged.
    pub fn begin(
        &self,
        head: &Parts,
        client: IpAddr,
        (id, trace): (&RequestId, Option<TraceId>),
    ) -> Option<Pending> {
        if self.sample.is_none_or(|sample| fastrand::u64(..) > sample) {
            return None;
        }
        let target = head.uri.path_and_query();
        let target = target.map_or("/", |target| target.as_str());
        let agent = head.headers.get(USER_AGENT).map(HeaderValue::as_bytes);
        let agent = agent.map(|agent| {
            let kept = &agent[..agent.len().min(AGENT_BYTES_MAX)];
            String::from_utf8_lossy(kept).into_owned()
        });
        let method = head.method.as_str();
        let entry = Entry {
            at: SystemTime::now(),
            client,
            method: SmolStr::new(&method[..method.floor_char_boundary(METHOD_BYTES_MAX)]),
            target: format::target(target, TARGET_BYTES_MAX),
            version: head.version,
            agent,
            id: id.text().clone(),
            trace,
            status: CLIENT_LEFT,
            bytes: 0,
            took: Duration::ZERO,
            cache: None,
            policy: None,
        };
        Some(Pending {
            shared: Arc::clone(&self.shared),
            began: Instant::now(),
            entry: Some(Box::new(entry)),
        })
    }

    /// How many requests are not in it for lack of room, or as their lines could not be written.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Ordering::Relaxed)
    }

    /// Waits until what waits is written, for a bounded time.
    pub async fn flush(&self) {
        let flushed = async {
            let (done, flushed) = oneshot::channel();
            let mut message = Message::Flushed(done);
            while let Err(full) = self.shared.queue.try_send(message) {
                message = match full {
                    std::sync::mpsc::TrySendError::Full(message)
                    | std::sync::mpsc::TrySendError::Disconnected(message) => message,
                };
                sleep(FLUSH_PAUSE).await;
            }
            let _ = flushed.await;
        };
        let _ = timeout(FLUSH_TIME_MAX, flushed).await;
    }
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessLog")
    }
}

impl Pending {
    /// There is an answer, with a body of so many bytes.
    pub fn answered(mut self, answer: &response::Parts, bytes: usize) {
        if let Some(entry) = &mut self.entry {
            entry.status = answer.status;
            entry.bytes = bytes;
            entry.cache = answer.headers.get(CACHE_STATUS).cloned();
            entry.policy = answer
                .extensions
                .get()
                .map(|decided: &Decided| decided.policy);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        let Some(mut entry) = self.entry.take() else {
            return;
        };
        entry.took = self.began.elapsed();
        if self.shared.queue.try_send(Message::Entry(entry)).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Writes until nobody logs any more.
fn write(entries: &Receiver<Message>, format: Format, mut output: Output) {
    let mut lines = Vec::new();
    while let Ok(first) = entries.recv() {
        let mut flushed = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Entry(entry) => format.write(&entry, &mut lines),
                Message::Flushed(done) => flushed.push(done),
            }
            next = match lines.len() < BATCH_BYTES {
                true => entries.try_recv().ok(),
                false => None,
            };
        }
        output.write(&lines);
        lines.clear();
        for done in flushed {
            let _ = done.send(());
        }
    }
}

#[cfg(test)]
mod tests;
