//! What was measured over the steps of one quantity.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use charts::{Lines, Scale, Series};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::generator::Figures;

/// Figures over the steps of one quantity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What grows; its file is named after it.
    pub subject: String,
    pub steps: Vec<String>,
    /// What was measured at each.
    pub lines: Vec<Line>,
    /// What is to be known about it.
    pub notes: Vec<String>,
}

/// One kind of figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub name: String,
    /// In what; lines of one unit share a plot.
    pub unit: String,
    /// A figure for each step.
    pub figures: Vec<Option<f64>>,
}

impl Curve {
    pub fn of(subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            steps: Vec::new(),
            lines: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Adds a step; figures are added to it from here on.
    pub fn step(&mut self, step: impl ToString) {
        self.steps.push(step.to_string());
        eprintln!("{}: {}", self.subject, step.to_string());
    }

    /// Adds a figure to the last step.
    pub fn add(&mut self, name: &str, unit: &str, figure: f64) {
        eprintln!("    {name}: {figure:.1} {unit}");
        let found = self
            .lines
            .iter()
            .position(|line| line.name == name && line.unit == unit);
        let place = found.unwrap_or_else(|| {
            self.lines.push(Line {
                name: name.to_owned(),
                unit: unit.to_owned(),
                figures: Vec::new(),
            });
            self.lines.len() - 1
        });
        let figures = &mut self.lines[place].figures;
        figures.resize(self.steps.len().saturating_sub(1), None);
        figures.push(Some(figure));
    }

    /// Adds how many and how long.
    pub fn add_figures(&mut self, name: &str, figures: &Figures) {
        self.add(name, "per second", figures.per_second());
        self.add(&format!("{name}, p50"), "µs", figures.p50_us);
        self.add(&format!("{name}, p99"), "µs", figures.p99_us);
    }

    /// Adds what each process that still runs holds in memory.
    pub fn add_memory(&mut self, memory: &BTreeMap<String, u64>) {
        for (name, bytes) in memory.iter().filter(|(_, bytes)| **bytes > 0) {
            self.add(name, "MiB", *bytes as f64 / f64::from(1 << 20));
        }
    }

    /// A table: a row for each step.
    pub fn to_markdown(&self) -> String {
        let mut text = format!("**Over {}**\n\n| {0} |", self.subject);
        for line in &self.lines {
            write!(text, " {}, {} |", line.name, line.unit).expect("a string takes it all");
        }
        text += &format!("\n|---|{}\n", "---|".repeat(self.lines.len()));
        for (place, step) in self.steps.iter().enumerate() {
            write!(text, "| {step} |").expect("a string takes it all");
            for line in &self.lines {
                match line.figures.get(place).copied().flatten() {
                    Some(figure) if figure >= 100.0 => write!(text, " {figure:.0} |"),
                    Some(figure) => write!(text, " {figure:.2} |"),
                    None => write!(text, " |"),
                }
                .expect("a string takes it all");
            }
            text.push('\n');
        }
        for note in &self.notes {
            text += &format!("\n{note}\n");
        }
        text + "\n"
    }

    /// Writes a plot for each unit, where there is more than one step.
    pub fn write_plots(&self, dir: &Path) -> Result<(), Error> {
        if self.steps.len() < 2 {
            return Ok(());
        }
        let mut units: Vec<&str> = self.lines.iter().map(|line| line.unit.as_str()).collect();
        units.sort_unstable();
        units.dedup();
        for unit in units {
            let of_unit = self.lines.iter().filter(|line| line.unit == unit);
            let chart = Lines {
                title: format!("Over {}", self.subject),
                steps_label: self.subject.clone(),
                steps: self.steps.clone(),
                figures_label: unit.to_owned(),
                scale: if unit == "µs" {
                    Scale::Logarithmic
                } else {
                    Scale::Linear
                },
                series: of_unit
                    .map(|line| Series {
                        name: line.name.clone(),
                        figures: line.figures.clone(),
                    })
                    .collect(),
            };
            let words = format!("growth {} {unit}", self.subject).replace('µ', "u");
            let path = dir.join(format!("{}.svg", words.replace(' ', "-")));
            fs::write(&path, chart.to_svg()?).map_err(Error::file(&path))?;
        }
        Ok(())
    }
}

/// Writes curves as JSON, as tables and as plots.
pub fn write(curves: &[Curve], dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::file(dir))?;
    let write = |name: &str, text: String| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::file(&path))
    };
    let json = serde_json::to_string_pretty(curves).expect("figures are JSON");
    write("growth.json", format!("{json}\n"))?;
    write("growth.md", curves.iter().map(Curve::to_markdown).collect())?;
    curves.iter().try_for_each(|curve| curve.write_plots(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_the_figures_that_were_added_to_it() {
        let mut curve = Curve::of("connections");
        curve.step(1);
        curve.add("lookups", "per second", 12_345.6);
        curve.step(64);
        curve.add("trades", "per second", 7.0);
        let text = curve.to_markdown();
        for line in [
            "| connections | lookups, per second | trades, per second |",
            "| 1 | 12346 | |",
            "| 64 | | 7.00 |",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        let dir = tempfile::tempdir().unwrap();
        write(&[curve.clone()], dir.path()).unwrap();
        let json = fs::read_to_string(dir.path().join("growth.json")).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Curve>>(&json).unwrap(), [curve]);
        assert!(
            dir.path()
                .join("growth-connections-per-second.svg")
                .is_file()
        );
    }
}
