//! Headers that the host adds to every reply.

use crate::types::ReplyHeader;

impl ReplyHeader {
    /// One that every reply gets that has none of that name. `name` is in lower case.
    pub fn always(name: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            value: value.to_owned(),
            when: None,
        }
    }

    /// The same only for requests that have a header once, with exactly this value. The host adds the
    /// name of that header to `vary`.
    #[must_use]
    pub fn when(mut self, name: &str, value: &str) -> Self {
        self.when = Some((name.to_owned(), value.to_owned()));
        self
    }
}
