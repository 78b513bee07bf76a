//! The figures that every process has, by the names that Prometheus' own libraries give them.
//!
//! Linux says them in `/proc/self` (proc_pid_status(5), proc_pid_stat(5)). What it does not say is left out.

use std::fmt;
use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::families::Families;
use crate::metric::{BUILD_INFO, Metric};

const CPU: Metric = Metric::counter(
    "process_cpu_seconds",
    "seconds",
    &[],
    "Processor time of the process, in user mode and in the kernel",
);
const RESIDENT: Metric = Metric::gauge(
    "process_resident_memory_bytes",
    "bytes",
    &[],
    "Memory of the process that is in RAM",
);
const VIRTUAL: Metric = Metric::gauge(
    "process_virtual_memory_bytes",
    "bytes",
    &[],
    "Address space of the process. Of a gateway much is set aside for policies and never used",
);
const OPEN_FDS: Metric = Metric::gauge(
    "process_open_fds",
    "file descriptors",
    &[],
    "File descriptors that are open",
);
const MAX_FDS: Metric = Metric::gauge(
    "process_max_fds",
    "file descriptors",
    &[],
    "File descriptors that may be open",
);
const THREADS: Metric = Metric::gauge("process_threads", "threads", &[], "Threads of the process");
const START_TIME: Metric = Metric::gauge(
    "process_start_time_seconds",
    "seconds since 1970",
    &[],
    "When the process started",
);

/// What [`export`] writes.
pub const METRICS: &[&Metric] = &[
    &CPU,
    &RESIDENT,
    &VIRTUAL,
    &OPEN_FDS,
    &MAX_FDS,
    &THREADS,
    &START_TIME,
];

/// Of the times in `/proc`, whatever the kernel's own are (time(7)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Writes down of which release this process is, and what the system says of it now.
///
/// # Errors
/// Where it cannot be written.
pub fn export(families: &mut Families<'_>) -> fmt::Result {
    families.add(&BUILD_INFO, [([env!("CARGO_PKG_VERSION")], 1)])?;
    let cpu = clock_gettime(ClockId::ProcessCPUTime);
    families.add_one(&CPU, cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9)?;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (metric, name, one_is) in [
        (&RESIDENT, "VmRSS:", 1024),
        (&VIRTUAL, "VmSize:", 1024),
        (&THREADS, "Threads:", 1),
    ] {
        if let Some(value) = field(&status, name) {
            families.add_one(metric, value * one_is)?;
        }
    }
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let (Some(booted), Some(ticks)) = (booted(), started_ticks(&stat)) {
        let started = booted as f64 + ticks as f64 / TICKS_PER_SECOND;
        families.add_one(&START_TIME, started)?;
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        // Without the one that is read by.
        families.add_one(&OPEN_FDS, open.count().saturating_sub(1) as u64)?;
    }
    match getrlimit(Resource::Nofile).current {
        Some(max) => families.add_one(&MAX_FDS, max),
        None => Ok(()),
    }
}

/// The number behind a name, at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// When a process started, in ticks since the machine did: the 22nd field of its `stat`.
fn started_ticks(stat: &str) -> Option<u64> {
    // The second, a name, may have spaces and brackets of its own.
    let (_, from_third) = stat.rsplit_once(") ")?;
    from_third.split(' ').nth(22 - 3)?.parse().ok()
}

/// When the machine started, in seconds since 1970.
fn booted() -> Option<u64> {
    field(&fs::read_to_string("/proc/stat").ok()?, "btime")
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use super::*;
    use crate::families::exposition;
    use crate::form::Form;

    #[test]
    fn a_name_of_any_kind_does_not_shift_what_follows() {
        let text = "7 (a) b (c) S 1 7 7 0 -1 4194304 9 0 0 0 30 12 0 0 20 0 5 0 4711 8192 3\n";
        assert_eq!(started_ticks(text), Some(4711));
        assert_eq!(started_ticks("7 (a"), None);
        assert_eq!(
            field("VmPeak:\t 9 kB\nVmRSS:\t   7 kB\n", "VmRSS:"),
            Some(7)
        );
    }

    #[test]
    fn this_process_says_all_of_it_and_when_it_started() {
        let text = String::from_utf8(exposition(Form::Text, export)).unwrap();
        let build = format!(
            "bazaar_build_info{{version=\"{}\"}} 1",
            env!("CARGO_PKG_VERSION")
        );
        assert!(text.lines().any(|line| line == build), "{text}");
        for metric in METRICS {
            let name = metric.exported_name();
            let is_there = |line: &str| line.split(' ').next() == Some(&name);
            assert!(text.lines().any(is_there), "{name}: {text}");
        }
        let value = |name| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap();
            line.split(' ').nth(1).unwrap().parse::<f64>().unwrap()
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let ago = now.as_secs_f64() - value("process_start_time_seconds ");
        assert!((-2.0..3600.0).contains(&ago), "{ago} s");
        assert!(value("process_resident_memory_bytes ") > 100_000.0);
    }
}
