//! Waiting for a condition, and for one's turn.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Longest wait for a condition: far more than any needs, as a machine may be busy.
const WAIT_MAX: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(10);

/// Most bazaars at once: each is five processes.
const TURNS_MAX: usize = 3;

/// Waits until `condition` holds.
///
/// # Panics
/// Where it does not in a minute, saying `what` was waited for.
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_for(what, WAIT_MAX, condition);
}

/// The same, with another patience.
pub fn wait_for(what: &str, patience: Duration, condition: impl FnMut() -> bool) {
    wait_for_said(|| what.to_owned(), patience, condition);
}

/// The same, where it is said only at the end what was waited for.
pub fn wait_for_said(
    what: impl Fn() -> String,
    patience: Duration,
    mut condition: impl FnMut() -> bool,
) {
    let start = Instant::now();
    while !condition() {
        assert!(
            start.elapsed() < patience,
            "waited {} s for {}",
            patience.as_secs(),
            what()
        );
        thread::sleep(INTERVAL);
    }
}

/// Raises a flag when it is dropped, so that threads that wait for it end, also in a panic.
#[derive(Debug)]
pub struct Raise<'a>(pub &'a AtomicBool);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

static TAKEN: Mutex<usize> = Mutex::new(0);
static GIVEN_BACK: Condvar = Condvar::new();

/// One of the bazaars that may run at once.
#[derive(Debug)]
pub struct Turn(());

impl Turn {
    pub fn take() -> Self {
        let mut taken = GIVEN_BACK
            .wait_while(lock(), |taken| *taken >= TURNS_MAX)
            .unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self(())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *lock() -= 1;
        GIVEN_BACK.notify_one();
    }
}

fn lock() -> MutexGuard<'static, usize> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tests whose clients ask without a pause take turns: together they would leave a policy's check, which
/// lets all others go first, no time.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}
