//! Where lines go: standard error, as the log does, or a file of their own.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

/// How often it is looked whether a file still has its name: for whoever rotates logs.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Output {
    /// None where it is standard error.
    file: Option<Named>,
    dropped: Arc<AtomicU64>,
    /// It took nothing the last time, and the log says so.
    has_failed: bool,
}

/// A file, and its name.
struct Named {
    path: PathBuf,
    file: File,
    looked: Instant,
    /// A line was written in part.
    is_torn: bool,
}

impl Output {
    pub(super) fn open(path: Option<PathBuf>, dropped: Arc<AtomicU64>) -> io::Result<Self> {
        let named = |path: PathBuf| {
            Ok::<_, io::Error>(Named {
                file: open(&path)?,
                path,
                looked: Instant::now(),
                is_torn: false,
            })
        };
        Ok(Self {
            file: path.map(named).transpose()?,
            dropped,
            has_failed: false,
        })
    }

    /// Writes lines, or drops and counts them.
    pub(super) fn write(&mut self, lines: &[u8]) {
        let Some(named) = &mut self.file else {
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                daemon::log::record(line);
            }
            return;
        };
        named.follow_name();
        let (written, result) = named.write(lines);
        // One that is cut short is none.
        let left = lines[written..].iter().filter(|byte| **byte == b'\n');
        self.dropped
            .fetch_add(left.count() as u64, Ordering::Relaxed);
        let file = named.path.display();
        match result {
            Err(error) if !self.has_failed => {
                tracing::error!(%file, %error, "the access log cannot be written: its lines are dropped, and counted, until it can. Make room, or have the gateway write elsewhere (--access-log-file)");
                self.has_failed = true;
            }
            Ok(()) if self.has_failed => {
                let dropped = self.dropped.load(Ordering::Relaxed);
                tracing::info!(%file, dropped, "the access log is written again");
                self.has_failed = false;
            }
            _ => {}
        }
    }
}

impl Named {
    /// Opens the file anew where another one, or none, has its name. Where that fails, lines go on where they went: they
    /// are not lost.
    fn follow_name(&mut self) {
        if self.looked.elapsed() < LOOK_INTERVAL {
            return;
        }
        self.looked = Instant::now();
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let named = fs::metadata(&self.path).map(identity).ok();
        let own = self.file.metadata().map(identity).ok();
        if named != own
            && let Ok(file) = open(&self.path)
        {
            self.file = file;
            self.is_torn = false;
        }
    }

    /// How much was written.
    fn write(&mut self, lines: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        let mut rest = |bytes: &[u8]| {
            let mut left = bytes;
            while !left.is_empty() {
                match self.file.write(left) {
                    Ok(0) => return (bytes.len() - left.len(), Err(ErrorKind::WriteZero.into())),
                    Ok(more) => left = &left[more..],
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return (bytes.len() - left.len(), Err(error)),
                }
            }
            (bytes.len(), Ok(()))
        };
        if self.is_torn {
            let (_, ended) = rest(b"\n");
            if ended.is_err() {
                return (0, ended);
            }
        }
        let (more, result) = rest(lines);
        written += more;
        self.is_torn = written > 0 && lines[written - 1] != b'\n';
        (written, result)
    }
}

/// For adding to, and its user's alone where it is made: it has addresses of clients. Nothing waits for a pipe's other end.
fn open(path: &Path) -> io::Result<File> {
    File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
}
