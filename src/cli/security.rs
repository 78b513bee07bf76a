//! Certificates: which ones a service shows, and which it believes.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{Args, Subcommand};
use frontend_host::config::Https;
use tls::{Files, Principal};

use crate::client::Trust;

/// How services prove to each other who they are.
#[derive(Debug, Clone, Args)]
pub struct Cluster {
    /// The authority of all services' certificates, in PEM. With the two below, all gRPC is encrypted and every service
    /// proves by its certificate who it is. All three files are read anew when they change
    #[arg(long, env = "BAZAAR_CLUSTER_CA", value_name = "FILE", requires_all = ["cluster_cert", "cluster_key"])]
    cluster_ca: Option<PathBuf>,
    /// This service's certificate, which says which one it is: spiffe://bazaar/ROLE/NAME
    #[arg(long, env = "BAZAAR_CLUSTER_CERT", value_name = "FILE", requires_all = ["cluster_ca", "cluster_key"])]
    cluster_cert: Option<PathBuf>,
    /// The key to it
    #[arg(long, env = "BAZAAR_CLUSTER_KEY", value_name = "FILE", requires_all = ["cluster_ca", "cluster_cert"])]
    cluster_key: Option<PathBuf>,
}

impl Cluster {
    /// Where they are, where there are any.
    pub fn files(&self) -> Option<Files> {
        Some(Files {
            authorities: self.cluster_ca.clone()?,
            certificate: self.cluster_cert.clone()?,
            key: self.cluster_key.clone()?,
        })
    }
}

/// Whether a service listens to everybody.
#[derive(Debug, Clone, Args)]
pub struct Openness {
    /// Listen beyond this machine without certificates: whoever reaches the address is believed whatever it says, and reads the
    /// metrics
    #[arg(long, env = "BAZAAR_INSECURE_CLUSTER", value_parser = BoolishValueParser::new())]
    pub insecure_cluster: bool,
}

/// How a gateway proves to clients and operators who it is.
#[derive(Debug, Clone, Args)]
pub struct ServerTls {
    /// Serve clients and operators over TLS, with this certificate (in PEM, those between it and its authority behind it)
    #[arg(
        long,
        env = "BAZAAR_TLS_CERT",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_cert: Option<PathBuf>,
    /// The key to it
    #[arg(
        long,
        env = "BAZAAR_TLS_KEY",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_key: Option<PathBuf>,
    /// Serve only those who show a certificate of this authority
    #[arg(
        long,
        env = "BAZAAR_TLS_CLIENT_CA",
        value_name = "FILE",
        requires = "tls_cert"
    )]
    tls_client_ca: Option<PathBuf>,
}

impl ServerTls {
    /// Where they are, where there are any.
    pub fn https(&self) -> Option<Https> {
        Some(Https {
            certificate: self.tls_cert.clone()?,
            key: self.tls_key.clone()?,
            client_authorities: self.tls_client_ca.clone(),
        })
    }
}

/// Whom a command believes to be the gateway, and how it proves who its user is.
#[derive(Debug, Clone, Default, Args)]
pub struct ClientTls {
    /// The authority of the gateway's certificate, in PEM [default: those that this machine believes]
    #[arg(long, env = "BAZAAR_CA", value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Your certificate
    #[arg(
        long,
        env = "BAZAAR_CLIENT_CERT",
        value_name = "FILE",
        requires = "client_key"
    )]
    client_cert: Option<PathBuf>,
    /// The key to it
    #[arg(
        long,
        env = "BAZAAR_CLIENT_KEY",
        value_name = "FILE",
        requires = "client_cert"
    )]
    client_key: Option<PathBuf>,
}

impl ClientTls {
    /// As clients have it.
    pub fn trust(&self) -> Trust {
        Trust {
            authorities: self.ca.clone(),
            own: self.client_cert.clone().zip(self.client_key.clone()),
        }
    }
}

/// The commands of `bazaar cert`.
#[derive(Debug, Subcommand)]
pub enum Cert {
    /// Make an authority, and with it certificates for every service and for operators. Where a directory has an
    /// authority already, make those that are missing
    New(NewCertificates),
}

/// Flags of `bazaar cert new`.
#[derive(Debug, Args)]
pub struct NewCertificates {
    /// Where they are put: ca.crt and ca.key (keep that one off the machines), and NAME.crt and NAME.key for each
    pub dir: PathBuf,
    /// A host name or an address under which services are reached, beside localhost; once for each
    #[arg(
        long = "host",
        env = "BAZAAR_CERT_HOST",
        value_delimiter = ',',
        value_name = "NAME"
    )]
    pub hosts: Vec<String>,
    /// Order replicas to make certificates for
    #[arg(long, env = "BAZAAR_CERT_REPLICAS", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(super::services::REPLICAS_MAX)))]
    pub replicas: u32,
    /// Make one for this alone, such as gateway/edge-2 or operator/ada; once for each
    #[arg(long = "for", env = "BAZAAR_CERT_FOR", value_delimiter = ',', value_name = "ROLE/NAME", value_parser = principal)]
    pub principals: Vec<Principal>,
    /// How long they are valid; the authority is for ten years
    #[arg(long, env = "BAZAAR_CERT_DAYS", value_name = "DAYS", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: u32,
    /// Make those anew that are there, before they expire
    #[arg(long, env = "BAZAAR_CERT_RENEW", value_parser = BoolishValueParser::new())]
    pub renew: bool,
}

fn principal(text: &str) -> Result<Principal, String> {
    let problem = "not a role (gateway, catalog, order, operator or viewer) and a name, such as gateway/edge-2; an order replica's name is its number";
    let (role, name) = text.split_once('/').ok_or(problem)?;
    let role = tls::Role::ALL
        .into_iter()
        .find(|known| known.name() == role);
    Principal::new(role.ok_or(problem)?, name).map_err(|_| problem.to_owned())
}
