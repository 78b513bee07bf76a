//! The disks for SQLite, as a table of C functions (<https://sqlite.org/vfs.html>): one file
//! system, whose directories are the disks.
#![allow(unsafe_code)] // What SQLite calls is C.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::mem::size_of;
use std::ptr;
use std::rc::Rc;
use std::sync::Once;

use rusqlite::ffi;

use crate::disk::{Failure, State, resolve};
use crate::locks::{Holder, Level};

/// The name that SQLite knows the file system by.
pub const NAME: &str = "simulated";

const NAME_C: &CStr = c"simulated";
const PATH_BYTES_MAX: c_int = 512;

/// What SQLite's own file system says of a disk that it knows nothing of.
const SECTOR_BYTES: c_int = 4096;

/// 2026-01-01T12:00, as SQLite counts: milliseconds since noon in Greenwich on 24 November
/// 4714 BC. Nothing stored depends on it.
const JULIAN_DAY_MS: i64 = 212_633_856_000_000;

/// What is open, behind the pointer that SQLite keeps.
struct Open {
    disk: Rc<RefCell<State>>,
    name: String,
    /// In which it was opened.
    life: u64,
    holder: Holder,
    /// Mapped, and kept for as long as SQLite may have pointers into it.
    shared: Option<Rc<RefCell<SharedMemory>>>,
    delete_on_close: bool,
}

/// As SQLite wants it: its own part first. It allocates `szOsFile` bytes for one.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    open: *mut Open,
}

/// The shared memory beside a write-ahead log: regions that stay where they are.
#[derive(Debug, Default)]
pub(crate) struct SharedMemory(Vec<Region>);

/// `u64`s, so that it is aligned for whatever SQLite puts there.
#[derive(Debug)]
struct Region(*mut [u64]);

impl Region {
    fn new(bytes: usize) -> Self {
        let zeroes = vec![0_u64; bytes.div_ceil(size_of::<u64>())];
        Self(Box::into_raw(zeroes.into_boxed_slice()))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the pointer came out of a box in `new` and is given back here only. SQLite has
        // no pointer into it any more: every open file that mapped it held the `SharedMemory`.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Makes the file system known to SQLite, once.
pub(crate) fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<OpenFile>() as c_int,
            mxPathname: PATH_BYTES_MAX,
            pNext: ptr::null_mut(),
            zName: NAME_C.as_ptr(),
            pAppData: ptr::null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_path),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: None,
            xCurrentTimeInt64: Some(current_time_ms),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: the table is complete for its version and never freed or changed.
        let registered = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(registered, ffi::SQLITE_OK, "SQLite takes another VFS");
    });
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shared_map),
    xShmLock: Some(shared_lock),
    xShmBarrier: Some(shared_barrier),
    xShmUnmap: Some(shared_unmap),
    xFetch: None,
    xUnfetch: None,
};

impl From<Failure> for c_int {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Dead => ffi::SQLITE_IOERR,
            Failure::Full => ffi::SQLITE_FULL,
            Failure::Write => ffi::SQLITE_IOERR_WRITE,
            Failure::Sync => ffi::SQLITE_IOERR_FSYNC,
        }
    }
}

fn told(result: Result<(), Failure>) -> c_int {
    result.map_or_else(c_int::from, |()| ffi::SQLITE_OK)
}

/// # Safety
/// `file` is one that [`open`] succeeded for and that is not closed, and no other reference to
/// what is behind it lives.
unsafe fn opened<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Open {
    // SAFETY: as promised by the caller, `open` has put a box's pointer there. SQLite does not
    // call methods of one file from two threads at a time, and none of ours calls SQLite.
    unsafe { &mut *(*file.cast::<OpenFile>()).open }
}

/// # Safety
/// `path` is null or a C string that lives for as long as the answer is used.
unsafe fn text<'a>(path: *const c_char) -> Option<&'a str> {
    if path.is_null() {
        return None;
    }
    // SAFETY: not null, and a C string as promised by the caller.
    unsafe { CStr::from_ptr(path) }.to_str().ok()
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    flags_out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives `szOsFile` bytes for the file. Without methods it is not closed.
    unsafe { (*file).pMethods = ptr::null() };
    // SAFETY: SQLite gives null or a C string that outlives the call.
    let found = unsafe { text(path) }.and_then(resolve);
    // Temporary files have no name, hence no disk: our databases need none.
    let Some((disk, name)) = found else {
        return ffi::SQLITE_CANTOPEN;
    };
    let (life, holder) = {
        let mut state = disk.borrow_mut();
        if !state.files.contains_key(&name) {
            if flags & ffi::SQLITE_OPEN_CREATE == 0 {
                return ffi::SQLITE_CANTOPEN;
            }
            state.files.entry(name.clone()).or_default();
        }
        (state.life, state.next_holder())
    };
    let open = Box::new(Open {
        disk,
        name,
        life,
        holder,
        shared: None,
        delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
    });
    // SAFETY: as above; `flags_out` is null or to be written to.
    unsafe {
        let file = file.cast::<OpenFile>();
        (*file).open = Box::into_raw(open);
        (*file).base.pMethods = &METHODS;
        if !flags_out.is_null() {
            *flags_out = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, path: *const c_char, sync: c_int) -> c_int {
    // SAFETY: SQLite gives a C string that outlives the call.
    let found = unsafe { text(path) }.and_then(resolve);
    match found {
        Some((disk, name)) if disk.borrow_mut().delete(&name, sync != 0) => ffi::SQLITE_OK,
        _ => ffi::SQLITE_IOERR_DELETE_NOENT,
    }
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    _: c_int,
    there: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives a C string that outlives the call.
    let found = unsafe { text(path) }.and_then(resolve);
    let is_there = found.is_some_and(|(disk, name)| {
        let state = disk.borrow();
        // As in SQLite's own: an empty file is as good as none.
        state
            .files
            .get(&name)
            .is_some_and(|node| !node.file.seen().is_empty())
    });
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *there = c_int::from(is_there) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_path(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    bytes_max: c_int,
    full: *mut c_char,
) -> c_int {
    // SAFETY: SQLite gives a C string that outlives the call.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes_with_nul();
    if bytes.len() > bytes_max as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: there is room for `bytes_max`, and the two do not overlap.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), full, bytes.len()) };
    ffi::SQLITE_OK
}

/// The same bytes at every start, so that a history can be had again.
unsafe extern "C" fn randomness(
    _: *mut ffi::sqlite3_vfs,
    count: c_int,
    bytes: *mut c_char,
) -> c_int {
    // SAFETY: there is room for so many.
    unsafe { ptr::write_bytes(bytes, 0x5a, count as usize) };
    count
}

/// Nobody waits: what is locked stays so until the thread goes on.
unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    micros
}

unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, days: *mut f64) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *days = JULIAN_DAY_MS as f64 / 86_400_000.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_ms(_: *mut ffi::sqlite3_vfs, ms: *mut i64) -> c_int {
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *ms = JULIAN_DAY_MS };
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file that was opened, once; the box's pointer is `open`'s.
    let open = unsafe { Box::from_raw((*file.cast::<OpenFile>()).open) };
    let mut state = open.disk.borrow_mut();
    if open.life != state.life {
        return ffi::SQLITE_OK;
    }
    if let Some(node) = state.files.get_mut(&open.name) {
        node.locks.lower(open.holder, Level::None);
    }
    if open.delete_on_close {
        state.delete(&open.name, false);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    // SAFETY: there is room for `count` bytes, which nobody else looks at during the call.
    let into = unsafe { std::slice::from_raw_parts_mut(into.cast::<u8>(), count as usize) };
    let state = open.disk.borrow();
    let node = state.files.get(&open.name);
    let Some(node) = node.filter(|_| open.life == state.life) else {
        return ffi::SQLITE_IOERR_READ;
    };
    let there = node.file.seen().get(offset as usize..).unwrap_or_default();
    let read = there.len().min(into.len());
    into[..read].copy_from_slice(&there[..read]);
    into[read..].fill(0);
    if read == into.len() {
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_IOERR_SHORT_READ
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    count: c_int,
    offset: i64,
) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    // SAFETY: SQLite gives `count` bytes that stay as they are during the call.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), count as usize) };
    let mut state = open.disk.borrow_mut();
    told(state.write(open.life, &open.name, offset as usize, bytes))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, bytes: i64) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    let mut state = open.disk.borrow_mut();
    told(state.resize(open.life, &open.name, bytes as usize))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    let mut state = open.disk.borrow_mut();
    told(state.sync(open.life, &open.name))
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, bytes: *mut i64) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    let state = open.disk.borrow();
    let node = state.files.get(&open.name);
    let Some(node) = node.filter(|_| open.life == state.life) else {
        return ffi::SQLITE_IOERR_FSTAT;
    };
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *bytes = node.file.seen().len() as i64 };
    ffi::SQLITE_OK
}

fn level(lock: c_int) -> Level {
    match lock {
        ffi::SQLITE_LOCK_NONE => Level::None,
        ffi::SQLITE_LOCK_SHARED => Level::Shared,
        ffi::SQLITE_LOCK_RESERVED => Level::Reserved,
        ffi::SQLITE_LOCK_PENDING => Level::Pending,
        _ => Level::Exclusive,
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, lock: c_int) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    let mut state = open.disk.borrow_mut();
    if open.life != state.life {
        return ffi::SQLITE_IOERR_LOCK;
    }
    let Some(node) = state.files.get_mut(&open.name) else {
        return ffi::SQLITE_IOERR_LOCK;
    };
    if node.locks.raise(open.holder, level(lock)) {
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_BUSY
    }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, lock: c_int) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    let mut state = open.disk.borrow_mut();
    if open.life == state.life
        && let Some(node) = state.files.get_mut(&open.name)
    {
        node.locks.lower(open.holder, level(lock));
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved_lock(
    file: *mut ffi::sqlite3_file,
    reserved: *mut c_int,
) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    let state = open.disk.borrow();
    let node = state.files.get(&open.name);
    let is_reserved = node.is_some_and(|node| node.locks.is_reserved());
    // SAFETY: SQLite gives a place for the answer.
    unsafe { *reserved = c_int::from(is_reserved) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn file_control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    SECTOR_BYTES
}

/// As SQLite's own file system says, unless told otherwise.
unsafe extern "C" fn device_characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn shared_map(
    file: *mut ffi::sqlite3_file,
    index: c_int,
    bytes: c_int,
    extend: c_int,
    region: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    let state = open.disk.borrow();
    let node = state.files.get(&open.name);
    let Some(node) = node.filter(|_| open.life == state.life) else {
        return ffi::SQLITE_IOERR_SHMMAP;
    };
    let shared = open.shared.get_or_insert_with(|| Rc::clone(&node.shared));
    let regions = &mut shared.borrow_mut().0;
    while extend != 0 && regions.len() <= index as usize {
        regions.push(Region::new(bytes as usize));
    }
    let found = regions.get(index as usize);
    let start = found.map_or(ptr::null_mut(), |region| region.0.cast::<c_void>());
    // SAFETY: SQLite gives a place for the answer. The region stays where it is until the last
    // open file that mapped it has let go of it.
    unsafe { *region = start };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shared_lock(
    file: *mut ffi::sqlite3_file,
    first: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    let slots = first as usize..(first + count) as usize;
    let mut state = open.disk.borrow_mut();
    if open.life != state.life {
        return ffi::SQLITE_IOERR_SHMLOCK;
    }
    let Some(node) = state.files.get_mut(&open.name) else {
        return ffi::SQLITE_IOERR_SHMLOCK;
    };
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        node.slots.give_back(open.holder, slots);
        return ffi::SQLITE_OK;
    }
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    if node.slots.take(open.holder, slots, exclusive) {
        ffi::SQLITE_OK
    } else {
        ffi::SQLITE_BUSY
    }
}

/// One thread at a time.
unsafe extern "C" fn shared_barrier(_: *mut ffi::sqlite3_file) {}

unsafe extern "C" fn shared_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    // SAFETY: SQLite calls methods of open files.
    let open = unsafe { opened(file) };
    open.shared = None;
    let mut state = open.disk.borrow_mut();
    if open.life == state.life
        && let Some(node) = state.files.get_mut(&open.name)
    {
        node.slots.give_back(open.holder, 0..crate::locks::SLOTS);
        // Only while nobody has it mapped: who maps it next is to find it empty.
        if delete != 0 || Rc::strong_count(&node.shared) == 1 {
            node.shared = Rc::default();
        }
    }
    ffi::SQLITE_OK
}
