//! What the documents tell people to type is typed here, as it stands, in a network and among
//! processes of its own: the ports are those of the documents. And what they name of the code is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use frontend_policy::rollout::Plan;
use tempfile::TempDir;

use crate::harness::{Turn, skip};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// What goes before each line of a script that types. Failures end it.
const PRELUDE: &str = r#"
set -euo pipefail
shopt -s expand_aliases
ip link set lo up
export CARGO_NET_OFFLINE=true
curl() { command curl --silent --show-error --fail-with-body --max-time 60 "$@" && echo; }
bazaar up --data-dir "$DIR/data" > "$DIR/up.log" 2>&1 &
for attempt in $(seq 600); do
    if curl --output /dev/null localhost:8081/readyz 2> /dev/null; then break; fi
    sleep 0.1
done
curl localhost:8081/readyz
set -x
"#;

/// The code of a language in a document: the block that has this line in it.
fn block(document: &str, language: &str, line: &str) -> String {
    let text = fs::read_to_string(format!("{ROOT}/{document}")).unwrap();
    let mut blocks = text.split("```").skip(1).step_by(2);
    let block = blocks.find(|block| block.starts_with(language) && block.contains(line));
    let block = block.unwrap_or_else(|| panic!("{document} has no block with `{line}`"));
    block[language.len()..].to_owned()
}

/// Types it beside a bazaar whose files are in `dir`. Returns what came out of it; none where this
/// machine gives nobody a network of their own.
fn typed(dir: &TempDir, lines: &str) -> Option<String> {
    run_apart(dir, &format!("{PRELUDE}{lines}"))
}

/// Runs a script in a network, among processes and with mounts of its own.
fn run_apart(dir: &TempDir, lines: &str) -> Option<String> {
    let _turn = Turn::take();
    let bin = format!("{}/bin", dir.path().display());
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_bazaar"), format!("{bin}/bazaar")).unwrap();
    let script = dir.path().join("typed.sh");
    fs::write(&script, lines).unwrap();
    let namespaces = [
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
    ];
    let works = Command::new("unshare")
        .args(namespaces)
        .arg("true")
        .output();
    if !works.is_ok_and(|output| output.status.success()) {
        skip(
            "typing what the documents say",
            "`unshare --net --pid` needs root",
        );
        return None;
    }
    let output = Command::new("unshare")
        .args(namespaces)
        .arg("timeout")
        .args(["--kill-after=5", "300", "bash"])
        .arg(&script)
        .current_dir(ROOT)
        .env("DIR", dir.path())
        .env("PATH", format!("{bin}:{}", std::env::var("PATH").unwrap()))
        .output()
        .unwrap();
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    let logs = ["up", "host-1", "host-2", "host-3"].into_iter();
    let logs = logs.map(|name| dir.path().join(format!("{name}.log")));
    let log: String = logs
        .filter_map(|log| fs::read_to_string(log).ok())
        .collect();
    assert!(
        output.status.success(),
        "{}\n{out}\n{err}\n{log}",
        output.status
    );
    Some(out.into_owned())
}

/// Three hosts at a bridge, which find each other by name.
const HOSTS: &str = r#"
set -euo pipefail
cd "$DIR"
mount --make-rprivate /
mkdir -p /run/netns
mount -t tmpfs tmpfs /run/netns
printf '%s\n' '127.0.0.1 localhost' '10.77.0.1 host-1' '10.77.0.2 host-2' '10.77.0.3 host-3' > hosts
mount --bind hosts /etc/hosts
ip link set lo up
ip link add bazaar type bridge
ip address add 10.77.0.254/24 dev bazaar
ip link set bazaar up
for n in 1 2 3; do
    ip netns add host-$n
    ip link add name h$n type veth peer name eth0 netns host-$n
    ip link set h$n master bazaar up
    ip -n host-$n link set lo up
    ip -n host-$n address add 10.77.0.$n/24 dev eth0
    ip -n host-$n link set eth0 up
done
start() { ip netns exec host-$1 bash host-$1.sh >> host-$1.log 2>&1 & }
curl() { command curl --silent --show-error --fail-with-body --max-time 60 "$@" && echo; }
until_so() {
    for attempt in $(seq 600); do
        if "$@" > /dev/null 2>&1; then return; fi
        sleep 0.1
    done
    "$@"
}
set -x
"#;

/// Copies what belongs there to each host, starts it, and waits.
const STARTS: &str = r#"
for n in 1 2 3; do
    mkdir -p host-$n/certs host-$n/data
    cp certs/ca.crt certs/order-$n.* certs/gateway-edge-$n.* host-$n/certs
done
cp certs/catalog-a.* host-1/certs
for n in 3 1 2; do start $n; done
for n in 1 2 3; do until_so curl --cacert certs/ca.crt https://host-$n:8081/readyz; done
"#;

/// What it says is to be done before it is used; and the disk of the catalog is lost, and restored.
const TRIES: &str = r#"
ip netns exec host-1 bazaar backup take backup --data-dir host-1/data/catalog
bazaar backup verify backup
bazaar backup restore backup --data-dir restored
kill -9 $(ip netns pids host-3)
until_so curl --cacert certs/ca.crt https://host-2:8080/orders -d '{"name":"nvidia","type":"buy","quantity":5}'
sed -i 's/ --new / /' host-1.sh
start 3
until_so curl --cacert certs/ca.crt https://host-3:8081/readyz
curl --cacert certs/ca.crt https://host-3:8080/orders/0
curl --cacert certs/ca.crt https://host-3:8080/orders/1
kill -9 $(ip netns pids host-1)
rm -r host-1/data/catalog
bazaar backup restore backup --data-dir host-1/data/catalog --lease-ms 1000
start 1
until_so curl --cacert certs/ca.crt https://host-1:8081/readyz
curl --cacert certs/ca.crt https://host-1:8080/orders/1
"#;

#[test]
fn three_machines_are_set_up_from_nothing_as_the_manual_says() {
    const MANUAL: &str = "docs/OPERATING.md";
    let dir = tempfile::tempdir().unwrap();
    let certificates = block(MANUAL, "sh", "--for catalog/a --host host-1");
    let services = block(MANUAL, "sh", "bazaar catalog --listen 0.0.0.0:56892");
    let using = block(MANUAL, "sh", "export BAZAAR_CA=certs/ca.crt");
    for n in 1..=3 {
        let host = dir.path().join(format!("host-{n}"));
        let own = services
            .replace("N=1 ", &format!("N={n} "))
            .replace("/etc/bazaar", &host.display().to_string())
            .replace("/var/lib/bazaar", &host.join("data").display().to_string());
        let commands = own.split("\n\n").map(str::trim);
        let mut script = String::new();
        for command in commands.filter(|command| n == 1 || !command.contains("bazaar catalog")) {
            let is_service = command.contains("--data-dir");
            script += command;
            script += if is_service { " &\n" } else { "\n" };
        }
        fs::write(dir.path().join(format!("host-{n}.sh")), script + "wait\n").unwrap();
    }
    let lines = [HOSTS, &certificates, STARTS, &using, TRIES].concat();
    let Some(out) = run_apart(&dir, &lines) else {
        return;
    };
    for told in [
        "\"name\":\"nvidia\"",
        "\"transaction_number\":0",
        "\"number\":0",
        "\"number\":1",
        "whole, ",
    ] {
        assert!(out.contains(told), "`{told}` is missing:\n{out}");
    }
    // Once when the host was back, and once when the catalog was: it came after the backup.
    let found = out.matches("\"number\":1").count();
    assert_eq!(found, 2, "{out}");
    let leads = out.lines().filter(|line| line.contains("leader")).count();
    assert!(leads > 0, "{out}");
}

#[test]
fn the_tour_in_the_readme_does_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().display().to_string();
    let tour = block("README.md", "sh", "curl -i localhost:8080/stocks/nvidia")
        .replace("alias bazaar=target/release/bazaar\n", "")
        .replace(" data/", &format!(" {files}/data/"))
        .replace("--report report", &format!("--report {files}/report"));
    let Some(out) = typed(&dir, &tour) else {
        return;
    };
    for told in [
        "cache-status: bazaar; fwd=miss; stored",
        "\"number\":0",
        "cache-status: bazaar; fwd=bypass",
    ] {
        assert!(out.contains(told), "`{told}` is missing:\n{out}");
    }
    assert!(dir.path().join("report/sweep.html").exists());
}

#[test]
fn a_policy_goes_the_way_into_service_that_the_guide_describes() {
    let dir = tempfile::tempdir().unwrap();
    let component = crate::harness::example("no-cache");
    let file = dir.path().join("policy.wasm");
    fs::copy(component, &file).unwrap();
    let way = block("docs/POLICIES.md", "sh", "bazaar policy shadow");
    // They go on until somebody ends them, take hours, or need a crate of the network's: `dev` and
    // `rollouts` test them.
    let own = ["policy new", "policy dev", "policy build", "policy rollout"];
    let way: Vec<_> = way
        .lines()
        .filter(|line| !own.iter().any(|command| line.contains(command)))
        .collect();
    let recording = block("docs/POLICIES.md", "sh", "bazaar policy record")
        .replace("-o FILE", "-o $DIR/recording")
        .replace("replay FILE", "replay $DIR/recording")
        .replace("policy test FILE", "policy test $DIR/recording")
        .replace("P.wasm", "FILE");
    let signing = block("docs/POLICIES.md", "sh", "bazaar policy keygen");
    let signing = signing
        .lines()
        .filter(|line| line.starts_with("bazaar policy"));
    let signing = signing
        .collect::<Vec<_>>()
        .join("\n")
        .replace("KEY", "$DIR/key");
    let key = "0123456789abcdef";
    let config = dir.path().join("keys.json");
    fs::write(&config, format!(r#"{{"keys": {{"alice": "{key}"}}}}"#)).unwrap();
    let keys = crate::harness::example("api-keys");
    let configuring = block("docs/POLICIES.md", "sh", "policy configure CONFIG --canary")
        .replace("CONFIG", &config.display().to_string())
        .replace("FILE", &keys.display().to_string());
    let packing = block("docs/POLICIES.md", "sh", "bazaar policy pack")
        .replace("image.tar", "$DIR/image.tar");
    let lines = [way.join("\n"), recording, signing, packing, configuring].join("\n");
    // What is dropped there is another candidate than the one that was promoted.
    let dropped = "bazaar policy canary FILE --share 0.05\nbazaar policy drop";
    let lines = lines.replace("bazaar policy drop", dropped);
    let oldest = "$(bazaar policy list | tail -n 1 | awk '{print $NF}')";
    let lines = lines.replace("DIGEST", oldest);
    let lines = lines.replace("FILE", &file.display().to_string());
    if typed(&dir, &lines).is_some() {
        assert!(dir.path().join("policy.wasm.sig").exists());
        assert!(dir.path().join("image.tar").exists());
    }
}

#[test]
fn the_plan_in_the_guide_is_one() {
    let plan: Plan = block("docs/POLICIES.md", "toml", "[[step]]")
        .parse()
        .unwrap();
    assert_eq!(plan.steps.len(), 2);
}

/// All that is under a directory, but for what was built and what is hidden.
fn files_under(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" || name == "node_modules" {
            continue;
        }
        if path.is_dir() {
            files_under(&path, found);
        } else {
            found.push(path.strip_prefix(ROOT).unwrap().display().to_string());
        }
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
        .filter(|word| !word.is_empty())
}

/// Whether it looks like a file of the sources, with or without its directories.
fn is_source(token: &str) -> bool {
    let endings = [".rs", ".proto", ".wit"];
    let is_plain = |letter: char| letter.is_alphanumeric() || "._-/".contains(letter);
    endings.iter().any(|ending| token.ends_with(ending)) && token.chars().all(is_plain)
}

/// Whether it looks like something in a type: `Type::method`.
fn is_path_of_code(token: &str) -> bool {
    token.contains("::")
        && token.starts_with(|letter: char| letter.is_ascii_uppercase())
        && token
            .chars()
            .all(|letter| letter.is_alphanumeric() || "_:".contains(letter))
}

#[test]
fn what_the_documents_name_of_the_code_is_there() {
    let mut files = Vec::new();
    files_under(Path::new(ROOT), &mut files);
    let sources = files
        .iter()
        .filter(|file| is_source(file) || file.ends_with(".toml"));
    let sources: Vec<_> = sources
        .filter_map(|file| fs::read_to_string(Path::new(ROOT).join(file)).ok())
        .collect();
    let known: BTreeSet<_> = sources.iter().flat_map(|text| words(text)).collect();
    let there = |file: &str| {
        let ending = format!("/{file}");
        files
            .iter()
            .any(|other| other == file || other.ends_with(&ending))
    };
    let mut missing = Vec::new();
    for document in files
        .iter()
        .filter(|file| file.ends_with(".md") && !file.contains("/adr/"))
    {
        let text = fs::read_to_string(Path::new(ROOT).join(document)).unwrap();
        for (line, text) in (1..).zip(text.lines()) {
            for token in text.split('`').skip(1).step_by(2) {
                let is_missing = is_source(token) && !there(token)
                    || is_path_of_code(token) && words(token).any(|word| !known.contains(word));
                if is_missing {
                    missing.push(format!("{document}:{line}: {token}"));
                }
            }
        }
    }
    assert!(
        missing.is_empty(),
        "not in the sources:\n{}",
        missing.join("\n")
    );
}

/// What the model's documentation says of each rule that its tests take out.
#[test]
fn each_rule_that_the_model_takes_out_is_explained() {
    let read = |path: &str| fs::read_to_string(Path::new(ROOT).join(path)).unwrap();
    let tests = ["trades", "leases", "takes", "writers"]
        .map(|model| read(&format!("tests/model/src/{model}/tests.rs")))
        .concat();
    let tested: BTreeSet<_> = words(&tests).collect();
    let rules = ["catalog/core", "order/core", "frontend-host/core"]
        .map(|core| read(&format!("{core}/src/ablation.rs")))
        .concat();
    let variants = rules.lines().filter_map(|line| {
        let name = line.strip_prefix("    ")?.strip_suffix(',')?;
        name.chars().all(char::is_alphanumeric).then_some(name)
    });
    let taken_out = variants.filter(|name| tested.contains(name)).count();
    let documented = read("tests/model/src/lib.rs");
    let (_, table) = documented
        .split_once("//! | without | breaks after |")
        .unwrap();
    let rows = table
        .lines()
        .filter(|line| line.starts_with("//! | "))
        .count();
    assert_eq!(rows, taken_out);
    assert_eq!(taken_out, 32, "as docs/TESTING.md says");
}

/// The messages of all errors that a file of the sources logs, as far as they are written there.
fn errors_in(text: &str) -> Vec<String> {
    let calls = text.split("error!(").skip(1);
    let messages = calls.filter_map(|call| {
        let (mut depth, mut literal, mut last) = (1, None, None);
        let mut letters = call.chars();
        while depth > 0 {
            match (letters.next()?, &mut literal) {
                ('"', Some(_)) => last = literal.take(),
                ('"', None) => literal = Some(String::new()),
                ('\\', Some(literal)) => match letters.next()? {
                    // It goes on in the next line.
                    '\n' => literal.push(' '),
                    letter => literal.push(letter),
                },
                (letter, Some(literal)) => literal.push(letter),
                ('(', None) => depth += 1,
                (')', None) => depth -= 1,
                _ => {}
            }
        }
        last
    });
    // What it begins with may be somebody's name.
    let named = messages.map(|message| words_of(message.rsplit('}').next().unwrap_or_default()));
    named.filter(|message| !message.is_empty()).collect()
}

/// A text with one blank between its words.
fn words_of(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn what_to_do_about_every_error_of_the_log_is_written_down() {
    let mut files = Vec::new();
    for place in ["src", "catalog", "order", "frontend-host", "crates"] {
        files_under(&Path::new(ROOT).join(place), &mut files);
    }
    let read = |file: &str| fs::read_to_string(Path::new(ROOT).join(file)).unwrap();
    let (mut sources, mut errors) = (String::new(), BTreeSet::new());
    for file in files
        .iter()
        .filter(|file| file.ends_with(".rs") && !file.contains("tests"))
    {
        let text = read(file);
        errors.extend(errors_in(&text));
        sources += &text.replace("\\\n", "");
    }
    assert!(errors.len() > 40, "{errors:?}");
    let guide = read("docs/OPERATING.md");
    let (_, table) = guide.split_once("### What the log says").unwrap();
    let (table, _) = table.split_once("###").unwrap();
    let rows = table.lines().filter_map(|line| line.split(" | ").nth(1));
    let told: Vec<&str> = rows
        .flat_map(|events| events.split('`').skip(1).step_by(2))
        .collect();
    let missing: Vec<_> = errors
        .iter()
        .filter(|error| !told.iter().any(|told| error.contains(told)))
        .collect();
    assert!(missing.is_empty(), "not in docs/OPERATING.md: {missing:#?}");
    let sources = words_of(&sources);
    let gone: Vec<_> = told
        .iter()
        .filter(|told| !sources.contains(&words_of(told)))
        .collect();
    assert!(gone.is_empty(), "nobody says so any more: {gone:#?}");
}
