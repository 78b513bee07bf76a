//! Whether a call that failed is worth another attempt: said once, where the failure is known.
//!
//! A callee's error carries its class, which its status takes along. A failure on the way, and a
//! status that names no class, have the one that [`RetryClass::of`] gives them. Callers ask for the
//! class and for nothing else.

use std::error::Error as _;

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Metadata of a status: the class of its failure.
const KEY: &str = "retry";

/// What may come of another attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// The same callee may answer later: it is away, busy, or not ready.
    Later,
    /// This callee will not answer, whenever it is asked, and another one may.
    Elsewhere,
    /// Nobody will: the request itself is what is wrong. That says nothing against the callee.
    Never,
}

impl RetryClass {
    /// Of a call that failed.
    pub fn of(status: &Status) -> Self {
        let named = status.metadata().get(KEY);
        named
            .and_then(|named| Self::named(named.as_bytes()))
            .unwrap_or_else(|| Self::of_unnamed(status))
    }

    fn of_unnamed(status: &Status) -> Self {
        // Only a failure on the way has a source: a callee's does not cross the wire.
        if status.source().is_some() {
            return Self::Later;
        }
        match status.code() {
            Code::Unavailable
            | Code::Aborted
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Unknown => Self::Later,
            Code::DataLoss | Code::PermissionDenied => Self::Elsewhere,
            _ => Self::Never,
        }
    }

    /// A callee's error of this class, as callers get it.
    pub fn status(self, code: Code, message: impl Into<String>) -> Status {
        let mut status = Status::new(code, message);
        let name = MetadataValue::from_static(self.name());
        status.metadata_mut().insert(KEY, name);
        status
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Later => "later",
            Self::Elsewhere => "elsewhere",
            Self::Never => "never",
        }
    }

    fn named(name: &[u8]) -> Option<Self> {
        let classes = [Self::Later, Self::Elsewhere, Self::Never];
        classes.into_iter().find(|it| it.name().as_bytes() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::RetryClass::{Elsewhere, Later, Never};
    use super::*;

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
