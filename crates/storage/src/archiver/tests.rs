mod damage;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use domain::{
    Entry, Epoch, IdempotencyKey, Note, Order, OrderNumber, Price, Quantity, Row, Side,
    StockChange, StockChangeKind, StockName,
};
use rusqlite::Connection;
use simulated_disk::file::Loss;
use simulated_disk::{Death, Disk, Faults};

use super::*;
use crate::archive::{READER_OPEN_MAX, is_begun, rows_in};
use crate::database;
use crate::location::Vfs;
use crate::shedding::Shedding;

const KIND: Kind = Kind {
    name: "test",
    file: "test.db",
    application_id: 7,
    schema: &[rows::SCHEMA],
    added: &[rows::STOCK_CHANGES],
    gated: &[],
};

static VFS: Vfs = Vfs {
    name: simulated_disk::NAME,
    rewrite: simulated_disk::rewrite,
    remove: simulated_disk::remove,
    list: simulated_disk::list,
};

/// How many rows stay; 64 are archived together.
const KEPT: u64 = 100;

fn key(number: u64) -> IdempotencyKey {
    // In no order.
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    IdempotencyKey::new(&format!("{scattered:016x}")).unwrap()
}

/// The row behind a ledger's end: every tenth changes a stock.
fn row(end: &LedgerEnd) -> Row {
    let (name, price) = (
        StockName::new("nvidia").unwrap(),
        Price::from_minor(24063).unwrap(),
    );
    let key = key(end.rows.0);
    let entry: Entry = match end.rows.0 % 10 {
        3 => Entry::StockChange(StockChange {
            key,
            name,
            kind: StockChangeKind::Price { price },
            note: Note::new("somebody", "because"),
        }),
        _ => Entry::Order(Order {
            key,
            name,
            side: Side::Buy,
            quantity: Quantity::new(end.rows.0 + 1).unwrap(),
        }),
    };
    Row::following(end, Epoch(3), entry, price)
}

/// A database that is written to, and its archiver.
struct Ledger {
    database: Database,
    shedding: Shedding,
    archiver: Archiver,
    end: LedgerEnd,
    _data_dir: DataDir,
}

impl Ledger {
    fn open(data_dir: DataDir) -> Result<Self, StorageError> {
        let database = data_dir.open(KIND)?;
        let shedding = Shedding::of(&database)?;
        Ok(Self {
            archiver: Archiver::new(&data_dir, KIND, shedding.offers(), KEPT)?,
            end: rows::end(&database)?,
            database,
            shedding,
            _data_dir: data_dir,
        })
    }

    fn on_disk(dir: &Path) -> Self {
        Self::open(DataDir::take(dir).unwrap()).unwrap()
    }

    fn simulated(disk: &Disk) -> Result<Self, StorageError> {
        Self::open(DataDir::simulated(&disk.path(), &VFS))
    }

    fn commit(&mut self, count: usize) -> Result<(), StorageError> {
        let mut end = self.end;
        let new: Vec<Row> = std::iter::repeat_with(|| {
            let row = row(&end);
            end = LedgerEnd::of(&row);
            row
        })
        .take(count)
        .collect();
        let transaction = self.database.transaction()?;
        rows::insert(&transaction, &new)?;
        let shed = self.shedding.shed(&transaction, count)?;
        crate::error::commit(transaction)?;
        self.shedding.committed(shed, &self.database);
        self.end = end;
        Ok(())
    }

    fn step(&mut self) -> Result<Progress, StorageError> {
        self.archiver.step(&mut |_| Ok(()))
    }

    /// Commits and archives until it has so many rows.
    fn grow(&mut self, rows: u64) -> Result<(), StorageError> {
        while self.end.rows.0 < rows {
            self.commit((rows - self.end.rows.0).min(16) as usize)?;
            self.step()?;
        }
        Ok(())
    }

    fn rows_in_table(&self) -> u64 {
        let sql = "SELECT count(*) FROM journal";
        self.database.query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// All that was committed is there, however it is asked for.
    fn verify(&self) {
        let count = self.end.rows.0;
        let all = rows::read(&self.database, RowNumber(0), usize::MAX).unwrap();
        let mut end = LedgerEnd::default();
        let mut orders = 0;
        for found in &all {
            let expected = row(&end);
            assert_eq!(*found, expected);
            end = LedgerEnd::of(found);
            let by_key = rows::find_key(&self.database, expected.entry.key()).unwrap();
            assert_eq!(by_key.as_ref(), Some(&expected));
            if found.order().is_some() {
                orders += 1;
            }
            if found.order().is_some() && orders % 29 == 1 {
                let order = rows::find_order(&self.database, OrderNumber(orders - 1)).unwrap();
                assert_eq!(order.as_ref(), Some(&expected));
            }
        }
        assert_eq!(end, self.end);
        assert_eq!(rows::find_key(&self.database, &key(count)).unwrap(), None);
        for from in (0..count + 2).step_by(61) {
            let few = rows::read(&self.database, RowNumber(from), 70).unwrap();
            let expected = all.iter().skip(from as usize).take(70);
            assert!(few.iter().eq(expected), "from {from}");
        }
    }
}

#[test]
fn rows_are_found_in_whatever_file_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    // It has read which files count when there was none.
    let reader = database::open_read_only(&Location::on_disk(dir.path()), KIND).unwrap();
    assert_eq!(rows::find_key(&reader, &key(0)).unwrap(), None);
    ledger.grow(2_000).unwrap();
    ledger.verify();
    assert!(ledger.rows_in_table() < KEPT + 3 * 64);
    let all = rows::read(&ledger.database, RowNumber(0), usize::MAX).unwrap();
    let early = rows::read(&reader, RowNumber(0), 300).unwrap();
    assert_eq!(early, all[..300]);
    // It has some of them open that are merged meanwhile, and not the others.
    ledger.grow(5_000).unwrap();
    assert_eq!(rows::read(&reader, RowNumber(0), 2_000).unwrap(), all);
    assert!(rows::find_key(&reader, &key(4_000)).unwrap().is_some());
    drop(ledger);
    let ledger = Ledger::on_disk(dir.path());
    assert_eq!(ledger.end.rows, RowNumber(5_000));
    ledger.verify();
    let files = fs::read_dir(dir.path().join(DIR)).unwrap().count();
    assert!(files <= 2 * (8 + 8 + 8), "{files}");
}

#[test]
fn a_key_whose_row_has_left_since_files_were_looked_at_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.grow(300).unwrap();
    let reader = database::open_read_only(&Location::on_disk(dir.path()), KIND).unwrap();
    assert!(rows::find_key(&reader, &key(0)).unwrap().is_some());
    // None is merged: what it knew is still there.
    let before = parts_in(&ledger.database).unwrap();
    ledger.grow(KEPT + 7 * 64).unwrap();
    let parts = parts_in(&ledger.database).unwrap();
    assert!(before.len() < parts.len() && parts.starts_with(&before));
    ledger.commit(200).unwrap();
    let last = parts.last().unwrap().end.rows.0 - 1;
    // By its key alone: nothing else makes it look again which files count.
    let found = rows::find_key(&reader, &key(last)).unwrap().unwrap();
    assert_eq!(found.number, RowNumber(last));
    let end = rows::end(&reader).unwrap();
    rows::check(&reader, end, |_| true).unwrap();
}

#[test]
fn a_commit_lets_go_of_a_few_rows_and_makes_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.commit(2_000).unwrap();
    let mut before = ledger.rows_in_table();
    for _ in 0..20 {
        // Nothing of that is the writer's: rows stay until it commits.
        ledger.step().unwrap();
        assert_eq!(ledger.rows_in_table(), before);
        for added in [1, 5, 0] {
            ledger.commit(added).unwrap();
            let after = ledger.rows_in_table();
            let left = before + added as u64 - after;
            assert!(left <= 2 * added as u64 + 8, "{left} for {added}");
            before = after;
        }
    }
    assert!(before < 2_000);
    ledger.verify();
}

#[test]
fn what_was_never_archived_has_the_tables_of_before() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.grow(KEPT + 63).unwrap();
    assert!(!is_begun(&ledger.database).unwrap());
    assert!(!dir.path().join(DIR).exists());
    ledger.grow(KEPT + 130).unwrap();
    assert!(is_begun(&ledger.database).unwrap());
}

/// Commits, archives and merges, with a disk that dies after so many writes and syncs, then goes on without faults. Whether
/// it died.
fn survives(before: &Disk, after: u32, death: Death) -> bool {
    let disk = before.copy(u64::from(after));
    let mut ledger = Ledger::simulated(&disk).unwrap();
    disk.set_faults(Faults {
        dies_after: Some((after, death)),
        ..Faults::default()
    });
    let began = ledger.end;
    let broke = ledger.grow(660);
    let acknowledged = ledger.end;
    let died = disk.take_death().is_some();
    assert_eq!(died, broke.is_err(), "{broke:?}");
    drop(ledger);
    disk.set_faults(Faults::default());
    let mut ledger = Ledger::simulated(&disk).unwrap();
    assert!(ledger.end.rows >= acknowledged.rows && acknowledged.rows >= began.rows);
    ledger.verify();
    ledger.grow(720).unwrap();
    ledger.verify();
    let parts = parts_in(&ledger.database).unwrap();
    let merged = parts.iter().any(|part| part.rows() == 8 * 64);
    assert!(merged, "{parts:?}");
    ledger.step().unwrap();
    let listed = simulated_disk::list(&disk.path().join(DIR)).unwrap();
    assert!(listed.len() <= parts.len() + 1, "{listed:?}");
    died
}

/// Has it die after `first` writes and syncs, and after every `step` more, until it lives to the end; returns after how
/// many that is.
fn survives_all(first: u32, step: u32) -> u32 {
    let before = Disk::new(1);
    let mut ledger = Ledger::simulated(&before).unwrap();
    // The next file is the eighth.
    ledger.grow(KEPT + 7 * 64 + 32).unwrap();
    assert_eq!(parts_in(&ledger.database).unwrap().len(), 7);
    drop(ledger);
    let deaths = [
        Death::Killed,
        Death::PowerLost(Loss::Everything),
        Death::PowerLost(Loss::Some),
    ];
    let mut after = first;
    while survives(&before, after, deaths[after as usize % deaths.len()]) {
        after += step;
    }
    after
}

/// A disk belongs to its thread, so each has one that is the same.
#[test]
fn whenever_it_dies_each_row_is_somewhere_and_it_goes_on() {
    let threads = thread::available_parallelism().map_or(1, |threads| threads.get() as u32);
    thread::scope(|scope| {
        let all = (0..threads).map(|first| scope.spawn(move || survives_all(first, threads)));
        // All of them run before one is waited for.
        let all: Vec<_> = all.collect();
        for each in all {
            let after = each.join().expect("it survives");
            assert!(after > 100, "{after} writes and syncs");
        }
    });
}

#[test]
fn a_disk_that_refuses_a_file_leaves_rows_where_they_are() {
    let disk = Disk::new(2);
    let mut ledger = Ledger::simulated(&disk).unwrap();
    for _ in 0..20 {
        ledger.commit(16).unwrap();
    }
    for faults in [
        Faults {
            full: true,
            ..Faults::default()
        },
        Faults {
            next_sync_fails: true,
            ..Faults::default()
        },
        Faults {
            next_write_fails: true,
            ..Faults::default()
        },
    ] {
        disk.set_faults(faults);
        ledger.step().unwrap_err();
        disk.set_faults(Faults::default());
        let left = simulated_disk::list(&disk.path().join(DIR)).unwrap();
        assert!(left.is_empty(), "{left:?}");
        ledger.commit(1).unwrap();
        assert!(parts_in(&ledger.database).unwrap().is_empty());
        ledger.verify();
    }
    ledger.grow(600).unwrap();
    assert!(!parts_in(&ledger.database).unwrap().is_empty());
    ledger.verify();
}

#[test]
fn a_file_takes_no_room_that_commits_need_and_leaves_none_taken() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.commit(320).unwrap();
    let archive = dir.path().join(DIR);
    // None that it could begin with.
    let reserve = std::mem::replace(&mut ledger.archiver.reserve, u64::MAX);
    let refused = ledger.step().unwrap_err();
    assert!(refused.to_string().contains("make room"), "{refused}");
    assert!(!archive.exists());
    // None once it has begun.
    ledger.archiver.reserve = reserve;
    let mut steps = 0;
    let refused = ledger.archiver.step(&mut |_| {
        steps += 1;
        match steps {
            1 => Ok(()),
            _ => Err(StorageError::Stopping),
        }
    });
    refused.unwrap_err();
    assert_eq!(fs::read_dir(&archive).unwrap().count(), 0);
    ledger.grow(600).unwrap();
    ledger.verify();
}

#[test]
fn files_are_merged_while_rows_come_faster_than_they_are_archived() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.commit(200).unwrap();
    ledger.grow(800).unwrap();
    let mut files = 0;
    for _ in 0..120 {
        // It is always behind, and there are never rows enough for a larger file.
        let unarchived = ledger.end.rows.0 - rows_in(&ledger.database).unwrap().0;
        let wanted = KEPT + 4 * 64 + 70;
        ledger
            .commit(wanted.saturating_sub(unarchived) as usize + 1)
            .unwrap();
        ledger.step().unwrap();
        ledger.commit(1).unwrap();
        files = files.max(parts_in(&ledger.database).unwrap().len());
    }
    assert!((60..=66).contains(&files), "{files}");
}

#[test]
fn rows_are_archived_while_files_are_merged() {
    const ROWS_MEANWHILE: usize = 48;
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    let merged = |ledger: &Ledger| {
        let parts = parts_in(&ledger.database).unwrap();
        let merged = plan::merged_next(&parts);
        merged.is_some_and(|range| parts[range].iter().all(|part| part.rows() >= 8 * 64))
    };
    loop {
        ledger.commit(16).unwrap();
        if merged(&ledger) {
            break;
        }
        ledger.step().unwrap();
    }
    let before = ledger.end.rows.0;
    let mut waiting = 0;
    let location = Location::on_disk(dir.path());
    let offers = ledger.shedding.offers();
    let mut archiver = Archiver::new(&ledger._data_dir, KIND, offers, KEPT).unwrap();
    let made = archiver.step(&mut |_| {
        // As many rows come as while files many times as large are merged.
        ledger.commit(ROWS_MEANWHILE)?;
        let archived = rows_in(&ledger.database)?;
        waiting = waiting.max(ledger.end.rows.0 - archived.0);
        Ok(())
    });
    let Ok(Progress::Made(part)) = made else {
        panic!("{made:?}")
    };
    assert!(part.rows() >= 64 * 64, "{part:?}");
    // Beside those that may wait come those that come while one file is made, of 64 rows or 512.
    let paces_of_a_file = 16;
    let wait_max = KEPT + 8 * 64 + paces_of_a_file * ROWS_MEANWHILE as u64;
    assert!(
        waiting <= wait_max,
        "{waiting} of {}",
        ledger.end.rows.0 - before
    );
    assert!(ledger.end.rows.0 - before > 3 * wait_max, "{wait_max}");
    ledger.commit(1).unwrap();
    ledger.commit(1).unwrap();
    let parts = parts_in(&ledger.database).unwrap();
    assert!(parts.contains(&part), "{parts:?}");
    drop(archiver);
    for offered in &parts {
        assert!(offered.path(&location).exists());
    }
    ledger.grow(ledger.end.rows.0 + 700).unwrap();
    ledger.verify();
}

#[test]
fn who_takes_a_directory_finds_no_archiver_of_before_at_work() {
    let dir = tempfile::tempdir().unwrap();
    let Ledger {
        archiver,
        database,
        _data_dir: data_dir,
        ..
    } = Ledger::on_disk(dir.path());
    let (reporter, _receiver) = crate::damage::channel();
    let archiving = archiver.start(reporter);
    drop((database, data_dir));
    DataDir::take(dir.path()).unwrap_err();
    drop(archiving);
    DataDir::take(dir.path()).unwrap();
}

#[test]
fn a_stop_throws_a_half_made_file_away() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    for _ in 0..20 {
        ledger.commit(16).unwrap();
    }
    let stopped = ledger.archiver.step(&mut |_| Err(StorageError::Stopping));
    assert!(
        matches!(stopped, Err(StorageError::Stopping)),
        "{stopped:?}"
    );
    assert_eq!(ledger.shedding.offers().look(), None);
    assert_eq!(fs::read_dir(dir.path().join(DIR)).unwrap().count(), 0);
    ledger.grow(600).unwrap();
    ledger.verify();
}

#[test]
fn an_archive_is_its_users_alone_like_the_rest() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    Ledger::on_disk(dir.path()).grow(300).unwrap();
    let mode = fs::metadata(dir.path().join(DIR)).unwrap().permissions();
    assert_eq!(mode.mode() & 0o777, 0o700);
}

#[test]
fn a_writer_keeps_files_open_and_nobody_those_that_were_merged() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.grow(KEPT + 7 * 64).unwrap();
    let reader = database::open_read_only(&Location::on_disk(dir.path()), KIND).unwrap();
    for number in 0..400 {
        for database in [&ledger.database, &reader] {
            rows::find_key(database, &key(number)).unwrap().unwrap();
        }
    }
    let open = |database: &Database| -> Vec<Part> { database.archive().open_parts() };
    assert!(open(&ledger.database).len() > 5);
    assert!((2..=READER_OPEN_MAX).contains(&open(&reader).len()));
    ledger.grow(KEPT + 10 * 64).unwrap();
    let parts = parts_in(&ledger.database).unwrap();
    assert!(parts[0].rows() >= 8 * 64, "{parts:?}");
    for database in [&ledger.database, &reader] {
        rows::find_key(database, &key(u64::MAX)).unwrap();
        let open = open(database);
        assert!(open.iter().all(|part| parts.contains(part)), "{open:?}");
    }
}

#[test]
fn a_log_stays_short_while_somebody_always_reads() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::take(dir.path()).unwrap();
    let mut bound = data_dir.log_bound(KIND);
    bound.bytes_max = 1 << 20;
    let mut ledger = Ledger::open(data_dir).unwrap();
    ledger.commit(500).unwrap();
    let log = dir.path().join("test.db-wal");
    let (is_over, mut bytes, mut longest, mut begun) = (AtomicBool::new(false), 0, 0, 0);
    std::thread::scope(|scope| {
        // Each streams the journal, and somebody reads at any moment.
        let readers = [0; 3].map(|_| {
            scope.spawn(|| {
                let location = Location::on_disk(dir.path());
                let reader = database::open_read_only(&location, KIND).unwrap();
                let (mut next, mut streamed) = (0, 0);
                while !is_over.load(Ordering::Relaxed) {
                    let rows = rows::read(&reader, RowNumber(next), 300).unwrap();
                    streamed += rows.len();
                    next = rows.last().map_or(0, |row| row.number.0 + 1);
                }
                streamed
            })
        });
        // How long that takes is for the machine to say: without the bound it is never.
        while begun < 4 && longest < 512 << 20 {
            ledger.commit(200).unwrap();
            bound.keep(&ledger.database);
            let before = std::mem::replace(&mut bytes, fs::metadata(&log).unwrap().len());
            longest = longest.max(bytes);
            begun += u32::from(bytes < before);
        }
        is_over.store(true, Ordering::Relaxed);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
    assert!(begun >= 4, "{begun}: {longest}");
}

/// Prints what an archive costs: `cargo test --release -p storage -- --ignored --nocapture archive_costs`.
#[test]
#[ignore = "a measurement"]
fn what_an_archive_costs() {
    const ROWS: u64 = 400_000;
    const LOOKUPS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    let offers = ledger.shedding.offers();
    ledger.archiver = Archiver::new(&ledger._data_dir, KIND, offers, 40_000).unwrap();
    let mut archiving = std::time::Duration::ZERO;
    while ledger.end.rows.0 < ROWS {
        ledger.commit(500).unwrap();
        let began = std::time::Instant::now();
        ledger.step().unwrap();
        archiving += began.elapsed();
    }
    let per_lookup = |from: u64| {
        let began = std::time::Instant::now();
        for number in from..from + LOOKUPS {
            rows::find_key(&ledger.database, &key(number)).unwrap();
        }
        began.elapsed() / LOOKUPS as u32
    };
    let (new, archived) = (per_lookup(ROWS), per_lookup(0));
    let reader = database::open_read_only(&Location::on_disk(dir.path()), KIND).unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let began = std::time::Instant::now();
    for _ in 0..LOOKUPS {
        let number = RowNumber(random.u64(..ROWS));
        assert_eq!(rows::read(&reader, number, 1).unwrap().len(), 1);
    }
    let anywhere = began.elapsed() / LOOKUPS as u32;
    let parts = parts_in(&ledger.database).unwrap();
    let rows = parts.last().unwrap().end.rows.0;
    let bytes = |suffix: &str| -> u64 {
        let entries = fs::read_dir(dir.path().join(DIR)).unwrap();
        let found = entries.map(|entry| entry.unwrap());
        let named = found.filter(|entry| entry.file_name().to_string_lossy().ends_with(suffix));
        named.map(|entry| entry.metadata().unwrap().len()).sum()
    };
    println!(
        "{rows} rows in {} files, {} and {} bytes a row; {archiving:?} to make them; a new key {new:?}, an archived one {archived:?}; any row {anywhere:?}",
        parts.len(),
        bytes(".db") as f64 / rows as f64,
        bytes(".keys") as f64 / rows as f64,
    );
}
