//! What only PostgreSQL can do to a catalog, over a real one.
//!
//! - [`opening`]: which servers and databases a catalog opens; [`encryption`]: whom it believes to be its server;
//! - [`terms`]: who writes, and until when;
//! - [`commits`]: what became of a commit;
//! - [`reading`]: what is read, also by backups.

mod opening;
mod encryption;
mod terms;
mod commits;
mod reading;

use std::time::Duration;

use domain::IdempotencyKey;
use storage::StorageError;
use test_postgres::proxy::Proxy;
use test_postgres::{Cluster, Options};
use tokio::sync::watch;
use tonic::async_trait;

use catalog::callers::Callers;
use catalog::stocks::built_in;
use catalog::store::postgres::{
    COMMIT_TIME_MAX, NewJournal, OpenError, OpenOptions, PostgresError, PostgresStore, StoreUrl,
};
use catalog::store::{Journal, Store, random_journal};
use catalog_core::Rules;

use crate::suite::Place;

/// Far above what a commit takes on a busy machine, and far below what a test may take.
const SHORT: Duration = Duration::from_millis(1500);

/// Longest wait for what a server does soon.
const PATIENCE: Duration = Duration::from_secs(60);

/// For how long a beat stands still here before another writer takes over.
const LEASE: Duration = Duration::from_millis(300);

/// A database of a server's.
pub struct PostgresPlace<'a> {
    cluster: &'a Cluster,
    database: String,
    url: String,
}

impl<'a> PostgresPlace<'a> {
    /// Makes an empty one.
    pub fn new(cluster: &'a Cluster, name: &str) -> Self {
        let database: String = name.chars().take(60).collect();
        Self {
            url: cluster.database(&database),
            cluster,
            database,
        }
    }

    fn sql(&self, sql: &str) -> String {
        self.cluster.sql_in(&self.database, sql)
    }

    /// As a catalog opens it.
    async fn store(&self) -> Result<PostgresStore, OpenError> {
        open(options(&self.url)).await
    }

    /// By way of a proxy.
    async fn store_by(&self, proxy: &Proxy) -> PostgresStore {
        let port = format!(":{}/", self.cluster.port());
        let url = self.url.replace(&port, &format!(":{}/", proxy.port()));
        open(impatient(&url)).await.unwrap()
    }

    /// The writer that was is gone for good: nobody needs to watch its beat.
    fn forget_writer(&self) {
        self.sql("UPDATE writer SET holder = ''");
    }

    /// What a catalog finds that starts now.
    async fn reopened(&self) -> PostgresStore {
        self.forget_writer();
        self.store().await.unwrap()
    }
}

#[async_trait]
impl Place for PostgresPlace<'_> {
    async fn open(&self) -> Result<(Box<dyn Store>, Box<dyn Journal>), StorageError> {
        let has_tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'writer'";
        if self.sql(has_tables) != "0" {
            self.forget_writer();
        }
        match self.store().await {
            Ok(store) => {
                let journal = store.journal();
                Ok((Box::new(store), Box::new(journal)))
            }
            Err(OpenError::Storage(error)) => Err(error),
            Err(OpenError::Refused(refused)) => panic!("{refused}"),
        }
    }

    async fn change(&self, sql: &str) {
        self.sql(sql);
    }

    fn as_of_0_1_0(&self) -> &'static str {
        "ALTER TABLE writer DROP COLUMN protocol, DROP COLUMN spoken, DROP COLUMN spoken_term, DROP COLUMN server_started;
         DROP TABLE limits;
         DROP TABLE standby_callers;
         DELETE FROM migration WHERE number >= 3"
    }

    fn check_0_1_0(&self) -> &'static str {
        "ALTER TABLE writer ADD COLUMN protocol bigint; ALTER TABLE writer DROP COLUMN protocol;
         INSERT INTO migration VALUES (3); DELETE FROM migration WHERE number = 3"
    }
}

fn options(url: &str) -> OpenOptions {
    OpenOptions {
        url: StoreUrl::parse(url).unwrap(),
        allow_unreplicated: true,
        reached_at: "http://127.0.0.1:56892".to_owned(),
        new: Some(NewJournal {
            id: random_journal().unwrap(),
            listings: built_in(),
        }),
        commit_time_max: COMMIT_TIME_MAX,
        writer_lease: LEASE,
        callers: Callers::default(),
        rules: Rules::default(),
    }
}

async fn open(options: OpenOptions) -> Result<PostgresStore, OpenError> {
    PostgresStore::open(options, &watch::Sender::default()).await
}

fn impatient(url: &str) -> OpenOptions {
    OpenOptions {
        commit_time_max: SHORT,
        ..options(url)
    }
}

fn refused(opened: Result<PostgresStore, OpenError>) -> PostgresError {
    match opened {
        Err(OpenError::Refused(refused)) => refused,
        Err(OpenError::Storage(error)) => panic!("{error}"),
        Ok(_) => panic!("it was opened"),
    }
}

/// A server without a standby; `None` where there is no PostgreSQL here.
fn lone() -> Option<Cluster> {
    Cluster::start(&Options::default())
}

fn replicated() -> Option<Cluster> {
    Cluster::replicated()
}

fn key(key: &str) -> IdempotencyKey {
    IdempotencyKey::new(key).unwrap()
}
