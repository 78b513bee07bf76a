//! The `bazaar` command.
//!
//! - [`cli`]: the command line: every flag, its environment variable and its default;
//! - [`error`]: what can go wrong in more than one command;
//! - [`failure`]: why a command failed, and what the process exits with;
//! - [`service`]: `catalog`, `order` and `gateway`: one service in this process;
//! - [`rebuild`]: a lost catalog, rebuilt from replicas' ledgers;
//! - [`listen`], [`stop`], [`log`], [`open_files`], [`watchdog`]: what those have in common;
//! - [`up`]: all services, a process each, from start to stop;
//! - [`load`]: many clients at once, checked and measured;
//! - [`status`], [`top`], [`policy`]: what the admin API of a running gateway ([`admin`]) is for;
//! - [`protocol`]: which version of their protocol the services speak;
//! - [`stock`]: what is traded;
//! - [`backup`]: what a catalog has, in a file;
//! - [`cert`]: certificates for services and operators;
//! - [`ledger`]: what a replica's data directory holds;
//! - [`client`], [`answer`]: a small HTTP client, and what it gets from a gateway;
//! - [`output`]: what goes to standard output.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

mod cli;
mod error;
mod failure;
mod service;
mod rebuild;
mod listen;
mod stop;
mod log;
mod open_files;
mod watchdog;
mod up;
mod load;
mod status;
mod top;
mod policy;
mod protocol;
mod stock;
mod ledger;
mod cert;
mod backup;
mod admin;
mod client;
mod answer;
mod output;

use std::process::ExitCode;

use daemon::log::FlushOnDrop;
use tokio::runtime::{Builder, Runtime};

use clap::CommandFactory as _;
use cli::{Cli, Command};
use error::Error;
use failure::Failure;
use listen::Inherited;
use output::reader_may_go;

fn main() -> ExitCode {
    let _flush = FlushOnDrop;
    daemon::log::record_panics();
    let command = match Cli::try_read() {
        Ok(cli) => cli.into_command(),
        Err(told) => return tell_usage(&told),
    };
    // Before there are threads.
    let inherited = match inherited_by(&command) {
        Ok(inherited) => inherited,
        Err(error) => return fail(&error.into()),
    };
    let ended = runtime(&command)
        .map_err(Failure::from)
        .and_then(|runtime| {
            let ended = runtime.block_on(run(command, inherited));
            // What still runs on its threads, as the compilation of a policy may, keeps nobody waiting.
            runtime.shutdown_background();
            ended
        });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// The sockets that are handed to a service; whoever hands them to `up` means something else than it does.
fn inherited_by(command: &Command) -> Result<Inherited, Error> {
    match command {
        Command::Catalog(_) | Command::Order(_) | Command::Gateway(_) => {
            Inherited::from_environment()
        }
        Command::Up(_) => {
            let inherited = Inherited::from_environment()?;
            inherited.check_all_taken("the services of `bazaar up` listen by themselves")?;
            Ok(inherited)
        }
        _ => Ok(Inherited::default()),
    }
}

fn fail(error: &Failure) -> ExitCode {
    log::say_at(tracing::Level::ERROR, &error.to_string());
    error.exit_code()
}

/// Help goes to standard output, and what is wrong with the flags to standard error.
fn tell_usage(told: &clap::Error) -> ExitCode {
    let printed = reader_may_go(told.print());
    match printed {
        Err(error) if !told.use_stderr() => fail(&Error::from(error).into()),
        _ => ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(failure::WRONG_USAGE)),
    }
}

/// The catalog and the replicas have one thread for their connections: while there is more to do
/// than wait for the disk, a thread of its own does that, and what is left of a trade is a dozen
/// short steps, each of which would otherwise wake another thread.
fn runtime(command: &Command) -> Result<Runtime, Error> {
    let mut builder = match command {
        Command::Catalog(_) | Command::Order(_) | Command::CompilePolicy { .. } => {
            Builder::new_current_thread()
        }
        _ => Builder::new_multi_thread(),
    };
    builder.enable_all().build().map_err(Error::Runtime)
}

async fn run(command: Command, inherited: Inherited) -> Result<(), Failure> {
    match command {
        Command::Up(args) => Ok(up::run(args).await?),
        Command::Gateway(args) => service::gateway(args, inherited).await,
        Command::Catalog(args) => service::catalog(args, inherited).await,
        Command::Order(args) => service::order(args, inherited).await,
        Command::Load(args) => Ok(load::run(args).await?),
        Command::Policy(command) => Ok(policy::run(command).await?),
        Command::Status(args) => Ok(status::run(args).await?),
        Command::Top(args) => Ok(top::run(args).await?),
        Command::Stock(command) => Ok(stock::run(command).await?),
        Command::Protocol(command) => Ok(protocol::run(command).await?),
        Command::Backup(command) => Ok(backup::run(command).await?),
        Command::Cert(command) => Ok(cert::run(command)?),
        Command::Ledger(command) => Ok(ledger::run(command)?),
        Command::Completions { shell } => Ok(completions(shell).map_err(Error::from)?),
        Command::Man { dir } => Ok(manual(&dir).map_err(Error::from)?),
        Command::CompilePolicy { bytes, pace } => {
            Ok(frontend_policy::compile_as_child(bytes, pace)?)
        }
    }
}

/// What a shell needs to complete commands and flags.
fn completions(shell: clap_complete::Shell) -> std::io::Result<()> {
    let mut text = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(shell, &mut command, "bazaar", &mut text);
    output::print(&String::from_utf8_lossy(&text))
}

/// A page for each command.
fn manual(dir: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}
