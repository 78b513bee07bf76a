//! The connections of operators: served as those of clients are and within the same bounds, by a router in the place of the
//! policy, and on a runtime of all in the place of a worker's.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use daemon::tasks::{self, Task};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_util::either::Either;

use super::finish::{Finish, Watcher};
use super::progress::Progress;
use super::routed::Routed;
use super::serving::{Client, Served, encrypted, http_server, prepare, watched};
use super::slot::{WorkerSlot, WorkerStats};
use super::unsent::UnderWay;
use crate::config::{Bounds, HEAD_BYTES_MAX, SEND_TIME_MAX};

/// What one of them may take. There are few, so none is kept for long that asks for nothing.
fn bounds() -> Bounds {
    Bounds {
        idle_time_max: SEND_TIME_MAX,
        ..Bounds::default()
    }
}

/// What they have in common.
pub(crate) struct OperatorConnections {
    /// Whose clock all of them go by.
    stats: Arc<[WorkerStats]>,
    finish: Finish,
    _clock: Task<()>,
}

impl OperatorConnections {
    /// Of nobody yet.
    pub(crate) fn new() -> Self {
        let stats: Arc<[WorkerStats]> = [WorkerStats::default()].into();
        let clock = Arc::clone(&stats);
        Self {
            stats,
            finish: Finish::new(),
            _clock: tasks::spawn("operators' clock", async move {
                clock[0].run_clock().await;
            }),
        }
    }

    /// One that has come from there.
    pub(crate) fn entering(&self, address: IpAddr) -> OperatorConnection {
        OperatorConnection {
            address,
            slot: WorkerSlot::at(&self.stats, 0),
            finish: self.finish.watcher(),
        }
    }

    /// Tells all that they are to finish, and waits until they have ended.
    pub(crate) async fn shutdown(self) {
        self.finish.shutdown().await;
    }
}

/// One of them.
pub(crate) struct OperatorConnection {
    address: IpAddr,
    slot: WorkerSlot,
    finish: Watcher,
}

impl OperatorConnection {
    /// Sets its socket up, and agrees with it on how that is encrypted, where it is to be; with what it has shown then.
    ///
    /// # Errors
    /// Where it breaks off, takes too long, or all are to finish.
    pub(crate) async fn agreed(
        &self,
        stream: TcpStream,
        tls: Option<&tls::Server>,
    ) -> io::Result<(tls::Stream, tls::Chain)> {
        prepare(&stream, &bounds());
        match tls {
            None => Ok((Either::Left(stream), Arc::from([]))),
            Some(tls) => encrypted(tls, stream, &self.finish, || SEND_TIME_MAX).await,
        }
    }

    /// Serves it to its end. `peer` goes with each of its requests.
    pub(crate) async fn serve<P>(self, stream: tls::Stream, router: Router, peer: P)
    where
        P: Clone + Send + Sync + 'static,
    {
        let Self {
            address,
            slot,
            finish,
        } = self;
        let mut server = http_server(&bounds());
        // The router looks at no head's size, so what is beyond it gets a bare 431.
        server.http2().max_header_list_size(HEAD_BYTES_MAX as u32);
        let progress = Arc::new(Progress::begin(slot));
        let socket = watched(stream, &progress, None);
        let router = TowerToHyperService::new(router);
        let service = service_fn({
            let progress = Arc::clone(&progress);
            move |mut request: http::Request<Incoming>| {
                let under_way = UnderWay::begin(request.version(), &progress);
                request.extensions_mut().insert(peer.clone());
                let answering = router.call(request);
                async move {
                    let response = answering.await?;
                    Ok::<_, Infallible>(response.map(|body| Routed::new(body, under_way)))
                }
            }
        });
        let http = server.serve_connection(socket, service).into_owned();
        let served = Served::new(Box::pin(http), progress, finish);
        served.run(Connected(address)).await;
    }
}

/// An operator that is connected.
struct Connected(IpAddr);

impl Client for Connected {
    fn address(&self) -> IpAddr {
        self.0
    }

    fn bounds(&self) -> Bounds {
        bounds()
    }

    /// What it has shown is looked at with each of its requests.
    fn is_served(&mut self, _: Instant) -> bool {
        true
    }

    fn say_last(&self) {}
}
