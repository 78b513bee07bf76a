//! Stores as a catalog has them: what all of them do, and what only a database's server can do to one.
//!
//! - [`suite`]: what every store does, whatever keeps it;
//! - [`postgres`]: what only PostgreSQL can do to a catalog;
//! - [`newest`]: all of it once more, over the newest PostgreSQL.
//!
//! A binary of its own: it starts processes, and tests of other things lock directories.

mod suite;
mod postgres;
mod newest;
