//! What a policy may use and answer: every bound in one place.

use std::time::Duration;

/// Largest component, in bytes. One that carries CPython has 18 MB.
pub const COMPONENT_BYTES_MAX: usize = 64 << 20;

/// Processor time that the compilation of any component may take, and what each MiB of it adds. One
/// that carries CPython, of 18 MiB, takes 11 s.
pub const COMPILE_TIME_MIN: Duration = Duration::from_secs(10);
/// See [`COMPILE_TIME_MIN`].
pub const COMPILE_TIME_PER_MIB: Duration = Duration::from_secs(3);

/// How many times its processor time a compilation may last: others go first.
pub const COMPILE_WALL_TIMES: u32 = 10;

/// Memory that the compilation of any component may take, in bytes, and what each MiB of it adds. One
/// that carries CPython takes 380 MiB.
pub const COMPILE_BYTES_MIN: u64 = 256 << 20;
/// See [`COMPILE_BYTES_MIN`].
pub const COMPILE_BYTES_PER_MIB: u64 = 32 << 20;

/// Machine code of a component, in bytes: it is some times larger than the component.
pub const COMPILED_BYTES_MAX: u64 = 1 << 30;

/// Linear memory of one instance, in bytes: all its memories together.
pub const MEMORY_BYTES_MAX: usize = 128 << 20;

/// Entries of all tables of an instance together.
pub const TABLE_ELEMENTS_MAX: usize = 100_000;

/// Core instances, memories and tables in one component instance.
pub const CORE_INSTANCES_MAX: usize = 100;

/// Stack of a decision, in bytes.
pub const STACK_BYTES_MAX: usize = 1 << 20;

/// How long the clock of the deadlines ticks.
pub const EPOCH_TICK: Duration = Duration::from_millis(5);

/// How long one decision may take before it is stopped, by default.
pub const DECISION_TIME_MAX: Duration = Duration::from_millis(50);

/// How long the first call into a fresh instance may take: a language's runtime starts in it.
pub const START_TIME_MAX: Duration = Duration::from_secs(2);

/// What is done about one request before it is answered: reads, trades and takes, each attempt by itself.
pub const STEPS_MAX: usize = 8;

/// Body of a response, in bytes.
pub const RESPONSE_BYTES_MAX: usize = 16 << 20;

/// Headers of a response.
pub const RESPONSE_HEADERS_MAX: usize = 64;

/// Name and value of one header of a response, in bytes.
pub const HEADER_BYTES_MAX: usize = 8 << 10;

/// Stocks that are listed at once.
pub const LISTED_MAX: u32 = 10_000;

/// Stocks of a list that every policy must be able to answer with. One of world 1.0, which has no
/// say in how many there are, is not to blame where it fails on more.
pub const LISTED_OWED: usize = 1_000;

/// What a policy may carry from one decision to the next, in bytes.
pub const MEMO_BYTES_MAX: usize = 64 << 10;

/// What a kept response may be found by, in bytes.
pub const VARY_KEY_BYTES_MAX: usize = 1 << 10;

/// Responses that are kept of one stock or order.
pub const RENDERINGS_MAX: usize = 8;

/// Counters that a manifest may declare, and labels of each.
pub const COUNTERS_MAX: usize = 16;
/// See [`COUNTERS_MAX`].
pub const COUNTER_LABELS_MAX: usize = 4;

/// What a counter is for, in bytes.
pub const COUNTER_HELP_BYTES_MAX: usize = 256;

/// Values of its labels that are told apart, for each counter.
pub const SERIES_MAX: usize = 256;

/// What a decision may count, and the value of a label in bytes.
pub const OBSERVATIONS_MAX: usize = 16;
/// See [`OBSERVATIONS_MAX`].
pub const LABEL_BYTES_MAX: usize = 64;

/// Lines for the log that come with a decision, and bytes of each.
pub const LOG_LINES_MAX: usize = 8;
/// See [`LOG_LINES_MAX`].
pub const LOG_LINE_BYTES_MAX: usize = 512;

/// Lines of a version that are written to the log in a second, and so many more at once.
pub const LOG_LINES_PER_SECOND: u32 = 20;
/// See [`LOG_LINES_PER_SECOND`].
pub const LOG_LINES_BURST: u32 = 100;

/// Headers that a manifest may have added to every reply, and bytes of all their names and values.
pub const REPLY_HEADERS_MAX: usize = 64;
/// See [`REPLY_HEADERS_MAX`].
pub const REPLY_HEADERS_BYTES_MAX: usize = 16 << 10;

/// Buckets that a manifest may declare.
pub const BUCKETS_MAX: usize = 16;

/// What tells the buckets of one name apart, in bytes.
pub const BUCKET_KEY_BYTES_MAX: usize = 256;

/// Configuration of a policy, in bytes.
pub const CONFIG_BYTES_MAX: usize = 64 << 10;

/// Headers that a manifest may ask for.
pub const MANIFEST_HEADERS_MAX: usize = 32;

/// Name and version of a policy, in bytes.
pub const MANIFEST_TEXT_BYTES_MAX: usize = 64;

/// Entries that the cache of stocks, and that of orders, may hold.
pub const CACHE_ENTRIES_MAX: u32 = 4_000_000;

/// Responses that the cache may keep, in bytes. Past that, outcomes are kept without theirs.
pub const RENDERED_BYTES_MAX: usize = 256 << 20;

/// Calls out of the sandbox during one decision.
pub const HOST_CALLS_MAX: u32 = 10_000;

/// Handles that an instance may be given in its life; then it is replaced.
pub const HANDLES_MAX: u32 = 100_000;

/// What a decision may write to stdout and stderr, in bytes; the rest is dropped.
pub const OUTPUT_BYTES_MAX: usize = 4 << 10;

/// Randomness that a guest may draw in one call, in bytes.
pub const RANDOM_BYTES_MAX: u64 = 64 << 10;
