//! How figures change over the steps of a sweep.

use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::{
    ChartBuilder, Circle, DrawingArea, EmptyElement, IntoDrawingArea, IntoFont, LineSeries,
    PathElement, SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{BLACK, Color, RGBColor, ShapeStyle, TextStyle, WHITE};

use crate::{COLOURS, ChartError, FONT, SIZE, short};

/// What the legend takes of the width, in pixels: it is beside the lines, and covers none.
const LEGEND_WIDTH: u32 = 168;

/// Between the lines of the legend, in pixels.
const LEGEND_LINE: i32 = 22;

/// Steps that have their name at the axis, and figures that have a point, at most: more could not be told apart.
const NAMED_MAX: usize = 12;
const POINTS_MAX: usize = 24;

/// How the vertical axis counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// From 0 up.
    Linear,
    /// By powers of ten; figures that are not above 0 are left out.
    Logarithmic,
}

/// One line.
#[derive(Debug, Clone)]
pub struct Series {
    /// What the legend calls it.
    pub name: String,
    /// A figure for each step; none where it was not measured.
    pub figures: Vec<Option<f64>>,
}

/// A chart of lines over the same steps.
#[derive(Debug, Clone)]
pub struct Lines {
    /// Above the chart.
    pub title: String,
    /// What the steps are.
    pub steps_label: String,
    /// The steps, which stand equally far apart.
    pub steps: Vec<String>,
    /// What the figures are, with their unit.
    pub figures_label: String,
    /// How the vertical axis counts.
    pub scale: Scale,
    /// The lines.
    pub series: Vec<Series>,
}

impl Lines {
    /// Draws the chart.
    ///
    /// # Errors
    /// Where no series has a figure.
    pub fn to_svg(&self) -> Result<String, ChartError> {
        let mut svg = String::new();
        self.draw(&mut svg)?;
        Ok(svg)
    }

    /// The place of a figure on the vertical axis.
    fn place(&self, figure: f64) -> Option<f64> {
        match self.scale {
            Scale::Linear => Some(figure),
            Scale::Logarithmic => (figure > 0.0).then(|| figure.log10()),
        }
    }

    /// The ends of the vertical axis.
    fn range(&self) -> Option<(f64, f64)> {
        let figures = self.series.iter().flat_map(|series| &series.figures);
        let places = figures.filter_map(|figure| self.place((*figure)?));
        let (low, high) = places.fold((f64::MAX, f64::MIN), |(low, high), place| {
            (low.min(place), high.max(place))
        });
        if low > high {
            return None;
        }
        Some(match self.scale {
            Scale::Linear => (0.0, if high > 0.0 { high * 1.1 } else { 1.0 }),
            Scale::Logarithmic => {
                let (low, high) = (
                    round_below(10_f64.powf(low)),
                    round_above(10_f64.powf(high)),
                );
                (low.log10(), high.log10().max(low.log10() + 0.3))
            }
        })
    }

    /// Runs of neighbouring steps that have a figure: a gap has no line.
    fn runs(&self, series: &Series) -> Vec<Vec<(f64, f64)>> {
        let mut runs = vec![Vec::new()];
        for (step, figure) in series.figures.iter().take(self.steps.len()).enumerate() {
            match figure.and_then(|figure| self.place(figure)) {
                Some(place) => runs
                    .last_mut()
                    .expect("it begins with one")
                    .push((step as f64, place)),
                None => runs.push(Vec::new()),
            }
        }
        runs
    }

    fn draw(&self, svg: &mut String) -> Result<(), ChartError> {
        let failed = |reason: &dyn ToString| ChartError::drawing(&self.title, reason.to_string());
        let (low, high) = self
            .range()
            .ok_or_else(|| ChartError::Empty(self.title.clone()))?;
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let (chart_area, legend) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
        let axis = Axis {
            scale: self.scale,
            low,
            high,
        };
        let last_step = self.steps.len().saturating_sub(1) as f64;
        let mut chart = ChartBuilder::on(&chart_area)
            .caption(&self.title, (FONT, 18))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(-0.3..last_step + 0.3, axis)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .x_labels(self.steps.len().min(NAMED_MAX) * 2 + 1)
            .x_label_formatter(&|place| self.step_at(*place))
            .x_desc(&self.steps_label)
            .y_desc(&self.figures_label)
            .label_style((FONT, 13))
            .draw()
            .map_err(|error| failed(&error))?;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let style = ShapeStyle::from(*colour).stroke_width(2);
            let runs = self.runs(series);
            for run in &runs {
                chart
                    .draw_series(LineSeries::new(run.iter().copied(), style))
                    .map_err(|error| failed(&error))?;
            }
            let points = runs.into_iter().flatten();
            let points = points.filter(|_| self.steps.len() <= POINTS_MAX);
            chart
                .draw_series(
                    points.map(|point| {
                        EmptyElement::at(point) + Circle::new((0, 0), 3, colour.filled())
                    }),
                )
                .map_err(|error| failed(&error))?;
        }
        for (place, (series, colour)) in (0..).zip(self.series.iter().zip(COLOURS.iter().cycle())) {
            draw_legend(&legend, place, &series.name, *colour).map_err(|error| failed(&error))?;
        }
        area.present().map_err(|error| failed(&error))
    }

    /// The step that stands at a place of the horizontal axis, where one does.
    fn step_at(&self, place: f64) -> String {
        let nearest = place.round();
        let every = self.steps.len().div_ceil(NAMED_MAX).max(1);
        if (place - nearest).abs() > 0.01
            || nearest < 0.0
            || !(nearest as usize).is_multiple_of(every)
        {
            return String::new();
        }
        self.steps
            .get(nearest as usize)
            .cloned()
            .unwrap_or_default()
    }
}

/// One line of it: how the line looks, and what it is called.
fn draw_legend(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    place: i32,
    name: &str,
    colour: RGBColor,
) -> Result<(), impl ToString + use<>> {
    let y = 56 + place * LEGEND_LINE;
    let style = ShapeStyle::from(colour).stroke_width(2);
    let text = TextStyle::from((FONT, 13).into_font())
        .color(&BLACK)
        .pos(Pos::new(HPos::Left, VPos::Center));
    area.draw(&PathElement::new([(4, y), (24, y)], style))?;
    area.draw(&Text::new(name.to_owned(), (30, y), text))
}

/// The vertical axis. Places on a logarithmic one are powers of ten.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, place: &f64, limit: (i32, i32)) -> i32 {
        RangedCoordf64::from(self.range()).map(place, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match self.scale {
            Scale::Linear => RangedCoordf64::from(self.range()).key_points(hint),
            Scale::Logarithmic => {
                let (low, high) = (10_f64.powf(self.low), 10_f64.powf(self.high));
                let figures = round_figures(low, high, hint.max_num_points());
                figures.into_iter().map(f64::log10).collect()
            }
        }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, place: &f64) -> String {
        match self.scale {
            Scale::Linear => short(*place),
            Scale::Logarithmic => short(10_f64.powf(*place)),
        }
    }
}

/// Round figures: 1, 2, 5 and powers of ten of these.
const ROUND: [f64; 3] = [1.0, 2.0, 5.0];

/// Those from `low` to `high`; powers of ten alone where there would be more than that.
fn round_figures(low: f64, high: f64, count_max: usize) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let within = |figures: &[f64]| -> Vec<f64> {
        let all = powers.clone().flat_map(|power| {
            let unit = 10_f64.powi(power);
            figures.iter().map(move |figure| figure * unit)
        });
        all.filter(|figure| *figure >= low * 0.999 && *figure <= high * 1.001)
            .collect()
    };
    let round = within(&ROUND);
    match round.len() > count_max.max(2) {
        true => within(&[1.0]),
        false => round,
    }
}

/// The largest round figure that is not above.
fn round_below(figure: f64) -> f64 {
    let found = round_figures(figure / 10.0, figure, usize::MAX);
    found.last().copied().unwrap_or(figure)
}

/// The least one that is not below.
fn round_above(figure: f64) -> f64 {
    let found = round_figures(figure, figure * 10.0, usize::MAX);
    found.first().copied().unwrap_or(figure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(scale: Scale, figures: Vec<Option<f64>>) -> Lines {
        Lines {
            title: "Latency & more".to_owned(),
            steps_label: "connections".to_owned(),
            steps: vec!["1".to_owned(), "64".to_owned(), "1024".to_owned()],
            figures_label: "µs".to_owned(),
            scale,
            series: vec![Series {
                name: "lookup".to_owned(),
                figures,
            }],
        }
    }

    #[test]
    fn every_step_and_every_figure_is_drawn() {
        for scale in [Scale::Linear, Scale::Logarithmic] {
            let svg = chart(scale, vec![Some(10.0), Some(200.0), Some(3000.0)])
                .to_svg()
                .unwrap();
            for text in ["Latency &amp; more", "connections", "µs", "lookup", "1024"] {
                assert!(svg.contains(text), "{text} is not in {svg}");
            }
            assert_eq!(svg.matches("<circle").count(), 3, "{svg}");
        }
    }

    #[test]
    fn what_was_not_measured_is_a_gap() {
        let gap = chart(Scale::Linear, vec![Some(1.0), None, Some(3.0)]);
        assert_eq!(gap.runs(&gap.series[0]).len(), 2);
        assert_eq!(gap.to_svg().unwrap().matches("<circle").count(), 2);
        let zero = chart(Scale::Logarithmic, vec![Some(0.0), Some(1.0), None]);
        assert_eq!(zero.to_svg().unwrap().matches("<circle").count(), 1);
    }

    #[test]
    fn a_logarithmic_axis_has_round_figures() {
        assert_eq!(
            round_figures(3.0, 700.0, 10),
            [5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]
        );
        assert_eq!(round_figures(1.0, 1e6, 8).len(), 7);
        assert_eq!(
            (round_below(3162.0), round_above(7943.0)),
            (2000.0, 10_000.0)
        );
        let svg = chart(
            Scale::Logarithmic,
            vec![Some(1300.0), Some(3162.0), Some(7943.0)],
        )
        .to_svg()
        .unwrap();
        for figure in ["1k", "2k", "5k", "10k"] {
            assert!(
                svg.contains(&format!("\n{figure}\n")),
                "{figure} is not in {svg}"
            );
        }
        assert!(!svg.contains("3.16k") && !svg.contains("7.94k"), "{svg}");
    }

    /// Where lines are drawn, the legend is not.
    #[test]
    fn the_legend_covers_no_line() {
        let mut chart = chart(Scale::Linear, vec![Some(9.0), Some(10.0), Some(10.0)]);
        chart.series = vec![chart.series[0].clone(); 6];
        let svg = chart.to_svg().unwrap();
        let number = |text: &str| text.split('"').next()?.parse::<f64>().ok();
        let centres: Vec<f64> = svg.split("cx=\"").skip(1).filter_map(number).collect();
        let names: Vec<f64> = svg
            .match_indices("\nlookup\n")
            .filter_map(|(at, _)| number(svg[..at].rsplit("x=\"").next()?))
            .collect();
        assert_eq!((centres.len(), names.len()), (18, 6), "{svg}");
        let right_end = centres.iter().copied().fold(0.0, f64::max);
        assert!(
            names.iter().all(|left| *left > right_end),
            "{names:?} {right_end}"
        );
    }

    #[test]
    fn a_chart_of_nothing_is_an_error() {
        let nothing = chart(Scale::Linear, vec![None]);
        assert!(matches!(nothing.to_svg(), Err(ChartError::Empty(_))));
    }
}
