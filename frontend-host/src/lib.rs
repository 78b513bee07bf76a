//! Bazaar's gateway: hosts the policy component and acts on its decisions.
//!
//! A request reads straight down `handler`: the policy decides, the host acts, the policy
//! decides about the outcome.
//!
//! - [`config`], [`error`]: what a gateway is told, and why it does not start;
//! - [`server`]: the listener for clients, and the workers;
//! - [`handler`]: one request, from its head to its response;
//! - [`access_log`]: a line for each request;
//! - `frontend_policy`: the sandbox, its versions, and the swap;
//! - [`cache`]: what was read, and the responses made of it; `frontend_core` has the rules;
//! - [`upstream`]: the catalog and the replicas: reads, takes, trades, elections, the session;
//! - `rollouts`: has rollouts go on, and asks their gates;
//! - [`events`]: orders as they are placed, for clients that follow them;
//! - [`journal`]: the journal that all of it is about;
//! - [`admin`]: the listener for operators;
//! - [`readiness`]: whether a trade could be served;
//! - [`stage`]: how far the gateway's stop has come;
//! - [`measured`]: what it counts and times;
//! - [`reporting`]: what it says of itself to the catalog;
//! - [`handover`]: how another process takes its place.
//!
//! Deliberately absent: any decision about routes, messages, caching or leaders. Those are the
//! policy's. But it takes batches of orders apart.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod config;
pub mod error;
pub mod server;
pub mod handler;
pub mod events;
pub mod access_log;
pub mod cache;
pub mod upstream;
mod rollouts;
pub mod journal;
pub mod admin;
pub mod readiness;
pub mod stage;
pub mod measured;
pub mod reporting;
pub mod handover;

// `tests/alone` serves tests in here and out there.
#[cfg(test)]
extern crate self as frontend_host;
#[cfg(test)]
mod machine_code {
    /// Tests in here are few, and Cargo has no directory for them where code could be kept.
    pub(crate) fn kept(engine: frontend_policy::Engine) -> frontend_policy::Engine {
        engine
    }
}
#[cfg(test)]
#[path = "../tests/alone/mod.rs"]
mod alone;

use std::future::{Future, pending};
use std::io::PipeReader;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use daemon::data_dir::Lock;
use daemon::notify;
use daemon::tasks::{self, Task};
use rpc::connect::Security;
use rpc::failover::{AskIfActive, Endpoints};
use tls::{ClientCertificates, Expected, Role};
use tokio::net::TcpListener;
use tokio::net::UnixListener;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::order::v1::orders_client::OrdersClient;

use crate::access_log::AccessLog;
use crate::admin::console::{Console, Service, hostname};
use crate::admin::{Admin, KnownBy, Operators};
use crate::cache::Cache;
use crate::config::{Https, Tokens};
use crate::handler::Gateway;
use crate::handover::{HandoverError, Offering, Predecessor, Replaced};
use crate::journal::OwnJournal;
use crate::reporting::Reporting;
use crate::server::Workers;
use crate::server::clients::Clients;
use crate::upstream::backend::Backend;
use crate::upstream::order_stream::OrderStreams;
use crate::upstream::replicas::{Replica, Replicas};
use crate::upstream::session::Served;
use crate::upstream::takes::Takes;
use frontend_policy::admission::signature_path;
use frontend_policy::{
    Admission, CodeCache, DEFAULT_POLICY, Engine, Secrets, Trust, Upload, VersionLog, Versions,
};

pub use admin::METRICS;
pub use config::Config;
pub use error::Error;

/// What a gateway listens on.
#[derive(Debug)]
pub struct Listeners {
    /// For clients.
    pub clients: TcpListener,
    /// For operators.
    pub operators: TcpListener,
    /// Whether a supervisor has them as well: whoever connects when the gateway stops waits for its next start then.
    pub are_kept: bool,
}

/// Whom a gateway follows, and who follows it.
#[derive(Debug)]
pub struct Succession {
    /// The running gateway whose place this one takes, with its listeners.
    pub predecessor: Option<Predecessor>,
    /// Told when another process has taken this one's place: it is to stop then.
    pub replaced: oneshot::Sender<()>,
}

/// Whether a gateway would know who operates it, as far as it has to where it listens to operators.
///
/// # Errors
/// [`Error::OnlyReaders`], [`Error::OpenAdmin`]; [`Error::Token`] where a token will not do.
pub fn check_operators(
    address: SocketAddr,
    tokens: &Tokens,
    https: Option<&Https>,
    has_cluster: bool,
) -> Result<(), Error> {
    known_operators(address, tokens, https, has_cluster).map(drop)
}

fn known_operators(
    address: SocketAddr,
    tokens: &Tokens,
    https: Option<&Https>,
    has_cluster: bool,
) -> Result<Operators, Error> {
    let knows_operators = https.is_some() && has_cluster;
    if tokens.read.is_some() && tokens.change.is_none() && !knows_operators {
        return Err(Error::OnlyReaders);
    }
    let operators = Operators::new(KnownBy {
        tokens: tokens.clone(),
        certificates: knows_operators,
        all_are_certified: https.is_some_and(|https| https.client_authorities.is_some()),
    })?;
    match !address.ip().is_loopback() && operators.are_unknown() {
        true => Err(Error::OpenAdmin(address)),
        false => Ok(operators),
    }
}

/// Runs a gateway until `shutdown`. It starts whether or not the other services are there,
/// and waits for them.
///
/// When it is to stop it is no longer ready, serves for [`Config::drain_delay`] as before, closes
/// its listener, lets what is under way finish within bounds, and returns. The compilation of a
/// policy goes on in the runtime for as long as that lasts.
///
/// With a data directory it offers its place to other processes: see [`handover`]. Once one has it, `shutdown` is to
/// complete, and there is no delay then. One that has a predecessor serves nobody until it could serve a trade.
///
/// # Errors
/// Where the configuration, the policy or the machine will not do, where another process has
/// the data directory, and where its predecessor goes on.
pub async fn run(
    config: Config,
    listeners: Listeners,
    succession: Succession,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let Listeners {
        clients,
        operators,
        are_kept,
    } = listeners;
    let operators_address = operators.local_addr()?;
    let who_operates = known_operators(
        operators_address,
        &config.tokens,
        config.https.as_ref(),
        config.cluster.is_some(),
    )?;
    let Certificates {
        for_clients,
        for_operators,
    } = certificates(&config)?;
    let data_dir = config.data_dir.as_deref();
    let Succession {
        predecessor,
        replaced,
    } = succession;
    let (lock, offers, predecessor) = match predecessor {
        Some(predecessor) => (
            Some(predecessor.lock),
            Some(predecessor.offers),
            Some(predecessor.conversation),
        ),
        None => (data_dir.map(Lock::take).transpose()?, None, None),
    };
    tokio::pin!(shutdown);
    // Before anything else is in a new data directory.
    let journal = Arc::new(OwnJournal::open(data_dir)?);
    let policy = tokio::select! {
        loaded = load_policy(&config, predecessor.is_some()) => loaded?,
        () = &mut shutdown => return Ok(()),
    };
    // A restart has to do with what there is. This one need not be.
    if predecessor.is_some()
        && let Some(why) = policy.fell_back()
    {
        return Err(HandoverError::OtherPolicies(why).into());
    }
    let cache = Arc::new(Cache::new(
        policy.published().active.manifest.cache,
        config.cache,
    ));
    let catalogs = catalogs(&config, &journal)?;
    let catalog = CatalogClient::new(catalogs.channel());
    let replicas = Arc::new(Replicas::new(
        replicas(&config, &journal)?,
        catalog.clone(),
        Arc::clone(&journal),
        Arc::clone(&policy),
    ));
    let backend = Backend {
        catalog,
        spare_catalog: CatalogClient::new(catalogs.channel()),
        replicas: Arc::clone(&replicas),
        takes: Takes::new(catalogs.clone(), Arc::clone(&journal)),
        end_turn: Default::default(),
    };
    let gateway = Gateway::new(&config, policy, Arc::clone(&cache), backend);
    let gateway = Arc::new(gateway.logging(access_log(&config)?));
    if are_kept {
        gateway.stage.leave_queue();
    }

    let until_stopped = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let name = format!("{}", clients.local_addr()?);
    let reporting = Arc::new(Reporting::default());
    let (stop, stopped) = watch::channel(false);
    // A connection of its own: invalidations do not queue behind reads.
    let session = tasks::spawn("session", {
        let catalog = CatalogClient::new(catalogs.channel());
        let name = name.clone();
        let until_stopped = until_stopped(stopped);
        let journal = Arc::clone(&journal);
        let served = Served {
            cache,
            measured: Arc::clone(&gateway.measured),
            reporting: Arc::clone(&reporting),
        };
        async move {
            upstream::session::keep_session(catalog, name, served, journal, until_stopped).await
        }
    });
    let watching = tasks::spawn("watch replicas", replicas.watch());
    let policy = Arc::clone(&gateway.policy);
    let looking = tasks::spawn("events", Arc::clone(&gateway.events).keep_looking());
    let rolling_out = tasks::spawn("rollouts", rollouts::keep_going(policy));

    // All that can fail, before another gateway leaves its place to this one.
    let workers = Workers::start(config.workers)?;
    let (stop_offering, stopping) = watch::channel(false);
    let (alive, _alive) = std::io::pipe()?; // until the end
    let offering = data_dir.zip(lock.as_ref()).and_then(|owned| {
        let sockets = (&clients, &operators);
        offer(owned, (sockets, are_kept), (offers, alive), &gateway)
    });
    let mut announcing = None;
    match predecessor {
        None => announcing = Some(announce(&gateway)),
        Some(predecessor) => {
            let ready = async {
                journal.wait_until_proven().await;
                readiness::wait_until_ready(&gateway).await;
            };
            let replacing = predecessor.replace(ready, || readiness::unready(&gateway));
            let replaced = tokio::select! {
                biased;
                () = &mut shutdown => {
                    notify::leave_place();
                    return Ok(());
                }
                replaced = replacing => replaced?,
            };
            if replaced == Replaced::Ended {
                notify::take_place();
                announcing = Some(announce(&gateway));
            }
            tracing::info!("serving in the place of the gateway before");
            if let Some(lock) = &lock {
                lock.name_this_process();
            }
            let policy = Arc::clone(&gateway.policy);
            let released = tokio::task::spawn_blocking(move || policy.release());
            if let Err(error) = released.await {
                tracing::error!(%error, "changes of the policy stay held");
            }
        }
    }

    let connected = Clients::new(config.clients);
    let (stop_admin, admin_stopped) = watch::channel(false);
    let (leave_admin, admin_left) = watch::channel(false);
    let admin = Admin {
        gateway: Arc::clone(&gateway),
        clients: Arc::clone(&connected),
        cluster: config.cluster.clone(),
        catalogs,
        operators: who_operates,
        tls: for_operators,
        is_local: operators_address.ip().is_loopback(),
        console: Console {
            reporting,
            name,
            host: hostname(),
            admin: operators_address.to_string(),
            services: services(&config),
            policy: Default::default(),
            watched: Default::default(),
        },
        stopped: admin_stopped.clone(),
    };
    let (left, stopped) = (until_stopped(admin_left), until_stopped(admin_stopped));
    let serving = admin::serve(operators, admin, left, stopped);
    let admin = tasks::spawn("admin", serving);

    tokio::select! {
        // First: where it is proven, clients may be there that are served until the end.
        biased;
        () = journal.wait_until_proven() => {}
        () = &mut shutdown => {
            if let Some(offering) = offering {
                offering.withdraw();
            }
            return Ok(());
        }
    }
    // Not before: who takes the place serves at once.
    let mut offering =
        offering.map(|offering| tasks::spawn("hand-over", offering.until_taken(stopping)));
    let drained = async {
        let mut is_told = false;
        let is_replaced = tokio::select! {
            () = &mut shutdown => {
                is_told = true;
                let _ = stop_offering.send(true);
                match &mut offering {
                    Some(offering) => offering.await,
                    None => false,
                }
            }
            true = taken(&mut offering) => true,
        };
        if is_replaced {
            // Both of them accept from the same sockets: what this one does not take, the other one has.
            gateway.stage.leave_queue();
            let _ = leave_admin.send(true);
            let _ = replaced.send(());
            if !is_told {
                shutdown.await;
            }
        }
        gateway.stage.drain();
        if !config.drain_delay.is_zero() && !is_replaced {
            let delay = config.drain_delay;
            tracing::info!(?delay, "not ready from now on; clients are still served");
            sleep(delay).await;
        }
    };
    let serving = async {
        let listener = (clients, for_clients);
        let served = server::serve(listener, Arc::clone(&gateway), connected, workers, drained);
        let served = served.await;
        let _ = stop.send(true);
        let _ = leave_admin.send(true);
        let _ = stop_admin.send(true);
        if let Some(log) = &gateway.access_log {
            log.flush().await;
        }
        session.await;
        served.map_err(Error::from)
    };
    let operating = async {
        admin.await;
        match *stop_admin.borrow() {
            true => Ok(()),
            false => Err(std::io::Error::other("the admin listener ended").into()),
        }
    };
    let served = tokio::try_join!(serving, operating);
    drop((watching, looking, rolling_out, announcing));
    served.map(|_| ())
}

/// Where requests are logged, if they are.
fn access_log(config: &Config) -> Result<Option<AccessLog>, Error> {
    let Some(config) = &config.access_log else {
        return Ok(None);
    };
    let started = AccessLog::start(config).map_err(|source| Error::AccessLog {
        path: config.file.clone().unwrap_or_default(),
        source,
    })?;
    Ok(Some(started))
}

/// Tells the supervisor once a trade could be served.
fn announce(gateway: &Arc<Gateway>) -> Task<()> {
    let gateway = Arc::clone(gateway);
    tasks::spawn("readiness", async move {
        readiness::wait_until_ready(&gateway).await;
        notify::ready();
    })
}

/// The gateway's place, for another process to take; `None` where that cannot be.
fn offer(
    owned: (&Path, &Lock),
    sockets: ((&TcpListener, &TcpListener), bool),
    offers: (Option<UnixListener>, PipeReader),
    gateway: &Gateway,
) -> Option<Offering> {
    Offering::new(owned, sockets, offers, Arc::clone(&gateway.policy))
        .inspect_err(|error| {
            tracing::warn!(%error, "no other process can take this one's place without a gap");
        })
        .ok()
}

/// Waits until another process has taken the gateway's place; for ever where none can.
async fn taken(offering: &mut Option<Task<bool>>) -> bool {
    match offering {
        Some(offering) => offering.await,
        None => pending().await,
    }
}

/// `held` where another process has the directory as well, see [`Versions::hold`].
async fn load_policy(config: &Config, held: bool) -> Result<Arc<Versions>, Error> {
    let engine = Engine::new(config.decision_time_max).map_err(Error::Sandbox)?;
    let engine = engine.with_compiler(config.compiler.clone());
    let engine = match &config.data_dir {
        Some(dir) => engine.with_code_cache(CodeCache::open(dir.join("compiled"))?),
        None => engine,
    };
    let trust = config.policy_trust.as_deref().map(read_trust).transpose()?;
    let (component, signature) = match &config.policy {
        None => (DEFAULT_POLICY.to_vec(), None),
        Some(path) => read_policy(path, trust.as_ref())?,
    };
    let configuration = config.policy_config.as_deref().map(read).transpose()?;
    let configuration = configuration.unwrap_or_default();
    let start = Upload {
        component: &component,
        signature: signature.as_deref(),
        config: &configuration,
    };
    let log = config
        .data_dir
        .as_deref()
        .map(|dir| VersionLog::open(dir, start))
        .transpose()?
        .map(|log| match &trust {
            Some(trust) => log.retain_trusted(trust),
            None => log,
        })
        .map(|log| if held { log.held() } else { log });
    let probation = config.probation;
    let secrets = Secrets::in_directory(config.policy_secrets.clone());
    let admission = Admission::new(engine).with_secrets(secrets);
    let versions = tokio::task::spawn_blocking(move || {
        let start = Upload {
            component: &component,
            signature: signature.as_deref(),
            config: &configuration,
        };
        Versions::new(admission, start, probation, log)
    });
    let versions = versions.await.map_err(std::io::Error::other)??;
    tracing::info!(policy = %versions.published().active, "policy loaded");
    Ok(Arc::new(versions.trusting(trust)))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(|source| Error::PolicyFile {
        path: path.to_owned(),
        source,
    })
}

fn read_trust(path: &Path) -> Result<Trust, Error> {
    let text = read(path)?;
    Trust::parse(&String::from_utf8_lossy(&text)).map_err(|source| Error::Keys {
        path: path.to_owned(),
        source,
    })
}

/// Reads a component, and the signature beside it.
fn read_policy(path: &Path, trust: Option<&Trust>) -> Result<(Vec<u8>, Option<String>), Error> {
    let component = read(path)?;
    let signature = std::fs::read_to_string(signature_path(path)).ok();
    if let Some(trust) = trust {
        let trusted = trust.verify(&component, signature.as_deref());
        trusted.map_err(|source| Error::Untrusted {
            path: path.to_owned(),
            source,
        })?;
    }
    Ok((component, signature))
}

/// The certificates of both listeners, where they have them.
struct Certificates {
    for_clients: Option<tls::Server>,
    for_operators: Option<tls::Server>,
}

fn certificates(config: &Config) -> Result<Certificates, Error> {
    let Some(https) = &config.https else {
        return Ok(Certificates {
            for_clients: None,
            for_operators: None,
        });
    };
    let serve = |clients| {
        tls::Server::load(
            https.certificate.clone(),
            https.key.clone(),
            clients,
            &server::PROTOCOLS,
        )
    };
    let of_clients = ClientCertificates {
        authorities: https.client_authorities.clone(),
        are_required: https.client_authorities.is_some(),
        cluster: None,
    };
    // Probes have none: what needs one is for the admin API to say.
    let of_operators = ClientCertificates {
        authorities: https.client_authorities.clone(),
        are_required: false,
        cluster: config.cluster.clone(),
    };
    Ok(Certificates {
        for_clients: Some(serve(of_clients)?),
        for_operators: Some(serve(of_operators)?),
    })
}

fn catalogs(config: &Config, journal: &Arc<OwnJournal>) -> Result<Endpoints, Error> {
    let urls = &config.catalogs;
    let security = Security::of(config.cluster.as_ref(), Expected::Role(Role::Catalog));
    if let Some(url) = urls
        .iter()
        .enumerate()
        .find_map(|(index, url)| urls[..index].contains(url).then_some(url))
    {
        return Err(Error::SameCatalog(url.clone()));
    }
    let journal = Arc::clone(journal);
    let ask: AskIfActive = Arc::new(move |catalog| {
        Box::pin(wire::leadership::ask_if_active(catalog, journal.to_wire()))
    });
    Endpoints::several(urls, &security, ask).map_err(|(url, source)| Error::Url {
        url: url.to_owned(),
        source,
    })
}

/// Whom consoles ask how they are.
fn services(config: &Config) -> Vec<Service> {
    let cluster = config.cluster.as_ref();
    let catalogs = config.catalogs.iter().map(|url| Service {
        replica: None,
        url: url.clone(),
        security: Security::of(cluster, Expected::Role(Role::Catalog)),
    });
    let replicas = config.orders.iter().map(|(id, url)| Service {
        replica: Some(*id),
        url: url.clone(),
        security: Security::of(cluster, Expected::Replica(*id)),
    });
    catalogs.chain(replicas).collect()
}

fn endpoints(url: &str, security: &Security) -> Result<Endpoints, Error> {
    Endpoints::one(url, security).map_err(|source| Error::Url {
        url: url.to_owned(),
        source,
    })
}

fn replicas(config: &Config, journal: &Arc<OwnJournal>) -> Result<Vec<Replica>, Error> {
    let mut replicas: Vec<Replica> = Vec::new();
    for (id, url) in &config.orders {
        if replicas.iter().any(|replica| replica.id == *id) {
            return Err(Error::SameReplica(*id));
        }
        let security = Security::of(config.cluster.as_ref(), Expected::Replica(*id));
        replicas.push(Replica {
            id: *id,
            url: url.clone(),
            orders: OrdersClient::new(endpoints(url, &security)?.channel()),
            spare: OrdersClient::new(endpoints(url, &security)?.channel()),
            order_streams: OrderStreams::new(endpoints(url, &security)?, Arc::clone(journal)),
        });
    }
    if replicas.is_empty() {
        Err(Error::NoReplica)
    } else {
        Ok(replicas)
    }
}
