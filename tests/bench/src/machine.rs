//! Where it was measured.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::process::{self, command};

/// What of a machine figures depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As the processor calls itself.
    pub processor: String,
    /// How many of them this process may use.
    pub cores: usize,
    pub kernel: String,
    /// The file system that all data is on.
    pub file_system: String,
    /// How many processes wanted to run, on average over a minute, when it began.
    pub load_average: f64,
}

impl Machine {
    /// This one; `dir` is where the data is.
    pub fn this(dir: &Path) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let average = read("/proc/loadavg");
        let average = average
            .split(' ')
            .next()
            .and_then(|first| first.parse().ok());
        let mut find = command("findmnt");
        find.args(["--noheadings", "--output", "FSTYPE,SOURCE", "--target"])
            .arg(dir);
        Self {
            processor: model(&read("/proc/cpuinfo")),
            cores: cores(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: process::run(find).unwrap_or_default().trim().to_owned(),
            load_average: average.unwrap_or(0.0),
        }
    }
}

/// How many processors this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn model(cpuinfo: &str) -> String {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    let model = line.and_then(|line| line.split_once(':'));
    model.map_or_else(
        || "unknown".to_owned(),
        |(_, model)| model.trim().to_owned(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_called_what_it_calls_itself() {
        assert_eq!(
            model("processor\t: 0\nmodel name\t: AMD EPYC\n"),
            "AMD EPYC"
        );
        assert_eq!(model(""), "unknown");
    }
}
