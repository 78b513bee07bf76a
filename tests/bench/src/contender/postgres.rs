//! PostgreSQL: a primary and one or two synchronous standbys. One statement is one transaction: the
//! stock's update with the check of its quantity, and the numbered row of the journal.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Contender, Site, fill, is_root, write};
use crate::error::Error;
use crate::generator::{Figures, Load};
use crate::process::{self, Process, command, command_as, free_addresses};

/// PostgreSQL refuses to run as root; this is whom Debian's package runs it as.
const USER: &str = "postgres";

/// Where Debian puts each version's programs.
const VERSIONS_DIR: &str = "/usr/lib/postgresql";

/// A running primary and its standbys.
#[derive(Debug)]
pub struct Postgres {
    name: &'static str,
    programs: PathBuf,
    dir: PathBuf,
    address: SocketAddr,
    /// The primary is the last to stop.
    _servers: Vec<Process>,
}

impl Postgres {
    /// Starts a primary with so many standbys, and waits until these are synchronous. `name` is what reports call
    /// it.
    pub fn start(site: &Site, name: &'static str, standbys: usize) -> Result<Self, Error> {
        let dir = site.make_dir(&format!("postgres-{standbys}"))?;
        let programs = newest_version()?;
        if is_root() {
            run_own("chown", [USER.as_ref(), dir.as_os_str()])?;
        }
        let [primary] = free_addresses()?;
        let maker = Maker {
            programs: &programs,
            dir: &dir,
        };
        let mut servers = vec![maker.primary(primary)?];
        for number in 1..=standbys {
            let [address] = free_addresses()?;
            let name = format!("standby{number}");
            servers.insert(0, maker.standby(&name, address, primary)?);
        }
        let postgres = Self {
            name,
            programs,
            dir,
            address: primary,
            _servers: servers,
        };
        postgres.synchronise(standbys)?;
        postgres.sql(include_str!("../../contenders/postgres-schema.sql"))?;
        Ok(postgres)
    }

    /// From here on a commit waits until it is on the disks of all standbys.
    fn synchronise(&self, standbys: usize) -> Result<(), Error> {
        let names: Vec<String> = (1..=standbys)
            .map(|number| format!("standby{number}"))
            .collect();
        self.sql(&format!(
            "ALTER SYSTEM SET synchronous_standby_names = '{standbys} ({})'",
            names.join(", ")
        ))?;
        self.sql("SELECT pg_reload_conf()")?;
        self.sql(&format!(
            "DO $$ BEGIN FOR attempt IN 1..600 LOOP
            PERFORM pg_stat_clear_snapshot();
            IF (SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync') = {standbys}
                AND current_setting('synchronous_commit') = 'on' THEN RETURN; END IF;
            PERFORM pg_sleep(0.05);
            END LOOP; RAISE 'the standbys are not synchronous'; END $$"
        ))
        .map(drop)
    }

    /// Makes a database beside the one that is measured; returns its URL.
    pub fn another_database(&self, name: &str) -> Result<String, Error> {
        self.sql(&format!("CREATE DATABASE {name}"))?;
        Ok(self.url_of(name))
    }

    /// The URL of the database that is measured.
    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    fn url_of(&self, database: &str) -> String {
        let port = self.address.port();
        format!("postgres://{USER}@127.0.0.1:{port}/{database}?sslmode=disable")
    }

    /// Runs SQL on the primary.
    pub fn sql(&self, sql: &str) -> Result<String, Error> {
        let mut line = command(self.programs.join("psql"));
        line.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set", "ON_ERROR_STOP=1", "--username", USER])
            .args(["--host", "127.0.0.1", "--dbname", "postgres"])
            .args(["--port", &self.address.port().to_string()])
            .args(["--command", sql]);
        process::run(line)
    }
}

impl Contender for Postgres {
    fn name(&self) -> &str {
        self.name
    }

    fn lacks(&self) -> &'static str {
        "a policy in wasm; a cache"
    }

    fn measure(&mut self, load: &Load) -> Result<Figures, Error> {
        let log = self.dir.join("pgbench");
        fs::create_dir_all(&log).map_err(Error::file(&log))?;
        let script = log.join("trade.sql");
        write(&script, include_str!("../../contenders/postgres-trade.sql"))?;
        let connections = load.connections.to_string();
        let mut line = load.command(self.programs.join("pgbench"));
        line.args([
            "--no-vacuum",
            "--protocol",
            "prepared",
            "--log",
            "--jobs",
            "1",
        ])
        .args([
            "--client",
            &connections,
            "--time",
            &load.seconds.to_string(),
        ])
        .args(["--host", "127.0.0.1", "--username", USER])
        .args(["--port", &self.address.port().to_string()])
        .arg("--log-prefix")
        .arg(log.join("latencies"))
        .arg("--file")
        .arg(&script)
        .arg("postgres");
        let printed = process::run(line)?;
        let figures = figures(&printed, &read_logs(&log)?)?;
        fs::remove_dir_all(&log).map_err(Error::file(&log))?;
        figures.without_errors(self.name())
    }
}

/// Makes and starts servers in one directory.
struct Maker<'a> {
    programs: &'a Path,
    dir: &'a Path,
}

impl Maker<'_> {
    fn command(&self, program: &str) -> Command {
        let program = self.programs.join(program);
        if is_root() {
            command_as(USER, program)
        } else {
            command(program)
        }
    }

    fn primary(&self, address: SocketAddr) -> Result<Process, Error> {
        let data = self.dir.join("primary");
        let mut line = self.command("initdb");
        line.args(["--auth", "trust", "--username", USER, "--pgdata"])
            .arg(&data);
        process::run(line)?;
        self.configure(&data, address)?;
        self.serve("primary", address)
    }

    fn standby(
        &self,
        name: &str,
        address: SocketAddr,
        primary: SocketAddr,
    ) -> Result<Process, Error> {
        let data = self.dir.join(name);
        let mut line = self.command("pg_basebackup");
        line.arg("--pgdata")
            .arg(&data)
            .args(["--write-recovery-conf", "--checkpoint", "fast", "--dbname"])
            .arg(format!(
                "host=127.0.0.1 port={} user={USER} application_name={name}",
                primary.port()
            ));
        process::run(line)?;
        self.configure(&data, address)?;
        self.serve(name, address)
    }

    /// What is said last in `postgresql.conf` holds.
    fn configure(&self, data: &Path, address: SocketAddr) -> Result<(), Error> {
        let ours = fill(
            include_str!("../../contenders/postgres.conf"),
            &[
                ("port", address.port().to_string()),
                ("dir", self.dir.display().to_string()),
            ],
        );
        let file = data.join("postgresql.conf");
        let theirs = fs::read_to_string(&file).map_err(Error::file(&file))?;
        write(&file, &format!("{theirs}\n{ours}"))
    }

    fn serve(&self, name: &str, address: SocketAddr) -> Result<Process, Error> {
        let mut line = self.command("postgres");
        line.arg("-D").arg(self.dir.join(name));
        let mut process = Process::start(name, self.dir, line)?;
        let ready = self.programs.join("pg_isready");
        process.wait_until(|_| {
            let mut line = command(&ready);
            line.args(["--quiet", "--host", "127.0.0.1", "--port"])
                .arg(address.port().to_string());
            process::run(line).is_ok()
        })?;
        Ok(process)
    }
}

fn run_own<'a>(program: &str, arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<(), Error> {
    let mut line = command(program);
    line.args(arguments);
    process::run(line).map(drop)
}

/// The programs of the newest version that is installed.
fn newest_version() -> Result<PathBuf, Error> {
    let missing = || Error::Missing {
        program: "PostgreSQL".to_owned(),
        remedy: "`make bench-setup` installs what is missing",
    };
    let versions = fs::read_dir(VERSIONS_DIR).map_err(|_| missing())?;
    let programs = versions.flatten().filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        let complete = programs.join("initdb").is_file() && programs.join("pgbench").is_file();
        complete.then_some((number, programs))
    });
    let newest = programs.max_by_key(|(number, _)| *number);
    newest.map(|(_, programs)| programs).ok_or_else(missing)
}

fn read_logs(dir: &Path) -> Result<String, Error> {
    let mut text = String::new();
    for entry in fs::read_dir(dir).map_err(Error::file(dir))? {
        let path = entry.map_err(Error::file(dir))?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if name.starts_with("latencies") {
            text += &fs::read_to_string(&path).map_err(Error::file(&path))?;
        }
    }
    Ok(text)
}

/// pgbench prints transactions per second without the time of connecting; its log has a line for
/// each transaction, with the latency in microseconds as its third word.
fn figures(printed: &str, log: &str) -> Result<Figures, Error> {
    let no_figures = || Error::NoFigures {
        generator: "pgbench".to_owned(),
        output: printed.to_owned(),
    };
    let line = printed.lines().find_map(|line| line.strip_prefix("tps = "));
    let tps = line.and_then(|line| line.split(' ').next()?.parse::<f64>().ok());
    let tps = tps.filter(|tps| *tps > 0.0).ok_or_else(no_figures)?;
    let latencies = log.lines().map(|line| line.split(' ').nth(2)?.parse().ok());
    let mut latencies: Vec<u64> = latencies.collect::<Option<_>>().ok_or_else(no_figures)?;
    latencies.sort_unstable();
    let last = latencies.len().checked_sub(1).ok_or_else(no_figures)?;
    let quantile = |share: f64| latencies[(last as f64 * share).round() as usize] as f64;
    Ok(Figures {
        requests: latencies.len() as u64,
        duration_us: (latencies.len() as f64 * 1e6 / tps) as u64,
        p50_us: quantile(0.50),
        p99_us: quantile(0.99),
        max_us: quantile(1.0),
        refused: 0,
        broken: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "number of clients: 1\nlatency average = 0.500 ms\n\
        initial connection time = 3.1 ms\ntps = 2000.000000 (without initial connection time)\n";

    #[test]
    fn pgbench_says_how_many_and_its_log_how_long() {
        let log: String = (1..=101)
            .map(|number| format!("0 {number} {} 0 1700000000 0\n", number * 10))
            .collect();
        let figures = figures(PRINTED, &log).unwrap();
        assert_eq!(figures.requests, 101);
        assert!((figures.per_second() - 2000.0).abs() < 1.0);
        assert_eq!(
            (figures.p50_us, figures.p99_us, figures.max_us),
            (510.0, 1000.0, 1010.0)
        );
    }

    #[test]
    fn nothing_measured_is_an_error() {
        for (printed, log) in [
            ("", "0 1 10 0 1 1\n"),
            (PRINTED, ""),
            (PRINTED, "nonsense\n"),
        ] {
            assert!(figures(printed, log).is_err(), "{printed} {log}");
        }
    }
}
