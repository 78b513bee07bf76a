//! Certificates from somebody's own up to an authority's: whether they hold, and until when.

use std::time::{Duration, SystemTime};

use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

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

/// Until when a certificate is valid. `None` where it cannot be read.
pub(crate) fn valid_until(certificate: &CertificateDer<'_>) -> Option<SystemTime> {
    let certificate = Certificate::from_der(certificate).ok()?;
    let validity = certificate.tbs_certificate().validity();
    Some(validity.not_after.to_system_time())
}

/// How long before its end a certificate is worth a word.
const ENDS_SOON: Duration = Duration::from_hours(14 * 24);

/// How often that is said.
const SAID_EVERY: Duration = Duration::from_hours(12);

/// Says in the log, for as long as it is polled, when a certificate that is in force is about to end, or has.
pub(crate) async fn watch_end(of: &'static str, valid_until: impl Fn() -> Option<SystemTime>) {
    loop {
        if let Some(until) = valid_until() {
            match until.duration_since(SystemTime::now()) {
                Err(_) => tracing::error!(
                    "{of} has expired: nobody believes it any more. Put a new one in its place"
                ),
                Ok(left) if left < ENDS_SOON => tracing::warn!(
                    hours = left.as_secs() / 3600,
                    "{of} expires soon: put a new one in its place, which is taken up at once"
                ),
                Ok(_) => {}
            }
        }
        tokio::time::sleep(SAID_EVERY).await;
    }
}
