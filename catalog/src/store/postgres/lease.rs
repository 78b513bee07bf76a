//! The writer's lease: who may write, of all catalogs on one database. What each has to do and when, `catalog_core::writer_lease`
//! says; here are its statements, and a catalog's time as a standby.
//!
//! Each writer has a term of its own, and begins every statement that changes anything by adding 1 to
//! the beat of that term: where another one has begun, the statement changes nothing. That alone
//! keeps two writers from mixing. The lease keeps a second one from beginning while the first is
//! there: it watches the beat, which goes on also where nothing is traded, and which the first has to have had
//! acknowledged to answer anything (`writer`).

use std::time::Duration;

use catalog_core::Rules;
use catalog_core::reach::SAY_INTERVAL;
use catalog_core::writer_lease::{
    Claim, Incarnation, StatementOutcome, WriterId, WriterLease, WriterStep,
};
use domain::Protocol;
use domain::time::BootTime;
use storage::StorageError;
use tokio::sync::watch;
use tokio_postgres::Client;

use super::connection::{Connection, Wanted};
use super::error::{PostgresError, of_commit};
use super::server::Server;
use super::url::StoreUrl;
use super::writer_row::{Life, read};
use super::{OpenError, callers, schema};
use crate::callers::Callers;

/// Pause after a standby lost its connection, or what it is connected to will not do.
const CONNECT_PAUSE: Duration = Duration::from_millis(200);

/// How long a host may take until it is known to be the right one, all of its tables made.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);

/// How long an answer to a look at the row may take.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);

/// Who stands by, and where.
pub(super) struct Standby<'a> {
    pub url: &'a StoreUrl,
    pub allow_unreplicated: bool,
    /// Where this catalog is reached.
    pub reached_at: &'a str,
    /// Whether to make the tables of a database that has none.
    pub new: bool,
    /// For the change of the row.
    pub time_max: Duration,
    /// For how long a beat has to stand still.
    pub lease: Duration,
    /// Who asks this catalog.
    pub callers: &'a Callers,
    pub rules: Rules,
    /// Told where the active one is reached; nothing where there is none, or it is not known.
    pub active: &'a watch::Sender<Option<String>>,
}

/// A connection that stands by.
struct Watching {
    connection: Connection,
    server: Server,
    /// The row says what its holder speaks.
    has_protocol: bool,
    /// And when the server had started.
    has_server_started: bool,
}

/// A term that was taken: nothing is loaded yet.
pub(super) struct Taken {
    pub connection: Connection,
    pub server: Server,
    pub lease: WriterLease,
    pub term: i64,
    /// As it was taken.
    pub beat: i64,
    /// What the server is to the one in which a term was healed last.
    pub life: Life,
}

impl Standby<'_> {
    /// Stands by until nobody else writes, and takes over. Only after that is anything read that is to be relied on: the
    /// change of the row is a commit, and what it waits for has everything that was committed before.
    ///
    /// # Errors
    /// Where the database cannot be used as it is first found. From then on a standby has patience: the
    /// database may be failing over.
    pub async fn take_over(self) -> Result<Taken, OpenError> {
        let me = getrandom::u64()
            .map_err(|error| StorageError::Random(std::io::Error::other(error.to_string())))?;
        let lease = WriterLease::new(WriterId(me), self.lease, BootTime::now());
        let mut lease = lease.under(self.rules);
        let mut newest = None;
        let mut watching = Some(self.connect(&mut newest).await?);
        let mut troubled = false;
        let mut life = Life::SameTimeline;
        let mut said_at = BootTime::now();
        loop {
            if let Some(wake) = lease.wake() {
                tokio::time::sleep(wake.since(BootTime::now())).await;
            }
            match lease.next(BootTime::now()) {
                None => {}
                Some(WriterStep::Look) => {
                    let looked = match self.look(&mut watching, &mut newest, &mut lease).await {
                        Ok(found) => {
                            if let Err(error) = self.say(watching.as_ref(), &mut said_at).await {
                                tracing::debug!(%error, "cannot say who asks this standby");
                                watching = None; // what is under way on it is not waited for
                            }
                            Ok(found)
                        }
                        Err(error) => Err(error),
                    };
                    match looked {
                        Ok(found) => {
                            life = found;
                            troubled = false;
                        }
                        Err(error) if lease.last_seen().is_none() => return Err(error),
                        Err(error) => {
                            self.active.send_replace(None); // as far as this one can tell
                            if !std::mem::replace(&mut troubled, true) {
                                tracing::warn!(%error, "this standby cannot look who writes: trying again");
                            }
                            watching = None;
                            tokio::time::sleep(CONNECT_PAUSE).await;
                        }
                    }
                }
                Some(WriterStep::TakeOver(claim)) => {
                    self.active.send_replace(None);
                    let outcome = match &watching {
                        Some(watching) => self.exchange(watching, claim).await?,
                        None => StatementOutcome::Failed,
                    };
                    lease.told(outcome, BootTime::now());
                    match outcome {
                        StatementOutcome::Durable | StatementOutcome::Fenced => troubled = false,
                        StatementOutcome::Failed | StatementOutcome::Unknown => {
                            // Another host may do better.
                            watching = None;
                            tokio::time::sleep(CONNECT_PAUSE).await;
                        }
                    }
                }
                Some(WriterStep::Load) => {
                    let Watching {
                        connection, server, ..
                    } = watching.expect("the take-over was acknowledged on it");
                    let fence = lease
                        .held()
                        .expect("it is told to load a term that it holds");
                    let seen = lease.last_seen().expect("nothing is claimed unseen");
                    return Ok(Taken {
                        life,
                        connection,
                        server,
                        lease,
                        term: fence.term.0.cast_signed(),
                        beat: seen.beat.cast_signed() + 1,
                    });
                }
                Some(WriterStep::StepDown(why)) => {
                    tracing::warn!(%why, "the writer's lease was not taken: standing by");
                    watching = None;
                }
                Some(WriterStep::Beat(_) | WriterStep::Release(_)) => {
                    unreachable!("it holds no term")
                }
            }
        }
    }

    /// To the server of the newest history, and none of before the newest that was seen.
    async fn connect(&self, newest: &mut Option<Server>) -> Result<Watching, OpenError> {
        let connecting = self.connect_once(newest.clone());
        let connected = tokio::time::timeout(CONNECT_TIME_MAX, connecting).await;
        let watching = connected.unwrap_or_else(|_| {
            let problem = format!("no answer within {CONNECT_TIME_MAX:?}");
            Err(StorageError::Server(problem).into())
        })?;
        *newest = Some(watching.server.clone());
        Ok(watching)
    }

    async fn connect_once(&self, seen: Option<Server>) -> Result<Watching, OpenError> {
        let wanted = Wanted::Writable {
            allow_unreplicated: self.allow_unreplicated,
            seen,
        };
        let (mut connection, server) = Connection::open(self.url, &wanted).await?;
        if schema::version(&connection.client).await?.is_none() && !self.new {
            return Err(PostgresError::NoJournal(self.url.to_string()).into()); // and leaves no trace
        }
        if !schema::is_current(&connection.client).await? {
            schema::migrate(&mut connection.client).await?;
        }
        // Where it has come later, the row is not taken, and it is connected anew.
        let has_protocol = schema::has_protocol(&connection.client).await?;
        let has_server_started = schema::has_server_started(&connection.client).await?;
        Ok(Watching {
            connection,
            server,
            has_protocol,
            has_server_started,
        })
    }

    /// Returns what the server is to the one in which a term was healed last.
    async fn look(
        &self,
        watching: &mut Option<Watching>,
        newest: &mut Option<Server>,
        lease: &mut WriterLease,
    ) -> Result<Life, OpenError> {
        let watching = match watching {
            Some(watching) => watching,
            none => none.insert(self.connect(newest).await?),
        };
        let client = &watching.connection.client;
        let reading = read(client, watching.has_server_started);
        let found = tokio::time::timeout(LOOK_TIME_MAX, reading).await;
        let late = |_| StorageError::Server(format!("no answer within {LOOK_TIME_MAX:?}"));
        let found = found.map_err(late)??;
        found.check_cluster(&watching.server)?;
        let is_first = lease.last_seen().is_none();
        lease.seen(found.row, watching.server.incarnation(), BootTime::now());
        let life = found.life(&watching.server);
        let active = found.row.holder.is_some().then_some(found.url);
        if is_first && let Some(url) = &active {
            tracing::info!(active = %url, "standing by until its beat stops");
        }
        self.active.send_if_modified(|known| {
            let is_new = *known != active;
            *known = active;
            is_new
        });
        Ok(life)
    }

    /// Says how many callers ask this catalog, now and then while some do: the active one may not be reached by them.
    async fn say(
        &self,
        watching: Option<&Watching>,
        said_at: &mut BootTime,
    ) -> Result<(), OpenError> {
        let now = BootTime::now();
        let count = self.callers.count(now);
        if count == 0 {
            *said_at = now; // those who ask next may only have lost one that is about to be taken over from
        }
        let Some(watching) = watching.filter(|_| now.since(*said_at) >= SAY_INTERVAL) else {
            return Ok(());
        };
        *said_at = now;
        let saying = callers::say(&watching.connection.client, count);
        let late = |_| StorageError::Server(format!("no answer within {LOOK_TIME_MAX:?}"));
        tokio::time::timeout(LOOK_TIME_MAX, saying)
            .await
            .map_err(late)?
    }

    /// Compares and sets: term *and* beat, since a writer that goes on changes the beat alone.
    async fn exchange(
        &self,
        watching: &Watching,
        claim: Claim,
    ) -> Result<StatementOutcome, OpenError> {
        let Watching {
            connection,
            server,
            has_protocol,
            ..
        } = watching;
        connection.take_warning(); // of before
        let (term, beat) = (claim.term.0.cast_signed(), claim.beat.cast_signed());
        let holder = holder_name(claim.next.holder);
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 6] = [
            &term,
            &beat,
            &holder,
            &self.reached_at,
            &server.system_identifier,
            &server.timeline,
        ];
        let speaks = match has_protocol {
            true => format!(", spoken = {}, spoken_term = term + 1", Protocol::NEWEST),
            false => String::new(),
        };
        let exchange = format!(
            "UPDATE writer SET term = term + 1, beat = beat + 1, holder = $3, url = $4,
                 system_identifier = $5,
                 timeline = CASE WHEN system_identifier IS NULL THEN $6 ELSE timeline END{speaks}
             WHERE term = $1 AND beat = $2 RETURNING term"
        );
        let exchanging = connection.client.query_opt(&exchange, &values);
        let exchanged = match tokio::time::timeout(self.time_max, exchanging).await {
            Ok(exchanged) => exchanged.map_err(of_commit),
            Err(_) => Err(StorageError::Ambiguous(format!(
                "the writer's row could not be taken within {:?}: does another session hold it, or does no \
                 standby answer?",
                self.time_max
            ))),
        };
        let unknown = match (exchanged, connection.take_warning()) {
            (Err(StorageError::Ambiguous(why)), _) | (Ok(_), Some(why)) => why, // it may not be on any standby
            (Ok(Some(_)), None) => return Ok(StatementOutcome::Durable),
            (Ok(None), None) => return Ok(StatementOutcome::Fenced),
            (Err(error), _) if error.is_damage() => return Err(error.into()),
            (Err(error), _) => {
                tracing::warn!(%error, "the database refuses that this catalog takes over");
                return Ok(StatementOutcome::Failed);
            }
        };
        tracing::warn!(%unknown, "nobody knows whether this catalog took over");
        Ok(StatementOutcome::Unknown)
    }
}

fn holder_name(holder: WriterId) -> String {
    format!("{:016x}", holder.0)
}

impl Server {
    /// Which life of the database it is.
    fn incarnation(&self) -> Incarnation {
        Incarnation {
            system: self.system_identifier.parse().unwrap_or_default(),
            timeline: u32::try_from(self.timeline).unwrap_or_default(),
            started_us: self.started_us,
        }
    }
}

/// The rows of this server are complete: see [`crate::store::Store::note_healed`]. The beat stays, since nobody need
/// look at the row anew.
pub(super) async fn note_healed(
    client: &Client,
    term: i64,
    server: &Server,
) -> Result<(), StorageError> {
    let refused = |error: PostgresError| StorageError::Server(error.to_string());
    let has_server_started = schema::has_server_started(client).await.map_err(refused)?;
    let Server {
        timeline,
        started_us,
        ..
    } = server;
    let noted = match has_server_started {
        true => {
            let sql = "UPDATE writer SET timeline = $2, server_started = $3 WHERE term = $1";
            client.execute(sql, &[&term, timeline, started_us]).await
        }
        false => {
            let sql = "UPDATE writer SET timeline = $2 WHERE term = $1";
            client.execute(sql, &[&term, timeline]).await
        }
    };
    noted.map(drop).map_err(of_commit)
}

/// Lets go of it, so that the next writer need not watch the beat.
pub(super) async fn release(client: &Client, term: i64) -> Result<(), StorageError> {
    let sql = "UPDATE writer SET beat = beat + 1, holder = '', url = '' WHERE term = $1";
    let released = client.execute(sql, &[&term]).await;
    released.map(drop).map_err(of_commit)
}
