//! `bazaar policy`: makes, builds, checks, tries and activates policies.

mod new;
mod source;
mod dev;
mod measure;
mod sign;

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use frontend_policy::limits::DECISION_TIME_MAX;
use frontend_policy::replay::{Found, RecordingError};
use frontend_policy::{Admission, Engine, Rejection, Secrets, Version};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::admin::{Admin, AdminError, Change, Policies};
use crate::cli::{self, Config, Policy, Trial};
use crate::error::Error;
use crate::output;
use crate::status;

/// How much longer than anything else the check of a component may take: compilation goes behind all that
/// a gateway serves, and takes ten times as long on a busy machine as the six seconds of CPython on an idle
/// one.
const COMPILATION_TIME_MAX: Duration = Duration::from_secs(240);

/// Why a policy was not built, or is not a valid one.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error(transparent)]
    Shared(#[from] Error),
    /// A gateway's admin API did not do what it was asked.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// Standard output does not take the result.
    #[error("cannot write the result: {0}")]
    Output(#[from] std::io::Error),
    /// A file that was named cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    File {
        path: PathBuf,
        source: std::io::Error,
    },
    /// It does not build.
    #[error(transparent)]
    Build(#[from] source::SourceError),
    /// Its source cannot be watched.
    #[error("cannot watch the source: {0}")]
    Watch(#[from] notify::Error),
    /// A gateway would refuse it.
    #[error("{}: {reason}", path.display())]
    Refused { path: PathBuf, reason: Rejection },
    /// It cannot be measured.
    #[error(transparent)]
    Measure(#[from] measure::MeasureError),
    /// It cannot be signed.
    #[error(transparent)]
    Sign(#[from] sign::SignError),
    /// A recording cannot be replayed.
    #[error("{}: {source}", path.display())]
    Recording {
        path: PathBuf,
        source: RecordingError,
    },
    /// Some recorded decisions came out differently.
    #[error("{0} decisions came out differently")]
    Differs(u64),
    /// It cannot be made there.
    #[error(transparent)]
    New(#[from] new::NewError),
    /// Nothing can be checked here.
    #[error(transparent)]
    Sandbox(frontend_host::Error),
}

/// Does what the command says.
pub async fn run(command: Policy) -> Result<(), PolicyError> {
    let text = match command {
        Policy::Dev(args) => return dev::run(args).await,
        Policy::New { dir } => new::create(&dir)?,
        Policy::Build {
            dir,
            example,
            target_dir,
        } => build(source::Source {
            dir,
            example,
            target_dir,
        })?,
        Policy::Check {
            file,
            config,
            policy_secrets,
        } => check(&file, &config, policy_secrets)?,
        Policy::Measure { files } => measure::measure(&files)?,
        Policy::Keygen { file } => sign::keygen(&file)?,
        Policy::Sign { file, key } => sign::sign(&file, &key)?,
        Policy::Push {
            file,
            config,
            admin,
        } => {
            let upload = Upload::read(&file, &config)?;
            let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
            admin.put("/policy", upload).await?;
            active(&mut admin).await?
        }
        Policy::Configure {
            config,
            shadow,
            canary,
            replace,
            admin,
        } => {
            let trials = [("shadow", shadow), ("canary", canary)];
            let trial = trials
                .into_iter()
                .find_map(|(kind, share)| Some((kind, share?)));
            let path = match trial {
                Some((kind, share)) => trial_path("/policy/configuration", kind, share, &replace),
                None => "/policy/configuration".to_owned(),
            };
            let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
            admin.put(&path, Upload::of(read(&config)?)).await?;
            match trial {
                Some(_) => status::policies(&list(&mut admin).await?),
                None => active(&mut admin).await?,
            }
        }
        Policy::Shadow { file, trial, admin } => try_out(&file, "shadow", &trial, admin).await?,
        Policy::Canary { file, trial, admin } => try_out(&file, "canary", &trial, admin).await?,
        Policy::Differences { admin } => {
            let found = Admin::new(admin)?.get("/policy/differences").await?;
            let found: serde_json::Value =
                serde_json::from_slice(&found).map_err(AdminError::from)?;
            format!("{found:#}\n")
        }
        Policy::Record {
            seconds,
            output,
            admin,
        } => record(seconds, &output, admin).await?,
        Policy::Replay { file, policy } => {
            let found = replay(&file, policy.as_deref())?;
            output::print(&format!("{:#}\n", serde_json::json!(found)))?;
            return if found.different == 0 {
                Ok(())
            } else {
                Err(PolicyError::Differs(found.different))
            };
        }
        Policy::Promote { digest, admin } => {
            let mut admin = Admin::new(admin)?;
            admin.post(&named("/policy/promote", digest)).await?;
            active(&mut admin).await?
        }
        Policy::Drop { digest, admin } => {
            let mut admin = Admin::new(admin)?;
            admin.delete(&named("/policy/candidate", digest)).await?;
            active(&mut admin).await?
        }
        Policy::Rollback { admin } => {
            // One that is not loaded any more may have to be compiled.
            let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
            admin.post("/policy/rollback").await?;
            active(&mut admin).await?
        }
        Policy::Activate { digest, admin } => {
            let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
            admin.post(&named("/policy/activate", Some(digest))).await?;
            active(&mut admin).await?
        }
        Policy::List { admin } => status::policies(&list(&mut Admin::new(admin)?).await?),
        Policy::Log { admin, json } => {
            let answer = Admin::new(admin)?.get("/policy/changes").await?;
            match json {
                true => String::from_utf8_lossy(&answer).trim_end().to_owned() + "\n",
                false => status::changes(&parse::<Changes>(&answer)?.changes),
            }
        }
    };
    Ok(output::print(&text)?)
}

/// The log of changes, as the gateway answers it.
#[derive(Debug, Deserialize)]
struct Changes {
    changes: Vec<Change>,
}

/// A path that says which version is meant.
fn named(path: &str, digest: Option<String>) -> String {
    match digest {
        Some(digest) => {
            let digest = percent_encode(digest.as_bytes(), NON_ALPHANUMERIC);
            format!("{path}?digest={digest}")
        }
        None => path.to_owned(),
    }
}

/// A path that says how a version is to be tried out.
fn trial_path(path: &str, kind: &str, share: f64, replace: &Option<String>) -> String {
    let mut path = format!("{path}?{kind}={share}");
    if let Some(digest) = replace {
        let digest = percent_encode(digest.as_bytes(), NON_ALPHANUMERIC);
        path += &format!("&replace={digest}");
    }
    path
}

/// What is sent to a gateway: a component, or a configuration alone.
pub struct Upload {
    pub body: Bytes,
    pub signature: Option<String>,
    /// What a component is to be configured with; empty without one.
    pub config: Bytes,
}

impl Upload {
    pub fn of(body: Bytes) -> Self {
        Self {
            body,
            signature: None,
            config: Bytes::new(),
        }
    }

    fn read(file: &Path, config: &Config) -> Result<Self, PolicyError> {
        Ok(Self {
            body: read(file)?,
            signature: signature(file),
            config: read_config(config)?,
        })
    }
}

fn read_config(config: &Config) -> Result<Bytes, PolicyError> {
    let read = config.file.as_deref().map(read).transpose()?;
    Ok(read.unwrap_or_default())
}

/// Puts a component on trial and lists what there is then.
async fn try_out(
    file: &Path,
    kind: &str,
    trial: &Trial,
    admin: cli::Admin,
) -> Result<String, PolicyError> {
    let upload = Upload::read(file, &trial.config)?;
    let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
    let path = trial_path("/policy/candidate", kind, trial.share, &trial.replace);
    admin.put(&path, upload).await?;
    Ok(status::policies(&list(&mut admin).await?))
}

fn build(source: source::Source) -> Result<String, PolicyError> {
    let component = source.build()?;
    Ok(format!("{}\n", component.display()))
}

async fn record(seconds: u64, output: &Path, admin: cli::Admin) -> Result<String, PolicyError> {
    let mut admin = Admin::patient(admin, Duration::from_secs(seconds))?;
    let mut recording = Recording {
        path: output,
        file: None,
        lines: 0,
    };
    let path = format!("/policy/recording?seconds={seconds}");
    admin.post_to(&path, &mut recording).await?;
    Ok(format!(
        "{} decisions in {}\n",
        recording.lines.saturating_sub(1),
        output.display()
    ))
}

/// A file that a recording goes to, made when there is something to write: where the gateway makes no
/// recording, what was there before stays.
struct Recording<'a> {
    path: &'a Path,
    file: Option<File>,
    lines: usize,
}

impl io::Write for Recording<'_> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        };
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::create(self.path).map_err(named)?),
        };
        let written = file.write(data).map_err(named)?;
        let ends = data[..written].iter().filter(|byte| **byte == b'\n');
        self.lines += ends.count();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(()) // nothing is held back
    }
}

fn replay(file: &Path, policy: Option<&Path>) -> Result<Found, PolicyError> {
    let component = match policy {
        Some(policy) => read(policy)?,
        None => Bytes::from_static(frontend_policy::DEFAULT_POLICY),
    };
    let version = checked(
        component.as_ref().into(),
        Secrets::default(),
        policy.unwrap_or(Path::new("the built-in policy")),
    )?;
    let recording = File::open(file).map_err(|source| PolicyError::File {
        path: file.to_owned(),
        source,
    })?;
    let found = frontend_policy::replay::replay(BufReader::new(recording), &version);
    let found = found.map_err(|source| PolicyError::Recording {
        path: file.to_owned(),
        source,
    })?;
    Ok(found.snapshot())
}

/// What a gateway would make of a component.
fn checked(
    upload: frontend_policy::Upload<'_>,
    secrets: Secrets,
    path: &Path,
) -> Result<Version, PolicyError> {
    let engine = Engine::new(DECISION_TIME_MAX)
        .map_err(|error| PolicyError::Sandbox(frontend_host::Error::Sandbox(error)))?;
    let refused = |reason| PolicyError::Refused {
        path: path.to_owned(),
        reason,
    };
    let admission = Admission::new(engine).with_secrets(secrets);
    let admitted = admission.admit(upload, &[]);
    Ok(admitted.map_err(refused)?.into_version())
}

fn check(file: &Path, config: &Config, secrets: Option<PathBuf>) -> Result<String, PolicyError> {
    let (component, config) = (read(file)?, read_config(config)?);
    let upload = frontend_policy::Upload {
        component: &component,
        signature: None,
        config: &config,
    };
    let version = checked(upload, Secrets::in_directory(secrets), file)?;
    Ok(format!(
        "{}: a gateway would take it: {version}\n",
        file.display()
    ))
}

/// The signature beside a component.
fn signature(file: &Path) -> Option<String> {
    let signature =
        std::fs::read_to_string(frontend_policy::admission::signature_path(file)).ok()?;
    Some(signature.trim().to_owned())
}

fn read(file: &Path) -> Result<Bytes, PolicyError> {
    let contents = std::fs::read(file).map_err(|source| PolicyError::File {
        path: file.to_owned(),
        source,
    })?;
    Ok(contents.into())
}

async fn list(admin: &mut Admin) -> Result<Policies, AdminError> {
    parse(&admin.get("/policy").await?)
}

fn parse<T: DeserializeOwned>(answer: &[u8]) -> Result<T, AdminError> {
    Ok(serde_json::from_slice(answer)?)
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
