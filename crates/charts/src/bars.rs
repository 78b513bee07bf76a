//! Figures side by side, with the range that they were seen in.

use plotters::prelude::{
    ChartBuilder, ErrorBar, IntoDrawingArea, IntoSegmentedCoord, Rectangle, SVGBackend,
    SegmentValue,
};
use plotters::style::{BLACK, Color, WHITE};

use crate::{COLOURS, ChartError, FONT, SIZE, short};

/// One bar.
#[derive(Debug, Clone)]
pub struct Bar {
    /// What stands below it.
    pub name: String,
    /// How high it is.
    pub figure: f64,
    /// The least that was seen.
    pub low: f64,
    /// The most that was seen.
    pub high: f64,
}

/// A chart of bars.
#[derive(Debug, Clone)]
pub struct Bars {
    /// Above the chart.
    pub title: String,
    /// What the figures are, with their unit.
    pub figures_label: String,
    /// The bars, from left to right.
    pub bars: Vec<Bar>,
}

impl Bars {
    /// Draws the chart.
    ///
    /// # Errors
    /// Where it has no bars.
    pub fn to_svg(&self) -> Result<String, ChartError> {
        let mut svg = String::new();
        self.draw(&mut svg)?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), ChartError> {
        let failed = |reason: &dyn ToString| ChartError::drawing(&self.title, reason.to_string());
        if self.bars.is_empty() {
            return Err(ChartError::Empty(self.title.clone()));
        }
        let high = self.bars.iter().map(|bar| bar.high).fold(0.0, f64::max);
        let top = if high > 0.0 { high * 1.1 } else { 1.0 };
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let last = self.bars.len() - 1;
        let mut chart = ChartBuilder::on(&area)
            .caption(&self.title, (FONT, 18))
            .margin(14)
            .x_label_area_size(36)
            .y_label_area_size(72)
            .build_cartesian_2d((0..last).into_segmented(), 0.0..top)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(WHITE)
            .x_labels(self.bars.len())
            .x_label_formatter(&|place| self.name_at(place))
            .y_label_formatter(&|figure| short(*figure))
            .y_desc(&self.figures_label)
            .label_style((FONT, 13))
            .draw()
            .map_err(|error| failed(&error))?;
        let bars = self.bars.iter().enumerate().map(|(place, bar)| {
            let colour = COLOURS[place % COLOURS.len()].mix(0.8).filled();
            let mut shape = Rectangle::new(
                [
                    (SegmentValue::Exact(place), 0.0),
                    (SegmentValue::Exact(place + 1), bar.figure),
                ],
                colour,
            );
            shape.set_margin(0, 0, 14, 14);
            shape
        });
        chart.draw_series(bars).map_err(|error| failed(&error))?;
        let ranges = self.bars.iter().enumerate().map(|(place, bar)| {
            let centre = SegmentValue::CenterOf(place);
            ErrorBar::new_vertical(centre, bar.low, bar.figure, bar.high, BLACK.filled(), 10)
        });
        chart.draw_series(ranges).map_err(|error| failed(&error))?;
        area.present().map_err(|error| failed(&error))
    }

    fn name_at(&self, place: &SegmentValue<usize>) -> String {
        match place {
            SegmentValue::CenterOf(place) => self.bars.get(*place).map(|bar| bar.name.clone()),
            SegmentValue::Exact(_) | SegmentValue::Last => None,
        }
        .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bar_is_drawn_with_its_name() {
        for names in [&["nginx"][..], &["nginx", "haproxy", "bazaar"]] {
            let bars = Bars {
                title: "Lookups".to_owned(),
                figures_label: "per second".to_owned(),
                bars: names
                    .iter()
                    .map(|name| Bar {
                        name: name.to_string(),
                        figure: 80_000.0,
                        low: 79_000.0,
                        high: 81_000.0,
                    })
                    .collect(),
            };
            let svg = bars.to_svg().unwrap();
            for name in names {
                assert!(svg.contains(name), "{name} is not in {svg}");
            }
            // The background is a rectangle as well; the ranges are lines.
            let filled = svg.matches("opacity=\"0.8\"").count();
            assert_eq!(filled, names.len(), "{svg}");
        }
    }

    #[test]
    fn a_chart_of_nothing_is_an_error() {
        let nothing = Bars {
            title: String::new(),
            figures_label: String::new(),
            bars: Vec::new(),
        };
        assert!(matches!(nothing.to_svg(), Err(ChartError::Empty(_))));
    }
}
