//! The built-in policy's machine code, compiled once in a test run.
//!
//! A gateway keeps what it has compiled in its data directory, and each of some three hundred has a new one. Its compiler
//! waits for idle processors, of which a test run leaves none, for two seconds before it takes a share. What a first start
//! is like without, those see that `bazaar up` starts.

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use frontend_policy::{Admission, CodeCache, DEFAULT_POLICY, Engine};

/// Where a gateway looks for it, in its data directory.
const DIR: &str = "compiled";

/// A gateway takes nothing that others may write to.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// What a decision may take while the policy is checked, on a busy machine.
const DECISION_TIME_MAX: Duration = Duration::from_secs(1);

/// The files that a gateway keeps, by their names.
static FILES: LazyLock<Vec<(OsString, Vec<u8>)>> = LazyLock::new(compile);

/// Has a gateway find it that is about to start with a data directory of its own; one that is there stays as it is.
pub fn put_into(data_dir: &Path) {
    if data_dir.exists() {
        return;
    }
    let dir = data_dir.join(DIR);
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(DIR_MODE);
    let made = builder.create(&dir);
    made.expect("the test's directory is writable");
    for (name, code) in FILES.iter() {
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(dir.join(name));
        let written = file.and_then(|mut file| file.write_all(code));
        written.expect("the directory is new");
    }
}

fn compile() -> Vec<(OsString, Vec<u8>)> {
    let dir = tempfile::tempdir().expect("there is a temporary directory");
    let dir = dir.path().join(DIR);
    let code_cache = CodeCache::open(dir.clone()).expect("it is new");
    let engine = Engine::new(DECISION_TIME_MAX).expect("wasmtime supports this machine");
    let admission = Admission::new(engine.with_code_cache(code_cache));
    let admitted = admission.admit(DEFAULT_POLICY, &[]);
    admitted.expect("the built-in policy is admitted");
    let files = fs::read_dir(dir).expect("it was just made");
    let files = files.map(|file| {
        let file = file.expect("it was just made");
        let code = fs::read(file.path()).expect("it was just written");
        (file.file_name(), code)
    });
    files.collect()
}
