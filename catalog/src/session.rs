//! A gateway's session: one stream each way, from its Open to its Release or its end.

use std::sync::Arc;
use std::time::Duration;

use domain::time::BootTime;
use domain::{JournalId, SessionId};
use rpc::clients::{Client, PerClient};
use rpc::listen::{CallUnderWay, client_of, named_client_of, release_of};
use rpc::release::Release;
use tls::Principal;
use tokio::sync::OwnedSemaphorePermit;
use tonic::{Request as Call, Status, Streaming};
use wire::catalog::v1::session_request::Request;
use wire::catalog::v1::{SessionEvent, SessionRequest, session_event};
use wire::identity;

use crate::error::RequestError;
use crate::gateways::{Gateways, Known};
use crate::shared::{Event, Events, Shared};
use crate::writer::Writer;
use catalog_core::{Floor, Invalidation, Round, SessionExpired};

/// What all sessions share.
#[derive(Debug)]
pub struct Sessions {
    pub shared: Arc<Shared>,
    pub writer: Writer,
    /// As gateways count it.
    pub lease: Duration,
    /// As the catalog counts it. Also the longest silence on a session's stream.
    pub lease_max: Duration,
    /// No lease outlives the writer's own, so whoever takes over has none to wait for.
    pub is_nested: bool,
    /// Of whose stocks the sessions are.
    pub journal: JournalId,
    /// How many each client may have.
    pub per_client: PerClient,
    /// And how many whoever has proven to be the same, from all networks.
    pub per_principal: PerClient<Principal>,
    /// Those that have one.
    pub gateways: Gateways,
}

impl Sessions {
    /// Serves one session until its stream ends, it is released, or it is over.
    pub async fn serve(&self, mut call: Call<Streaming<SessionRequest>>, events: Events) {
        let (client, release) = (client_of(&call), release_of(&call));
        let named = named_client_of(&call);
        // Until it opens it does not keep its connection from being idle. From then on it is over
        // where it is silent.
        let unopened = CallUnderWay::of(&mut call).map(CallUnderWay::pause);
        let mut requests = call.into_inner();
        let first = self.next(&mut requests).await;
        drop(unopened);
        let by = By {
            client,
            named,
            release,
        };
        let (id, _place) = match self.open(first, by, &events).await {
            Ok(opened) => opened,
            Err(error) => {
                let _ = events.try_send(Event::Over(error)); // nobody may be left to care
                return;
            }
        };
        drop(events); // the shared's ends the stream
        if self.follow(id, requests).await == Ended::Unreleased {
            // It lives on, among its client's, until its lease is over.
            self.gateways.leaving(id);
            tokio::time::sleep(self.lease_max).await;
        }
        self.gateways.ended(id);
    }

    async fn follow(&self, id: SessionId, mut requests: Streaming<SessionRequest>) -> Ended {
        while let Some((request, received)) = self.next(&mut requests).await {
            match self.handle(id, request, received) {
                Ok(Proceed::On) => {}
                Ok(Proceed::Released) => {
                    tracing::info!(session = %id, "a session was released");
                    return Ended::Released;
                }
                Err(error) => {
                    tracing::warn!(session = %id, %error, "a session failed");
                    self.shared.fail(id, error);
                    return Ended::Unreleased;
                }
            }
        }
        tracing::debug!(session = %id, "a session's stream ended");
        self.shared.disconnect(id);
        Ended::Unreleased
    }

    async fn open(
        &self,
        first: Option<(Request, BootTime)>,
        by: By,
        events: &Events,
    ) -> Result<(SessionId, Place), RequestError> {
        let Some((Request::Open(open), received)) = first else {
            return Err(RequestError::Unopened);
        };
        identity::check_if_named(&open.journal, self.journal)?;
        let gateway = by.listening_on(&open.gateway);
        let By {
            client, release, ..
        } = by;
        let proven = client.principal().cloned();
        // The bazaar may have been raised since the call began.
        if !release.speaks().contains(self.shared.protocol()) {
            return Err(RequestError::GatewayOfBefore {
                gateway,
                wanted: self.shared.protocol(),
                release,
            });
        }
        let place = self.place(&client)?;
        if !self.is_nested {
            self.writer.lend_sessions(self.lease_max).await?;
        }
        let id = random_id()?;
        self.shared
            .open(id, client, events.clone(), received, BootTime::now())?;
        tracing::info!(session = %id, gateway, %release, "a session opened");
        let known = Known::new(gateway, release, proven, received);
        self.gateways.opened(id, known);
        Ok((id, place))
    }

    fn place(&self, client: &Client) -> Result<Place, RequestError> {
        let of_client = self.per_client.of(client).try_acquire_owned();
        let of_client = of_client.map_err(|_| RequestError::TooManySessions)?;
        let Some(principal) = client.principal() else {
            return Ok((of_client, None));
        };
        let of_principal = self.per_principal.of(principal).try_acquire_owned();
        let too_many = |_| RequestError::TooManySessionsOf(principal.clone());
        Ok((of_client, Some(of_principal.map_err(too_many)?)))
    }

    /// The next request, with the time of its receipt. `None` at the stream's end, and where
    /// nothing came for so long that the session is over anyway.
    async fn next(&self, requests: &mut Streaming<SessionRequest>) -> Option<(Request, BootTime)> {
        let message = tokio::time::timeout(self.lease_max, requests.message()).await;
        let received = BootTime::now();
        let request = message.ok()?.ok()??.request?;
        Some((request, received))
    }

    fn handle(
        &self,
        id: SessionId,
        request: Request,
        received: BootTime,
    ) -> Result<Proceed, RequestError> {
        match request {
            Request::Open(_) => return Err(RequestError::Unopened),
            Request::Renew(renew) => self.shared.renew(id, renew.nonce, received)?,
            Request::Acknowledge(acknowledge) => {
                self.shared
                    .acknowledge(id, Round(acknowledge.round), received)?;
            }
            // Who lets the lease run out keeps no place by reports alone.
            Request::Report(_) if !self.shared.is_open(id) => return Err(SessionExpired.into()),
            Request::Report(report) => self.gateways.reported(id, report.json, received),
            Request::Release(_) => {
                self.shared.release(id, received);
                return Ok(Proceed::Released);
            }
        }
        Ok(Proceed::On)
    }
}

/// A session's place among its client's, and among those of whoever that has proven to be.
type Place = (OwnedSemaphorePermit, Option<OwnedSemaphorePermit>);

/// Whose a session is.
struct By {
    client: Client,
    /// Who the client has proven to be, and its address.
    named: Option<String>,
    release: Release,
}

impl By {
    /// The gateway, for people. Many listen on one address, such as `0.0.0.0:8080`, each on its machine.
    fn listening_on(&self, address: &str) -> String {
        let address = &address[..address.floor_char_boundary(ADDRESS_BYTES_MAX)];
        let address = address.escape_debug();
        match &self.named {
            Some(named) => format!("{address} ({named})"),
            None => address.to_string(),
        }
    }
}

/// What is kept of what a gateway calls itself.
const ADDRESS_BYTES_MAX: usize = 256;

enum Proceed {
    On,
    Released,
}

#[derive(PartialEq, Eq)]
enum Ended {
    Released,
    /// The gateway may go on serving under it for as long as its lease.
    Unreleased,
}

/// Random, so that it is never used twice, not even across restarts.
fn random_id() -> Result<SessionId, RequestError> {
    let id = getrandom::u64().map_err(RequestError::Random)?;
    Ok(SessionId::new(id | 1).expect("an odd number is not 0"))
}

/// An event as it goes over the wire.
pub fn to_wire(event: Event, sessions: &Sessions) -> Result<SessionEvent, Status> {
    let event = match event {
        Event::Opened(id) => session_event::Event::Opened(session_event::Opened {
            session: id.get(),
            lease_ms: u32::try_from(sessions.lease.as_millis()).expect("leases are bounded"),
            journal: sessions.journal.as_bytes().to_vec(),
        }),
        Event::Renewed(nonce) => session_event::Event::Renewed(session_event::Renewed {
            nonce,
            report_wanted: sessions.gateways.are_wanted(BootTime::now()),
        }),
        Event::Invalidation(invalidation) => {
            session_event::Event::Invalidate(invalidate(invalidation))
        }
        Event::Closing => session_event::Event::Closing(session_event::Closing {}),
        Event::Over(error) => return Err(error.into()),
    };
    Ok(SessionEvent { event: Some(event) })
}

fn invalidate(invalidation: Invalidation) -> session_event::Invalidate {
    let floor = |floor: Floor| session_event::Floor {
        name: floor.name.as_str().into(),
        version: floor.version.0,
    };
    let floors = invalidation.floors.into_iter().map(floor).collect();
    session_event::Invalidate {
        round: invalidation.round.0,
        floors,
    }
}
