//! What every entry point makes of any bytes.
//!
//! Each function takes bytes that nobody vouches for through the code that serves, and panics
//! where a claim about it does not hold. The same functions are fuzzed (`make fuzz`), run over
//! random bytes, and over the corpus that fuzzing left (`tests/` here).
//!
//! - [`http`]: a connection of a client's, through HTTP and the default policy;
//! - [`services`]: gRPC messages, through their conversion and the cores;
//! - [`stocks`]: a CSV file of stocks;
//! - [`traceparent`]: what a request says of its trace;
//! - [`database`]: the files of a ledger and of a catalog, damaged.

pub mod http;
pub mod services;
pub mod stocks;
pub mod traceparent;
pub mod database;

#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of its fuzz target, and of its corpus.
    pub name: &'static str,
    /// Panics where a claim does not hold.
    pub check: fn(&[u8]),
}

pub const TARGETS: [Target; 7] = [
    Target {
        name: "http",
        check: http::check,
    },
    Target {
        name: "catalog_messages",
        check: services::check_catalog,
    },
    Target {
        name: "order_messages",
        check: services::check_order,
    },
    Target {
        name: "stocks",
        check: stocks::check,
    },
    Target {
        name: "traceparent",
        check: traceparent::check,
    },
    Target {
        name: "ledger_files",
        check: database::check_ledger,
    },
    Target {
        name: "catalog_files",
        check: database::check_catalog,
    },
];
