//! Why a value was refused.

/// Why a value was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct Invalid {
    /// Which value, by the name that users know it by.
    pub what: &'static str,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl Invalid {
    /// A refusal of the value `what`.
    pub fn new(what: &'static str, problem: impl Into<String>) -> Self {
        Self {
            what,
            problem: problem.into(),
        }
    }
}
