//! Writes down what was counted, in a form that Prometheus reads, or as values for other services.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{CounterValueEncoder, GaugeValueEncoder};
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue};
use prometheus_client::encoding::{NativeHistogram, NativeHistogramBuckets};
use prometheus_client::encoding::{prometheus_protobuf, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::form::Form;
use crate::instruments::Count;
use crate::metric::{CERTIFICATE_EXPIRY, Kind, Metric};
use crate::scale::{Native, SCHEMA, Scale};

/// What has figures to export.
pub trait Export: Send + Sync {
    /// Writes down what was counted so far.
    ///
    /// # Errors
    /// Where it cannot be written.
    fn export(&self, families: &mut Families<'_>) -> fmt::Result;
}

/// All that somebody exports, in a form that Prometheus reads.
pub fn exposition(
    form: Form,
    export: impl Fn(&mut Families<'_>) -> fmt::Result + Send + Sync + 'static,
) -> Vec<u8> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exported(export)));
    let written = match form {
        Form::Text => {
            let mut text = String::new();
            prometheus_text::encode(&mut text, &registry).map(|()| text.into_bytes())
        }
        Form::Protobuf => prometheus_protobuf::encode_to_vec(&registry).map_err(|_| fmt::Error),
    };
    written.expect("memory takes all that is written")
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
        (self.0)(&mut Families(Sink::Written(encoder)))
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
    Written(DescriptorEncoder<'a>),
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
            Sink::Written(encoder) => encoder,
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

    /// A histogram on a scale: where the form can carry it, native as well.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn add_histogram<'l, const LABELS: usize>(
        &mut self,
        metric: &Metric,
        scale: &Scale,
        samples: impl IntoIterator<Item = ([&'l str; LABELS], Count)>,
    ) -> fmt::Result {
        assert_eq!(LABELS, metric.labels.len(), "labels of {}", metric.name);
        assert_eq!(metric.kind, Kind::Histogram, "{}", metric.name);
        let encoder = match &mut self.0 {
            Sink::Written(encoder) => encoder,
            Sink::Values(families) => {
                let samples = samples.into_iter();
                let samples =
                    samples.map(|(labels, count)| (labels, count.sum(scale), count.buckets(scale)));
                families.push(Family::of(metric, samples));
                return Ok(());
            }
        };
        let help = format!("{}.", metric.help);
        let histogram = MetricType::Histogram;
        let mut family = encoder.encode_descriptor(metric.name, &help, None, histogram)?;
        for (values, count) in samples {
            let bounds = scale.bounds().chain([f64::INFINITY]);
            let buckets: Vec<_> = bounds.zip(count.buckets(scale)).collect();
            let native = count.native(scale);
            let labels = labels(metric, values);
            let mut sample = family.encode_family(&labels)?;
            sample.encode_histogram_with_native::<[(&str, &str); 0]>(
                count.sum(scale),
                count.total(),
                &buckets,
                None,
                encoded(&native),
            )?;
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
        let Sink::Written(encoder) = &mut self.0 else {
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

fn encoded(native: &Native) -> NativeHistogram<'_> {
    let Native {
        zero_threshold,
        zero_count,
        spans,
        deltas,
    } = native;
    NativeHistogram {
        schema: SCHEMA,
        zero_threshold: *zero_threshold,
        zero_count: *zero_count,
        // Neither times nor rows are below zero.
        negative: NativeHistogramBuckets {
            spans: &[],
            deltas: &[],
        },
        positive: NativeHistogramBuckets { spans, deltas },
        created: None,
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

    use prometheus_client::encoding::prometheus_protobuf::prometheus_data_model as model;
    use prost::Message as _;

    use super::*;
    use crate::instruments::Buckets;
    use crate::scale::SECONDS;

    const TAKEN: Metric = Metric::counter("taken", "things", &[("by", "whom")], "Taken things");
    const LEFT: Metric = Metric::gauge("left_ratio", "1", &[], "What is left");
    const TOOK: Metric = Metric::histogram("took_seconds", "seconds", &[], "How long");

    /// One of each kind, and a counter that nobody knew of.
    fn export(families: &mut Families<'_>) -> fmt::Result {
        families.add(&TAKEN, [(["me"], 3), (["you"], 0)])?;
        families.add_one(&LEFT, 0.25)?;
        families.add_named("own", "Not known", [(&[][..], 1)])?;
        let took = Buckets::default();
        took.note(Duration::from_millis(3));
        families.add_histogram(&TOOK, &SECONDS, [([], took.count())])
    }

    #[test]
    fn values_are_those_of_the_text_under_the_same_names() {
        let families = collected(export).unwrap();
        let [taken, _, histogram] = &families[..] else {
            panic!("there are three");
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
        let text = String::from_utf8(exposition(Form::Text, export)).unwrap();
        assert_eq!(text.matches("_bucket{").count(), 20, "{text}");
        for line in [
            "# HELP taken_total Taken things.",
            "# TYPE taken_total counter",
            "taken_total{by=\"me\"} 3",
            "taken_total{by=\"you\"} 0",
            "left_ratio 0.25",
            "own_total 1",
            "# TYPE took_seconds histogram",
            "took_seconds_count 1",
            "took_seconds_bucket{le=\"0.002\"} 0",
            "took_seconds_bucket{le=\"0.005\"} 1",
            "took_seconds_bucket{le=\"+Inf\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }

    #[test]
    fn the_protobuf_form_says_the_same_and_has_native_histograms_beside_the_classic_ones() {
        let written = exposition(Form::Protobuf, export);
        let mut rest = &written[..];
        let mut families = Vec::new();
        while !rest.is_empty() {
            families.push(model::MetricFamily::decode_length_delimited(&mut rest).unwrap());
        }
        let names: Vec<_> = families.iter().map(|family| &*family.name).collect();
        assert_eq!(
            names,
            ["taken_total", "left_ratio", "own_total", "took_seconds"]
        );
        assert_eq!(families[0].help, "Taken things.");
        let taken = &families[0].metric[0];
        assert_eq!(taken.label[0].value, "me");
        assert_eq!(taken.counter.as_ref().unwrap().value, 3.0);
        assert_eq!(families[1].metric[0].gauge.unwrap().value, 0.25);
        let took = families[3].metric[0].histogram.as_ref().unwrap();
        assert_eq!((took.sample_count, took.sample_sum), (1, 0.003));
        assert_eq!(took.bucket.len(), 20);
        assert_eq!(took.bucket[8].upper_bound, 0.005);
        assert_eq!(took.bucket[8].cumulative_count, 1);
        // 3 ms are above 2^(-68/8), which are 2.76 ms, and up to 2^(-67/8).
        assert_eq!((took.schema, took.zero_count), (3, 0));
        let span = model::BucketSpan {
            offset: -67,
            length: 1,
        };
        assert_eq!(took.positive_span, [span]);
        assert_eq!(took.positive_delta, [1]);
    }
}
