//! Sessions with the catalog, as gateways have them, each of which holds all that is traded: every trade waits until
//! every one has let go of its stock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rpc::connect::Security;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::Channel;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::catalog::v1::session_event::Event;
use wire::catalog::v1::session_request::{Acknowledge, Open, Renew, Request};
use wire::catalog::v1::{GetStockRequest, SessionEvent, SessionRequest};

use super::load::HOT;
use super::{Curve, Plan};
use crate::error::Error;

/// How many there are, beside the gateway's own. With more, the machine that all of this runs on does not come round to
/// each in time.
const SESSIONS: [usize; 5] = [0, 1, 4, 16, 64];

/// Sessions on one connection: a catalog takes 64.
const ON_A_CONNECTION: usize = 32;

/// Connections that trade.
const TRADERS: u32 = 8;

/// Renewals in a lease, as a gateway has them.
const RENEWALS: u32 = 4;

/// How long a session waits before it reads a stock again that it may not keep, each time twice as long: at first it is just
/// being traded, and after that lent to nobody for a while.
const READ_PAUSE_MIN: Duration = Duration::from_millis(1);
const READ_PAUSE_MAX: Duration = Duration::from_millis(128);

/// How long it may take until all hold what they are to.
const PATIENCE: Duration = Duration::from_secs(30);

/// Trades while ever more sessions hold what is traded.
pub fn measure(plan: &Plan) -> Result<Curve, Error> {
    let mut curve = Curve::of("sessions that hold what is traded");
    for sessions in SESSIONS {
        let bazaar = plan.start(&format!("growth-{sessions}-sessions"), None)?;
        let address = bazaar.services()["catalog"].address;
        curve.step(sessions);
        let runtime = Runtime::new().map_err(Error::machine("threads for sessions"))?;
        let held = Arc::new(AtomicU64::new(0));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let ended = Arc::new(AtomicU64::new(0));
        let mut channel = None;
        for session in 0..sessions {
            if session % ON_A_CONNECTION == 0 {
                let _inside = runtime.enter();
                let lazy = rpc::connect::lazy(&format!("http://{address}"), &Security::NONE);
                channel = Some(lazy.expect("it is a URL"));
            }
            let (channel, held) = (channel.clone().expect("it was made"), Arc::clone(&held));
            let (acknowledged, ended) = (Arc::clone(&acknowledged), Arc::clone(&ended));
            runtime.spawn(async move {
                let held = hold(channel, &held, &acknowledged).await;
                eprintln!("a session ended: {held:?}");
                ended.fetch_add(1, Ordering::Relaxed);
            });
        }
        let all = (sessions * HOT.len()) as u64;
        let are_held = async {
            while held.load(Ordering::Relaxed) < all {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = runtime.block_on(async { timeout(PATIENCE, are_held).await });
        waited.map_err(|_| Error::Wrong {
            name: "the catalog".to_owned(),
            answer: format!("lent {} of {all}", held.load(Ordering::Relaxed)),
        })?;
        acknowledged.store(0, Ordering::Relaxed);
        let trades = bazaar.trade(&plan.load(TRADERS))?;
        let invalidations = acknowledged.load(Ordering::Relaxed) as f64 / plan.seconds as f64;
        let ended = ended.load(Ordering::Relaxed);
        if ended > 0 {
            return Err(Error::Wrong {
                name: "the catalog".to_owned(),
                answer: format!("ended {ended} of {sessions} sessions"),
            });
        }
        curve.add_figures("trades by 8 connections", &trades);
        curve.add("invalidations acknowledged", "per second", invalidations);
        curve.add_memory(&bazaar.memory());
        runtime.shutdown_background();
    }
    curve.notes.push(
        "All on one machine: the sessions take their share of its processors. Each reads a stock again, until it may keep \
         it, as soon as it has let go of it. It may not for a while where that is always recalled."
            .to_owned(),
    );
    Ok(curve)
}

/// A session that holds every stock that is traded, for as long as it can.
async fn hold(channel: Channel, held: &AtomicU64, acknowledged: &AtomicU64) -> Result<(), Status> {
    let mut catalog = CatalogClient::new(channel);
    let (send, requests) = mpsc::channel(64);
    let say = |request| SessionRequest {
        request: Some(request),
    };
    let open = Open {
        gateway: "bench".to_owned(),
        journal: Vec::new(),
    };
    let _ = send.send(say(Request::Open(open))).await;
    let mut events = catalog
        .session(ReceiverStream::new(requests))
        .await?
        .into_inner();
    let Some(SessionEvent {
        event: Some(Event::Opened(opened)),
    }) = events.message().await?
    else {
        return Err(Status::internal("no session was opened"));
    };
    for name in HOT {
        read(&mut catalog, name, opened.session).await?;
        held.fetch_add(1, Ordering::Relaxed);
    }
    let lease = Duration::from_millis(opened.lease_ms.into());
    let mut renewals = interval(lease / RENEWALS);
    let mut nonce = 0;
    loop {
        tokio::select! {
            event = events.message() => {
                let Some(SessionEvent { event: Some(event) }) = event? else {
                    return Ok(());
                };
                if let Event::Invalidate(invalidate) = event {
                    let round = invalidate.round;
                    let _ = send.send(say(Request::Acknowledge(Acknowledge { round }))).await;
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                    for floor in invalidate.floors {
                        let (mut catalog, session) = (catalog.clone(), opened.session);
                        tokio::spawn(async move { read(&mut catalog, &floor.name, session).await });
                    }
                }
            }
            _ = renewals.tick() => {
                nonce += 1;
                let _ = send.send(say(Request::Renew(Renew { nonce }))).await;
            }
        }
    }
}

/// Reads a stock until it may be kept.
async fn read(
    catalog: &mut CatalogClient<Channel>,
    name: &str,
    session: u64,
) -> Result<(), Status> {
    let mut pause = READ_PAUSE_MIN;
    loop {
        let request = GetStockRequest {
            name: name.to_owned(),
            session,
            journal: Vec::new(),
        };
        if catalog.get_stock(request).await?.into_inner().cacheable {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(READ_PAUSE_MAX);
    }
}
