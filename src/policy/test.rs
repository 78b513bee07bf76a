//! `bazaar policy test`, and `replay` with `--minimize`: recorded decisions made again.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use frontend_policy::Version;
use frontend_policy::replay::{FailedDecision, Mask, RecordingError, Report};

use super::{Package, PolicyError, checked};
use crate::cli;
use crate::output::Table;

/// What a failure's values are indented by.
const INDENT: &str = "        ";

/// Makes the decisions of recordings again. Returns what to print, and how many came out differently.
pub fn test(args: &cli::Test) -> Result<(String, u64), PolicyError> {
    let version = version(args.policy.as_deref(), &args.config, &args.secrets)?;
    let mut report = Report::default();
    for path in &args.recordings {
        add(&mut report, path, &version, &args.masks)?;
    }
    if report.decisions == 0 {
        return Err(PolicyError::NothingRecorded);
    }
    minimize(&mut report, &args.minimize, &version, &args.masks)?;
    let text = if args.json {
        format!("{:#}\n", serde_json::json!(report))
    } else {
        describe(&report)
    };
    Ok((text, report.failed))
}

/// Makes the decisions of a recording again, and says in what they differ, as JSON; and how many do.
pub fn replay(
    file: &Path,
    version: &Version,
    args: &cli::Minimize,
) -> Result<(String, u64), PolicyError> {
    let found = frontend_policy::replay::replay(open(file)?, version);
    let found = found.map_err(recording_error(file))?.snapshot();
    let mut json = serde_json::json!(found);
    if args.minimize {
        let mut report = Report::default();
        add(&mut report, file, version, &[])?;
        minimize(&mut report, args, version, &[])?;
        let smallest = report.failures.iter().flat_map(|it| &it.smallest);
        json["smallest"] = smallest.map(|it| serde_json::json!(it)).collect();
    }
    Ok((format!("{json:#}\n"), found.different))
}

/// Whether a command that made decisions again has done what it should.
pub fn passed(different: u64) -> Result<(), PolicyError> {
    match different {
        0 => Ok(()),
        different => Err(PolicyError::Differs(different)),
    }
}

fn minimize(
    report: &mut Report,
    args: &cli::Minimize,
    version: &Version,
    masks: &[Mask],
) -> Result<(), PolicyError> {
    if args.minimize && report.failed > 0 {
        let baseline = self::version(
            args.baseline.as_deref(),
            &cli::Config::default(),
            &cli::Secrets::default(),
        )?;
        report.minimize(&baseline, version, masks);
    }
    Ok(())
}

fn add(
    report: &mut Report,
    path: &Path,
    version: &Version,
    masks: &[Mask],
) -> Result<(), PolicyError> {
    let name = path.display().to_string();
    let added = report.add(&name, open(path)?, version, masks);
    added.map_err(recording_error(path))
}

fn open(path: &Path) -> Result<BufReader<File>, PolicyError> {
    let file = File::open(path).map_err(|source| PolicyError::File {
        path: path.to_owned(),
        source,
    })?;
    Ok(BufReader::new(file))
}

fn recording_error(path: &Path) -> impl FnOnce(RecordingError) -> PolicyError {
    let path = path.to_owned();
    move |source| PolicyError::Recording { path, source }
}

/// The version that a component makes; the built-in one without a file.
pub fn version(
    file: Option<&Path>,
    config: &cli::Config,
    secrets: &cli::Secrets,
) -> Result<Version, PolicyError> {
    let package = match file {
        Some(file) => Package::open(file)?,
        None => Package::of(frontend_policy::DEFAULT_POLICY),
    };
    let package = package.with_config(config)?;
    let name = file.unwrap_or(Path::new("the built-in policy"));
    checked(&package, secrets, name)
}

/// A report for people.
fn describe(report: &Report) -> String {
    if report.failed == 0 {
        return format!("{} decisions came out as recorded\n", report.decisions);
    }
    let mut text: String = report.failures.iter().map(describe_failure).collect();
    let more = report.failed - report.failures.len() as u64;
    if more > 0 {
        text += &format!("and {more} more\n");
    }
    let mut table = Table::new(["route", "field", "decisions"]);
    for (route, fields) in &report.routes {
        for (field, decisions) in fields {
            table.row([route.clone(), field.clone(), decisions.to_string()]);
        }
    }
    let (failed, decisions) = (report.failed, report.decisions);
    text += &format!("\n{}\n", table.render());
    text += &format!("{failed} of {decisions} decisions came out differently\n");
    text
}

fn describe_failure(failure: &FailedDecision) -> String {
    let FailedDecision {
        recording,
        line,
        route,
        request,
        differences,
        smallest,
        ..
    } = failure;
    let mut text = format!("{recording}:{line}: {request}  [{route}]\n");
    let indented = |text: &str| text.replace('\n', &format!("\n{INDENT}"));
    for difference in differences {
        text += &format!("    {}\n", difference.field);
        text += &format!("      - {}\n", indented(&difference.recorded));
        text += &format!("      + {}\n", indented(&difference.now));
    }
    for smallest in smallest {
        let field = &smallest.field;
        text += &match &smallest.curl {
            None => format!(
                "    the baseline does not differ in `{field}`: it is not what made this recording; name that one with --baseline\n"
            ),
            Some(curl) => {
                let outcome = if smallest.about_outcome {
                    ", with the outcome that was recorded"
                } else {
                    ""
                };
                let steps = smallest.steps;
                format!(
                    "    smallest that shows `{field}`{outcome} ({steps} tried):\n      {curl}\n"
                )
            }
        };
    }
    text
}
