//! A replica's start, before anything of its ledger is served: runs the core's [`Join`].

use domain::{Identity, RowNumber};
use order_core::join::{Action, Found, Input, Joined as Verdict};
use order_core::message::CallFailure;
use order_core::timing::JOIN_TIMEOUT;
use order_core::{Failure, Join, Save};
use storage::StorageError;
use storage::error::fail_stop;

use crate::config::Config;
use crate::damage::Damaged;
use crate::error::Error;
use crate::failed_call::Complaint;
use crate::peers::{Catalog, Report};
use crate::report;
use crate::store::{SqliteStore, Store as _};

/// A store whose ledger is known to be the journal's.
pub(crate) struct Joined {
    pub(crate) store: SqliteStore,
    pub(crate) identity: Identity,
    /// The catalog, as long as it keeps that journal.
    pub(crate) catalog: Catalog,
    /// How many rows the journal had, where all of them are yet to be copied.
    pub(crate) copies: Option<RowNumber>,
}

/// Waits for the catalog, and has the ledger compared with its journal. With
/// [`Config::rebuild`] one that must not be believed is set aside.
///
/// # Errors
/// Where the ledger is another journal's, or not to be believed.
pub(crate) async fn join(
    config: &Config,
    (mut store, is_copy): (SqliteStore, bool),
    catalog: Catalog,
) -> Result<Joined, Error> {
    let mut join = Join::new(config.rebuild, is_copy);
    let mut complaint = Complaint::default();
    if let Some(known) = store.identity() {
        catalog.follow(known.journal);
    }
    let mut input = Input::Ready;
    loop {
        let found = Found {
            known: store.identity(),
            durable: store.durable(),
        };
        input = match join.step(&found, input) {
            Action::AskCatalog => {
                let said = catalog.get_leadership(JOIN_TIMEOUT).await;
                let why = "waiting for the catalog, to compare the ledger with its journal";
                complaint.note(&said, why);
                Input::CatalogSaid(said.map_err(|error| error.failure))
            }
            Action::Compare { catalog: of, held } => {
                let catalog = catalog.clone().of(of.journal);
                let read = catalog.read_journal(held.rows, Some(held.chain), 1).await;
                Input::Compared(read.map(drop).map_err(|error| error.failure))
            }
            Action::Report { catalog: of, run } => {
                let report = Report {
                    replica: config.id,
                    run,
                    end: found.durable.end,
                    term: found.durable.term,
                    peers: config.peers.iter().map(|(id, _)| *id).collect(),
                    lease_horizon: found.known.unwrap_or(of).lease_horizon,
                    is_empty: found.known.is_none(),
                };
                report::report(&catalog.clone().of(of.journal), &store.reader(), &report).await;
                Input::Reported
            }
            Action::ShowMissing {
                catalog: of,
                number,
                is_first,
            } => {
                if is_first {
                    tracing::error!(journal = %number, held = %found.durable.end.rows, "the catalog's journal ends before this ledger does: its disk lost rows that were acknowledged");
                }
                let catalog = catalog.clone().of(of.journal);
                let row = store.reader().rows(number, 1)?.pop();
                Input::Shown(match row {
                    Some(row) => {
                        let shown = catalog.report_missing(config.id, &row).await;
                        shown.map_err(|error| error.failure)
                    }
                    None => Err(CallFailure::Failed),
                })
            }
            Action::Wait(pause) => {
                tokio::time::sleep(pause).await;
                Input::Ready
            }
            Action::SetAside(failure) => {
                store = set_aside(store, failure).await?;
                Input::Ready
            }
            Action::Adopt(Verdict {
                identity,
                is_news,
                copies,
            }) => {
                if is_news {
                    store = adopt(store, identity).await?;
                }
                catalog.follow(identity.journal);
                let catalog = catalog.of(identity.journal);
                return Ok(Joined {
                    store,
                    identity,
                    catalog,
                    copies,
                });
            }
            Action::Fail(failure) => return Err(refused(config, failure)),
        }
    }
}

/// The ledger is the journal's from now on.
async fn adopt(mut store: SqliteStore, identity: Identity) -> Result<SqliteStore, Error> {
    let save = Save {
        identity: Some(identity),
        ..Save::default()
    };
    let saving = tokio::task::spawn_blocking(move || {
        match store.save(&save) {
            Err(error @ StorageError::DiskFailed(_)) => fail_stop(&error),
            saved => saved?,
        };
        Ok(store)
    });
    saving.await.map_err(|_| Error::Ended)?
}

/// Makes room for a copy.
async fn set_aside(store: SqliteStore, failure: Failure) -> Result<SqliteStore, Error> {
    tracing::error!(%failure, "setting the ledger aside");
    let setting_aside = tokio::task::spawn_blocking(move || store.set_aside());
    let (store, aside) = setting_aside.await.map_err(|_| Error::Ended)??;
    tracing::warn!(kept = %aside.display(), "copying the ledger anew");
    Ok(store)
}

fn refused(config: &Config, failure: Failure) -> Error {
    let data_dir = config.data_dir.clone();
    if failure.is_foreign() {
        return Error::Foreign { data_dir, failure };
    }
    let what = failure.to_string();
    Error::Damaged(Damaged { data_dir, what })
}
