//! That a component is one, and its machine code.

use wasmtime::component::Component;

use super::rejection::{Problem, Rejection};
use super::signature::Verified;
use crate::guest::compiler::CompileError;
use crate::guest::digest::Digest;
use crate::guest::engine::Engine;
use crate::limits;

/// What a core module begins with: the magic number, and the version of the binary format.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// A component of which there is machine code.
pub(super) struct Compiled {
    digest: Digest,
    component: Component,
}

impl Compiled {
    pub(super) fn into_parts(self) -> (Digest, Component) {
        (self.digest, self.component)
    }
}

/// Compiles a component, unless the engine's cache has its code.
pub(super) fn compile(engine: &Engine, verified: Verified<'_>) -> Result<Compiled, Rejection> {
    let component = verified.component();
    if component.len() > limits::COMPONENT_BYTES_MAX {
        return Err(Problem::TooLarge(component.len()).into());
    }
    if component.starts_with(CORE_MODULE) {
        return Err(Problem::CoreModule.into());
    }
    let digest = Digest::of(component);
    let component = engine
        .compile(digest, component)
        .map_err(|error| match error {
            CompileError::Invalid(why) => Rejection::from(Problem::NotAComponent(why)),
            CompileError::TooCostly(what) => Problem::TooCostly(what).into(),
            CompileError::NotRun(error) => Rejection::NotChecked(error),
        })?;
    Ok(Compiled { digest, component })
}
