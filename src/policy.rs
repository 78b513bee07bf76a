//! `bazaar policy`: makes, builds, checks, tries and activates policies.

mod new;
mod source;
mod image;
pub mod package;
mod dev;
mod measure;
mod sign;
mod pack;
mod rollout;
mod test;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use frontend_policy::limits::DECISION_TIME_MAX;
use frontend_policy::replay::{HeaderChoice, RecordingError};
use frontend_policy::{Admission, Engine, Rejection, Secrets, Version};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::admin::{Admin, AdminError, Change, Policies};
use crate::cli::{self, Config, Policy, Trial};
use crate::error::Error;
use crate::output;
use crate::status;

use package::Package;

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
    /// What should be a policy is none.
    #[error(transparent)]
    Package(#[from] package::PackageError),
    /// It cannot be made an image.
    #[error(transparent)]
    Pack(#[from] pack::PackError),
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
    /// There is no decision that could be made again.
    #[error("no decision is recorded there")]
    NothingRecorded,
    /// A rollout that was watched pauses.
    #[error("the rollout is paused: resume it, skip its step, or drop the candidate")]
    Paused,
    /// A version that was rolled out did not become active.
    #[error("the rollout is over, and the version is not the active one")]
    NotRolledOut,
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
        Policy::Rollout(args) => return rollout::run(args).await,
        Policy::New { dir, lang } => new::create(&dir, lang)?,
        Policy::Wit { world } => match world {
            cli::World::V1_2 => new::WORLD.to_owned(),
            cli::World::V1_1 => new::WORLD_1_1.to_owned(),
            cli::World::V1_0 => new::WORLD_1_0.to_owned(),
        },
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
            secrets,
        } => check(&file, &config, &secrets)?,
        Policy::Measure {
            files,
            config,
            secrets,
        } => measure::measure(&files, &config, &secrets)?,
        Policy::Keygen { file, kind } => sign::keygen(&file, kind.into())?,
        Policy::Sign { file, key } => sign::sign(&file, &key)?,
        Policy::Pack(args) => pack::pack(args)?,
        Policy::Push {
            file,
            config,
            admin,
        } => {
            let package = Package::open(&file)?.with_config(&config)?;
            let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
            admin.put("/policy", package).await?;
            active(&mut admin).await?
        }
        Policy::Configure {
            config,
            shadow,
            canary,
            plan,
            replace,
            admin,
        } => {
            let trials = [("shadow", shadow), ("canary", canary)];
            let trial = trials
                .into_iter()
                .find_map(|(kind, share)| Some((kind, share?.to_string())));
            let mut query: Vec<(&str, &str)> = Vec::new();
            if let Some((kind, share)) = &trial {
                query.push((kind, share));
            }
            if let Some(digest) = &replace {
                query.push(("replace", digest));
            }
            let path = query_path("/policy/configuration", &query);
            let plan = plan.as_deref().map(rollout::read_plan).transpose()?;
            let package = Package::of(package::read(&config)?);
            let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
            admin.put_by_plan(&path, plan.as_deref(), package).await?;
            match trial.is_some() || plan.is_some() {
                true => status::policies(&list(&mut admin).await?),
                false => active(&mut admin).await?,
            }
        }
        Policy::Shadow { file, trial, admin } => {
            try_out(&file, "shadow", &[], &trial, admin).await?
        }
        Policy::Canary {
            file,
            only,
            trial,
            admin,
        } => try_out(&file, "canary", &only, &trial, admin).await?,
        Policy::Differences { admin } => {
            let found = Admin::new(admin)?.get("/policy/differences").await?;
            let found: serde_json::Value =
                serde_json::from_slice(&found).map_err(AdminError::from)?;
            format!("{found:#}\n")
        }
        Policy::Record(args) => record(args).await?,
        Policy::Test(args) => {
            let (text, failed) = test::test(&args)?;
            output::print(&text)?;
            return test::passed(failed);
        }
        Policy::Replay {
            file,
            policy,
            config,
            secrets,
            minimize,
        } => {
            let version = test::version(policy.as_deref(), &config, &secrets)?;
            let (text, different) = test::replay(&file, &version, &minimize)?;
            output::print(&text)?;
            return test::passed(different);
        }
        Policy::Promote {
            digest,
            active: expected,
            admin,
        } => {
            let mut admin = Admin::new(admin)?;
            let path = expecting("/policy/promote", digest, expected);
            admin.post(&path).await?;
            active(&mut admin).await?
        }
        Policy::Drop { digest, admin } => {
            let mut admin = Admin::new(admin)?;
            let path = expecting("/policy/candidate", digest, None);
            admin.delete(&path).await?;
            active(&mut admin).await?
        }
        Policy::Rollback {
            digest,
            active: expected,
            admin,
        } => {
            // One that is not loaded any more may have to be compiled.
            let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
            let path = expecting("/policy/rollback", digest, expected);
            admin.post(&path).await?;
            active(&mut admin).await?
        }
        Policy::Activate {
            digest,
            active: expected,
            admin,
        } => {
            let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
            let path = expecting("/policy/activate", Some(digest), expected);
            admin.post(&path).await?;
            active(&mut admin).await?
        }
        Policy::List { admin } => status::policies(&list(&mut Admin::new(admin)?).await?),
        Policy::Log { admin, limit, json } => {
            let limit = limit.map(|limit| limit.to_string());
            let limit = limit.as_deref().map(|limit| ("limit", limit));
            let path = query_path("/policy/changes", limit.as_slice());
            let answer = Admin::new(admin)?.get(&path).await?;
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

/// A path that says which version is meant, and which one has to be active.
fn expecting(path: &str, digest: Option<String>, active: Option<String>) -> String {
    let said = [("digest", &digest), ("active", &active)];
    let said = said.into_iter();
    let query = said.filter_map(|(name, digest)| Some((name, digest.as_deref()?)));
    query_path(path, &query.collect::<Vec<_>>())
}

/// A path with a query.
fn query_path(path: &str, query: &[(&str, &str)]) -> String {
    let pairs = query.iter().map(|(name, value)| {
        let value = percent_encode(value.as_bytes(), NON_ALPHANUMERIC);
        format!("{name}={value}")
    });
    let pairs: Vec<_> = pairs.collect();
    match pairs.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", pairs.join("&")),
    }
}

/// Puts a component on trial and lists what there is then.
async fn try_out(
    file: &Path,
    kind: &str,
    only: &[String],
    trial: &Trial,
    admin: cli::Admin,
) -> Result<String, PolicyError> {
    let package = Package::open(file)?.with_config(&trial.config)?;
    let mut admin = Admin::patient(admin, COMPILATION_TIME_MAX)?;
    let share = trial.share.to_string();
    let mut query = vec![(kind, share.as_str())];
    query.extend(only.iter().map(|condition| ("only", condition.as_str())));
    query.extend(trial.replace.as_deref().map(|digest| ("replace", digest)));
    let path = query_path("/policy/candidate", &query);
    admin.put(&path, package).await?;
    Ok(status::policies(&list(&mut admin).await?))
}

fn build(source: source::Source) -> Result<String, PolicyError> {
    let component = source.build()?;
    Ok(format!("{}\n", component.display()))
}

async fn record(args: cli::Record) -> Result<String, PolicyError> {
    let cli::Record {
        seconds,
        output,
        headers,
        admin,
    } = args;
    let output = output.as_path();
    let mut admin = Admin::patient(admin, Duration::from_secs(seconds))?;
    let mut recording = Recording {
        path: output,
        file: None,
        lines: 0,
    };
    let mut path = format!("/policy/recording?seconds={seconds}");
    if !headers.is_empty() {
        let headers = HeaderChoice::named(headers).to_string();
        let headers = percent_encode(headers.as_bytes(), NON_ALPHANUMERIC);
        path += &format!("&headers={headers}");
    }
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

/// The secrets that a configuration may refer to.
fn secrets(args: &cli::Secrets) -> Secrets {
    Secrets::in_directory(args.policy_secrets.clone())
}

/// What a gateway would make of a component.
fn checked(package: &Package, secrets: &cli::Secrets, path: &Path) -> Result<Version, PolicyError> {
    let engine = Engine::new(DECISION_TIME_MAX)
        .map_err(|error| PolicyError::Sandbox(frontend_host::Error::Sandbox(error)))?;
    let refused = |reason| PolicyError::Refused {
        path: path.to_owned(),
        reason,
    };
    let admission = Admission::new(engine).with_secrets(self::secrets(secrets));
    let admitted = admission.admit(package.upload(), &[]);
    Ok(admitted.map_err(refused)?.into_version())
}

fn check(file: &Path, config: &Config, secrets: &cli::Secrets) -> Result<String, PolicyError> {
    let package = Package::open(file)?.with_config(config)?;
    let version = checked(&package, secrets, file)?;
    let mut text = format!("{}: a gateway would take it: {version}\n", file.display());
    for header in version.reply_headers() {
        text += &format!("  adds to every reply {header}\n");
    }
    Ok(text)
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
