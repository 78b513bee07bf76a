//! What the admin API answers with an error, and how: the one table to HTTP.

use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Json, Response};
use frontend_policy::limits::COMPONENT_BYTES_MAX;
use frontend_policy::replay::RecordError;
use frontend_policy::rollout::{NoCondition, PLAN_BYTES_MAX, PlanError};
use frontend_policy::{Rejection, SwapError};
use serde_json::json;
use std::borrow::Cow;

/// What a 401 asks for.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"bazaar\"");

/// Seconds after which what is busy may not be any more.
const SOON: HeaderValue = HeaderValue::from_static("1");

/// How a refusal ends of what may have been done all the same.
pub const MAY_BE_DONE: &str = "it may have been done: send it again under the same idempotency key";

/// Why an operator does not get what was asked for. Displays as the message.
///
/// Apart from the handler's refusals: these are answered by axum, in the admin API's form, and name
/// what only operators may know.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("no such path: {0}")]
    NoSuchPath(String),
    #[error("method not allowed")]
    MethodNotAllowed,
    #[error("web pages may not use the admin API")]
    ForeignPage,
    #[error("send one `Host` header, and no more")]
    NoHost,
    #[error("call the admin API by a loopback address or `localhost`")]
    OtherHost,
    #[error("send the admin token: `Authorization: Bearer …`{}", if *or_certificate { ", or show an operator's certificate" } else { "" })]
    NoToken { or_certificate: bool },
    #[error("show a certificate of the authority that --tls-client-ca names")]
    NoCertificate,
    #[error("whoever this is may only read")]
    MayOnlyRead,
    #[error("a component has at most {COMPONENT_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error(
        "?config= must be how many bytes of the body are a configuration, which goes before its component"
    )]
    NoConfig,
    #[error("the body is not complete")]
    BodyIncomplete,
    #[error("the body took too long to arrive")]
    BodyTooLate,
    /// Why no trade could be served.
    #[error("{0}")]
    NotReady(Cow<'static, str>),
    #[error(
        "say how to try it, and on how much: ?shadow=0.1 or ?canary=0.05, more than 0 and at most 1"
    )]
    NoTrial,
    #[error(
        "?plan= must be how many bytes of the body are the plan, which goes before everything else: at most {PLAN_BYTES_MAX}"
    )]
    NoPlan,
    #[error("?step= must be the number of a step, counted from 1")]
    NoStep,
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error(transparent)]
    Audience(#[from] NoCondition),
    #[error("seconds must be from 1 to {max}")]
    NoSeconds { max: u64 },
    #[error("limit must be from 1 to {max}")]
    NoLimit { max: usize },
    #[error(transparent)]
    Recording(#[from] RecordError),
    #[error("`{0}` is not the name of a header")]
    NoHeader(String),
    /// There is nothing to be compared with the active version.
    #[error("{}", SwapError::NoCandidate)]
    NoDifferences,
    #[error(transparent)]
    Swap(#[from] SwapError),
    /// A change of a stock that makes no sense.
    #[error("{0}")]
    NoStockChange(String),
    #[error("stock not found")]
    StockNotFound,
    #[error("a stock of that name is listed already")]
    StockExists,
    #[error("more shares than there can be: {max} at most", max = domain::Quantity::MAX)]
    TooManyShares,
    #[error("no more than {max} stocks can be listed", max = domain::refusal::STOCKS_MAX)]
    TooManyStocks,
    #[error("the idempotency key was used for something else")]
    KeyConflict,
    #[error("{0}; {MAY_BE_DONE}")]
    StockUnavailable(&'static str),
    /// Not every service could go along.
    #[error("the protocol was not raised: {0}")]
    NotRaised(String),
    #[error("the gateway stops before the policy is checked; send it again")]
    Stopping,
    #[error("the check of the policy failed; see the gateway's log")]
    CheckFailed,
}

impl Refusal {
    /// HTTP's word for it.
    fn status(&self) -> StatusCode {
        match self {
            Self::NoHost
            | Self::BodyIncomplete
            | Self::NoConfig
            | Self::NoTrial
            | Self::NoPlan
            | Self::NoStep
            | Self::Plan(_)
            | Self::Audience(_)
            | Self::NoSeconds { .. }
            | Self::NoLimit { .. }
            | Self::NoHeader(_)
            | Self::NoStockChange(_)
            | Self::Recording(RecordError::NotAskedFor(_)) => StatusCode::BAD_REQUEST,
            Self::NoToken { .. } => StatusCode::UNAUTHORIZED,
            Self::ForeignPage | Self::OtherHost | Self::MayOnlyRead | Self::NoCertificate => {
                StatusCode::FORBIDDEN
            }
            Self::NoSuchPath(_)
            | Self::NoDifferences
            | Self::StockNotFound
            | Self::Swap(SwapError::NotKept(_)) => StatusCode::NOT_FOUND,
            Self::StockExists
            | Self::TooManyShares
            | Self::TooManyStocks
            | Self::KeyConflict
            | Self::NotRaised(_) => StatusCode::CONFLICT,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLate => StatusCode::REQUEST_TIMEOUT,
            Self::Recording(RecordError::Busy)
            | Self::Swap(
                SwapError::NothingToRollBackTo
                | SwapError::NoCandidate
                | SwapError::NoRollout
                | SwapError::OtherStep { .. }
                | SwapError::Occupied { .. }
                | SwapError::OtherCandidate { .. }
                | SwapError::OfAnother { .. }
                | SwapError::OtherActive
                | SwapError::Closed
                | SwapError::NotRaised { .. }
                | SwapError::NotActive { .. }
                | SwapError::OtherTarget { .. },
            ) => StatusCode::CONFLICT,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Swap(SwapError::Rejected(Rejection::Busy)) => StatusCode::TOO_MANY_REQUESTS,
            Self::Swap(SwapError::Rejected(Rejection::NotChecked(_))) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Swap(SwapError::Rejected(_)) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::CheckFailed => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotReady(_)
            | Self::StockUnavailable(_)
            | Self::Stopping
            | Self::Swap(
                SwapError::NoThread(_) | SwapError::HandingOver | SwapError::ProtocolUnheard { .. },
            ) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Swap(SwapError::NotSaved(_)) => StatusCode::INSUFFICIENT_STORAGE,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut error = json!({ "code": status.as_u16(), "message": self.to_string() });
        if let Self::Swap(SwapError::Rejected(Rejection::Unfit(problems))) = &self {
            let problems = problems.iter().map(ToString::to_string);
            error["problems"] = problems.collect();
        }
        let mut response = in_form(status, error);
        if matches!(self, Self::NoToken { .. }) {
            response.headers_mut().insert(WWW_AUTHENTICATE, CHALLENGE);
        }
        let passes_soon = matches!(
            self,
            Self::StockUnavailable(_)
                | Self::Swap(SwapError::HandingOver | SwapError::ProtocolUnheard { .. })
        );
        if status == StatusCode::TOO_MANY_REQUESTS || passes_soon {
            response.headers_mut().insert(RETRY_AFTER, SOON);
        }
        response
    }
}

/// An error that others have made, as the router does of a query that it cannot read.
pub(super) fn of_others(status: StatusCode, message: &str) -> Response {
    in_form(
        status,
        json!({ "code": status.as_u16(), "message": message }),
    )
}

fn in_form(status: StatusCode, error: serde_json::Value) -> Response {
    (status, Json(json!({ "error": error }))).into_response()
}
