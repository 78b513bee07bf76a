//! What clients meet at a catalog's door: one that stands by says who is active, and answers nothing else.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use domain::time::BootTime;
use http::{Request, Response};
use rpc::listen::{MESSAGE_BYTES_MAX, Peer};
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service as TowerService;
use wire::catalog::v1::catalog_server::CatalogServer;

use crate::callers::Callers;
use crate::error::RequestError;
use crate::service::Service;

/// What whoever needs a catalog asks each that it does not follow as well.
const ASKS_WHO_LEADS: &str = "/catalog.v1.Catalog/GetLeadership";

/// The gRPC service of a catalog, from the start on. It becomes active once, and then to its end.
#[derive(Clone)]
pub struct Door {
    active: Arc<OnceLock<CatalogServer<Service>>>,
    /// Where the active one is reached, as far as this one knows.
    elsewhere: watch::Receiver<Option<String>>,
    callers: Callers,
}

impl Door {
    /// Of a catalog that stands by. `callers` is told who asks.
    pub fn new(elsewhere: watch::Receiver<Option<String>>, callers: Callers) -> Self {
        Self {
            active: Arc::default(),
            elsewhere,
            callers,
        }
    }

    /// From now on it is this one that is active.
    pub fn open(&self, service: Service) {
        let server = CatalogServer::new(service).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let opened = self.active.set(server);
        assert!(opened.is_ok(), "it becomes active once");
    }

    fn refusal(&self) -> Status {
        let active = self.elsewhere.borrow().clone();
        RequestError::Standby { active }.into()
    }
}

impl NamedService for Door {
    const NAME: &'static str = CatalogServer::<Service>::NAME;
}

impl TowerService<Request<Body>> for Door {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path() == ASKS_WHO_LEADS
            && let Some(peer) = request.extensions().get::<Peer>()
        {
            self.callers.note_peer(peer, BootTime::now());
        }
        match self.active.get() {
            Some(active) => active.clone().call(request),
            None => Box::pin(std::future::ready(Ok(self.refusal().into_http()))),
        }
    }
}
