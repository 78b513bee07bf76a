//! `bazaar backup`: what a catalog has, in a file.
//!
//! - [`archive`]: the file;
//! - [`gateway`]: what a gateway keeps of its policies;
//! - here: what goes into it, and what is made of it.

mod archive;
mod gateway;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use catalog::backup::server::ServerError;
use catalog::backup::{self, Copied};
use catalog::store::postgres::transfer;
use catalog::{DATABASE_FILE, RebuildError, StoreUrl};
use daemon::directory;
use daemon::ownership::{Ownership, remedy};
use domain::JournalId;
use jiff::Timestamp;
use serde_json::json;
use storage::{StorageError, archive as archive_dir};
use tempfile::TempDir;
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

use crate::cli;
use crate::error::Error;
use crate::output;
use archive::{ArchiveError, Layout, Manifest};

/// The directories of `bazaar up`, and of what it is made of.
const CATALOG: &str = "catalog";
const GATEWAY: &str = "gateway";
const ORDER_PREFIX: &str = "order-";

/// Beside a database that was made of a backup: of which, when and by whom. In PostgreSQL a comment says so.
const RESTORED_FROM: &str = "restored-from.json";

/// The highest niceness that there is.
const LOWEST_PRIORITY: i32 = 19;

/// Why there is no backup, or nothing was made of it.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error("{}: {source}{}", path.display(), remedy(path, source))]
    File { path: PathBuf, source: io::Error },
    /// Whose it would be cannot be told.
    #[error(
        "{} is neither a catalog's data directory nor a gateway's, nor that of `bazaar up`: there is no {DATABASE_FILE} in it, and no policies",
        .0.display()
    )]
    NoCatalog(PathBuf),
    /// It has no journal.
    #[error("{} is of a gateway: it has policies and no orders, so there is no {flag}", path.display())]
    OfGateway { path: PathBuf, flag: &'static str },
    /// A gateway runs where one is to be restored.
    #[error(transparent)]
    InUse(#[from] daemon::data_dir::Error),
    #[error("{}: {source}", path.display())]
    Storage { path: PathBuf, source: StorageError },
    #[error("{}: {source}", path.display())]
    Restore { path: PathBuf, source: RebuildError },
    /// A server refused.
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error(transparent)]
    Catalog(#[from] catalog::Error),
    /// What is in it is not what it says.
    #[error("{} says that it has {}, and does not", path.display(), says.contents())]
    OtherContents { path: PathBuf, says: Box<Manifest> },
    /// It never stood still.
    #[error("the policies in {} changed whenever they were read: try again", .0.display())]
    PoliciesChange(PathBuf),
    /// Something is there already.
    #[error("{} is there: {remedy}", path.display())]
    Occupied { path: PathBuf, remedy: &'static str },
    #[error(transparent)]
    Shared(#[from] Error),
}

/// Does what the command says.
pub async fn run(command: cli::Backup) -> Result<(), BackupError> {
    let text = match command {
        cli::Backup::Take(args) => take(&args).await?,
        cli::Backup::Verify { file } => {
            let (manifest, _unpacked) = verified(&file, directory::of(&file))?;
            format!("{}: whole, {}", file.display(), described(&manifest))
        }
        cli::Backup::Restore(args) => restore(&args).await?,
    };
    Ok(output::print(&text).map_err(Error::from)?)
}

/// Lets everybody else go first from now on: it runs where a processor has nothing else to do, and is off it at once when
/// there is. Where that is not to be had it goes on as it is.
fn run_when_idle() {
    let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
    let _ = set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle);
}

async fn take(args: &cli::Take) -> Result<String, BackupError> {
    let cli::Take {
        file,
        data_dir,
        store,
    } = args;
    // Whoever trades goes first. Where that is not to be had it goes on as it is.
    let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
    if file.exists() {
        return Err(BackupError::Occupied {
            path: file.clone(),
            remedy: "a backup is never overwritten, name another file",
        });
    }
    let (layout, catalog) = match store {
        // What is there besides is a gateway's.
        Some(_) if data_dir.join(GATEWAY).is_dir() => (Layout::Bazaar, data_dir.clone()),
        Some(_) => (Layout::Catalog, data_dir.clone()),
        None => layout(data_dir)?,
    };
    if layout == Layout::Gateway {
        return take_of_gateway(file, data_dir);
    }
    // Where the backup will be there is room for it; and it is this user's alone.
    let beside = directory::of(file);
    let parts = tempfile::tempdir_in(beside).map_err(failed(beside))?;
    let copy = parts.path().join(CATALOG);
    fs::create_dir_all(&copy).map_err(failed(&copy))?;
    let archived = match store {
        Some(store) => {
            let store = StoreUrl::parse(&store.0).map_err(catalog::Error::from)?;
            backup::server::copy(&store, &copy, run_when_idle).await?;
            Vec::new()
        }
        None => backup::copy(&catalog, &copy).map_err(unreadable(&catalog))?,
    };
    // The database keeps nothing for the copy from here on: it may take as long as it takes.
    run_when_idle();
    // What would not be restored is no backup.
    let copied = backup::check_gently(&copy).map_err(unreadable(&catalog))?;
    let mut files = vec![(
        format!("{CATALOG}/{DATABASE_FILE}"),
        copy.join(DATABASE_FILE),
    )];
    let has_archive = !archived.is_empty();
    files.extend(archived.into_iter().map(|name| {
        let path = copy.join(archive_dir::DIR).join(&name);
        let name = format!("{CATALOG}/{}/{}", archive_dir::DIR, name.display());
        (name, path)
    }));
    if layout == Layout::Bazaar {
        files.extend(gateway::copy(
            &data_dir.join(GATEWAY),
            &parts.path().join(GATEWAY),
        )?);
    }
    let manifest = manifest(layout, &copied, has_archive);
    let manifest = archive::write(file, manifest, &files)?;
    Ok(format!("{}: {}", file.display(), described(&manifest)))
}

/// Of a gateway on a host of its own, whose policies are nowhere else.
fn take_of_gateway(file: &Path, data_dir: &Path) -> Result<String, BackupError> {
    let beside = directory::of(file);
    let parts = tempfile::tempdir_in(beside).map_err(failed(beside))?;
    let copy = parts.path().join(GATEWAY);
    let files = gateway::copy(data_dir, &copy)?;
    let manifest = archive::write(file, gateway::manifest(&copy)?, &files)?;
    Ok(format!("{}: {}", file.display(), described(&manifest)))
}

async fn restore(args: &cli::Restore) -> Result<String, BackupError> {
    let cli::Restore {
        file,
        data_dir,
        store,
        allow_unreplicated,
        until,
        lease_ms,
    } = args;
    // By root or not: the service is to be able to use it.
    let ownership = Ownership::of(data_dir).map_err(failed(data_dir))?;
    directory::make_private(data_dir).map_err(failed(data_dir))?;
    // What is unpacked there is moved to its place.
    let (manifest, unpacked) = verified(file, data_dir)?;
    let catalog = match manifest.layout {
        Layout::Gateway => return gateway::restore(args, unpacked, &ownership),
        Layout::Catalog => data_dir.clone(),
        Layout::Bazaar => data_dir.join(CATALOG),
    };
    let occupied = |path: PathBuf, remedy| Err(BackupError::Occupied { path, remedy });
    let database = catalog.join(DATABASE_FILE);
    if store.is_none() && database.exists() {
        return occupied(database, "remove it first if it is really lost");
    }
    let gateways = data_dir.join(GATEWAY);
    if manifest.layout == Layout::Bazaar && until.is_some() {
        let of_before = ledger_in(data_dir).or(gateways.exists().then(|| gateways.clone()));
        if let Some(of_before) = of_before {
            let remedy =
                "with --until another journal begins, which has no place for it: set it aside";
            return occupied(of_before, remedy);
        }
    }
    let copy = unpacked.path().join(CATALOG);
    let lease = Duration::from_millis(*lease_ms);
    let policies = unpacked.path().join(GATEWAY);
    let has_policies = policies.exists();
    let keeps_gateway = has_policies && gateways.exists();
    // Before the catalog: where this ends early, nothing can be started with half of it.
    if has_policies && !keeps_gateway && until.is_none() {
        place(&policies, &gateways)?;
    }
    let failed_at = |path: &Path| {
        let path = path.to_owned();
        move |source| BackupError::Restore { path, source }
    };
    let (at, Copied { journal, end }) = match (store, until) {
        (None, None) => {
            let restored = backup::restore(&copy, &catalog, lease);
            let restored = restored.map_err(failed_at(&catalog))?;
            (catalog.display().to_string(), restored)
        }
        (None, Some(last)) => {
            let restored = backup::restore_until(&copy, *last, &catalog, lease);
            let restored = restored.map_err(failed_at(&catalog))?;
            (catalog.display().to_string(), restored)
        }
        (Some(store), until) => {
            let store = StoreUrl::parse(&store.0).map_err(catalog::Error::from)?;
            let shortened = unpacked.path().join("until");
            let from = match until {
                None => &copy,
                Some(last) => {
                    let made = backup::restore_until(&copy, *last, &shortened, lease);
                    made.map_err(failed_at(&shortened))?;
                    &shortened
                }
            };
            let restored = backup::server::restore(from, &store, *allow_unreplicated).await?;
            (store.to_string(), restored)
        }
    };
    if has_policies && until.is_some() {
        let own = policies.join(gateway::JOURNAL);
        fs::write(&own, format!("{journal}\n")).map_err(failed(&own))?;
        place(&policies, &gateways)?;
    }
    drop(unpacked); // what is left of it is nobody's
    let origin = origin(args, &manifest, journal);
    let unnoted = note_origin(args, &catalog, &origin).await.err();
    for made in [&catalog, &gateways] {
        ownership.give(made).map_err(failed(made))?;
    }
    let mut text = format!(
        "{}: journal {journal}, {} orders, chain hash {}\n",
        at,
        end.orders(),
        end.chain
    );
    if keeps_gateway {
        text += &format!("{} is there, and stays as it is\n", gateways.display());
    }
    if let Some(error) = unnoted {
        text += &format!("Of what it was made is not written down there: {error}\n");
    }
    if let Some(advice) = ownership.advice(data_dir) {
        text += &format!("{advice}\n");
    }
    text += match until {
        None => {
            "Start it without --new, and every replica. What these have beyond that they give back before anybody is served; where all of them are lost as well, restart every gateway: it may remember orders that are.\n"
        }
        Some(_) => {
            "It is another journal than the one before: start it without --new, and replicas and gateways with new data directories.\n"
        }
    };
    Ok(text)
}

/// Of what a database was made, in JSON: a journal that ends with an order has nothing else of the one before.
fn origin(args: &cli::Restore, of: &Manifest, journal: JournalId) -> String {
    let origin = json!({
        "journal": journal.to_string(),
        "until": args.until.map(|last| last.0),
        "backup": args.file.display().to_string(),
        "backup_sha256": of.sha256,
        "of_journal": of.journal,
        "of_orders": of.orders,
        "of_chain_hash": of.chain_hash,
        "taken_at_ms": of.taken_at_ms,
        "restored_at": Timestamp::now().to_string(),
        "restored_by": cli::user(),
        "release": env!("CARGO_PKG_VERSION"),
    });
    format!("{origin:#}\n")
}

/// Writes that down beside the database.
async fn note_origin(args: &cli::Restore, catalog: &Path, origin: &str) -> Result<(), BackupError> {
    let Some(store) = &args.store else {
        let path = catalog.join(RESTORED_FROM);
        let written = daemon::atomic_file::write(&path, origin.as_bytes());
        return written.map_err(failed(&path));
    };
    let store = StoreUrl::parse(&store.0).map_err(catalog::Error::from)?;
    let noted = transfer::note_origin(&store, args.allow_unreplicated, origin.trim_end()).await;
    Ok(noted.map_err(ServerError::from)?)
}

/// Gives a directory its place, all of it or nothing.
fn place(from: &Path, to: &Path) -> Result<(), BackupError> {
    directory::sync_tree(from).map_err(failed(from))?;
    fs::rename(from, to).map_err(failed(to))?;
    directory::sync(directory::of(to)).map_err(failed(to))
}

/// Unpacks a backup into a directory of its own, and reads all of it.
fn verified(file: &Path, beside: &Path) -> Result<(Manifest, TempDir), BackupError> {
    let unpacked = tempfile::tempdir_in(beside).map_err(failed(beside))?;
    let manifest = archive::unpack(file, unpacked.path())?;
    let as_it_says = match manifest.layout {
        Layout::Gateway => gateway::is_as_said(unpacked.path(), &manifest)?,
        Layout::Catalog | Layout::Bazaar => {
            let copied = backup::check(&unpacked.path().join(CATALOG)).map_err(unreadable(file))?;
            manifest.journal == Some(copied.journal.to_string())
                && manifest.orders == Some(copied.end.orders().0)
                && manifest.chain_hash == Some(copied.end.chain.to_string())
        }
    };
    match as_it_says {
        true => Ok((manifest, unpacked)),
        false => Err(BackupError::OtherContents {
            path: file.to_owned(),
            says: Box::new(manifest),
        }),
    }
}

/// Whose directory it is, and where its catalog's is, or a gateway's own.
fn layout(data_dir: &Path) -> Result<(Layout, PathBuf), BackupError> {
    let own = data_dir.join(CATALOG);
    if data_dir.join(DATABASE_FILE).exists() {
        Ok((Layout::Catalog, data_dir.to_owned()))
    } else if own.join(DATABASE_FILE).exists() {
        Ok((Layout::Bazaar, own))
    } else if gateway::is_its(data_dir) {
        Ok((Layout::Gateway, data_dir.to_owned()))
    } else {
        Err(BackupError::NoCatalog(data_dir.to_owned()))
    }
}

/// A replica's data directory among those of `bazaar up`.
fn ledger_in(data_dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(data_dir).ok()?.flatten();
    let named = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with(ORDER_PREFIX))
    };
    entries.map(|entry| entry.path()).find(named)
}

fn manifest(layout: Layout, copied: &Copied, has_archive: bool) -> Manifest {
    Manifest {
        journal: Some(copied.journal.to_string()),
        orders: Some(copied.end.orders().0),
        chain_hash: Some(copied.end.chain.to_string()),
        ..Manifest::now(layout, archive::format(has_archive))
    }
}

fn described(manifest: &Manifest) -> String {
    let at = i64::try_from(manifest.taken_at_ms).ok();
    let at = at.and_then(|at| Timestamp::from_millisecond(at).ok());
    let at = at.map_or_else(|| "?".to_owned(), |at| format!("{at:.0}"));
    let policies = manifest.files.iter();
    let policies = policies.filter(|file| file.name.ends_with(".wasm")).count();
    format!(
        "taken {at} by release {}, {}, {policies} policies\n",
        manifest.release,
        manifest.contents()
    )
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::File { path, source }
}

fn unreadable(path: &Path) -> impl FnOnce(StorageError) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Storage { path, source }
}
