//! A network of a test's own, in which connections can be lost without a word.

use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::parent_id;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use super::skip;

/// The network of who started the process that has one of its own.
const WITHIN: &str = "BAZAAR_TEST_NETWORK";

/// The beginning of a line of /proc/net/tcp whose connection is established.
const ESTABLISHED: &str = "01";

/// Whether this test runs in a network of its own: a namespace with a loopback interface and nothing else. Where
/// it does not, it is run there by a process of its own, and there is nothing more to do here.
///
/// # Panics
/// Where it fails there.
pub fn in_own_network() -> bool {
    if is_within() {
        return true;
    }
    let works = unshare("nft list tables").output();
    if !works.is_ok_and(|output| output.status.success()) {
        skip(
            "no network is made",
            "`unshare --net`, `ip` and `nft` need root and iproute2, nftables",
        );
        return false;
    }
    let test = thread::current();
    let test = test
        .name()
        .expect("a test's thread has its name")
        .to_owned();
    let mut within = unshare(r#"exec "$0" --exact "$1" --nocapture --include-ignored"#);
    within.arg(env::current_exe().expect("it was started from a file"));
    let output = within.arg(test).env(WITHIN, network()).output();
    let output = output.expect("it could be run a moment ago");
    // Of another name there is no test, and nothing fails.
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{}\n{}",
        said,
        String::from_utf8_lossy(&output.stderr)
    );
    print!("{said}"); // its figures
    false
}

/// What tells this process's network from others.
fn network() -> PathBuf {
    fs::read_link("/proc/self/ns/net").unwrap_or_default()
}

/// Whether the network is another one than that of who started this process, and said so. Where somebody else has
/// set the variable, it may be anybody's.
fn is_within() -> bool {
    let of_parent = fs::read_link(format!("/proc/{}/ns/net", parent_id())).unwrap_or_default();
    let started_from = env::var_os(WITHIN).map(PathBuf::from);
    started_from.is_some_and(|started_from| started_from == of_parent && of_parent != network())
}

/// A shell's script in a network of its own; what is added are its arguments.
fn unshare(script: &str) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--", "sh", "-c"]);
    command.arg(format!("ip link set lo up && {script}"));
    command
}

/// From now on no packet of the connections to this port that there are arrives, in either direction. Others can be
/// made. Returns how many it are.
pub fn lose_connections_to(port: u16) -> usize {
    assert!(is_within(), "only in a network of its own");
    let table = fs::read_to_string("/proc/self/net/tcp").expect("the kernel says so");
    let port_of = |address: &str| u16::from_str_radix(address.rsplit(':').next()?, 16).ok();
    let from: Vec<u16> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let [from, to, state] = [fields.next()?, fields.next()?, fields.next()?];
            let lost = port_of(to) == Some(port) && state == ESTABLISHED;
            lost.then(|| port_of(from)).flatten()
        })
        .collect();
    let mut rules = Vec::new();
    for from in &from {
        for (source, target) in [(*from, port), (port, *from)] {
            rules.push(format!("tcp sport {source} tcp dport {target} drop"));
        }
    }
    lose(&rules);
    from.len()
}

/// From now on no packet to or from these ports arrives, of any connection, until all are [let through](lose_nothing).
pub fn lose_packets_of(ports: &[u16]) {
    lose_some(ports, "drop");
}

/// From now on so many in a hundred of them get lost, fewer than all.
pub fn lose_share_of(ports: &[u16], percent: u32) {
    lose_some(ports, &format!("numgen random mod 100 < {percent} drop"));
}

fn lose_some(ports: &[u16], what: &str) {
    let rules = |port: &u16| ["sport", "dport"].map(|end| format!("tcp {end} {port} {what}"));
    let rules: Vec<_> = ports.iter().flat_map(rules).collect();
    lose(&rules);
}

/// Packets arrive again, also those of connections that were lost.
pub fn lose_nothing() {
    nft("delete table inet lost\n");
}

/// Where packets arrive: one that does not leave is no lost one to who sends it, but one that waits to be sent.
const ARRIVING: &str =
    "add table inet lost\nadd chain inet lost in { type filter hook input priority 0; }\n";

fn lose(rules: &[String]) {
    let rules = rules
        .iter()
        .map(|rule| format!("add rule inet lost in {rule}\n"));
    nft(&(ARRIVING.to_owned() + &rules.collect::<String>()));
}

fn nft(commands: &str) {
    assert!(is_within(), "only in a network of its own");
    let mut nft = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("it is there");
    let mut stdin = nft.stdin.take().expect("it was asked for");
    stdin.write_all(commands.as_bytes()).expect("nft reads it");
    drop(stdin);
    assert!(nft.wait().expect("it ends").success());
}
