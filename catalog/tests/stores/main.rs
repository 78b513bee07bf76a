//! Stores as a catalog has them: what all of them do, and what only a database's server can do to one.
//!
//! A binary of its own: it starts processes, and tests of other things lock directories.

mod suite;
mod postgres;
mod newest;
