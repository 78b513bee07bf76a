//! What documents have people type: command lines that Bazaar takes, and flags that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use clap::{CommandFactory as _, Parser as _};

use super::Cli;

const DOCUMENTS: [&str; 6] = [
    "README.md",
    "SECURITY.md",
    "deploy/README.md",
    "docs/OPERATING.md",
    "docs/POLICIES.md",
    "docs/SCALING.md",
];

/// Flags that they name besides: those that every command has, and other programs'.
const OTHERS: [&str; 16] = [
    "bundle",
    "cacert",
    "dir",
    "enable-feature",
    "from-oci-layout",
    "help",
    "ignored",
    "locked",
    "new-bundle-format",
    "nocapture",
    "now",
    "path",
    "test",
    "to-oci-layout",
    "use-signing-config",
    "version",
];

/// What a shell puts in the place of what is written there.
const EXPANDED: [(&str, &str); 5] = [
    ("$((56888 + N))", "56889"),
    ("$TLS", "sslmode=verify-full"),
    ("$C", "certs"),
    ("$N", "1"),
    ("$n", "1"),
];

fn read(document: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap()
}

/// The names of all flags of a command, and of those below it.
fn flags_of(command: &clap::Command, flags: &mut BTreeSet<String>) {
    let own = command.get_arguments().filter_map(clap::Arg::get_long);
    flags.extend(own.map(str::to_owned));
    for below in command.get_subcommands() {
        flags_of(below, flags);
    }
}

/// The names of the flags in a text.
fn flags_in(text: &str) -> impl Iterator<Item = &str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '-';
    let words = text.split(move |letter: char| !is_part(letter));
    let flags = words.filter_map(|word| word.strip_prefix("--"));
    flags.filter(|name| name.starts_with(|letter: char| letter.is_ascii_lowercase()))
}

/// Bazaar's command lines in what a document has for a shell, each in words; those that leave something out are passed
/// over.
fn typed_in(text: &str) -> Vec<Vec<String>> {
    let blocks = text.split("```").skip(1).step_by(2);
    let shell = blocks.filter_map(|block| block.strip_prefix("sh\n"));
    let script = shell.collect::<String>().replace("\\\n", " ");
    let lines = script.lines().map(|line| {
        let line = line.split(" #").next().unwrap_or_default();
        let repeated = line.strip_suffix("; done");
        let repeated = repeated.and_then(|line| line.split_once("; do "));
        repeated.map_or(line, |(_, line)| line)
    });
    let own = lines.filter(|line| line.starts_with("bazaar ") && !line.contains('…'));
    own.map(words).collect()
}

/// A line taken apart as a shell does it, where whole words are in quotes.
fn words(line: &str) -> Vec<String> {
    let expand = |line: String, (written, meant): (&str, &str)| line.replace(written, meant);
    let line = EXPANDED.into_iter().fold(line.to_owned(), expand);
    let parts = line.split('"').enumerate();
    let words = parts.flat_map(|(number, part)| match number % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect(),
        _ => vec![part.to_owned()],
    });
    words.collect()
}

#[test]
fn every_flag_in_the_documents_is_one_that_some_command_has() {
    let mut known = BTreeSet::from(OTHERS.map(str::to_owned));
    flags_of(&Cli::command(), &mut known);
    for document in DOCUMENTS {
        let text = read(document);
        let unknown: Vec<_> = flags_in(&text)
            .filter(|flag| !known.contains(*flag))
            .collect();
        assert!(unknown.is_empty(), "{document}: {unknown:?}");
    }
}

#[test]
fn every_command_line_in_the_documents_is_one_that_bazaar_takes() {
    let mut lines = 0;
    for document in DOCUMENTS {
        for line in typed_in(&read(document)) {
            lines += 1;
            if let Err(refused) = Cli::try_parse_from(&line) {
                panic!("{document}: {}: {refused}", line.join(" "));
            }
        }
    }
    assert!(lines > 60, "{lines}");
}
