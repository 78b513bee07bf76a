//! The tables of a catalog, and what its statements make of them.
//!
//! A statement is known by words that no other one has. What it does is what PostgreSQL makes of it, in one
//! transaction: all of it or nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::values::{Given, boolean, bytes, int4, int8, int8s, text};
use super::wire::{BOOL, BYTEA, BYTEAS, INT4, INT8, INT8S, Oid, Refusal, TEXT, TEXTS, Value};

/// How many scripts have made the tables.
const SCRIPTS: i32 = catalog::store::postgres::SCHEMA_VERSION as i32;

/// A statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sql {
    // They read.
    HasMigrations,
    LastMigration,
    Server,
    Writer,
    JournalId,
    Identity,
    Protocol,
    Leadership,
    Stocks,
    Listings,
    Rows,
    LastRow,
    LastRefused,
    Limits,
    RowsOfKeys,
    RefusedOfKeys,
    // They change something: each begins with the writer's row.
    TakeOver,
    Commit,
    Beat,
    Release,
    NoteHealed,
    // Of the transaction that begins a journal.
    Lock,
    LockMigration,
    NewestMigration,
    Fence,
    InsertStocks,
    InsertListings,
    InsertIdentity,
    InsertLeadership,
    RaiseProtocol,
}

/// Of each statement the words that no other one has; of several that fit, the first.
const WORDS: [(Sql, &str); 30] = [
    (Sql::HasMigrations, "information_schema.tables"),
    (
        Sql::LastMigration,
        "coalesce(max(number), 0) FROM migration",
    ),
    (Sql::Server, "current_setting('server_version_num')"),
    (Sql::Rows, "FROM writer LEFT JOIN"),
    (Sql::Writer, "SELECT term, beat, holder"),
    (Sql::Protocol, "SELECT protocol FROM writer"),
    (Sql::JournalId, "SELECT journal FROM identity"),
    (Sql::Identity, "SELECT journal, checksum FROM identity"),
    (Sql::Commit, "WITH fence AS"),
    (Sql::Leadership, "FROM leadership"),
    (Sql::Stocks, "volume, version FROM stock"),
    (Sql::InsertListings, "INSERT INTO listing"),
    (Sql::Listings, "FROM listing"),
    (Sql::LastRow, "SELECT max(number) FROM journal"),
    (Sql::LastRefused, "max(id), 0) FROM refused"),
    (Sql::Limits, "FROM limits"),
    (Sql::RowsOfKeys, "LEFT JOIN journal AS before"),
    (Sql::RefusedOfKeys, "FROM refused WHERE key = ANY"),
    (Sql::TakeOver, "SET term = term + 1"),
    (Sql::Beat, "AND beat = $2"),
    (Sql::Release, "holder = ''"),
    (Sql::NoteHealed, "SET timeline = $2"),
    (Sql::Lock, "LOCK TABLE writer"),
    (Sql::LockMigration, "number = 0 FOR UPDATE"),
    (Sql::NewestMigration, "SELECT max(number) FROM migration"),
    (Sql::Fence, "SET beat = beat + 1 WHERE term = $1"),
    (Sql::InsertStocks, "INSERT INTO stock SELECT"),
    (Sql::InsertIdentity, "INSERT INTO identity"),
    (Sql::InsertLeadership, "INSERT INTO leadership"),
    (Sql::RaiseProtocol, "SET protocol = greatest"),
];

const OF_ROW: [Oid; 10] = [INT8, INT8, TEXT, TEXT, TEXT, INT8, INT8, BYTEA, INT8, TEXT];

impl Sql {
    pub fn of(sql: &str) -> Self {
        let known = WORDS.iter().find(|(_, words)| sql.contains(words));
        let known = known.unwrap_or_else(|| panic!("no simulated server knows {sql}"));
        known.0
    }

    /// Whether it waits for the writer's row.
    pub fn writes(self) -> bool {
        matches!(
            self,
            Self::TakeOver
                | Self::Commit
                | Self::Beat
                | Self::Release
                | Self::NoteHealed
                | Self::Lock
        )
    }

    /// What it takes, where its client does not say.
    pub fn parameters(self) -> Vec<Oid> {
        match self {
            Self::Rows => vec![INT8, INT8],
            Self::RowsOfKeys | Self::RefusedOfKeys => vec![TEXTS],
            Self::TakeOver => vec![INT8, INT8, TEXT, TEXT, TEXT, INT8],
            Self::Beat | Self::RaiseProtocol => vec![INT8, INT8],
            Self::NoteHealed => vec![INT8, INT8, INT8],
            Self::Release | Self::Fence | Self::Limits => vec![INT8],
            Self::InsertStocks => vec![TEXTS, INT8S, INT8S],
            Self::InsertIdentity => vec![BYTEA, BYTEA],
            Self::InsertLeadership => vec![BYTEA],
            Self::Commit => commit_parameters(),
            _ => Vec::new(),
        }
    }

    /// What it gives.
    pub fn columns(self) -> Vec<Oid> {
        match self {
            Self::HasMigrations | Self::LastRow | Self::LastRefused | Self::Protocol => vec![INT8],
            Self::LastMigration | Self::LockMigration | Self::NewestMigration => vec![INT4],
            Self::Server => vec![
                INT8, TEXT, TEXT, TEXT, BOOL, INT8, INT8, TEXT, INT8, TEXT, INT8,
            ],
            Self::Writer => vec![INT8, INT8, TEXT, TEXT, TEXT, INT8, INT8],
            Self::JournalId | Self::Limits => vec![BYTEA],
            Self::Identity => vec![BYTEA, BYTEA],
            Self::Leadership => vec![INT8, INT8, INT8, INT8S, BYTEA],
            Self::Stocks => vec![TEXT, INT8, INT8, INT8, INT8],
            Self::Listings => vec![TEXT, INT8, INT8],
            Self::Rows => [vec![INT8], OF_ROW.to_vec()].concat(),
            Self::RowsOfKeys => [OF_ROW.to_vec(), vec![BYTEA]].concat(),
            Self::RefusedOfKeys => {
                vec![TEXT, TEXT, TEXT, INT8, TEXT, BYTEA, TEXT, TEXT, INT8]
            }
            Self::TakeOver => vec![INT8],
            Self::Commit => vec![BOOL, BOOL, BOOL, INT4],
            Self::Beat => vec![BOOL, BOOL, BOOL],
            _ => Vec::new(),
        }
    }
}

/// As `write.rs` has them.
fn commit_parameters() -> Vec<Oid> {
    let mut oids = vec![INT8S; 39];
    for place in [1, 17, 27] {
        oids[place - 1] = INT8;
    }
    for place in [4, 5, 6, 11, 12, 13, 15, 18, 29, 30, 31, 33, 38, 39] {
        oids[place - 1] = TEXTS;
    }
    for place in [9, 16, 26] {
        oids[place - 1] = BYTEAS;
    }
    oids
}

/// The row of the table `writer`.
#[derive(Debug, Clone, Default)]
pub struct WriterRow {
    pub term: i64,
    pub beat: i64,
    pub holder: String,
    url: String,
    system_identifier: Option<String>,
    timeline: Option<i64>,
    server_started: Option<i64>,
    protocol: i64,
}

/// What becomes durable together, but for rows that are only ever added.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub writer: WriterRow,
    identity: Option<(Vec<u8>, Vec<u8>)>,
    /// Price, quantity, volume, version.
    pub stocks: BTreeMap<String, [i64; 4]>,
    listings: Vec<(String, i64, i64)>,
    leadership: Option<LeadershipRow>,
    /// How many rows there are.
    pub rows: usize,
    refused: usize,
}

/// The row of the table `leadership`.
#[derive(Debug, Clone, Default)]
struct LeadershipRow {
    /// Epoch, leader, change.
    numbers: [i64; 3],
    in_sync: Vec<i64>,
    checksum: Vec<u8>,
}

/// A row of the journal.
#[derive(Debug, Clone)]
pub struct JournalRow {
    key: String,
    pub chain: Vec<u8>,
    values: Vec<Value>,
}

/// An order that was refused.
#[derive(Debug, Clone)]
struct RefusedRow {
    key: String,
    id: i64,
    values: Vec<Value>,
}

/// All that a server has on its disk, as it became durable: one snapshot after the other.
#[derive(Debug, Clone)]
pub struct Log {
    snapshots: Vec<Snapshot>,
    rows: Vec<JournalRow>,
    refused: Vec<RefusedRow>,
}

/// What a transaction would make durable.
#[derive(Debug, Clone)]
pub struct Work {
    pub snapshot: Snapshot,
    rows: Vec<JournalRow>,
    refused: Vec<RefusedRow>,
}

/// A server, as its statements see it.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub timeline: i64,
    pub started_us: i64,
    /// How many standbys are connected.
    pub standbys: i64,
    /// Statements are let through whosever term it is.
    pub has_no_fence: bool,
}

const SYSTEM: &str = "7000000000000000001";

const DIVISION_BY_ZERO: Refusal = Refusal {
    severity: "ERROR",
    code: "22012",
    message: "division by zero",
};

const UNIQUE_VIOLATION: Refusal = Refusal {
    severity: "ERROR",
    code: "23505",
    message: "duplicate key value violates unique constraint",
};

pub type Rows = Vec<Vec<Value>>;

impl Log {
    /// Tables that are made, without a journal.
    pub fn new() -> Self {
        let mut first = Snapshot::default();
        first.writer.protocol = 1;
        Self {
            snapshots: vec![first],
            rows: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// The place of the last commit.
    pub fn last(&self) -> usize {
        self.snapshots.len() - 1
    }

    pub fn at(&self, place: usize) -> &Snapshot {
        &self.snapshots[place]
    }

    /// The rows of the journal as of a commit.
    pub fn journal(&self, place: usize) -> &[JournalRow] {
        &self.rows[..self.snapshots[place].rows]
    }

    /// The last commit up to a place that has so many rows at most, in a journal that was begun.
    pub fn older(&self, place: usize, rows: usize) -> Option<usize> {
        let fits = |it: &usize| self.at(*it).rows <= rows && self.at(*it).identity.is_some();
        (0..=place).rev().find(fits)
    }

    pub fn work(&self) -> Work {
        Work {
            snapshot: self.at(self.last()).clone(),
            rows: Vec::new(),
            refused: Vec::new(),
        }
    }

    pub fn commit(&mut self, work: Work) {
        self.rows.extend(work.rows);
        self.refused.extend(work.refused);
        self.snapshots.push(work.snapshot);
    }

    /// Loses all commits after one.
    pub fn truncate(&mut self, place: usize) {
        self.snapshots.truncate(place + 1);
        let last = &self.snapshots[place];
        self.rows.truncate(last.rows);
        self.refused.truncate(last.refused);
    }

    /// Takes over what another one has up to a place.
    pub fn follow(&mut self, other: &Self, place: usize) {
        for next in self.last() + 1..=place {
            let before = &self.snapshots[next - 1];
            let (rows, refused) = (before.rows, before.refused);
            let snapshot = other.snapshots[next].clone();
            self.rows
                .extend_from_slice(&other.rows[rows..snapshot.rows]);
            let more = &other.refused[refused..snapshot.refused];
            self.refused.extend_from_slice(more);
            self.snapshots.push(snapshot);
        }
    }

    /// A statement that only reads, of what is visible as of a commit.
    pub fn read(&self, place: usize, sql: Sql, given: &[Value], seen: Seen) -> Rows {
        let given = Given(given);
        let now = self.at(place);
        let writer = &now.writer;
        let rows = self.journal(place);
        match sql {
            Sql::HasMigrations => vec![vec![int8(1)]],
            Sql::LastMigration | Sql::NewestMigration => vec![vec![int4(SCRIPTS)]],
            Sql::LockMigration => vec![vec![int4(0)]],
            Sql::Server => vec![vec![
                int8(150_004),
                text("on"),
                text("on"),
                text("ANY 1 (one, two, three)"),
                boolean(false),
                int8(seen.standbys),
                int8(0),
                text(SYSTEM),
                int8(seen.timeline),
                text("UTF8"),
                int8(seen.started_us),
            ]],
            Sql::Writer => vec![vec![
                int8(writer.term),
                int8(writer.beat),
                text(&writer.holder),
                text(&writer.url),
                writer.system_identifier.as_ref().and_then(text),
                writer.timeline.and_then(int8),
                writer.server_started.and_then(int8),
            ]],
            Sql::Protocol => vec![vec![int8(writer.protocol)]],
            Sql::JournalId => {
                let identity = now.identity.iter();
                identity.map(|(journal, _)| vec![bytes(journal)]).collect()
            }
            Sql::Identity => {
                let identity = now.identity.iter();
                let columns = |(journal, checksum): &(Vec<u8>, Vec<u8>)| {
                    vec![bytes(journal), bytes(checksum)]
                };
                identity.map(columns).collect()
            }
            Sql::Leadership => {
                let leadership = now.leadership.iter();
                let columns = |row: &LeadershipRow| {
                    let numbers = row.numbers.map(int8);
                    let rest = [int8s(&row.in_sync), bytes(&row.checksum)];
                    numbers.into_iter().chain(rest).collect()
                };
                leadership.map(columns).collect()
            }
            Sql::Stocks => {
                let stocks = now.stocks.iter();
                let columns = |(name, numbers): (&String, &[i64; 4])| {
                    let numbers = numbers.iter().map(|&number| int8(number));
                    [text(name)].into_iter().chain(numbers).collect()
                };
                stocks.map(columns).collect()
            }
            Sql::Listings => {
                let listings = now.listings.iter();
                let columns = |(name, price, quantity): &(String, i64, i64)| {
                    vec![text(name), int8(*price), int8(*quantity)]
                };
                listings.map(columns).collect()
            }
            Sql::Rows => {
                let (from, limit) = (given.int8(1) as usize, given.int8(2) as usize);
                let found = rows.iter().skip(from).take(limit);
                let term = [int8(writer.term)];
                let found: Rows = found
                    .map(|row| [&term, row.values.as_slice()].concat())
                    .collect();
                match found.is_empty() {
                    true => vec![[&term, [const { None }; 10].as_slice()].concat()],
                    false => found,
                }
            }
            Sql::LastRow => {
                let last = rows.len().checked_sub(1);
                vec![vec![last.and_then(|last| int8(last as i64))]]
            }
            Sql::LastRefused => {
                let last = self.refused[..now.refused].last();
                vec![vec![int8(last.map_or(0, |row| row.id))]]
            }
            Sql::Limits => Vec::new(), // its catalogs are asked for no tokens
            Sql::RowsOfKeys => {
                let keys = given.texts(1);
                let found = rows.iter().enumerate();
                let found = found.filter(|(_, row)| keys.contains(&row.key));
                let columns = |(place, row): (usize, &JournalRow)| {
                    let before = place.checked_sub(1).map(|before| &rows[before]);
                    let chain = before.and_then(|before| bytes(&before.chain));
                    [row.values.as_slice(), &[chain]].concat()
                };
                found.map(columns).collect()
            }
            Sql::RefusedOfKeys => {
                let keys = given.texts(1);
                let found = self.refused[..now.refused].iter();
                let found = found.filter(|row| keys.contains(&row.key));
                found.map(|row| row.values.clone()).collect()
            }
            other => unreachable!("{other:?} does not only read"),
        }
    }
}

impl Work {
    /// A statement that changes something. Returns its rows, and whether it changed anything.
    ///
    /// # Errors
    /// Where the server undoes its transaction.
    pub fn execute(
        &mut self,
        log: &Log,
        sql: Sql,
        given: &[Value],
        seen: Seen,
    ) -> Result<(Rows, usize), Refusal> {
        let given = Given(given);
        let writer = &mut self.snapshot.writer;
        let passes = |writer: &WriterRow, beat: Option<i64>| {
            let is_held = writer.term == given.int8(1) && beat.is_none_or(|it| it == writer.beat);
            is_held || seen.has_no_fence
        };
        let settings = || vec![boolean(true), boolean(true), boolean(true)];
        match sql {
            Sql::TakeOver => {
                if (writer.term, writer.beat) != (given.int8(1), given.int8(2)) {
                    return Ok((Vec::new(), 0));
                }
                writer.term += 1;
                writer.beat += 1;
                (writer.holder, writer.url) = (given.text(3), given.text(4));
                if writer.system_identifier.is_none() {
                    writer.timeline = Some(given.int8(6));
                }
                writer.system_identifier = Some(given.text(5));
                Ok((vec![vec![int8(writer.term)]], 1))
            }
            Sql::Beat => {
                if !passes(writer, Some(given.int8(2))) {
                    return Ok((Vec::new(), 0));
                }
                writer.beat += 1;
                Ok((vec![settings()], 1))
            }
            Sql::Release | Sql::NoteHealed | Sql::Fence => {
                if !passes(writer, None) {
                    return Ok((Vec::new(), 0));
                }
                match sql {
                    Sql::Release => {
                        writer.beat += 1;
                        (writer.holder, writer.url) = (String::new(), String::new());
                    }
                    Sql::NoteHealed => {
                        writer.timeline = Some(given.int8(2));
                        writer.server_started = Some(given.int8(3));
                    }
                    _ => writer.beat += 1,
                }
                Ok((Vec::new(), 1))
            }
            Sql::Commit => {
                if !passes(writer, Some(given.int8(27))) {
                    let mut kept_out = settings();
                    kept_out[0] = boolean(false);
                    kept_out.push(None);
                    return Ok((vec![kept_out], 0));
                }
                writer.beat += 1;
                self.add_rows(log, &given)?;
                self.add_refused(&given);
                self.change_stocks(&given)?;
                self.elect(&given)?;
                let mut done = settings();
                done.push(int4(1));
                Ok((vec![done], 1))
            }
            Sql::Lock => Ok((Vec::new(), 0)),
            Sql::InsertStocks => {
                let names = given.texts(1).into_iter();
                let prices = given.int8s(2).into_iter().zip(given.int8s(3));
                for (name, (price, quantity)) in names.zip(prices) {
                    let stock = [price, quantity, 0, 1];
                    self.snapshot.stocks.insert(name, stock);
                }
                Ok((Vec::new(), 1))
            }
            Sql::InsertListings => {
                let stocks = self.snapshot.stocks.iter();
                let listing = |(name, [price, quantity, ..]): (&String, &[i64; 4])| {
                    (name.clone(), *price, *quantity)
                };
                self.snapshot.listings = stocks.map(listing).collect();
                Ok((Vec::new(), 1))
            }
            Sql::InsertIdentity => {
                self.snapshot.identity = Some((given.bytes(1), given.bytes(2)));
                Ok((Vec::new(), 1))
            }
            Sql::InsertLeadership => {
                self.snapshot.leadership = Some(LeadershipRow {
                    checksum: given.bytes(1),
                    ..LeadershipRow::default()
                });
                Ok((Vec::new(), 1))
            }
            Sql::RaiseProtocol => {
                writer.protocol = writer.protocol.max(given.int8(1));
                Ok((Vec::new(), 1))
            }
            reads => Ok((log.read(log.last(), reads, given.0, seen), 0)),
        }
    }

    fn add_rows(&mut self, log: &Log, given: &Given<'_>) -> Result<(), Refusal> {
        let numbers = given.int8s(2);
        let (epochs, keys, names) = (given.int8s(3), given.texts(4), given.texts(5));
        let (sides, quantities, prices) = (given.texts(6), given.int8s(7), given.int8s(8));
        let (chains, counts, changes) = (given.byteas(9), given.int8s(28), given.options(29));
        let there = log.journal(log.last());
        let used: BTreeSet<&String> = there.iter().map(|row| &row.key).collect();
        for (place, &number) in numbers.iter().enumerate() {
            let key = &keys[place];
            if (number as usize) < there.len() || used.contains(key) {
                return Err(UNIQUE_VIOLATION);
            }
            assert_eq!(
                number as usize,
                there.len() + place,
                "a row follows another row, or nobody saw that one went missing"
            );
            self.rows.push(JournalRow {
                key: key.clone(),
                chain: chains[place].clone(),
                values: vec![
                    int8(number),
                    int8(epochs[place]),
                    text(key),
                    text(&names[place]),
                    text(&sides[place]),
                    int8(quantities[place]),
                    int8(prices[place]),
                    bytes(&chains[place]),
                    int8(counts[place]),
                    changes[place].clone(),
                ],
            });
        }
        self.snapshot.rows += numbers.len();
        Ok(())
    }

    fn add_refused(&mut self, given: &Given<'_>) {
        let ids = given.int8s(10);
        let (keys, names, sides) = (given.texts(11), given.texts(12), given.texts(13));
        let (quantities, refusals, checksums) =
            (given.int8s(14), given.texts(15), given.byteas(16));
        let (changes, of_stocks) = (given.options(30), given.options(31));
        for (place, &id) in ids.iter().enumerate() {
            self.refused.push(RefusedRow {
                key: keys[place].clone(),
                id,
                values: vec![
                    text(&keys[place]),
                    text(&names[place]),
                    text(&sides[place]),
                    int8(quantities[place]),
                    text(&refusals[place]),
                    bytes(&checksums[place]),
                    changes[place].clone(),
                    of_stocks[place].clone(),
                    int8(id),
                ],
            });
        }
        self.snapshot.refused += ids.len();
    }

    fn change_stocks(&mut self, given: &Given<'_>) -> Result<(), Refusal> {
        let stocks = &mut self.snapshot.stocks;
        let columns = |places: [usize; 5]| {
            let [names, numbers @ ..] = places;
            let numbers = numbers.map(|place| given.int8s(place));
            let names = given.texts(names).into_iter().enumerate();
            let of = |(place, name)| (name, [0, 1, 2, 3].map(|at: usize| numbers[at][place]));
            names.map(of).collect::<Vec<(String, [i64; 4])>>()
        };
        let is_newer = |before: &[i64; 4], after: &[i64; 4]| before[3] < after[3];
        for (name, after) in columns([18, 32, 19, 20, 21]) {
            let before = stocks.get_mut(&name).filter(|it| is_newer(it, &after));
            *before.ok_or(DIVISION_BY_ZERO)? = after;
        }
        for (name, after) in columns([33, 34, 35, 36, 37]) {
            let is_older = stocks.get(&name).is_none_or(|it| is_newer(it, &after));
            if !is_older {
                return Err(DIVISION_BY_ZERO);
            }
            stocks.insert(name, after);
        }
        for name in given.texts(38) {
            stocks.remove(&name).ok_or(DIVISION_BY_ZERO)?;
        }
        for name in given.texts(39) {
            stocks.remove(&name);
        }
        Ok(())
    }

    fn elect(&mut self, given: &Given<'_>) -> Result<(), Refusal> {
        let terms = given.int8s(22).into_iter().zip(given.int8s(23));
        let terms = terms.zip(given.int8s(24)).zip(given.byteas(26));
        for (((epoch, leader), change), checksum) in terms {
            let there = self.snapshot.leadership.as_mut();
            *there.ok_or(DIVISION_BY_ZERO)? = LeadershipRow {
                numbers: [epoch, leader, change],
                in_sync: given.int8s(25),
                checksum,
            };
        }
        Ok(())
    }
}
