//! The whole system in a seeded simulation.
//!
//! What runs here is what is shipped, but for sockets and threads: the catalog's state, leases,
//! visibility and group commits, the replicas' core, the rules of the gateways' caches and sessions,
//! the default policy's election, and both stores with SQLite below them. Time, the network, the
//! clocks and the disks are simulated, on one thread, and all chance comes from a seed: a seed is
//! the same history every time, to the last event. There is no code outside of tests.
//!
//! - `plan`: what is drawn from a seed before it begins;
//! - `prefilled`: disks that have a long journal then;
//! - `effects`: what comes of faults, and that it does;
//! - `messages`: what goes over the network;
//! - `network`: how long that takes, and what does not arrive;
//! - `timeline`: time, clocks, chance, and what is to happen when;
//! - `catalog`, `replica`, `gateway` with its `elector`, `client`: the processes;
//! - `stranger`: another bazaar's;
//! - `member`: the process of one of several catalogs, over `postgres`, a simulated database; `clockwork`: the runtime
//!   that these run on, in step with the timeline; `site`: several of them, and who follows which;
//! - `world`: all of them, and what happens to them;
//! - `lifecycle`: how they start, stop and crash;
//! - `operator`, `recovery`: what whoever operates it does about disks that are lost, old, damaged or
//!   another's;
//! - `nemesis`: the faults;
//! - `branch`: what a journal makes of the stocks;
//! - `oracle`: what must hold at every step;
//! - `settling`: what must hold of the disks, and in the end;
//! - `tests`: the seeds.
//!
//! # What can happen
//!
//! Messages of calls are lost, late and overtake each other; a call that its caller gave up may
//! still arrive. Streams are in order until they break. Machines are cut off from one another or
//! from all. Processes are killed, stopped, paused, and lose power. Clocks run up to 0.4 % fast or
//! slow. Disks are slow, full, fail a write or a sync, and end the process in the middle of either.
//! A loss of power takes all, some or none of what was not synced, torn at and within sectors, and
//! may undo what a directory was not synced for; a failed sync leaves in the page cache what is not
//! on the disk, and no later sync writes it. Each seed has a subset of these faults, and rests
//! between them of its own. Then all becomes well.
//!
//! Somebody announces epochs that have not begun. Calls reach another bazaar's processes, at an address
//! that is wrong. A replica's disk is lost, damages a byte, or is another bazaar's: it refuses that by
//! name, and copies its ledger anew. The catalog's disk is lost, at times while all lose power: it
//! begins no other journal, and is rebuilt from the ledgers of replicas that are stopped for that,
//! with another lease. An older copy takes the place of the catalog's disk, which nobody is told: the catalog
//! gets back from the replicas what that lacks. One seed of sixteen begins with 4,596 orders and a replica that has 300 of them.
//!
//! What came of these faults is counted. In each test run every effect that was not seen in its
//! seeds is looked for with the faults alone that bring it about, and must come within 96 seeds.
//!
//! # Several catalogs
//!
//! Two seeds of three have one catalog, on a simulated disk. Every third one has two or three over one database, of which one is
//! active. There all is shipped, down to the client's side of PostgreSQL's protocol: the writer with its lease, the
//! store with its statements, `tokio-postgres`. They are tasks of tokio, on a runtime whose clock stands still until the timeline
//! moves it on, and each sees the clock of its own machine. Below that three servers are simulated, with what PostgreSQL does
//! that matters here: a commit is seen and acknowledged once a standby has it, whoever wants the writer's row waits
//! meanwhile, a wait that is cancelled succeeds with a warning, and a server that is started again shows what nobody had
//! acknowledged.
//!
//! Statements are late, lost with their connection before or after they took effect, and answered long after. Primaries die, and standbys
//! are promoted; a primary goes on beside the one that took its place; one is started again; and the database comes back
//! without rows that it had acknowledged, promoted or restored. Catalogs are killed, paused, stopped so that they hand
//! over, and cut off from servers, replicas and gateways. Processes find the active one by asking, as `rpc::failover` does.
//!
//! Beside all that must hold of one catalog, at most one answers at any time; what a catalog loads is all that was acknowledged,
//! unless the database lost it, and then nothing is answered before it is put back; no commit is acknowledged to a catalog after
//! another one has loaded; and in the end the database's journal and stocks are what was committed.
//!
//! # What must hold
//!
//! At every step: the journal's numbers are dense, its chain whole, its epochs never fall, each key
//! has one row, no quantity falls below zero, and every stock is what its rows make of it; every
//! ledger is a prefix of the journal; who is in sync holds what is acknowledged, and would if all
//! power failed now (each time 16 more are acknowledged). Every answer to a client is judged: a
//! stock is never older than what any client knew before, and as the journal has it; a trade comes
//! after what was known before it was placed; one that was refused had a reason. An order that was
//! acknowledged is never denied.
//!
//! A catalog that was rebuilt has all that was acknowledged, and nobody is above its epoch. It may
//! lack what was acknowledged to nobody: what clients read of that is given up once it serves, and
//! not before. A catalog that was restored from a copy serves nothing while it lacks an order that was
//! acknowledged. It is excused only where for the second for which it waits no replica that has such an order
//! could reach it: then it is stopped as it begins to serve. Whoever operates it accepts the loss of replicas whose
//! disks were lost, or are empty.
//!
//! In the end, within a minute: every client has its answers, all replicas are in sync and hold the
//! whole journal, every gateway shows every stock as it is, and so it would be after a loss of power.
//!
//! # What is noticed
//!
//! With something taken out, the first seed, from 0 on, with which something breaks:
//!
//! | without | seed | because |
//! |---|---|---|
//! | syncs that sync | 0 | what is acknowledged would not survive |
//! | logs written anew at the start | 0 | what a store finds after a failed sync is not on the disk |
//! | epoch check | 4 | a row of a leader that was replaced |
//! | an epoch of its own for every start | 10 | a row that another was proposed for |
//! | key check | 0 | orders whose first attempt was made never end |
//! | registration of who is lent a stock | 1 | a read older than what was known |
//! | delayed visibility | 3 | the same |
//! | restart wait | 17 | the same |
//! | self-healing | 0 | a catalog would serve fewer orders than a replica has |
//! | requests that name their journal | 0 | another bazaar's rows, or stocks |
//! | leaders that lack few rows | 15 | one that lacks 4,296 of 4,596 is to lead |
//! | rows beside ledgers, for a rebuilt catalog | 3 | it lacks acknowledged orders |
//! | activation catch-up | 25 | who is in sync lacks acknowledged orders |
//! | confirmed absence | 6 | an acknowledged order is denied |
//! | confirmed epochs | 0 | a replica believes in an epoch that was not begun |
//! | confirmed removal | 3 | who is in sync lacks an acknowledged order |
//! | lease check | 5 | a read older than what was known |
//! | floors | 3 | the same |
//! | session check | 7 | the same |
//! | answer kept only if registered | 1 | the same |
//!
//! With several catalogs over one database, of other seeds:
//!
//! | without | seed | because |
//! |---|---|---|
//! | fence in the writing statement | 1 | two catalogs answer at a time |
//! | own lease | 0 | the same |
//! | wait before a take-over | 0 | the same |
//! | an unknown commit that ends the term | 1 | a catalog holds on to a term in which it can commit nothing |
//! | self-healing | 0 | a catalog would serve fewer orders than a replica has |
//! | nested leases | 80 | a gateway serves what it was lent after another catalog has traded |
//!
//! The barrier is not noticed within 60 seeds: a catalog begins an epoch before it serves, which is a commit like the take-over, and
//! behind it; `tests/model` has a counterexample.
//!
//! For most only those faults happen that show it soon. Not noticed within 60 seeds of each of seven sets of
//! faults: the order of in-sync changes, and no new loan before the old one is acknowledged. Letting go before a report
//! is missed with seed 131 of older copies, isolations and cuts. An epoch above all for a rebuilt catalog, and a wait for
//! the longest lease that ledgers know of, are not: it goes on from what replicas report as well.
//! `tests/model` goes through all that can happen without each, and finds a counterexample.
//!
//! # What is left out
//!
//! HTTP, gRPC and the policy's sandbox; of several catalogs the gRPC service, so that what it looks at before it answers is the
//! simulation's; SQL that PostgreSQL would read otherwise than its authors thought; threads, so that steps of one process do not interleave;
//! databases of millions of rows, and damage that the catalog's disk does by itself.

#[cfg(test)]
mod effects;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod network;
#[cfg(test)]
mod timeline;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod clockwork;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod member;
#[cfg(test)]
mod site;
#[cfg(test)]
mod branch;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod catalog;
#[cfg(test)]
mod replica;
#[cfg(test)]
mod elector;
#[cfg(test)]
mod gateway;
#[cfg(test)]
mod client;
#[cfg(test)]
mod stranger;
#[cfg(test)]
mod prefilled;
#[cfg(test)]
mod world;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod operator;
#[cfg(test)]
mod recovery;
#[cfg(test)]
mod nemesis;
#[cfg(test)]
mod settling;
#[cfg(test)]
mod tests;
