//! What measurements have in common: how large they are, what they keep of latencies, and how figures spread.

use std::env;
use std::fmt;

use hdrhistogram::Histogram;

/// Longest latency that is told from longer ones, and how many digits of each are kept.
const LATENCY_US_MAX: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// Latencies in microseconds.
pub type Latencies = Histogram<u32>;

pub fn no_latencies() -> Latencies {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("the bounds are constants")
}

/// What a variable of the environment says, where it is there.
pub fn number(variable: &str, default: u64) -> u64 {
    let given = env::var(variable).ok();
    given.map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable}: {text} is not a number"))
    })
}

/// The median of figures, and the least and the most of them.
pub struct Spread {
    pub median: f64,
    least: f64,
    pub most: f64,
}

impl Spread {
    /// Of one figure at least.
    pub fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let mut figures: Vec<_> = figures.into_iter().collect();
        figures.sort_by(f64::total_cmp);
        Self {
            median: figures[figures.len() / 2],
            least: figures[0],
            most: figures[figures.len() - 1],
        }
    }
}

/// With as many digits as are asked for; none by default.
impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (digits, figures) = (f.precision().unwrap_or(0), self);
        let (median, least, most) = (figures.median, figures.least, figures.most);
        write!(f, "{median:.digits$} ({least:.digits$} to {most:.digits$})")
    }
}
