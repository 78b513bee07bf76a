//! Whether a trade could be served.

use std::time::Duration;

use domain::time::BootTime;
use tokio::time::sleep;

use crate::handler::Gateway;

/// How often it is looked.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// Why none could be served now.
pub fn unready(gateway: &Gateway) -> Option<&'static str> {
    let session = gateway.cache.lease().current(BootTime::now());
    let current = *gateway.backend.replicas.leader().borrow();
    let journal = gateway.backend.replicas.journal();
    if gateway.stage.is_stopping() {
        Some("the gateway is stopping")
    } else if gateway.policy.current().closed.is_some() {
        Some("the policy that was active last cannot be started, and none may stand in for it")
    } else if session.is_none() {
        Some("no session with the catalog")
    } else if journal.is_some_and(|journal| journal.settled_at > BootTime::now()) {
        Some("the catalog waits until no gateway can hold what was lent before its start")
    } else if current.term.leader.is_none() {
        Some("no order replica was elected to lead")
    } else if !current.active {
        Some("the leader does not take trades yet")
    } else {
        None
    }
}

/// Waits until one could.
pub async fn wait_until_ready(gateway: &Gateway) {
    while unready(gateway).is_some() {
        sleep(LOOK_INTERVAL).await;
    }
}
