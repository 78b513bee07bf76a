//! A request as a line for a shell.

use http::Method;

use super::minimize::Reducible;

/// Where the gateway is in the documents.
const ORIGIN: &str = "http://localhost:8080";

impl Reducible {
    /// A line that sends it to a gateway on this machine.
    pub(super) fn curl(&self) -> String {
        let mut line = "curl --path-as-is --globoff".to_owned();
        if self.method == Method::HEAD {
            line += " --head";
        } else if self.method != Method::GET || self.body.is_some() {
            line += &format!(" --request {}", quoted(self.method.as_str().as_bytes()));
        }
        for (name, value) in &self.headers {
            // curl leaves a header without a value out where it ends in a colon.
            let header = match value.as_bytes() {
                b"" => format!("{name};").into_bytes(),
                value => [name.as_str().as_bytes(), b": ", value].concat(),
            };
            line += &format!(" --header {}", quoted(&header));
        }
        if let Some(body) = &self.body {
            let has_type = self.headers.iter().any(|(name, _)| name == "content-type");
            if !has_type {
                // curl's own would be that of a form.
                line += " --header 'content-type: application/json'";
            }
            line += &format!(" --data-binary {}", quoted(body));
        }
        line + " " + &quoted(format!("{ORIGIN}{}", self.target).as_bytes())
    }
}

/// A word as bash and zsh read it.
fn quoted(word: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_./:=%,@+".contains(byte);
    if !word.is_empty() && word.iter().all(is_plain) {
        return String::from_utf8_lossy(word).into_owned();
    }
    match std::str::from_utf8(word) {
        Ok(text)
            if !text.contains(|letter: char| letter.is_control()) && !text.starts_with('@') =>
        {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
        _ => {
            let escaped: String = word
                .iter()
                .map(|byte| match byte {
                    b'\'' | b'\\' => format!("\\{}", char::from(*byte)),
                    b' '..=b'~' => char::from(*byte).to_string(),
                    byte => format!("\\x{byte:02x}"),
                })
                .collect();
            format!("$'{escaped}'")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};
    use std::process::Command;

    fn request(method: Method, target: &str) -> Reducible {
        Reducible {
            method,
            target: target.to_owned(),
            headers: Vec::new(),
            body: None,
            about_outcome: false,
        }
    }

    #[test]
    fn a_line_says_all_of_a_request() {
        assert_eq!(
            request(Method::GET, "/stocks/a?x=1&y").curl(),
            "curl --path-as-is --globoff 'http://localhost:8080/stocks/a?x=1&y'"
        );
        let mut post = request(Method::POST, "/orders");
        post.headers = vec![
            (
                HeaderName::from_static("x-a"),
                HeaderValue::from_static("it's"),
            ),
            (HeaderName::from_static("x-b"), HeaderValue::from_static("")),
        ];
        post.body = Some(br#"{"name":1}"#.to_vec());
        assert_eq!(
            post.curl(),
            r#"curl --path-as-is --globoff --request POST --header 'x-a: it'\''s' --header 'x-b;' --header 'content-type: application/json' --data-binary '{"name":1}' http://localhost:8080/orders"#
        );
        let head = request(Method::HEAD, "/");
        assert_eq!(
            head.curl(),
            "curl --path-as-is --globoff --head http://localhost:8080/"
        );
    }

    #[test]
    fn a_shell_reads_a_word_as_it_was() {
        let all: Vec<u8> = (1..=255).collect();
        for word in [
            &all[..],
            b"",
            b"plain",
            b"it's",
            b"$x `y` \\n",
            b"@file",
            b"a\nb",
        ] {
            let echoed = Command::new("bash")
                .args(["-c", &format!("printf %s {}", quoted(word))])
                .output()
                .expect("bash runs");
            assert_eq!(echoed.stdout, word, "{}", quoted(word));
        }
    }
}
