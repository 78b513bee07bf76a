//! What catalogs and replicas say of themselves.

use std::time::Duration;

use domain::ReplicaId;
use metrics::Family;
use rpc::connect::{self, Security};
use serde_json::{Map, Value, json};
use tokio::time::timeout;
use tonic::transport::Channel;
use wire::monitor::v1::monitor_client::MonitorClient;
use wire::monitor::v1::{self, GetFiguresRequest};

/// How long one may take to say it: what is shown is a second old at most.
const ANSWER_TIME_MAX: Duration = Duration::from_millis(700);

/// Most bytes of what one says.
const FIGURES_BYTES_MAX: usize = 256 << 10;

/// Where a catalog or a replica is, and who has to be there.
#[derive(Debug, Clone)]
pub struct Service {
    /// `None` of a catalog.
    pub replica: Option<ReplicaId>,
    pub url: String,
    pub security: Security,
}

/// One that can be asked.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) replica: Option<ReplicaId>,
    monitor: MonitorClient<Channel>,
}

impl Service {
    /// Connects once it is asked. `None` for an URL that is none, which the start refuses.
    pub(super) fn connect(&self) -> Option<Asked> {
        let channel = connect::lazy(&self.url, &self.security).ok()?;
        let monitor = MonitorClient::new(channel).max_decoding_message_size(FIGURES_BYTES_MAX);
        Some(Asked {
            replica: self.replica,
            monitor,
        })
    }
}

impl Asked {
    /// `null` where it does not answer in time, or is of a release that does not say it.
    pub(super) async fn says(&self) -> Value {
        let mut monitor = self.monitor.clone();
        let asked = monitor.get_figures(GetFiguresRequest {});
        match timeout(ANSWER_TIME_MAX, asked).await {
            Ok(Ok(answer)) => {
                let said = answer.into_inner();
                let families = said.families.into_iter().map(|family| {
                    let samples = family.samples.into_iter().map(from_wire);
                    (family.name, samples.collect::<Vec<_>>())
                });
                json!({ "ready": said.ready, "says": said.says, "figures": figures(families) })
            }
            Ok(Err(_)) | Err(_) => Value::Null,
        }
    }
}

/// A sample as the page has it: labels, value, and of a histogram its buckets.
type Shown = (Vec<String>, f64, Vec<u64>);

fn from_wire(sample: v1::Sample) -> Shown {
    (sample.labels, sample.value, sample.buckets)
}

/// Of this process.
pub(super) fn own_figures(families: Vec<Family>) -> Value {
    figures(families.into_iter().map(|family| {
        let samples = family.samples.into_iter();
        let samples = samples.map(|sample| (sample.labels, sample.value, sample.buckets));
        (family.name, samples.collect())
    }))
}

/// By name. What has no samples is not there.
fn figures(families: impl Iterator<Item = (String, Vec<Shown>)>) -> Value {
    let families = families.filter(|(_, samples)| !samples.is_empty());
    let families = families.map(|(name, samples)| {
        let samples = samples.into_iter().map(|(labels, value, buckets)| {
            let value = number(value);
            match buckets.is_empty() {
                true => json!([labels, value]),
                false => json!([labels, value, buckets]),
            }
        });
        (name, samples.collect())
    });
    Value::Object(families.collect::<Map<_, _>>())
}

/// Shorter than as a float, which most are not.
fn number(value: f64) -> Value {
    match value.fract() == 0.0 && (0.0..9e15).contains(&value) {
        true => (value as u64).into(),
        false => value.into(),
    }
}
