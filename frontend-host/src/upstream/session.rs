//! The gateway's session with the catalog: keeps the lease alive and obeys invalidations.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use domain::time::BootTime;
use domain::{SessionId, StockName, Version};
use frontend_core::timing::{OPEN_TIME_MAX, REOPEN_PAUSE_MAX, REOPEN_PAUSE_MIN};
use frontend_core::{Lease, Session};
use rpc::retry::RetryClass;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::Malformed;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::catalog::v1::session_event::{Event, Invalidate};
use wire::catalog::v1::session_request::{Acknowledge, Open, Release, Renew, Request};
use wire::catalog::v1::{SessionEvent, SessionRequest};
use wire::identity;
use wire::identity::OTHER_JOURNAL;

use crate::cache::Cache;
use crate::journal::OwnJournal;

/// Requests to the catalog that may wait to be sent.
const REQUESTS_QUEUED_MAX: usize = 256;

/// How long the catalog gets to see a Release when the gateway stops.
const RELEASE_TIME_MAX: Duration = Duration::from_millis(500);

/// Keeps a session open until `shutdown`, then releases it, so that no trade has to wait for
/// its lease to run out.
pub async fn keep_session(
    catalog: CatalogClient<Channel>,
    gateway: String,
    cache: Arc<Cache>,
    journal: Arc<OwnJournal>,
    shutdown: impl Future<Output = ()>,
) {
    tokio::pin!(shutdown);
    let mut pause = REOPEN_PAUSE_MIN;
    loop {
        let attempt = Attempt {
            catalog: catalog.clone(),
            gateway: &gateway,
            cache: &cache,
            journal: &journal,
        };
        let mut opened = false;
        let ended = attempt.run(&mut opened, &mut shutdown).await;
        cache.set_lease(Lease::default());
        let Ended::Lost(status) = ended else {
            return;
        };
        pause = if opened {
            tracing::warn!(%status, "session with the catalog lost");
            REOPEN_PAUSE_MIN
        } else {
            tracing::debug!(%status, "no session with the catalog yet");
            match RetryClass::of(&status) {
                RetryClass::Later => (pause * 2).min(REOPEN_PAUSE_MAX),
                // By then it may be another catalog.
                RetryClass::Elsewhere | RetryClass::Never => REOPEN_PAUSE_MAX,
            }
        };
        tokio::select! {
            () = sleep(pause) => {}
            () = &mut shutdown => return,
        }
    }
}

enum Ended {
    Released,
    Lost(Status),
}

struct Attempt<'a> {
    catalog: CatalogClient<Channel>,
    gateway: &'a str,
    cache: &'a Cache,
    journal: &'a OwnJournal,
}

impl Attempt<'_> {
    async fn run(
        mut self,
        opened: &mut bool,
        shutdown: &mut (impl Future<Output = ()> + Unpin),
    ) -> Ended {
        let (requests, queue) = mpsc::channel(REQUESTS_QUEUED_MAX);
        let open = async {
            let sent = BootTime::now();
            send(
                &requests,
                Request::Open(Open {
                    gateway: self.gateway.to_owned(),
                    journal: self.journal.to_wire(),
                }),
            )
            .await?;
            let mut events = self
                .catalog
                .session(ReceiverStream::new(queue))
                .await?
                .into_inner();
            let Some(Event::Opened(opened)) = next(&mut events).await? else {
                return Err(Status::internal("the catalog's first event was not Opened"));
            };
            let journal = identity::named(&opened.journal)?;
            let heard = self.journal.note_catalog(journal);
            heard.map_err(|other| Status::new(OTHER_JOURNAL, other.to_string()))?;
            let session = SessionId::new(opened.session)
                .ok_or_else(|| Status::internal("the catalog's session has no id"))?;
            let length = Duration::from_millis(opened.lease_ms.into());
            Ok((Session::opened(session, length, sent), events))
        };
        let established = tokio::select! {
            established = timeout(OPEN_TIME_MAX, open) => established,
            () = &mut *shutdown => return Ended::Released,
        };
        let (session, events) = match established {
            Ok(Ok(established)) => established,
            Ok(Err(status)) => return Ended::Lost(status),
            Err(_) => return Ended::Lost(Status::deadline_exceeded("no session in time")),
        };
        *opened = true;
        tracing::info!(
            session = session.lease().session().map(tracing::field::display),
            "session with the catalog opened"
        );
        let mut follower = Follower {
            session,
            requests,
            events,
            cache: self.cache,
        };
        tokio::select! {
            Err(status) = follower.follow() => Ended::Lost(status),
            () = shutdown => {
                follower.release().await;
                Ended::Released
            }
        }
    }
}

struct Follower<'a> {
    session: Session,
    requests: mpsc::Sender<SessionRequest>,
    events: Streaming<SessionEvent>,
    cache: &'a Cache,
}

impl Follower<'_> {
    /// Follows the session until it is lost.
    async fn follow(&mut self) -> Result<std::convert::Infallible, Status> {
        self.cache.set_lease(self.session.lease());
        let mut renewal = Instant::now() + self.session.renewal_interval();
        loop {
            tokio::select! {
                event = next(&mut self.events) => match event? {
                    Some(event) => self.obey(event).await?,
                    None => return Err(Status::unavailable("the catalog ended the session")),
                },
                () = tokio::time::sleep_until(renewal) => {
                    renewal = Instant::now() + self.session.renewal_interval();
                    let nonce = self.session.renew(BootTime::now());
                    send(&self.requests, Request::Renew(Renew { nonce })).await?;
                }
            }
        }
    }

    async fn obey(&mut self, event: Event) -> Result<(), Status> {
        match event {
            Event::Opened(_) => Err(Status::internal("the catalog opened the session twice")),
            Event::Renewed(renewed) => {
                self.session.renewed(renewed.nonce);
                self.cache.set_lease(self.session.lease());
                Ok(())
            }
            Event::Invalidate(Invalidate { round, floors }) => {
                for floor in floors {
                    let name = StockName::new(&floor.name).map_err(Malformed)?;
                    self.cache.invalidate(&name, Version(floor.version));
                }
                send(&self.requests, Request::Acknowledge(Acknowledge { round })).await
            }
        }
    }

    /// Serves nothing more under the lease, and says so.
    async fn release(self) {
        self.cache.set_lease(Lease::default());
        let Self {
            requests,
            mut events,
            ..
        } = self;
        let released = async {
            send(&requests, Request::Release(Release {})).await?;
            drop(requests);
            while next(&mut events).await?.is_some() {}
            Ok::<_, Status>(())
        };
        // Without an answer the catalog waits for the lease to run out.
        let _ = timeout(RELEASE_TIME_MAX, released).await;
    }
}

async fn send(requests: &mpsc::Sender<SessionRequest>, request: Request) -> Result<(), Status> {
    let sent = requests
        .send(SessionRequest {
            request: Some(request),
        })
        .await;
    sent.map_err(|_| Status::unavailable("the session's stream is closed"))
}

/// The next event; `None` at the end of the stream. Events of a later protocol are passed over.
async fn next(events: &mut Streaming<SessionEvent>) -> Result<Option<Event>, Status> {
    loop {
        match events.message().await? {
            Some(SessionEvent { event: Some(event) }) => return Ok(Some(event)),
            Some(SessionEvent { event: None }) => {}
            None => return Ok(None),
        }
    }
}
