//! What the catalog's and the replicas' SQLite databases have in common.
//!
//! - [`database`]: a data directory with one owner, opened so that a commit is durable;
//! - [`log`]: how long its write-ahead log may become;
//! - [`files`]: whether a database's files are still those that were opened;
//! - [`rows`]: the journal's rows, which both keep;
//! - [`archive`]: old rows in files of their own;
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
pub mod log;
pub mod files;
pub mod rows;
pub mod archive;
pub mod stock_change;
pub mod checksum;
pub mod damage;
pub mod error;

pub use checksum::Checksum;
pub use database::{DataDir, Database, Location, open_read_only, open_where_made};
pub use error::StorageError;
