//! A backup's file: a tar of what was taken, and at its end a manifest with the size and SHA-256 of each.
//!
//! Nothing is taken on trust: a tar has bounds, its entries have the names that a backup has, and each file is as the
//! manifest says. One that was not copied whole has no manifest.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use catalog::backup::pace::{Pace, STEP_BYTES};
use daemon::directory;
use daemon::ownership::remedy;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tar::{Archive, EntryType, Header};
use tempfile::NamedTempFile;

/// The versions of this form that are read.
const FORMATS: RangeInclusive<u32> = 1..=GATEWAY_FORMAT;

/// The version of a backup of a gateway alone, of which releases before know nothing.
pub const GATEWAY_FORMAT: u32 = 3;

/// The version of any other: 2 with the files of an archive, which releases before that would not put into their place.
pub fn format(has_archive: bool) -> u32 {
    match has_archive {
        true => 2,
        false => 1,
    }
}

/// The first entry: what form the rest has.
const MARK: &str = "bazaar-backup";

/// The last entry.
const MANIFEST: &str = "backup.json";
const MANIFEST_BYTES_MAX: u64 = 32 << 20;

/// Entries of a backup: a database, two for each file of its archive, so that there is room for those of 50 billion rows
/// and more, and a gateway's policies, of which 32 are kept.
const ENTRIES_MAX: usize = 1 << 16;

const BUFFER_BYTES: usize = 1 << 20;

/// Of whose directory a backup is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// A catalog's.
    Catalog,
    /// That of `bazaar up`.
    Bazaar,
    /// That of a gateway on a host of its own.
    Gateway,
}

/// What a backup says of itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    pub format: u32,
    /// Of Bazaar, that took it.
    pub release: String,
    /// Milliseconds since 1970.
    pub taken_at_ms: u64,
    pub layout: Layout,
    /// The journal's id; a gateway's has none before that has met a catalog.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub journal: Option<String>,
    /// Of a catalog's journal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub orders: Option<u64>,
    /// Of the last of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain_hash: Option<String>,
    pub files: Vec<Listed>,
    /// Of all the rest of it. Backups of before 0.2.0 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Manifest {
    /// Over everything else that it says.
    fn checksum(&self) -> String {
        let Self {
            format,
            release,
            taken_at_ms,
            layout,
            journal,
            orders,
            chain_hash,
            files,
            sha256: _,
        } = self;
        let of = (format, release, taken_at_ms, layout);
        let all = (of, journal, orders, chain_hash, files);
        let json = serde_json::to_vec(&all).expect("strings and numbers are JSON");
        hex(Sha256::digest(json))
    }

    /// Of nothing yet.
    pub fn now(layout: Layout, format: u32) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            format,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            taken_at_ms: since.unwrap_or_default().as_millis() as u64,
            layout,
            journal: None,
            orders: None,
            chain_hash: None,
            files: Vec::new(),
            sha256: None,
        }
    }

    /// What it is of, in words.
    pub fn contents(&self) -> String {
        let journal = self.journal.as_deref();
        match (self.layout, journal) {
            (Layout::Gateway, None) => "a gateway that has met no catalog".to_owned(),
            (Layout::Gateway, Some(journal)) => format!("a gateway of journal {journal}"),
            (Layout::Catalog | Layout::Bazaar, journal) => format!(
                "journal {}, {} orders, chain hash {}",
                journal.unwrap_or("?"),
                self.orders.unwrap_or_default(),
                self.chain_hash.as_deref().unwrap_or("?")
            ),
        }
    }
}

/// What a backup begins with.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    format: u32,
    release: String,
}

/// One file of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    pub name: String,
    pub bytes: u64,
    pub sha256: String,
}

/// Why a file is not written, or is no backup.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{}: {source}{}", path.display(), remedy(path, source))]
    File { path: PathBuf, source: io::Error },
    #[error("{} is no backup, or was not copied whole: {problem}", path.display())]
    Damaged { path: PathBuf, problem: String },
    /// A later release took it.
    #[error("{} has format {format}, and this release reads {} at most: use the release that took it ({release})", path.display(), FORMATS.end())]
    Format {
        path: PathBuf,
        format: u32,
        release: String,
    },
}

/// Writes a backup where nothing is: either all of it is there afterwards, or nothing.
///
/// # Errors
/// Where a disk refuses, something is there, or a name is none that a backup has.
pub fn write(
    file: &Path,
    mut manifest: Manifest,
    parts: &[(String, PathBuf)],
) -> Result<Manifest, ArchiveError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| ArchiveError::File { path, source }
    };
    let unknown = parts.iter().find(|(name, _)| !is_known(name));
    if let Some((name, path)) = unknown {
        let problem = format!("no backup has an entry {name:?}");
        return Err(failed(path)(io::Error::other(problem)));
    }
    // What would not be read is not written.
    let too_much = |what: String| failed(file)(io::Error::other(what));
    if parts.len() > ENTRIES_MAX {
        let count = parts.len();
        return Err(too_much(format!(
            "a backup has {ENTRIES_MAX} files at most, and this would have {count}"
        )));
    }
    // Its owner's alone, and gone where it does not become the backup.
    let new = NamedTempFile::new_in(directory::of(file)).map_err(failed(file))?;
    let output = new.as_file().try_clone().map_err(failed(file))?;
    let mut tar = tar::Builder::new(BufWriter::with_capacity(BUFFER_BYTES, Paced::new(output)));
    let mark = Mark {
        format: manifest.format,
        release: manifest.release.clone(),
    };
    let mark = serde_json::to_vec(&mark).map_err(|error| failed(file)(error.into()))?;
    tar.append_data(&mut header(mark.len() as u64), MARK, &mark[..])
        .map_err(failed(file))?;
    for (name, path) in parts {
        let part = File::open(path).map_err(failed(path))?;
        let bytes = part.metadata().map_err(failed(path))?.len();
        let mut hashed = Hashed::of(BufReader::with_capacity(BUFFER_BYTES, part.take(bytes)));
        tar.append_data(&mut header(bytes), name, &mut hashed)
            .map_err(failed(file))?;
        manifest.files.push(Listed {
            name: name.clone(),
            bytes,
            sha256: hashed.finish(),
        });
    }
    manifest.sha256 = Some(manifest.checksum());
    let json = serde_json::to_vec_pretty(&manifest).map_err(|error| failed(file)(error.into()))?;
    if json.len() as u64 > MANIFEST_BYTES_MAX {
        return Err(too_much(format!(
            "the list of its files has {} bytes, and {MANIFEST_BYTES_MAX} at most are read",
            json.len()
        )));
    }
    tar.append_data(&mut header(json.len() as u64), MANIFEST, &json[..])
        .map_err(failed(file))?;
    let mut output = tar.into_inner().map_err(failed(file))?;
    output.flush().map_err(failed(file))?;
    drop(output);
    new.as_file().sync_all().map_err(failed(file))?;
    // Whatever came there meanwhile stays.
    let persisted = new.persist_noclobber(file);
    persisted.map_err(|error| failed(file)(error.error))?;
    directory::sync(directory::of(file)).map_err(failed(file))?;
    Ok(manifest)
}

/// A file that is written in steps, so that others have the disk as well.
struct Paced {
    file: File,
    pace: Pace,
    /// How many bytes it has.
    end: u64,
    /// And how many it had at the last rest.
    rested: u64,
}

impl Paced {
    /// Of a file that has nothing yet.
    fn new(file: File) -> Self {
        Self {
            file,
            pace: Pace::new(0),
            end: 0,
            rested: 0,
        }
    }
}

impl Write for Paced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let step = &bytes[..bytes.len().min(STEP_BYTES)];
        let written = self.file.write(step)?;
        self.end += written as u64;
        if self.end - self.rested >= STEP_BYTES as u64 {
            self.rested = self.end;
            self.pace.write_out(&self.file, self.end)?;
            self.pace.rest();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn header(bytes: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(bytes);
    // It has all that a catalog has.
    header.set_mode(0o600);
    header
}

/// Unpacks a backup into an empty directory, and returns what it says of itself.
///
/// # Errors
/// Where it cannot be read, has what no backup has, or is not what it says.
pub fn unpack(file: &Path, to: &Path) -> Result<Manifest, ArchiveError> {
    let unreadable = |source| ArchiveError::File {
        path: file.to_owned(),
        source,
    };
    let damaged = |problem: String| ArchiveError::Damaged {
        path: file.to_owned(),
        problem,
    };
    let input = File::open(file).map_err(unreadable)?;
    let mut tar = Archive::new(BufReader::with_capacity(BUFFER_BYTES, input));
    let broken = |error: io::Error| damaged(error.to_string());
    let mut found: Vec<Listed> = Vec::new();
    let mut manifest: Option<Manifest> = None;
    let mut entries = tar.entries().map_err(broken)?;
    let first = entries
        .next()
        .ok_or_else(|| damaged("it is empty".to_owned()))?;
    let first = first.map_err(broken)?;
    if *first.path_bytes() != *MARK.as_bytes() {
        return Err(damaged("it does not begin as one does".to_owned()));
    }
    let mark: Mark = serde_json::from_reader(first.take(MANIFEST_BYTES_MAX))
        .map_err(|error| damaged(error.to_string()))?;
    if !FORMATS.contains(&mark.format) {
        return Err(ArchiveError::Format {
            path: file.to_owned(),
            format: mark.format,
            release: mark.release,
        });
    }
    for entry in entries {
        let mut entry = entry.map_err(broken)?;
        let too_many = || damaged("it has more entries than a backup".to_owned());
        if manifest.is_some() {
            return Err(too_many());
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if entry.header().entry_type() != EntryType::Regular || !is_known(&name) {
            return Err(damaged(format!("no backup has an entry {name:?}")));
        }
        if name == MANIFEST {
            let mut json = Vec::new();
            let read = entry.take(MANIFEST_BYTES_MAX).read_to_end(&mut json);
            read.map_err(broken)?;
            let said: Manifest =
                serde_json::from_slice(&json).map_err(|error| damaged(error.to_string()))?;
            let checksum = said.checksum();
            let is_as_written = said.sha256.as_ref().is_none_or(|it| *it == checksum);
            if !is_as_written || (mark.format, &mark.release) != (said.format, &said.release) {
                let what = "what it says of itself is not as it was written";
                return Err(damaged(what.to_owned()));
            }
            manifest = Some(said);
            continue;
        }
        if found.len() >= ENTRIES_MAX {
            return Err(too_many());
        }
        let path = to.join(&name);
        let written = unpack_one(&mut entry, &path);
        let (bytes, sha256) = written.map_err(|source| ArchiveError::File { path, source })?;
        found.push(Listed {
            name,
            bytes,
            sha256,
        });
    }
    let manifest = manifest.ok_or_else(|| damaged("its end is missing".to_owned()))?;
    for (listed, found) in manifest.files.iter().zip(&found) {
        if listed != found {
            return Err(damaged(format!("{} is not as it was written", found.name)));
        }
    }
    match manifest.files.len() == found.len() {
        true => Ok(manifest),
        false => Err(damaged(
            "it has not the files that it should have".to_owned(),
        )),
    }
}

fn unpack_one(entry: &mut impl Read, path: &Path) -> io::Result<(u64, String)> {
    if let Some(dir) = path.parent() {
        directory::make_private(dir)?;
    }
    let mut hashed = Hashed::of(entry);
    let mut output = File::create_new(path)?;
    let bytes = io::copy(&mut hashed, &mut output)?;
    output.flush()?;
    Ok((bytes, hashed.finish()))
}

/// Whether a backup has entries of that name: none leads out of a directory.
pub fn is_known(name: &str) -> bool {
    let is_plain = |part: &str| {
        let is_safe = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        !part.is_empty() && !part.starts_with('.') && part.bytes().all(is_safe)
    };
    match name.split('/').collect::<Vec<_>>()[..] {
        [file] => file == MANIFEST,
        ["catalog", file] => file == catalog::DATABASE_FILE,
        ["catalog", storage::archive::DIR, file] => is_plain(file),
        ["gateway", file] => file == "journal",
        ["gateway", "policies", file] => is_plain(file),
        _ => false,
    }
}

/// Hashes what is read through it.
struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Hashed<R> {
    fn of(inner: R) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
        }
    }

    fn finish(self) -> String {
        hex(self.hash.finalize())
    }
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn manifest() -> Manifest {
        Manifest::now(Layout::Catalog, format(true))
    }

    /// So many files of an archive, each the same one.
    fn files(dir: &Path, count: usize) -> Vec<(String, PathBuf)> {
        let path = dir.join("file");
        fs::write(&path, "x").unwrap();
        let name = |number| format!("catalog/{}/{number:012}.db", storage::archive::DIR);
        (0..count)
            .map(|number| (name(number), path.clone()))
            .collect()
    }

    #[test]
    fn what_is_written_is_read_however_many_files_an_archive_has() {
        let dir = tempfile::tempdir().unwrap();
        let backup = dir.path().join("backup");
        let files = files(dir.path(), 5_000);
        write(&backup, manifest(), &files).unwrap();
        let unpacked = unpack(&backup, &dir.path().join("unpacked")).unwrap();
        assert_eq!(unpacked.files.len(), 5_000);
    }

    #[test]
    fn a_later_format_is_refused_with_the_release_that_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let backup = dir.path().join("backup");
        let later = Manifest {
            format: FORMATS.end() + 1,
            release: "9.8.7".to_owned(),
            ..manifest()
        };
        write(&backup, later, &files(dir.path(), 1)).unwrap();
        let refused = unpack(&backup, &dir.path().join("unpacked")).unwrap_err();
        let said = format!(
            "{} has format 4, and this release reads 3 at most: use the release that took it (9.8.7)",
            backup.display()
        );
        assert_eq!(refused.to_string(), said);
    }

    #[test]
    fn whichever_byte_of_an_entry_is_another_that_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let backup = dir.path().join("backup");
        write(&backup, manifest(), &files(dir.path(), 2)).unwrap();
        let good = fs::read(&backup).unwrap();
        let mut tar = Archive::new(&good[..]);
        let entries = tar.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            let within = entry.raw_file_position()..entry.raw_file_position() + entry.size();
            within.map(|place| usize::try_from(place).unwrap())
        });
        let places: Vec<usize> = entries.flatten().collect();
        // Of before 0.2.0 is what has no checksum: nor has one where that is called otherwise.
        let key = good.windows(8).rposition(|it| it == b"\"sha256\"").unwrap();
        let changed = places
            .into_iter()
            .filter(|place| !(key..key + 8).contains(place));
        for place in changed {
            let mut other = good.clone();
            other[place] ^= 1;
            fs::write(&backup, other).unwrap();
            let unpacked = unpack(&backup, &dir.path().join(format!("unpacked-{place}")));
            assert!(unpacked.is_err(), "byte {place}");
        }
    }

    #[test]
    fn what_would_not_be_read_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let backup = dir.path().join("backup");
        let files = files(dir.path(), ENTRIES_MAX + 1);
        let refused = write(&backup, manifest(), &files).unwrap_err().to_string();
        assert!(refused.contains("at most"), "{refused}");
        assert!(!backup.exists());
    }
}
