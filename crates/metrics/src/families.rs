//! Writes down what was counted, in Prometheus' text format, or as values for other services.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{CounterValueEncoder, GaugeValueEncoder, prometheus_text};
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::instruments::{Count, Scale};
use crate::metric::{CERTIFICATE_EXPIRY, Kind, Metric};

/// The `Content-Type` of an [`exposition`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// What has figures to export.
pub trait Export: Send + Sync {
    /// Writes down what was counted so far.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn export(&self, families: &mut Families<'_>) -> fmt::Result;
}

/// All that somebody exports, in Prometheus' text format, version 0.0.4.
pub fn exposition(
    export: impl Fn(&mut Families<'_>) -> fmt::Result + Send + Sync + 'static,
) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exported(export)));
    let mut text = String::new();
    prometheus_text::encode(&mut text, &registry).expect("a string takes all that is written");
    text
}

/// All that somebody exports, but for counters that nobody knew of beforehand.
///
/// # Errors
/// Where one of it could not be written.
pub fn collected(
    export: impl FnOnce(&mut Families<'_>) -> fmt::Result,
) -> Result<Vec<Family>, fmt::Error> {
    let mut collected = Vec::new();
    export(&mut Families(Sink::Values(&mut collected)))?;
    Ok(collected)
}

/// A family as it was at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Family {
    /// By which it is asked for, see [`Metric::exported_name`].
    pub name: String,
    pub samples: Vec<Sample>,
}

/// One combination of labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Their values, in the order of the metric's.
    pub labels: Vec<String>,
    /// Of a histogram, the sum of all that was noted.
    pub value: f64,
    /// Of a histogram: how many were up to each of its bounds and above the one before; the last, above all of them.
    pub buckets: Vec<u64>,
}

struct Exported<F>(F);

impl<F> fmt::Debug for Exported<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exported")
    }
}

impl<F> Collector for Exported<F>
where
    F: Fn(&mut Families<'_>) -> fmt::Result + Send + Sync + 'static,
{
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        (self.0)(&mut Families(Sink::Text(encoder)))
    }
}

/// The value of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<Number> for f64 {
    fn from(number: Number) -> Self {
        match number {
            Number::Whole(value) => value as Self,
            Number::Real(value) => value,
        }
    }
}

impl EncodeCounterValue for Number {
    fn encode(&self, encoder: &mut CounterValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => EncodeCounterValue::encode(value, encoder),
            Self::Real(value) => EncodeCounterValue::encode(value, encoder),
        }
    }
}

impl EncodeGaugeValue for Number {
    fn encode(&self, encoder: &mut GaugeValueEncoder<'_>) -> fmt::Result {
        match self {
            Self::Whole(value) => EncodeGaugeValue::encode(value, encoder),
            Self::Real(value) => EncodeGaugeValue::encode(value, encoder),
        }
    }
}

/// Families of samples, to which more are added.
pub struct Families<'a>(Sink<'a>);

enum Sink<'a> {
    Text(DescriptorEncoder<'a>),
    Values(&'a mut Vec<Family>),
}

impl Families<'_> {
    /// A counter or a gauge, with the values of the labels of each sample.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add<'l, const LABELS: usize, N: Into<Number>>(
        &mut self,
        metric: &Metric,
        samples: impl IntoIterator<Item = ([&'l str; LABELS], N)>,
    ) -> fmt::Result {
        assert_eq!(LABELS, metric.labels.len(), "labels of {}", metric.name);
        let kind = match metric.kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => panic!("{} is a histogram", metric.name),
        };
        let encoder = match &mut self.0 {
            Sink::Text(encoder) => encoder,
            Sink::Values(families) => {
                let samples = samples.into_iter().map(|(labels, value)| {
                    let value: Number = value.into();
                    (labels, value.into(), Vec::new())
                });
                families.push(Family::of(metric, samples));
                return Ok(());
            }
        };
        let help = format!("{}.", metric.help);
        let mut family = encoder.encode_descriptor(metric.name, &help, None, kind)?;
        for (values, value) in samples {
            let labels = labels(metric, values);
            let mut sample = family.encode_family(&labels)?;
            let value: Number = value.into();
            match metric.kind {
                Kind::Counter => {
                    sample.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)?;
                }
                _ => sample.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    /// The one sample of a counter or a gauge without labels.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add_one(&mut self, metric: &Metric, value: impl Into<Number>) -> fmt::Result {
        self.add(metric, [([], value)])
    }

    /// When certificates expire, those of which it is known.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add_certificates(
        &mut self,
        expiries: impl IntoIterator<Item = (&'static str, Option<SystemTime>)>,
    ) -> fmt::Result {
        let known = expiries.into_iter().filter_map(|(certificate, expiry)| {
            let since = expiry?.duration_since(UNIX_EPOCH).ok()?;
            Some(([certificate], since.as_secs()))
        });
        self.add(&CERTIFICATE_EXPIRY, known)
    }

    /// A histogram on a scale.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add_histogram<'l, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        scale: &Scale,
        samples: impl IntoIterator<Item = ([&'l str; LABELS], Count)>,
    ) -> fmt::Result {
        let bounds: Vec<f64> = scale.bounds().collect();
        let samples = samples
            .into_iter()
            .map(|(values, count)| (values, count.buckets.to_vec(), count.sum(scale)));
        self.add_buckets(metric, &bounds, samples)
    }

    /// A histogram with bounds of its own: how many were up to each of them, and above all, and their sum.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add_buckets<'l, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        bounds: &[f64],
        samples: impl IntoIterator<Item = ([&'l str; LABELS], Vec<u64>, f64)>,
    ) -> fmt::Result {
        assert_eq!(LABELS, metric.labels.len(), "labels of {}", metric.name);
        assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        let encoder = match &mut self.0 {
            Sink::Text(encoder) => encoder,
            Sink::Values(families) => {
                let samples = samples.into_iter();
                let samples = samples.map(|(labels, counts, sum)| (labels, sum, counts));
                families.push(Family::of(metric, samples));
                return Ok(());
            }
        };
        let help = format!("{}.", metric.help);
        let histogram = MetricType::Histogram;
        let mut family = encoder.encode_descriptor(metric.name, &help, None, histogram)?;
        for (values, counts, sum) in samples {
            let bounds = bounds.iter().copied().chain([f64::INFINITY]);
            let total = counts.iter().sum();
            let buckets: Vec<_> = bounds.zip(counts).collect();
            let labels = labels(metric, values);
            let mut sample = family.encode_family(&labels)?;
            sample.encode_histogram::<[(&str, &str); 0]>(sum, total, &buckets, None)?;
        }
        Ok(())
    }

    /// A counter that nobody knew of beforehand, whose samples may differ in their labels.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add_named<'l>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = (&'l [(&'l str, String)], u64)>,
    ) -> fmt::Result {
        let Sink::Text(encoder) = &mut self.0 else {
            return Ok(());
        };
        let counter = MetricType::Counter;
        let mut family = encoder.encode_descriptor(name, help, None, counter)?;
        samples.into_iter().try_for_each(|(labels, value)| {
            let mut sample = family.encode_family(&labels)?;
            sample.encode_counter::<[(&str, &str); 0], _, u64>(&value, None)
        })
    }
}

impl Family {
    fn of<'l, const LABELS: usize>(
        metric: &Metric,
        samples: impl Iterator<Item = ([&'l str; LABELS], f64, Vec<u64>)>,
    ) -> Self {
        let samples = samples.map(|(labels, value, buckets)| Sample {
            labels: labels.map(str::to_owned).to_vec(),
            value,
            buckets,
        });
        Self {
            name: metric.exported_name(),
            samples: samples.collect(),
        }
    }
}

fn labels<'l, const LABELS: usize>(
    metric: &Metric,
    values: [&'l str; LABELS],
) -> [(&'static str, &'l str); LABELS] {
    std::array::from_fn(|place| (metric.labels[place].0, values[place]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::instruments::{Buckets, SECONDS};

    #[test]
    fn values_are_those_of_the_text_under_the_same_names() {
        const TAKEN: Metric = Metric::counter("taken", "things", &[("by", "whom")], "Taken things");
        const TOOK: Metric = Metric::histogram("took_seconds", "seconds", &[], "How long");
        let took = Buckets::default();
        took.note(Duration::from_millis(3));
        let families = collected(|families| {
            families.add(&TAKEN, [(["me"], 3), (["you"], 0)])?;
            families.add_named("own", "Not known", [(&[][..], 1)])?;
            families.add_histogram(&TOOK, &SECONDS, [([], took.count())])
        });
        let [taken, histogram] = &families.unwrap()[..] else {
            panic!("there are two");
        };
        assert_eq!(taken.name, "taken_total");
        assert_eq!(
            taken.samples[0],
            Sample {
                labels: vec!["me".into()],
                value: 3.0,
                buckets: Vec::new()
            }
        );
        let sample = &histogram.samples[0];
        assert_eq!((sample.value, sample.buckets.len()), (0.003, 20));
        assert_eq!(sample.buckets.iter().sum::<u64>(), 1);
    }

    #[test]
    fn each_kind_is_written_as_prometheus_reads_it() {
        const TAKEN: Metric = Metric::counter("taken", "things", &[("by", "whom")], "Taken things");
        const LEFT: Metric = Metric::gauge("left_ratio", "1", &[], "What is left");
        const TOOK: Metric = Metric::histogram("took_seconds", "seconds", &[], "How long");
        let text = exposition(|families| {
            families.add(&TAKEN, [(["me"], 3), (["you"], 0)])?;
            families.add_one(&LEFT, 0.25)?;
            let took = Buckets::default();
            took.note(Duration::from_millis(3));
            families.add_histogram(&TOOK, &SECONDS, [([], took.count())])
        });
        assert_eq!(text.matches("_bucket{").count(), 20, "{text}");
        for line in [
            "# HELP taken_total Taken things.",
            "# TYPE taken_total counter",
            "taken_total{by=\"me\"} 3",
            "taken_total{by=\"you\"} 0",
            "left_ratio 0.25",
            "# TYPE took_seconds histogram",
            "took_seconds_count 1",
            "took_seconds_bucket{le=\"0.002\"} 0",
            "took_seconds_bucket{le=\"0.005\"} 1",
            "took_seconds_bucket{le=\"+Inf\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
