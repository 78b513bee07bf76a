//! A call to a backend on behalf of a request.

use tokio::time::Instant;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Response, Status};
use traces::{Kind, Parent, Span, TRACEPARENT_METADATA};

/// How long backends are asked for a request, and under what where it is traced.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    pub deadline: Instant,
    pub under: Option<&'a Parent>,
}

/// One that is not traced.
impl From<Instant> for Call<'_> {
    fn from(deadline: Instant) -> Self {
        Self {
            deadline,
            under: None,
        }
    }
}

impl Call<'_> {
    /// The span of one attempt, where it is traced.
    pub(super) fn begin(&self, method: &'static str) -> Option<Span> {
        Some(self.under?.begin_call(Kind::Client, method))
    }

    /// Makes one attempt. That there is no such thing is an answer, and no failure.
    pub(super) async fn make<Q, A, F>(
        &self,
        method: &'static str,
        message: Q,
        make: impl FnOnce(Request<Q>) -> F,
    ) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut request = Request::new(message);
        let mut span = self.begin(method);
        if let Some(span) = &span {
            let traceparent = MetadataValue::try_from(span.traceparent());
            let traceparent = traceparent.expect("it is hexadecimal");
            let metadata = request.metadata_mut();
            metadata.insert(TRACEPARENT_METADATA, traceparent);
        }
        let made = make(request).await;
        if let (Some(span), Err(status)) = (&mut span, &made)
            && status.code() != Code::NotFound
        {
            span.fail(status.message());
        }
        made.map(Response::into_inner)
    }
}
