//! A log that neither stops nor stalls its writers.
//!
//! Records go through a bounded queue to a thread that writes them to standard error. Where that
//! takes none (its reader is gone or stands still, its disk is full) they are dropped and counted,
//! and when it takes some again the log says how many there were.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd as _;
use std::panic;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::Level;

/// Bytes of records that wait to be written.
const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Longest wait for what has queued when the process ends.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// Pause before an output that would block is tried again.
const BLOCKED_PAUSE: Duration = Duration::from_millis(10);

/// How a message becomes a record, without its line's end.
pub type Form = Box<dyn Fn(Level, &str) -> String + Send + Sync>;

/// How messages of this process are written; as they are where nobody says it.
static FORM: OnceLock<Form> = OnceLock::new();

/// From now on [`message`] writes them like this. What was said first counts.
pub fn write_messages_as(form: Form) {
    let _ = FORM.set(form);
}

/// Logs what does not come through `tracing`: of a process before it serves, or as it ends.
pub fn message(level: Level, text: &str) {
    record(formed(level, text).as_bytes());
}

fn formed(level: Level, text: &str) -> String {
    let form = FORM.get();
    let mut record = form.map_or_else(|| text.to_owned(), |form| form(level, text));
    record.push('\n');
    record
}

/// Logs a record, which should end with a line's end.
pub fn record(record: &[u8]) {
    stderr().record(record);
}

/// How many records of this process were dropped.
pub fn dropped() -> u64 {
    stderr().dropped()
}

/// Waits for what has queued, for a bounded time.
pub fn flush() {
    stderr().flush();
}

/// Flushes when it is dropped: for the end of `main`, however that comes.
#[derive(Debug)]
pub struct FlushOnDrop;

impl Drop for FlushOnDrop {
    fn drop(&mut self) {
        flush();
    }
}

/// Takes a record with each write, for `tracing_subscriber`.
#[derive(Debug, Clone, Copy)]
pub struct Records;

impl Write for Records {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        record(bytes);
        Ok(bytes.len())
    }

    /// Records go out by themselves.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// From now on panics are logged: std's own hook would wait for a standard error that stands still.
pub fn record_panics() {
    panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        let mut text = format!("thread '{}' {panic}", thread.name().unwrap_or("unnamed"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text += &format!("\n{backtrace}");
        }
        message(Level::ERROR, &text);
    }));
}

/// The log of this process.
#[expect(clippy::disallowed_methods, reason = "this is the other way")]
fn stderr() -> &'static Log {
    static LOG: OnceLock<Log> = OnceLock::new();
    LOG.get_or_init(|| {
        // A file descriptor of its own: a write that stands still holds no lock of std's.
        match io::stderr().as_fd().try_clone_to_owned() {
            Ok(output) => Log::to(File::from(output)),
            Err(_) => Log::to(io::stderr()),
        }
    })
}

/// Records on their way to an output.
struct Log(Arc<Shared>);

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something was queued, or written.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<Vec<u8>>,
    bytes: usize,
    /// A record is with the output.
    is_writing: bool,
    dropped: u64,
}

impl Log {
    fn to(output: impl Write + Send + 'static) -> Self {
        let shared = Arc::<Shared>::default();
        let writer = Arc::clone(&shared);
        let thread = thread::Builder::new().name("log".into());
        #[expect(
            clippy::disallowed_methods,
            reason = "a log that has failed ends nothing"
        )]
        // Without a thread the queue fills, and records are dropped.
        let _ = thread.spawn(move || writer.write_to(Output::new(output)));
        Self(shared)
    }

    fn record(&self, record: &[u8]) {
        let mut queue = self.0.queue();
        if queue.bytes + record.len() > QUEUE_BYTES_MAX {
            queue.dropped += 1;
            return;
        }
        queue.bytes += record.len();
        queue.records.push_back(record.to_vec());
        self.0.changed.notify_all();
    }

    fn dropped(&self) -> u64 {
        self.0.queue().dropped
    }

    fn flush(&self) {
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.records.is_empty();
        let changed = &self.0.changed;
        // Either way the process goes on to its end.
        let _ = changed.wait_timeout_while(self.0.queue(), FLUSH_TIME_MAX, is_busy);
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut output: Output<impl Write>) {
        let mut told = 0;
        loop {
            let (record, dropped) = self.next();
            if dropped > told && output.put(notice(dropped - told).as_bytes()) {
                told = dropped;
            }
            let is_written = output.put(&record);
            let mut queue = self.queue();
            queue.is_writing = false;
            queue.dropped += u64::from(!is_written);
            self.changed.notify_all();
        }
    }

    /// Waits for a record; also how many were dropped until then.
    fn next(&self) -> (Vec<u8>, u64) {
        let mut queue = self.queue();
        loop {
            if let Some(record) = queue.records.pop_front() {
                queue.bytes -= record.len();
                queue.is_writing = true;
                return (record, queue.dropped);
            }
            let woken = self.changed.wait(queue);
            queue = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn notice(dropped: u64) -> String {
    let text =
        format!("{dropped} records of this log were dropped: standard error did not take them");
    formed(Level::WARN, &text)
}

/// An output that may fail.
struct Output<W> {
    inner: W,
    /// A record was written in part, without its end.
    is_torn: bool,
}

impl<W: Write> Output<W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            is_torn: false,
        }
    }

    /// Writes a record; whether all of it was written.
    fn put(&mut self, record: &[u8]) -> bool {
        if self.is_torn && self.write(b"\n") != 1 {
            return false;
        }
        let written = self.write(record);
        self.is_torn = 0 < written && written < record.len();
        written == record.len()
    }

    /// Writes what the output takes, and returns how many bytes that was. Waits where it would
    /// block.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() {
            match self.inner.write(&bytes[written..]) {
                Ok(0) => break,
                Ok(more) => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(BLOCKED_PAUSE),
                Err(_) => break,
            }
        }
        written
    }
}

#[cfg(test)]
mod tests;
