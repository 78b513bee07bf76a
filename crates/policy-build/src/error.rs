//! Why there is no component.

use std::io;
use std::path::PathBuf;

use crate::{RustVersion, TARGET};

/// Why a policy could not be built.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No compiler here can build for the target.
    #[error("no standard library for {TARGET} is installed; get it with: make wasm-target")]
    NoTarget,
    /// Debian's compiler is here, but cannot compile policies.
    #[error("{} is Rust {}, and policies need {needed} or newer; get it with: make wasm-target", rustc.display(), shown(*found))]
    TooOld {
        /// The compiler that was found.
        rustc: PathBuf,
        /// What it is, where it says so.
        found: Option<RustVersion>,
        /// What it must be at least.
        needed: RustVersion,
    },
    /// Debian's compiler is here, but not what links a component.
    #[error(
        "`{0}` is neither in a rustup toolchain nor on the PATH; get it with: make wasm-target"
    )]
    NoLinker(&'static str),
    /// A program could not be started.
    #[error("cannot run `{program}`: {source}")]
    Run {
        /// The program, as it was looked for.
        program: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// There is no crate, or cargo cannot make sense of it.
    #[error("no crate in {}:\n{output}", dir.display())]
    NoCrate {
        /// Where it was looked for.
        dir: PathBuf,
        /// What cargo wrote to standard error.
        output: String,
    },
    /// The compiler refused the policy.
    #[error("the policy in {} does not build{}", dir.display(), reasons(output))]
    Failed {
        /// The directory of the crate.
        dir: PathBuf,
        /// What the compiler said. Empty where it was shown already.
        output: String,
    },
    /// The crate builds, but into something else.
    #[error("the crate in {} builds no component; its Cargo.toml needs: crate-type = [\"cdylib\"]", dir.display())]
    NoComponent {
        /// The directory of the crate.
        dir: PathBuf,
    },
}

fn shown(version: Option<RustVersion>) -> String {
    version.map_or("of no version".to_owned(), |it| it.to_string())
}

fn reasons(output: &str) -> String {
    if output.is_empty() {
        "; why is said above".to_owned()
    } else {
        format!(":\n{output}")
    }
}
