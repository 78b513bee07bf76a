//! The answer to one of the orders that came over a stream.

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use wire::Malformed;
use wire::order::v1::place_many_response::{Answer, answer};

use crate::traced::TracedOrder;
use order_core::message::{Placed, Unavailable};

/// Where the answer to one of a stream's orders goes.
#[derive(Debug)]
pub(crate) struct Reply {
    tag: u64,
    /// Bounded by the orders that one stream may have without an answer.
    answers: mpsc::UnboundedSender<Answer>,
    /// Until the core has answered.
    _of_client: Option<OwnedSemaphorePermit>,
    /// Its span, where it is traced.
    traced: Option<Box<TracedOrder>>,
}

impl Reply {
    pub(crate) fn new(
        tag: u64,
        answers: mpsc::UnboundedSender<Answer>,
        of_client: Option<OwnedSemaphorePermit>,
    ) -> Self {
        Self {
            tag,
            answers,
            _of_client: of_client,
            traced: None,
        }
    }

    /// The same for an order that is traced, if it is.
    pub(crate) fn traced(self, traced: Option<TracedOrder>) -> Self {
        let traced = traced.map(Box::new);
        Self { traced, ..self }
    }

    /// See there.
    pub(super) fn traced_order(&self) -> Option<&TracedOrder> {
        self.traced.as_deref()
    }

    pub(crate) fn send(mut self, placed: Result<Placed, Unavailable>) {
        if let Some(TracedOrder { span, .. }) = self.traced.as_deref_mut() {
            match &placed {
                Ok(Placed::Number(number)) => span.set("bazaar.order", number.0),
                Ok(_) => {}
                Err(unavailable) => span.fail(unavailable.to_string()),
            }
        }
        self.answer(match placed {
            Ok(Placed::Number(number)) => answer::Result::Number(number.0),
            Ok(Placed::StockChanged(number)) => answer::Result::StockChanged(number.0),
            Ok(Placed::Refused(refusal)) => {
                answer::Result::Refusal(wire::catalog::v1::Refusal::from(refusal).into())
            }
            Err(unavailable) => answer::Result::Unavailable(unavailable.to_string()),
        });
    }

    pub(crate) fn refuse(self, invalid: &Malformed) {
        self.answer(answer::Result::Invalid(invalid.to_string()));
    }

    fn answer(self, result: answer::Result) {
        let answer = Answer {
            tag: self.tag,
            result: Some(result),
        };
        let _ = self.answers.send(answer); // the caller may have left
    }
}
