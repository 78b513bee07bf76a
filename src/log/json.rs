//! Records as JSON: one object each, whose members are `timestamp`, `level`, `service`, `target` (the module that logged it),
//! `message`, and the event's own fields beside them.

use std::error::Error;
use std::fmt;

use serde::Serializer as _;
use serde_json::{Serializer, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

const TIMESTAMP: &str = "timestamp";
const LEVEL: &str = "level";
const SERVICE: &str = "service";
const TARGET: &str = "target";
const MESSAGE: &str = "message";

/// Members that are no field of an event.
const OWN: [&str; 4] = [TIMESTAMP, LEVEL, SERVICE, TARGET];

/// Before the name of a field that would otherwise be taken for one of [`OWN`].
const FIELD: &str = "field.";

/// The record of an event.
pub fn event(service: &str, event: &Event<'_>) -> String {
    let metadata = event.metadata();
    let mut record = Record::begin(service, *metadata.level(), metadata.target());
    event.record(&mut record);
    record.end()
}

/// That of what did not come through `tracing`.
pub fn message(service: &str, level: Level, text: &str) -> String {
    let mut record = Record::begin(service, level, "bazaar");
    record.put(MESSAGE, text.into());
    record.end()
}

/// A record in the making: its members, in their order.
struct Record(Vec<(String, Value)>);

impl Record {
    fn begin(service: &str, level: Level, target: &str) -> Self {
        let mut timestamp = String::new();
        // It only fails where the text does not take it.
        let _ = SystemTime.format_time(&mut Writer::new(&mut timestamp));
        let mut record = Self(Vec::new());
        record.put(TIMESTAMP, timestamp.into());
        record.put(LEVEL, level.as_str().into());
        record.put(SERVICE, service.into());
        record.put(TARGET, target.into());
        record
    }

    fn put(&mut self, name: impl Into<String>, value: Value) {
        self.0.push((name.into(), value));
    }

    fn put_field(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        let prefix = if OWN.contains(&name) { FIELD } else { "" };
        self.put(format!("{prefix}{name}"), value.into());
    }

    fn end(self) -> String {
        let mut text = Vec::new();
        let members = self.0.iter().map(|(name, value)| (name, value));
        let written = Serializer::new(&mut text).collect_map(members);
        written.expect("memory takes it, and names are text");
        String::from_utf8(text).expect("JSON is text")
    }
}

impl Visit for Record {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put_field(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put_field(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put_field(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put_field(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_field(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.put_field(field, value.to_string());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_field(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;
    use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

    use super::*;

    /// Keeps the records of what is logged.
    struct Kept(Arc<Mutex<Vec<String>>>);

    impl<S: tracing::Subscriber> Layer<S> for Kept {
        fn on_event(&self, logged: &Event<'_>, _: Context<'_, S>) {
            self.0.lock().unwrap().push(event("order-3", logged));
        }
    }

    fn logged(log: impl FnOnce()) -> Value {
        let kept = Arc::<Mutex<Vec<String>>>::default();
        let subscriber = tracing_subscriber::registry().with(Kept(Arc::clone(&kept)));
        with_default(subscriber, log);
        let records = kept.lock().unwrap();
        let [record] = &records[..] else {
            panic!("{records:?}");
        };
        assert!(!record.contains('\n'), "{record}");
        serde_json::from_str(record).unwrap()
    }

    #[test]
    fn a_record_has_its_fields_beside_what_all_have() {
        let record = logged(|| {
            tracing::warn!(
                target: "order::driver",
                epoch = 7_u64,
                ratio = 0.5,
                is_leader = true,
                r#type = "sell",
                error = %"it\n\"broke\"",
                ids = ?[1, 2],
                target = "/stocks",
                "left \u{1b}[31mbehind"
            );
        });
        let time = record["timestamp"].as_str().unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        let mut record = record;
        record.as_object_mut().unwrap().remove("timestamp");
        assert_eq!(
            record,
            serde_json::json!({
                "level": "WARN",
                "service": "order-3",
                "target": "order::driver",
                "message": "left \u{1b}[31mbehind",
                "epoch": 7,
                "ratio": 0.5,
                "is_leader": true,
                "type": "sell",
                "error": "it\n\"broke\"",
                "ids": "[1, 2]",
                "field.target": "/stocks",
            })
        );
    }

    #[test]
    fn what_is_no_event_has_the_same_form() {
        let record = message("up", Level::ERROR, "two\nlines");
        let record: Value = serde_json::from_str(&record).unwrap();
        assert_eq!(record["message"], "two\nlines");
        assert_eq!(
            (&record["level"], &record["service"]),
            (&"ERROR".into(), &"up".into())
        );
    }
}
