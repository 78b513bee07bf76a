//! How many files and connections this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Raises the limit to what the system allows: the usual soft limit of 1024 is far below the
/// connections that a gateway serves. To be called before anybody asks how many there may be.
pub fn raise_limit() {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    let limit = |files: Option<u64>| files.map_or("any number".to_owned(), |n| n.to_string());
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => info!(files = %limit(raised.current), "open files at most"),
        Err(error) => {
            warn!(%error, files = %limit(before.current), "the limit of open files is not raised")
        }
    }
}
