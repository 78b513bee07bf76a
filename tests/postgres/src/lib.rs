//! PostgreSQL servers for tests: real ones, in directories of their own, on free ports.
//!
//! - here: a primary, and a synchronous standby where one is wanted;
//! - [`process`]: programs that are gone when the test is;
//! - [`proxy`]: what stands between a client and a server, and loses what the server says;
//! - [`certificates`]: what a server shows who it is with;
//! - [`newest`]: a later PostgreSQL than Debian's;
//! - [`skip`]: a machine without PostgreSQL.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

pub mod process;
pub mod proxy;
pub mod certificates;
pub mod newest;
#[path = "../../harness/skip.rs"]
pub mod skip;

use process::{Process, chown, command, run};

/// Where Debian puts each version's programs.
const VERSIONS_DIR: &str = "/usr/lib/postgresql";

/// A variable: the directory of PostgreSQL's programs, where these are not to be the newest that Debian has.
pub const PROGRAMS_DIR: &str = "BAZAAR_POSTGRES_PROGRAMS";

/// Who owns the server, and may do anything there.
pub const SUPERUSER: &str = "postgres";

/// Where data is kept that is written to memory.
const MEMORY: &str = "/dev/shm";

/// What every server is set up with: its own defaults, less what only long runs need.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
shared_buffers = 16MB
max_connections = 50
max_wal_senders = 4
dynamic_shared_memory_type = mmap
wal_receiver_status_interval = 1
log_line_prefix = '%m [%p] %a '
fsync = on
";

/// What servers are like.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Whether there is a standby that commits wait for.
    pub standby: bool,
    /// Further lines of `postgresql.conf`, of the primary.
    pub settings: Vec<(&'static str, String)>,
    /// Clients have to say a password, encrypted: all but [`SUPERUSER`] at the local socket.
    pub passwords: bool,
}

/// A primary, and its standby.
#[derive(Debug)]
pub struct Cluster {
    // In this order they are dropped.
    standby: Option<Process>,
    primary: Option<Process>,
    programs: PathBuf,
    port: u16,
    standby_port: u16,
    dir: TempDir,
}

/// The programs that [`PROGRAMS_DIR`] names, or else of the newest version that is installed.
pub fn programs() -> Option<PathBuf> {
    if let Some(named) = env::var_os(PROGRAMS_DIR) {
        return Some(named.into());
    }
    let versions = fs::read_dir(VERSIONS_DIR).ok()?;
    let programs = versions.flatten().filter_map(|entry| {
        let number: u32 = entry.file_name().to_str()?.parse().ok()?;
        let programs = entry.path().join("bin");
        programs
            .join("initdb")
            .is_file()
            .then_some((number, programs))
    });
    let newest = programs.max_by_key(|(number, _)| *number);
    newest.map(|(_, programs)| programs)
}

impl Cluster {
    /// Starts one, and waits until it serves, and the standby is synchronous. `None` where this machine
    /// has no PostgreSQL, which is then said.
    pub fn start(options: &Options) -> Option<Self> {
        let Some(programs) = programs() else {
            skip::skip("PostgreSQL", "scripts/test-setup installs it");
            return None;
        };
        let dir = tempfile::tempdir_in(MEMORY).or_else(|_| tempfile::tempdir());
        let dir = dir.expect("there is a temporary directory");
        chown(dir.path());
        let mut cluster = Self {
            standby: None,
            primary: None,
            programs,
            port: free_port(),
            standby_port: 0,
            dir,
        };
        cluster.make(options);
        cluster.start_primary();
        if options.standby {
            cluster.start_standby();
        }
        Some(cluster)
    }

    /// One with a standby that commits wait for.
    pub fn replicated() -> Option<Self> {
        Self::start(&Options {
            standby: true,
            ..Options::default()
        })
    }

    fn make(&self, options: &Options) {
        let data = self.data("primary");
        let mut line = command(self.programs.join("initdb"));
        line.args(["--auth=trust", "--no-sync", "--username", SUPERUSER])
            .args(["--encoding=UTF8", "--locale=C.UTF-8", "--pgdata"])
            .arg(&data);
        run(line);
        let mut settings = SETTINGS.to_owned();
        for (name, value) in &options.settings {
            writeln!(settings, "{name} = '{value}'").expect("it is a string");
        }
        append(&data.join("postgresql.conf"), &settings);
        if options.passwords {
            let rules = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n\
                         host replication all 127.0.0.1/32 trust\n";
            fs::write(data.join("pg_hba.conf"), rules).expect("it is ours");
        }
    }

    /// Starts the primary where it does not run.
    pub fn start_primary(&mut self) {
        self.primary = Some(self.serve("primary", self.port));
    }

    fn start_standby(&mut self) {
        let mut line = command(self.programs.join("pg_basebackup"));
        line.args([
            "--write-recovery-conf",
            "--checkpoint=fast",
            "--no-sync",
            "--pgdata",
        ])
        .arg(self.data("standby"))
        .arg("--dbname")
        .arg(format!(
            "host=127.0.0.1 port={} user={SUPERUSER} application_name=standby",
            self.port
        ));
        run(line);
        self.serve_standby();
        self.sql("ALTER SYSTEM SET synchronous_standby_names = 'standby'");
        self.sql("SELECT pg_reload_conf()");
        self.sql(
            "DO $$ BEGIN FOR attempt IN 1..600 LOOP
                PERFORM pg_stat_clear_snapshot();
                IF EXISTS (SELECT FROM pg_stat_replication WHERE sync_state = 'sync') THEN RETURN; END IF;
                PERFORM pg_sleep(0.05);
             END LOOP; RAISE 'the standby is not synchronous'; END $$",
        );
    }

    /// Keeps a copy of the standby as it is: of a server that falls behind from now on. Commits wait meanwhile.
    pub fn copy_standby(&mut self) {
        if let Some(standby) = self.standby.take() {
            standby.kill();
        }
        let mut line = command("cp");
        line.arg("-a")
            .args([self.data("standby"), self.data("copy")]);
        run(line);
        self.serve_standby();
    }

    /// The primary and its standby are lost, and the copy takes the primary's place: a fail-over that loses what was
    /// committed since. It gets a standby of its own.
    pub fn promote_copy(&mut self) {
        for process in [self.standby.take(), self.primary.take()]
            .into_iter()
            .flatten()
        {
            process.kill();
        }
        for (from, to) in [
            ("primary", "lost"),
            ("standby", "lost-standby"),
            ("copy", "primary"),
        ] {
            fs::rename(self.data(from), self.data(to)).expect("it is ours");
        }
        let data = self.data("primary");
        let _ = fs::remove_file(data.join("postmaster.pid")); // of the process that it is a copy of
        self.start_primary();
        self.sql("SELECT pg_promote()");
        self.start_standby();
    }

    /// The standby becomes a primary, and the one that it was of goes on beside it: as where whoever replaces it cannot stop it.
    /// Returns where the new one listens.
    pub fn promote_standby(&self) -> u16 {
        self.sql_at(self.standby_port, "postgres", "SELECT pg_promote()");
        self.standby_port
    }

    fn serve_standby(&mut self) {
        self.standby_port = free_port();
        self.standby = Some(self.serve("standby", self.standby_port));
    }

    fn serve(&self, name: &str, port: u16) -> Process {
        let mut line = command(self.programs.join("postgres"));
        line.arg("-D")
            .arg(self.data(name))
            .arg("-p")
            .arg(port.to_string())
            .arg("-c")
            .arg(format!(
                "unix_socket_directories={}",
                self.dir.path().display()
            ));
        let process = Process::start(line, &self.dir.path().join(format!("{name}.log")));
        let ready = self.programs.join("pg_isready");
        process.wait_until(|| {
            let mut line = command(&ready);
            line.args(["--quiet", "--host=127.0.0.1", "--port", &port.to_string()]);
            line.status().is_ok_and(|status| status.success())
        });
        process
    }

    fn data(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A server's data directory.
    pub fn primary_data(&self) -> PathBuf {
        self.data("primary")
    }

    /// Runs SQL in a database as the superuser; returns what it prints, without frills.
    ///
    /// # Panics
    /// Where the SQL fails.
    pub fn sql_in(&self, database: &str, sql: &str) -> String {
        self.sql_at(self.port, database, sql)
    }

    /// The same at the server that listens there.
    pub fn sql_at(&self, port: u16, database: &str, sql: &str) -> String {
        let mut line = command(self.programs.join("psql"));
        line.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align"])
            .args(["--set=ON_ERROR_STOP=1", "--username", SUPERUSER])
            .arg("--host")
            .arg(self.dir.path())
            .args(["--port", &port.to_string(), "--dbname", database])
            .args(["--command", sql]);
        run(line).trim().to_owned()
    }

    /// The same in the database that every server has.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_in("postgres", sql)
    }

    /// Makes an empty database; returns its URL, as the superuser.
    pub fn database(&self, name: &str) -> String {
        self.sql(&format!("CREATE DATABASE {name}"));
        format!(
            "postgres://{SUPERUSER}@127.0.0.1:{}/{name}?sslmode=disable",
            self.port
        )
    }

    /// Where the primary listens, on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The primary's process.
    pub fn primary(&self) -> &Process {
        self.primary.as_ref().expect("it runs")
    }

    /// The standby's process.
    pub fn standby(&self) -> &Process {
        self.standby.as_ref().expect("there is one")
    }

    /// Kills the primary's processes, as a loss of power would, and leaves its data.
    pub fn kill_primary(&mut self) {
        if let Some(primary) = self.primary.take() {
            primary.kill();
        }
    }
}

fn append(file: &Path, text: &str) {
    let theirs = fs::read_to_string(file).expect("it was just made");
    fs::write(file, theirs + text).expect("it is ours");
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is one");
    listener.local_addr().expect("it listens").port()
}
