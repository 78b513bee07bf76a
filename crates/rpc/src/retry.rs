//! Whether a call that failed is worth another attempt.

use std::error::Error as _;

use tonic::{Code, Status};

/// Whether the failure may pass: nobody answered, or whoever did says that it cannot at the
/// moment. Anything else is the callee's answer, and it will be the same again.
pub fn may_pass(status: &Status) -> bool {
    // Only a failure on the way has a source: a callee's does not cross the wire.
    let is_of_transport = status.source().is_some();
    is_of_transport
        || matches!(
            status.code(),
            Code::Unavailable
                | Code::Aborted
                | Code::Cancelled
                | Code::DeadlineExceeded
                | Code::Unknown
        )
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_callee_that_is_away_may_come_back_and_one_that_refuses_will_again() {
        let of_transport = Status::from_error(Box::new(io::Error::from(io::ErrorKind::BrokenPipe)));
        for (status, passes) in [
            (of_transport, true),
            (Status::unavailable("this replica does not lead"), true),
            (Status::aborted("overtaken"), true),
            (Status::invalid_argument("no such side"), false),
            (Status::data_loss("a row is damaged"), false),
            (Status::unimplemented("no such method"), false),
            (Status::internal("a refusal that is not known here"), false),
            (Status::resource_exhausted("too many stocks to list"), false),
        ] {
            assert_eq!(may_pass(&status), passes, "{status}");
        }
    }
}
