//! etcd: three nodes with default settings, driven at their leader.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::{Contender, Site};
use crate::error::Error;
use crate::generator::wrk::Requests;
use crate::generator::{Figures, Load};
use crate::http;
use crate::process::{Process, command, find, free_addresses, run};

#[derive(Debug)]
pub struct Cluster {
    leader: SocketAddr,
    dir: PathBuf,
    _nodes: Vec<Process>,
}

impl Cluster {
    /// Starts three nodes, and finds out which one leads.
    pub fn start(site: &Site) -> Result<Rc<Self>, Error> {
        let dir = site.make_dir("etcd")?;
        let program = find("etcd")?;
        let [a, b, c, x, y, z] = free_addresses()?;
        let (clients, peers) = ([a, b, c], [x, y, z]);
        let members: Vec<String> = (0..3)
            .map(|node| format!("node-{node}=http://{}", peers[node]))
            .collect();
        let mut nodes = Vec::new();
        for node in 0..3 {
            let name = format!("node-{node}");
            let (client, peer) = (clients[node], peers[node]);
            let mut line = command(&program);
            line.arg("--data-dir")
                .arg(dir.join(&name))
                .args(["--name", &name])
                .args(["--listen-client-urls", &format!("http://{client}")])
                .args(["--advertise-client-urls", &format!("http://{client}")])
                .args(["--listen-peer-urls", &format!("http://{peer}")])
                .args(["--initial-advertise-peer-urls", &format!("http://{peer}")])
                .args(["--initial-cluster", &members.join(",")])
                .args(["--initial-cluster-state", "new"])
                .args(["--logger", "zap", "--log-level", "error"]);
            nodes.push(Process::start(&name, &dir, line)?);
        }
        for (node, client) in nodes.iter_mut().zip(clients) {
            node.wait_until(|_| {
                http::get(client, "/health")
                    .is_ok_and(|answer| answer.body.contains(r#""health":"true""#))
            })?;
        }
        Ok(Rc::new(Self {
            leader: leader(&clients)?,
            dir,
            _nodes: nodes,
        }))
    }
}

/// The node that says of itself that it leads: it forwards nothing.
fn leader(clients: &[SocketAddr]) -> Result<SocketAddr, Error> {
    let mut last = String::new();
    for client in clients {
        let answer = http::send(*client, "POST", "/v3/maintenance/status", "{}");
        let answer = answer.map_err(Error::machine("cannot ask an etcd node"))?;
        if leads(&answer.body) {
            return Ok(*client);
        }
        last = answer.body;
    }
    Err(Error::Wrong {
        name: "etcd".to_owned(),
        answer: last,
    })
}

fn leads(status: &str) -> bool {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    status["leader"].is_string() && status["leader"] == status["header"]["member_id"]
}

/// How orders are put into a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Its JSON gateway, by wrk: the same generator as Bazaar's.
    Json,
    Grpc,
}

/// A cluster that orders are put into.
#[derive(Debug)]
pub struct Etcd {
    /// Shared by both protocols.
    pub cluster: Rc<Cluster>,
    pub protocol: Protocol,
}

impl Contender for Etcd {
    fn name(&self) -> &str {
        match self.protocol {
            Protocol::Json => "etcd (JSON)",
            Protocol::Grpc => "etcd (gRPC)",
        }
    }

    fn lacks(&self) -> &'static str {
        "a policy in wasm; a check of the quantity: it puts whatever comes"
    }

    fn measure(&mut self, load: &Load) -> Result<Figures, Error> {
        let figures = match self.protocol {
            Protocol::Json => put_json(&self.cluster, load)?,
            Protocol::Grpc => put_grpc(&self.cluster, load)?,
        };
        figures.without_errors(self.name())
    }
}

fn put_json(cluster: &Cluster, load: &Load) -> Result<Figures, Error> {
    let requests = Requests {
        script: include_str!("../../contenders/put.lua"),
        arguments: [run_number(), 0],
        ..Requests::get(cluster.leader, "/v3/kv/put")
    };
    requests.send(load, &cluster.dir)
}

fn put_grpc(cluster: &Cluster, load: &Load) -> Result<Figures, Error> {
    let this = std::env::current_exe().map_err(Error::machine("cannot find this program"))?;
    let mut line = load.command(this);
    line.arg("put")
        .arg(format!("--address={}", cluster.leader))
        .arg(format!("--connections={}", load.connections))
        .arg(format!("--seconds={}", load.seconds))
        .arg(format!("--run={}", run_number()));
    Figures::parse("bench put", &run(line)?)
}

/// Keys of one run are not those of another: six digits of the clock, in tenths of a second.
fn run_number() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| (now.as_millis() / 100 % 1_000_000) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leader_is_who_says_so() {
        assert!(leads(r#"{"header":{"member_id":"7"},"leader":"7"}"#));
        for status in [
            r#"{"header":{"member_id":"8"},"leader":"7"}"#,
            r#"{"header":{"member_id":"8"}}"#,
            "{}",
            "",
        ] {
            assert!(!leads(status), "{status}");
        }
    }
}
