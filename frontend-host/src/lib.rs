//! Bazaar's gateway: hosts the policy component and acts on its decisions.
//!
//! A request reads straight down `handler`: the policy decides, the host acts, the policy
//! decides about the outcome.
//!
//! - [`config`], [`error`]: what a gateway is told, and why it does not start;
//! - [`server`]: the listener for clients, and the workers;
//! - [`handler`]: one request, from its head to its response;
//! - `frontend_policy`: the sandbox, its versions, and the swap;
//! - [`cache`]: what was read, and the responses made of it; `frontend_core` has the rules;
//! - [`upstream`]: the catalog and the replicas: reads, takes, trades, elections, the session;
//! - `rollouts`: has rollouts go on, and asks their gates;
//! - [`journal`]: the journal that all of it is about;
//! - [`admin`]: the listener for operators;
//! - [`stage`]: how far the gateway's stop has come.
//!
//! Deliberately absent: any decision about routes, messages, caching or leaders. Those are the
//! policy's.

#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod config;
pub mod error;
pub mod server;
pub mod handler;
pub mod cache;
pub mod upstream;
mod rollouts;
pub mod journal;
pub mod admin;
pub mod stage;

// `tests/alone` serves tests in here and out there.
#[cfg(test)]
extern crate self as frontend_host;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use daemon::data_dir::Lock;
use daemon::tasks;
use rpc::connect::Security;
use rpc::failover::{AskIfActive, Endpoints};
use tls::{ClientCertificates, Expected, Role};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::sleep;
use wire::catalog::v1::catalog_client::CatalogClient;
use wire::order::v1::orders_client::OrdersClient;

use crate::admin::{Admin, KnownBy, Operators};
use crate::cache::Cache;
use crate::handler::Gateway;
use crate::journal::OwnJournal;
use crate::server::clients::Clients;
use crate::upstream::backend::Backend;
use crate::upstream::order_stream::OrderStreams;
use crate::upstream::replicas::{Replica, Replicas};
use crate::upstream::takes::Takes;
use frontend_policy::admission::signature_path;
use frontend_policy::{
    Admission, CodeCache, DEFAULT_POLICY, Engine, Secrets, Trust, Upload, VersionLog, Versions,
};

pub use config::Config;
pub use error::Error;

/// Runs a gateway until `shutdown`. It starts whether or not the other services are there,
/// and waits for them.
///
/// When it is to stop it is no longer ready, serves for [`Config::drain_delay`] as before, closes
/// its listener, lets what is under way finish within bounds, and returns. The compilation of a
/// policy goes on in the runtime for as long as that lasts.
///
/// # Errors
/// Where the configuration, the policy or the machine will not do, and where another process has
/// the data directory.
pub async fn run(
    config: Config,
    clients: TcpListener,
    operators: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let operators_address = operators.local_addr()?;
    let knows_operators = config.https.is_some() && config.cluster.is_some();
    if config.tokens.read.is_some() && config.tokens.change.is_none() && !knows_operators {
        return Err(Error::OnlyReaders);
    }
    let certified = config.https.as_ref();
    let known_by = KnownBy {
        tokens: config.tokens.clone(),
        certificates: knows_operators,
        all_are_certified: certified.is_some_and(|https| https.client_authorities.is_some()),
    };
    let who_operates = Operators::new(known_by)?;
    if !operators_address.ip().is_loopback() && who_operates.are_unknown() {
        return Err(Error::OpenAdmin(operators_address));
    }
    let Certificates {
        for_clients,
        for_operators,
    } = certificates(&config)?;
    let data_dir = config.data_dir.as_deref();
    let _owned = data_dir.map(Lock::take).transpose()?;
    tokio::pin!(shutdown);
    // Before anything else is in a new data directory.
    let journal = Arc::new(OwnJournal::open(data_dir)?);
    let policy = tokio::select! {
        loaded = load_policy(&config) => loaded?,
        () = &mut shutdown => return Ok(()),
    };
    let cache = Arc::new(Cache::new(policy.published().active.manifest.cache));
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
        replicas: Arc::clone(&replicas),
        takes: Takes::new(catalogs.clone(), Arc::clone(&journal)),
    };
    let gateway = Arc::new(Gateway::new(&config, policy, Arc::clone(&cache), backend));

    let (stop, stopped) = watch::channel(false);
    let until_stopped = |mut stopped: watch::Receiver<bool>| async move {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    // A connection of its own: invalidations do not queue behind reads.
    let session = tasks::spawn("session", {
        let catalog = CatalogClient::new(catalogs.channel());
        let name = format!("{}", clients.local_addr()?);
        let until_stopped = until_stopped(stopped.clone());
        let journal = Arc::clone(&journal);
        async move {
            upstream::session::keep_session(catalog, name, cache, journal, until_stopped).await
        }
    });
    let watching = tasks::spawn("watch replicas", replicas.watch());
    let policy = Arc::clone(&gateway.policy);
    let rolling_out = tasks::spawn("rollouts", rollouts::keep_going(policy));
    let connected = Clients::new(config.clients);
    let admin = Admin {
        gateway: Arc::clone(&gateway),
        clients: Arc::clone(&connected),
        catalogs,
        operators: who_operates,
        tls: for_operators,
        is_local: operators_address.ip().is_loopback(),
        stopped: stopped.clone(),
    };
    let serving = admin::serve(operators, admin, until_stopped(stopped));
    let mut admin = tasks::spawn("admin", serving);

    tokio::select! {
        () = journal.wait_until_proven() => {}
        () = &mut shutdown => return Ok(()),
    }
    let drained = async {
        shutdown.await;
        gateway.stage.drain();
        if !config.drain_delay.is_zero() {
            let delay = config.drain_delay;
            tracing::info!(?delay, "not ready from now on; clients are still served");
            sleep(delay).await;
        }
    };
    let served = tokio::select! {
        served = server::serve((clients, for_clients), Arc::clone(&gateway), connected, config.workers, drained) => served.map_err(Error::from),
        () = &mut admin => return Err(std::io::Error::other("the admin listener ended").into()),
    };
    let _ = stop.send(true);
    session.await;
    admin.await;
    drop((watching, rolling_out));
    served
}

async fn load_policy(config: &Config) -> Result<Arc<Versions>, Error> {
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
        });
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
    let serve = |clients, protocols| {
        tls::Server::load(
            https.certificate.clone(),
            https.key.clone(),
            clients,
            protocols,
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
        for_clients: Some(serve(of_clients, &server::PROTOCOLS)?),
        for_operators: Some(serve(of_operators, &admin::PROTOCOLS)?),
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
