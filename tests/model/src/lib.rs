//! The trade protocol, the lease protocol, the limits and several catalogs, explored exhaustively.
//!
//! What runs here are the shipped cores, not copies. `stateright` goes through everything that
//! can happen to them within bounds, breadth first, and checks in every state what is promised.
//! There is no code outside of tests.
//!
//! - `trades`: `catalog_core::CatalogState` commits, numbers and fences; `order_core::Replica`, two or
//!   three of them, lead and follow; `catalog_core::SelfHealing` puts back what the database lost;
//! - `leases`: `catalog_core::Visibility` shows stocks and lends them; `frontend_core` keeps them, in
//!   two gateways;
//! - `takes`: `catalog_core::Limits` grants tokens; `frontend_core::Denials`, in two gateways, remembers
//!   what was denied;
//! - `writers`: `catalog_core::WriterLease`, in two catalogs over one database, decides which of them serves;
//!   `catalog_core::SelfHealing` puts back what the database lost, `catalog_core::Visibility` shows and lends one
//!   stock, `frontend_core::Session` in a gateway believes it;
//! - `elections`: `frontend_core::election::ElectionCycle`, in up to three gateways, has
//!   `catalog_core::CatalogState` elect; in random runs, for it is about time;
//! - `explore`: goes through all of it, and tells of what it found.
//!
//! In all but the last two, `bounds` says what can happen, how often, and which rule is taken out; `world` is all
//! there is; `properties` are what must always hold, and what must happen somewhere; `tests` has
//! the bounds that are explored, each with the number of its states: a tenth more or fewer fails. All
//! of it holds: 4.1 million states in each test run, and 9 million within wider bounds, which take minutes and
//! gigabytes of memory: `cargo test -p model -- --ignored`.
//!
//! # Trades: what can happen
//!
//! The catalog elects a leader; a gateway announces it, to whom it likes and as late as it likes;
//! clients place orders at whoever leads, and place them again under the same key. Calls and
//! answers arrive in any order or never. A caller gives a call up, which then arrives late, or
//! has been done without its knowing. Disks make durable what queues, or fail. A replica crashes,
//! loses what was not durable, and starts again. Its clock leaps over all that it waits for. It
//! hears from the catalog how long the journal is.
//!
//! Rows may be proposed to followers before they are committed, and lost with the catalog's transaction.
//!
//! The catalog ends once, and another one starts on the database as it was before the first commit. It tells replicas,
//! as late as it likes, so that each lets go and reports; puts back what is missing row by row, by
//! `catalog_core::SelfHealing`; may end in between, and start again; and begins the next epoch. Meanwhile what was on its
//! way before arrives. Where it knows that the database came back, all time has passed that it gives replicas otherwise; where
//! it does not, that it gives up on those that are silent is left out: all report.
//!
//! Left out are:
//!
//! - the catalog's own crashes that lose nothing: a commit is one transaction, so all that these add is calls
//!   without an answer, which are given up;
//! - one deadline of a replica passing before another: all pass at once;
//! - a save that is half done: what queues at a disk becomes durable in one group;
//! - journals longer than one answer to a fetch, and batches of several orders;
//! - by symmetry, first elections that replica 1 does not win.
//!
//! What differs only in how calls are numbered or in the order in which packets were sent is one
//! state (`identity`).
//!
//! # Leases: what can happen
//!
//! Trades go to the disk, which makes them durable or has no room; they are shown when the catalog
//! shows them. Gateways ask for stocks, are answered, and take the answer, each as late as it
//! likes, past any number of invalidations; an answer is lost and asked for again. Streams keep
//! their order, are as slow as they like, and break; the catalog and the gateway each notice as
//! late as they like. Gateways renew, release, and open sessions anew. The clock moves on. The
//! catalog crashes, loses or keeps the trade on its way to the disk, and starts again.
//!
//! A client may be served by any cache at any time: what a cache would serve is checked in every
//! state against the newest version that any client has read, or was answered in a trade. A read
//! that the catalog answers is checked against the newest when it was asked.
//!
//! Left out are:
//!
//! - messages of a stream that arrive twice or out of order: HTTP/2 over TCP does not do that;
//! - a question that reaches the catalog after its gateway gave it up: that makes one holder more;
//! - a catalog that stays down: its messages are late, and it starts again;
//! - clocks of different speeds: the margins are there, and are not what is explored;
//! - between a cache's lookup and its check of the lease, time and events: both lie within the
//!   read, and a lease that runs at the check ran at the lookup.
//!
//! A step of the clock ends a lease, of a gateway (after 985 ms) as of the catalog (after 1,100
//! ms); with short steps two do. States that differ only in what was kept under a session that is
//! over, or in when a question was asked, are one.
//!
//! # Takes: what can happen
//!
//! Policies take tokens out of buckets of two, at gateways that deny what they know is not there, and ask the
//! catalog for the rest. Calls arrive in any order; gateways give them up, and they arrive late or never; answers
//! are as late as they like. The catalog crashes and starts again, with calls of before on their way. Clocks
//! go on; the second gateway's is half a hundredth slower than the others. Beside the catalog goes a
//! bucket that forgets nothing, out of which all is taken that is ever granted: never more than it has.
//!
//! A step of the clock is the time in which a token comes back.
//!
//! # Writers: what can happen
//!
//! Two catalogs share a database. One serves; the other one stands by, and has a clock that is a twentieth faster.
//! Each has one statement on its way at a time, which takes effect as late as it likes, and whose reply comes as late
//! as it likes; a connection is lost, and with it the reply or the statement, or that takes effect later all the same.
//! Whatever took effect can be read, and is acknowledged once it is replicated; a fail-over takes back what is not,
//! or more than that. Catalogs notice as late as they like. Clients trade, and trade again under the same key; they
//! read at any catalog that serves, at any time, or ask through a gateway that keeps the stock. Catalogs are told to
//! stop, and hand over. The clock moves on: two steps of it end a writer lease.
//!
//! In every state, whatever a catalog or the cache would answer is compared with the newest version that any client
//! has seen, and the journal behind it with all numbers that clients were told. At most one catalog serves at a time.
//!
//! A replica, which stands for all that are in sync, holds what was acknowledged, and a catalog that takes over has it
//! report before it serves. From then on the replica takes rows from no other catalog, which is the rule of letting go
//! in the model of trades; without it this one finds a trade after 16 steps that is acknowledged when
//! its row is lost already and nobody can put it back.
//!
//! Left out are:
//!
//! - catalogs that start again: they wait longer than one that stood by;
//! - more than one gateway, messages between it and a catalog that overtake each other or are lost: that is the
//!   model of leases;
//! - more than one replica: whose ledger has everything is tried on random histories, in the core's own tests;
//! - that fewer are heard in a database that is known to be unbroken: the one that there is, is in sync;
//! - statements that fail: they are refused as a whole, and change nothing.
//!
//! # Elections
//!
//! In the model of trades anybody is elected at any time, which is more than electors do: they
//! decide how soon somebody leads, not what is safe. So they run with a clock, probes, and the
//! default policy, 100 seeds of each:
//!
//! | what happens | what is seen |
//! |---|---|
//! | the leader is killed 20 times in a minute, one or two gateways | another one leads after 70 ms at most |
//! | two or three gateways, each of which sees one other replica than the others, for a minute | 180 elections at most; 2,400 where a gateway does not note at once that it had one elected |
//! | kills, suspensions and cuts at random, then all is well | before long one leads, all gateways know, and nobody elects any more |
//!
//! # What each rule is for
//!
//! The cores' feature `ablation` lets a test take one rule out (`Rules::without`). It is off in
//! every other build: only this crate's tests ask for it, and dev-dependencies' features stay out
//! of builds without tests. Where it is compiled in, all rules are in force until a test says
//! otherwise.
//!
//! | without | breaks after | because |
//! |---|---|---|
//! | epoch check | 17 steps | a leader that was replaced acknowledges what the new one lacks |
//! | key check | 11 steps | one order gets two rows |
//! | order of in-sync changes | 20 steps | a late change takes in a replica that lacks acknowledged orders |
//! | succession | 15 steps | a row that was proposed in vain is taken for the one that got its number |
//! | activation catch-up | 13 steps | a leader lacks what the one before acknowledged |
//! | confirmed absence | 11 steps | a replica denies an order that another one acknowledged |
//! | confirmed removal | 16 steps | an order is acknowledged while the catalog counts on a replica without it |
//! | letting go | 15 steps | an order is acknowledged after its replica reported not to have it, and is not put back |
//! | floor | 7 steps | an answer that an invalidation overtook is kept |
//! | lease check | 7 steps | a gateway serves on after the catalog gave it up |
//! | session check | 10 steps | what was kept under a session that is over is served under the next |
//! | the catalog's word | 5 steps | what was read while a trade was under way is kept, and never taken back |
//! | delayed visibility | 5 steps | a trade is seen while a cache holds the old value |
//! | restart wait | 6 steps | a catalog that restarted has forgotten who holds what |
//! | registration before reading | 5 steps | a cache that keeps a stock is not told to let go |
//! | owed first | 12 steps | the acknowledgement of an abandoned trade lets go of what was lent after it |
//! | empty start | 5 steps | a catalog that restarted grants again what was taken before |
//! | the crowd's rest | 9 steps | who took out of the crowd's bucket finds room, and has a burst more |
//! | denials from asking | 6 steps | a denial whose answer was late outlasts what it says |
//! | the margin of denials | 6 steps | a gateway whose clock is slow denies what is there |
//! | the writer's fence | 12 steps | a commit of a term that is over takes effect after its successor has loaded |
//! | the own writer lease | 9 steps | a catalog reads on from what it has loaded after another one took over |
//! | its margin | 9 steps | a standby with a fast clock takes over while the active one still answers |
//! | nested leases | 12 steps | a gateway serves on after the catalog that took over has traded |
//! | the wait before a take-over | 6 steps | two catalogs serve |
//! | the beat in a take-over | 12 steps | a catalog that beat meanwhile answers on, by a lease that nobody waited for |
//! | the barrier | 19 steps | a read shows what a fail-over then takes back |
//! | an unknown commit ends the term | 4 steps | a trade is found by its key, and not by the reads that follow |
//! | incarnations | 17 steps | a database went back to the row that was seen before, so its holder looks idle |
//! | the wait for an own term | 13 steps | a catalog takes its term up again, and does not know whom it lent what |
//! | the wait before a handover | 14 steps | a gateway serves what a catalog lent it that has stopped |
//! | self-healing | 12 steps | an acknowledged trade is in no journal |

#[cfg(test)]
mod trades;
#[cfg(test)]
mod leases;
#[cfg(test)]
mod elections;
#[cfg(test)]
mod takes;
#[cfg(test)]
mod writers;
#[cfg(test)]
mod explore;
