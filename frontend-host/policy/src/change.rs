//! What changes the policy: a component, and who wants it.

/// Who changes the policy, and why.
#[derive(Debug, Clone)]
pub struct Reason {
    /// A person, or the part of the gateway that did it.
    pub who: String,
    /// In words.
    pub why: String,
}

/// A component from outside.
#[derive(Debug, Clone, Copy)]
pub struct Upload<'a> {
    /// Its bytes.
    pub component: &'a [u8],
    /// A detached signature over them, see `trust`.
    pub signature: Option<&'a str>,
}

impl<'a> From<&'a [u8]> for Upload<'a> {
    fn from(component: &'a [u8]) -> Self {
        Self {
            component,
            signature: None,
        }
    }
}

impl<'a> From<&'a Vec<u8>> for Upload<'a> {
    fn from(component: &'a Vec<u8>) -> Self {
        component.as_slice().into()
    }
}
