//! What SQLite promises holds on the disk, and what it does not promise does not.

use rusqlite::{Connection, ErrorCode, OpenFlags};

use crate::file::Loss;
use crate::{Death, Disk, Faults, NAME};

fn open(disk: &Disk) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::default();
    let connection = Connection::open_with_flags_and_vfs(disk.path().join("test.db"), flags, NAME)?;
    // Before there is a write-ahead log: what switches to it is committed by a deletion.
    connection.pragma_update(None, "synchronous", "EXTRA")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.execute_batch("CREATE TABLE IF NOT EXISTS t (x INTEGER PRIMARY KEY, y TEXT)")?;
    Ok(connection)
}

fn insert(connection: &Connection, x: u64) -> rusqlite::Result<usize> {
    connection.execute("INSERT INTO t VALUES (?, ?)", (x, "y".repeat(300)))
}

fn count(connection: &Connection) -> u64 {
    let check: String = connection
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .unwrap();
    assert_eq!(check, "ok");
    let sql = "SELECT count(*) FROM t";
    connection.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[test]
fn what_is_committed_survives_every_death_and_what_is_not_is_all_or_nothing() {
    let losses = [Loss::Everything, Loss::Some, Loss::Nothing].map(Death::PowerLost);
    let deaths: Vec<Death> = losses.into_iter().chain([Death::Killed]).collect();
    let mut unfinished = [0, 0];
    for seed in 0..64 {
        let disk = Disk::new(seed);
        let death = deaths[seed as usize % deaths.len()];
        let mut committed = 0;
        // Long enough that some runs die in a checkpoint, which starts after 1000 pages.
        for after in [7, 150 * seed as u32, 13 * seed as u32] {
            let Ok(connection) = open(&disk) else {
                panic!("seed {seed}: nothing is wrong with the disk yet")
            };
            let found = count(&connection);
            assert!(
                found == committed || found == committed + 1,
                "seed {seed}: {found} rows for {committed}"
            );
            unfinished[(found - committed) as usize] += 1;
            committed = found;
            disk.set_faults(Faults {
                dies_after: Some((after, death)),
                ..Faults::default()
            });
            while committed < 2500 && insert(&connection, committed).is_ok() {
                committed += 1;
            }
            assert!(committed == 2500 || disk.take_death() == Some(death));
            disk.die(death);
            disk.take_death();
        }
        let found = count(&open(&disk).unwrap());
        assert!(found == committed || found == committed + 1, "seed {seed}");
    }
    assert!(unfinished.iter().all(|&count| count > 5), "{unfinished:?}");
}

#[test]
fn a_lying_disk_loses_what_was_committed() {
    let disk = Disk::new(1);
    disk.set_faults(Faults {
        lies: true,
        ..Faults::default()
    });
    let connection = open(&disk).unwrap();
    insert(&connection, 1).unwrap();
    disk.die(Death::PowerLost(Loss::Everything));
    drop(connection);
    assert_eq!(count(&open(&disk).unwrap()), 0);
}

#[test]
fn a_full_disk_refuses_and_may_have_room_again() {
    let disk = Disk::new(1);
    let connection = open(&disk).unwrap();
    insert(&connection, 1).unwrap();
    let full = Faults {
        full: true,
        ..Faults::default()
    };
    disk.set_faults(full);
    let refused = insert(&connection, 2).unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(ErrorCode::DiskFull));
    disk.set_faults(Faults::default());
    insert(&connection, 2).unwrap();
    assert_eq!(count(&connection), 2);
}

#[test]
fn what_a_failed_sync_left_is_seen_and_never_durable() {
    let disk = Disk::new(1);
    let connection = open(&disk).unwrap();
    insert(&connection, 1).unwrap();
    disk.set_faults(Faults {
        next_sync_fails: true,
        ..Faults::default()
    });
    let failed = insert(&connection, 2).unwrap_err();
    assert_eq!(failed.sqlite_error_code(), Some(ErrorCode::SystemIoFailure));
    disk.die(Death::Killed);
    drop(connection);
    assert_eq!(count(&open(&disk).unwrap()), 2, "the page cache has it");
    disk.die(Death::PowerLost(Loss::Everything));
    assert_eq!(count(&open(&disk).unwrap()), 1);
}

#[test]
fn readers_see_what_is_committed_beside_a_writer() {
    let disk = Disk::new(1);
    let writer = open(&disk).unwrap();
    let reader = open(&disk).unwrap();
    for x in 0..2000 {
        insert(&writer, x).unwrap();
        if x % 100 == 0 {
            assert_eq!(count(&reader), x + 1);
        }
    }
    drop(reader);
    insert(&writer, 2000).unwrap();
    drop(writer);
    assert_eq!(count(&open(&disk).unwrap()), 2001);
    assert_eq!(count(&open(&disk.worst()).unwrap()), 2001);
}
