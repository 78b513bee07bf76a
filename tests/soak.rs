//! Whether anything grows that should not, over hours: memory, latencies, logs, databases.
//!
//! Clients trade and look up at full rate while old rows are archived. At even intervals it is looked what each process holds,
//! what is on the disks, and how long answers took; at the end [`slopes`] are put through that, and all ledgers
//! are compared with the journal.
//!
//! `BAZAAR_SOAK_SECONDS` makes it more than a short run, which judges what must hold at any time, and no slopes.

mod clients;
mod slopes;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use domain::LedgerEnd;
use order::inspect::Ledger;

use crate::harness::{Bazaar, Options, Server, number, run_ok, wait_until};

use clients::{Clients, Kind};
use slopes::{Judged, Series};

const REPLICAS: [u32; 3] = [1, 2, 3];

/// A run of at least so many seconds says something about slopes.
const JUDGED_SECONDS_MIN: u64 = 600;

/// How much of a run is for caches to fill, and is not judged.
const WARM_UP_SHARE: f64 = 0.25;

/// What a process may come to hold in an hour, in MiB, as far as that is certain.
const MIB_PER_HOUR_MAX: f64 = 16.0;

/// What a latency may come to be longer by over a run, in percent of its mean, beyond the same.
const LATENCY_PERCENT_MAX: f64 = 10.0;

/// What a log may have at any time, in MiB: see `storage::log`.
const LOG_MIB_MAX: f64 = 64.0;

/// What was seen at one moment.
struct Sample {
    rows: f64,
    /// By process, in MiB: all that is resident, and what of it is no file's (heap and stacks).
    resident: Vec<f64>,
    anonymous: Vec<f64>,
    /// Of all four databases, in MiB.
    database: f64,
    archive: f64,
    /// The longest of them.
    log: f64,
    /// Since the sample before, in milliseconds: by kind, p50 and p99.
    latencies: Vec<[f64; 2]>,
    /// Orders a second, since then.
    rate: f64,
    held: f64,
}

#[test]
fn nothing_grows_but_the_archive_at_full_rate() {
    let seconds = number("BAZAAR_SOAK_SECONDS", 10);
    let is_judged = seconds >= JUDGED_SECONDS_MIN;
    let archive_after = number(
        "BAZAAR_SOAK_ARCHIVE_AFTER",
        if is_judged { 200_000 } else { 100 },
    );
    let interval = Duration::from_secs(seconds)
        .div_f64(100.0)
        .max(Duration::from_millis(250));
    let mut bazaar = Bazaar::start(Options {
        stocks: Some(clients::STOCKS),
        archive_after: Some(archive_after),
        on_disk: is_judged,
        ..Options::default()
    });
    let clients = Clients::new(
        bazaar.address(),
        number("BAZAAR_SOAK_CLIENTS", if is_judged { 32 } else { 6 }),
    );
    let mut samples = Vec::new();
    let began = Instant::now();
    clients.run(|| {
        let (mut before, mut placed_before) = (Instant::now(), 0);
        while began.elapsed() < Duration::from_secs(seconds) {
            std::thread::sleep(interval);
            let placed = clients.placed();
            let rate = (placed - placed_before) as f64 / before.elapsed().as_secs_f64();
            (before, placed_before) = (Instant::now(), placed);
            let sample = look(&mut bazaar, &clients, rate);
            println!("{}", sample.line(began.elapsed()));
            samples.push((began.elapsed().as_secs_f64() / 3600.0, sample));
        }
    });
    assert_eq!(clients.wrong(), Vec::<String>::new());
    let rows = audit(&mut bazaar, &clients);
    let judged = judge(&samples, is_judged);
    for one in &judged {
        println!("{}", one.line());
    }
    println!(
        "{rows} rows in {seconds} s, {:.0} orders a second; ledgers and journal are equal",
        rows as f64 / seconds as f64
    );
    assert!(samples.len() >= 10, "{} samples", samples.len());
    let last = &samples.last().expect("there are some").1;
    assert!(last.archive > 0.0, "nothing was archived of {rows} rows");
    let longest = samples
        .iter()
        .map(|(_, sample)| sample.log)
        .fold(0.0, f64::max);
    assert!(longest <= LOG_MIB_MAX, "a log had {longest:.0} MiB");
    // Latencies are noisy where a machine does anything else; what is held and kept is not.
    let is_bad = |one: &&Judged| !one.is_good() || one.is_kept() && !one.is_sure();
    let bad: Vec<String> = judged.iter().filter(is_bad).map(Judged::line).collect();
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// Every process, with how it is called in the report.
fn servers() -> [Server; 5] {
    let [one, two, three] = REPLICAS.map(Server::Order);
    [Server::Catalog, one, two, three, Server::Gateway(0)]
}

fn look(bazaar: &mut Bazaar, clients: &Clients, rate: f64) -> Sample {
    const MIB: f64 = (1 << 20) as f64;
    let held = servers().map(|server| bazaar.server(server).resident());
    let resident = held.map(|held| held.all_kib as f64 / 1024.0);
    let anonymous = held.map(|held| held.anonymous_kib as f64 / 1024.0);
    let dirs = [bazaar.catalog_dir()]
        .into_iter()
        .chain(REPLICAS.map(|id| bazaar.data_dir(id)));
    let dirs: Vec<_> = dirs.collect();
    let bytes = |suffix: &str| -> Vec<f64> {
        let of_dir = |dir: &std::path::PathBuf| bytes_of(dir, suffix) as f64 / MIB;
        dirs.iter().map(of_dir).collect()
    };
    let archives = dirs
        .iter()
        .map(|dir| bytes_of(&dir.join("archive"), "") as f64 / MIB);
    let metrics = bazaar.admin("GET", "/metrics", b"").body;
    let held = metrics.lines().filter(|line| {
        line.starts_with("bazaar_held_bytes{") || line.starts_with("bazaar_held_bytes ")
    });
    let held: f64 = held
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum();
    Sample {
        rows: clients.placed() as f64,
        resident: resident.into(),
        anonymous: anonymous.into(),
        database: bytes(".db").iter().sum(),
        archive: archives.sum(),
        log: bytes("-wal").into_iter().fold(0.0, f64::max),
        latencies: Kind::ALL.map(|kind| clients.take_latencies(kind)).into(),
        rate,
        held: held / MIB,
    }
}

/// Bytes of the files in a directory whose names end so.
fn bytes_of(dir: &Path, suffix: &str) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let of_name = entries.filter(|entry| entry.file_name().to_string_lossy().ends_with(suffix));
    of_name
        .filter_map(|entry| entry.metadata().ok())
        .filter(|found| found.is_file())
        .map(|found| found.len())
        .sum()
}

impl Sample {
    fn line(&self, at: Duration) -> String {
        let resident = self.resident.iter().zip(&self.anonymous);
        let resident: Vec<_> = resident
            .map(|(all, anonymous)| format!("{all:.1}/{anonymous:.1}"))
            .collect();
        let latencies = Kind::ALL.iter().zip(&self.latencies);
        let latencies =
            latencies.map(|(kind, [p50, p99])| format!("{} {p50:.1}/{p99:.1}", kind.name()));
        format!(
            "{:6.1} s: {:9.0} orders, {:6.0}/s, resident/anonymous {} MiB, held {:.1} MiB, databases {:.0} MiB, longest log {:.0} MiB, archives {:.0} MiB, ms p50/p99: {}",
            at.as_secs_f64(),
            self.rows,
            self.rate,
            resident.join(" "),
            self.held,
            self.database,
            self.log,
            self.archive,
            latencies.collect::<Vec<_>>().join(", ")
        )
    }
}

/// Puts lines through what was seen after the caches had time to fill.
fn judge(samples: &[(f64, Sample)], is_judged: bool) -> Vec<Judged> {
    let skipped = (samples.len() as f64 * WARM_UP_SHARE) as usize;
    let samples = &samples[skipped..];
    let series = |value: &dyn Fn(&Sample) -> f64| Series {
        hours: samples.iter().map(|(hours, _)| *hours).collect(),
        millions: samples
            .iter()
            .map(|(_, sample)| sample.rows / 1e6)
            .collect(),
        values: samples.iter().map(|(_, sample)| value(sample)).collect(),
    };
    let mut judged = Vec::new();
    for (place, server) in servers().iter().enumerate() {
        let resident = series(&|sample| sample.resident[place]);
        judged.push(resident.judged(
            format!("{server}: resident, MiB"),
            is_judged.then_some(MIB_PER_HOUR_MAX),
        ));
    }
    for (place, kind) in Kind::ALL.iter().enumerate() {
        for (share, name) in ["p50", "p99"].iter().enumerate() {
            let latency = series(&|sample| sample.latencies[place][share]);
            let allowed = latency.mean() * LATENCY_PERCENT_MAX / 100.0 / latency.span_hours();
            // The tail of a machine that others use says little.
            let allowed = (is_judged && share == 0).then_some(allowed);
            judged.push(latency.judged(format!("{}: {name}, ms", kind.name()), allowed));
        }
    }
    let databases = series(&|sample| sample.database);
    judged.push(databases.judged(
        "databases, MiB".to_owned(),
        is_judged.then_some(MIB_PER_HOUR_MAX),
    ));
    judged.push(series(&|sample| sample.archive).judged("archives, MiB".to_owned(), None));
    judged.push(series(&|sample| sample.held).judged(
        "held by the gateway, MiB".to_owned(),
        is_judged.then_some(MIB_PER_HOUR_MAX),
    ));
    judged
}

/// Whether all that was acknowledged is in every ledger, once and as it was. Returns how many rows there are.
fn audit(bazaar: &mut Bazaar, clients: &Clients) -> u64 {
    let placed = clients.placed();
    let ends = |bazaar: &Bazaar| -> Vec<LedgerEnd> {
        let end = |id| Ledger::open(&bazaar.data_dir(id)).and_then(|ledger| ledger.end());
        REPLICAS.iter().filter_map(|id| end(*id).ok()).collect()
    };
    let mut settled = LedgerEnd::default();
    wait_until("every ledger to have what was acknowledged", || {
        let catalog = bazaar.status()["catalog"].take();
        let ends = ends(bazaar);
        let rows = catalog["journal_rows"].as_u64();
        let chain = catalog["chain_hash"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        settled = ends.first().copied().unwrap_or_default();
        ends.len() == REPLICAS.len()
            && ends.iter().all(|end| *end == settled)
            && rows == Some(settled.rows.0)
            && chain == settled.chain.to_string()
    });
    assert_eq!(settled.orders().0, placed);
    let dirs = REPLICAS.map(|id| bazaar.data_dir(id).display().to_string());
    run_ok(
        ["ledger", "diff"]
            .into_iter()
            .map(str::to_owned)
            .chain(dirs),
    );
    for (name, quantity) in clients.quantities() {
        assert_eq!(bazaar.quantity(name), quantity, "{name}");
    }
    assert_eq!(bazaar.panics(), Vec::<String>::new());
    settled.rows.0
}
