//! Files that do not count: what a crash left, what was merged, and what belongs to another database.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use daemon::directory;

use rusqlite::Connection;

use super::{DIR, Part, parts_in, rows_in};
use crate::error::StorageError;
use crate::location::Location;

/// Sees to it when a database is opened, before an archiver works there: removes what counts no more, and sets the files aside that
/// have rows which the database has not.
///
/// # Errors
/// Where the disk refuses.
pub(crate) fn tidy(connection: &Connection, location: &Location) -> Result<(), StorageError> {
    if location.list(&location.beside(DIR))?.is_empty() {
        return Ok(());
    }
    let parts = parts_in(connection)?;
    let sql = "SELECT ifnull(max(number) + 1, 0) FROM journal";
    let in_table: u64 = connection.query_row(sql, [], |row| row.get(0))?;
    let rows = in_table.max(rows_in(connection)?.0);
    remove(location, &parts, rows)?;
    let others = others(location, &parts)?;
    if others.is_empty() || !location.is_on_disk() {
        return Ok(());
    }
    let failed = |source| StorageError::Directory {
        path: location.beside(DIR),
        source,
    };
    let kept = set_aside(location, &others).map_err(failed)?;
    tracing::warn!(
        kept = %kept.display(),
        "set files of an archive aside that have rows beyond this database's: is it an older copy?"
    );
    Ok(())
}

/// Removes what does not count, and has no row that is not elsewhere. A file with rows behind the last one is evidence of an
/// older database, and stays.
pub(crate) fn remove(location: &Location, parts: &[Part], rows: u64) -> Result<(), StorageError> {
    let dir = location.beside(DIR);
    for name in others(location, parts)? {
        if Part::named(&name).is_some_and(|(_, last)| last.0 < rows) {
            location.remove(&dir.join(name))?;
        }
    }
    Ok(())
}

/// Names of files that do not count.
fn others(location: &Location, parts: &[Part]) -> Result<Vec<String>, StorageError> {
    let counting: HashSet<PathBuf> = parts.iter().flat_map(Part::file_names).collect();
    let mut names = location.list(&location.beside(DIR))?;
    names.retain(|name| Part::named(name).is_some() && !counting.contains(Path::new(name)));
    Ok(names)
}

fn set_aside(location: &Location, names: &[String]) -> io::Result<PathBuf> {
    let from = location.beside(DIR);
    let to = (1..).map(|number: u32| location.beside(&format!("{DIR}.other-{number}")));
    let to = { to }
        .find(|to| !to.exists())
        .expect("a directory has fewer files than there are numbers");
    directory::make_private(&to)?;
    for name in names {
        fs::rename(from.join(name), to.join(name))?;
    }
    directory::sync(&to)?;
    directory::sync(&from)?;
    Ok(to)
}
