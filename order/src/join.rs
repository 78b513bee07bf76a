//! A replica's start: its ledger is compared with the catalog's journal before anything of it is
//! served, and takes the journal's id where it has none.

use domain::{Identity, OrderNumber};
use storage::StorageError;
use storage::error::fail_stop;

use crate::config::Config;
use crate::damage::Damaged;
use crate::error::Error;
use crate::peers::{Catalog, Looked, fetch_failure, report_failure};
use crate::store::{SqliteStore, Store as _};
use domain::JournalHead;
use order_core::claim::refuted;
use order_core::message::CallFailure;
use order_core::timing::{JOIN_RETRY, JOIN_TIMEOUT};
use order_core::{Claim, Durable, Failure, Save, claim};

/// A store whose ledger is known to be the journal's.
pub(crate) struct Joined {
    pub(crate) store: SqliteStore,
    pub(crate) identity: Identity,
    /// The catalog, as long as it keeps that journal.
    pub(crate) catalog: Catalog,
    /// How many rows the journal had, where all of them are yet to be copied.
    pub(crate) copies: Option<OrderNumber>,
}

/// Waits for the catalog, and has the ledger compared with its journal. With
/// [`Config::rebuild`] one that must not be believed is set aside.
///
/// # Errors
/// Where the ledger is another journal's, or not to be believed.
pub(crate) async fn join(
    config: &Config,
    (mut store, mut is_copy): (SqliteStore, bool),
    catalog: Catalog,
) -> Result<Joined, Error> {
    let mut lost_rows = false;
    loop {
        let Ok(Looked { identity, head, .. }) = looked(&catalog).await else {
            tokio::time::sleep(JOIN_RETRY).await;
            continue;
        };
        let catalog = catalog.clone().of(identity.journal);
        let ledger = (store.identity(), store.durable());
        match compared(ledger, &catalog, identity, &head).await {
            Compared::Is => {
                store = adopt(store, identity).await?;
                return Ok(Joined {
                    copies: is_copy.then_some(head.end.rows),
                    identity: store.identity().unwrap_or(identity),
                    store,
                    catalog,
                });
            }
            Compared::Unknown => {}
            // Whoever asks for a copy wants the journal as it is.
            Compared::CatalogLostRows(rows) if config.rebuild => {
                let failure = Failure::Differs { rows };
                (store, is_copy) = (set_aside(config, store, failure).await?, true);
                continue;
            }
            Compared::CatalogLostRows(number) => {
                if !std::mem::replace(&mut lost_rows, true) {
                    tracing::error!(journal = %number, held = %store.durable().end.rows, "the catalog's journal ends before this ledger does: its disk lost rows that were acknowledged");
                }
                let row = store.reader().rows(number, 1)?.pop();
                if let Some(row) = row
                    && let Err(status) = catalog.report_missing(config.id, &row).await
                    && let Some(failure) = report_failure(number, &status)
                {
                    let (data_dir, what) = (config.data_dir.clone(), failure.to_string());
                    return Err(Error::Damaged(Damaged { data_dir, what }));
                }
            }
            Compared::IsNot(failure) => {
                (store, is_copy) = (set_aside(config, store, failure).await?, true);
                continue;
            }
        }
        tokio::time::sleep(JOIN_RETRY).await;
    }
}

/// What the catalog says of itself.
async fn looked(catalog: &Catalog) -> Result<Looked, tonic::Status> {
    let looked = catalog.look(JOIN_TIMEOUT, None).await;
    looked.inspect_err(|status| {
        tracing::debug!(%status, "waiting for the catalog, to compare the ledger with its journal");
    })
}

enum Compared {
    Is,
    IsNot(Failure),
    CatalogLostRows(OrderNumber),
    Unknown,
}

async fn compared(
    (known, durable): (Option<Identity>, Durable),
    catalog: &Catalog,
    identity: Identity,
    head: &JournalHead,
) -> Compared {
    let held = match claim(known, &durable, &identity, head) {
        Ok(Claim::Holds) => return Compared::Is,
        Ok(Claim::CatalogLostRows(number)) => return Compared::CatalogLostRows(number),
        Ok(Claim::Compare(held)) => held,
        Err(failure) => return Compared::IsNot(failure),
    };
    match catalog.read_journal(held.rows, Some(held.chain), 1).await {
        Ok(_) => Compared::Is,
        Err(status) if fetch_failure(&status) == CallFailure::Differs => {
            Compared::IsNot(refuted(known, &identity, held, head))
        }
        Err(_) => Compared::Unknown,
    }
}

/// The ledger is the journal's from now on. Where it says so already nothing is written, so that a
/// replica starts on a full disk as well.
async fn adopt(mut store: SqliteStore, identity: Identity) -> Result<SqliteStore, Error> {
    let known = store.identity();
    if known.is_some_and(|known| known.lease_horizon >= identity.lease_horizon) {
        return Ok(store);
    }
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

/// Makes room for a copy, where that was asked for and the ledger may be given up.
async fn set_aside(
    config: &Config,
    store: SqliteStore,
    failure: Failure,
) -> Result<SqliteStore, Error> {
    let data_dir = config.data_dir.clone();
    if matches!(
        failure,
        Failure::OtherJournal { .. } | Failure::Unproven { .. }
    ) {
        return Err(Error::Foreign { data_dir, failure });
    }
    if !config.rebuild {
        let what = failure.to_string();
        return Err(Error::Damaged(Damaged { data_dir, what }));
    }
    tracing::error!(%failure, "setting the ledger aside");
    let setting_aside = tokio::task::spawn_blocking(move || store.set_aside());
    let (store, aside) = setting_aside.await.map_err(|_| Error::Ended)??;
    tracing::warn!(kept = %aside.display(), "copying the ledger anew");
    Ok(store)
}
