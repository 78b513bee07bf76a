//! Why there is no decision.

use wasmtime::{Trap, WasmBacktrace};

use crate::decision::InvalidDecision;

/// What is kept of a backtrace, and of what the guest wrote, in bytes.
const TEXT_BYTES_MAX: usize = 4 << 10;

/// Why there is no decision.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    /// The component trapped.
    #[error("it trapped: {}", .0.cause)]
    Trap(Crash),
    /// It was stopped at its deadline.
    #[error("it took longer than it may: {}", .0.cause)]
    Overrun(Crash),
    /// It decided something that no host could act on.
    #[error("its decision is invalid: {0}")]
    Invalid(#[from] InvalidDecision),
}

/// How a call ended that did not return.
#[derive(Debug, Clone, Default)]
pub struct Crash {
    /// On one line.
    pub cause: String,
    /// What the guest wrote in that call: the message of a panic, mostly.
    pub output: String,
    /// The guest's functions that it was in, a line each.
    pub backtrace: String,
}

impl Failure {
    /// What it comes down to, on one line.
    pub fn cause(&self) -> &str {
        match self {
            Self::Trap(crash) | Self::Overrun(crash) => &crash.cause,
            Self::Invalid(InvalidDecision(problem)) => problem.lines().next().unwrap_or_default(),
        }
    }

    /// How the call ended, where it did not return.
    pub fn crash(&self) -> Option<&Crash> {
        match self {
            Self::Trap(crash) | Self::Overrun(crash) => Some(crash),
            Self::Invalid(_) => None,
        }
    }

    /// In a word, for JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Trap(_) => "trap",
            Self::Overrun(_) => "overrun",
            Self::Invalid(_) => "invalid",
        }
    }

    /// With what the guest wrote in the call.
    pub(super) fn with_output(mut self, output: &[u8]) -> Self {
        if let Self::Trap(crash) | Self::Overrun(crash) = &mut self {
            let text = String::from_utf8_lossy(output);
            crash.output = beginning(text.trim()).to_owned();
        }
        self
    }
}

/// As much of a text as is kept.
fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}

impl From<&str> for Crash {
    fn from(cause: &str) -> Self {
        Self {
            cause: cause.to_owned(),
            ..Self::default()
        }
    }
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        let cause = error.root_cause().to_string();
        let cause = cause.lines().next().unwrap_or_default();
        let backtrace = error
            .downcast_ref::<WasmBacktrace>()
            .map(ToString::to_string);
        let crash = Crash {
            cause: cause
                .strip_prefix("wasm trap: ")
                .unwrap_or(cause)
                .to_owned(),
            output: String::new(),
            backtrace: beginning(&backtrace.unwrap_or_default())
                .trim_end()
                .to_owned(),
        };
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::Overrun(crash),
            _ => Self::Trap(crash),
        }
    }
}
