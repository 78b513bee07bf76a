//! The charts of Bazaar's reports, as SVG: no script, no font, nothing to load.
//!
//! - [`Lines`]: how figures change over the steps of a sweep;
//! - [`Bars`]: figures side by side, with the range that they were seen in.

#![warn(missing_docs)]

mod lines;
mod bars;

use plotters::style::RGBColor;

pub use bars::{Bar, Bars};
pub use lines::{Lines, Scale, Series};

/// A chart's size in pixels.
const SIZE: (u32, u32) = (760, 420);

/// Told apart also by those who see few colours (Okabe & Ito, "Color Universal Design", 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(90, 90, 90),
];

const FONT: &str = "sans-serif";

/// Why there is no chart.
#[derive(Debug, thiserror::Error)]
pub enum ChartError {
    /// There is no figure in it.
    #[error("the chart \"{0}\" has no figures")]
    Empty(String),
    /// It cannot be drawn.
    #[error("the chart \"{title}\" cannot be drawn: {reason}")]
    Drawing {
        /// The chart's title.
        title: String,
        /// What is in the way.
        reason: String,
    },
}

impl ChartError {
    fn drawing(title: &str, reason: impl ToString) -> Self {
        Self::Drawing {
            title: title.to_owned(),
            reason: reason.to_string(),
        }
    }
}

/// A figure as an axis shows it: 1500 as "1.5k".
fn short(figure: f64) -> String {
    let (figure, unit) = match figure.abs() {
        1e6.. => (figure / 1e6, "M"),
        1e3.. => (figure / 1e3, "k"),
        _ => (figure, ""),
    };
    let digits = match figure.abs() {
        100.0.. => 0,
        10.0.. => 1,
        _ => 2,
    };
    let text = format!("{figure:.digits$}");
    let text = match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.'),
        None => &text,
    };
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_on_an_axis_are_short() {
        for (figure, expected) in [
            (0.0, "0"),
            (0.25, "0.25"),
            (7.0, "7"),
            (100.0, "100"),
            (1500.0, "1.5k"),
            (82_341.0, "82.3k"),
            (2_000_000.0, "2M"),
        ] {
            assert_eq!(short(figure), expected);
        }
    }
}
