//! What a call's failure says: read off its status once, here.

use std::fmt;

use order_core::message::CallFailure;
use rpc::retry::{RetryClass, RetryStatus as _};
use tonic::{Code, Status};

/// What a call was to do: a code says something else of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    /// Look who leads.
    GetLeadership,
    /// Change something in an epoch: trade, replace the in-sync set, append.
    Change,
    /// Read rows.
    Read,
    /// Show a row that is missing.
    ReportMissing,
    /// Tell a catalog that has started what is here.
    Report,
}

/// A call that failed, and why in its callee's words.
#[derive(Debug)]
pub(crate) struct CallError {
    pub(crate) failure: CallFailure,
    status: Status,
}

impl CallError {
    /// The one table.
    pub(crate) fn of(call: Call, status: Status) -> Self {
        let failure = match (call, status.code()) {
            (Call::Change, Code::FailedPrecondition) => CallFailure::Fenced,
            (Call::Read, Code::OutOfRange) => CallFailure::Beyond,
            (Call::Read, Code::Aborted) => CallFailure::Differs,
            (Call::ReportMissing, Code::InvalidArgument) => CallFailure::NotMissing,
            _ => match RetryClass::of(&status) {
                RetryClass::Later => CallFailure::Failed,
                RetryClass::Elsewhere | RetryClass::Never => CallFailure::Refused,
            },
        };
        Self { failure, status }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.status.code(), self.status.message())
    }
}

/// What is logged of a call that is made again and again: a callee that refuses it is an error, once
/// for each reason. Silence may be over soon.
#[derive(Debug, Default)]
pub(crate) struct Complaint {
    /// Why it was last refused, unless it succeeded since.
    said: Option<String>,
}

impl Complaint {
    pub(crate) fn note<T>(&mut self, result: &Result<T, CallError>, what: &str) {
        match result {
            Ok(_) => self.said = None,
            Err(error) if self.is_new(error) => tracing::error!(%error, "{what}"),
            Err(error) => tracing::debug!(%error, "{what}"),
        }
    }

    fn is_new(&mut self, error: &CallError) -> bool {
        if error.failure != CallFailure::Refused {
            return false;
        }
        let why = Some(error.to_string());
        let is_new = self.said != why;
        self.said = why;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_read_by_what_was_asked_for_and_by_its_class() {
        use RetryClass::{Elsewhere, Later, Never};
        for (call, code, class, expected) in [
            (
                Call::Change,
                Code::FailedPrecondition,
                Never,
                CallFailure::Fenced,
            ),
            (
                Call::Change,
                Code::FailedPrecondition,
                Elsewhere,
                CallFailure::Fenced,
            ),
            (
                Call::Read,
                Code::FailedPrecondition,
                Never,
                CallFailure::Refused,
            ),
            (Call::Read, Code::OutOfRange, Never, CallFailure::Beyond),
            (
                Call::GetLeadership,
                Code::OutOfRange,
                Never,
                CallFailure::Refused,
            ),
            (Call::Read, Code::Aborted, Never, CallFailure::Differs),
            // An append's sender asks the catalog itself, and then makes another call.
            (Call::Change, Code::Aborted, Never, CallFailure::Refused),
            (
                Call::ReportMissing,
                Code::InvalidArgument,
                Never,
                CallFailure::NotMissing,
            ),
            (
                Call::Read,
                Code::InvalidArgument,
                Never,
                CallFailure::Refused,
            ),
            (
                Call::GetLeadership,
                Code::Unavailable,
                Later,
                CallFailure::Failed,
            ),
            (
                Call::Change,
                Code::ResourceExhausted,
                Later,
                CallFailure::Failed,
            ),
            (
                Call::GetLeadership,
                Code::PermissionDenied,
                Elsewhere,
                CallFailure::Refused,
            ),
        ] {
            let error = CallError::of(call, class.status(code, "why"));
            assert_eq!(error.failure, expected, "{call:?}: {code:?}, {class:?}");
        }
    }

    #[test]
    fn a_refusal_is_an_error_once_for_each_reason() {
        let mut complaint = Complaint::default();
        let refused = |why| {
            let status = RetryClass::Elsewhere.status(Code::PermissionDenied, why);
            CallError::of(Call::GetLeadership, status)
        };
        let away = CallError::of(Call::GetLeadership, Status::unavailable("away"));
        assert!(!complaint.is_new(&away));
        assert!(complaint.is_new(&refused("another's")));
        assert!(!complaint.is_new(&refused("another's")));
        assert!(!complaint.is_new(&away));
        assert!(!complaint.is_new(&refused("another's")));
        assert!(complaint.is_new(&refused("a third one's")));
        complaint.note(&Ok(()), "it answers");
        assert!(complaint.is_new(&refused("a third one's")));
    }
}
