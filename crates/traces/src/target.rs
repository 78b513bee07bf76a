//! Where spans go: a collector, by its URL.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use http::Uri;

/// OTLP's port for HTTP, where a URL without a path would be one for gRPC.
const HTTP_PORT: u16 = 4318;

/// How a collector is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP, in protobuf's binary encoding.
    Http,
}

/// A collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub(crate) uri: Uri,
    pub(crate) protocol: Protocol,
    pub(crate) authorities: Option<PathBuf>,
}

/// Why nothing can be exported to a collector.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is not a URL of one.
    #[error(
        "`{0}` is not a collector's URL: http://host:4317 for OTLP over gRPC, http://host:4318/v1/traces over HTTP, or https://…"
    )]
    Invalid(String),
    /// It may carry a secret, and is logged.
    #[error(
        "a collector's URL is shown in logs, and this one has a user or a password in it: leave them out"
    )]
    Secret,
    /// That is the port for HTTP, and the URL is one for gRPC.
    #[error(
        "{HTTP_PORT} is OTLP's port for HTTP: say http://host:{HTTP_PORT}/v1/traces, or a port for gRPC such as 4317"
    )]
    Port,
    /// Its authorities cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Authorities would not be looked at.
    #[error("{0} is not encrypted, and --otlp-ca is of no use: name an https:// URL")]
    InTheClear(String),
    /// There is no thread to export on.
    #[error("cannot start a thread: {0}")]
    Thread(#[source] io::Error),
}

impl Target {
    /// Believes the authorities in a file, where it is encrypted, rather than those of this machine.
    ///
    /// # Errors
    /// Where it is not encrypted.
    pub fn believing(self, authorities: Option<PathBuf>) -> Result<Self, TargetError> {
        if authorities.is_some() && !self.is_secure() {
            return Err(TargetError::InTheClear(self.to_string()));
        }
        Ok(Self {
            authorities,
            ..self
        })
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.uri.scheme_str() == Some("https")
    }
}

/// With a path it is one for HTTP, without one for gRPC.
impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let invalid = || TargetError::Invalid(text.to_owned());
        if text.contains('@') {
            return Err(TargetError::Secret);
        }
        let uri: Uri = text.parse().map_err(|_| invalid())?;
        let is_absolute = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_absolute || uri.authority().is_none() || uri.query().is_some() {
            return Err(invalid());
        }
        let protocol = match uri.path() {
            "" | "/" => Protocol::Grpc,
            _ => Protocol::Http,
        };
        if protocol == Protocol::Grpc && uri.port_u16() == Some(HTTP_PORT) {
            return Err(TargetError::Port);
        }
        Ok(Self {
            uri,
            protocol,
            authorities: None,
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.uri.to_string();
        match self.protocol {
            Protocol::Grpc => f.write_str(text.trim_end_matches('/')),
            Protocol::Http => f.write_str(&text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_tells_http_from_grpc() {
        for (url, protocol) in [
            ("http://127.0.0.1:4317", Protocol::Grpc),
            ("https://collector", Protocol::Grpc),
            ("http://[::1]:4318/v1/traces", Protocol::Http),
            ("https://collector/some/where/v1/traces", Protocol::Http),
        ] {
            let target: Target = url.parse().unwrap();
            assert_eq!(target.protocol, protocol, "{url}");
            assert_eq!(target.to_string(), url);
        }
    }

    #[test]
    fn what_is_none_is_refused_with_what_to_say_instead() {
        for (url, advice) in [
            ("", "http://host:4317"),
            ("collector:4317", "http://host:4317"),
            ("grpc://collector:4317", "http://host:4317"),
            ("http://collector:4318", "/v1/traces"),
            ("http://collector/v1/traces?token=x", "http://host:4317"),
            ("http://user:password@collector:4317", "leave them out"),
        ] {
            let refused = url.parse::<Target>().unwrap_err().to_string();
            assert!(refused.contains(advice), "{url}: {refused}");
            assert!(!refused.contains("password@"), "{refused}");
        }
        let plain: Target = "http://collector:4317".parse().unwrap();
        let refused = plain.believing(Some("ca.crt".into())).unwrap_err();
        assert!(refused.to_string().contains("https://"), "{refused}");
    }
}
