//! `bazaar cert`: an authority, and certificates for services and operators.
//!
//! Certificates are of ECDSA over P-256, which every TLS library has, and say who their holder is by a URI: see
//! [`tls::principal`]. A service is reached at the hosts that are named, and as localhost.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use daemon::watched::{Contents, Unread};
use daemon::{atomic_file, directory};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use tls::{Principal, Role};

use crate::cli;
use crate::error::Error;
use crate::output;

/// The authority's files.
pub const AUTHORITY: &str = "ca";

/// What it calls itself.
const AUTHORITY_NAME: &str = "Bazaar cluster authority";

/// How long an authority is believed, and a certificate at most, in days.
pub const DAYS_MAX: u32 = 3650;

/// How far clocks may be behind.
const CLOCK_SKEW: Duration = Duration::from_hours(1);

/// Under which every machine reaches itself.
const OWN_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Random bytes of a serial number: RFC 5280, section 4.1.2.2, takes 20 at most, and the first bit is its sign.
const SERIAL_BYTES: usize = 16;

/// Why no certificates were made.
#[derive(Debug, thiserror::Error)]
pub enum CertError {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    /// One of two files that belong together is missing.
    #[error("{} is there and {} is not: without both, certificates that this authority made cannot be added to. Name another directory, or put the missing one back", there.display(), missing.display())]
    Half { there: PathBuf, missing: PathBuf },
    /// What is there is not an authority's.
    #[error("{}: {problem}", path.display())]
    Unusable { path: PathBuf, problem: String },
    #[error("`{0}` is neither a host name nor an address")]
    Host(String),
    #[error(transparent)]
    Unread(#[from] Unread),
    /// What is there is not what made the others, or will not do.
    #[error("the certificate would not do: {0}")]
    Unfit(#[from] tls::Error),
    /// The library refuses.
    #[error("cannot make a certificate: {0}")]
    Library(#[from] rcgen::Error),
    #[error("no random number: {0}")]
    Random(getrandom::Error),
    #[error(transparent)]
    Shared(#[from] Error),
}

/// What is to be there.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub dir: PathBuf,
    /// Under which services are reached, beside [`OWN_HOSTS`].
    pub hosts: Vec<String>,
    pub principals: Vec<Principal>,
    pub days: u32,
    /// Whose certificates are made anew that are there.
    pub renew: Renew,
}

/// Whose certificates are made anew, though they will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renew {
    Nobodys,
    /// Not those of people, who may have put them elsewhere.
    Services,
    Everybodys,
}

impl Wanted {
    fn renews(&self, principal: &Principal) -> bool {
        match self.renew {
            Renew::Nobodys => false,
            Renew::Services => !is_person(principal),
            Renew::Everybodys => true,
        }
    }
}

fn is_person(principal: &Principal) -> bool {
    matches!(principal.role(), Role::Operator | Role::Viewer)
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Pair {
    /// Of that name in a directory.
    pub fn named(dir: &Path, name: &str) -> Self {
        Self {
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        }
    }
}

/// Runs a command about certificates.
pub fn run(command: cli::Cert) -> Result<(), CertError> {
    let cli::Cert::New(args) = command;
    // With none named, to renew is for whomever there are certificates of.
    let found = match args.renew && args.dir.is_dir() {
        true => found(&args.dir)?,
        false => Vec::new(),
    };
    let principals = match (args.principals.is_empty(), found.is_empty()) {
        (false, _) => args.principals,
        (true, false) => found,
        (true, true) => everybody(args.replicas),
    };
    let made = make(&Wanted {
        dir: args.dir,
        hosts: args.hosts,
        principals,
        days: args.days,
        renew: match args.renew {
            true => Renew::Everybodys,
            false => Renew::Nobodys,
        },
    })?;
    let mut text = String::new();
    for path in &made {
        text += &format!("{}\n", path.display());
    }
    if made.is_empty() {
        text += "every certificate is there already: --renew makes them anew\n";
    }
    output::print(&text).map_err(Error::from)?;
    Ok(())
}

/// Every service of a bazaar, an operator, and somebody who only looks.
pub fn everybody(replicas: u32) -> Vec<Principal> {
    let one = |role: Role| Principal::new(role, role.name()).expect("a role's name is one");
    let replicas = (1..=replicas).map(|id| {
        Principal::new(Role::Order, &id.to_string()).expect("a replica's number is its name")
    });
    let others = [Role::Catalog, Role::Gateway, Role::Operator, Role::Viewer];
    others.map(one).into_iter().chain(replicas).collect()
}

/// Of whom there are certificates in a directory, in the order of their files.
fn found(dir: &Path) -> Result<Vec<Principal>, CertError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        files.push(entry.map_err(failed(dir))?.path());
    }
    files.sort();
    let certificates = files
        .iter()
        .filter(|file| file.extension().is_some_and(|kind| kind == "crt"));
    let whose = certificates.filter_map(|file| {
        let principal = tls::cluster::named(&Contents::read(file).ok()?).ok()?;
        // Others put elsewhere what is not called as it is here.
        let is_here = file
            .file_stem()
            .is_some_and(|stem| stem == file_name(&principal).as_str());
        is_here.then_some(principal)
    });
    Ok(whose.collect())
}

/// What somebody's files are called: `gateway`, `gateway-edge-2`, `order-3`.
pub fn file_name(principal: &Principal) -> String {
    let role = principal.role().name();
    match principal.name() {
        name if name == role => role.to_owned(),
        name => format!("{role}-{name}"),
    }
}

/// Makes what is wanted and missing; returns the certificates that were made.
///
/// # Errors
/// Where the directory cannot be used, holds half of an authority, or a host is none.
pub fn make(wanted: &Wanted) -> Result<Vec<PathBuf>, CertError> {
    let hosts: Vec<String> = OWN_HOSTS
        .into_iter()
        .map(str::to_owned)
        .chain(wanted.hosts.iter().cloned())
        .collect();
    names(&hosts)?;
    directory::make(&wanted.dir).map_err(failed(&wanted.dir))?;
    let mut made = Vec::new();
    let renew = wanted.renew != Renew::Nobodys;
    let authority = authority(&wanted.dir, renew, &mut made)?;
    for principal in &wanted.principals {
        let pair = Pair::named(&wanted.dir, &file_name(principal));
        let before = Contents::read(&pair.certificate).ok();
        let before = before.and_then(|before| tls::cluster::described(&before).ok());
        let named = before.map(|(hosts, _)| hosts).unwrap_or_default();
        let has_all = is_person(principal) || hosts.iter().all(|host| is_among(host, &named));
        let serves = has_all && serves(&authority.certificate, &pair, principal);
        if serves && !wanted.renews(principal) {
            continue;
        }
        let key = KeyPair::generate()?;
        // Under which it was reached it is reached on.
        let all: Vec<_> = hosts.iter().chain(&named).cloned().collect();
        let until = days_from_now(wanted.days).min(authority.until);
        let certificate =
            certificate(principal, &names(&all)?, until)?.signed_by(&key, &authority.issuer)?;
        let contents = |path: &Path, pem: String| Contents {
            path: path.to_owned(),
            bytes: pem.into_bytes(),
        };
        // An authority that is another program's may call itself something else.
        tls::cluster::check(&[
            authority.certificate.clone(),
            contents(&pair.certificate, certificate.pem()),
            contents(&pair.key, key.serialize_pem()),
        ])?;
        // Who watches both takes them up once they belong together.
        write_key(&pair.key, &key)?;
        write(&pair.certificate, &certificate.pem())?;
        made.push(pair.certificate);
    }
    Ok(made)
}

/// Whether files are there that belong together, are somebody's, and hold.
fn serves(authority: &Contents, pair: &Pair, principal: &Principal) -> bool {
    let (Ok(certificate), Ok(key)) = (Contents::read(&pair.certificate), Contents::read(&pair.key))
    else {
        return false;
    };
    let checked = tls::cluster::check(&[authority.clone(), certificate, key]);
    checked.is_ok_and(|found| found == *principal)
}

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Contents,
    /// When its certificate ends, and with it whatever it vouches for.
    until: SystemTime,
}

/// The authority of a directory, which is made where there is none.
fn authority(dir: &Path, renew: bool, made: &mut Vec<PathBuf>) -> Result<Authority, CertError> {
    let Pair { certificate, key } = Pair::named(dir, AUTHORITY);
    let is_there = match (certificate.exists(), key.exists()) {
        (true, false) => {
            return Err(CertError::Half {
                there: certificate,
                missing: key,
            });
        }
        (is_there, _) => is_there,
    };
    let own = match key.exists() {
        true => read_key(&key)?,
        false => {
            let own = KeyPair::generate()?;
            write_key(&key, &own)?;
            own
        }
    };
    // Where only the key is there, a crash has left it. By the same key and name it is the same authority, whatever its
    // dates: what it has vouched for stays so.
    let params = authority_params()?;
    if !is_there || (renew && is_half_over(&certificate)?) {
        write(&certificate, &params.self_signed(&own)?.pem())?;
        made.push(certificate.clone());
    }
    let certificate = Contents::read(&certificate)?;
    let (_, validity) = tls::cluster::described(&certificate)?;
    Ok(Authority {
        issuer: Issuer::new(params, own),
        until: validity.until,
        certificate,
    })
}

fn is_half_over(certificate: &Path) -> Result<bool, CertError> {
    let (_, validity) = tls::cluster::described(&Contents::read(certificate)?)?;
    let left = validity.until.duration_since(SystemTime::now());
    let whole = validity.until.duration_since(validity.from);
    Ok(left.unwrap_or_default() < whole.unwrap_or_default() / 2)
}

fn read_key(path: &Path) -> Result<KeyPair, CertError> {
    let pem = fs::read_to_string(path).map_err(failed(path))?;
    KeyPair::from_pem(&pem).map_err(unusable(path))
}

fn authority_params() -> Result<CertificateParams, CertError> {
    let mut params = params(AUTHORITY_NAME, days_from_now(DAYS_MAX))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn certificate(
    principal: &Principal,
    hosts: &[SanType],
    until: SystemTime,
) -> Result<CertificateParams, CertError> {
    let mut params = params(&file_name(principal), until)?;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if !is_person(principal) {
        params
            .extended_key_usages
            .push(ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names.extend_from_slice(hosts);
    }
    let uri = SanType::URI(principal.to_string().try_into()?);
    params.subject_alt_names.push(uri);
    Ok(params)
}

fn params(name: &str, until: SystemTime) -> Result<CertificateParams, CertError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (SystemTime::now() - CLOCK_SKEW).into();
    params.not_after = until.into();
    let mut serial = [0; SERIAL_BYTES];
    getrandom::fill(&mut serial).map_err(CertError::Random)?;
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

/// As certificates have them, each once.
fn names(hosts: &[String]) -> Result<Vec<SanType>, CertError> {
    let mut names = Vec::new();
    for text in hosts {
        let name = host(text)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether a host is one of these, by whichever way it is written.
fn is_among(text: &str, hosts: &[String]) -> bool {
    let same =
        |other: &String| matches!((host(text), host(other)), (Ok(one), Ok(other)) if one == other);
    hosts.iter().any(same)
}

fn days_from_now(days: u32) -> SystemTime {
    SystemTime::now() + Duration::from_hours(24 * u64::from(days))
}

fn host(text: &str) -> Result<SanType, CertError> {
    if let Ok(address) = text.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let labels = text.split('.');
    let is_label = |label: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(is_plain)
    };
    // One more is any one label (RFC 6125, section 6.4.3).
    let named = text
        .strip_prefix("*.")
        .map_or(labels, |rest| rest.split('.'));
    let is_host = text.len() <= 253 && named.clone().all(is_label);
    match text.try_into() {
        Ok(name) if is_host => Ok(SanType::DnsName(name)),
        _ => Err(CertError::Host(text.to_owned())),
    }
}

/// A file that only this user can read, from its first byte on.
fn write_key(path: &Path, key: &KeyPair) -> Result<(), CertError> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = Path::new(&new);
    let _ = fs::remove_file(new); // what a crash left
    let write = || -> io::Result<()> {
        let mut file = File::options()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(new)?;
        file.write_all(key.serialize_pem().as_bytes())?;
        file.sync_all()?;
        atomic_file::replace(new, path)
    };
    write().map_err(failed(path))
}

fn write(path: &Path, contents: &str) -> Result<(), CertError> {
    atomic_file::write(path, contents.as_bytes()).map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> CertError {
    let path = path.to_owned();
    move |source| CertError::File { path, source }
}

fn unusable<E: ToString>(path: &Path) -> impl FnOnce(E) -> CertError {
    let path = path.to_owned();
    move |error| CertError::Unusable {
        path,
        problem: error.to_string(),
    }
}
