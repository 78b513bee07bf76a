//! Where it was measured.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::process::{self, command};

/// Where the kernel says who chooses the first processor's frequency; guests rarely have it.
const GOVERNOR: &str = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";

const GIB: f64 = (1_u64 << 30) as f64;

/// What of a machine figures depend on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// As the processor calls itself.
    pub processor: String,
    /// How many of them this process may use.
    pub cores: usize,
    pub kernel: String,
    /// How much memory there is, in bytes; 0 where the kernel does not say.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Who chooses how fast a processor runs, where the kernel lets anybody see.
    #[serde(default)]
    pub governor: Option<String>,
    /// Whether it is a guest of another machine's, where its processor says.
    #[serde(default)]
    pub is_virtual: Option<bool>,
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
        let cpuinfo = read("/proc/cpuinfo");
        let governor = read(GOVERNOR).trim().to_owned();
        let mut find = command("findmnt");
        find.args(["--noheadings", "--output", "FSTYPE,SOURCE", "--target"])
            .arg(dir);
        Self {
            processor: model(&cpuinfo),
            cores: cores(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            memory_bytes: memory(&read("/proc/meminfo")).unwrap_or(0),
            governor: Some(governor).filter(|governor| !governor.is_empty()),
            is_virtual: is_virtual(&cpuinfo),
            file_system: process::run(find).unwrap_or_default().trim().to_owned(),
            load_average: average.unwrap_or(0.0),
        }
    }

    /// What of it is the same from run to run, in words: all but how busy it was.
    pub fn describe(&self) -> String {
        let Self {
            cores,
            processor,
            kernel,
            file_system,
            ..
        } = self;
        let memory_gib = self.memory_bytes as f64 / GIB;
        let kind = match self.is_virtual {
            Some(true) => ", virtual",
            Some(false) => ", not virtual",
            None => "",
        };
        let governor = match &self.governor {
            Some(governor) => format!(", governor {governor}"),
            None => String::new(),
        };
        format!(
            "{cores} × {processor}{kind}{governor}, {memory_gib:.0} GiB, Linux {kernel}, data on {file_system}"
        )
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

fn memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Processors of a guest have the flag `hypervisor`; other architectures than x86 do not tell.
fn is_virtual(cpuinfo: &str) -> Option<bool> {
    let line = cpuinfo.lines().find(|line| line.starts_with("flags"))?;
    Some(line.split_whitespace().any(|flag| flag == "hypervisor"))
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

    #[test]
    fn memory_and_guests_are_told_from_what_the_kernel_says() {
        assert_eq!(
            memory("MemTotal:       24683652 kB\nMemFree: 1 kB\n"),
            Some(24_683_652 << 10)
        );
        assert_eq!(memory(""), None);
        for (cpuinfo, expected) in [
            ("flags\t\t: fpu hypervisor lahf_lm\n", Some(true)),
            ("flags\t\t: fpu lahf_lm\n", Some(false)),
            ("Features\t: fp asimd\n", None),
        ] {
            assert_eq!(is_virtual(cpuinfo), expected, "{cpuinfo}");
        }
    }

    #[test]
    fn a_machine_is_described_by_what_stays() {
        let machine = Machine {
            processor: "AMD EPYC".to_owned(),
            cores: 2,
            kernel: "6.1".to_owned(),
            memory_bytes: 24_683_652 << 10,
            governor: Some("performance".to_owned()),
            is_virtual: Some(true),
            file_system: "ext4 /dev/vda".to_owned(),
            load_average: 0.5,
        };
        let busy = Machine {
            load_average: 7.0,
            ..machine.clone()
        };
        assert_eq!(machine.describe(), busy.describe());
        assert_eq!(
            machine.describe(),
            "2 × AMD EPYC, virtual, governor performance, 24 GiB, Linux 6.1, data on ext4 /dev/vda"
        );
    }
}
