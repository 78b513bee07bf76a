//! Faults, drawn from a seed: which, when and for how long.

use rpc::connect::Security;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use wire::order::v1::orders_client::OrdersClient;
use wire::order::v1::{AnnounceRequest, StatusRequest};

use crate::harness::{Bazaar, Conduct, Link, Server, all_links};

/// Faults under way at once.
const ACTIVE_MAX: usize = 3;

/// Time between the beginnings of two faults, and how long one lasts, in milliseconds. Leases
/// are shorter than most faults.
const INTERVAL_MS: std::ops::Range<u64> = 50..600;
const LENGTH_MS: std::ops::Range<u64> = 50..1500;

/// How much later bytes arrive on a slow link, in milliseconds.
const DELAY_MS: std::ops::Range<u64> = 5..120;

/// How long somebody tries to forge an announcement.
const FORGE_TIME_MAX: Duration = Duration::from_millis(500);

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL, and a start at the end.
    Kill(Server),
    /// SIGSTOP, and SIGCONT at the end.
    Suspend(Server),
    /// Links conduct like this; at the end they may be reset, so that what they held is lost.
    Links {
        kind: &'static str,
        links: Vec<Link>,
        conduct: Conduct,
        reset_at_end: bool,
    },
    /// A gateway is cut off the catalog, which is killed and comes back at once: the gateway
    /// does not know, and its lease is not over.
    RestartUnnoticed { gateway: Link },
    /// The disk is full, and has room again at the end.
    FillDisk(Server),
    /// Every connection of a link is reset, once.
    Reset(Link),
    /// SIGKILL of a replica, whose disk is lost; it starts with an empty one at the end.
    LoseDisk(u32),
    /// Somebody tells a replica, once, that an epoch has begun which has not.
    Forge(u32),
}

impl Fault {
    fn kind(&self) -> String {
        let of = |server: &Server| match server {
            Server::Catalog | Server::OtherCatalog => "catalog",
            Server::Order(_) => "replica",
            Server::Gateway(_) => "gateway",
        };
        match self {
            Self::Kill(server) => format!("kill {}", of(server)),
            Self::Suspend(server) => format!("suspend {}", of(server)),
            Self::Links { kind, .. } => (*kind).to_owned(),
            Self::RestartUnnoticed { .. } => "restart the catalog unnoticed".to_owned(),
            Self::FillDisk(server) => format!("fill the disk of the {}", of(server)),
            Self::Reset(_) => "reset a link".to_owned(),
            Self::LoseDisk(_) => "lose a replica's disk".to_owned(),
            Self::Forge(_) => "forge an announcement".to_owned(),
        }
    }

    fn touches(&self, other: &Self) -> bool {
        let (own_servers, own_links) = self.parts();
        let (servers, links) = other.parts();
        !own_servers.is_disjoint(&servers) || !own_links.is_disjoint(&links)
    }

    fn parts(&self) -> (BTreeSet<Server>, BTreeSet<Link>) {
        match self {
            Self::Kill(server) | Self::Suspend(server) | Self::FillDisk(server) => {
                ([*server].into(), BTreeSet::new())
            }
            Self::Links { links, .. } => (BTreeSet::new(), links.iter().copied().collect()),
            Self::RestartUnnoticed { gateway } => ([gateway.to].into(), [*gateway].into()),
            Self::Reset(link) => (BTreeSet::new(), [*link].into()),
            Self::LoseDisk(id) => ([Server::Order(*id)].into(), BTreeSet::new()),
            Self::Forge(_) => Default::default(),
        }
    }
}

/// A fault and when it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub from: Duration,
    pub to: Duration,
    pub fault: Fault,
}

/// The faults of a run; the same for the same seed. No two that overlap touch the same process
/// or link.
pub fn plan(seed: u64, length: Duration, gateways: usize, replicas: &[u32]) -> Vec<Planned> {
    let mut random = Rng::with_seed(seed);
    let links = all_links(gateways, replicas);
    let servers: BTreeSet<Server> = links.iter().flat_map(|link| [link.from, link.to]).collect();
    let servers: Vec<Server> = servers.into_iter().collect();
    let mut planned: Vec<Planned> = Vec::new();
    let mut from = Duration::ZERO;
    loop {
        from += Duration::from_millis(random.u64(INTERVAL_MS));
        let fault = draw(&mut random, &servers, &links);
        let mut to = from + Duration::from_millis(random.u64(LENGTH_MS));
        if to > length {
            return planned;
        }
        if matches!(fault, Fault::Kill(_)) && random.bool() {
            // A crash, and a supervisor that restarts.
            to = from;
        }
        let active = planned.iter().filter(|other| other.to >= from);
        if active.clone().count() < ACTIVE_MAX
            && !active.clone().any(|other| other.fault.touches(&fault))
        {
            planned.push(Planned { from, to, fault });
        }
    }
}

fn draw(random: &mut Rng, servers: &[Server], links: &[Link]) -> Fault {
    let server = servers[random.usize(0..servers.len())];
    let link = links[random.usize(0..links.len())];
    let around = links_where(links, |link| link.from == server || link.to == server);
    let side: BTreeSet<Server> = servers.iter().copied().filter(|_| random.bool()).collect();
    let between = links_where(links, |link| {
        side.contains(&link.from) != side.contains(&link.to)
    });
    let reset_at_end = random.bool();
    let (holds_there, holds_back) =
        [(true, true), (true, false), (false, true)][random.usize(0..3)];
    let cut = Conduct {
        holds_there,
        holds_back,
        ..Conduct::default()
    };
    let slow = Conduct {
        delay: Duration::from_millis(random.u64(DELAY_MS)),
        ..Conduct::default()
    };
    let on = |kind, links, conduct| Fault::Links {
        kind,
        links,
        conduct,
        reset_at_end,
    };
    match random.u32(0..100) {
        0..22 => Fault::Kill(server),
        22..42 => Fault::Suspend(server),
        42..48 if !matches!(server, Server::Gateway(_)) => Fault::FillDisk(server),
        42..48 => Fault::Suspend(server),
        48..58 => on("cut a link", vec![link], cut),
        58..65 => on("cut a server off", around, cut),
        65..80 => on("partition", between, cut),
        80..88 => on("slow links", around, slow),
        88..92 => {
            let gateway = Server::Gateway(random.usize(0..2));
            let to_catalog = |link: &Link| link.from == gateway && link.to == Server::Catalog;
            let gateway = links.iter().copied().find(to_catalog);
            gateway.map_or(Fault::Reset(link), |gateway| Fault::RestartUnnoticed {
                gateway,
            })
        }
        92..96 if let Server::Order(id) = server => Fault::LoseDisk(id),
        96..98 if let Server::Order(id) = server => Fault::Forge(id),
        _ => Fault::Reset(link),
    }
}

fn links_where(links: &[Link], chosen: impl Fn(&Link) -> bool) -> Vec<Link> {
    links.iter().copied().filter(chosen).collect()
}

/// Inflicts the faults on a bazaar, and heals the last. Returns how many of each kind there were.
pub fn inflict(bazaar: &mut Bazaar, plan: &[Planned]) -> BTreeMap<String, usize> {
    let start = Instant::now();
    let mut steps: Vec<(Duration, bool, &Fault)> = plan
        .iter()
        .flat_map(|planned| {
            [
                (planned.from, true, &planned.fault),
                (planned.to, false, &planned.fault),
            ]
        })
        .collect();
    steps.sort_by_key(|(at, ..)| *at);
    let mut counts = BTreeMap::new();
    for (at, begins, fault) in steps {
        if let Fault::FillDisk(server) = fault
            && !bazaar.has_disk(*server)
        {
            continue;
        }
        thread::sleep(at.saturating_sub(start.elapsed()));
        if begins {
            begin(bazaar, fault);
            *counts.entry(fault.kind()).or_default() += 1;
        } else {
            end(bazaar, fault);
        }
    }
    counts
}

/// Begins a fault.
///
/// # Panics
/// Where a process has ended that nobody killed.
fn begin(bazaar: &mut Bazaar, fault: &Fault) {
    let process = match fault {
        Fault::Kill(server) | Fault::Suspend(server) => Some(*server),
        Fault::LoseDisk(id) => Some(Server::Order(*id)),
        _ => None,
    };
    if let Some(server) = process {
        let lives = bazaar.server(server).is_running();
        assert!(lives, "{server} has ended by itself");
    }
    match fault {
        Fault::Kill(server) => bazaar.server(*server).kill(),
        Fault::Suspend(server) => bazaar.server(*server).suspend(),
        Fault::Links { links, conduct, .. } => {
            links
                .iter()
                .for_each(|link| bazaar.link(*link).set(*conduct));
        }
        Fault::RestartUnnoticed { gateway } => {
            bazaar.link(*gateway).set(Conduct {
                holds_there: true,
                holds_back: true,
                ..Conduct::default()
            });
            bazaar.server(gateway.to).kill();
            bazaar.start_server(gateway.to);
        }
        Fault::FillDisk(server) => bazaar.disk(*server).fill(),
        Fault::Reset(link) => bazaar.link(*link).reset(),
        Fault::LoseDisk(id) => {
            bazaar.kill(*id);
            empty(&bazaar.data_dir(*id));
        }
        Fault::Forge(id) => forge(bazaar.server_address(Server::Order(*id)), *id),
    }
}

/// Removes what is in a directory, which may be a disk of its own.
fn empty(dir: &Path) {
    for entry in fs::read_dir(dir).expect("the directory is there") {
        let path = entry.expect("it can be read").path();
        if path.is_file() {
            fs::remove_file(path).expect("it can be removed");
        }
    }
}

/// Announces an epoch that will never be, to whoever listens there: of a journal that is not ours,
/// and of ours.
fn forge(address: SocketAddr, leader: u32) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    runtime.expect("there is a thread").block_on(async {
        let channel =
            rpc::connect::lazy(&format!("http://{address}"), &Security::NONE).expect("a URL");
        let mut orders = OrdersClient::new(channel);
        let told = async {
            let status = orders.status(StatusRequest {}).await?.into_inner();
            for journal in [vec![9; status.journal.len()], status.journal] {
                let request = AnnounceRequest {
                    epoch: 1 << 40,
                    leader,
                    journal,
                };
                let answer = orders.announce(request).await;
                assert!(answer.is_err(), "it believes {answer:?}");
            }
            Ok::<_, tonic::Status>(())
        };
        // It may be gone, or stand still.
        let _ = tokio::time::timeout(FORGE_TIME_MAX, told).await;
    });
}

fn end(bazaar: &mut Bazaar, fault: &Fault) {
    match fault {
        Fault::Kill(server) => bazaar.start_server(*server),
        Fault::Suspend(server) => bazaar.server(*server).resume(),
        Fault::Links {
            links,
            reset_at_end,
            ..
        } => {
            for link in links {
                let link = bazaar.link(*link);
                if *reset_at_end {
                    link.reset();
                }
                link.set(Conduct::default());
            }
        }
        Fault::RestartUnnoticed { gateway } => bazaar.link(*gateway).set(Conduct::default()),
        Fault::FillDisk(server) => bazaar.disk(*server).free(),
        Fault::LoseDisk(id) => bazaar.restart(*id),
        Fault::Reset(_) | Fault::Forge(_) => {}
    }
}

#[test]
fn a_seed_has_one_plan() {
    let plan_of = |seed| plan(seed, Duration::from_secs(300), 2, &[1, 2, 3]);
    assert_eq!(plan_of(1), plan_of(1));
    assert_ne!(plan_of(1), plan_of(2));
    assert!(plan_of(1).len() > 50, "{}", plan_of(1).len());
    let kinds: BTreeSet<String> = plan_of(1)
        .iter()
        .map(|planned| planned.fault.kind())
        .collect();
    assert_eq!(kinds.len(), 16, "{kinds:?}");
}
