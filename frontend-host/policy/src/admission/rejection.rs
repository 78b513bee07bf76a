//! Why a component cannot serve: everything that is wrong with it, in words for the person who
//! wrote it.

use std::fmt;
use std::io;

use super::signature::Untrusted;
use crate::guest::bindings::WORLDS;
use crate::guest::wasi::NotGranted;
use crate::limits;

/// Why a component may not serve.
#[derive(Debug)]
pub enum Rejection {
    /// Nobody who is trusted has signed it; nothing else is known of it.
    Untrusted(Untrusted),
    /// It cannot serve, because of these: one problem at least.
    Unfit(Vec<Problem>),
    /// Another one is being checked: one at a time is enough for a machine.
    Busy,
    /// It could not be checked, for which it is not to blame.
    NotChecked(io::Error),
}

impl Rejection {
    /// Rejects a component that has problems.
    pub(super) fn check(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            Ok(())
        } else {
            Err(Self::Unfit(problems))
        }
    }

    /// What keeps it from serving; nothing of one that is not trusted.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Untrusted(_) | Self::Busy | Self::NotChecked(_) => &[],
            Self::Unfit(problems) => problems,
        }
    }
}

impl From<Problem> for Rejection {
    fn from(problem: Problem) -> Self {
        Self::Unfit(vec![problem])
    }
}

impl From<Untrusted> for Rejection {
    fn from(untrusted: Untrusted) -> Self {
        Self::Untrusted(untrusted)
    }
}

impl std::error::Error for Rejection {}

/// One problem as it is, several on a line each.
impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Untrusted(untrusted) => write!(f, "{untrusted}"),
            Self::Busy => write!(f, "another one is being checked; send it again in a while"),
            Self::NotChecked(error) => write!(f, "it could not be checked: {error}"),
            Self::Unfit(problems) => match problems.as_slice() {
                [problem] => write!(f, "{problem}"),
                problems => {
                    write!(f, "{} things are wrong with it:", problems.len())?;
                    problems
                        .iter()
                        .try_for_each(|problem| write!(f, "\n- {problem}"))
                }
            },
        }
    }
}

/// One thing that keeps a component from serving. Its words are one line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It is larger than [`limits::COMPONENT_BYTES_MAX`].
    #[error("it is too large: it has {0} bytes, and {max} are allowed", max = limits::COMPONENT_BYTES_MAX)]
    TooLarge(usize),
    /// It is a module, such as `wasm32-unknown-unknown` and `wasm32-wasip1` give.
    #[error(
        "it is a core module of WebAssembly, not a component: compile it for wasm32-wasip2, or make a component of it with `wasm-tools component new`"
    )]
    CoreModule,
    /// It does not compile.
    #[error("it is not a WebAssembly component: {0}")]
    NotAComponent(String),
    /// It takes more to compile than a component of its size may.
    #[error("it is too costly to compile: {0}")]
    TooCostly(String),
    /// It wants something that policies are not given.
    #[error(transparent)]
    Import(#[from] NotGranted),
    /// It was made for another version of the world.
    #[error(
        "it is made for another version of the world: it exports `{exported}`, and this gateway calls {}", .called.map(|name| format!("`{name}`")).join(" or ")
    )]
    Version {
        /// The interface as it has it.
        exported: String,
        /// As it should: one of them.
        called: [&'static str; WORLDS.len()],
    },
    /// It lacks a function of the interface.
    #[error("it does not export `{function}` of `{interface}`")]
    Missing {
        interface: &'static str,
        function: &'static str,
    },
    /// A function of the interface has another type.
    #[error("its `{function}` is not of the type that `{interface}` says: {problem}")]
    Mistyped {
        interface: &'static str,
        function: &'static str,
        problem: String,
    },
    /// Its imports have other types than those of the interfaces they name.
    #[error("it does not fit the world `front-end` that `{interface}` is of: {problem}")]
    World {
        interface: &'static str,
        problem: String,
    },
    /// Its configuration is larger than [`limits::CONFIG_BYTES_MAX`].
    #[error("its configuration is too large: it has {0} bytes, and {max} are allowed", max = limits::CONFIG_BYTES_MAX)]
    ConfigTooLarge(usize),
    /// It was given a configuration, and is of a world that has none.
    #[error(
        "it takes no configuration, since it is made for `{interface}`: send it without one, or build it for the newest world"
    )]
    NoConfig { interface: &'static str },
    /// Its configuration refers to a secret that it cannot have.
    #[error("its configuration cannot be completed: {0}")]
    Secret(String),
    /// It does not take the configuration that it was given. In its own words.
    #[error("its configuration is refused: {}", OneLine(.0))]
    ConfigRefused(String),
    /// It does not say what it is, or a language's runtime does not start.
    #[error("it does not start, its `{function}` failed: {cause}")]
    Start {
        function: &'static str,
        cause: String,
    },
    /// It trapped in the self-test.
    #[error("it traps on {tests}: {cause}")]
    Traps { tests: Tests, cause: String },
    /// It took longer than a decision may, in the self-test.
    #[error("it is too slow: it takes longer than a decision may on {0}")]
    TooSlow(Tests),
    /// It decided in the self-test what no host could act on.
    #[error("it decides what cannot be done on {tests}: {problem}")]
    Invalid { tests: Tests, problem: String },
    /// What it keeps would be served to clients for whom it renders something else.
    #[error(
        "it keeps a response that depends on {by}, and so gives it to clients who would get another, on {tests}: put what a response depends on into the {key} of its read, or answer without `keep-ms`"
    )]
    NotInKey {
        /// What of a request.
        by: String,
        tests: Tests,
        /// What the key is called in its world.
        key: &'static str,
    },
    /// The same inputs gave two answers, so it cannot be replayed.
    #[error(
        "it is not deterministic, the same inputs give two answers, on {0}: a policy must keep nothing from one call to the next"
    )]
    NotDeterministic(Tests),
}

/// Another's words, so that they are one line, are not too many, and do nothing to a terminal.
struct OneLine<'a>(&'a str);

/// What is shown of a policy's own words, in characters.
const WORDS_CHARS_MAX: usize = 400;

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, character) in self.0.chars().enumerate() {
            if index == WORDS_CHARS_MAX {
                return write!(f, "…");
            }
            // Quotes and backslashes do no harm, and are the words' own.
            if character.is_ascii_graphic() {
                write!(f, "{character}")?;
            } else {
                write!(f, "{}", character.escape_debug())?;
            }
        }
        Ok(())
    }
}

/// Self-tests that failed alike. Displayed with the first few by name.
#[derive(Debug, PartialEq, Eq)]
pub struct Tests(pub Vec<String>);

/// Tests that are named.
const NAMED_MAX: usize = 3;

/// What is shown of a test's name, in characters: targets can be long.
const NAME_CHARS_MAX: usize = 60;

impl fmt::Display for Tests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, test) in self.0.iter().take(NAMED_MAX).enumerate() {
            let separator = if index > 0 { ", " } else { "" };
            match test.char_indices().nth(NAME_CHARS_MAX) {
                Some((end, _)) => write!(f, "{separator}`{}…`", &test[..end])?,
                None => write!(f, "{separator}`{test}`")?,
            }
        }
        match self.0.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_problem_is_a_line() {
        let tests = (0..5).map(|number| format!("GET /{number}")).collect();
        let problems = vec![Problem::CoreModule, Problem::TooSlow(Tests(tests))];
        let rejection = Rejection::check(problems).unwrap_err().to_string();
        let lines: Vec<_> = rejection.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "2 things are wrong with it:");
        assert!(lines[2].ends_with("on `GET /0`, `GET /1`, `GET /2` and 2 more"));
        let long = Tests(vec!["é".repeat(1000)]).to_string();
        assert_eq!(long.chars().count(), NAME_CHARS_MAX + 3);
    }

    #[test]
    fn a_policy_s_own_words_are_one_line_that_does_nothing_to_a_terminal() {
        for (words, shown) in [
            (
                "`limit` must be a \"number\"",
                "`limit` must be a \"number\"",
            ),
            ("größer wie 7", "größer wie 7"),
            ("a\nb\r\u{1b}[31m\u{202e}", r"a\nb\r\u{1b}[31m\u{202e}"),
            ("", ""),
        ] {
            let problem = Problem::ConfigRefused(words.to_owned()).to_string();
            assert_eq!(problem, format!("its configuration is refused: {shown}"));
        }
        let long = OneLine(&"é".repeat(10_000)).to_string();
        assert_eq!(long.chars().count(), WORDS_CHARS_MAX + 1);
    }
}
