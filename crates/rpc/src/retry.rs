//! How the class of a failure travels: see [`RetryClass`].
//!
//! A callee's error carries its class, which its status takes along. A failure on the way, and a
//! status that names no class, have the one that [`RetryStatus::of`] gives them. Callers ask for the
//! class and for nothing else.

use std::error::Error as _;

pub use domain::RetryClass;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata of a status: the class of its failure.
const KEY: &str = "retry";

/// A class as gRPC statuses carry it.
pub trait RetryStatus: Sized {
    /// Of a call that failed.
    fn of(status: &Status) -> Self;

    /// A callee's error of this class, as callers get it.
    fn status(self, code: Code, message: impl Into<String>) -> Status;
}

impl RetryStatus for RetryClass {
    fn of(status: &Status) -> Self {
        let named = status.metadata().get(KEY);
        let named = named.and_then(|name| class_named(name.as_bytes()));
        named.unwrap_or_else(|| class_of_unnamed(status))
    }

    fn status(self, code: Code, message: impl Into<String>) -> Status {
        let mut status = Status::new(code, message);
        let name = MetadataValue::from_static(name(self));
        status.metadata_mut().insert(KEY, name);
        status
    }
}

fn class_of_unnamed(status: &Status) -> RetryClass {
    // Only a failure on the way has a source: a callee's does not cross the wire.
    if status.source().is_some() {
        return RetryClass::Later;
    }
    match status.code() {
        Code::Unavailable
        | Code::Aborted
        | Code::Cancelled
        | Code::DeadlineExceeded
        | Code::Unknown => RetryClass::Later,
        Code::DataLoss | Code::PermissionDenied => RetryClass::Elsewhere,
        _ => RetryClass::Never,
    }
}

const fn name(class: RetryClass) -> &'static str {
    match class {
        RetryClass::Later => "later",
        RetryClass::Elsewhere => "elsewhere",
        RetryClass::Never => "never",
    }
}

fn class_named(named: &[u8]) -> Option<RetryClass> {
    let classes = [RetryClass::Later, RetryClass::Elsewhere, RetryClass::Never];
    classes
        .into_iter()
        .find(|class| name(*class).as_bytes() == named)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use RetryClass::{Elsewhere, Later, Never};

    #[test]
    fn a_status_that_names_no_class_has_that_of_its_code() {
        let of_transport = Status::from_error(Box::new(io::Error::from(io::ErrorKind::BrokenPipe)));
        for (status, expected) in [
            (of_transport, Later),
            (Status::unavailable("this replica does not lead"), Later),
            (Status::aborted("overtaken"), Later),
            (Status::data_loss("a row is damaged"), Elsewhere),
            (Status::permission_denied("another journal's"), Elsewhere),
            (Status::invalid_argument("no such side"), Never),
            (Status::unimplemented("no such method"), Never),
            (Status::internal("a refusal that is not known here"), Never),
            (Status::resource_exhausted("too many stocks to list"), Never),
        ] {
            assert_eq!(RetryClass::of(&status), expected, "{status}");
        }
    }

    #[test]
    fn what_a_callee_says_of_its_error_counts_more_than_the_code() {
        for class in [Later, Elsewhere, Never] {
            for code in [Code::Unavailable, Code::DataLoss, Code::InvalidArgument] {
                let sent = class.status(code, "why");
                assert_eq!((sent.code(), sent.message()), (code, "why"));
                let headers = sent.into_http::<()>().into_parts().0.headers;
                let received = Status::from_header_map(&headers).unwrap();
                assert_eq!(RetryClass::of(&received), class, "{code}");
            }
        }
        let mut of_later_release = Status::unavailable("why");
        let metadata = of_later_release.metadata_mut();
        metadata.insert(KEY, MetadataValue::from_static("on-sundays"));
        assert_eq!(RetryClass::of(&of_later_release), Later);
    }
}
