//! What a gateway needs to know before it starts, and the bounds of what it does.

use std::path::PathBuf;
use std::time::Duration;

use domain::ReplicaId;
use http::HeaderName;
use tls::Cluster;
use traces::Traces;

use crate::access_log;
use crate::admin::token::TokenSource;
use crate::cache::CacheBounds;
pub use frontend_core::timing::{READ_TIME_MAX, TRADE_TIME_MAX};
use frontend_policy::{Compiler, Probation, limits};

#[derive(Debug, Clone)]
pub struct Config {
    /// The catalogs' URLs, `http://host:port`: one, or several of which one is active.
    pub catalogs: Vec<String>,
    /// Every order replica and its URL.
    pub orders: Vec<(ReplicaId, String)>,
    /// A component to use for a policy; the embedded default one where absent.
    pub policy: Option<PathBuf>,
    /// The keys whose policies are taken, new ones and those saved in `data_dir`; any policy where
    /// absent. Does not concern the one that is built in.
    pub policy_trust: Option<PathBuf>,
    /// What the policy to start with is configured with; nothing where absent.
    pub policy_config: Option<PathBuf>,
    /// The directory of secrets that configurations can refer to; none where absent.
    pub policy_secrets: Option<PathBuf>,
    /// Compiles policies in a process of its own; in this one, without a bound, where absent.
    pub compiler: Option<Compiler>,
    /// Where the policy that is active is saved, so that a restart comes back with it. Without
    /// one a restart begins anew.
    pub data_dir: Option<PathBuf>,
    /// How many failures a new version of the policy may have.
    pub probation: Probation,
    /// The request header that tells clients apart, for canaries; the address where it is absent. What a
    /// policy is told of the connection is its address in either case.
    pub client_header: Option<HeaderName>,
    /// What is cached at most, however much a policy asks for.
    pub cache: CacheBounds,
    /// How requests are logged; not at all where absent.
    pub access_log: Option<access_log::Config>,
    /// Where requests that are traced are.
    pub traces: Traces,
    /// Bearer tokens for operators. One that lets them change things, or [`Https`] and a [`Cluster`], must be there where
    /// the admin listener can be reached from other machines.
    pub tokens: Tokens,
    /// Its certificate among the services, and whom it believes; in the clear, and believing everybody, without one.
    pub cluster: Option<Cluster>,
    /// How clients and operators are served over TLS; in the clear where absent.
    pub https: Option<Https>,
    /// What clients may have: connections, time, and bytes that are held for them.
    pub clients: Bounds,
    /// How long the gateway goes on serving after it was told to stop, and is not ready meanwhile:
    /// for load balancers to notice.
    pub drain_delay: Duration,
    /// Threads that serve clients, each with an instance of the policy of its own. One that gets
    /// no processor leaves its clients to the others.
    pub workers: usize,
    /// How long one decision may take.
    pub decision_time_max: Duration,
    /// How long a read may look for a backend that answers.
    pub read_time_max: Duration,
    /// How long a trade may look for a leader that takes it.
    pub trade_time_max: Duration,
}

/// What operators show, one of either.
#[derive(Debug, Clone, Default)]
pub struct Tokens {
    /// By those who may change things.
    pub change: Option<TokenSource>,
    /// By those who may only read.
    pub read: Option<TokenSource>,
}

/// What the gateway shows to clients and operators, and asks of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Https {
    /// A file with its certificate, and those between it and its authority.
    pub certificate: PathBuf,
    /// A file with the key to it.
    pub key: PathBuf,
    /// A file of authorities: clients and operators have to have a certificate of one of them. None is asked for where
    /// absent, but for those of operators, whom the cluster's authority vouches for.
    pub client_authorities: Option<PathBuf>,
}

impl Config {
    /// With the default bounds.
    pub fn new(catalogs: Vec<String>, orders: Vec<(ReplicaId, String)>) -> Self {
        Self {
            catalogs,
            orders,
            policy: None,
            policy_trust: None,
            policy_config: None,
            policy_secrets: None,
            compiler: None,
            data_dir: None,
            probation: Probation::default(),
            client_header: None,
            cache: CacheBounds::default(),
            access_log: None,
            traces: Traces::default(),
            tokens: Tokens::default(),
            cluster: None,
            https: None,
            clients: Bounds::default(),
            drain_delay: Duration::ZERO,
            workers: std::thread::available_parallelism().map_or(1, usize::from),
            decision_time_max: limits::DECISION_TIME_MAX,
            read_time_max: READ_TIME_MAX,
            trade_time_max: TRADE_TIME_MAX,
        }
    }
}

/// How long a backend that does not answer is asked where a kept value would do as well.
pub const STALE_WAIT_MAX: Duration = Duration::from_millis(250);

/// Largest body of a client's request, in bytes.
pub const BODY_BYTES_MAX: usize = 64 << 10;

/// Orders of one request, each with a result of its own.
pub const BATCH_ORDERS_MAX: usize = 1_024;

/// How much of a body that is too large is read and thrown away, in bytes.
pub const DISCARDED_BYTES_MAX: usize = 8 << 20;

/// How long a client may take to send a request's headers, and its body.
pub const SEND_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a connection is kept alive for another request.
pub const IDLE_TIME_MAX: Duration = Duration::from_secs(75);

/// What goes out of an answer at a time, in bytes.
pub const CHUNK_BYTES: usize = 32 << 10;

/// How long a client may take to take [`CHUNK_BYTES`] of an answer, or what is left of it.
pub const RECEIVE_TIME_MAX: Duration = Duration::from_secs(20);

/// What a client takes at least, so as not to be cut off: of each answer that it asked for.
pub const STREAM_BYTES_PER_SECOND_MIN: u64 = CHUNK_BYTES as u64 / RECEIVE_TIME_MAX.as_secs();

/// Connections served at once; more wait to be accepted.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Connections to the admin API at once; one more takes the place of the oldest on which nobody
/// was let in.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;

/// Components, and other bodies, of operators that are held at a time; more wait, within the time that one may take.
pub const UPLOADS_MAX: usize = 64;

/// How long an operator may take to send a component.
pub const UPLOAD_TIME_MAX: Duration = Duration::from_secs(60);

/// Connections of one client, but for those from this machine; more are closed at once.
pub const CONNECTIONS_PER_CLIENT_MAX: usize = 1024;

/// Bytes of requests held at a time, for all clients: bodies, and all that is known of a request
/// over HTTP/2. Past it requests get 503. One client may hold a quarter of it, one connection a
/// sixteenth.
pub const RECEIVED_BYTES_MAX: usize = 64 << 20;

/// Bytes of answers that clients have not taken yet, of all together: those over HTTP/2, and large
/// ones over HTTP/1. Past it requests get 503. One client may have a quarter of it, one connection
/// a sixteenth, or a single answer that is larger.
pub const UNSENT_BYTES_MAX: usize = 256 << 20;

/// Buffer of an HTTP/1 connection, in bytes: bounds a request's head.
pub const HEAD_BYTES_MAX: usize = 32 << 10;

/// Headers of an HTTP/1 request.
pub const HEADERS_MAX: usize = 100;

/// Requests that one HTTP/2 connection may have under way (RFC 9113, section 6.5.2, wants no fewer).
pub const STREAMS_MAX: u32 = 100;

/// Lists of stocks that are read and rendered at a time, each of which is large; more wait.
pub const LISTS_MAX: usize = 4;

/// How long open connections get to finish when the gateway stops.
pub const DRAIN_TIME_MAX: Duration = Duration::from_secs(5);

/// How long of that a connection that waits for nothing gets to ask once more: a request may be on
/// its way.
pub const LAST_REQUEST_TIME_MAX: Duration = Duration::from_secs(1);

/// How long workers get to end when the gateway stops; they wait for nothing by then.
pub const WORKERS_STOP_TIME_MAX: Duration = Duration::from_secs(1);

/// How long the admin API's open requests get to finish after those of clients.
pub const ADMIN_DRAIN_TIME_MAX: Duration = Duration::from_secs(1);

/// What all clients of a listener may have, and one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at a time; more wait with the kernel until others end.
    pub connections_max: usize,
    /// Connections from one address, or one /64 of IPv6; more are closed at once. Where absent,
    /// loopback may have all and others [`CONNECTIONS_PER_CLIENT_MAX`].
    pub connections_per_client_max: Option<usize>,
    /// How long a client may take to send a request's headers, and its body.
    pub send_time_max: Duration,
    /// How long a connection is kept alive for another request.
    pub idle_time_max: Duration,
    /// How long a client may take to take [`CHUNK_BYTES`] of an answer,
    /// or what is left of it; over HTTP/2 longer while it takes others' for that.
    pub receive_time_max: Duration,
    /// Bytes of requests that are held for all clients together.
    pub received_bytes_max: usize,
    /// Bytes of answers that clients have not taken yet, of all together.
    pub unsent_bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections_max: CONNECTIONS_MAX,
            connections_per_client_max: None,
            send_time_max: SEND_TIME_MAX,
            idle_time_max: IDLE_TIME_MAX,
            receive_time_max: RECEIVE_TIME_MAX,
            received_bytes_max: RECEIVED_BYTES_MAX,
            unsent_bytes_max: UNSENT_BYTES_MAX,
        }
    }
}
