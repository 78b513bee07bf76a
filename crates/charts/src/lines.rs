//! How figures change over the steps of a sweep.

use plotters::prelude::{
    ChartBuilder, Circle, EmptyElement, IntoDrawingArea, LineSeries, PathElement, SVGBackend,
    SeriesLabelPosition,
};
use plotters::style::{BLACK, Color, ShapeStyle, WHITE};

use crate::{COLOURS, ChartError, FONT, SIZE, short};

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

    /// What stands at a place of the vertical axis.
    fn label(&self, place: f64) -> String {
        match self.scale {
            Scale::Linear => short(place),
            Scale::Logarithmic => short(10_f64.powf(place)),
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
            Scale::Logarithmic => (low.floor(), (high + 0.05).ceil()),
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
        let last_step = self.steps.len().saturating_sub(1) as f64;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, (FONT, 18))
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(-0.3..last_step + 0.3, low..high)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .x_labels(self.steps.len() * 2 + 1)
            .x_label_formatter(&|place| self.step_at(*place))
            .y_label_formatter(&|place| self.label(*place))
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
            chart
                .draw_series(
                    points.map(|point| {
                        EmptyElement::at(point) + Circle::new((0, 0), 3, colour.filled())
                    }),
                )
                .map_err(|error| failed(&error))?
                .label(&series.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.2))
            .label_font((FONT, 13))
            .draw()
            .map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))
    }

    /// The step that stands at a place of the horizontal axis, where one does.
    fn step_at(&self, place: f64) -> String {
        let nearest = place.round();
        if (place - nearest).abs() > 0.01 || nearest < 0.0 {
            return String::new();
        }
        self.steps
            .get(nearest as usize)
            .cloned()
            .unwrap_or_default()
    }
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
    fn a_chart_of_nothing_is_an_error() {
        let nothing = chart(Scale::Linear, vec![None]);
        assert!(matches!(nothing.to_svg(), Err(ChartError::Empty(_))));
    }
}
