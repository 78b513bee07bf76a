//! How many files and connections this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Raises the limit to what the system allows: the usual soft limit of 1024 is far below the
/// connections that a gateway serves.
pub fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => info!(files = ?raised.current, "open files at most"),
        Err(error) => {
            warn!(%error, files = ?limit.current, "the limit of open files is not raised")
        }
    }
}
