//! The console: one page that shows what all of a bazaar does, and why.
//!
//! The [page](super::page) holds nothing and is served to anybody. What it shows comes by a stream of events, which whoever may read
//! may follow, and what it changes goes the way of every change.
//!
//! - [`latest`]: what is known of something that may take long to say it;
//! - [`report`]: what this gateway says of itself;
//! - [`services`]: what the others say of themselves;
//! - [`watch`]: looks at all of it every second, while anybody follows;
//! - here: one stream.

mod latest;
mod report;
mod services;
mod watch;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use daemon::tasks;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::Admin;
use super::access::{Credential, MayChange};
use latest::Latest;
use report::PolicySaid;
pub(super) use report::keep_reporting;
pub use services::Service;
pub(super) use watch::keep_watching;
use watch::{Place, Watched};

/// How long whoever follows may take to take what there is: then the stream ends.
const TAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a stream lasts. Its page comes back, and is asked again who it is.
const STREAM_TIME_MAX: Duration = Duration::from_secs(300);

/// What consoles need besides the gateway.
pub struct Console {
    /// Whose session this gateway's reports go out in.
    pub reporting: Arc<crate::reporting::Reporting>,
    /// What this gateway calls itself: where clients connect, and this machine's name.
    pub name: String,
    pub host: String,
    /// Where operators connect.
    pub admin: String,
    /// The catalogs and the replicas.
    pub services: Vec<Service>,
    /// What was last said of this gateway's policy.
    pub policy: Latest<PolicySaid>,
    /// What is shown, and to how many.
    pub watched: Watched,
}

/// `GET /console/events`: server-sent events. `you` says once what the caller may do; `now` how everybody is, every second;
/// `policy` what gateways say of their policies, whenever that changes.
pub(super) async fn follow(
    State(admin): State<Arc<Admin>>,
    Extension(MayChange(may_change)): Extension<MayChange>,
    Extension(credential): Extension<Credential>,
) -> Response {
    let Some(place) = admin.console.watched.follow() else {
        let refused = super::refusal::of_others(
            StatusCode::SERVICE_UNAVAILABLE,
            "as many consoles are open as may be; close one",
        );
        return ([(RETRY_AFTER, "5")], refused).into_response();
    };
    let you = json!({
        "may_change": may_change,
        "knows_operators": !admin.operators.are_unknown(),
        "release": env!("CARGO_PKG_VERSION"),
        "own": admin.console.key(),
    });
    let (sender, stream) = mpsc::channel(1);
    tasks::spawn_for_caller(async move {
        let mut stopped = admin.stopped.clone();
        let feeding = feed(place, event("you", you.to_string().as_bytes()), sender);
        tokio::select! {
            () = feeding => {}
            () = sleep(STREAM_TIME_MAX) => {}
            () = credential.ends(&admin) => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    });
    let stream = ReceiverStream::new(stream).map(Ok::<_, Infallible>);
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, Body::from_stream(stream)).into_response()
}

/// Sends what is new, until whoever follows is gone or too slow. What was missed meanwhile is passed over.
async fn feed(mut place: Place, greeting: Bytes, sender: mpsc::Sender<Bytes>) {
    let mut next = greeting;
    loop {
        match timeout(TAKE_TIME_MAX, sender.send(next)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
        next = tokio::select! {
            next = place.next() => next,
            () = sender.closed() => return,
        };
    }
}

/// As the HTML standard has it, section 9.2: what is JSON has no line ends.
fn event(name: &str, json: &[u8]) -> Bytes {
    [b"event: ", name.as_bytes(), b"\ndata: ", json, b"\n\n"]
        .concat()
        .into()
}

impl Console {
    /// What tells gateways apart.
    fn key(&self) -> String {
        key(&self.name, &self.host)
    }
}

fn key(name: &str, host: &str) -> String {
    format!("{name} at {host}")
}

/// What this machine is called; it tells gateways apart that listen on all addresses of their machines.
pub fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}
