//! Where a database is: a URL as libpq reads it, as far as it goes.
//!
//! `tokio-postgres` knows no verification: `sslmode=verify-ca`, `verify-full` and `sslrootcert` are
//! taken off before it reads the rest.

use std::fmt::{self, Write as _};
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use tokio::io::DuplexStream;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

use super::error::PostgresError;
use super::tls::{Connector, Verification};

/// How long a connection's data may be unacknowledged, unless the URL says otherwise.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);

/// How long connecting to one host may take, unless the URL says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is silent before the server is asked whether it is there, between two such
/// questions, and how many go unanswered, unless the URL says otherwise.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;

/// What servers show of who is connected, unless the URL says otherwise.
const APPLICATION_NAME: &str = "bazaar catalog";

/// Where a database is, and how it is reached. Shows no password.
#[derive(Clone)]
pub struct StoreUrl {
    pub(super) config: tokio_postgres::Config,
    /// `None` for a connection without TLS.
    pub(super) connector: Option<Connector>,
    /// See [`risk`](Self::risk).
    risk: Option<&'static str>,
    /// Only in a simulation: over no network.
    pub(super) dial: Option<Dial>,
}

/// How a simulation reaches a host, by its name.
pub type Dial = Arc<dyn Fn(&str) -> Dialed + Send + Sync>;

/// A connection that is being made.
pub type Dialed = Pin<Box<dyn Future<Output = io::Result<DuplexStream>> + Send>>;

impl StoreUrl {
    /// Reads `postgres://user:password@host:port/database?option=value&…`, and the certificates that it names.
    ///
    /// # Errors
    /// Where it is not one, or names another machine and does not say whether that is to prove who it is, without showing
    /// what it says.
    pub fn parse(url: &str) -> Result<Self, PostgresError> {
        let wrong = |problem: String| PostgresError::Url(problem);
        if !["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.starts_with(scheme))
        {
            let problem = "is not of the form postgres://user@host:port/database?sslmode=…";
            return Err(wrong(problem.into()));
        }
        let (place, options) = url.split_once('?').unwrap_or((url, ""));
        let mut plain = String::from(place);
        let mut mode = None;
        let mut roots = None;
        let mut separator = '?';
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            match name {
                "sslmode" => mode = Some(Mode::parse(value)?),
                "sslrootcert" => {
                    let path = percent_decode_str(value).decode_utf8();
                    let path = path.map_err(|_| wrong("sslrootcert is not UTF-8".into()))?;
                    roots = Some(PathBuf::from(path.as_ref()));
                }
                _ => {
                    let _ = write!(plain, "{separator}{option}");
                    separator = '&';
                }
            }
        }
        let mut config = tokio_postgres::Config::from_str(&plain)
            .map_err(|error| wrong(super::error::told(&error)))?;
        let is_local = |host: &Host| matches!(host, Host::Unix(_));
        if config.get_hosts().is_empty() {
            return Err(wrong("names no host".into()));
        }
        // The rest of a password: the first @ ends it.
        let is_odd = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        if config.get_hosts().iter().any(is_odd) || options.contains('@') {
            let problem =
                "percent-encode the password and other values: @ as %40, ? as %3F, & as %26";
            return Err(wrong(problem.into()));
        }
        let is_here = is_on_this_machine(&config);
        // What a local socket carries stays on the machine; libpq has no TLS there either.
        let mode = match config.get_hosts().iter().all(is_local) {
            true => Mode::Disable,
            false => match mode {
                Some(mode) => mode,
                None if is_here => Mode::Prefer,
                None => return Err(wrong(UNSAID.into())),
            },
        };
        config.ssl_mode(match mode {
            Mode::Disable => SslMode::Disable,
            Mode::Prefer => SslMode::Prefer,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => SslMode::Require,
        });
        let risk = match (mode, &roots) {
            _ if is_here => None,
            (Mode::Disable, _) => Some(IN_THE_CLEAR),
            (Mode::Prefer, _) | (Mode::Require, None) => Some(UNPROVEN),
            (Mode::Require | Mode::VerifyCa | Mode::VerifyFull, _) => None,
        };
        let verification = match (mode, roots) {
            (Mode::Disable, _) => None,
            (Mode::Prefer, _) | (Mode::Require, None) => Some(Verification::None),
            // As libpq has it.
            (Mode::Require | Mode::VerifyCa, Some(roots)) => Some(Verification::Chain(roots)),
            (Mode::VerifyFull, Some(roots)) => Some(Verification::Full(roots)),
            (Mode::VerifyCa | Mode::VerifyFull, None) => {
                let problem = "sslmode=verify-full and verify-ca need sslrootcert=FILE, the \
                               certificates of who vouches for the server, in PEM";
                return Err(wrong(problem.into()));
            }
        };
        let connector = verification.map(Connector::new).transpose()?;
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        if !plain.contains("keepalives") {
            config
                .keepalives_idle(KEEPALIVE_IDLE)
                .keepalives_interval(KEEPALIVE_INTERVAL)
                .keepalives_retries(KEEPALIVE_RETRIES);
        }
        if config.get_application_name().is_none() {
            config.application_name(APPLICATION_NAME);
        }
        // Of several hosts the one that can write; a standby's is none.
        config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        Ok(Self {
            config,
            connector,
            risk,
            dial: None,
        })
    }

    /// What somebody on the way to the database could do, where it is on another machine and the URL lets them: for the log.
    pub fn risk(&self) -> Option<&'static str> {
        self.risk
    }

    /// The same in a simulation, where hosts are reached in another way, and without TLS.
    pub fn simulated(self, dial: Dial) -> Self {
        Self {
            connector: None,
            dial: Some(dial),
            ..self
        }
    }

    /// The same for each of its hosts alone.
    pub(super) fn one_by_one(&self) -> impl Iterator<Item = Self> {
        let Self {
            config,
            connector,
            risk,
            dial,
        } = self;
        let (hosts, ports) = (config.get_hosts(), config.get_ports());
        hosts.iter().enumerate().map(move |(place, host)| {
            let mut one = without_hosts(config);
            match host {
                Host::Tcp(name) => one.host(name),
                Host::Unix(path) => one.host_path(path),
            };
            if let Some(address) = config.get_hostaddrs().get(place) {
                one.hostaddr(*address);
            }
            // One port is every host's.
            if let Some(port) = ports.get(place).or(ports.first()) {
                one.port(*port);
            }
            Self {
                config: one,
                connector: connector.clone(),
                risk: *risk,
                dial: dial.clone(),
            }
        })
    }

    /// The first of its hosts.
    pub(super) fn name(&self) -> &str {
        match self.config.get_hosts().first() {
            Some(Host::Tcp(name)) => name,
            Some(Host::Unix(_)) | None => "",
        }
    }

    /// For all that it takes to connect to one host.
    pub(super) fn connect_time_max(&self) -> Duration {
        let configured = self.config.get_connect_timeout().copied();
        configured
            .filter(|time| !time.is_zero())
            .unwrap_or(CONNECT_TIMEOUT)
    }
}

/// Of a URL that leaves it open who is believed, where anybody on the way could answer.
const UNSAID: &str = "names another machine, and does not say who is believed to be the database there: \
    say sslmode=verify-full&sslrootcert=FILE, with the certificates of who vouches for it, in PEM; or, where nobody can \
    answer in its place, sslmode=require, prefer or disable";

/// See [`StoreUrl::risk`].
const IN_THE_CLEAR: &str = "the database is on another machine, and with sslmode=disable whoever is on the way reads and \
    changes what goes there: say sslmode=verify-full&sslrootcert=FILE";
const UNPROVEN: &str = "the database is on another machine, and whoever answers there is believed to be it: say \
    sslmode=verify-full&sslrootcert=FILE";

/// Whether what is sent there stays on this machine.
fn is_on_this_machine(config: &tokio_postgres::Config) -> bool {
    let is_loopback = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            let address = name.trim_matches(['[', ']']).parse::<IpAddr>();
            name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|it| it.is_loopback())
        }
    };
    // Where there are addresses, names are but what certificates are to say.
    match config.get_hostaddrs() {
        [] => config.get_hosts().iter().all(is_loopback),
        addresses => addresses.iter().all(IpAddr::is_loopback),
    }
}

/// All else of a configuration.
fn without_hosts(config: &tokio_postgres::Config) -> tokio_postgres::Config {
    let mut rest = tokio_postgres::Config::new();
    if let Some(user) = config.get_user() {
        rest.user(user);
    }
    if let Some(password) = config.get_password() {
        rest.password(password);
    }
    if let Some(name) = config.get_dbname() {
        rest.dbname(name);
    }
    if let Some(options) = config.get_options() {
        rest.options(options);
    }
    if let Some(name) = config.get_application_name() {
        rest.application_name(name);
    }
    if let Some(timeout) = config.get_connect_timeout() {
        rest.connect_timeout(*timeout);
    }
    if let Some(timeout) = config.get_tcp_user_timeout() {
        rest.tcp_user_timeout(*timeout);
    }
    if let Some(interval) = config.get_keepalives_interval() {
        rest.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        rest.keepalives_retries(retries);
    }
    rest.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle())
        .target_session_attrs(config.get_target_session_attrs())
        .channel_binding(config.get_channel_binding());
    rest
}

/// `sslmode`, as libpq has it, but for `allow`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Disable,
    /// TLS where the server has it; who it is is not looked at.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

impl Mode {
    fn parse(value: &str) -> Result<Self, PostgresError> {
        Ok(match value {
            "disable" => Self::Disable,
            "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            _ => {
                let problem =
                    "sslmode is none of disable, prefer, require, verify-ca and verify-full";
                return Err(PostgresError::Url(problem.into()));
            }
        })
    }
}

/// As messages and logs have it: without a password, and without options.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { config, .. } = self;
        f.write_str("postgres://")?;
        if let Some(user) = config.get_user() {
            write!(f, "{user}@")?;
        }
        for (place, host) in config.get_hosts().iter().enumerate() {
            if place > 0 {
                f.write_char(',')?;
            }
            match host {
                Host::Tcp(name) => f.write_str(name)?,
                Host::Unix(path) => write!(f, "{}", path.display())?,
            }
            let ports = config.get_ports();
            if let Some(port) = ports.get(place).or(ports.first()) {
                write!(f, ":{port}")?;
            }
        }
        match config.get_dbname() {
            Some(name) => write!(f, "/{name}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        match StoreUrl::parse(url) {
            Ok(url) => url.to_string(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn no_password_is_shown_whatever_the_url_is() {
        for url in [
            "postgres://me:hushhush@db:5433/bazaar",
            "postgres://me:hushhush@db:5433/bazaar?sslmode=disable&connect_timeout=3",
            "postgres://me@db/bazaar?password=hushhush",
            "postgres://me:hushhush@db:port/bazaar",
            "postgres://me:hushhush@db/bazaar?sslmode=hushhush",
            "postgres://me:hushhush@db/bazaar?nonsense=hushhush",
            "postgres://me:hushhush%zz@db/bazaar",
            "postgres://me:hushhush@/bazaar",
            "postgres://me:p@hushhush@db/bazaar",
            "postgres://me:p?hushhush@db/bazaar",
            "mysql://me:hushhush@db/bazaar",
            "host=db password=hushhush",
            "postgres://me:hushhush@db/x?sslmode=verify-full",
        ] {
            let shown = shown(url);
            assert!(!shown.contains("hush"), "{url}: {shown}");
            if let Ok(parsed) = StoreUrl::parse(url) {
                assert!(!format!("{parsed:?}").contains("hush"));
            }
        }
        let several = "postgres://me:x@a,b:2/bazaar?sslmode=disable";
        assert_eq!(shown(several), "postgres://me@a:5432,b:2/bazaar");
    }

    #[test]
    fn the_modes_are_those_of_libpq() {
        let mode = |options: &str| {
            let url = StoreUrl::parse(&format!("postgres://me@db/bazaar{options}"));
            url.map(|url| (url.config.get_ssl_mode(), url.connector.is_some()))
                .map_err(|error| error.to_string())
        };
        assert_eq!(mode("?sslmode=prefer"), Ok((SslMode::Prefer, true)));
        assert_eq!(mode("?sslmode=disable"), Ok((SslMode::Disable, false)));
        assert_eq!(mode("?sslmode=require"), Ok((SslMode::Require, true)));
        for (options, problem) in [
            ("?sslmode=verify-full", "sslrootcert"),
            ("?sslmode=verify-ca", "sslrootcert"),
            ("?sslmode=allow", "sslmode is none of"),
            (
                "?sslmode=verify-full&sslrootcert=/no%20such/file",
                "/no such/file",
            ),
            ("?sslcert=x", "sslcert"),
        ] {
            let error = mode(options).unwrap_err();
            assert!(error.contains(problem), "{options}: {error}");
        }
        let local = StoreUrl::parse("postgres://me@%2Frun%2Fpostgresql/bazaar").unwrap();
        assert_eq!(local.config.get_ssl_mode(), SslMode::Disable);
    }

    #[test]
    fn another_machine_is_believed_unproven_only_where_the_url_says_so_and_then_that_is_a_risk() {
        let parse = |place: &str, options: &str| {
            let url = StoreUrl::parse(&format!("postgres://me@{place}/bazaar?{options}"));
            url.map(|url| url.risk()).map_err(|error| error.to_string())
        };
        for place in [
            "localhost",
            "127.0.0.1:5433",
            "[::1]",
            "%2Frun%2Fpostgresql",
            "localhost:1,127.0.0.1:2",
        ] {
            for options in ["", "sslmode=disable", "sslmode=prefer", "sslmode=require"] {
                assert_eq!(parse(place, options), Ok(None), "{place} {options}");
            }
        }
        let roots = tempfile::NamedTempFile::new().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let authority = rcgen::CertificateParams::default()
            .self_signed(&key)
            .unwrap();
        std::fs::write(roots.path(), authority.pem()).unwrap();
        let roots = format!("sslrootcert={}", roots.path().display());
        for place in ["db", "10.0.0.1", "localhost,db", "[2001:db8::1]"] {
            for options in ["", "connect_timeout=3", &roots] {
                let refused = parse(place, options).unwrap_err();
                assert!(
                    refused.contains("sslmode=verify-full"),
                    "{place}: {refused}"
                );
            }
            assert_eq!(parse(place, "sslmode=disable"), Ok(Some(IN_THE_CLEAR)));
            for mode in ["prefer", "require"] {
                let options = format!("sslmode={mode}");
                assert_eq!(parse(place, &options), Ok(Some(UNPROVEN)), "{place}");
            }
            for mode in ["require", "verify-ca", "verify-full"] {
                let options = format!("sslmode={mode}&{roots}");
                assert_eq!(parse(place, &options), Ok(None), "{place} {mode}");
            }
        }
        // It is the address that is connected to.
        let by_address = |address| parse("db", &format!("hostaddr={address}"));
        assert_eq!(by_address("127.0.0.1"), Ok(None));
        by_address("10.0.0.1").unwrap_err();
    }

    #[test]
    fn only_a_server_that_can_write_will_do() {
        let url =
            StoreUrl::parse("postgres://me@localhost/bazaar?target_session_attrs=any").unwrap();
        let wanted = url.config.get_target_session_attrs();
        assert_eq!(wanted, TargetSessionAttrs::ReadWrite);
    }
}
