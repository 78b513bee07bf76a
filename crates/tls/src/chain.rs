//! Certificates from somebody's own up to an authority's: whether they hold, and until when.

use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use daemon::watched::LOOK_INTERVAL;
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// What a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To take connections with.
    Server,
    /// To make them with.
    Client,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "server",
            Self::Client => "client",
        })
    }
}

/// Whether one of these authorities vouches for the first of these certificates, now and for that.
pub(crate) fn verify(
    chain: &[CertificateDer<'_>],
    authorities: &RootCertStore,
    purpose: Purpose,
) -> Result<(), webpki::Error> {
    let (first, between) = chain.split_first().ok_or(webpki::Error::UnknownIssuer)?;
    let algorithms = crate::provider().signature_verification_algorithms.all;
    let usage = match purpose {
        Purpose::Server => KeyUsage::server_auth(),
        Purpose::Client => KeyUsage::client_auth(),
    };
    let first = EndEntityCert::try_from(first)?;
    let (roots, now) = (&authorities.roots, UnixTime::now());
    first.verify_for_usage(algorithms, roots, between, now, usage, None, None)?;
    Ok(())
}

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// From then on.
    pub from: SystemTime,
    /// And then no more.
    pub until: SystemTime,
}

impl Validity {
    /// Of a certificate. `None` where it cannot be read.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::from_der(certificate).ok()?;
        let validity = certificate.tbs_certificate().validity();
        Some(Self {
            from: validity.not_before.to_system_time(),
            until: validity.not_after.to_system_time(),
        })
    }

    /// How long before its end it is worth a word: a third of its time, and two weeks at most.
    fn soon(self) -> Duration {
        let whole = self.until.duration_since(self.from).unwrap_or_default();
        (whole / 3).min(ENDS_SOON_MAX)
    }
}

/// The hosts that a certificate names, as they are typed.
pub(crate) fn hosts(certificate: &CertificateDer<'_>) -> Vec<String> {
    let certificate = Certificate::from_der(certificate).ok();
    let names = certificate.and_then(|certificate| {
        let certificate = certificate.tbs_certificate();
        let (_, names) = certificate.get_extension::<SubjectAltName>().ok()??;
        Some(names.0)
    });
    let host = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(address) => match *address.as_bytes() {
            [a, b, c, d] => Some(IpAddr::from([a, b, c, d]).to_string()),
            ref bytes => {
                let bytes: [u8; 16] = bytes.try_into().ok()?;
                Some(IpAddr::from(bytes).to_string())
            }
        },
        _ => None,
    };
    names.unwrap_or_default().iter().filter_map(host).collect()
}

/// See [`Validity::soon`].
const ENDS_SOON_MAX: Duration = Duration::from_hours(14 * 24);

/// How often that is said.
const SAID_EVERY: Duration = Duration::from_hours(12);

/// Says in the log, for as long as it is polled, when a certificate that is in force is about to end, or has: each with
/// what it is, as soon as it is so.
pub(crate) async fn watch_end(in_force: impl Fn() -> Vec<(&'static str, Validity)>) {
    let mut ends = Ends::default();
    loop {
        for (what, end) in ends.news(in_force(), SystemTime::now()) {
            match end {
                End::Past => tracing::error!(
                    "{what} has expired: nobody should believe it any more. Put a new one in its place"
                ),
                End::Soon(left) => tracing::warn!(
                    hours = left.as_secs() / 3600,
                    "{what} expires soon: put a new one in its place, which is taken up at once"
                ),
            }
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// What is worth a word of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Past,
    /// In so long.
    Soon(Duration),
}

/// What was said of certificates' ends.
#[derive(Debug, Default)]
struct Ends(Vec<Said>);

#[derive(Debug)]
struct Said {
    what: &'static str,
    validity: Validity,
    is_past: bool,
    at: SystemTime,
}

impl Ends {
    /// What is to be said now of those that are in force: of each that it ends soon and that it has ended, once, and again
    /// after [`SAID_EVERY`].
    fn news(
        &mut self,
        in_force: Vec<(&'static str, Validity)>,
        now: SystemTime,
    ) -> Vec<(&'static str, End)> {
        // Where the clock was set back, it may as well be said again.
        self.0.retain(|said| {
            let is_recent = now
                .duration_since(said.at)
                .is_ok_and(|ago| ago < SAID_EVERY);
            is_recent && in_force.contains(&(said.what, said.validity))
        });
        let mut news = Vec::new();
        for (what, validity) in in_force {
            let end = match validity.until.duration_since(now) {
                Ok(left) if !left.is_zero() && left >= validity.soon() => continue,
                Ok(left) if !left.is_zero() => End::Soon(left),
                _ => End::Past,
            };
            let said = Said {
                what,
                validity,
                is_past: end == End::Past,
                at: now,
            };
            let is_said = self.0.iter().any(|before| {
                (before.what, before.validity, before.is_past) == (what, validity, said.is_past)
            });
            if !is_said {
                news.push((what, end));
                self.0.push(said);
            }
        }
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_worth_a_word_in_its_last_third_and_two_weeks_before_its_end() {
        let days = |days: u64| Duration::from_hours(24 * days);
        let of = |whole| Validity {
            from: SystemTime::UNIX_EPOCH,
            until: SystemTime::UNIX_EPOCH + days(whole),
        };
        assert_eq!(of(365).soon(), days(14));
        assert_eq!(of(3).soon(), days(1));
    }

    #[test]
    fn the_end_of_a_certificate_is_said_when_it_comes_and_of_one_that_replaces_it_at_once() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_hours(24);
        let at = |seconds| start + Duration::from_secs(seconds);
        let until = |seconds| Validity {
            from: start,
            until: at(seconds),
        };
        let mut ends = Ends::default();
        let mut news = |until_seconds, now| {
            let news = ends.news(vec![("it", until(until_seconds))], at(now));
            news.into_iter().map(|(_, end)| end).collect::<Vec<_>>()
        };
        let soon = |seconds| vec![End::Soon(Duration::from_secs(seconds))];
        assert_eq!(news(300, 199), []);
        assert_eq!((news(300, 201), news(300, 202)), (soon(99), vec![]));
        assert_eq!((news(300, 300), news(300, 301)), (vec![End::Past], vec![]));
        // Its file is read anew: another one is in force, with little time left as well.
        assert_eq!((news(330, 302), news(330, 303)), (soon(28), vec![]));
        assert_eq!(news(330, 330), [End::Past]);
        let half_a_day = SAID_EVERY.as_secs();
        assert_eq!(news(330, 329 + half_a_day), []);
        assert_eq!(news(330, 330 + half_a_day), [End::Past], "it still is");
        assert_eq!(news(1_000_000, 331 + half_a_day), []);
    }
}
