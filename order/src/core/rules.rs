//! The protective rules that a test can take out, to show that it would notice.

/// A rule without which something that was promised is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rule {
    /// A leader-elect leads only once it holds all that the catalog says is in the journal.
    ActivationCatchUp,
    /// Only the catalog can say that an order does not exist.
    ConfirmedAbsence,
    /// A removed follower counts until the catalog has confirmed a set without it.
    ConfirmedRemoval,
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
