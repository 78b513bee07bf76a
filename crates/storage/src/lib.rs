//! What the catalog's and the replicas' SQLite databases have in common.
//!
//! - [`location`]: where files are, on the machine's disks or a simulator's;
//! - [`gentle`]: how statements make way for others;
//! - [`log`]: how long a write-ahead log may become;
//! - [`files`]: whether a database's files are still those that were opened;
//! - `row_table`: the table of rows, and [`stock_change`]: how changes of stocks are kept in it;
//! - [`archive`]: old rows in files of their own;
//! - [`database`]: a data directory with one owner, opened so that a commit is durable;
//! - [`rows`]: the journal's rows, which both keep, wherever they are;
//! - [`shedding`]: how the writer lets go of rows that are archived;
//! - [`archiver`]: who archives them;
//! - [`checksum`]: what vouches for records that no hash chain covers;
//! - [`damage`]: what is found while a database is in use;
//! - [`error`]: what can go wrong, and which of it ends the process.

#![warn(missing_docs)]
#![cfg_attr(
    not(test),
    warn(clippy::disallowed_methods, clippy::print_stdout, clippy::print_stderr)
)]

pub mod location;
pub mod gentle;
pub mod log;
pub mod files;
mod row_table;
pub mod stock_change;
pub mod archive;
pub mod database;
pub mod rows;
pub mod shedding;
pub mod archiver;
pub mod checksum;
pub mod damage;
pub mod error;

pub use checksum::Checksum;
pub use database::{DataDir, Database, open_read_only, open_where_made};
pub use error::StorageError;
pub use location::Location;
