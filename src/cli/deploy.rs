//! The examples in `deploy/`: what they tell Bazaar is what Bazaar takes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use super::{Cli, Command};
use crate::service::{guarded, metrics_guarded};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// What a unit says by a name, each time that it does.
fn said<'a>(unit: &'a str, name: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines
        .filter(|(said, _)| *said == name)
        .map(|(_, value)| value)
        .collect()
}

/// The flags of a command, by the variables that stand for them.
fn flags(command: &str) -> BTreeMap<String, String> {
    let cli = Cli::command();
    let command = cli.find_subcommand(command).expect("there is such a one");
    let flag = |arg: &clap::Arg| {
        let variable = arg.get_env()?.to_str()?.to_owned();
        Some((variable, format!("--{}", arg.get_long()?)))
    };
    command.get_arguments().filter_map(flag).collect()
}

fn settings(file: &Path) -> Vec<(String, String)> {
    let text =
        fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let lines = text
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.split_once('=').expect("NAME=value");
            (name.to_owned(), value.to_owned())
        })
        .collect()
}

#[test]
fn units_and_their_settings_are_command_lines_that_bazaar_takes() {
    for (unit, settings_file) in [
        ("bazaar-catalog.service", "catalog.env"),
        ("bazaar-order@.service", "order.env"),
        ("bazaar-gateway.service", "gateway.env"),
    ] {
        let systemd = deploy().join("systemd");
        let text = fs::read_to_string(systemd.join(unit)).unwrap();
        let start = said(&text, "ExecStart")[0].replace("%i", "1");
        let mut line: Vec<String> = start.split_whitespace().map(str::to_owned).collect();
        let flags = flags(&line[1]);
        for (name, value) in settings(&systemd.join(settings_file)) {
            let flag = flags.get(&name);
            let flag = flag.unwrap_or_else(|| panic!("{settings_file}: {unit} knows no {name}"));
            line.push(format!("{flag}={value}"));
        }
        let cli = Cli::try_parse_from(&line).unwrap_or_else(|error| panic!("{unit}: {error}"));
        // What it would not start with.
        let (address, metrics, cluster, openness) = match cli.into_command() {
            Command::Catalog(args) => (args.listen, args.metrics, args.cluster, args.openness),
            Command::Order(args) => {
                let address = args.address().unwrap();
                (address, args.metrics, args.cluster, args.openness)
            }
            Command::Gateway(args) => {
                let is_open = !args.front.admin.ip().is_loopback();
                let proves = args.front.tls.https().is_some() && args.cluster.files().is_some();
                assert!(proves || !is_open, "{unit}: anybody could operate it");
                continue;
            }
            other => panic!("{unit}: {other:?}"),
        };
        let has_certificate = cluster.files().is_some();
        guarded(address, has_certificate, &openness)
            .unwrap_or_else(|error| panic!("{unit}: {error}"));
        let metrics = metrics.expect("Prometheus asks it");
        metrics_guarded(metrics, has_certificate, &openness)
            .unwrap_or_else(|error| panic!("{unit}: {error}"));
    }
}

/// Beyond loopback both are encrypted where services have certificates, as all of them have here.
#[test]
fn probes_and_prometheus_ask_over_tls() {
    let read = |file: &str| fs::read_to_string(deploy().join(file)).unwrap();
    let probes = read("kubernetes/bazaar.yaml");
    let asked: Vec<_> = probes
        .lines()
        .filter(|line| line.contains("httpGet:"))
        .collect();
    assert!(asked.len() > 2, "{asked:?}");
    for probe in asked {
        assert!(probe.contains("scheme: HTTPS"), "{probe}");
    }
    let prometheus = read("prometheus/prometheus.yml");
    let of = |key: &str| {
        prometheus
            .lines()
            .filter(|line| line.trim_start().starts_with(key))
            .count()
    };
    let jobs = of("- job_name:");
    assert_eq!(
        (of("scheme: https"), of("tls_config:")),
        (jobs, jobs),
        "of {jobs} jobs"
    );
}

#[test]
fn a_gateway_has_the_sockets_that_its_settings_name_and_is_taken_over_as_it_was_started() {
    let systemd = deploy().join("systemd");
    let settings: BTreeMap<_, _> = settings(&systemd.join("gateway.env")).into_iter().collect();
    let unit = |name: &str| fs::read_to_string(systemd.join(name)).unwrap();
    let sockets = unit("bazaar-gateway.socket");
    let listened = [&settings["BAZAAR_LISTEN"], &settings["BAZAAR_ADMIN"]];
    assert_eq!(said(&sockets, "ListenStream"), listened);
    let service = unit("bazaar-gateway.service");
    let [start, reload] = ["ExecStart", "ExecReload"].map(|name| said(&service, name)[0]);
    assert_eq!(reload, format!("/bin/sh -c '{start} --take-over &'"));
    // A process that systemd did not start as the main one says that it is.
    assert_eq!(said(&service, "NotifyAccess"), ["all"]);
}

#[test]
fn every_variable_in_the_examples_is_one_that_bazaar_reads() {
    let commands = ["catalog", "order", "gateway"];
    let known: BTreeSet<String> = commands
        .into_iter()
        .flat_map(flags)
        .map(|(name, _)| name)
        .collect();
    for file in ["compose/compose.yaml", "kubernetes/bazaar.yaml"] {
        let text = fs::read_to_string(deploy().join(file)).unwrap();
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let named: BTreeSet<&str> = words.filter(|word| word.starts_with("BAZAAR_")).collect();
        assert!(named.len() > 5, "{file}: {named:?}");
        for name in &named {
            assert!(known.contains(*name), "{file}: nothing reads {name}");
        }
        for proof in [
            "BAZAAR_CLUSTER_CA",
            "BAZAAR_CLUSTER_CERT",
            "BAZAAR_CLUSTER_KEY",
        ] {
            assert!(named.contains(proof), "{file}: nobody proves who they are");
        }
        assert!(!named.contains("BAZAAR_INSECURE_CLUSTER"), "{file}");
    }
}
