//! Why a benchmark cannot be run.

use std::path::PathBuf;

use charts::ChartError;

/// Why a benchmark cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A program that has to be there is not.
    #[error("there is no {program}: {remedy}")]
    Missing {
        program: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A program does not start.
    #[error("cannot start {program}: {source}")]
    Start {
        program: String,
        source: std::io::Error,
    },
    #[error("{program} failed: {output}")]
    Failed { program: String, output: String },
    /// A server did not answer in time.
    #[error("{name} was not ready within {waited_s} s; the end of its log:\n{log}")]
    NotReady {
        name: String,
        /// How long it was waited for.
        waited_s: u64,
        /// The end of its log.
        log: String,
    },
    /// A server answered something else than it should.
    #[error("{name} answered wrongly: {answer}")]
    Wrong { name: String, answer: String },
    /// A generator's figures are not what they should be.
    #[error("{generator} printed no figures: {output}")]
    NoFigures { generator: String, output: String },
    /// Requests failed: what was measured is worth nothing.
    #[error("{name}: {refused} of {requests} requests were refused, {broken} broke")]
    Errors {
        name: String,
        /// How many were answered at all.
        requests: u64,
        /// How many were answered with something else than success.
        refused: u64,
        /// How many were not answered.
        broken: u64,
    },
    /// A file or a directory.
    #[error("{}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Something of the machine.
    #[error("{what}: {source}")]
    Machine {
        /// What was to be done.
        what: &'static str,
        /// Why it was not.
        source: std::io::Error,
    },
    /// The component for `wasmtime serve` cannot be built.
    #[error(transparent)]
    Build(#[from] policy_build::BuildError),
    /// A ledger for the growth curves cannot be made.
    #[error("cannot make a ledger: {0}")]
    Ledger(String),
    /// A report that cannot be read.
    #[error("{} is not a report: {source}", path.display())]
    Report {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// A history that has no runs to compare.
    #[error("{}: {why}; `make bench` adds a run to it", path.display())]
    NoHistory { path: PathBuf, why: String },
    /// A run that a history has not.
    #[error(
        "{name}: {why}. Runs are called by their place, @1 the last one, or by a commit; there are\n{known}"
    )]
    NoRun {
        name: String,
        why: String,
        /// What there is, a line each.
        known: String,
    },
    /// What was asked for does not go together.
    #[error("{0}")]
    Usage(&'static str),
    #[error(transparent)]
    Chart(#[from] ChartError),
}

impl Error {
    /// What this program ends with: 2 where it was asked for what there is not, as it does for flags that there are not.
    pub fn status(&self) -> u8 {
        match self {
            Self::NoHistory { .. } | Self::NoRun { .. } | Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// Names the file of an I/O error.
    pub fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }

    /// Says what of the machine was wanted.
    pub fn machine(what: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Machine { what, source }
    }
}
