//! The disk and its faults.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use fastrand::Rng;

use crate::file::{File, Loss};
use crate::locks::{Locks, Slots};
use crate::vfs;

/// What goes wrong on a disk from now on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Faults {
    pub full: bool,
    /// The next sync that has something to do fails.
    pub next_sync_fails: bool,
    /// The next write fails.
    pub next_write_fails: bool,
    /// After so many more writes and syncs the machine, or what runs on it, is dead.
    pub dies_after: Option<(u32, Death)>,
    /// Syncs succeed and do nothing.
    pub lies: bool,
}

/// How what runs on a machine ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// The process is killed: what it wrote is there.
    Killed,
    /// The machine loses power: what was not synced may be gone.
    PowerLost(Loss),
}

/// How often it happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Files were written to.
    pub writes: u64,
    pub syncs: u64,
    /// A write or a sync failed because it was to.
    pub failures: u64,
    /// A file could not grow.
    pub refusals: u64,
}

/// A disk. Cloning it gives another name to the same disk.
#[derive(Debug, Clone)]
pub struct Disk {
    state: Rc<RefCell<State>>,
    _mount: Rc<Mount>,
}

/// What the file system knows of a disk.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) files: BTreeMap<String, Node>,
    /// Deletions that a loss of power may undo.
    deleted: BTreeMap<String, File>,
    /// Rises when what has files open dies.
    pub(crate) life: u64,
    died: Option<Death>,
    faults: Faults,
    counts: Counts,
    random: Rng,
    holders: u64,
}

/// A file and what is open of it.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) file: File,
    pub(crate) locks: Locks,
    pub(crate) slots: Slots,
    pub(crate) shared: Rc<RefCell<vfs::SharedMemory>>,
}

/// An operation that failed, as SQLite is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Dead,
    Full,
    Write,
    Sync,
}

/// Makes the disk known to the file system while it lives.
#[derive(Debug)]
struct Mount(u64);

thread_local! {
    static MOUNTED: RefCell<BTreeMap<u64, Rc<RefCell<State>>>> = RefCell::default();
    static LAST: Cell<u64> = const { Cell::new(0) };
}

impl Drop for Mount {
    fn drop(&mut self) {
        // While the thread ends there may be nothing left to forget it.
        let _ = MOUNTED.try_with(|mounted| mounted.borrow_mut().remove(&self.0));
    }
}

impl Disk {
    /// An empty disk. What it does by chance comes from the seed.
    pub fn new(seed: u64) -> Self {
        Self::with(State::new(seed))
    }

    fn with(state: State) -> Self {
        vfs::register();
        let id = LAST.get() + 1;
        LAST.set(id);
        let state = Rc::new(RefCell::new(state));
        MOUNTED.with_borrow_mut(|mounted| mounted.insert(id, Rc::clone(&state)));
        Self {
            state,
            _mount: Rc::new(Mount(id)),
        }
    }

    /// Its directory, under the file system [`NAME`](crate::NAME).
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(self._mount.0.to_string())
    }

    /// What goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.borrow_mut().faults = faults;
    }

    /// What goes wrong from now on.
    pub fn faults(&self) -> Faults {
        self.state.borrow().faults
    }

    /// How often what happened.
    pub fn counts(&self) -> Counts {
        self.state.borrow().counts
    }

    /// Ends what runs on the machine. What is open stays open and is good for nothing.
    pub fn die(&self, death: Death) {
        self.state.borrow_mut().die(death);
    }

    /// Whether what ran on the machine has ended, and nobody took notice yet.
    pub fn is_dead(&self) -> bool {
        self.state.borrow().died.is_some()
    }

    /// How what ran on the machine ended, where it did since this was asked last.
    pub fn take_death(&self) -> Option<Death> {
        self.state.borrow_mut().died.take()
    }

    /// Another disk with a copy of what processes see on this one.
    pub fn copy(&self, seed: u64) -> Self {
        Self::with(State {
            files: self.files(File::copied),
            ..State::new(seed)
        })
    }

    /// The disk damages a byte of a file by itself. Whether there was one.
    pub fn flip(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        let mut files: Vec<&mut File> = state.files.values_mut().map(|it| &mut it.file).collect();
        files.retain(|file| !file.seen().is_empty());
        let Some(file) = state.random.choice(files) else {
            return false;
        };
        let place = state.random.usize(..file.seen().len());
        file.flip(place, 1 << state.random.u32(..8));
        true
    }

    fn files(&self, made: impl Fn(&File) -> File) -> BTreeMap<String, Node> {
        let state = self.state.borrow();
        let node = |(name, node): (&String, &Node)| {
            let node = Node {
                file: made(&node.file),
                ..Node::default()
            };
            (name.clone(), node)
        };
        state.files.iter().map(node).collect()
    }

    /// A disk of its own with what a loss of power would leave at the worst.
    pub fn worst(&self) -> Self {
        let worst = Self::with(State {
            files: self.files(File::clone),
            deleted: self.state.borrow().deleted.clone(),
            ..State::new(0)
        });
        worst.die(Death::PowerLost(Loss::Everything));
        worst.take_death();
        worst
    }
}

/// Writes a file anew, as it is seen, and syncs it and its directory.
pub fn rewrite(path: &Path) -> io::Result<()> {
    let found = path.to_str().and_then(resolve);
    let (disk, name) = found.ok_or(io::ErrorKind::NotFound)?;
    let rewritten = disk.borrow_mut().rewrite(&name);
    rewritten.map_err(|failure| io::Error::other(format!("{failure:?}")))
}

/// Removes a file.
pub fn remove(path: &Path) -> io::Result<()> {
    let found = path.to_str().and_then(resolve);
    let (disk, name) = found.ok_or(io::ErrorKind::NotFound)?;
    let is_removed = disk.borrow_mut().delete(&name, false);
    is_removed
        .then_some(())
        .ok_or(io::ErrorKind::NotFound.into())
}

/// The names of the files in a directory.
pub fn list(dir: &Path) -> io::Result<Vec<String>> {
    let found = dir.to_str().and_then(resolve);
    let (disk, dir) = found.ok_or(io::ErrorKind::NotFound)?;
    let disk = disk.borrow();
    let in_dir = |name: &String| Some(name.strip_prefix(&dir)?.strip_prefix('/')?.to_owned());
    Ok(disk.files.keys().filter_map(in_dir).collect())
}

/// The disk that a path is on, and the file's name there.
pub(crate) fn resolve(path: &str) -> Option<(Rc<RefCell<State>>, String)> {
    let (disk, name) = path.strip_prefix('/')?.split_once('/')?;
    let disk: u64 = disk.parse().ok()?;
    let state = MOUNTED.with_borrow(|mounted| mounted.get(&disk).cloned())?;
    Some((state, name.to_owned()))
}

impl State {
    fn new(seed: u64) -> Self {
        Self {
            files: BTreeMap::new(),
            deleted: BTreeMap::new(),
            life: 0,
            died: None,
            faults: Faults::default(),
            counts: Counts::default(),
            random: Rng::with_seed(seed),
            holders: 0,
        }
    }

    pub(crate) fn next_holder(&mut self) -> u64 {
        self.holders += 1;
        self.holders
    }

    pub(crate) fn write(
        &mut self,
        life: u64,
        name: &str,
        offset: usize,
        bytes: &[u8],
    ) -> Result<(), Failure> {
        self.breathe(life)?;
        self.counts.writes += 1;
        if std::mem::take(&mut self.faults.next_write_fails) {
            self.counts.failures += 1;
            return Err(Failure::Write);
        }
        let full = self.faults.full;
        let Some(node) = self.files.get_mut(name) else {
            return Err(Failure::Write);
        };
        if full && offset + bytes.len() > node.file.seen().len() {
            self.counts.refusals += 1;
            return Err(Failure::Full);
        }
        node.file.write(offset, bytes);
        Ok(())
    }

    pub(crate) fn resize(&mut self, life: u64, name: &str, bytes: usize) -> Result<(), Failure> {
        self.breathe(life)?;
        let node = self.files.get_mut(name).ok_or(Failure::Write)?;
        node.file.resize(bytes);
        Ok(())
    }

    pub(crate) fn sync(&mut self, life: u64, name: &str) -> Result<(), Failure> {
        self.breathe(life)?;
        self.counts.syncs += 1;
        let node = self.files.get_mut(name).ok_or(Failure::Sync)?;
        if self.faults.lies {
            return Ok(());
        }
        if node.file.is_dirty() && std::mem::take(&mut self.faults.next_sync_fails) {
            self.counts.failures += 1;
            node.file.fail_sync(&mut self.random);
            return Err(Failure::Sync);
        }
        node.file.sync();
        Ok(())
    }

    pub(crate) fn delete(&mut self, name: &str, sync: bool) -> bool {
        let Some(node) = self.files.remove(name) else {
            return false;
        };
        self.deleted.insert(name.to_owned(), node.file);
        if sync {
            self.deleted.clear();
        }
        true
    }

    /// Writes a file anew, as it is seen, and syncs it and its directory.
    fn rewrite(&mut self, name: &str) -> Result<(), Failure> {
        let life = self.life;
        self.breathe(life)?;
        self.counts.writes += 1;
        if let Some(node) = self.files.get_mut(name) {
            node.file.rewrite();
            self.sync(life, name)?;
            self.deleted.clear();
        }
        Ok(())
    }

    /// Counts down to death; refuses what is dead.
    fn breathe(&mut self, life: u64) -> Result<(), Failure> {
        if life != self.life {
            return Err(Failure::Dead);
        }
        if let Some((left, death)) = &mut self.faults.dies_after {
            if *left == 0 {
                let death = *death;
                self.die(death);
                return Err(Failure::Dead);
            }
            *left -= 1;
        }
        Ok(())
    }

    fn die(&mut self, death: Death) {
        self.life += 1;
        self.died = Some(death);
        self.faults = Faults {
            lies: self.faults.lies,
            ..Faults::default()
        };
        if let Death::PowerLost(loss) = death {
            for (name, file) in std::mem::take(&mut self.deleted) {
                let undone = match loss {
                    Loss::Everything => true,
                    Loss::Some => self.random.bool(),
                    Loss::Nothing => false,
                };
                if undone {
                    self.files.entry(name).or_insert_with(|| Node {
                        file,
                        ..Node::default()
                    });
                }
            }
            let random = &mut self.random;
            self.files
                .retain(|_, node| node.file.lose_power(random, loss));
        }
        for node in self.files.values_mut() {
            node.locks = Locks::default();
            node.slots = Slots::default();
            node.shared = Rc::default();
        }
    }
}
