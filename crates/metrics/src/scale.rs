//! What histograms tell apart: classic buckets, whose bounds are round numbers, and native ones, whose bounds Prometheus
//! gives (<https://prometheus.io/docs/specs/native_histograms/>). Both are gathered from cells, which end wherever a
//! bucket of either kind does: so whatever is noted is counted once.

/// The layout of native buckets: each doubling is 2 to the power of this of them, and each ends 9 % above the one before.
/// Prometheus' libraries choose it where a factor of 1.1 is asked for.
pub(crate) const SCHEMA: i32 = 3;
const PER_DOUBLING: usize = 1 << SCHEMA;

/// Where they end within a doubling: 2 to the power of n/8.
const STEPS: [f64; PER_DOUBLING] = [
    1.0,
    1.090_507_732_665_257_7,
    1.189_207_115_002_721,
    1.296_839_554_651_009_6,
    std::f64::consts::SQRT_2,
    1.542_210_825_407_940_7,
    1.681_792_830_507_429,
    1.834_008_086_409_342_4,
];

/// Doublings that native buckets cover.
const DOUBLINGS: usize = 27;

/// Native buckets: that of zero, and those of the doublings.
const NATIVE: usize = 1 + DOUBLINGS * PER_DOUBLING;

/// Most classic bounds.
const CLASSIC_MAX: usize = 19;

/// Cells of a histogram: up to each bound of either kind and above the one before; the last is of what is above all.
pub(crate) const CELLS: usize = NATIVE + CLASSIC_MAX + 1;

/// Stretches of numbers, eight of one length to each doubling from 8 on, and below that each number its own.
const STRETCHES: usize = 62 * 8;

/// What a histogram tells apart.
#[derive(Debug)]
pub struct Scale {
    /// Inclusive upper bounds of classic buckets, rising. What is above all is in one more.
    classic: &'static [u64],
    /// The same of native ones. What is above all is in the last.
    native: [u64; NATIVE],
    /// Both of them.
    cells: [u64; CELLS - 1],
    /// The cell in which the least number of each stretch is: of the next bounds a few at most are in the same one.
    starts: [u8; STRETCHES],
    /// What is up to 2 to the power of this is in the native bucket of zero.
    zero: i32,
    /// How many of what is counted are one of what is exported.
    per_unit: f64,
}

/// Times: 1, 2 and 5 of each power of ten, from 10 µs to 10 s; native from 1 µs to 128 s.
pub static SECONDS: Scale = Scale::new(&log_spaced::<19>(10_000), -20, 1e9);

/// Times of what takes microseconds: 1, 2 and 5 of each power of ten, from 1 µs to 20 ms; native from 60 ns to 8 s.
pub static SHORT_SECONDS: Scale = Scale::new(&log_spaced::<14>(1_000), -24, 1e9);

/// Rows: 1, 2 and 5 of each power of ten, from 1 to a million; native to 67 million.
pub static ROWS: Scale = Scale::new(&log_spaced::<19>(1), -1, 1.0);

/// The native buckets of a histogram, as the protocol has them.
#[derive(Debug, PartialEq)]
pub(crate) struct Native {
    /// What is up to it is in the bucket of zero.
    pub(crate) zero_threshold: f64,
    pub(crate) zero_count: u64,
    /// Runs of buckets that are not empty: how many buckets each begins after the end of the one before, of which the
    /// first begins at the bucket that ends at 2 to the power of its number/8; and how many buckets it has.
    pub(crate) spans: Vec<(i32, u32)>,
    /// How much more is in each of these buckets than in the one before.
    pub(crate) deltas: Vec<i64>,
}

const fn log_spaced<const BOUNDS: usize>(first: u64) -> [u64; BOUNDS] {
    let mut bounds = [0; BOUNDS];
    let (mut at, mut decade) = (0, first);
    while at < BOUNDS {
        bounds[at] = decade * [1, 2, 5][at % 3];
        at += 1;
        if at.is_multiple_of(3) {
            decade *= 10;
        }
    }
    bounds
}

/// 2 to the power of a small number.
const fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

impl Scale {
    const fn new(classic: &'static [u64], zero: i32, per_unit: f64) -> Self {
        let mut native = [0; NATIVE];
        let mut at = 0;
        while at < NATIVE {
            let doubling = power_of_two(zero + (at / PER_DOUBLING) as i32);
            // What is counted are whole numbers.
            native[at] = (doubling * STEPS[at % PER_DOUBLING] * per_unit) as u64;
            at += 1;
        }
        let cells = merged(classic, &native);
        Self {
            classic,
            native,
            cells,
            starts: starts(&cells),
            zero,
            per_unit,
        }
    }

    /// The bounds of classic buckets, as they are exported.
    pub fn bounds(&self) -> impl Iterator<Item = f64> {
        self.classic.iter().map(|bound| self.exported(*bound))
    }

    /// A number, or a sum of them, as it is exported.
    pub(crate) fn exported(&self, value: u64) -> f64 {
        value as f64 / self.per_unit
    }

    /// The cell that a number is counted in: what is noted while a request waits is looked up without a search.
    pub(crate) fn cell(&self, value: u64) -> usize {
        let shift = (value | 8).ilog2() - 3;
        let stretch = (u64::from(shift) * 8 + (value >> shift)) as usize;
        let mut cell = usize::from(self.starts[stretch]);
        while self.cells.get(cell).is_some_and(|bound| *bound < value) {
            cell += 1;
        }
        cell
    }

    /// How many are up to each of the bounds, and above the one before; the last is of those above all.
    pub(crate) fn classic(&self, cells: &[u64; CELLS]) -> Vec<u64> {
        self.gathered(cells, self.classic)
    }

    pub(crate) fn native(&self, cells: &[u64; CELLS]) -> Native {
        let mut buckets = self.gathered(cells, &self.native);
        let above = buckets[NATIVE];
        buckets[NATIVE - 1] += above;
        let (mut spans, mut deltas) = (Vec::<(i32, u32)>::new(), Vec::new());
        // Where the last run ended.
        let (mut end, mut before) = (0, 0);
        let first = self.zero * PER_DOUBLING as i32;
        let numbered = (first..).zip(&buckets[..NATIVE]).skip(1);
        for (number, count) in numbered.filter(|(_, count)| **count > 0) {
            match spans.last_mut() {
                Some((_, length)) if number == end => *length += 1,
                _ => spans.push((number - end, 1)),
            }
            end = number + 1;
            let count = *count as i64;
            deltas.push(count - before);
            before = count;
        }
        Native {
            zero_threshold: power_of_two(self.zero),
            zero_count: buckets[0],
            spans,
            deltas,
        }
    }

    fn gathered(&self, cells: &[u64; CELLS], bounds: &[u64]) -> Vec<u64> {
        let mut buckets = vec![0; bounds.len() + 1];
        let ends = self.cells.iter().chain([&u64::MAX]);
        for (end, count) in ends.zip(cells) {
            // No bound is within a cell.
            buckets[bounds.partition_point(|bound| bound < end)] += count;
        }
        buckets
    }
}

/// All bounds, rising, and as large as can be where there are fewer.
const fn merged(classic: &[u64], native: &[u64; NATIVE]) -> [u64; CELLS - 1] {
    let mut cells = [u64::MAX; CELLS - 1];
    let (mut from_classic, mut from_native) = (0, 0);
    while from_classic < classic.len() || from_native < NATIVE {
        let is_classic = from_native == NATIVE
            || from_classic < classic.len() && classic[from_classic] < native[from_native];
        let bound = match is_classic {
            true => classic[from_classic],
            false => native[from_native],
        };
        cells[from_classic + from_native] = bound;
        match is_classic {
            true => from_classic += 1,
            false => from_native += 1,
        }
    }
    cells
}

/// For each stretch, how many bounds are below its least number.
const fn starts(cells: &[u64; CELLS - 1]) -> [u8; STRETCHES] {
    let mut starts = [0; STRETCHES];
    let (mut stretch, mut below) = (0, 0);
    while stretch < STRETCHES {
        let least = match stretch {
            0..16 => stretch as u64,
            _ => ((8 + stretch % 8) as u64) << (stretch / 8 - 1),
        };
        while below < cells.len() && cells[below] < least {
            below += 1;
        }
        assert!(below <= u8::MAX as usize);
        starts[stretch] = below as u8;
        stretch += 1;
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCALES: [&Scale; 3] = [&SECONDS, &SHORT_SECONDS, &ROWS];

    /// The cells of something that was noted once.
    fn once(scale: &Scale, value: u64) -> [u64; CELLS] {
        let mut cells = [0; CELLS];
        cells[scale.cell(value)] = 1;
        cells
    }

    /// The number of the native bucket that something is in; `None` for that of zero.
    fn number(scale: &Scale, value: u64) -> Option<i32> {
        let native = scale.native(&once(scale, value));
        assert_eq!(native.zero_count + native.spans.len() as u64, 1);
        assert_eq!(native.deltas, vec![1; native.spans.len()]);
        native.spans.first().map(|(number, length)| {
            assert_eq!(*length, 1);
            *number
        })
    }

    /// What numbers are tried: each bound of either kind, and what is beside it.
    fn values(scale: &Scale) -> impl Iterator<Item = u64> {
        let bounds = scale.cells.iter().filter(|bound| **bound < u64::MAX);
        bounds.flat_map(|bound| [bound.saturating_sub(1), *bound, bound + 1])
    }

    #[test]
    fn bounds_are_log_spaced() {
        let bounds: Vec<_> = SECONDS.bounds().collect();
        assert_eq!(bounds[..4], [10e-6, 20e-6, 50e-6, 100e-6]);
        assert_eq!(bounds.last(), Some(&10.0));
        assert_eq!(SHORT_SECONDS.bounds().last(), Some(0.02));
        assert_eq!(ROWS.bounds().next(), Some(1.0));
        for scale in SCALES {
            assert!(scale.cells.is_sorted());
            let widest = scale.classic.last().unwrap();
            assert!(widest < scale.native.last().unwrap(), "of both kinds");
        }
    }

    #[test]
    fn a_cell_is_looked_up_where_a_search_would_find_it() {
        let small = 0..10_000;
        let powers = (13..64).flat_map(|power| [(1 << power) - 1, 1 << power]);
        let all: Vec<u64> = small.chain(powers).chain([u64::MAX]).collect();
        for scale in SCALES {
            for value in values(scale).chain(all.iter().copied()) {
                let found = scale.cells.partition_point(|bound| *bound < value);
                assert_eq!(scale.cell(value), found, "{value}");
            }
        }
    }

    #[test]
    fn what_was_noted_is_in_the_first_classic_bucket_that_has_room_for_it() {
        for scale in SCALES {
            for value in values(scale) {
                let buckets = scale.classic(&once(scale, value));
                let is_above = |bound: &&u64| **bound < value;
                let expected = scale.classic.iter().filter(is_above).count();
                assert_eq!(buckets.len(), scale.classic.len() + 1);
                assert_eq!(buckets[expected], 1, "{value} in {buckets:?}");
            }
        }
    }

    #[test]
    fn native_buckets_are_those_of_the_specification() {
        for scale in SCALES {
            let (zero, last) = (scale.zero * 8, scale.zero * 8 + NATIVE as i32 - 1);
            for value in values(scale) {
                let real = value as f64 / scale.per_unit;
                // The bucket of a number n ends at 2 to the power of n/8.
                let expected = (real.log2() * 8.0).ceil() as i32;
                let expected = (expected > zero).then_some(expected.min(last));
                assert_eq!(number(scale, value), expected, "{real}");
            }
        }
        assert_eq!(number(&ROWS, 0), None);
        assert_eq!(number(&ROWS, 1), Some(0));
        assert_eq!(number(&ROWS, 2), Some(8));
        assert_eq!(number(&SECONDS, 1_000_000_000), Some(0));
        assert_eq!(number(&SECONDS, u64::MAX), Some(7 * 8));
    }

    #[test]
    fn runs_of_native_buckets_are_written_with_what_is_between_them() {
        let mut cells = [0; CELLS];
        for rows in [0, 1, 1, 1, 2, 4, 4] {
            cells[ROWS.cell(rows)] += 1;
        }
        // Two that are neighbours: up to 32, and up to 34.9.
        cells[ROWS.cell(32)] += 5;
        cells[ROWS.cell(34)] += 4;
        let expected = Native {
            zero_threshold: 0.5,
            zero_count: 1,
            spans: vec![(0, 1), (7, 1), (7, 1), (23, 2)],
            deltas: vec![3, -2, 1, 3, -1],
        };
        assert_eq!(ROWS.native(&cells), expected);
    }
}
