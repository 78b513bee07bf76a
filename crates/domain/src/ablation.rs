//! The protective rules that a test can take out, to show that it would notice.

/// The rules of one core that are in force: all of them, but in builds with the feature
/// `ablation`, which only tests ask for, where one can be taken out. `R` names the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rules<R> {
    /// `None` in every other build.
    without: Option<R>,
}

impl<R> Default for Rules<R> {
    fn default() -> Self {
        Self { without: None }
    }
}

impl<R: Copy + PartialEq> Rules<R> {
    /// All but one.
    #[cfg(feature = "ablation")]
    pub fn without(rule: R) -> Self {
        Self {
            without: Some(rule),
        }
    }

    /// Whether a rule is in force.
    pub fn keep(self, rule: R) -> bool {
        !cfg!(feature = "ablation") || self.without != Some(rule)
    }
}
