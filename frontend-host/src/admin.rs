//! The listener for operators.
//!
//! - `connections`: how many there may be, served as those of clients are;
//! - `access`: who may use it, by which [`Token`] or certificate;
//! - `refusal`: all errors, and their form;
//! - `answers`: how a component comes in, and the form of errors that others have made;
//! - `status`: what the gateway and the services behind it are doing;
//! - `metrics`: the same in numbers, for Prometheus;
//! - `sent`: what operators send with a change of the policy;
//! - `rollout`: how a version is rolled out by a plan;
//! - `cached`: which entries the cache keeps;
//! - `stocks`: what is traded, and changes of that;
//! - `protocol`: which version of it the bazaar is at, and raising it;
//! - `policy`: the policy's way into service, what a candidate would do, and recordings;
//! - `page`: what the console's page is made of;
//! - `console`: what it shows.

mod connections;
mod page;
mod access;
pub(crate) mod token;
mod refusal;
mod answers;
mod status;
mod metrics;
mod sent;
mod policy;
mod rollout;
mod cached;
mod stocks;
mod protocol;
pub mod console;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::http::Uri;
use axum::middleware;
use axum::routing::{get, patch, post, put};
use daemon::tasks;
use rpc::failover::Endpoints;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::handler::Gateway;
use crate::server::clients::Clients;

pub use self::metrics::METRICS;
pub use access::{KnownBy, Operators};
pub use console::Console;
use frontend_policy::Versions;
pub use refusal::MAY_BE_DONE;
use refusal::Refusal;
pub use token::{Token, TokenError, TokenFileError, TokenSource};

/// What the admin API works on.
pub struct Admin {
    pub gateway: Arc<Gateway>,
    pub clients: Arc<Clients>,
    /// Whose gateway it is, where services prove who they are.
    pub cluster: Option<tls::Cluster>,
    /// Where the catalogs are, for `GET /status`.
    pub catalogs: Endpoints,
    /// Who may use it, but for `GET /healthz` and `GET /readyz`.
    pub operators: Operators,
    /// What operators are served over, if not in the clear.
    pub tls: Option<tls::Server>,
    /// Whether the listener can be reached from this machine only.
    pub is_local: bool,
    /// What the page for operators needs.
    pub console: Console,
    /// Whether what is still under way is given up.
    pub stopped: watch::Receiver<bool>,
}

/// Accepts operators until `leaving`, serves the admin API until `shutdown`, then lets requests finish for a bounded time.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    leaving: impl Future<Output = ()> + Send + 'static,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let tls = admin.tls.clone();
    let admin = Arc::new(admin);
    // End with this function.
    let _watching = tasks::spawn("console", console::keep_watching(Arc::clone(&admin)));
    let _reporting = tasks::spawn("reports", console::keep_reporting(Arc::clone(&admin)));
    let page = page::FILES.into_iter();
    let page = page.fold(Router::new(), |router, asset| {
        router.route(asset.path, get(move || async move { asset.response() }))
    });
    let router = page
        .route("/console/events", get(console::follow))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(status::ready))
        .route("/status", get(status::status))
        .route("/metrics", get(metrics::metrics))
        .route("/policy", get(policy::show).put(policy::push))
        .route(
            "/policy/candidate",
            put(policy::try_out).delete(policy::drop_candidate),
        )
        .route("/policy/configuration", put(policy::configure))
        .route("/policy/changes", get(policy::changes))
        .route("/policy/promote", post(policy::promote))
        .route("/policy/activate", post(policy::activate_kept))
        .route("/policy/rollback", post(policy::roll_back))
        .route("/policy/rollout", get(rollout::show).put(rollout::begin))
        .route(
            "/policy/rollout/pause",
            post(|admin, query, reason| {
                rollout::steer(admin, query, reason, Versions::pause_rollout)
            }),
        )
        .route(
            "/policy/rollout/resume",
            post(|admin, query, reason| {
                rollout::steer(admin, query, reason, Versions::resume_rollout)
            }),
        )
        .route(
            "/policy/rollout/skip",
            post(|admin, query, reason| rollout::steer(admin, query, reason, Versions::skip_step)),
        )
        .route("/policy/differences", get(policy::differences))
        .route("/cache", get(cached::show))
        .route("/stocks", get(stocks::list).post(stocks::add))
        .route(
            "/stocks/{name}",
            patch(stocks::change).delete(stocks::delist),
        )
        .route("/protocol", get(protocol::show))
        .route("/protocol/raise", post(protocol::raise))
        // Not `GET`, which any page can have a browser send.
        .route("/policy/recording", post(policy::record))
        .fallback(|uri: Uri| async move { Refusal::NoSuchPath(uri.path().to_owned()) })
        .method_not_allowed_fallback(|| async { Refusal::MethodNotAllowed })
        .layer(middleware::from_fn_with_state(
            Arc::clone(&admin),
            access::authorize,
        ))
        .layer(middleware::map_response(answers::in_json))
        .with_state(admin);
    connections::serve((listener, tls), router, leaving, shutdown).await;
}
