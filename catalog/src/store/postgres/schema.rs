//! The tables, by numbered scripts that are each run once, in a transaction of its own.
//!
//! A row is the lock: who runs a script holds it, and others wait. Locks of other kinds are not
//! the same through poolers and in other engines of the protocol.

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, Transaction};

use super::error::{PostgresError, told};

/// What each release added; a script that was released is never changed.
const SCRIPTS: &[&str] = &[
    TABLES,
    STOCK_CHANGES,
    PROTOCOL,
    SERVER_STARTED,
    LIMITS,
    STANDBY_CALLERS,
];

/// How many of them a start runs: what came after that the release before does not know, and it runs only
/// [when told](add_gated).
const AT_START: usize = 2;

/// With how many of them the writer's row says what is spoken, and with how many when its server had started; with how many
/// standbys say who asks them.
const WITH_PROTOCOL: i32 = 3;
const WITH_SERVER_STARTED: i32 = 4;
const WITH_CALLERS: i32 = 6;

/// How many there are.
pub(super) const VERSION: usize = SCRIPTS.len();

/// Keys compare byte by byte: with the collation of the system an index is wrong after an update of
/// its locales.
const TABLES: &str = "
    CREATE TABLE writer ( -- who writes: one row
        only_row smallint PRIMARY KEY CHECK (only_row = 0),
        term bigint NOT NULL CHECK (term >= 0), -- rises with each writer
        beat bigint NOT NULL CHECK (beat >= 0), -- rises with each commit
        holder text NOT NULL, -- empty where nobody writes
        url text NOT NULL, -- where the holder is reached
        system_identifier text, -- of the database cluster
        timeline bigint -- of the cluster, as the term began
    );
    INSERT INTO writer VALUES (0, 0, 0, '', '', NULL, NULL);
    CREATE TABLE identity ( -- which journal it is: one row, made with it
        only_row smallint PRIMARY KEY CHECK (only_row = 0),
        journal bytea NOT NULL CHECK (length(journal) = 16),
        checksum bytea NOT NULL CHECK (length(checksum) = 32) -- of the id and the listing
    );
    CREATE TABLE stock (
        name text COLLATE \"C\" PRIMARY KEY,
        price bigint NOT NULL CHECK (price >= 0), -- of one share, in minor units (cents)
        quantity bigint NOT NULL CHECK (quantity >= 0),
        volume bigint NOT NULL CHECK (volume >= 0), -- shares traded, bought and sold
        version bigint NOT NULL CHECK (version > 0)
    );
    CREATE TABLE listing ( -- as the stocks were first; the journal leads from here to there
        name text COLLATE \"C\" PRIMARY KEY,
        price bigint NOT NULL CHECK (price >= 0),
        quantity bigint NOT NULL CHECK (quantity >= 0)
    );
    CREATE TABLE leadership ( -- one row
        only_row smallint PRIMARY KEY CHECK (only_row = 0),
        epoch bigint NOT NULL CHECK (epoch >= 0),
        leader bigint NOT NULL CHECK ((leader = 0) = (epoch = 0)),
        change bigint NOT NULL CHECK (change >= 0), -- the last one of in_sync in this epoch
        in_sync bigint[] NOT NULL,
        checksum bytea NOT NULL CHECK (length(checksum) = 32)
    );
    CREATE TABLE journal (
        number bigint PRIMARY KEY CHECK (number >= 0),
        epoch bigint NOT NULL CHECK (epoch > 0),
        key text COLLATE \"C\" NOT NULL UNIQUE,
        name text COLLATE \"C\" NOT NULL,
        side text NOT NULL CHECK (side IN ('buy', 'sell')),
        quantity bigint NOT NULL CHECK (quantity > 0),
        price bigint NOT NULL CHECK (price >= 0), -- of one share, in minor units (cents)
        chain bytea NOT NULL CHECK (length(chain) = 32)
    );
    CREATE TABLE refused ( -- orders that will have no row in the journal; the last of them
        id bigint PRIMARY KEY, -- rises
        key text COLLATE \"C\" NOT NULL UNIQUE,
        name text COLLATE \"C\" NOT NULL,
        side text NOT NULL CHECK (side IN ('buy', 'sell')),
        quantity bigint NOT NULL CHECK (quantity > 0),
        refusal text NOT NULL CHECK (refusal IN ('stock not found', 'not enough', 'too many')),
        checksum bytea NOT NULL CHECK (length(checksum) = 32)
    );
";

/// What rows and refusals of stocks need: see `words`.
const STOCK_CHANGES: &str = "
    ALTER TABLE journal ADD COLUMN stock_changes bigint NOT NULL DEFAULT 0,
        ADD COLUMN stock_change text;
    ALTER TABLE refused ADD COLUMN stock_change text, ADD COLUMN stock_refusal text;
";

/// Which version of the protocol the bazaar is at. Whoever takes a term has to say in the same statement that it speaks it:
/// release 0.1.0, which does not, cannot, even where it has stood by since before.
const PROTOCOL: &str = "
    ALTER TABLE writer
        ADD COLUMN protocol bigint NOT NULL DEFAULT 1, -- that the bazaar is at
        ADD COLUMN spoken bigint, -- the newest that the holder speaks
        ADD COLUMN spoken_term bigint; -- the term in which it said so
    UPDATE writer SET spoken = 2, spoken_term = term;
    ALTER TABLE writer
        ALTER COLUMN spoken SET NOT NULL,
        ALTER COLUMN spoken_term SET NOT NULL,
        ADD CONSTRAINT writer_speaks_protocol CHECK (spoken_term = term AND spoken >= protocol);
";

/// With the timeline, in which incarnation of the database a catalog was healed last.
const SERVER_STARTED: &str = "
    ALTER TABLE writer ADD COLUMN server_started bigint; -- in microseconds since 1970, by the server's clock
";

/// What a catalog that let go left the next one of its limits.
const LIMITS: &str = "
    CREATE TABLE limits ( -- one row at most
        only_row smallint PRIMARY KEY CHECK (only_row = 0),
        term bigint NOT NULL, -- the writer's that left it: the next term alone takes it
        content bytea NOT NULL
    );
";

/// What catalogs that stand by say to the active one.
const STANDBY_CALLERS: &str = "
    CREATE TABLE standby_callers ( -- one row
        only_row smallint PRIMARY KEY CHECK (only_row = 0),
        said bigint NOT NULL CHECK (said >= 0), -- rises
        callers bigint NOT NULL CHECK (callers >= 0) -- that ask the one that said it last
    );
    INSERT INTO standby_callers VALUES (0, 0, 0);
";

/// Row 0 is the lock.
const MIGRATIONS: &str = "
    CREATE TABLE IF NOT EXISTS migration (number integer PRIMARY KEY);
    INSERT INTO migration VALUES (0) ON CONFLICT DO NOTHING;
";

/// Before anything else in a transaction that changes the writer's table: whoever waits for its row meanwhile would have to be
/// waited for.
pub(super) const LOCK_WRITER: &str = "LOCK TABLE writer IN ACCESS EXCLUSIVE MODE";

/// Tries at making the first table, which two that start at once cannot both do.
const TRIES_MAX: u32 = 5;

/// How many scripts have been run; `None` where none was: the list of them is there a moment before the first is.
///
/// # Errors
/// [`PostgresError::Newer`] where a later release has run one.
pub(super) async fn version(client: &Client) -> Result<Option<i32>, PostgresError> {
    let found = client
        .query_one(
            "SELECT count(*) FROM information_schema.tables
             WHERE table_schema = current_schema() AND table_name = 'migration'",
            &[],
        )
        .await
        .and_then(|row| row.try_get::<_, i64>(0));
    if found.map_err(failed)? == 0 {
        return Ok(None);
    }
    let last = client.query_one("SELECT coalesce(max(number), 0) FROM migration", &[]);
    let last: i32 = last.await.and_then(|row| row.try_get(0)).map_err(failed)?;
    check_known(last)?;
    Ok((last > 0).then_some(last))
}

/// Whether all scripts have been run that a start runs.
///
/// # Errors
/// As [`version`].
pub(super) async fn is_current(client: &Client) -> Result<bool, PostgresError> {
    let wanted = i32::try_from(AT_START).ok();
    Ok(version(client).await? >= wanted)
}

/// Runs the scripts that a start runs and that have not been run.
///
/// # Errors
/// Where one fails, which then has done nothing, or as [`version`].
pub(super) async fn migrate(client: &mut Client) -> Result<(), PostgresError> {
    let mut tries = 1;
    loop {
        match client.batch_execute(MIGRATIONS).await {
            Ok(()) => break,
            Err(error) if tries < TRIES_MAX && is_overtaken(&error) => tries += 1,
            Err(error) => return Err(failed(error)),
        }
    }
    loop {
        let transaction = client.transaction().await.map_err(failed)?;
        let has_run = run_next(&transaction, AT_START).await?;
        transaction.commit().await.map_err(failed)?;
        if !has_run {
            return Ok(());
        }
    }
}

/// Whether the writer's row says what is spoken.
///
/// # Errors
/// As [`version`].
pub(super) async fn has_protocol(client: &Client) -> Result<bool, PostgresError> {
    Ok(version(client).await? >= Some(WITH_PROTOCOL))
}

/// Whether it says when the server had started in which a catalog was healed last.
///
/// # Errors
/// As [`version`].
pub(super) async fn has_server_started(client: &Client) -> Result<bool, PostgresError> {
    Ok(version(client).await? >= Some(WITH_SERVER_STARTED))
}

/// Whether there is a place for what standbys say.
///
/// # Errors
/// As [`version`].
pub(super) async fn has_callers(client: &Client) -> Result<bool, PostgresError> {
    Ok(version(client).await? >= Some(WITH_CALLERS))
}

/// Runs what has not been run, in the caller's transaction, which has [locked](LOCK_WRITER) the writer's table. From then on
/// releases that do not have it refuse the database.
///
/// # Errors
/// As [`migrate`].
pub(super) async fn add_gated(transaction: &Transaction<'_>) -> Result<(), PostgresError> {
    while run_next(transaction, SCRIPTS.len()).await? {}
    Ok(())
}

/// Runs the next of the first so many scripts. Returns whether one was left to run.
async fn run_next(transaction: &Transaction<'_>, wanted: usize) -> Result<bool, PostgresError> {
    let lock = "SELECT number FROM migration WHERE number = 0 FOR UPDATE";
    transaction.query(lock, &[]).await.map_err(failed)?;
    let last = transaction.query_one("SELECT max(number) FROM migration", &[]);
    let last: i32 = last.await.and_then(|row| row.try_get(0)).map_err(failed)?;
    check_known(last)?;
    let scripts = &SCRIPTS[..wanted];
    let Some(script) = usize::try_from(last).ok().and_then(|run| scripts.get(run)) else {
        return Ok(false);
    };
    let next = last + 1;
    transaction.batch_execute(script).await.map_err(failed)?;
    let note = "INSERT INTO migration VALUES ($1)";
    transaction.execute(note, &[&next]).await.map_err(failed)?;
    tracing::info!(version = next, "makes the database's tables");
    Ok(true)
}

fn check_known(found: i32) -> Result<(), PostgresError> {
    let known = i32::try_from(SCRIPTS.len()).unwrap_or(i32::MAX);
    match found <= known {
        true => Ok(()),
        false => Err(PostgresError::Newer { found, known }),
    }
}

fn is_overtaken(error: &Error) -> bool {
    let codes = [&SqlState::UNIQUE_VIOLATION, &SqlState::DUPLICATE_TABLE];
    error.code().is_some_and(|code| codes.contains(&code))
}

fn failed(error: Error) -> PostgresError {
    PostgresError::Schema(told(&error))
}
