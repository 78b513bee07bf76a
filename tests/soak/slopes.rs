//! Straight lines through what was measured, by least squares, and how sure they are.

/// Values over time.
pub struct Series {
    pub hours: Vec<f64>,
    /// Millions of rows by then.
    pub millions: Vec<f64>,
    pub values: Vec<f64>,
}

/// A slope and its standard error.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slope {
    pub slope: f64,
    pub error: f64,
}

impl Slope {
    /// Of values over places; nothing is known of fewer than three.
    pub fn of(places: &[f64], values: &[f64]) -> Self {
        let count = places.len() as f64;
        if places.len() < 3 {
            return Self {
                slope: 0.0,
                error: f64::INFINITY,
            };
        }
        let mean = |of: &[f64]| of.iter().sum::<f64>() / count;
        let (place_mean, value_mean) = (mean(places), mean(values));
        let pairs = || places.iter().zip(values);
        let spread: f64 = places
            .iter()
            .map(|place| (place - place_mean).powi(2))
            .sum();
        let together: f64 = pairs()
            .map(|(place, value)| (place - place_mean) * (value - value_mean))
            .sum();
        let slope = together / spread;
        let rest = |(place, value): (&f64, &f64)| {
            (value - value_mean - slope * (place - place_mean)).powi(2)
        };
        let error = (pairs().map(rest).sum::<f64>() / (count - 2.0) / spread).sqrt();
        Self { slope, error }
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
    /// Whether it does not rise by more than is allowed, as far as two standard errors tell.
    pub fn is_good(&self) -> bool {
        let surely = self.per_hour.slope - 2.0 * self.per_hour.error;
        self.allowed.is_none_or(|allowed| surely <= allowed)
    }

    pub fn line(&self) -> String {
        let allowed = match self.allowed {
            None => "not judged".to_owned(),
            Some(allowed) => format!("{allowed:.2} an hour allowed"),
        };
        format!(
            "{}: mean {:.2}, slope {:.3} ± {:.3} an hour, {:.3} ± {:.3} a million rows; {allowed}",
            self.name,
            self.mean,
            self.per_hour.slope,
            self.per_hour.error,
            self.per_million.slope,
            self.per_million.error
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
    let line = series(|hour| 3.0 + 2.0 * hour);
    let Slope { slope, error } = Slope::of(&line.hours, &line.values);
    assert!(
        (slope - 2.0).abs() < 1e-9 && error < 1e-6,
        "{slope} {error}"
    );
    let per_million = Slope::of(&line.millions, &line.values).slope;
    assert!((per_million - 0.2).abs() < 1e-9, "{per_million}");
}
