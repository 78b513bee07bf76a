//! Integration tests: real processes of the `bazaar` command, on free ports.
//!
//! - [`harness`]: a bazaar of processes to start, break and ask;
//! - [`trading`]: what clients are promised over HTTP;
//! - [`semantics`]: what HTTP itself promises, to clients and to caches in front, as tables;
//! - [`lists`]: more stocks than anybody could answer with at once;
//! - [`faults`]: the same while processes are killed and come back;
//! - [`on_postgres`]: a catalog whose truth is in PostgreSQL, killed and cut off from it;
//! - [`outages`]: disks that are full, and a catalog that is away;
//! - [`networks`]: packets that are lost, gateways that are cut off, machines that are busy;
//! - [`logs`]: logs and results that cannot be written;
//! - [`damage`]: data directories whose files are not what was written there;
//! - [`strangers`]: disks and processes of another bazaar;
//! - [`limits`]: what clients can send without end, and what it costs;
//! - [`torture`]: the same under faults of every kind, judged by what clients saw;
//! - [`failover`]: how long it takes another replica to lead;
//! - [`policy`]: swaps, and components that misbehave;
//! - [`takes`]: limits of policies, over several gateways;
//! - [`supply`]: policies as images, and who signed them;
//! - [`recordings`]: what a recording has of requests, and recordings as tests;
//! - [`probation`]: how soon a version that fails is out of service;
//! - [`closed`]: nothing gets past a policy that asks for a key;
//! - [`swaps`]: hundreds of swaps under full load, and what they cost;
//! - [`rollouts`]: versions that take the active one's place by a plan;
//! - [`dev`]: a policy that is edited while a gateway runs;
//! - [`bombs`]: components that are made to keep a compiler busy;
//! - [`admin`]: who may use the admin API, and what it stands;
//! - [`stopping`]: how services stop;
//! - [`examples`]: the policies that people need, each as the guide describes it;
//! - [`languages`]: policies in JavaScript, Python and C, and new ones;
//! - [`command`]: `up`, `load`, `status` and `ledger`, as a user runs them;
//! - [`layers`]: what crates and modules may know of each other;
//! - [`docs`]: what the documents tell people to type.
//!
//! One test binary, so that its tests share one bound on how many bazaars run at once.

mod harness;
mod trading;
mod semantics;
mod lists;
mod faults;
mod on_postgres;
mod catalogs;
mod outages;
mod networks;
mod logs;
mod damage;
mod strangers;
mod limits;
mod torture;
mod failover;
mod policy;
mod takes;
mod supply;
mod recordings;
mod probation;
mod closed;
mod swaps;
mod rollouts;
mod dev;
mod bombs;
mod admin;
mod stopping;
mod examples;
mod languages;
mod command;
mod layers;
mod docs;
mod deploy;
