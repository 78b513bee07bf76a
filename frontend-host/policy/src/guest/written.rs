//! What a guest wrote, and texts without what nobody is to see of them.

/// The beginning of what a guest wrote to its standard output and standard error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    pub text: String,
    /// How many bytes followed that were not kept.
    pub dropped: usize,
}

impl Written {
    /// Of its first bytes.
    pub(crate) fn new(first: &[u8], dropped: usize) -> Self {
        let mut text = String::from_utf8_lossy(first).into_owned();
        if dropped > 0 {
            // A character that was cut in two.
            text.truncate(text.trim_end_matches(char::REPLACEMENT_CHARACTER).len());
        }
        Self { text, dropped }
    }

    /// Of a text that is all there.
    pub(crate) fn whole(text: &str) -> Self {
        let text = text.to_owned();
        Self { text, dropped: 0 }
    }

    /// The same without these texts, which are looked for in this order.
    pub(crate) fn without<'a>(self, secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let secrets: Vec<&str> = secrets.into_iter().collect();
        let whole = match self.dropped {
            0 => &self.text,
            _ => before_cut(&self.text, &secrets),
        };
        Self {
            text: without(whole, secrets),
            ..self
        }
    }
}

/// A text without these texts, which are looked for in this order: so what others are part of is to go first.
pub(crate) fn without<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut shown = text.to_owned();
    for secret in secrets {
        if !secret.is_empty() && shown.contains(secret) {
            shown = shown.replace(secret, "…");
        }
    }
    shown
}

/// A text that was cut off, without the beginning of a secret at its end: its rest may have followed.
fn before_cut<'a>(text: &'a str, secrets: &[&str]) -> &'a str {
    let begun = |secret: &&str| {
        let ends = secret.char_indices().map(|(end, _)| end).skip(1);
        ends.filter(|end| text.ends_with(&secret[..*end])).max()
    };
    let begun = secrets.iter().filter_map(begun).max();
    &text[..text.len() - begun.unwrap_or(0)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str, dropped: usize) -> String {
        shown_bytes(text.as_bytes(), dropped)
    }

    fn shown_bytes(bytes: &[u8], dropped: usize) -> String {
        let written = Written::new(bytes, dropped);
        written.without(["open sesame", "sesame", "löl"]).text
    }

    #[test]
    fn a_secret_that_was_cut_off_does_not_show_by_its_beginning() {
        for (text, cut) in [
            ("he said open sesame", "he said …"),
            ("he said open ses", "he said "),
            ("he said ses", "he said "),
            ("he said s", "he said "),
            ("he said lö", "he said "),
            ("sesame! and no more", "…! and no more"),
        ] {
            assert_eq!(shown(text, 1), cut);
        }
        assert_eq!(shown("he said open ses", 0), "he said open ses");
        assert_eq!(shown_bytes(b"he said l\xc3", 1), "he said ");
    }
}
