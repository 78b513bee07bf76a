//! What the catalog's and the replicas' SQLite databases have in common.
//!
//! - [`database`]: a data directory with one owner, opened so that a commit is durable;
//! - [`files`]: whether a database's files are still those that were opened;
//! - [`rows`]: the table of journal rows, which both keep;
//! - [`stock_change`]: how changes of stocks are kept in it;
//! - [`checksum`]: what vouches for records that no hash chain covers;
//! - [`damage`]: what is found while a database is in use;
//! - [`error`]: what can go wrong, and which of it ends the process.

#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod database;
pub mod files;
pub mod rows;
pub mod stock_change;
pub mod checksum;
pub mod damage;
pub mod error;

pub use checksum::Checksum;
pub use database::{DataDir, Location, open_read_only, open_where_made};
pub use error::StorageError;
