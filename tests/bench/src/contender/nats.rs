//! NATS JetStream: three servers with a stream on the disks of all of them, driven at the one that leads it. An order is
//! acknowledged once two of them have synced it.

use std::net::SocketAddr;

use serde_json::Value;

use super::{Contender, Site, fill, write};
use crate::error::Error;
use crate::generator::{Figures, Load, publish};
use crate::http;
use crate::process::{Process, command, find, free_addresses, run};

/// How many servers, and copies of each order.
const SERVERS: usize = 3;

/// The stream: what is sent to `orders.…`, in files, in three copies, and nothing is ever thrown away.
const STREAM: &str = r#"{"name":"orders","subjects":["orders.*"],"storage":"file","num_replicas":3,"retention":"limits","discard":"old","max_consumers":-1,"max_msgs":-1,"max_bytes":-1,"max_msg_size":-1,"max_age":0}"#;
const CREATE: &str = "$JS.API.STREAM.CREATE.orders";
const INFO: &str = "$JS.API.STREAM.INFO.orders";

#[derive(Debug)]
pub struct Nats {
    /// The server that leads the stream: it forwards nothing.
    leader: SocketAddr,
    _servers: Vec<Process>,
}

impl Nats {
    /// Starts the servers, makes the stream, and waits until all of them follow it.
    pub fn start(site: &Site) -> Result<Self, Error> {
        let program = find("nats-server")?;
        let dir = site.make_dir("nats")?;
        let [a, b, c, x, y, z, p, q, r] = free_addresses()?;
        let (clients, routes, healths) = ([a, b, c], [x, y, z], [p, q, r]);
        let mut servers = Vec::new();
        for number in 0..SERVERS {
            let name = server_name(number);
            let config = fill(
                include_str!("../../contenders/nats.conf"),
                &[
                    ("name", name.clone()),
                    ("client", clients[number].port().to_string()),
                    ("http", healths[number].port().to_string()),
                    ("dir", dir.join(&name).display().to_string()),
                    ("route", routes[number].port().to_string()),
                    ("routes", urls(&routes)),
                ],
            );
            let file = dir.join(format!("{name}.conf"));
            write(&file, &config)?;
            let mut line = command(&program);
            line.arg("--config").arg(&file);
            servers.push(Process::start(&name, &dir, line)?);
        }
        for (server, health) in servers.iter_mut().zip(healths) {
            server.wait_until(|_| {
                http::get(health, "/healthz").is_ok_and(|answer| answer.status == 200)
            })?;
        }
        let leader = lead(&mut servers[0], &clients)?;
        Ok(Self {
            leader,
            _servers: servers,
        })
    }
}

fn server_name(number: usize) -> String {
    format!("node-{number}")
}

fn urls(routes: &[SocketAddr]) -> String {
    let routes = routes.iter().map(|route| format!("\"nats://{route}\""));
    routes.collect::<Vec<_>>().join(", ")
}

/// Makes the stream, and says where the server is that leads it once the others have all of it.
fn lead(server: &mut Process, clients: &[SocketAddr]) -> Result<SocketAddr, Error> {
    let ask = |subject, payload| publish::ask(clients[0], subject, payload).unwrap_or_default();
    server.wait_until(|_| is_made(&ask(CREATE, STREAM)))?;
    let mut leader = None;
    server.wait_until(|_| {
        leader = leader_of(&ask(INFO, ""));
        leader.is_some()
    })?;
    let mut names = (0..clients.len()).map(server_name);
    let number = names.position(|name| Some(name) == leader);
    number
        .map(|number| clients[number])
        .ok_or_else(|| Error::Wrong {
            name: "NATS".to_owned(),
            answer: format!("the stream is led by {leader:?}"),
        })
}

fn is_made(answer: &str) -> bool {
    let answer: Value = serde_json::from_str(answer).unwrap_or_default();
    answer["error"].is_null() && answer["config"].is_object()
}

/// Who leads a stream that all servers follow and are up to date with.
fn leader_of(info: &str) -> Option<String> {
    let info: Value = serde_json::from_str(info).ok()?;
    let cluster = &info["cluster"];
    let followers = cluster["replicas"].as_array()?;
    let current = followers
        .iter()
        .filter(|follower| follower["current"] == true);
    let leader = cluster["leader"]
        .as_str()
        .filter(|leader| !leader.is_empty())?;
    (current.count() + 1 == SERVERS).then(|| leader.to_owned())
}

impl Contender for Nats {
    fn name(&self) -> &str {
        "NATS JetStream"
    }

    fn lacks(&self) -> &'static str {
        "a policy in wasm; a check of the quantity: it appends whatever comes; a lookup of the stock"
    }

    fn measure(&mut self, load: &Load) -> Result<Figures, Error> {
        let this = std::env::current_exe().map_err(Error::machine("cannot find this program"))?;
        let mut line = load.command(this);
        line.arg("publish")
            .arg(format!("--address={}", self.leader))
            .arg(format!("--connections={}", load.connections))
            .arg(format!("--seconds={}", load.seconds));
        Figures::parse("bench publish", &run(line)?)?.without_errors(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_ready_once_all_servers_follow_it() {
        let info = |leader: &str, current: [bool; 2]| {
            let [first, second] = current;
            format!(
                r#"{{"config":{{}},"cluster":{{"name":"bench","leader":"{leader}","replicas":[
                {{"name":"node-0","current":{first}}},{{"name":"node-2","current":{second}}}]}}}}"#
            )
        };
        let ready = info("node-1", [true, true]);
        assert!(is_made(&ready));
        assert_eq!(leader_of(&ready), Some("node-1".to_owned()));
        for early in [
            info("node-1", [true, false]),
            info("", [true, true]),
            r#"{"config":{},"cluster":{"leader":"node-1"}}"#.to_owned(),
            "{}".to_owned(),
            String::new(),
        ] {
            assert_eq!(leader_of(&early), None, "{early}");
        }
        for refused in [r#"{"error":{"code":503},"config":{}}"#, "{}", ""] {
            assert!(!is_made(refused), "{refused}");
        }
    }

    #[test]
    fn servers_know_each_others_routes() {
        let routes = [
            SocketAddr::from(([127, 0, 0, 1], 1)),
            SocketAddr::from(([127, 0, 0, 1], 2)),
        ];
        assert_eq!(
            urls(&routes),
            r#""nats://127.0.0.1:1", "nats://127.0.0.1:2""#
        );
    }

    #[test]
    fn the_stream_is_what_the_servers_are_asked_to_make() {
        let stream: Value = serde_json::from_str(STREAM).unwrap();
        assert_eq!(stream["num_replicas"], SERVERS);
        let config = include_str!("../../contenders/nats.conf");
        assert!(
            config
                .lines()
                .any(|line| line.trim() == "sync_interval: always")
        );
    }
}
