//! `bazaar policy`: makes, builds, checks, tries and activates policies.

mod new;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use frontend_host::policy::limits::DECISION_TIME_MAX;
use frontend_host::policy::{Refused, Sandbox};

use crate::admin::{Admin, AdminError, Policies};
use crate::cli::{self, Policy, Trial};
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
    /// It cannot be made there.
    #[error(transparent)]
    New(#[from] new::NewError),
    /// Nothing can be checked here.
    #[error(transparent)]
    Sandbox(frontend_host::Error),
}

/// Does what the command says.
pub async fn run(command: Policy) -> Result<(), Error> {
    let text = match command {
        Policy::New { dir } => new::create(&dir).map_err(PolicyError::from)?,
        Policy::Build {
            dir,
            example,
            target_dir,
        } => build(&dir, example, target_dir)?,
        Policy::Check { file } => check(&file)?,
        Policy::Push { file, admin } => {
            let component = read(&file)?;
            let mut admin = Admin::new(admin);
            admin.put("/policy", component).await?;
            active(&mut admin).await?
        }
        Policy::Shadow { file, trial, admin } => try_out(&file, "shadow", &trial, admin).await?,
        Policy::Canary { file, trial, admin } => try_out(&file, "canary", &trial, admin).await?,
        Policy::Differences { admin } => {
            let found = Admin::new(admin).get("/policy/differences").await?;
            let found: serde_json::Value =
                serde_json::from_slice(&found).map_err(AdminError::from)?;
            format!("{found:#}\n")
        }
        Policy::Promote { admin } => {
            let mut admin = Admin::new(admin);
            admin.post("/policy/promote").await?;
            active(&mut admin).await?
        }
        Policy::Drop { admin } => {
            let mut admin = Admin::new(admin);
            admin.delete("/policy/candidate").await?;
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

/// Puts a component on trial and lists what there is then.
async fn try_out(
    file: &Path,
    kind: &str,
    trial: &Trial,
    admin: cli::Admin,
) -> Result<String, Error> {
    let component = read(file)?;
    let mut admin = Admin::new(admin);
    let path = format!("/policy/candidate?{kind}={}", trial.share);
    admin.put(&path, component).await?;
    Ok(status::policies(&list(&mut admin).await?))
}

fn build(
    dir: &Path,
    example: Option<String>,
    target_dir: Option<PathBuf>,
) -> Result<String, PolicyError> {
    let mut builder = policy_build::Builder::new(dir).show_progress();
    if let Some(target_dir) = target_dir {
        builder = builder.target_dir(target_dir);
    }
    if let Some(example) = example {
        builder = builder.example(example);
    }
    let component = builder.build()?;
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
