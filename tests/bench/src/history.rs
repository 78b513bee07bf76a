//! What runs measured, from the first to the last: a file of one JSON object a line.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::machine::Machine;
use crate::process::{self, command};
use crate::report::Report;
use crate::scenario::Scenario;
use crate::trial::Trial;

/// How lines are written. A line of another number is skipped, and named.
const SCHEMA: u32 = 1;

/// How many runs a history keeps: some 10 MB.
const RUNS_MAX: usize = 500;

/// As few digits of a commit name it.
const DIGITS_MIN: usize = 4;

/// How many digits of a commit are shown.
const DIGITS_SHOWN: usize = 10;

/// How many runs an error names.
const RUNS_SHOWN: usize = 10;

/// One run of `bench compare`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub schema: u32,
    /// When it ended, as RFC 3339 has it, in UTC.
    pub when: String,
    /// Of the working tree that it was started in, where there was one of git's.
    pub commit: Option<String>,
    /// Whether that tree was as committed.
    pub is_clean: bool,
    pub machine: Machine,
    /// How often all contenders were started.
    pub sittings: usize,
    /// How often each contender took its turn in a sitting.
    pub rounds: usize,
    /// How long a turn lasted.
    pub seconds: u64,
    /// Each contender's figures of each round.
    pub scenarios: Vec<Scenario>,
    /// What else was measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trials: Vec<Trial>,
}

impl Run {
    /// What a report says, as of now.
    pub fn of(report: &Report, tree: Option<Tree>) -> Self {
        let now = Timestamp::now();
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Self {
            schema: SCHEMA,
            when: now.to_string(),
            is_clean: tree.as_ref().is_some_and(|tree| tree.is_clean),
            commit: tree.map(|tree| tree.commit),
            machine: report.machine.clone(),
            sittings: report.sittings,
            rounds: report.rounds,
            seconds: report.seconds,
            scenarios: report.scenarios.clone(),
            trials: report.trials.clone(),
        }
    }

    /// Which one it is, in words.
    pub fn describe(&self) -> String {
        let commit = match &self.commit {
            Some(commit) => commit.get(..DIGITS_SHOWN).unwrap_or(commit),
            None => "no commit",
        };
        let changed = if self.is_clean { "" } else { ", changed" };
        format!("{}, {commit}{changed}", self.when)
    }
}

/// A working tree of git's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The commit that is checked out, in full.
    pub commit: String,
    /// Whether no file differs from it.
    pub is_clean: bool,
}

impl Tree {
    /// The one that this program was started in; none where there is no git or no repository.
    pub fn here() -> Option<Self> {
        let git = |arguments: &[&str]| {
            let mut git = command("git");
            git.args(arguments);
            process::run(git).ok()
        };
        let commit = git(&["rev-parse", "--verify", "HEAD"])?;
        let changes = git(&["status", "--porcelain"])?;
        Some(Self {
            commit: commit.trim().to_owned(),
            is_clean: changes.trim().is_empty(),
        })
    }
}

/// Adds a run as the last line, and says how many of the oldest ones had to go.
pub fn append(path: &Path, run: &Run) -> Result<usize, Error> {
    append_bounded(path, run, RUNS_MAX)
}

/// Lines that cannot be read are kept, and counted: another release may know them.
fn append_bounded(path: &Path, run: &Run, runs_max: usize) -> Result<usize, Error> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(Error::file(dir))?;
    }
    let before = match fs::read(path) {
        Ok(before) => before,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::file(path)(error)),
    };
    let line = serde_json::to_vec(run).expect("figures are JSON");
    let mut lines: Vec<&[u8]> = lines(&before).map(|(_, line)| line).collect();
    lines.push(&line);
    let dropped = lines.len().saturating_sub(runs_max);
    let mut text = lines[dropped..].join(&b'\n');
    text.push(b'\n');
    // In one step: whoever reads it meanwhile, and whatever ends this, no line is half there.
    let new = path.with_extension("new");
    fs::write(&new, text).map_err(Error::file(&new))?;
    fs::rename(&new, path).map_err(Error::file(path))?;
    Ok(dropped)
}

/// The lines that are not empty, with their numbers from 1 on.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = text.split(|byte| *byte == b'\n').enumerate();
    lines
        .map(|(index, line)| (index + 1, line.trim_ascii()))
        .filter(|(_, line)| !line.is_empty())
}

/// The runs that a file has.
#[derive(Debug, Default)]
pub struct History {
    /// In the order in which they were added.
    pub runs: Vec<Run>,
    /// Lines that are no runs, each with its number and why it is none.
    pub damaged: Vec<(usize, String)>,
}

impl History {
    /// Reads a file.
    ///
    /// # Errors
    /// Where there is no such file, or no run in it. A damaged line is none.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let no_history = |why: String| Error::NoHistory {
            path: path.to_owned(),
            why,
        };
        let text = fs::read(path).map_err(|error| no_history(error.to_string()))?;
        let mut history = Self::default();
        for (number, line) in lines(&text) {
            match parse(line) {
                Ok(run) => history.runs.push(run),
                Err(why) => history.damaged.push((number, why)),
            }
        }
        match (history.runs.is_empty(), history.damaged.len()) {
            (false, _) => Ok(history),
            (true, 0) => Err(no_history("it is empty".to_owned())),
            (true, damaged) => Err(no_history(format!(
                "none of its {damaged} lines is a run that this command can read"
            ))),
        }
    }

    /// The runs of a name: `@1` is the last one, `@2` the one before, and so on; the beginning of a commit means all runs of
    /// that commit as it was committed.
    pub fn find(&self, name: &str) -> Result<Vec<&Run>, Error> {
        match name.strip_prefix('@') {
            Some(place) => {
                let place = place.parse().ok().and_then(|place: usize| {
                    let index = self.runs.len().checked_sub(place)?;
                    self.runs.get(index)
                });
                let why = || format!("there is no such place among {}", self.runs.len());
                Ok(vec![place.ok_or_else(|| self.no_run(name, why()))?])
            }
            None => self.of_commit(name),
        }
    }

    fn of_commit(&self, name: &str) -> Result<Vec<&Run>, Error> {
        if name.len() < DIGITS_MIN {
            let why = format!("a commit takes {DIGITS_MIN} digits at least");
            return Err(self.no_run(name, why));
        }
        let begins = |run: &&Run| {
            let commit = run.commit.as_deref();
            commit.is_some_and(|commit| commit.starts_with(&name.to_ascii_lowercase()))
        };
        let of_commit: Vec<&Run> = self.runs.iter().filter(begins).collect();
        let Some(first) = of_commit.first() else {
            return Err(self.no_run(name, "no run is of such a commit".to_owned()));
        };
        if of_commit.iter().any(|run| run.commit != first.commit) {
            let why = "more than one commit begins so".to_owned();
            return Err(self.no_run(name, why));
        }
        let clean: Vec<&Run> = of_commit.into_iter().filter(|run| run.is_clean).collect();
        if clean.is_empty() {
            let why = "all runs of it were of a tree with changes: call one by its place";
            return Err(self.no_run(name, why.to_owned()));
        }
        Ok(clean)
    }

    fn no_run(&self, name: &str, why: String) -> Error {
        let last = self.runs.iter().rev().take(RUNS_SHOWN).enumerate();
        let known = last.map(|(index, run)| format!("  @{}  {}", index + 1, run.describe()));
        Error::NoRun {
            name: name.to_owned(),
            why,
            known: known.collect::<Vec<_>>().join("\n"),
        }
    }
}

/// What tells one kind of line from another.
#[derive(Deserialize)]
struct Numbered {
    schema: u32,
}

fn parse(line: &[u8]) -> Result<Run, String> {
    let Numbered { schema } = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if schema != SCHEMA {
        return Err(format!(
            "it is of schema {schema}, and this command reads {SCHEMA}"
        ));
    }
    serde_json::from_slice(line).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rounds::{Round, Series};
    use crate::scenario::Kind;

    const COMMIT: &str = "9e50729c0ffee0123456789abcdef0123456789a";
    const OTHER: &str = "9e51111111111111111111111111111111111111";

    fn run(commit: &str, is_clean: bool, per_second: f64) -> Run {
        let round = Round {
            per_second,
            p50_us: 1.5,
            p99_us: 3.25,
        };
        let series = Series {
            contender: "bazaar".to_owned(),
            lacks: String::new(),
            rounds: vec![round; 2],
        };
        let scenario = Scenario {
            kind: Kind::Lookups,
            connections: 64,
            series: vec![series],
            absent: vec!["varnish: there is no varnishd".to_owned()],
        };
        let machine = Machine {
            processor: "AMD EPYC".to_owned(),
            cores: 2,
            kernel: "6.1".to_owned(),
            memory_bytes: 8 << 30,
            governor: None,
            is_virtual: Some(true),
            file_system: "ext4 /dev/vda".to_owned(),
            load_average: 0.5,
        };
        let report = Report::new(machine, 1, 2, 3, vec![scenario]);
        let tree = Tree {
            commit: commit.to_owned(),
            is_clean,
        };
        Run::of(&report, Some(tree))
    }

    /// Of the one scenario and contender that these tests have.
    fn rates(history: &History) -> Vec<f64> {
        let rate = |run: &Run| run.scenarios[0].series[0].rounds[0].per_second;
        history.runs.iter().map(rate).collect()
    }

    #[test]
    fn runs_are_read_as_they_were_added_with_every_round() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("report/history.jsonl");
        let added = [run(COMMIT, true, 10.5), run(OTHER, false, 11.5)];
        for run in &added {
            assert_eq!(append(&file, run).unwrap(), 0);
        }
        let history = History::read(&file).unwrap();
        assert_eq!(history.runs, added);
        assert!(history.damaged.is_empty());
        assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 2);
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn the_oldest_runs_go_once_there_are_enough() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("history.jsonl");
        let dropped = (0..5).map(|rate| {
            let run = run(COMMIT, true, f64::from(rate));
            append_bounded(&file, &run, 3).unwrap()
        });
        assert_eq!(dropped.collect::<Vec<_>>(), [0, 0, 0, 1, 1]);
        assert_eq!(rates(&History::read(&file).unwrap()), [2.0, 3.0, 4.0]);
    }

    #[test]
    fn a_damaged_line_is_named_and_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("history.jsonl");
        let whole = serde_json::to_string(&run(COMMIT, true, 1.0)).unwrap();
        let half = &whole[..whole.len() / 2];
        let later = whole.replacen("\"schema\":1", "\"schema\":2", 1);
        let mut text = format!("{whole}\n{half}\n\n{later}\n").into_bytes();
        text.extend(b"\xff\xfe not even text"); // and no end of the line
        fs::write(&file, text).unwrap();
        append(&file, &run(COMMIT, true, 2.0)).unwrap();

        let history = History::read(&file).unwrap();
        assert_eq!(rates(&history), [1.0, 2.0]);
        let numbers: Vec<usize> = history.damaged.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [2, 3, 4], "{:?}", history.damaged);
        assert!(history.damaged[1].1.contains("schema 2"));
    }

    #[test]
    fn a_history_without_runs_says_how_to_get_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("history.jsonl");
        for (text, part) in [
            (None, "No such file"),
            (Some("\n"), "it is empty"),
            (Some("{}\nnonsense\n"), "none of its 2 lines"),
        ] {
            if let Some(text) = text {
                fs::write(&file, text).unwrap();
            }
            let error = History::read(&file).unwrap_err();
            assert_eq!(error.status(), 2);
            let error = error.to_string();
            assert!(
                error.contains(part) && error.contains("make bench"),
                "{error}"
            );
        }
    }

    #[test]
    fn runs_are_found_by_place_and_by_commit() {
        let history = History {
            runs: vec![
                run(COMMIT, true, 1.0),
                run(OTHER, false, 2.0),
                run(COMMIT, false, 3.0),
                run(COMMIT, true, 4.0),
            ],
            damaged: Vec::new(),
        };
        let found = |name: &str| {
            let runs = history.find(name).unwrap();
            let runs = runs.into_iter().cloned().collect();
            rates(&History {
                runs,
                damaged: Vec::new(),
            })
        };
        assert_eq!(found("@1"), [4.0]);
        assert_eq!(found("@4"), [1.0]);
        assert_eq!(found("9e507"), [1.0, 4.0], "not of the tree with changes");
        assert_eq!(found(&COMMIT.to_uppercase()), [1.0, 4.0]);
        for (name, part) in [
            ("@0", "no such place among 4"),
            ("@5", "no such place among 4"),
            ("@last", "no such place among 4"),
            ("9e5", "4 digits"),
            ("9e50729d", "no run is of such a commit"),
            ("9e511", "a tree with changes"),
            ("", "4 digits"),
        ] {
            let error = history.find(name).unwrap_err();
            assert_eq!(error.status(), 2);
            let error = error.to_string();
            assert!(error.contains(part), "{name}: {error}");
            assert!(error.contains("  @2  ") && error.contains("9e50729c0f, changed"));
        }
        let twins = History {
            runs: vec![run("abcd1", true, 1.0), run("abcd2", true, 2.0)],
            damaged: Vec::new(),
        };
        let error = twins.find("abcd").unwrap_err().to_string();
        assert!(error.contains("more than one commit"), "{error}");
    }
}
