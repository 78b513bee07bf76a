//! A bazaar of real processes: started on free ports in a directory of its own, broken with
//! SIGKILL, asked over HTTP, and gone when the test is over.
//!
//! - [`bazaar`]: the bazaar itself;
//! - [`launcher`]: what one is like, and the command line of each process;
//! - [`links`]: who connects to whom, and a proxy on each link;
//! - [`proxy`]: one link, that can be cut off, slowed down and reset;
//! - [`process`]: one process, its log and its end;
//! - [`terminal`]: one in a terminal;
//! - [`outputs`]: what a process cannot write to;
//! - [`small_disk`]: a file system that can be full;
//! - [`network`]: a network of a test's own, whose connections can be lost;
//! - [`http`]: a blocking client;
//! - [`http2`]: one over HTTP/2 that keeps its connection, in the clear and over TLS;
//! - [`events`]: what it reads of orders that it follows;
//! - [`load`]: clients that trade without a pause, and a machine with other work;
//! - [`keepalive`]: one that keeps its connection, for load;
//! - [`collector`]: a collector of OpenTelemetry's, for traces;
//! - [`measure`]: what measurements have in common;
//! - [`ports`]: ports that no other test has;
//! - [`wait`]: waiting for a condition, and for one's turn;
//! - [`skip`]: tests that this machine cannot run;
//! - [`browser`]: one that a script drives;
//! - [`guests`]: components, compiled once;
//! - [`machine_code`]: that of the built-in policy, compiled once;
//! - [`bombs`]: components that are made to keep a compiler busy.

mod bazaar;
mod launcher;
mod links;
mod proxy;
mod process;
mod terminal;
mod outputs;
mod small_disk;
mod network;
mod http;
mod http2;
mod events;
mod load;
mod keepalive;
mod collector;
mod measure;
mod ports;
mod wait;
mod skip;
mod browser;
mod guests;
mod machine_code;
pub mod bombs;

pub use bazaar::{Bazaar, Order, data_dir, settled_journal};
pub use browser::Browser;
pub use collector::{Collector, Seen, Speaks};
pub use events::{Event, next_event};
pub use guests::{example, guest, slow_target};
pub use http::{Response, request, send_raw, try_request};
pub use http2::{Http2, handshake};
pub use keepalive::{Answer, KeepAlive, connect};
pub use launcher::Options;
pub use links::{Link, Server, all_links};
pub use load::{Busy, Trades, nicely};
pub use measure::{Latencies, Spread, no_latencies, number};
pub use network::{
    in_own_network, lose_connections_to, lose_nothing, lose_packets_of, lose_share_of,
};
pub use outputs::{ALL_BROKEN, Broken};
pub use ports::Ports;
pub use process::{Outputs, Process, kill_by_pid, run, run_ok, run_with, signal_by_pid};
pub use proxy::Conduct;
pub use skip::skip;
pub use small_disk::SmallDisk;
pub use terminal::Terminal;
pub use wait::{Raise, Turn, alone, wait_for, wait_for_said, wait_until};
