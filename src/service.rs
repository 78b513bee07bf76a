//! `bazaar catalog`, `order` and `gateway`: one service in this process, until it is told to
//! stop.

use std::collections::BTreeSet;
use std::fmt;
use std::future::pending;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use catalog::config::NESTED_LEASE_MAX;
use daemon::notify;
use daemon::tasks::{self, Task};
use domain::ReplicaId;
use frontend_host::cache::CacheBounds;
use frontend_host::config::{Bounds, Tokens};
use frontend_host::handover::{self, Handed};
use frontend_host::{Listeners, Succession};
use frontend_policy::{Compiler, Probation};
use metrics::{Export, Families};
use monitor::{Monitor, Readiness};
use rpc::listen::connections_within_open_files;
use rpc::release::RELEASE;
use tls::{ClientCertificates, Cluster, Expected, Role};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::time::sleep;
use traces::Traces;
use tracing::{info, warn};

use crate::cli::{self, Lifeline};
use crate::client::Origin;
use crate::error::Error;
use crate::failure::Failure;
use crate::listen::{Inherited, ListenAddress};
use crate::log;
use crate::open_files;
use crate::rebuild;
use crate::stop::{self, STOP_TIME_MAX, StopSignals, end_of_stdin};
use crate::watchdog;

/// How often it is looked whether a service is ready, for its supervisor.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Runs a catalog.
pub async fn catalog(args: cli::Catalog, mut inherited: Inherited) -> Result<(), Failure> {
    log::start("catalog", args.logging.log_format);
    open_files::raise_limit();
    let mut shutdown = Box::pin(shutdown(&args.lifeline, STOP_TIME_MAX, None)?);
    let cluster = cluster(&args.cluster, Expected::Role(Role::Catalog))?;
    guarded(args.listen, cluster.is_some(), &args.openness)?;
    let asked = asked(
        args.metrics,
        (&args.cluster, cluster.as_ref()),
        &args.openness,
    )?;
    let purpose = "the catalog".to_owned();
    let listener = bind(args.listen, purpose, "--listen", &mut inherited)?;
    let monitor = monitor_of(cluster.as_ref());
    let _monitoring = monitored(asked, "the catalog's metrics", &monitor, &mut inherited)?;
    inherited.check_all_taken("neither --listen nor --metrics says that address")?;
    let _telling = tell_supervisor(&monitor);
    let traces = traces(&args.tracing, "bazaar-catalog", args.listen.to_string())?;
    monitor.export(Arc::new(traces.clone()));
    if let Some(store) = args.store {
        let url = catalog::StoreUrl::parse(&store.0).map_err(catalog::Error::from)?;
        info!(address = %args.listen, store = %url, release = RELEASE, "starting");
        if let Some(risk) = url.risk() {
            warn!(store = %url, "{risk}");
        }
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
            traces: traces.clone(),
        };
        let ran = catalog::run_on_postgres(config, (listener, cluster), shutdown).await;
        traces.flush().await;
        ran?;
        info!("stopped");
        return Ok(());
    }
    let data_dir = args.data_dir.ok_or_else(|| {
        Error::Usage("name where the catalog keeps its data: --data-dir or --store".to_owned())
    })?;
    let config = catalog::Config {
        accept_loss_of: args.accept_loss_of.into_iter().collect(),
        archive_after: args.archive_after,
        is_rebuilt: !args.rebuild_from.is_empty(),
        monitor,
        traces: traces.clone(),
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
    info!(address = %args.listen, release = RELEASE, "starting");
    let ran = catalog::run(config, (listener, cluster), shutdown).await;
    traces.flush().await;
    ran?;
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
        is_rebuilt: false,
        archive_after: None,
        monitor: Monitor::default(),
        traces: Traces::default(),
    }
}

fn lease(lease_ms: Option<u64>) -> Duration {
    lease_ms.map_or(catalog::config::LEASE_DEFAULT, Duration::from_millis)
}

/// Runs an order replica.
pub async fn order(args: cli::Order, mut inherited: Inherited) -> Result<(), Failure> {
    log::start(&format!("order-{}", args.id), args.logging.log_format);
    open_files::raise_limit();
    let address = args.address().map_err(Error::Usage)?;
    let shutdown = shutdown(&args.lifeline, STOP_TIME_MAX, None)?;
    let cluster = cluster(&args.cluster, Expected::Replica(args.id))?;
    guarded(address, cluster.is_some(), &args.openness)?;
    let asked = asked(
        args.metrics,
        (&args.cluster, cluster.as_ref()),
        &args.openness,
    )?;
    let purpose = format!("order replica {}", args.id);
    let listener = bind(address, purpose, "--listen", &mut inherited)?;
    let monitor = monitor_of(cluster.as_ref());
    let _monitoring = monitored(asked, "a replica's metrics", &monitor, &mut inherited)?;
    inherited.check_all_taken("neither --listen nor --metrics says that address")?;
    let _telling = tell_supervisor(&monitor);
    let traces = traces(&args.tracing, "bazaar-order", args.id.to_string())?;
    monitor.export(Arc::new(traces.clone()));
    let config = order::Config {
        id: args.id,
        catalogs: origins(&args.catalogs),
        // One line for all replicas: it need not leave out whom it is for.
        peers: urls(args.peers)
            .into_iter()
            .filter(|(id, _)| *id != args.id)
            .collect(),
        data_dir: args.data_dir,
        rebuild: args.rebuild,
        archive_after: args.archive_after,
        cluster: cluster.clone(),
        monitor,
        traces: traces.clone(),
    };
    info!(%address, release = RELEASE, "starting");
    let ran = order::run(config, (listener, cluster), shutdown).await;
    traces.flush().await;
    ran?;
    info!("stopped");
    Ok(())
}

/// Runs a gateway, in the place of a running one where that is wanted.
pub async fn gateway(args: cli::Gateway, mut inherited: Inherited) -> Result<(), Failure> {
    log::start("gateway", args.logging.log_format);
    open_files::raise_limit();
    let drain_delay = Duration::from_millis(args.front.drain_delay_ms);
    let (replaced, when_replaced) = oneshot::channel();
    let stop_time_max = drain_delay + STOP_TIME_MAX;
    let shutdown = shutdown(&args.lifeline, stop_time_max, Some(when_replaced))?;
    let handed = match &args.data_dir {
        Some(data_dir) if args.take_over => handover::take_over(data_dir)
            .await
            .map_err(frontend_host::Error::from)?,
        _ => None,
    };
    let (listeners, predecessor) = front(&args.front, handed, &mut inherited)?;
    inherited.check_all_taken("neither --listen nor --admin says that address")?;
    let defaults = frontend_host::Config::new(origins(&args.catalogs), urls(args.orders));
    let rules = args.front.rules;
    let instance = args.front.listen.to_string();
    let traces = traces(&args.tracing, "bazaar-gateway", instance)?;
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
        cache: CacheBounds {
            stocks_max: args.front.cache_stocks_max,
            orders_max: args.front.cache_orders_max,
        },
        drain_delay,
        workers: args.front.workers.unwrap_or(defaults.workers),
        decision_time_max: Duration::from_millis(rules.decision_ms_max),
        probation: Probation {
            window: Duration::from_secs(rules.probation_seconds),
            failures_max: rules.probation_failures_max,
        },
        client_header: rules.client_header,
        access_log: args.front.access.config(),
        traces: traces.clone(),
        ..defaults
    };
    info!(address = %args.front.listen, admin = %args.front.admin, release = RELEASE, "starting");
    let succession = Succession {
        predecessor,
        replaced,
    };
    let ran = frontend_host::run(config, listeners, succession, shutdown).await;
    traces.flush().await;
    ran?;
    info!("stopped");
    Ok(())
}

/// What a gateway listens on, and the running one that handed it over.
fn front(
    flags: &cli::Front,
    handed: Option<Handed>,
    inherited: &mut Inherited,
) -> Result<(Listeners, Option<handover::Predecessor>), Error> {
    let mut are_kept = inherited.has(flags.listen);
    let clients = ("the gateway's HTTP", "--listen", flags.listen);
    let operators = ("the gateway's admin API", "--admin", flags.admin);
    let (clients, operators, predecessor) = match handed {
        None => {
            let mut bind =
                |(purpose, flag, address)| bind(address, String::from(purpose), flag, inherited);
            (bind(clients)?, bind(operators)?, None)
        }
        Some(handed) => {
            notify::follow(handed.alive_every);
            are_kept |= handed.are_kept;
            let predecessor = Some(handed.predecessor);
            let clients = handed_over(clients, handed.clients, inherited)?;
            let operators = handed_over(operators, handed.operators, inherited)?;
            (clients, operators, predecessor)
        }
    };
    let listeners = Listeners {
        clients,
        operators,
        are_kept,
    };
    Ok((listeners, predecessor))
}

/// What a running gateway listens on, which is what this one is told to. A supervisor may have handed it over as well.
fn handed_over(
    (purpose, flag, address): (&str, &'static str, SocketAddr),
    handed: std::net::TcpListener,
    inherited: &mut Inherited,
) -> Result<TcpListener, Error> {
    let unusable = |source| Error::Listen {
        address,
        purpose: purpose.to_owned(),
        flag,
        source,
    };
    let bound = handed.local_addr().map_err(unusable)?;
    if bound != address {
        return Err(Error::Usage(format!(
            "the running gateway listens on {bound} ({purpose}), and {flag} says {address}: take its place with the same \
             addresses, or stop it first"
        )));
    }
    if inherited.has(address) {
        return bind(address, purpose.to_owned(), flag, inherited);
    }
    handed.set_nonblocking(true).map_err(unusable)?;
    TcpListener::from_std(handed).map_err(unusable)
}

/// Tells the supervisor once a service does its part, and from now on that it is [alive](watchdog): on the runtime that serves.
fn tell_supervisor(monitor: &Monitor) -> (Task<()>, Option<Task<()>>) {
    let (monitor, watched) = (monitor.clone(), monitor.clone());
    let ready = tasks::spawn("readiness", async move {
        while !matches!(monitor.observe().readiness, Readiness::Ready(_)) {
            sleep(LOOK_INTERVAL).await;
        }
        notify::ready();
    });
    let alive = notify::alive_every().map(|every| {
        let telling = watchdog::keep_telling(watched, every);
        tasks::spawn("watchdog", telling)
    });
    (ready, alive)
}

/// Where a service's spans are, if any are wanted.
fn traces(wanted: &cli::Tracing, name: &'static str, instance: String) -> Result<Traces, Error> {
    let wanted = wanted.config();
    match wanted.map_err(|error| Error::Usage(error.to_string()))? {
        None => Ok(Traces::default()),
        Some(config) => Ok(Traces::start(config, traces::Service { name, instance })?),
    }
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
    if is_guarded(address, has_certificate, openness) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{address} can be reached from other machines, and whoever reaches it would be believed whatever it says: have \
         services prove who they are with --cluster-ca, --cluster-cert and --cluster-key (`bazaar cert new` makes them), \
         listen on 127.0.0.1, or say --insecure-cluster"
    )))
}

/// The same of where a service is asked for its metrics: over TLS by those who have certificates, in the clear by whoever
/// reaches it.
pub fn metrics_guarded(
    address: SocketAddr,
    has_certificate: bool,
    openness: &cli::Openness,
) -> Result<(), Error> {
    if is_guarded(address, has_certificate, openness) {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "--metrics {address} can be reached from other machines, and whoever reaches it would read all that is in it: have it \
         serve TLS, and its metrics to certificates of the cluster's alone, with --cluster-ca, --cluster-cert and --cluster-key \
         (`bazaar cert new` makes them), be asked on 127.0.0.1, or say --insecure-cluster"
    )))
}

fn is_guarded(address: SocketAddr, has_certificate: bool, openness: &cli::Openness) -> bool {
    address.ip().is_loopback() || has_certificate || openness.insecure_cluster
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

/// Of a service with these certificates, if any.
fn monitor_of(cluster: Option<&Cluster>) -> Monitor {
    let monitor = Monitor::default();
    if let Some(cluster) = cluster {
        monitor.export(Arc::new(Expiries(cluster.clone())));
    }
    monitor
}

/// When a service's certificates expire.
struct Expiries(Cluster);

impl Export for Expiries {
    fn export(&self, families: &mut Families<'_>) -> fmt::Result {
        let (service, authority) = self.0.expiries();
        families.add_certificates([("service", service), ("authority", authority)])
    }
}

/// Where a service is asked for its metrics.
struct Asked {
    address: SocketAddr,
    /// In the clear where there is none.
    tls: Option<tls::Server>,
}

/// Where that is, if anywhere: on this machine in the clear, and beyond it over TLS, by the service's own certificate.
fn asked(
    address: Option<SocketAddr>,
    (files, cluster): (&cli::Cluster, Option<&Cluster>),
    openness: &cli::Openness,
) -> Result<Option<Asked>, Error> {
    let Some(address) = address else {
        return Ok(None);
    };
    metrics_guarded(address, cluster.is_some(), openness)?;
    let proofs = files.files().zip(cluster);
    let proofs = proofs.filter(|_| !address.ip().is_loopback());
    let tls = proofs.map(|(files, cluster)| {
        let clients = ClientCertificates {
            authorities: None,
            are_required: false,
            cluster: Some(cluster.clone()),
        };
        tls::Server::load(files.certificate, files.key, clients, &monitor::PROTOCOLS)
    });
    let tls = tls.transpose()?;
    Ok(Some(Asked { address, tls }))
}

/// Answers for a service, where it is wanted, until what is returned is dropped.
fn monitored(
    asked: Option<Asked>,
    purpose: &str,
    monitor: &Monitor,
    inherited: &mut Inherited,
) -> Result<Option<Task<()>>, Error> {
    let Some(Asked { address, tls }) = asked else {
        return Ok(None);
    };
    let listener = bind(address, purpose.to_owned(), "--metrics", inherited)?;
    let serving = monitor::serve((listener, tls), monitor.clone());
    Ok(Some(tasks::spawn("metrics", serving)))
}

fn bind(
    address: SocketAddr,
    purpose: String,
    flag: &'static str,
    inherited: &mut Inherited,
) -> Result<TcpListener, Error> {
    let listener = ListenAddress {
        address,
        purpose: purpose.clone(),
        flag,
    }
    .bind(inherited)?;
    TcpListener::from_std(listener).map_err(|source| Error::Listen {
        address,
        purpose,
        flag,
        source,
    })
}

/// Completes when the service should stop. From then on the process ends within `stop_time_max`,
/// and at once where it is signalled twice. A gateway may be `replaced` by another process.
fn shutdown(
    lifeline: &Lifeline,
    stop_time_max: Duration,
    replaced: Option<oneshot::Receiver<()>>,
) -> Result<impl Future<Output = ()> + Send + 'static, Error> {
    let mut signals = StopSignals::catch_for_service(|what| info!("{what}"))?;
    let stop_at_eof = lifeline.stop_at_eof;
    let is_replaced = async {
        let told = match replaced {
            Some(replaced) => replaced.await.is_ok(),
            None => false,
        };
        if !told {
            pending::<()>().await;
        }
    };
    Ok(async move {
        let why = tokio::select! {
            () = signals.next() => Stop::Signalled,
            () = end_of_stdin(), if stop_at_eof => Stop::Abandoned,
            () = is_replaced => Stop::Replaced,
        };
        info!("stopping: {why}");
        // Where another process has the place, the service goes on.
        if why != Stop::Replaced {
            notify::stopping();
        }
        if let Err(error) = stop::end_after(stop_time_max) {
            warn!(%error, "cannot limit how long stopping takes");
        }
        tasks::spawn_for_caller(async move {
            // A supervisor may signal this process as well as the one that started it, or took its place.
            if why != Stop::Signalled {
                signals.next().await;
            }
            signals.next().await;
            warn!("signalled again: ending at once");
            daemon::fail()
        });
    })
}

/// Why a service stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    Signalled,
    Abandoned,
    Replaced,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signalled => "signalled",
            Self::Abandoned => "the process that started this one wants it so, or is gone",
            Self::Replaced => "another process has taken its place",
        })
    }
}
