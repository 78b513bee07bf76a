//! Certificates from somebody's own up to an authority's: whether they hold, and until when.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

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
/// what it is.
pub(crate) async fn watch_end(in_force: impl Fn() -> Vec<(&'static str, Validity)>) {
    loop {
        for (what, validity) in in_force() {
            match validity.until.duration_since(SystemTime::now()) {
                Err(_) => tracing::error!(
                    "{what} has expired: nobody should believe it any more. Put a new one in its place"
                ),
                Ok(left) if left < validity.soon() => tracing::warn!(
                    hours = left.as_secs() / 3600,
                    "{what} expires soon: put a new one in its place, which is taken up at once"
                ),
                Ok(_) => {}
            }
        }
        tokio::time::sleep(SAID_EVERY).await;
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
}
