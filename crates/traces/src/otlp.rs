//! OTLP: spans as OpenTelemetry's protocol has them. The messages are made of its own protos.

use std::time::{Duration, UNIX_EPOCH};

use crate::Service;
use crate::span::{Kind, Record, Value};
use crate::traceparent::SAMPLED;

/// Generated.
#[allow(missing_docs, clippy::all, rustdoc::all, reason = "generated")]
pub mod proto {
    pub mod collector {
        pub mod trace {
            pub mod v1 {
                tonic::include_proto!("opentelemetry.proto.collector.trace.v1");
            }
        }
    }
    pub mod common {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.common.v1");
        }
    }
    pub mod resource {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.resource.v1");
        }
    }
    pub mod trace {
        pub mod v1 {
            tonic::include_proto!("opentelemetry.proto.trace.v1");
        }
    }
}

use proto::collector::trace::v1::ExportTraceServiceRequest;
use proto::common::v1::any_value::Value as Any;
use proto::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use proto::resource::v1::Resource;
use proto::trace::v1::span::SpanKind;
use proto::trace::v1::status::StatusCode;
use proto::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};

/// Of a span's flags: it is known whether its parent is another process', and it is.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// What is the same in all exports of a process.
#[derive(Debug)]
pub struct Origin {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Origin {
    /// Of a service of this release.
    pub fn of(service: Service) -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let attributes = [
            ("service.namespace", "bazaar".into()),
            ("service.name", service.name.into()),
            ("service.version", version.into()),
            ("service.instance.id", service.instance.into()),
            ("process.pid", std::process::id().into()),
        ];
        Self {
            resource: Resource {
                attributes: attributes.into_iter().map(key_value).collect(),
                ..Resource::default()
            },
            scope: InstrumentationScope {
                name: "bazaar".into(),
                version: version.into(),
                ..InstrumentationScope::default()
            },
        }
    }

    /// An export of these.
    pub fn export(&self, spans: Vec<Record>) -> ExportTraceServiceRequest {
        let spans = ScopeSpans {
            scope: Some(self.scope.clone()),
            spans: spans.into_iter().map(span).collect(),
            ..ScopeSpans::default()
        };
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(self.resource.clone()),
                scope_spans: vec![spans],
                ..ResourceSpans::default()
            }],
        }
    }
}

fn span(record: Record) -> Span {
    let began = record.began.duration_since(UNIX_EPOCH);
    let began = began.unwrap_or(Duration::ZERO);
    let remote = if record.is_parent_remote {
        IS_REMOTE
    } else {
        0
    };
    Span {
        trace_id: record.trace.as_bytes().to_vec(),
        span_id: record.span.as_bytes().to_vec(),
        parent_span_id: record
            .parent
            .map_or_else(Vec::new, |parent| parent.as_bytes().to_vec()),
        flags: u32::from(SAMPLED) | HAS_IS_REMOTE | remote,
        name: record.name.into_owned(),
        kind: match record.kind {
            Kind::Internal => SpanKind::Internal,
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
        }
        .into(),
        start_time_unix_nano: began.as_nanos() as u64,
        end_time_unix_nano: (began + record.took).as_nanos() as u64,
        attributes: record.attributes.into_iter().map(key_value).collect(),
        status: record.failed.map(|message| Status {
            message,
            code: StatusCode::Error.into(),
        }),
        ..Span::default()
    }
}

fn key_value((key, value): (&'static str, Value)) -> KeyValue {
    let value = match value {
        Value::Text(text) => Any::StringValue(text.into_owned()),
        Value::Number(number) => Any::IntValue(number),
    };
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}
