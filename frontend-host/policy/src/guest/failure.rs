//! Why there is no decision.

use wasmtime::Trap;

use crate::decision::InvalidDecision;

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The component trapped. The message has its backtrace.
    #[error("it trapped: {0}")]
    Trap(String),
    /// It was stopped at its deadline. The message has its backtrace.
    #[error("it took longer than it may: {0}")]
    Overrun(String),
    /// It decided something that no host could act on.
    #[error("its decision is invalid: {0}")]
    Invalid(#[from] InvalidDecision),
}

impl Failure {
    /// What it comes down to, on one line.
    pub fn cause(&self) -> &str {
        let (Self::Trap(message)
        | Self::Overrun(message)
        | Self::Invalid(InvalidDecision(message))) = self;
        let cause = message.lines().next().unwrap_or_default();
        cause.strip_prefix("wasm trap: ").unwrap_or(cause)
    }
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        // The cause first, and then the guest's backtrace.
        let message = format!("{}\n{error:?}", error.root_cause());
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::Overrun(message),
            _ => Self::Trap(message),
        }
    }
}
