//! How the admin API is reached, and what it asks for.

use std::fmt;
use std::io;
use std::path::PathBuf;

use clap::Args;
use frontend_host::admin::{Token, TokenError, TokenSource};

use super::security::ClientTls;
use crate::client::Origin;

/// What the admin API asks for.
#[derive(Debug, Clone, Args)]
pub struct AdminToken {
    /// What the admin API asks for as a bearer token
    #[arg(
        long = "admin-token",
        env = "BAZAAR_ADMIN_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        conflicts_with = "admin_token_file"
    )]
    admin_token: Option<Unchecked>,
    /// A file with that token
    #[arg(long, env = "BAZAAR_ADMIN_TOKEN_FILE", value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
}

/// A secret as it was given, which no message shows.
#[derive(Clone)]
struct Unchecked(String);

impl From<String> for Unchecked {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Unchecked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unchecked")
    }
}

/// Why an admin token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// What is given cannot be a token.
    #[error(transparent)]
    Invalid(#[from] TokenError),
    /// The file cannot be read.
    #[error("cannot read the admin token in {}: {source}", file.display())]
    Unreadable { file: PathBuf, source: io::Error },
}

impl AdminToken {
    /// Where the token is told, where it is. A file is looked at whenever it changes.
    ///
    /// # Errors
    /// Where what is given is not a valid token.
    pub fn source(&self) -> Result<Option<TokenSource>, AdminTokenError> {
        source(self.admin_token.as_ref(), self.admin_token_file.as_ref())
    }

    /// The token, where one is given in either way.
    ///
    /// # Errors
    /// Where what is given is not a valid token, or the file cannot be read.
    pub fn read(&self) -> Result<Option<Token>, AdminTokenError> {
        self.source()?.map(read).transpose()
    }
}

fn read(source: TokenSource) -> Result<Token, AdminTokenError> {
    let file = match source {
        TokenSource::Given(token) => return Ok(token),
        TokenSource::File(file) => file,
    };
    match std::fs::read_to_string(&file) {
        Ok(text) => Ok(text.parse()?),
        Err(source) => Err(AdminTokenError::Unreadable { file, source }),
    }
}

fn source(
    given: Option<&Unchecked>,
    file: Option<&PathBuf>,
) -> Result<Option<TokenSource>, AdminTokenError> {
    Ok(match (given, file) {
        (Some(Unchecked(text)), _) => Some(TokenSource::Given(text.parse()?)),
        (None, file) => file.cloned().map(TokenSource::File),
    })
}

/// What the admin API asks for of those who only read.
#[derive(Debug, Clone, Args)]
pub struct AdminReadToken {
    /// Another token, with which everything can be looked at and nothing changed
    #[arg(
        long,
        env = "BAZAAR_ADMIN_READ_TOKEN",
        value_name = "TOKEN",
        hide_env_values = true,
        conflicts_with = "admin_read_token_file"
    )]
    admin_read_token: Option<Unchecked>,
    /// A file with that token
    #[arg(long, env = "BAZAAR_ADMIN_READ_TOKEN_FILE", value_name = "FILE")]
    admin_read_token_file: Option<PathBuf>,
}

impl AdminReadToken {
    /// See [`AdminToken::read`].
    pub fn read(&self) -> Result<Option<Token>, AdminTokenError> {
        self.source()?.map(read).transpose()
    }

    /// See [`AdminToken::source`].
    pub fn source(&self) -> Result<Option<TokenSource>, AdminTokenError> {
        source(
            self.admin_read_token.as_ref(),
            self.admin_read_token_file.as_ref(),
        )
    }
}

/// How the admin API is reached.
#[derive(Debug, Clone, Args)]
pub struct Admin {
    /// URL of the gateway's admin API
    #[arg(
        long = "admin",
        env = "BAZAAR_ADMIN",
        value_name = "URL",
        default_value = "http://127.0.0.1:8081"
    )]
    pub origin: Origin,
    #[command(flatten)]
    pub token: AdminToken,
    #[command(flatten)]
    pub tls: ClientTls,
    /// Who you are, for the log of changes [default: your user name]
    #[arg(long, env = "BAZAAR_OPERATOR", value_name = "NAME")]
    pub operator: Option<String>,
    /// Why you do it, for the log of changes
    #[arg(long, env = "BAZAAR_REASON", value_name = "TEXT")]
    pub reason: Option<String>,
}

impl Admin {
    /// Who makes a change: as the flag says, or the environment.
    pub fn operator(&self) -> String {
        let flag = self.operator.clone().filter(|name| !name.is_empty());
        flag.unwrap_or_else(user)
    }
}

/// Whose command it is, as the environment says.
pub fn user() -> String {
    let variables = ["USER", "LOGNAME"].into_iter();
    let mut names = variables.filter_map(|variable| std::env::var(variable).ok());
    let name = names.find(|name| !name.is_empty());
    name.unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()))
}
