//! Who may call what, where callers prove who they are.

use std::fmt;

use tls::{Principal, Role};
use tonic::{Code, Status};

use crate::retry::{RetryClass, RetryStatus as _};

/// How a service is, and what its protos say: whoever has proven who they are may ask. Method by method, as in [`Access`]:
/// one that is added to these services is nobody's until it is here.
const OF_EVERY_SERVICE: [&str; 4] = [
    "/grpc.health.v1.Health/Check",
    "/grpc.health.v1.Health/Watch",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/monitor.v1.Monitor/GetFigures",
];

/// Which roles may call each method of a service: `("/catalog.v1.Catalog/Elect", &[Role::Gateway])`. What is not
/// among them nobody may call.
#[derive(Clone, Copy)]
pub struct Access(pub &'static [(&'static str, &'static [Role])]);

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().copied()).finish()
    }
}

impl Access {
    /// Whether a caller may call a method, by its path.
    ///
    /// # Errors
    /// `PERMISSION_DENIED` where it may not.
    pub fn check(self, path: &str, caller: &Principal) -> Result<(), Status> {
        if is_of_every_service(path) {
            return Ok(());
        }
        let known = self.0.iter().find(|(method, _)| *method == path);
        match known {
            Some((_, roles)) if roles.contains(&caller.role()) => Ok(()),
            Some(_) => Err(denied(format!("{caller} may not call {path}"))),
            None => Err(denied(format!("nobody may call {}", path.escape_debug()))),
        }
    }
}

/// Whether a path is of what every service has.
pub(crate) fn is_of_every_service(path: &str) -> bool {
    OF_EVERY_SERVICE.contains(&path)
}

/// The caller is not allowed what it asks for, and will not be.
pub fn denied(why: impl Into<String>) -> Status {
    RetryClass::Never.status(Code::PermissionDenied, why)
}
