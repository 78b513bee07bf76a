//! Why there is no decision.

use wasmtime::{Trap, WasmBacktrace};

use crate::decision::InvalidDecision;
use crate::guest::written::Written;

/// What is kept of a backtrace, in bytes.
const BACKTRACE_BYTES_MAX: usize = 4 << 10;

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
    pub output: Written,
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
    pub(super) fn with_output(mut self, output: Written) -> Self {
        if let Self::Trap(crash) | Self::Overrun(crash) = &mut self {
            crash.output = output;
        }
        self
    }
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
        let backtrace = error.downcast_ref::<WasmBacktrace>();
        let mut backtrace = backtrace.map(ToString::to_string).unwrap_or_default();
        backtrace.truncate(backtrace.floor_char_boundary(BACKTRACE_BYTES_MAX));
        let crash = Crash {
            cause: cause
                .strip_prefix("wasm trap: ")
                .unwrap_or(cause)
                .to_owned(),
            output: Written::default(),
            backtrace: backtrace.trim_end().to_owned(),
        };
        match error.downcast_ref::<Trap>() {
            Some(Trap::Interrupt) => Self::Overrun(crash),
            _ => Self::Trap(crash),
        }
    }
}
