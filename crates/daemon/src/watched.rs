//! What is made of files, and made anew when they change: certificates, tokens.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::tasks::{self, Task};

/// How often files are looked at. Their contents are what counts: links that are turned to others (as Kubernetes and
/// certbot do) and files that are written in place are all the same to it.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long files that belong together may take to change, one after the other, until those of them that do not belong
/// together are an error.
const CHANGE_TIME_MAX: Duration = Duration::from_secs(5);

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
    /// Makes it, and from now on anew whenever a file has changed. Where that fails, what there is stays in force,
    /// and the log says why once that has lasted: two files that belong together cannot be replaced at one moment.
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

/// Files that will not do, each time that they are looked at.
struct Unfit {
    problem: String,
    since: Instant,
    /// There once it was said.
    said: Option<Said>,
}

impl Unfit {
    fn since(since: Instant, problem: String) -> Self {
        Self {
            problem,
            since,
            said: None,
        }
    }

    /// Whether it is to be said now: once it is more than a change that is under way, and where nobody else of this
    /// process has said the same, since several look at the same files.
    fn is_news(&mut self, now: Instant) -> bool {
        if self.said.is_some() || now.duration_since(self.since) < CHANGE_TIME_MAX {
            return false;
        }
        let (said, is_first) = Said::now(&self.problem);
        self.said = Some(said);
        is_first
    }
}

/// Of each problem that was said and lasts, by how many.
static LASTING: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// A problem was said. Dropped, it is none any more.
struct Said(String);

impl Said {
    /// Also whether nobody had said it.
    fn now(problem: &str) -> (Self, bool) {
        let mut lasting = LASTING.lock().unwrap_or_else(PoisonError::into_inner);
        let by = lasting.entry(problem.to_owned()).or_default();
        *by += 1;
        (Self(problem.to_owned()), *by == 1)
    }
}

impl Drop for Said {
    fn drop(&mut self) {
        let mut lasting = LASTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(by) = lasting.get_mut(&self.0) {
            *by -= 1;
            if *by == 0 {
                lasting.remove(&self.0);
            }
        }
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
    let mut unfit: Option<Unfit> = None;
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
                unfit = None;
                continue;
            }
            Ok(contents) => make(&contents).map(|made| (made, contents)),
            Err(error) => Err(error.into()),
        };
        match made {
            Ok((made, contents)) => {
                current.store(Arc::new(made));
                known = contents;
                unfit = None;
                tracing::info!(files = ?paths, "files have changed, and are in force as they are now");
            }
            Err(error) => {
                let problem = error.to_string();
                let same = unfit.take().filter(|unfit| unfit.problem == problem);
                let unfit =
                    unfit.insert(same.unwrap_or_else(|| Unfit::since(Instant::now(), problem)));
                if unfit.is_news(Instant::now()) {
                    tracing::error!(files = ?paths, %error, "files have changed and will not do: what they said before stays in force. Put files that belong together in their place");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_will_not_do_are_one_event_however_many_look_at_them_and_a_change_under_way_is_none()
     {
        let now = Instant::now();
        let later = now + CHANGE_TIME_MAX;
        let unfit = |problem: &str| Unfit::since(now, problem.to_owned());
        let mut lookers = [(); 3].map(|()| unfit("no key"));
        let mut news = |at| {
            let said = lookers.iter_mut().map(|unfit| unfit.is_news(at));
            said.filter(|is_said| *is_said).count()
        };
        let (under_way, lasting, said) = (news(now), news(later), news(later));
        assert_eq!((under_way, lasting, said), (0, 1, 0));
        assert!(unfit("no certificate").is_news(later), "another problem");
        // It was mended, and is wrong again.
        drop(lookers);
        assert!(unfit("no key").is_news(later));
    }
}
