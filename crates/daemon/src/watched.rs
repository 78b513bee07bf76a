//! What is made of files, and made anew when they change: certificates, tokens.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::tasks::{self, Task};

/// How often files are looked at. Their contents are what counts: links that are turned to others (as Kubernetes and
/// certbot do) and files that are written in place are all the same to it.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Most bytes of a file: a bundle of authorities' certificates has a few hundred KB.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// A file's contents, as they were at some time.
#[derive(Clone, PartialEq, Eq)]
pub struct Contents {
    /// Where it is.
    pub path: PathBuf,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// The system refuses.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is none of those that are read here.
    #[error("{} is longer than 4 MiB", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
    },
}

impl Contents {
    /// Reads a file that is not too long.
    ///
    /// # Errors
    /// Where the system refuses, or it is longer than 4 MiB.
    pub fn read(path: &Path) -> Result<Self, Unread> {
        let path = path.to_owned();
        let mut bytes = Vec::new();
        let read = File::open(&path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes));
        match read {
            Err(source) => Err(Unread::Unreadable { path, source }),
            Ok(_) if bytes.len() as u64 > FILE_BYTES_MAX => Err(Unread::TooLong { path }),
            Ok(_) => Ok(Self { path, bytes }),
        }
    }
}

/// Tells nothing of what is in it.
impl std::fmt::Debug for Contents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Contents").field(&self.path).finish()
    }
}

/// Made of files. Dropped, it looks at them no more.
#[derive(Debug)]
pub struct Watched<T> {
    current: Arc<ArcSwap<T>>,
    _looking: Task<()>,
}

impl<T: Send + Sync + 'static> Watched<T> {
    /// Makes it, and from now on anew whenever a file has changed. Where that fails, what there is stays in force
    /// and the log says why: two files that belong together cannot be replaced at one moment.
    ///
    /// # Errors
    /// Where a file cannot be read, or `make` fails.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new<E>(
        paths: Vec<PathBuf>,
        make: impl Fn(&[Contents]) -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E>
    where
        E: Display + From<Unread> + Send + 'static,
    {
        let contents = read(&paths)?;
        let current = Arc::new(ArcSwap::from_pointee(make(&contents)?));
        let looking = look(paths, contents, Arc::clone(&current), make);
        Ok(Self {
            current,
            _looking: tasks::spawn("watch files", looking),
        })
    }

    /// What is in force now.
    pub fn now(&self) -> Arc<T> {
        self.current.load_full()
    }
}

fn read(paths: &[PathBuf]) -> Result<Vec<Contents>, Unread> {
    paths.iter().map(|path| Contents::read(path)).collect()
}

async fn look<T, E: Display + From<Unread>>(
    paths: Vec<PathBuf>,
    mut known: Vec<Contents>,
    current: Arc<ArcSwap<T>>,
    make: impl Fn(&[Contents]) -> Result<T, E>,
) {
    let mut complained = None;
    loop {
        sleep(LOOK_INTERVAL).await;
        let read = spawn_blocking({
            let paths = paths.clone();
            move || read(&paths)
        });
        let Ok(read) = read.await else {
            continue; // the runtime ends
        };
        let made = match read {
            Ok(contents) if contents == known => {
                complained = None;
                continue;
            }
            Ok(contents) => make(&contents).map(|made| (made, contents)),
            Err(error) => Err(error.into()),
        };
        match made {
            Ok((made, contents)) => {
                current.store(Arc::new(made));
                known = contents;
                complained = None;
                tracing::info!(files = ?paths, "files have changed, and are in force as they are now");
            }
            Err(error) => {
                let complaint = error.to_string();
                // Once for each that is wrong, however long it is.
                if complained.as_ref() != Some(&complaint) {
                    tracing::error!(files = ?paths, %error, "files have changed and will not do: what they said before stays in force");
                    complained = Some(complaint);
                }
            }
        }
    }
}
