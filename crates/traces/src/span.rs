//! A part of a request's way.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::traceparent::{SpanId, TraceContext, TraceId};
use crate::{Parent, Tracing};

/// What is kept of a text, in bytes: some of it is the client's.
pub const TEXT_BYTES_MAX: usize = 512;

/// What it is to whom it is between, as OpenTelemetry has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Something that the service does by itself.
    Internal,
    /// Answers a call.
    Server,
    /// Makes one.
    Client,
}

/// What an attribute is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// At most [`TEXT_BYTES_MAX`] bytes of it.
    Text(Cow<'static, str>),
    /// A number.
    Number(i64),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(bounded(text)))
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Number(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        (number as u64).into()
    }
}

/// What is exported of a span.
#[derive(Debug)]
pub struct Record {
    /// Of which trace.
    pub trace: TraceId,
    /// Which one.
    pub span: SpanId,
    /// Under which; none where the trace begins with it.
    pub parent: Option<SpanId>,
    /// Whether that is another process'.
    pub is_parent_remote: bool,
    /// What is done, in a few words of which there are not many.
    pub name: Cow<'static, str>,
    /// See there.
    pub kind: Kind,
    /// By the wall clock.
    pub began: SystemTime,
    /// How long it took, by the monotonic one.
    pub took: std::time::Duration,
    /// More about it.
    pub attributes: Vec<(&'static str, Value)>,
    /// What went wrong, if anything did.
    pub failed: Option<String>,
}

/// A span that has begun. It ends, and is exported, when this is dropped.
#[derive(Debug)]
#[must_use = "a span ends when this is dropped"]
pub struct Span {
    tracing: Arc<Tracing>,
    began: Instant,
    /// Until it is dropped.
    record: Option<Box<Record>>,
}

impl Parent {
    /// Begins a span.
    pub fn begin(&self, kind: Kind, name: impl Into<Cow<'static, str>>) -> Span {
        self.begin_at(Instant::now(), kind, name)
    }

    /// Begins the span of a gRPC call, of a method such as `catalog.v1.Catalog/GetStock`.
    pub fn begin_call(&self, kind: Kind, method: &'static str) -> Span {
        let span = self.begin(kind, method).with("rpc.system", "grpc");
        match method.split_once('/') {
            Some((service, method)) => span.with("rpc.service", service).with("rpc.method", method),
            None => span,
        }
    }

    /// The same, of what has begun before.
    pub fn begin_at(&self, began: Instant, kind: Kind, name: impl Into<Cow<'static, str>>) -> Span {
        let record = Record {
            trace: self.trace,
            span: SpanId::random(),
            parent: self.span,
            is_parent_remote: self.is_remote,
            name: name.into(),
            kind,
            began: SystemTime::now() - began.elapsed(),
            took: Default::default(),
            attributes: Vec::new(),
            failed: None,
        };
        Span {
            tracing: Arc::clone(&self.tracing),
            began,
            record: Some(Box::new(record)),
        }
    }
}

impl Span {
    /// To begin others under it.
    pub fn parent(&self) -> Parent {
        let record = self.record();
        Parent {
            tracing: Arc::clone(&self.tracing),
            trace: record.trace,
            span: Some(record.span),
            is_remote: false,
        }
    }

    /// What goes along with a call that it makes.
    pub fn context(&self) -> TraceContext {
        let record = self.record();
        TraceContext {
            trace: record.trace,
            span: record.span,
            is_sampled: true,
        }
    }

    /// The same, as a `traceparent`.
    pub fn traceparent(&self) -> String {
        self.context().to_string()
    }

    /// What it is called from now on.
    pub fn rename(&mut self, name: impl Into<Cow<'static, str>>) {
        self.record_mut().name = name.into();
    }

    /// Says more about it.
    pub fn set(&mut self, name: &'static str, value: impl Into<Value>) {
        self.record_mut().attributes.push((name, value.into()));
    }

    /// The same, of one that was just begun.
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Something went wrong.
    pub fn fail(&mut self, why: impl Into<String>) {
        self.record_mut().failed = Some(bounded(why.into()));
    }

    /// Nothing went wrong after all.
    pub fn succeed(&mut self) {
        self.record_mut().failed = None;
    }

    fn record(&self) -> &Record {
        self.record.as_ref().expect("it is there until it ends")
    }

    fn record_mut(&mut self) -> &mut Record {
        self.record.as_mut().expect("it is there until it ends")
    }
}

/// What is kept of a text: the rest is not, either.
pub(crate) fn bounded(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text.shrink_to_fit();
    text
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            record.took = self.began.elapsed();
            self.tracing.queue.push(*record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn little_is_held_of_a_long_text() {
        let Value::Text(Cow::Owned(text)) = Value::from("é".repeat(20_000)) else {
            panic!("it is a text");
        };
        assert_eq!(text, "é".repeat(TEXT_BYTES_MAX / 2));
        assert!(text.capacity() <= 2 * TEXT_BYTES_MAX, "{}", text.capacity());
    }
}
