//! What TLS fails for, in words. rustls and webpki name most of it as their sources do, which says nothing to those who
//! have to see to it.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use rustls::pki_types::{ServerName, UnixTime};
use rustls::{AlertDescription, CertificateError, Error};
use x509_cert::der::DateTime;

/// What TLS failed for, as whoever sees to it reads it.
pub fn in_words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(problem) => {
            format!("the other end's certificate {}", of_certificate(problem))
        }
        Error::NoCertificatesPresented => "the other end shows no certificate".to_owned(),
        Error::AlertReceived(alert) => match of_alert(*alert) {
            Some(problem) => {
                format!("the other end does not believe this one: its certificate {problem}")
            }
            None => format!("the other end gave up: {alert:?} (RFC 8446, section 6)"),
        },
        Error::InvalidMessage(_) => format!("what answers there does not speak TLS ({error})"),
        error => error.to_string(),
    }
}

/// The same of an error of rustls, or one of I/O for that. `None` where something else failed.
pub fn words_of(error: &(dyn StdError + 'static)) -> Option<String> {
    rustls_error(error).map(in_words)
}

/// An error of rustls, which comes inside of others of I/O.
pub fn rustls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    error
        .downcast_ref()
        .or_else(|| rustls_error(error.downcast_ref::<io::Error>()?.get_ref()?))
}

/// The same of an error of I/O, where TLS is what failed. Its kind stays.
pub fn readable(error: io::Error) -> io::Error {
    match words_of(&error) {
        Some(words) => io::Error::new(error.kind(), words),
        None => error,
    }
}

/// What webpki has against a certificate.
pub(crate) fn of_chain(error: &webpki::Error) -> String {
    let problem = match *error {
        webpki::Error::CertExpired { time, not_after } => {
            CertificateError::ExpiredContext { time, not_after }
        }
        webpki::Error::CertNotValidYet { time, not_before } => {
            CertificateError::NotValidYetContext { time, not_before }
        }
        webpki::Error::UnknownIssuer => CertificateError::UnknownIssuer,
        webpki::Error::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        webpki::Error::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        webpki::Error::BadDer | webpki::Error::TrailingData(_) => CertificateError::BadEncoding,
        ref other => return format!("will not do: {other}"),
    };
    of_certificate(&problem)
}

/// What follows on "the certificate".
fn of_certificate(problem: &CertificateError) -> String {
    match problem {
        CertificateError::Expired => "has expired".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("has expired: it was valid until {}", at(*not_after))
        }
        CertificateError::NotValidYet => {
            "is not valid yet: compare the clocks of both machines".to_owned()
        }
        CertificateError::NotValidYetContext { time, not_before } => format!(
            "is valid from {} on, and here it is {}: compare the clocks of both machines",
            at(*not_before),
            at(*time)
        ),
        CertificateError::UnknownIssuer => {
            "is of an authority that is not believed here".to_owned()
        }
        CertificateError::BadSignature => {
            "is of another authority than the one of the same name that is believed here, or was changed".to_owned()
        }
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => not_for(expected, presented),
        CertificateError::NotValidForName => "is not for the host that was asked for".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "is not for this use: services' are to have the extended key usages clientAuth and serverAuth, operators' clientAuth"
                .to_owned()
        }
        CertificateError::BadEncoding => "cannot be read".to_owned(),
        // What this crate has against it.
        CertificateError::Other(other) => format!("will not do: {}", other.0),
        other => format!("will not do: {other}"),
    }
}

fn not_for(expected: &ServerName<'_>, presented: &[String]) -> String {
    let presented: Vec<&str> = presented.iter().map(|name| bare(name)).collect();
    format!(
        "is for {}, and not for {}, which was asked for",
        match presented.is_empty() {
            true => "no host".to_owned(),
            false => presented.join(", "),
        },
        expected.to_str()
    )
}

/// A name as it is typed, of one as rustls writes it: `DnsName("host-1")`.
fn bare(name: &str) -> &str {
    let inner = name
        .split_once('(')
        .and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.unwrap_or(name).trim_matches('"')
}

/// What the other end has against this one's certificate.
fn of_alert(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::CertificateExpired => "has expired",
        AlertDescription::CertificateRevoked => "was revoked",
        AlertDescription::UnknownCA => "is of an authority that is not believed there",
        // What rustls answers to a signature that is not the authority's.
        AlertDescription::DecryptError => {
            "is of another authority than the one of the same name that is believed there, or was changed"
        }
        AlertDescription::CertificateRequired => "was not shown, and one is wanted",
        AlertDescription::UnsupportedCertificate => "is not for this use (extended key usages)",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => "will not do, which its own log may say more of",
        _ => return None,
    })
}

fn at(time: UnixTime) -> String {
    let since = Duration::from_secs(time.as_secs());
    DateTime::from_unix_duration(since).map_or_else(
        |_| format!("{} s after 1970", time.as_secs()),
        |at| at.to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_to_know_how_the_source_names_what_is_wrong() {
        let certificate = |problem| Error::InvalidCertificate(problem);
        let second = |second| UnixTime::since_unix_epoch(Duration::from_secs(second));
        let elsewhere = ServerName::try_from("host-2").unwrap();
        for (error, said) in [
            (
                certificate(CertificateError::ExpiredContext {
                    time: second(1_796_044_746),
                    not_after: second(1_796_044_740),
                }),
                "the other end's certificate has expired: it was valid until 2026-11-30T13:19:00Z",
            ),
            (
                certificate(CertificateError::NotValidForNameContext {
                    expected: elsewhere,
                    presented: ["DnsName(\"host-1\")", "IpAddress(127.0.0.1)"]
                        .map(str::to_owned)
                        .into(),
                }),
                "the other end's certificate is for host-1, 127.0.0.1, and not for host-2, which was asked for",
            ),
            (
                certificate(CertificateError::BadSignature),
                "the other end's certificate is of another authority than the one of the same name that is believed here, or was changed",
            ),
            (
                Error::AlertReceived(AlertDescription::CertificateExpired),
                "the other end does not believe this one: its certificate has expired",
            ),
        ] {
            assert_eq!(in_words(&error), said);
            let of_io = io::Error::new(io::ErrorKind::InvalidData, error);
            let readable = readable(of_io);
            assert_eq!(
                (readable.kind(), readable.to_string()),
                (io::ErrorKind::InvalidData, said.to_owned())
            );
        }
        let expired = webpki::Error::CertExpired {
            time: second(60),
            not_after: second(0),
        };
        assert_eq!(
            of_chain(&expired),
            "has expired: it was valid until 1970-01-01T00:00:00Z"
        );
    }
}
