//! How steeply what was measured rises: the median of the slopes between any two moments, and between which it lies (Sen,
//! "Estimates of the Regression Coefficient Based on Kendall's Tau", 1968). A step that comes once, such as a file that has grown
//! to what it needs, is not a rise; what rises at each of several steps is.

/// Values over time.
pub struct Series {
    pub hours: Vec<f64>,
    /// Millions of rows by then.
    pub millions: Vec<f64>,
    pub values: Vec<f64>,
}

/// A slope, and between which values it lies with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slope {
    pub slope: f64,
    pub least: f64,
    pub most: f64,
}

/// Of the normal distribution, so that 95 % lie between.
const QUANTILE: f64 = 1.96;

impl Slope {
    /// Of values over places that rise; nothing is known of fewer than three.
    pub fn of(places: &[f64], values: &[f64]) -> Self {
        let points: Vec<_> = places.iter().zip(values).collect();
        let mut slopes = Vec::new();
        for (index, (place, value)) in points.iter().enumerate() {
            let before = points[..index].iter();
            let before = before.filter(|(before, _)| before < place);
            slopes.extend(before.map(|(x, y)| (*value - *y) / (*place - *x)));
        }
        slopes.sort_by(f64::total_cmp);
        let (Some(last), count) = (slopes.len().checked_sub(1), points.len() as f64) else {
            return Self {
                slope: 0.0,
                least: f64::NEG_INFINITY,
                most: f64::INFINITY,
            };
        };
        let spread = QUANTILE * (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
        let middle = slopes.len() as f64 / 2.0;
        let at = |place: f64| slopes[(place.max(0.0) as usize).min(last)];
        Self {
            slope: at(middle),
            least: at(middle - spread / 2.0),
            most: at(middle + spread / 2.0 + 1.0),
        }
    }
}

/// What became of one series.
pub struct Judged {
    name: String,
    mean: f64,
    per_hour: Slope,
    per_million: Slope,
    /// How much it may rise in an hour, where that is judged.
    allowed: Option<f64>,
}

impl Series {
    pub fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len().max(1) as f64
    }

    /// From the first to the last.
    pub fn span_hours(&self) -> f64 {
        let ends = self.hours.first().zip(self.hours.last());
        ends.map_or(f64::INFINITY, |(first, last)| last - first)
    }

    pub fn judged(&self, name: String, allowed: Option<f64>) -> Judged {
        Judged {
            name,
            mean: self.mean(),
            per_hour: Slope::of(&self.hours, &self.values),
            per_million: Slope::of(&self.millions, &self.values),
            allowed,
        }
    }
}

impl Judged {
    /// Whether it does not rise by more than is allowed, as far as that is certain.
    pub fn is_good(&self) -> bool {
        self.allowed
            .is_none_or(|allowed| self.per_hour.least <= allowed)
    }

    /// Whether noise would not hide a rise by what is allowed.
    pub fn is_sure(&self) -> bool {
        let spread = (self.per_hour.most - self.per_hour.least) / 2.0;
        self.allowed.is_none_or(|allowed| spread <= allowed)
    }

    /// Whether it is memory or room on a disk.
    pub fn is_kept(&self) -> bool {
        self.name.ends_with("MiB")
    }

    pub fn line(&self) -> String {
        let allowed = match self.allowed {
            None => "not judged".to_owned(),
            Some(allowed) => format!("{allowed:.2} an hour allowed"),
        };
        let said = |of: Slope| format!("{:.3} ({:.3} to {:.3})", of.slope, of.least, of.most);
        format!(
            "{}: mean {:.2}, slope {} an hour, {} a million rows; {allowed}",
            self.name,
            self.mean,
            said(self.per_hour),
            said(self.per_million)
        )
    }
}

fn series(value: impl Fn(f64) -> f64) -> Series {
    let hours: Vec<f64> = (0..100).map(|place| f64::from(place) / 100.0).collect();
    Series {
        millions: hours.iter().map(|hour| 10.0 * hour).collect(),
        values: hours.iter().map(|hour| value(*hour)).collect(),
        hours,
    }
}

/// Neither rises nor falls.
fn noise(hour: f64) -> f64 {
    (hour * 7_919.0).sin()
}

#[test]
fn what_rises_by_more_than_is_allowed_is_told_from_noise() {
    let is_good =
        |value: &dyn Fn(f64) -> f64| series(value).judged(String::new(), Some(16.0)).is_good();
    assert!(is_good(&|hour| 100.0 + 5.0 * noise(hour)));
    assert!(is_good(&|hour| 100.0 + 10.0 * hour + noise(hour)));
    assert!(is_good(&|hour| 100.0 - 200.0 * hour));
    assert!(!is_good(&|hour| 100.0 + 20.0 * hour + noise(hour)));
    assert!(!is_good(&|hour| 100.0 + 60.0 * hour + 5.0 * noise(hour)));
    let noisy = series(|hour| 100.0 + 300.0 * noise(hour)).judged(String::new(), Some(16.0));
    assert!(noisy.is_good() && !noisy.is_sure());
    // Once it has what it needs it takes no more; what takes more time after time does not end so.
    assert!(is_good(&|hour| if hour < 0.2 { 100.0 } else { 190.0 }));
    assert!(!is_good(&|hour| 100.0 + 6.0 * (hour * 5.0).floor()));
    assert!(series(noise).judged(String::new(), Some(16.0)).is_sure());
    let line = series(|hour| 3.0 + 2.0 * hour);
    let Slope { slope, least, most } = Slope::of(&line.hours, &line.values);
    for of in [slope, least, most] {
        assert!((of - 2.0).abs() < 1e-9, "{slope} ({least} to {most})");
    }
    let per_million = Slope::of(&line.millions, &line.values).slope;
    assert!((per_million - 0.2).abs() < 1e-9, "{per_million}");
}
