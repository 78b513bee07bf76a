//! Archives that are not as they were written, and what of it is damage.

use super::*;

#[test]
fn a_file_that_is_missing_or_was_changed_is_damage_to_who_reads_it() {
    type Change = fn(&Path);
    let changes: [Change; 4] = [
        |file| fs::remove_file(file).unwrap(),
        |file| fs::write(file, []).unwrap(),
        |file| {
            let changed = Connection::open(file).unwrap();
            let sql = "UPDATE journal SET price = price + 1 WHERE number = 63";
            changed.execute(sql, []).unwrap();
        },
        |file| {
            let changed = Connection::open(file).unwrap();
            changed
                .execute("DELETE FROM journal WHERE number = 63", [])
                .unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::on_disk(dir.path());
        ledger.grow(400).unwrap();
        let part = parts_in(&ledger.database).unwrap()[0];
        drop(ledger);
        change(&part.path(&Location::on_disk(dir.path())));
        let data_dir = DataDir::take(dir.path()).unwrap();
        let damaged = data_dir.open(KIND);
        assert!(
            damaged.as_ref().is_err_and(StorageError::is_damage),
            "{number}: {damaged:?}"
        );
    }
    // What is not at an end is seen by who reads it.
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.grow(400).unwrap();
    let part = parts_in(&ledger.database).unwrap()[0];
    let changed = Connection::open(part.path(&Location::on_disk(dir.path()))).unwrap();
    let sql = "UPDATE journal SET price = 1 WHERE number = 30";
    changed.execute(sql, []).unwrap();
    assert!(
        rows::find_key(&ledger.database, &key(30))
            .unwrap_err()
            .is_damage()
    );
    assert!(
        rows::read(&ledger.database, RowNumber(30), 1)
            .unwrap_err()
            .is_damage()
    );
    let damaged = rows::check(&ledger.database, ledger.end, |_| true);
    assert!(damaged.unwrap_err().is_damage());
}

#[test]
fn a_filter_of_keys_that_is_missing_or_none_is_made_anew_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.grow(500).unwrap();
    let parts = parts_in(&ledger.database).unwrap();
    let location = Location::on_disk(dir.path());
    let paths = [0, 1].map(|place: usize| parts[place].keys_path(&location));
    let as_made = paths.each_ref().map(|path| fs::read(path).unwrap());
    drop(ledger);
    // As who takes a backup has it: another name of the same file.
    let elsewhere = dir.path().join("elsewhere");
    fs::remove_file(&paths[0]).unwrap();
    fs::write(&paths[1], "nonsense").unwrap();
    fs::hard_link(&paths[1], &elsewhere).unwrap();
    let left_by_a_crash = paths[0].with_extension("keys.new");
    fs::write(&left_by_a_crash, "half").unwrap();
    let ledger = Ledger::on_disk(dir.path());
    ledger.verify();
    for (path, as_made) in paths.iter().zip(as_made) {
        assert!(fs::read(path).unwrap() == as_made, "{}", path.display());
    }
    assert_eq!(fs::read(elsewhere).unwrap(), b"nonsense");
    assert!(!left_by_a_crash.exists());
}

#[test]
fn an_archive_without_its_database_is_damage_and_is_set_aside_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.grow(400).unwrap();
    drop(ledger);
    for suffix in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(dir.path().join(format!("{}{suffix}", KIND.file)));
    }
    let data_dir = DataDir::take(dir.path()).unwrap();
    let damaged = data_dir.open(KIND).unwrap_err();
    assert!(damaged.to_string().contains("archive"), "{damaged}");
    data_dir.set_aside(KIND).unwrap();
    assert!(!dir.path().join(DIR).exists());
    assert!(dir.path().join("archive.damaged-1").exists());
    drop(data_dir.open(KIND).unwrap());
}

#[test]
fn a_file_with_rows_that_the_database_has_not_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.grow(800).unwrap();
    let archive = dir.path().join(DIR);
    let (later, left) = (
        "000000009000-000000009063.db",
        "000000000000-000000000063.db",
    );
    for name in [later, "notes.txt", left] {
        fs::write(archive.join(name), b"x").unwrap();
    }
    // Until files are merged nothing is looked for.
    ledger.grow(1_400).unwrap();
    assert!(archive.join(later).exists() && archive.join("notes.txt").exists());
    assert!(!archive.join(left).exists());
    // It would be taken for a leftover once there are as many rows. And what is left goes without an archiver.
    fs::write(archive.join(left), b"x").unwrap();
    drop(ledger);
    let ledger = Ledger::on_disk(dir.path());
    assert!(!archive.join(later).exists() && archive.join("notes.txt").exists());
    assert!(dir.path().join("archive.other-1").join(later).exists());
    assert!(!archive.join(left).exists());
    ledger.verify();
}

#[test]
fn a_new_file_that_is_not_read_as_it_was_written_is_made_again_and_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.commit(320).unwrap();
    let archive = dir.path().join(DIR);
    let mut calls = 0;
    let refused = ledger.archiver.step(&mut |_| {
        calls += 1;
        // Rows, index, and rows again.
        if calls == 3 {
            let entries = fs::read_dir(&archive).unwrap().flatten();
            let mut files = entries.map(|entry| entry.path());
            let file = files.find(|path| path.extension().is_some_and(|it| it == "db"));
            let changed = Connection::open(file.unwrap()).unwrap();
            let sql = "DELETE FROM key WHERE number = 5";
            assert_eq!(changed.execute(sql, []).unwrap(), 1);
        }
        Ok(())
    });
    let refused = refused.unwrap_err();
    assert!(!refused.is_damage(), "{refused}");
    assert_eq!(fs::read_dir(&archive).unwrap().count(), 0);
    ledger.grow(600).unwrap();
    ledger.verify();
}

#[test]
fn what_a_later_release_made_is_not_taken_for_damage() {
    let dir = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::on_disk(dir.path());
    ledger.grow(400).unwrap();
    let part = parts_in(&ledger.database).unwrap()[0];
    drop(ledger);
    let version = |path: &Path| -> u64 {
        let connection = Connection::open(path).unwrap();
        let version = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        version.unwrap()
    };
    let set = |path: &Path, version: u64| {
        let connection = Connection::open(path).unwrap();
        connection
            .pragma_update(None, "user_version", version)
            .unwrap();
    };
    let opened = || DataDir::take(dir.path()).unwrap().open(KIND);
    let (database, file) = (
        dir.path().join(KIND.file),
        part.path(&Location::on_disk(dir.path())),
    );
    // So a release from before archives takes it for a later one's.
    let archived = version(&database);
    assert!(archived > KIND.version() as u64 + 100, "{archived}");
    set(&file, 2);
    let newer = opened().unwrap_err();
    assert!(matches!(newer, StorageError::Newer { .. }), "{newer}");
    set(&file, 1);
    opened().unwrap();
    Connection::open(&database)
        .unwrap()
        .execute_batch("CREATE TABLE later (x INTEGER) STRICT")
        .unwrap();
    let damaged = opened().unwrap_err();
    assert!(damaged.is_damage(), "{damaged}");
    set(&database, archived + 1);
    let newer = opened().unwrap_err();
    assert!(matches!(newer, StorageError::Newer { .. }), "{newer}");
}
