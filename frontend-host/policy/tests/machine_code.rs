//! Machine code of components, compiled once in a test run: a hundred tests want the same few, each in an engine of its
//! own, and compiling one takes half a second where nothing is optimised.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use frontend_policy::{CodeCache, Engine};

/// Where it is kept, for this run alone: it may be that the next one's is compiled in another way.
static DIR: LazyLock<PathBuf> = LazyLock::new(|| {
    let name = concat!(env!("CARGO_PKG_NAME"), "-machine-code");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if dir.exists() {
        fs::remove_dir_all(&dir).expect("it is ours");
    }
    dir
});

/// The same engine, which compiles nothing that another one has. Where two compile the same at once, it may be that
/// neither's is kept, and what is half written is not loaded.
pub fn kept(engine: Engine) -> Engine {
    let code_cache = CodeCache::open(DIR.clone()).expect("it is ours alone");
    engine.with_code_cache(code_cache)
}
