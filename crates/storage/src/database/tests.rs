use super::*;

const KIND: Kind = Kind {
    name: "test",
    file: "test.db",
    application_id: 7,
    schema: &["CREATE TABLE t (x INTEGER) STRICT"],
    added: &[],
    gated: &[],
};

#[test]
fn a_data_directory_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let first = DataDir::take(dir.path()).unwrap();
    assert!(matches!(
        DataDir::take(dir.path()),
        Err(StorageError::NotTaken(_))
    ));
    drop(first);
    DataDir::take(dir.path()).unwrap();
}

#[test]
fn another_kind_of_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::take(dir.path()).unwrap();
    drop(data_dir.open(KIND).unwrap());
    drop(data_dir.open(KIND).unwrap());
    let other = Kind {
        name: "other",
        application_id: 8,
        schema: &["CREATE TABLE u (x INTEGER) STRICT"],
        ..KIND
    };
    let refused = data_dir.open(other).unwrap_err();
    assert!(matches!(refused, StorageError::Foreign { .. }));
    let message = refused.to_string();
    assert!(
        message.contains("is not a database of kind `other`;"),
        "{message}"
    );
}

#[test]
fn a_database_of_before_gets_the_tables_that_came_since() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::take(dir.path()).unwrap();
    let connection = data_dir.open(KIND).unwrap();
    connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
    drop(connection);
    let since = Kind {
        added: &["CREATE TABLE u (y INTEGER) STRICT"],
        ..KIND
    };
    drop(open_read_only(data_dir.location(), since).unwrap());
    for _ in 0..2 {
        let connection = data_dir.open(since).unwrap();
        let sql = "SELECT sum(x), (SELECT count(*) FROM u) FROM t";
        let found = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(found, Ok((3, 0)));
    }
    let refused = data_dir.open(KIND).unwrap_err();
    assert!(matches!(refused, StorageError::Newer { .. }), "{refused}");
}

#[test]
fn what_is_no_database_is_damaged_and_set_aside_it_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::take(dir.path()).unwrap();
    let file = dir.path().join(KIND.file);
    for (number, content) in [(1, &[b'x'; 4096][..]), (2, &[])] {
        fs::write(&file, content).unwrap();
        let error = data_dir.open(KIND).unwrap_err();
        assert!(error.is_damage(), "{error}");
        let aside = data_dir.set_aside(KIND).unwrap();
        assert_eq!(aside, dir.path().join(format!("test.db.damaged-{number}")));
        assert_eq!(fs::read(aside).unwrap(), content);
        drop(data_dir.open(KIND).unwrap());
    }
}

#[test]
fn a_column_that_came_since_is_added_and_is_as_in_a_new_database() {
    let since = Kind {
        added: &[
            "CREATE TABLE u (y INTEGER) STRICT",
            "ALTER TABLE t ADD COLUMN z BLOB CHECK (length(z) = 2)",
        ],
        ..KIND
    };
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::take(dir.path()).unwrap();
    let connection = data_dir.open(KIND).unwrap();
    connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
    drop(connection);
    for _ in 0..2 {
        let connection = data_dir.open(since).unwrap();
        let found = connection.query_row("SELECT x, z FROM t", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        });
        assert_eq!(found, Ok((3, None::<Vec<u8>>)));
    }
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::take(dir.path()).unwrap();
    for _ in 0..2 {
        drop(data_dir.open(since).unwrap());
    }
}

#[test]
fn what_the_release_before_does_not_know_comes_when_told_and_then_it_refuses_with_words() {
    let gated = Kind {
        gated: &["CREATE TABLE u (y INTEGER) STRICT"],
        ..KIND
    };
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::take(dir.path()).unwrap();
    let path = dir.path().join(KIND.file);
    drop(data_dir.open(KIND).unwrap());
    for _ in 0..2 {
        // Each of the two releases opens what the other one had.
        let connection = data_dir.open(gated).unwrap();
        assert!(!connection.table_exists(None, "u").unwrap());
        drop(connection);
        drop(data_dir.open(KIND).unwrap());
    }
    let mut connection = data_dir.open(gated).unwrap();
    for _ in 0..2 {
        let transaction = connection.transaction().unwrap();
        add_gated(&transaction, &path, gated).unwrap();
        transaction.commit().unwrap();
        assert!(connection.table_exists(None, "u").unwrap());
    }
    drop(connection);
    let refusals = [
        data_dir.open(KIND).unwrap_err(),
        open_read_only(data_dir.location(), KIND).unwrap_err(),
    ];
    for refused in refusals {
        assert!(!refused.is_damage(), "{refused}");
        let message = refused.to_string();
        let expected = "has tables of version 2, of a later release; this one knows 1: ";
        assert!(message.contains(expected), "{message}");
    }
    drop(data_dir.open(gated).unwrap());
}

#[test]
fn a_log_without_its_database_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::take(dir.path()).unwrap();
    let connection = data_dir.open(KIND).unwrap();
    connection.execute("INSERT INTO t VALUES (3)", []).unwrap();
    let log = dir.path().join("test.db-wal");
    let copy = fs::read(&log).unwrap();
    drop(connection);
    fs::remove_file(dir.path().join(KIND.file)).unwrap();
    fs::write(&log, &copy).unwrap();
    let damaged = data_dir.open(KIND).unwrap_err();
    assert!(damaged.is_damage(), "{damaged}");
    assert_eq!(fs::read(&log).unwrap(), copy);
    data_dir.set_aside(KIND).unwrap();
    drop(data_dir.open(KIND).unwrap());
}

#[test]
fn tables_that_were_changed_are_damage() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = DataDir::take(dir.path()).unwrap();
    let connection = data_dir.open(KIND).unwrap();
    connection.execute_batch("DROP TABLE t").unwrap();
    connection.execute_batch("CREATE TABLE t (x TEXT)").unwrap();
    drop(connection);
    assert!(data_dir.open(KIND).unwrap_err().is_damage());
}
