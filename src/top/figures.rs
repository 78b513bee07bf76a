//! What is counted, over a time: differences of counters, and quantiles of histograms' differences. As `page/figures.js` has it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, LazyLock};

use frontend_policy::COSTS;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The families that something here is made of; of others nothing is kept.
const FAMILIES: [&str; 24] = [
    "bazaar_cache_lookups_total",
    "bazaar_catalog_commits_total",
    "bazaar_catalog_sessions",
    "bazaar_certificate_expiry_timestamp_seconds",
    "bazaar_connections",
    "bazaar_connections_max",
    "bazaar_held_bytes",
    "bazaar_held_bytes_max",
    "bazaar_log_records_dropped_total",
    "bazaar_order_lag_rows",
    "bazaar_order_lag_seconds",
    "bazaar_order_save_seconds",
    "bazaar_policy_decision_seconds",
    "bazaar_policy_decisions_total",
    "bazaar_ready",
    "bazaar_request_duration_seconds",
    "bazaar_requests_total",
    "bazaar_session_events_total",
    "bazaar_trade_stage_seconds",
    "bazaar_trades_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
];

/// Moments that are kept: a minute of them, one a second.
const MOMENTS_MAX: usize = 61;

/// What kept moments take at most, but for the newest two. Where so many services say so much, a shorter time is looked at.
const MOMENTS_BYTES_MAX: usize = 64 << 20;

/// Seconds between two moments after which it begins anew: it was away.
const GAP_MAX: f64 = 30.0;

/// What a sample takes beside its labels and buckets, in bytes.
const SAMPLE_BYTES: usize = 96;

/// Upper bounds of histograms of seconds, but for decisions.
pub static SECONDS: LazyLock<Vec<f64>> = LazyLock::new(|| metrics::SECONDS.bounds().collect());

/// Upper bounds of `bazaar_policy_decision_seconds`.
pub static DECISIONS: LazyLock<Vec<f64>> = LazyLock::new(|| COSTS.bounds().collect());

/// What one process counts, by the names of `docs/METRICS.md`.
#[derive(Debug, Clone, Default)]
pub struct Figures(BTreeMap<String, Vec<Sample>>);

/// What was counted under some labels.
#[derive(Debug, Clone)]
pub struct Sample {
    labels: Box<[Box<str>]>,
    value: f64,
    /// Of a histogram.
    buckets: Box<[u64]>,
}

impl Figures {
    /// The samples of a family.
    pub fn samples(&self, name: &str) -> &[Sample] {
        self.0.get(name).map_or(&[], Vec::as_slice)
    }

    /// The one value of a family without labels.
    pub fn gauge(&self, name: &str) -> Option<f64> {
        self.samples(name).first().map(|sample| sample.value)
    }

    /// The values of a family by their first label.
    pub fn by_label(&self, name: &str) -> impl Iterator<Item = (&str, f64)> {
        let samples = self.samples(name).iter();
        samples.map(|sample| (label(&sample.labels, 0), sample.value))
    }

    fn bytes(&self) -> usize {
        let samples = self.0.values().flatten();
        samples
            .map(|sample| {
                let labels = sample.labels.iter();
                let labels: usize = labels
                    .map(|label| label.len() + size_of::<Box<str>>())
                    .sum();
                SAMPLE_BYTES + labels + size_of_val(&*sample.buckets)
            })
            .sum()
    }
}

/// What is not in the form of figures is left out: what others say is theirs.
impl<'de> Deserialize<'de> for Figures {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let said = Value::deserialize(deserializer)?;
        let Value::Object(said) = said else {
            return Ok(Self::default());
        };
        let families = said
            .into_iter()
            .filter(|(name, _)| FAMILIES.binary_search(&name.as_str()).is_ok());
        let families = families.filter_map(|(name, samples)| {
            let samples = samples.as_array()?.iter().map(sample);
            Some((name, samples.collect::<Option<_>>()?))
        });
        Ok(Self(families.collect()))
    }
}

fn sample(said: &Value) -> Option<Sample> {
    let said = said.as_array()?;
    let labels = said.first()?.as_array()?.iter();
    let labels = labels.map(|label| Some(label.as_str()?.into()));
    let buckets = match said.get(2) {
        None => Box::default(),
        Some(buckets) => {
            let buckets = buckets.as_array()?.iter();
            buckets.map(Value::as_u64).collect::<Option<_>>()?
        }
    };
    Some(Sample {
        labels: labels.collect::<Option<_>>()?,
        value: said.get(1)?.as_f64()?,
        buckets,
    })
}

fn label(labels: &[Box<str>], place: usize) -> &str {
    labels.get(place).map_or("", |label| label)
}

/// Everybody who counts, by what they are known by, at one moment.
pub type Sources = Vec<(String, Arc<Figures>)>;

#[derive(Debug)]
struct Moment {
    at: f64,
    sources: Sources,
    bytes: usize,
}

/// What was counted in the last minute.
#[derive(Debug, Default)]
pub struct History {
    moments: VecDeque<Moment>,
    bytes: usize,
}

impl History {
    /// Takes in a moment, in seconds since 1970.
    pub fn add(&mut self, at: f64, sources: Sources) {
        if let Some(last) = self.moments.back() {
            if at == last.at {
                return; // said again, as at the beginning of each stream
            }
            if at < last.at || at - last.at > GAP_MAX {
                self.moments.clear();
                self.bytes = 0;
            }
        }
        let bytes = sources.iter().map(|(_, figures)| figures.bytes()).sum();
        self.bytes += bytes;
        self.moments.push_back(Moment { at, sources, bytes });
        while self.moments.len() > MOMENTS_MAX
            || self.bytes > MOMENTS_BYTES_MAX && self.moments.len() > 2
        {
            let oldest = self.moments.pop_front();
            self.bytes -= oldest.map_or(0, |moment| moment.bytes);
        }
    }

    /// Between the newest moment and one that is so many seconds older, or as much as there is.
    pub fn over(&self, seconds: f64) -> Option<Span<'_>> {
        let newest = self.moments.back()?;
        let moments = self.moments.iter().rev();
        let moments = moments.take_while(|moment| moment.at >= newest.at - seconds - 0.5);
        let moments: Vec<_> = moments.collect();
        let oldest = moments.last()?;
        (oldest.at < newest.at).then(|| Span {
            seconds: Some(newest.at - oldest.at),
            sources: sources(newest, &moments),
        })
    }

    /// From when each process began.
    pub fn since_start(&self) -> Option<Span<'_>> {
        let newest = self.moments.back()?;
        let sources = newest.sources.iter().map(|(who, figures)| Source {
            who,
            first: None,
            last: figures,
            seconds: 0.0,
            is_there: true,
        });
        Some(Span {
            seconds: None,
            sources: sources.collect(),
        })
    }
}

/// Who was there at some of these moments, the newest of which comes first. Of who has said once how it is nothing is known yet.
fn sources<'a>(newest: &Moment, moments: &[&'a Moment]) -> Vec<Source<'a>> {
    let mut all: Vec<Source<'a>> = Vec::new();
    let mut places: HashMap<&'a str, usize> = HashMap::new();
    for moment in moments {
        let seconds = newest.at - moment.at;
        for (who, figures) in &moment.sources {
            match places.get(who.as_str()) {
                Some(place) => {
                    all[*place].first = Some(figures);
                    all[*place].seconds = seconds;
                }
                None => {
                    places.insert(who, all.len());
                    all.push(Source {
                        who,
                        first: None,
                        last: figures,
                        seconds,
                        is_there: seconds == 0.0,
                    });
                }
            }
        }
    }
    all.retain(|source| source.first.is_some());
    all
}

/// A process that counts.
#[derive(Debug, Clone, Copy)]
struct Source<'a> {
    who: &'a str,
    /// What it said first: others say how they are after the first look. None where it is looked at from when it began.
    first: Option<&'a Figures>,
    /// What it said last: it may have left since.
    last: &'a Figures,
    /// How long before the newest moment it said something first.
    seconds: f64,
    is_there: bool,
}

/// What was counted over a time.
#[derive(Debug, Clone)]
pub struct Span<'a> {
    seconds: Option<f64>,
    sources: Vec<Source<'a>>,
}

/// What was added to a sample.
#[derive(Debug)]
pub struct Added<'a> {
    pub who: &'a str,
    labels: &'a [Box<str>],
    pub value: f64,
    buckets: Vec<u64>,
    /// Over how long; 0 where it is since its process began.
    seconds: f64,
    /// Whether its process is there still.
    pub is_there: bool,
}

impl Added<'_> {
    /// Of the labels, in their order, the one at this place.
    pub fn label(&self, place: usize) -> &str {
        label(self.labels, place)
    }

    /// How much of it there was a second; 0 where it is since its process began.
    pub fn per_second(&self) -> f64 {
        match self.seconds > 0.0 {
            true => self.value / self.seconds,
            false => 0.0,
        }
    }
}

impl<'a> Span<'a> {
    /// How long it is, where it is not since each process began.
    pub fn seconds(&self) -> Option<f64> {
        self.seconds
    }

    /// Samples of a family with what was added to them. One that was counted anew began at 0.
    pub fn added(&self, name: &str) -> Vec<Added<'a>> {
        let mut all = Vec::new();
        for source in &self.sources {
            let before = source.first.map_or(&[][..], |first| first.samples(name));
            let before = before.iter().map(|sample| (&*sample.labels, sample));
            let before: HashMap<_, _> = before.collect();
            let samples = source.last.samples(name).iter();
            all.extend(samples.map(|sample| {
                let old = before.get(&*sample.labels).copied();
                added(source, sample, old)
            }));
        }
        all
    }

    /// What was added in all, where it is picked.
    pub fn sum(&self, name: &str, pick: impl Fn(&Added<'_>) -> bool) -> f64 {
        let added = self.added(name);
        let picked = added.iter().filter(|added| pick(added));
        picked.map(|added| added.value).sum()
    }

    /// The same a second, of each over the time that it is known for.
    pub fn rate(&self, name: &str, pick: impl Fn(&Added<'_>) -> bool) -> f64 {
        let added = self.added(name);
        let picked = added.iter().filter(|added| pick(added));
        picked.map(Added::per_second).sum()
    }

    /// Histograms added up, by what `group` says of them, in the order in which they come.
    pub fn histograms(
        &self,
        name: &str,
        group: impl Fn(&Added<'_>) -> Option<String>,
    ) -> Vec<(String, Histogram)> {
        let mut all: Vec<(String, Histogram)> = Vec::new();
        for added in self.added(name) {
            let Some(key) = group(&added).filter(|_| !added.buckets.is_empty()) else {
                continue;
            };
            match all.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => known.add(&added.buckets),
                None => all.push((key, Histogram(added.buckets))),
            }
        }
        all
    }

    /// All of them as one.
    pub fn histogram(&self, name: &str, pick: impl Fn(&Added<'_>) -> bool) -> Histogram {
        let mut all = self.histograms(name, |added| pick(added).then(String::new));
        all.pop().map_or_else(Histogram::default, |(_, all)| all)
    }
}

fn added<'a>(source: &Source<'a>, sample: &'a Sample, old: Option<&Sample>) -> Added<'a> {
    let old = old.filter(|old| {
        let mut buckets = sample.buckets.iter().zip(&old.buckets);
        sample.value >= old.value && buckets.all(|(now, before)| now >= before)
    });
    let before = old.map_or(&[][..], |old| &old.buckets);
    let before = before.iter().chain(std::iter::repeat(&0));
    let buckets = sample.buckets.iter().zip(before);
    Added {
        who: source.who,
        labels: &sample.labels,
        value: sample.value - old.map_or(0.0, |old| old.value),
        buckets: buckets.map(|(now, before)| now - before).collect(),
        seconds: source.seconds,
        is_there: source.is_there,
    }
}

/// How many there were up to each bound, and above all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram(Vec<u64>);

impl Histogram {
    /// One of another release has other buckets, and is left out.
    fn add(&mut self, buckets: &[u64]) {
        if self.0.len() == buckets.len() {
            let all = self.0.iter_mut().zip(buckets);
            all.for_each(|(all, more)| *all += more);
        }
    }

    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// A quantile, as if what is in a bucket were evenly spread; infinite above all bounds, `None` where there is nothing.
    pub fn quantile(&self, part: f64, bounds: &[f64]) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let wanted = part * count as f64;
        let mut below = 0.0;
        for (place, here) in self.0.iter().enumerate() {
            let here = *here as f64;
            if here > 0.0 && below + here >= wanted {
                let Some(bound) = bounds.get(place) else {
                    return Some(f64::INFINITY);
                };
                let low = place.checked_sub(1).map_or(0.0, |before| bounds[before]);
                return Some(low + (bound - low) * ((wanted - below) / here));
            }
            below += here;
        }
        Some(f64::INFINITY)
    }
}

// ---- what is shown of them ----

/// What was asked of a route.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Route {
    pub name: String,
    pub count: f64,
    /// How many a second; 0 where it is since each process began.
    pub rate: f64,
    /// Answers of 500 and above.
    pub failed: f64,
    /// Answers of 400 to 499.
    pub refused: f64,
    pub hits: f64,
    pub lookups: f64,
    /// How many have a duration.
    pub timed: u64,
    pub p50: Option<f64>,
    pub p90: Option<f64>,
    pub p99: Option<f64>,
}

/// Requests that were answered, by route, cache and class of their statuses. By their durations, since a version of the policy takes
/// what it has counted along when it goes; what was refused has none.
pub fn answered<'a>(span: &Span<'a>) -> Vec<Added<'a>> {
    let timed = span.added("bazaar_request_duration_seconds").into_iter();
    let timed = timed.map(|added| Added {
        value: added.buckets.iter().sum::<u64>() as f64,
        ..added
    });
    let refused = span.added("bazaar_requests_total").into_iter();
    let refused = refused.filter(|added| added.label(1) == "refused");
    let refused = refused.map(|added| Added {
        labels: &added.labels[1..],
        ..added
    });
    timed.chain(refused).collect()
}

/// Every route that was asked for.
pub fn routes(span: &Span<'_>) -> Vec<Route> {
    let mut all: Vec<Route> = Vec::new();
    for added in answered(span) {
        let known = route(&mut all, added.label(0));
        known.count += added.value;
        known.rate += added.per_second();
        match added.label(2) {
            "5xx" => known.failed += added.value,
            "4xx" => known.refused += added.value,
            _ => {}
        }
        match added.label(1) {
            "hit" => {
                (known.hits, known.lookups) =
                    (known.hits + added.value, known.lookups + added.value)
            }
            "miss" | "stale" | "bypass" => known.lookups += added.value,
            _ => {}
        }
    }
    let took = span.histograms("bazaar_request_duration_seconds", |added| {
        Some(added.label(0).to_owned())
    });
    for (name, took) in took {
        let known = route(&mut all, &name);
        known.timed = took.count();
        let [p50, p90, p99] = [0.5, 0.9, 0.99].map(|part| took.quantile(part, &SECONDS));
        (known.p50, known.p90, known.p99) = (p50, p90, p99);
    }
    all
}

fn route<'a>(all: &'a mut Vec<Route>, name: &str) -> &'a mut Route {
    let place = all.iter().position(|route| route.name == name);
    let place = place.unwrap_or_else(|| {
        all.push(Route {
            name: name.to_owned(),
            ..Route::default()
        });
        all.len() - 1
    });
    &mut all[place]
}

/// A part of trades' way.
#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    pub name: &'static str,
    pub count: u64,
    pub p50: Option<f64>,
    pub p99: Option<f64>,
}

/// A trade's way, in order.
pub fn stages(span: &Span<'_>) -> Vec<Stage> {
    let all = stages_took(span);
    let names = [
        "place", "lead", "commit", "queue", "store", "show", "append",
    ];
    let stage = |name: &'static str| {
        let took = took_of(&all, name);
        Stage {
            name,
            count: took.count(),
            p50: took.quantile(0.5, &SECONDS),
            p99: took.quantile(0.99, &SECONDS),
        }
    };
    names.map(stage).to_vec()
}

/// How long each stage took.
pub fn stages_took(span: &Span<'_>) -> Vec<(String, Histogram)> {
    span.histograms("bazaar_trade_stage_seconds", |added| {
        Some(added.label(0).to_owned())
    })
}

/// That of one.
pub fn took_of(all: &[(String, Histogram)], name: &str) -> Histogram {
    let found = all.iter().find(|(known, _)| known == name);
    found.map_or_else(Histogram::default, |(_, took)| took.clone())
}

/// What became of trades.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Trades {
    pub traded: f64,
    pub refused: f64,
    pub unavailable: f64,
}

pub fn trades(span: &Span<'_>) -> Trades {
    let of = |result: &str| span.sum("bazaar_trades_total", |added| added.label(0) == result);
    Trades {
        traded: of("traded"),
        refused: of("refused"),
        unavailable: of("unavailable"),
    }
}

/// The share of lookups that the caches answered.
pub fn hit_ratio(span: &Span<'_>) -> Option<f64> {
    let hits = span.sum("bazaar_cache_lookups_total", |added| {
        added.label(1) == "hit"
    });
    let all = span.sum("bazaar_cache_lookups_total", |_| true);
    (all > 0.0).then(|| hits / all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn figures(said: Value) -> Arc<Figures> {
        Arc::new(serde_json::from_value(said).unwrap())
    }

    fn gateway(said: Value) -> Sources {
        vec![("gateway a".to_owned(), figures(said))]
    }

    #[test]
    fn families_are_in_order_so_that_they_are_found() {
        assert!(FAMILIES.is_sorted());
    }

    #[test]
    fn what_was_added_is_told_and_what_began_anew_began_at_nothing() {
        let mut history = History::default();
        let trades = |traded: u64| json!({ "bazaar_trades_total": [[["traded"], traded]] });
        let sum = |history: &History| history.over(60.0).map(|span| self::trades(&span).traded);
        history.add(1.0, gateway(trades(100)));
        assert_eq!(sum(&history), None);
        history.add(1.0, gateway(trades(100)));
        assert_eq!(sum(&history), None);
        history.add(31.0, gateway(trades(150)));
        assert_eq!(sum(&history), Some(50.0));
        history.add(32.0, gateway(trades(7)));
        let newest = history.over(1.0).unwrap();
        assert_eq!(
            (self::trades(&newest).traded, newest.seconds()),
            (7.0, Some(1.0))
        );
        // Of who has just come nothing is known, and who has left did what it did.
        let other = |traded| vec![("gateway b".to_owned(), figures(trades(traded)))];
        history.add(33.0, other(9));
        assert_eq!(sum(&history), Some(7.0));
        assert_eq!(self::trades(&history.since_start().unwrap()).traded, 9.0);
        // It counts from when it came, and so does how often that is.
        history.add(37.0, other(19));
        assert_eq!(sum(&history), Some(17.0));
        let minute = history.over(60.0).unwrap();
        let of_other = |added: &Added<'_>| added.who == "gateway b";
        assert_eq!(minute.rate("bazaar_trades_total", of_other), 2.5);
        let added = minute.added("bazaar_trades_total");
        let there = added.iter().filter(|added| added.is_there);
        let there: Vec<_> = there.map(|added| added.who).collect();
        assert_eq!(there, ["gateway b"]);
        // It was away.
        history.add(100.0, gateway(trades(9)));
        assert_eq!(sum(&history), None);
    }

    #[test]
    fn quantiles_are_as_the_console_has_them() {
        let mut buckets = vec![0; 20];
        (buckets[1], buckets[2]) = (2, 2);
        let took = Histogram(buckets);
        assert_eq!(took.quantile(0.5, &SECONDS), Some(20e-6));
        assert_eq!(took.quantile(1.0, &SECONDS), Some(50e-6));
        let mut above = vec![0; 20];
        above[19] = 1;
        assert_eq!(
            Histogram(above).quantile(0.5, &SECONDS),
            Some(f64::INFINITY)
        );
        assert_eq!(Histogram::default().quantile(0.5, &SECONDS), None);
        assert_eq!(DECISIONS.last(), Some(&0.02));
    }

    #[test]
    fn what_is_not_in_the_form_of_figures_is_left_out() {
        let said = figures(json!({
            "bazaar_ready": [[[], 1]],
            "bazaar_connections": "many",
            "bazaar_connections_max": [[[1], 2]],
            "bazaar_trades_total": [[["traded"], "x"]],
            "bazaar_trade_stage_seconds": [[["place"], 1, [-1]]],
            "bazaar_unheard_of": [[[], 1]],
        }));
        assert_eq!(said.0.keys().collect::<Vec<_>>(), ["bazaar_ready"]);
        assert!(figures(json!("nonsense")).0.is_empty());
        assert!(figures(json!(null)).0.is_empty());
    }

    #[test]
    fn moments_are_forgotten_rather_than_held_without_a_bound() {
        let mut history = History::default();
        for second in 0..1000 {
            history.add(
                f64::from(second),
                gateway(json!({ "bazaar_ready": [[[], 1]] })),
            );
        }
        assert_eq!(history.moments.len(), MOMENTS_MAX);
        assert_eq!(history.over(60.0).unwrap().seconds(), Some(60.0));
        // A label that takes a third of what there may be.
        let long = "x".repeat(MOMENTS_BYTES_MAX / 3);
        let large = figures(json!({ "bazaar_trades_total": [[[long], 1]] }));
        for second in 1000..1010 {
            history.add(
                f64::from(second),
                vec![("gateway a".to_owned(), Arc::clone(&large))],
            );
        }
        assert!(history.moments.len() < 4, "{}", history.moments.len());
        assert!(history.bytes <= MOMENTS_BYTES_MAX, "{}", history.bytes);
    }
}
