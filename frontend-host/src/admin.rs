//! The listener for operators.
//!
//! - `access`: who may use it;
//! - `status`: what the gateway and the services behind it are doing;
//! - `metrics`: the same in numbers, for Prometheus;
//! - `policy`: the policy's way into service, what a candidate would do, and recordings.

mod access;
mod status;
mod metrics;
mod policy;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, Uri};
use axum::middleware;
use axum::response::{IntoResponse as _, Json, Response};
use axum::routing::{get, post, put};
use serde_json::json;
use tokio::net::TcpListener;

use crate::gateway::Gateway;
use crate::policy::limits;
use crate::server::clients::Clients;

/// What the admin API works on.
pub struct Admin {
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// Its clients.
    pub clients: Arc<Clients>,
    /// The catalog's URL, for `GET /status`.
    pub catalog_url: String,
    /// Asked for on every request but `GET /healthz`, where set.
    pub token: Option<String>,
}

/// Serves the admin API until `shutdown`.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: TcpListener,
    admin: Admin,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let admin = Arc::new(admin);
    let guarded = Router::new()
        .route("/readyz", get(status::ready))
        .route("/status", get(status::status))
        .route("/metrics", get(metrics::metrics))
        .route("/policy", get(policy::show).put(policy::push))
        .route(
            "/policy/candidate",
            put(policy::try_out).delete(policy::drop_candidate),
        )
        .route("/policy/promote", post(policy::promote))
        .route("/policy/rollback", post(policy::roll_back))
        .route("/policy/differences", get(policy::differences))
        .route("/policy/recording", get(policy::record))
        .layer(DefaultBodyLimit::max(limits::COMPONENT_BYTES_MAX))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&admin),
            access::authorize,
        ));
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .merge(guarded)
        .fallback(|uri: Uri| async move {
            failed(
                StatusCode::NOT_FOUND,
                &format!("no such path: {}", uri.path()),
            )
        })
        .method_not_allowed_fallback(|| async {
            failed(StatusCode::METHOD_NOT_ALLOWED, "method not allowed")
        })
        .with_state(admin);
    axum::serve(listener, router)
        .with_graceful_shutdown(shutdown)
        .await
}

fn failed(status: StatusCode, message: &str) -> Response {
    let body = json!({ "error": { "code": status.as_u16(), "message": message } });
    (status, Json(body)).into_response()
}
