//! One service at several addresses, of which one is active at a time: calls follow it.
//!
//! A [`channel`](Endpoints::channel) is connected to whichever of them last said that it is active, and its
//! connection breaks as soon as another one does: what was under way on it fails as on any connection that
//! breaks, and the next call is on a connection to the other. So callers need nothing but their retries.
//!
//! The active one is asked now and then, and the others only where it does not answer, says that it is not
//! active, or a connection has to be made. A process has one question on its way to an address, however many
//! channels it has, so questions grow with the processes alone: at four a second each, 1,000 gateways ask the
//! active one 4,000 times a second.

use std::error::Error as _;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use daemon::tasks::{self, Task};
use http::Uri;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tower_service::Service;

use crate::connect::{self, Connector, Security, UrlError};
use crate::release::Release;

/// How often the active one is asked.
const ASK_INTERVAL: Duration = Duration::from_millis(250);

/// How long an answer may take, before the others are asked as well. A false suspicion costs them a question each.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(250);

/// And once all are asked: whoever is slow is not given up for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// Shortest and longest pause between two questions to one that is not active, while none is: it doubles.
const SEARCH_PAUSE_MIN: Duration = Duration::from_millis(25);
const SEARCH_PAUSE_MAX: Duration = Duration::from_millis(100);

/// How long a connection waits until it is known who is active. After that it is to whoever was.
const FIND_TIME_MAX: Duration = Duration::from_millis(300);

/// Asks the one at the other end whether it is active: it fails where it is not. Returns the head of the answer. It need
/// not end by itself.
pub type AskIfActive = Arc<
    dyn Fn(Channel) -> Pin<Box<dyn Future<Output = Result<MetadataMap, Status>> + Send>>
        + Send
        + Sync,
>;

/// What one of the addresses was heard to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The one that calls go to.
    Active,
    /// It answers that it is not active.
    Standby,
    /// Nothing answers there in time.
    Silent,
}

impl Role {
    /// For people and for JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
            Self::Silent => "silent",
        }
    }
}

/// What is heard at one of the addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// What it is.
    pub role: Role,
    /// What it says of its release; `None` where it is silent.
    pub release: Option<Release>,
}

impl Heard {
    const SILENT: Self = Self {
        role: Role::Silent,
        release: None,
    };
}

/// The addresses of one service.
#[derive(Clone)]
pub struct Endpoints {
    shared: Arc<Shared>,
    /// Ends with the last clone, and the last channel.
    _search: Option<Arc<Task<()>>>,
}

struct Shared {
    urls: Vec<(Uri, Endpoint)>,
    security: Security,
    ask: Option<AskIfActive>,
    /// What is asked on, one for each address, from the first question on.
    channels: OnceLock<Vec<Channel>>,
    active: watch::Sender<Active>,
    wanted: Notify,
    /// The log says that the last answer refused this process.
    is_refused: AtomicBool,
}

/// What is known of who is active.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Active {
    index: Option<usize>,
    /// How often it was looked for.
    rounds: u64,
}

impl fmt::Display for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut urls = self.shared.urls.iter().map(|(url, _)| url);
        let first = urls.next();
        first.map_or(Ok(()), |first| write!(f, "{first}"))?;
        urls.try_for_each(|url| write!(f, ", {url}"))
    }
}

impl Endpoints {
    /// A service at one address.
    ///
    /// # Errors
    /// Where `url` is not one of this [`Security`].
    pub fn one(url: &str, security: &Security) -> Result<Self, UrlError> {
        let endpoint = connect::endpoint(url, security)?;
        let urls = vec![(endpoint.uri().clone(), endpoint)];
        Ok(Self {
            shared: Shared::new(urls, None, security.clone()),
            _search: None,
        })
    }

    /// One at several addresses, of which one is active. Of one alone nothing is asked.
    ///
    /// # Errors
    /// The first of them that is not a URL of this [`Security`], with what is wrong with it.
    ///
    /// # Panics
    /// Outside of a runtime, and without an address.
    pub fn several<'a>(
        urls: &'a [String],
        security: &Security,
        ask: AskIfActive,
    ) -> Result<Self, (&'a str, UrlError)> {
        assert!(!urls.is_empty(), "a service has an address");
        let endpoint = |url: &'a String| {
            let endpoint =
                connect::endpoint(url, security).map_err(|error| (url.as_str(), error))?;
            Ok((endpoint.uri().clone(), endpoint))
        };
        let urls = urls.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
        let shared = Shared::new(urls, Some(ask), security.clone());
        let search = (shared.urls.len() > 1).then(|| {
            let search = search(Arc::clone(&shared));
            Arc::new(tasks::spawn("follow the active one", search))
        });
        Ok(Self {
            shared,
            _search: search,
        })
    }

    /// A channel of its own, which connects when it is first used, and again whenever it must.
    /// Each call sets a deadline of its own.
    pub fn channel(&self) -> Channel {
        let (_, endpoint) = &self.shared.urls[0];
        if self.shared.urls.len() == 1 {
            return endpoint.connect_with_connector_lazy(self.shared.connector());
        }
        endpoint.connect_with_connector_lazy(Following {
            endpoints: self.clone(),
            connector: self.shared.connector(),
        })
    }

    /// Asks each address what it is now; in the order in which they were named.
    pub async fn heard(&self) -> Vec<(String, Heard)> {
        let ask = |index| self.shared.ask(index, ANSWER_TIME_MAX);
        let asked = (0..self.shared.urls.len()).map(ask);
        let mut asked: JoinSet<_> = asked.collect();
        let mut heard = vec![Heard::SILENT; self.shared.urls.len()];
        while let Some(answer) = asked.join_next().await {
            if let Ok((index, answer)) = answer {
                heard[index] = answer;
            }
        }
        let urls = self.shared.urls.iter().map(|(url, _)| named(url));
        urls.zip(heard).collect()
    }

    /// The address that calls go to, as far as is known.
    pub fn active_url(&self) -> Option<String> {
        let index = self.shared.active.borrow().index?;
        Some(named(&self.shared.urls[index].0))
    }
}

/// Without the `/` that parsing adds.
fn named(url: &Uri) -> String {
    url.to_string().trim_end_matches('/').to_owned()
}

/// Finds out who is active, for as long as it is polled.
async fn search(shared: Arc<Shared>) {
    loop {
        let known = shared.active.borrow().index;
        let found = match known {
            // It alone, while it answers.
            Some(index) if shared.ask(index, ANSWER_TIME_MAX).await.1.role == Role::Active => index,
            _ => shared.first_active().await,
        };
        shared.active.send_modify(|active| {
            if Some(found) != active.index {
                tracing::info!(
                    url = named(&shared.urls[found].0),
                    "follows the one that is active"
                );
                active.index = Some(found);
            }
            active.rounds += 1;
        });
        tokio::select! {
            () = sleep(ASK_INTERVAL) => {}
            () = shared.wanted.notified() => {}
        }
    }
}

/// Connects to the one that is active.
#[derive(Clone)]
struct Following {
    endpoints: Endpoints,
    connector: Connector,
}

impl Service<Uri> for Following {
    type Response = Connection;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Connection, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let (shared, mut connector) = (Arc::clone(&self.endpoints.shared), self.connector.clone());
        Box::pin(async move {
            let mut active = shared.active.subscribe();
            let found = timeout(FIND_TIME_MAX, shared.find(&mut active)).await;
            let known = active.borrow().index;
            let index = found
                .ok()
                .or(known)
                .ok_or("nobody says that it is active")?;
            let stream = connector.call(shared.urls[index].0.clone()).await?;
            let moved = async move {
                let moved = active.wait_for(|active| active.index != Some(index));
                let _ = moved.await; // or nobody says any more who is active
            };
            Ok(Connection {
                stream,
                moved: Box::pin(moved),
            })
        })
    }
}

impl Shared {
    fn new(urls: Vec<(Uri, Endpoint)>, ask: Option<AskIfActive>, security: Security) -> Arc<Self> {
        let active = Active {
            index: (urls.len() == 1).then_some(0),
            rounds: 0,
        };
        Arc::new(Self {
            urls,
            security,
            ask,
            channels: OnceLock::new(),
            active: watch::Sender::new(active),
            wanted: Notify::new(),
            is_refused: AtomicBool::new(false),
        })
    }

    fn connector(&self) -> Connector {
        Connector::new(self.security.clone())
    }

    /// Asks one of them what it is.
    fn ask(
        self: &Arc<Self>,
        index: usize,
        time_max: Duration,
    ) -> impl Future<Output = (usize, Heard)> + Send + use<> {
        let channels = self.channels.get_or_init(|| {
            let urls = self.urls.iter();
            let connect = |(_, endpoint): &(Uri, Endpoint)| {
                endpoint.connect_with_connector_lazy(self.connector())
            };
            urls.map(connect).collect()
        });
        let asked = self.ask.as_ref().map(|ask| ask(channels[index].clone()));
        let shared = Arc::clone(self);
        async move {
            let heard = |role, answer: &MetadataMap| {
                let release = Some(Release::of_callee(answer.as_ref()));
                (index, Heard { role, release })
            };
            let Some(asked) = asked else {
                return heard(Role::Active, &MetadataMap::new()); // there is no other
            };
            match timeout(time_max, asked).await {
                Ok(Ok(answer)) => {
                    shared.is_refused.store(false, Ordering::Relaxed);
                    heard(Role::Active, &answer)
                }
                // Only a failure on the way has a source: a callee's does not cross the wire.
                Ok(Err(status)) if status.source().is_none() => {
                    shared.note_refused(index, &status);
                    heard(Role::Standby, status.metadata())
                }
                Ok(Err(_)) | Err(_) => (index, Heard::SILENT),
            }
        }
    }

    /// One that stands by will be active; one that refuses this process, as of another journal or release, will not for it.
    fn note_refused(&self, index: usize, status: &Status) {
        let is_refused =
            [Code::FailedPrecondition, Code::PermissionDenied].contains(&status.code());
        if is_refused && !self.is_refused.swap(true, Ordering::Relaxed) {
            tracing::error!(
                url = named(&self.urls[index].0),
                why = status.message(),
                "this process is refused"
            );
        }
    }

    /// The first that says that it is. Each is asked again and again, whatever becomes of the others.
    async fn first_active(self: &Arc<Self>) -> usize {
        let asked = (0..self.urls.len()).map(|index| {
            let shared = Arc::clone(self);
            async move {
                let mut pause = SEARCH_PAUSE_MIN;
                while shared.ask(index, PATIENCE).await.1.role != Role::Active {
                    sleep(pause).await;
                    pause = (pause * 2).min(SEARCH_PAUSE_MAX);
                }
                index
            }
        });
        let mut asked: JoinSet<_> = asked.collect();
        let first = asked.join_next().await.expect("a service has an address");
        first.expect("nobody cancels it, and a question does not panic")
    }

    /// The active one, as it is found after now. That a connection is wanted says that there is none that works.
    async fn find(&self, active: &mut watch::Receiver<Active>) -> usize {
        let before = active.borrow_and_update().rounds;
        self.wanted.notify_one();
        let found = active.wait_for(|active| active.rounds > before && active.index.is_some());
        let found = found.await.expect("its sender is here").index;
        found.expect("it was waited for")
    }
}

/// A connection to the one that is active. It breaks when another one is.
struct Connection {
    stream: connect::Connection,
    moved: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Connection {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        match self.moved.as_mut().poll(context) {
            Poll::Pending => Ok(()),
            Poll::Ready(()) => {
                // Asked once more, it still says so.
                self.moved = Box::pin(std::future::ready(()));
                let moved = "another one is active";
                Err(io::Error::new(io::ErrorKind::ConnectionReset, moved))
            }
        }
    }
}

impl hyper::rt::Read for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl hyper::rt::Write for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests;
