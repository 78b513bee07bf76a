//! The gateway's session with the catalog: keeps the lease alive and obeys invalidations.

use std::future::{Future, pending};
use std::mem::replace;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use daemon::tasks;
use domain::time::BootTime;
use domain::{SessionId, StockName, Version};
use frontend_core::{Lease, SessionKeeper, SessionStep};
use rpc::retry::{RetryClass, RetryStatus as _};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use wire::Malformed;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::catalog::v1::session_event::{Event, Invalidate};
use wire::catalog::v1::session_request::{Acknowledge, Open, Release, Renew, Report, Request};
use wire::catalog::v1::{SessionEvent, SessionRequest};
use wire::identity;
use wire::identity::OTHER_JOURNAL;

use crate::cache::Cache;
use crate::journal::OwnJournal;
use crate::measured::{Measured, SessionTurn};
use crate::reporting::Reporting;

/// Requests to the catalog that may wait to be sent.
const REQUESTS_QUEUED_MAX: usize = 256;

/// How long the catalog gets to see a Release when the gateway stops.
const RELEASE_TIME_MAX: Duration = Duration::from_millis(500);

/// What a session is about, and what is told in it.
pub struct Served {
    pub cache: Arc<Cache>,
    pub measured: Arc<Measured>,
    pub reporting: Arc<Reporting>,
}

/// Keeps a session open until `shutdown`, then releases it, so that no trade has to wait for
/// its lease to run out.
pub async fn keep_session(
    catalog: CatalogClient<Channel>,
    gateway: String,
    served: Served,
    journal: Arc<OwnJournal>,
    shutdown: impl Future<Output = ()>,
) {
    let Served {
        cache,
        measured,
        reporting,
    } = served;
    let mut reports = reporting.latest();
    tokio::pin!(shutdown);
    let mut keeper = SessionKeeper::new(BootTime::now());
    let mut link = Link::None;
    let mut lease = Lease::default();
    loop {
        let stepped = match keeper.next(BootTime::now(), fastrand::f64()) {
            Some(SessionStep::Open) => {
                let (gateway, journal) = (gateway.clone(), Arc::clone(&journal));
                link = Link::Opening(Box::pin(open(catalog.clone(), gateway, journal)));
                Ok(())
            }
            Some(SessionStep::GiveUp) => {
                tracing::debug!("the catalog opens no session in time");
                link = Link::None;
                Ok(())
            }
            Some(SessionStep::Renew(nonce)) => link.send(Request::Renew(Renew { nonce })),
            None => Ok(()),
        };
        if lease != keeper.lease() {
            lease = keeper.lease();
            cache.set_lease(lease);
        }
        let happened = match stepped {
            Err(status) => Err(status),
            Ok(()) => tokio::select! {
                happened = link.next() => happened,
                // Its sender is here.
                _ = reports.changed() => Ok(Happened::Reported(reports.borrow_and_update().clone())),
                () = sleep(keeper.wake().since(BootTime::now())) => continue,
                () = &mut shutdown => break,
            },
        };
        let ended = match happened {
            Ok(Happened::Opened(stream, opened)) => {
                tracing::info!(session = %opened.session, "session with the catalog opened");
                measured.session(SessionTurn::Opened);
                keeper.opened(opened.session, opened.lease, BootTime::now());
                reporting.want(false); // until this catalog wants it, which one of before cannot
                link = Link::Open(stream);
                Ok(())
            }
            Ok(Happened::Renewed {
                nonce,
                wants_report,
            }) => {
                measured.session(SessionTurn::Renewed);
                keeper.renewed(nonce);
                reporting.want(wants_report);
                Ok(())
            }
            Ok(Happened::Reported(report)) if reporting.is_wanted() => {
                let json = report.to_vec();
                link.send(Request::Report(Report { json }))
            }
            Ok(Happened::Reported(_)) => Ok(()),
            Ok(Happened::Invalidated { round, floors }) => {
                measured.session(SessionTurn::Invalidated);
                for (name, version) in floors {
                    cache.invalidate(&name, version);
                }
                link.send(Request::Acknowledge(Acknowledge { round }))
            }
            Ok(Happened::Closing) => {
                tracing::info!("the catalog stops: its session is released");
                measured.session(SessionTurn::Closed);
                keeper.lost(RetryClass::Later, BootTime::now(), fastrand::f64());
                lease = keeper.lease();
                cache.set_lease(lease); // before it is told so
                reporting.want(false);
                if let Link::Open(stream) = replace(&mut link, Link::None) {
                    tasks::spawn_for_caller(stream.release());
                }
                Ok(())
            }
            Err(status) => Err(status),
        };
        if let Err(status) = ended {
            match link {
                Link::Open(_) => {
                    tracing::warn!(%status, "session with the catalog lost");
                    measured.session(SessionTurn::Lost);
                }
                _ => tracing::debug!(%status, "no session with the catalog yet"),
            }
            keeper.lost(RetryClass::of(&status), BootTime::now(), fastrand::f64());
            reporting.want(false); // nobody is there to send it to
            link = Link::None;
        }
    }
    cache.set_lease(Lease::default());
    if let Link::Open(stream) = link {
        stream.release().await;
    }
}

/// What there is of a session.
enum Link {
    None,
    Opening(Opening),
    Open(Box<Stream>),
}

/// Ends with the stream of a session and what the catalog says of it.
type Opening = Pin<Box<dyn Future<Output = Result<(Box<Stream>, Opened), Status>> + Send>>;

/// What the catalog says of a session that it opens.
struct Opened {
    session: SessionId,
    lease: Duration,
}

/// What the catalog sends.
enum Happened {
    Opened(Box<Stream>, Opened),
    Renewed {
        nonce: u64,
        wants_report: bool,
    },
    /// Not it: this gateway says how it is.
    Reported(Bytes),
    Invalidated {
        round: u64,
        floors: Vec<(StockName, Version)>,
    },
    /// The catalog stops.
    Closing,
}

impl Link {
    /// What happens next. Nothing is lost where that is not awaited to its end.
    async fn next(&mut self) -> Result<Happened, Status> {
        match self {
            Self::None => pending().await,
            Self::Opening(opening) => {
                let (stream, opened) = opening.await?;
                Ok(Happened::Opened(stream, opened))
            }
            Self::Open(stream) => match stream.next().await? {
                Some(Event::Opened(_)) => {
                    Err(Status::internal("the catalog opened the session twice"))
                }
                Some(Event::Renewed(renewed)) => Ok(Happened::Renewed {
                    nonce: renewed.nonce,
                    wants_report: renewed.report_wanted,
                }),
                Some(Event::Invalidate(Invalidate { round, floors })) => {
                    let floors = floors.into_iter().map(|floor| {
                        let name = StockName::new(&floor.name).map_err(Malformed)?;
                        Ok((name, Version(floor.version)))
                    });
                    let floors = floors.collect::<Result<_, Malformed>>()?;
                    Ok(Happened::Invalidated { round, floors })
                }
                Some(Event::Closing(_)) => Ok(Happened::Closing),
                None => Err(Status::unavailable("the catalog ended the session")),
            },
        }
    }

    /// Has a request sent.
    ///
    /// # Errors
    /// Where the stream is broken, or the catalog takes nothing: then there are more requests
    /// waiting than one that lives leaves waiting.
    fn send(&self, request: Request) -> Result<(), Status> {
        match self {
            Self::Open(stream) => send(&stream.requests, request),
            Self::None | Self::Opening(_) => Ok(()),
        }
    }
}

/// Opens a session.
async fn open(
    mut catalog: CatalogClient<Channel>,
    gateway: String,
    journal: Arc<OwnJournal>,
) -> Result<(Box<Stream>, Opened), Status> {
    let (requests, queue) = mpsc::channel(REQUESTS_QUEUED_MAX);
    send(
        &requests,
        Request::Open(Open {
            gateway,
            journal: journal.to_wire(),
        }),
    )?;
    let events = catalog.session(ReceiverStream::new(queue)).await?;
    let mut stream = Box::new(Stream {
        requests,
        events: events.into_inner(),
    });
    let Some(Event::Opened(opened)) = stream.next().await? else {
        return Err(Status::internal("the catalog's first event was not Opened"));
    };
    let named = identity::named(&opened.journal)?;
    let heard = journal.note_catalog(named);
    heard.map_err(|other| Status::new(OTHER_JOURNAL, other.to_string()))?;
    let session = SessionId::new(opened.session)
        .ok_or_else(|| Status::internal("the catalog's session has no id"))?;
    let lease = Duration::from_millis(opened.lease_ms.into());
    Ok((stream, Opened { session, lease }))
}

/// A session's requests and events.
struct Stream {
    requests: mpsc::Sender<SessionRequest>,
    events: Streaming<SessionEvent>,
}

impl Stream {
    /// The next event; `None` at the end of the stream. Events of a later protocol are passed over.
    async fn next(&mut self) -> Result<Option<Event>, Status> {
        loop {
            match self.events.message().await? {
                Some(SessionEvent { event: Some(event) }) => return Ok(Some(event)),
                Some(SessionEvent { event: None }) => {}
                None => return Ok(None),
            }
        }
    }

    /// Says that nothing more is served under the lease.
    async fn release(self) {
        let Self {
            requests,
            mut events,
        } = self;
        let released = async {
            send(&requests, Request::Release(Release {}))?;
            drop(requests);
            while events.message().await?.is_some() {}
            Ok::<_, Status>(())
        };
        // Without an answer the catalog waits for the lease to run out.
        let _ = timeout(RELEASE_TIME_MAX, released).await;
    }
}

fn send(requests: &mpsc::Sender<SessionRequest>, request: Request) -> Result<(), Status> {
    let request = Some(request);
    let sent = requests.try_send(SessionRequest { request });
    sent.map_err(|error| Status::unavailable(format!("nothing can be sent: {error}")))
}
