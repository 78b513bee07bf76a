//! What was measured: as JSON, as tables in Markdown, and as plots.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use charts::{Bar as ChartBar, Bars};
use serde::{Deserialize, Serialize};

use crate::bars::{Bar, bars, interval};
use crate::error::Error;
use crate::machine::Machine;
use crate::rounds::Round;
use crate::scenario::{BAZAAR, Kind, Scenario};
use crate::statistics::{Interval, Spread};
use crate::trial::Trial;

/// The file that everything else can be made from.
pub const FILE: &str = "bench.json";

/// A comparison that has been run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    /// How often all contenders were started.
    #[serde(default = "once")]
    pub sittings: usize,
    /// How often each contender took its turn in a sitting.
    pub rounds: usize,
    /// How long a turn lasted.
    pub seconds: u64,
    pub scenarios: Vec<Scenario>,
    /// What else was measured.
    #[serde(default)]
    pub trials: Vec<Trial>,
    /// What they had to reach.
    pub bars: Vec<Bar>,
}

/// As it was before there were sittings.
fn once() -> usize {
    1
}

impl Report {
    /// Judges what was measured.
    pub fn new(
        machine: Machine,
        sittings: usize,
        rounds: usize,
        seconds: u64,
        scenarios: Vec<Scenario>,
    ) -> Self {
        Self {
            machine,
            sittings,
            rounds,
            seconds,
            bars: bars(&scenarios, rounds),
            trials: Vec::new(),
            scenarios,
        }
    }

    /// Adds what else was measured, and judges it.
    pub fn with_trials(mut self, trials: Vec<Trial>) -> Self {
        let bars = trials.iter().flat_map(|trial| trial.bars(self.rounds));
        self.bars.extend(bars);
        self.trials.extend(trials);
        self
    }

    /// Reads one that was written.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::file(path))?;
        serde_json::from_str(&text).map_err(|source| Error::Report {
            path: path.to_owned(),
            source,
        })
    }

    /// Writes JSON, Markdown and plots into a directory.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        fs::create_dir_all(dir).map_err(Error::file(dir))?;
        let write = |name: &str, text: &str| {
            let path = dir.join(name);
            fs::write(&path, text).map_err(Error::file(&path))
        };
        let json = serde_json::to_string_pretty(self).expect("figures are JSON");
        write(FILE, &format!("{json}\n"))?;
        write("bench.md", &self.to_markdown())?;
        for scenario in &self.scenarios {
            write(&format!("{}.svg", file_name(scenario)), &plot(scenario)?)?;
        }
        Ok(())
    }

    /// Tables of all figures, and of the bars.
    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "{}, load average {} at the beginning; {}{} rounds of {} s each. Median (min–max){}.\n\n",
            self.machine.describe(),
            self.machine.load_average,
            match self.sittings {
                1 => String::new(),
                sittings => format!("started {sittings} times for "),
            },
            self.rounds,
            self.seconds,
            match self.sittings {
                1 => "",
                _ => "; in brackets where the median of sittings lies, by 95 %",
            }
        );
        for scenario in &self.scenarios {
            text += &table(scenario, self.rounds);
        }
        text.extend(self.trials.iter().map(Trial::to_markdown));
        if self.bars.is_empty() {
            return text;
        }
        text += "| bar | median ratio (min–max) | |\n|---|---|---|\n";
        for bar in &self.bars {
            let ratio = show_ratio(&bar.ratio, bar.interval);
            writeln!(text, "| {} | {ratio} | {} |", bar.claim, bar.verdict())
                .expect("a string takes it all");
        }
        text
    }
}

/// A scenario's name in files.
fn file_name(scenario: &Scenario) -> String {
    let kind = match scenario.kind {
        Kind::Lookups => "lookups",
        Kind::Trades => "trades",
        Kind::Batches => "batches",
    };
    format!("{kind}-{}", scenario.connections)
}

/// A scenario's name in titles.
pub fn title(kind: Kind, connections: u32) -> String {
    let kind = match kind {
        Kind::Lookups => "Cached lookups",
        Kind::Trades => "Trades",
        Kind::Batches => "Orders in batches",
    };
    let plural = if connections == 1 { "" } else { "s" };
    format!("{kind}, {connections} connection{plural}")
}

fn table(scenario: &Scenario, rounds: usize) -> String {
    let mut text = format!(
        "**{}**\n\n| contender | per second | p50 µs | p99 µs | bazaar's rate ÷ this one's | what it does not offer |\n\
         |---|---|---|---|---|---|\n",
        title(scenario.kind, scenario.connections)
    );
    for series in &scenario.series {
        let whole = |figure: f64| format!("{figure:.0}");
        let cell = |figure: fn(&Round) -> f64| {
            let spread = series.spread(figure);
            spread.map_or_else(String::new, |spread| show(&spread, whole))
        };
        let rate: fn(&Round) -> f64 = |round| round.per_second;
        let ratio = scenario
            .series(BAZAAR)
            .filter(|_| series.contender != BAZAAR)
            .and_then(|ours| {
                let ours: Vec<f64> = ours.figures(rate).collect();
                let theirs: Vec<f64> = series.figures(rate).collect();
                let ratio = Spread::of_ratios(ours.iter().copied(), theirs.iter().copied())?;
                Some(show_ratio(&ratio, interval(&ours, &theirs, rounds)))
            });
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            series.contender,
            cell(rate),
            cell(|round| round.p50_us),
            cell(|round| round.p99_us),
            ratio.unwrap_or_default(),
            series.lacks,
        )
        .expect("a string takes it all");
    }
    for absent in &scenario.absent {
        writeln!(text, "\nNot measured: {absent}.").expect("a string takes it all");
    }
    text + "\n"
}

fn show(spread: &Spread, number: impl Fn(f64) -> String) -> String {
    let Spread { median, min, max } = *spread;
    format!("{} ({}–{})", number(median), number(min), number(max))
}

/// With as many digits as are worth something.
fn show_ratio(ratio: &Spread, interval: Option<Interval>) -> String {
    match interval {
        None => show(ratio, |ratio| format!("{ratio:.2}")),
        Some(Interval { low, high }) => {
            let ratio = show(ratio, |ratio| format!("{ratio:.3}"));
            format!("{ratio} [{low:.3}–{high:.3}]")
        }
    }
}

fn plot(scenario: &Scenario) -> Result<String, Error> {
    let bars = scenario.series.iter().filter_map(|series| {
        let spread = series.spread(|round| round.per_second)?;
        Some(ChartBar {
            name: series.contender.clone(),
            figure: spread.median,
            low: spread.min,
            high: spread.max,
        })
    });
    let chart = Bars {
        title: title(scenario.kind, scenario.connections),
        figures_label: "per second".to_owned(),
        bars: bars.collect(),
    };
    Ok(chart.to_svg()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::Series;

    fn report() -> Report {
        let series = |contender: &str, per_second: f64| Series {
            contender: contender.to_owned(),
            lacks: format!("what {contender} has not"),
            rounds: [0.9, 1.0, 1.1]
                .map(|factor| Round {
                    per_second: per_second * factor,
                    p50_us: 800.0,
                    p99_us: 1600.0,
                })
                .into(),
        };
        let scenario = Scenario {
            kind: Kind::Lookups,
            connections: 64,
            series: vec![
                series(BAZAAR, 70_000.0),
                series("nginx", 56_000.0),
                series("haproxy", 80_000.0),
            ],
            absent: vec!["there is no varnishd".to_owned()],
        };
        let machine = Machine {
            processor: "AMD EPYC".to_owned(),
            cores: 2,
            kernel: "6.1".to_owned(),
            memory_bytes: 8 << 30,
            governor: None,
            is_virtual: None,
            file_system: "ext4 /dev/vda".to_owned(),
            load_average: 0.5,
        };
        Report::new(machine, 1, 3, 2, vec![scenario])
    }

    #[test]
    fn tables_give_medians_ranges_ratios_and_verdicts() {
        let text = report().to_markdown();
        for part in [
            "| nginx | 56000 (50400–61600) | 800 (800–800) | 1600 (1600–1600) | 1.25 (1.25–1.25) | what nginx has not |",
            "| haproxy | 80000 (72000–88000) | 800 (800–800) | 1600 (1600–1600) | 0.88 (0.88–0.88) | what haproxy has not |",
            "2 × AMD EPYC, 8 GiB, Linux 6.1, data on ext4 /dev/vda, load average 0.5 at the beginning; 3 rounds",
            "Not measured: there is no varnishd.",
            "| 0.88 (0.88–0.88) | **not met** |",
            "p99 at most 1.0 × HAProxy's | 1.00 (1.00–1.00) | met |",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
    }

    #[test]
    fn a_report_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let report = report();
        report.write(dir.path()).unwrap();
        let file = dir.path().join(FILE);
        assert_eq!(Report::read(&file).unwrap(), report);
        let plot = fs::read_to_string(dir.path().join("lookups-64.svg")).unwrap();
        assert!(plot.starts_with("<svg") && plot.contains("haproxy"));
        assert!(Report::read(&dir.path().join("bench.md")).is_err());
    }
}
