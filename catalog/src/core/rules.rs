//! The protective rules that a test can take out, to show that it would notice.

/// A rule without which something that was promised is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// Only the current epoch's leader trades and changes the in-sync set.
    EpochCheck,
    /// A key that has a row gets no other one.
    KeyCheck,
    /// No change of the in-sync set is made after a later one of the same epoch.
    ChangeOrder,
}

/// The rules in force: all of them, but in a build for the model checker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Rules {
    #[cfg(feature = "ablation")]
    without: Option<Rule>,
}

impl Rules {
    /// All but one.
    #[cfg(feature = "ablation")]
    pub fn without(rule: Rule) -> Self {
        Self {
            without: Some(rule),
        }
    }

    /// Whether a rule is in force.
    #[cfg(feature = "ablation")]
    pub(super) fn keep(self, rule: Rule) -> bool {
        self.without != Some(rule)
    }

    /// Whether a rule is in force.
    #[cfg(not(feature = "ablation"))]
    pub(super) fn keep(self, _: Rule) -> bool {
        true
    }
}
