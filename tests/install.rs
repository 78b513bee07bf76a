//! What a package has: the command, manual pages, what shells complete by, units and settings.
//!
//! - [`packed`]: where all of it is once it is unpacked.

mod packed;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;

use crate::harness::{run_ok, run_with, skip};

/// The commands below one that its help names, and those below them, each as its page is called.
fn pages(command: &[String]) -> BTreeSet<String> {
    let help = run_ok(command.iter().map(String::as_str).chain(["-h"]));
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let mut pages = BTreeSet::new();
    for line in lines.take_while(|line| !line.is_empty()) {
        // What is told of one goes on further to the right.
        let name = line.strip_prefix("  ").unwrap_or(line);
        let name = name.split(' ').next().unwrap_or_default();
        if name.is_empty() || name == "help" {
            continue;
        }
        let below = [command, &[name.to_owned()]].concat();
        pages.insert(format!("bazaar-{}.1", below.join("-")));
        pages.extend(self::pages(&below));
    }
    pages
}

fn manual(dir: &Path, made_by: &str) -> BTreeMap<String, String> {
    let to = dir.join(made_by);
    let environment = [("USER", made_by), ("LOGNAME", made_by)];
    let made = run_with(&environment, ["man", to.to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    let pages = fs::read_dir(to).unwrap().map(|page| page.unwrap());
    let read = pages.map(|page| {
        let name = page.file_name().into_string().unwrap();
        (name, fs::read_to_string(page.path()).unwrap())
    });
    read.collect()
}

#[test]
fn there_is_a_page_for_each_command_and_the_same_one_whoever_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    let made = manual(dir.path(), "packerone");
    let mut commands = pages(&[]);
    assert!(
        commands.contains("bazaar-policy-push.1") && commands.len() > 30,
        "{commands:?}"
    );
    commands.insert("bazaar.1".to_owned());
    assert_eq!(made.keys().cloned().collect::<BTreeSet<_>>(), commands);
    for (name, page) in &made {
        assert!(!page.contains("packerone"), "{name}: {page}");
    }
    let again = manual(dir.path(), "packertwo");
    assert!(made == again, "pages are other ones");
}

#[test]
fn shells_understand_what_they_are_to_complete_by() {
    let dir = tempfile::tempdir().unwrap();
    for (shell, only_reads) in [
        ("bash", Some("-n")),
        ("zsh", Some("-n")),
        ("fish", Some("--no-execute")),
        ("elvish", None),
        ("powershell", None),
    ] {
        let text = run_ok(["completions", shell]);
        for word in ["rollback", "data-dir"] {
            assert!(text.contains(word), "{word} in {shell}'s");
        }
        let Some(only_reads) = only_reads else {
            continue;
        };
        let file = dir.path().join(shell);
        fs::write(&file, text).unwrap();
        match Command::new(shell).arg(only_reads).arg(&file).output() {
            Ok(read) => assert!(read.status.success(), "{shell}: {read:?}"),
            // Of the others a machine has those that somebody likes.
            Err(error) if shell != "bash" && error.kind() == ErrorKind::NotFound => {}
            Err(error) => skip(shell, error),
        }
    }
}
