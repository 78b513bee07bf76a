//! `bazaar catalog`, `order` and `gateway`: one service in this process, until it is told to
//! stop.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use catalog::config::NESTED_LEASE_MAX;
use daemon::tasks::{self, Task};
use domain::ReplicaId;
use frontend_host::config::{Bounds, Tokens};
use frontend_policy::{Compiler, Probation};
use monitor::Monitor;
use rpc::listen::connections_within_open_files;
use tls::{Cluster, Expected, Role};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::cli::{self, Lifeline};
use crate::client::Origin;
use crate::error::Error;
use crate::failure::Failure;
use crate::listen::Place;
use crate::log;
use crate::open_files;
use crate::rebuild;
use crate::stop::{self, STOP_TIME_MAX, StopSignals, end_of_stdin};

pub async fn catalog(args: cli::Catalog) -> Result<(), Failure> {
    log::start("catalog");
    open_files::raise_limit();
    let mut shutdown = Box::pin(shutdown(&args.lifeline, STOP_TIME_MAX)?);
    let cluster = cluster(&args.cluster, Expected::Role(Role::Catalog))?;
    guarded(args.listen, cluster.is_some(), &args.openness)?;
    let listener = bind(args.listen, "the catalog".to_owned(), "--listen")?;
    let monitor = Monitor::default();
    let _monitoring = monitored(args.metrics, "the catalog's metrics", &monitor)?;
    if let Some(store) = args.store {
        let url = catalog::StoreUrl::parse(&store.0).map_err(catalog::Error::from)?;
        info!(address = %args.listen, store = %url, "starting");
        let config = catalog::PostgresConfig {
            store: url,
            allow_unreplicated: args.allow_unreplicated,
            reached_at: args.advertise.map_or_else(
                || match cluster {
                    Some(_) => format!("https://{}", args.listen),
                    None => format!("http://{}", args.listen),
                },
                |advertised| advertised.to_string(),
            ),
            new: args.new,
            stocks: args.stocks,
            lease: args
                .lease_ms
                .map_or(NESTED_LEASE_MAX, Duration::from_millis),
            accept_loss_of: args.accept_loss_of.into_iter().collect(),
            monitor,
        };
        catalog::run_on_postgres(config, (listener, cluster), shutdown).await?;
        info!("stopped");
        return Ok(());
    }
    let data_dir = args.data_dir.ok_or_else(|| {
        Error::Usage("name where the catalog keeps its data: --data-dir or --store".to_owned())
    })?;
    let config = catalog::Config {
        accept_loss_of: args.accept_loss_of.into_iter().collect(),
        monitor,
        ..catalog_config(data_dir, args.new, args.stocks, args.lease_ms)
    };
    if !args.rebuild_from.is_empty() {
        let (config, dirs) = (config.clone(), args.rebuild_from);
        let rebuilding = tokio::task::spawn_blocking(move || rebuild::from_ledgers(&config, &dirs));
        tokio::select! {
            orders = rebuilding => {
                let orders = orders.map_err(|error| Error::from(std::io::Error::from(error)))??;
                info!(%orders, "rebuilt the lost catalog");
            }
            () = &mut shutdown => return Ok(()), // nothing is there until all of it is
        }
    }
    info!(address = %args.listen, "starting");
    catalog::run(config, (listener, cluster), shutdown).await?;
    info!("stopped");
    Ok(())
}

/// How a catalog is set up by its flags.
pub fn catalog_config(
    data_dir: PathBuf,
    new: bool,
    stocks: Option<PathBuf>,
    lease_ms: Option<u64>,
) -> catalog::Config {
    catalog::Config {
        data_dir,
        new,
        stocks,
        lease: lease(lease_ms),
        accept_loss_of: BTreeSet::new(),
        monitor: Monitor::default(),
    }
}

fn lease(lease_ms: Option<u64>) -> Duration {
    lease_ms.map_or(catalog::config::LEASE_DEFAULT, Duration::from_millis)
}

/// Runs an order replica.
pub async fn order(args: cli::Order) -> Result<(), Failure> {
    log::start(&format!("order-{}", args.id));
    open_files::raise_limit();
    let address = args.address().map_err(Error::Usage)?;
    let shutdown = shutdown(&args.lifeline, STOP_TIME_MAX)?;
    let cluster = cluster(&args.cluster, Expected::Replica(args.id))?;
    guarded(address, cluster.is_some(), &args.openness)?;
    let listener = bind(address, format!("order replica {}", args.id), "--listen")?;
    let monitor = Monitor::default();
    let _monitoring = monitored(args.metrics, "a replica's metrics", &monitor)?;
    let config = order::Config {
        id: args.id,
        catalogs: origins(&args.catalogs),
        peers: urls(args.peers),
        data_dir: args.data_dir,
        rebuild: args.rebuild,
        cluster: cluster.clone(),
        monitor,
    };
    info!(%address, "starting");
    order::run(config, (listener, cluster), shutdown).await?;
    info!("stopped");
    Ok(())
}

pub async fn gateway(args: cli::Gateway) -> Result<(), Failure> {
    log::start("gateway");
    open_files::raise_limit();
    let drain_delay = Duration::from_millis(args.front.drain_delay_ms);
    let shutdown = shutdown(&args.lifeline, drain_delay + STOP_TIME_MAX)?;
    let http = bind(
        args.front.listen,
        "the gateway's HTTP".to_owned(),
        "--listen",
    )?;
    let admin = bind(
        args.front.admin,
        "the gateway's admin API".to_owned(),
        "--admin",
    )?;
    let defaults = frontend_host::Config::new(origins(&args.catalogs), urls(args.orders));
    let rules = args.front.rules;
    let config = frontend_host::Config {
        policy: args.front.policy,
        policy_trust: args.front.policy_trust,
        policy_config: args.front.policy_config,
        policy_secrets: args.front.policy_secrets,
        // This program, also where its file has been replaced since.
        compiler: Some(Compiler::new(
            "/proc/self/exe".into(),
            [cli::COMPILE_POLICY.into()],
        )),
        data_dir: args.data_dir,
        tokens: Tokens {
            change: args.front.admin_token.source().map_err(Error::from)?,
            read: args.front.admin_read_token.source().map_err(Error::from)?,
        },
        cluster: cluster(&args.cluster, Expected::Role(Role::Gateway))?,
        https: args.front.tls.https(),
        clients: Bounds {
            connections_max: connections_within_open_files(defaults.clients.connections_max),
            connections_per_client_max: args
                .front
                .connections_per_client_max
                .map(|connections| connections as usize),
            ..defaults.clients
        },
        drain_delay,
        workers: args.front.workers.unwrap_or(defaults.workers),
        decision_time_max: Duration::from_millis(rules.decision_ms_max),
        probation: Probation {
            window: Duration::from_secs(rules.probation_seconds),
            failures_max: rules.probation_failures_max,
        },
        client_header: rules.client_header,
        ..defaults
    };
    info!(address = %args.front.listen, admin = %args.front.admin, "starting");
    frontend_host::run(config, http, admin, shutdown).await?;
    info!("stopped");
    Ok(())
}

/// Of which cluster a service is, where it has certificates.
fn cluster(files: &cli::Cluster, own: Expected) -> Result<Option<Cluster>, Error> {
    let files = files.files();
    let loaded = files.map(|files| Cluster::load(&files, own)).transpose()?;
    Ok(loaded)
}

/// Whoever reaches a gRPC listener is believed, unless there are certificates: so from this machine alone, or as somebody
/// wants it.
pub fn guarded(
    address: SocketAddr,
    has_certificate: bool,
    openness: &cli::Openness,
) -> Result<(), Error> {
    if address.ip().is_loopback() || has_certificate || openness.insecure_cluster {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{address} can be reached from other machines, and whoever reaches it would be believed whatever it says: have \
         services prove who they are with --cluster-ca, --cluster-cert and --cluster-key (`bazaar cert new` makes them), \
         listen on 127.0.0.1, or say --insecure-cluster"
    )))
}

fn origins(catalogs: &[Origin]) -> Vec<String> {
    catalogs.iter().map(Origin::to_string).collect()
}

fn urls(replicas: Vec<(ReplicaId, Origin)>) -> Vec<(ReplicaId, String)> {
    replicas
        .into_iter()
        .map(|(id, origin)| (id, origin.to_string()))
        .collect()
}

/// Answers for a service, where it is wanted, until what is returned is dropped.
fn monitored(
    address: Option<SocketAddr>,
    purpose: &str,
    monitor: &Monitor,
) -> Result<Option<Task<()>>, Error> {
    let Some(address) = address else {
        return Ok(None);
    };
    let listener = bind(address, purpose.to_owned(), "--metrics")?;
    let serving = monitor::serve(listener, monitor.clone());
    Ok(Some(tasks::spawn("metrics", serving)))
}

fn bind(address: SocketAddr, purpose: String, flag: &'static str) -> Result<TcpListener, Error> {
    let listener = Place {
        address,
        purpose: purpose.clone(),
        flag,
    }
    .bind()?;
    TcpListener::from_std(listener).map_err(|source| Error::Listen {
        address,
        purpose,
        flag,
        source,
    })
}

/// Completes when the service should stop. From then on the process ends within `stop_time_max`,
/// and at once where it is signalled twice.
fn shutdown(
    lifeline: &Lifeline,
    stop_time_max: Duration,
) -> Result<impl Future<Output = ()> + Send + 'static, Error> {
    let mut signals = StopSignals::catch_for_service(|what| info!("{what}"))?;
    let stop_at_eof = lifeline.stop_at_eof;
    Ok(async move {
        let is_signalled = tokio::select! {
            () = signals.next() => true,
            () = end_of_stdin(), if stop_at_eof => false,
        };
        if is_signalled {
            info!("stopping: signalled");
        } else {
            info!("stopping: the process that started this one wants it so, or is gone");
        }
        if let Err(error) = stop::end_after(stop_time_max) {
            warn!(%error, "cannot limit how long stopping takes");
        }
        tasks::spawn_for_caller(async move {
            // A supervisor may signal this process as well as the one that started it.
            if !is_signalled {
                signals.next().await;
            }
            signals.next().await;
            warn!("signalled again: ending at once");
            daemon::fail()
        });
    })
}
