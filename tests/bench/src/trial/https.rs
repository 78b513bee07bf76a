//! Lookups by TLS, over connections that are kept and over a new one for each. All show one certificate, of P-256, and agree on the
//! newest version and the cipher that both sides like most, as servers do by default.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use super::{Bench, Claim, Figure, Side, Topic, Trial, alternate};
use crate::bars::Bound;
use crate::contender::Site;
use crate::contender::bazaar::{Bazaar, Setup};
use crate::contender::caches::{PATH, STALE};
use crate::error::Error;
use crate::generator::Load;
use crate::generator::wrk::Requests;
use crate::origin::{self, Origin};
use crate::process::{self, Process, command, find, free_addresses};
use crate::scenario::{BAZAAR, LOOKUP_CONNECTIONS, Peer};

/// For how long each is driven before anything counts.
const WARM_UP_S: u64 = 1;

const RATE: &str = "lookups";

const NGINX: &str = "nginx";
const HAPROXY: &str = "haproxy";

/// How connections are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    /// For request after request.
    Kept,
    /// For one.
    Once,
}

impl Use {
    fn title(self) -> String {
        let how = match self {
            Self::Kept => "",
            Self::Once => ", a new connection for each",
        };
        format!("Cached lookups by TLS{how}, {LOOKUP_CONNECTIONS} connections")
    }

    fn script(self) -> &'static str {
        match self {
            Self::Kept => "",
            Self::Once => include_str!("../../contenders/anew.lua"),
        }
    }
}

/// A certificate and its key, in PEM, and both in one file.
struct Identity {
    certificate: PathBuf,
    key: PathBuf,
    both: PathBuf,
}

impl Identity {
    fn make(dir: &Path) -> Result<Self, Error> {
        let file = |name: &str| dir.join(name);
        let identity = Self {
            certificate: file("tls.crt"),
            key: file("tls.key"),
            both: file("tls.pem"),
        };
        let mut line = command(find("openssl")?);
        line.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args(["-subj", "/CN=localhost"])
            .args(["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
            .arg("-out")
            .arg(&identity.certificate)
            .arg("-keyout")
            .arg(&identity.key);
        process::run(line)?;
        let read = |path: &PathBuf| fs::read_to_string(path).map_err(Error::file(path));
        let both = read(&identity.certificate)? + &read(&identity.key)?;
        fs::write(&identity.both, both).map_err(Error::file(&identity.both))?;
        Ok(identity)
    }

    /// A configuration with what all of them need.
    fn fill(&self, template: &str, site: &Site, dir: &Path, at: Addresses) -> String {
        let user = match rustix::process::geteuid().is_root() {
            true => "user root;",
            false => "",
        };
        let blanks = [
            ("{workers}", site.workers.to_string()),
            ("{dir}", dir.display().to_string()),
            ("{port}", at.listen.port().to_string()),
            ("{origin}", at.origin.to_string()),
            ("{user}", user.to_owned()),
            ("{certificate}", self.certificate.display().to_string()),
            ("{key}", self.key.display().to_string()),
            ("{both}", self.both.display().to_string()),
        ];
        let filled = blanks.iter();
        filled.fold(template.to_owned(), |text, (blank, value)| {
            text.replace(blank, value)
        })
    }
}

/// Where a cache listens, and where it asks.
#[derive(Clone, Copy)]
struct Addresses {
    listen: SocketAddr,
    origin: SocketAddr,
}

/// Whom to ask.
struct Server {
    name: &'static str,
    lacks: &'static str,
    address: SocketAddr,
    /// The generator's files go there.
    dir: PathBuf,
    /// One of these is there, and runs for as long as it is.
    _bazaar: Option<Bazaar>,
    _cache: Option<Process>,
}

impl Server {
    fn bazaar(bench: Bench<'_>, identity: &Identity) -> Result<Self, Error> {
        let setup = Setup {
            name: BAZAAR.to_owned(),
            binary: bench.plan.bazaar.clone(),
            stocks: None,
            store: None,
            flags: vec![
                format!("--tls-cert={}", identity.certificate.display()),
                format!("--tls-key={}", identity.key.display()),
            ],
        };
        let bazaar = Bazaar::start(&bench.plan.site, &setup)?;
        Ok(Self {
            name: BAZAAR,
            lacks: "",
            address: bazaar.address(),
            dir: bazaar.dir().to_owned(),
            _bazaar: Some(bazaar),
            _cache: None,
        })
    }

    fn nginx(site: &Site, identity: &Identity, origin: &Origin) -> Result<Self, Error> {
        let nginx = find("nginx")?;
        let template = include_str!("../../contenders/nginx-https.conf");
        Self::cache(site, NGINX, |dir, listen| {
            let origin = origin.address;
            let config = identity.fill(template, site, dir, Addresses { listen, origin });
            let file = dir.join("nginx.conf");
            fs::write(&file, config).map_err(Error::file(&file))?;
            let mut line = command(nginx);
            line.arg("-p").arg(dir).arg("-c").arg(&file);
            Process::start(NGINX, dir, line)
        })
    }

    fn haproxy(site: &Site, identity: &Identity, origin: &Origin) -> Result<Self, Error> {
        let haproxy = find("haproxy")?;
        let template = include_str!("../../contenders/haproxy-https.cfg");
        Self::cache(site, HAPROXY, |dir, listen| {
            let origin = origin.address;
            let config = identity.fill(template, site, dir, Addresses { listen, origin });
            let file = dir.join("haproxy.cfg");
            fs::write(&file, config).map_err(Error::file(&file))?;
            let mut line = command(haproxy);
            line.arg("-db").arg("-f").arg(&file);
            Process::start(HAPROXY, dir, line)
        })
    }

    fn cache(
        site: &Site,
        name: &'static str,
        start: impl FnOnce(&Path, SocketAddr) -> Result<Process, Error>,
    ) -> Result<Self, Error> {
        let dir = site.make_dir(&format!("{name}-https"))?;
        let [address] = free_addresses()?;
        let mut process = start(&dir, address)?;
        process.wait_until(|_| TcpStream::connect(address).is_ok())?;
        Ok(Self {
            name,
            lacks: STALE,
            address,
            dir,
            _bazaar: None,
            _cache: Some(process),
        })
    }

    fn look_up(&self, bench: Bench<'_>, way: Use, seconds: u64) -> Result<Vec<Figure>, Error> {
        let load = Load {
            connections: LOOKUP_CONNECTIONS,
            seconds,
            cpu: bench.plan.cpu,
        };
        let requests = Requests {
            script: way.script(),
            is_secure: true,
            ..Requests::get(self.address, PATH)
        };
        let figures = requests.send(&load, &self.dir)?.without_errors(self.name)?;
        Ok(vec![
            Figure::of(RATE, "per second", figures.per_second()),
            Figure::of("p50", "µs", figures.p50_us),
            Figure::of("p99", "µs", figures.p99_us),
        ])
    }
}

pub fn measure(bench: Bench<'_>) -> Result<Vec<Trial>, Error> {
    let site = &bench.plan.site;
    let identity = Identity::make(&site.dir)?;
    let origin = origin::start()?;
    let mut servers = vec![Server::bazaar(bench, &identity)?];
    let mut absent = Vec::new();
    let mut add = |peer, name: &str, started: &dyn Fn() -> Result<Server, Error>| {
        if !bench.plan.wants(peer) {
            absent.push(format!("{name}, which `--peers` does not name"));
            return Ok(());
        }
        match started() {
            Ok(server) => servers.push(server),
            Err(missing @ Error::Missing { .. }) => absent.push(format!("{name}: {missing}")),
            Err(error) => return Err(error),
        }
        Ok(())
    };
    let nginx = || Server::nginx(site, &identity, &origin);
    let haproxy = || Server::haproxy(site, &identity, &origin);
    add(Peer::Nginx, NGINX, &nginx)?;
    add(Peer::Haproxy, HAPROXY, &haproxy)?;
    let trial = |way: Use| -> Result<Trial, Error> {
        let mut sides = Vec::new();
        for server in &servers {
            server.look_up(bench, way, WARM_UP_S)?;
            let turn = move || server.look_up(bench, way, bench.plan.seconds);
            sides.push(Side::new(server.name, server.lacks, turn));
        }
        // From here on caches have what is asked for.
        let asked = origin.answers();
        let title = way.title();
        let parties = alternate(&title, &mut sides, bench.plan.rounds)?;
        if origin.answers() != asked {
            return Err(Error::Wrong {
                name: "a cache".to_owned(),
                answer: "it asked the origin again".to_owned(),
            });
        }
        Ok(Trial {
            topic: Topic::Https,
            parties,
            claims: vec![Claim {
                text: format!("{title}: per second at least 1.0 × the fastest cache's"),
                ours: BAZAAR,
                theirs: vec![NGINX, HAPROXY],
                quantity: RATE,
                bound: Bound::AtLeast(1.0),
            }],
            title,
            absent: absent.clone(),
        })
    };
    [Use::Kept, Use::Once].into_iter().map(trial).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_have_no_blank_left() {
        let identity = Identity {
            certificate: "/x/tls.crt".into(),
            key: "/x/tls.key".into(),
            both: "/x/tls.pem".into(),
        };
        let site = Site {
            dir: "/x".into(),
            workers: 2,
        };
        let at = Addresses {
            listen: ([127, 0, 0, 1], 8443).into(),
            origin: ([127, 0, 0, 1], 8080).into(),
        };
        for (template, parts) in [
            (
                include_str!("../../contenders/nginx-https.conf"),
                ["listen 127.0.0.1:8443 ssl", "ssl_certificate /x/tls.crt;"],
            ),
            (
                include_str!("../../contenders/haproxy-https.cfg"),
                ["bind 127.0.0.1:8443 ssl", "crt /x/tls.pem"],
            ),
        ] {
            let filled = identity.fill(template, &site, Path::new("/x/d"), at);
            for part in parts {
                assert!(filled.contains(part), "{part} is not in\n{filled}");
            }
            for blank in ["{port}", "{dir}", "{origin}", "{key}", "{both}"] {
                assert!(!filled.contains(blank), "{blank} is left in\n{filled}");
            }
        }
    }
}
