//! `bazaar policy`: builds, checks and activates policies.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use frontend_host::policy::limits::DECISION_TIME_MAX;
use frontend_host::policy::{Refused, Sandbox};

use crate::admin::{Admin, AdminError, Policies};
use crate::cli::Policy;
use crate::error::Error;
use crate::output;
use crate::status;

/// Why a policy was not built, or is none.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A file that was named cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It does not build.
    #[error(transparent)]
    Build(#[from] policy_build::BuildError),
    /// A gateway would refuse it.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The component.
        path: PathBuf,
        /// Why.
        reason: Refused,
    },
    /// Nothing can be checked here.
    #[error(transparent)]
    Sandbox(frontend_host::Error),
}

/// Does what the command says.
pub async fn run(command: Policy) -> Result<(), Error> {
    let text = match command {
        Policy::Build { dir } => build(&dir)?,
        Policy::Check { file } => check(&file)?,
        Policy::Push { file, admin } => {
            let component = read(&file)?;
            let mut admin = Admin::new(admin);
            admin.put("/policy", component).await?;
            active(&mut admin).await?
        }
        Policy::Rollback { admin } => {
            let mut admin = Admin::new(admin);
            admin.post("/policy/rollback").await?;
            active(&mut admin).await?
        }
        Policy::List { admin } => status::policies(&list(&mut Admin::new(admin)).await?),
    };
    Ok(output::print(&text)?)
}

fn build(dir: &Path) -> Result<String, PolicyError> {
    let component = policy_build::Builder::new(dir).show_progress().build()?;
    Ok(format!("{}\n", component.display()))
}

fn check(file: &Path) -> Result<String, PolicyError> {
    let sandbox = Sandbox::new(DECISION_TIME_MAX)
        .map_err(|error| PolicyError::Sandbox(frontend_host::Error::Sandbox(error)))?;
    let refused = |reason| PolicyError::Refused {
        path: file.to_owned(),
        reason,
    };
    let version = frontend_host::policy::check(&sandbox, &read(file)?).map_err(refused)?;
    Ok(format!(
        "{}: a gateway would take it: {version}\n",
        file.display()
    ))
}

fn read(file: &Path) -> Result<Bytes, PolicyError> {
    let contents = std::fs::read(file).map_err(|source| PolicyError::File {
        path: file.to_owned(),
        source,
    })?;
    Ok(contents.into())
}

async fn list(admin: &mut Admin) -> Result<Policies, AdminError> {
    Ok(serde_json::from_slice(&admin.get("/policy").await?)?)
}

/// What is active after a swap.
async fn active(admin: &mut Admin) -> Result<String, AdminError> {
    Ok(match list(admin).await?.active {
        Some(policy) => format!(
            "active: {} {} ({})\n",
            policy.name, policy.version, policy.digest
        ),
        None => "no policy is active\n".to_owned(),
    })
}
