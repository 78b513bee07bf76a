//! What is shipped as tasks of tokio runs here in step with the timeline: on a runtime of one thread whose clock stands
//! still until it is moved on, and which says when there is nothing left to do at that time.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use domain::time::{BootTime, simulated};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::{Instant, Sleep, advance, sleep_until};

use crate::timeline::{Host, Time};

/// Timers of tokio go off at whole ticks.
const TICK: Duration = Duration::from_millis(1);

/// A runtime, and what its tasks have the world do.
pub struct Clockwork<T> {
    runtime: Runtime,
    began: Instant,
    idle: Arc<Idle>,
    pub outbox: Outbox<T>,
}

/// Told when the runtime has nothing to do.
#[derive(Default)]
struct Idle {
    is_reached: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

impl<T: Send + 'static> Clockwork<T> {
    pub fn new() -> Self {
        let idle = Arc::<Idle>::default();
        let reached = Arc::clone(&idle);
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || {
                if let Some(waker) = locked(&reached.waker).take() {
                    reached.is_reached.store(true, Ordering::Relaxed);
                    waker.wake();
                }
            })
            .build()
            .expect("a runtime without a network needs nothing");
        let began = runtime.block_on(async { Instant::now() });
        Self {
            runtime,
            began,
            idle,
            outbox: Outbox::default(),
        }
    }

    pub fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    pub fn began(&self) -> Instant {
        self.began
    }

    pub fn now(&self) -> Time {
        self.runtime.block_on(async { Instant::now() }) - self.began
    }

    /// Goes on until that time, or until there is something for the world to do. Returns whether there is.
    pub fn run_until(&self, until: Time) -> bool {
        loop {
            self.settle();
            if !self.outbox.is_empty() {
                return true;
            }
            let now = self.now();
            if now >= until {
                return false;
            }
            let (last, target) = (floor(now), floor(until));
            if last < now && last + TICK <= until {
                self.advance(last + TICK - now);
            } else if last == now && target > now {
                // With nothing to do, the clock moves from one timer to the next by itself.
                let (at, outbox) = (self.began + target, self.outbox.clone());
                self.runtime.block_on(async move {
                    tokio::select! {
                        biased;
                        () = outbox.filled() => {}
                        () = sleep_until(at) => {}
                    }
                });
            } else {
                self.advance(until - now);
            }
        }
    }

    /// All that there is to do now.
    fn settle(&self) {
        let idle = &self.idle;
        self.runtime.block_on(poll_fn(|context| {
            if idle.is_reached.swap(false, Ordering::Relaxed) {
                return Poll::Ready(());
            }
            *locked(&idle.waker) = Some(context.waker().clone());
            Poll::Pending
        }));
    }

    fn advance(&self, duration: Duration) {
        self.runtime.block_on(advance(duration));
    }
}

fn floor(time: Time) -> Time {
    Duration::from_millis(u64::try_from(time.as_millis()).expect("simulations are short"))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What tasks have the world do, in their order.
pub struct Outbox<T>(Arc<Mutex<Queue<T>>>);

struct Queue<T> {
    items: VecDeque<T>,
    waker: Option<Waker>,
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        let items = VecDeque::new();
        Self(Arc::new(Mutex::new(Queue { items, waker: None })))
    }
}

impl<T> Outbox<T> {
    pub fn push(&self, item: T) {
        let mut queue = locked(&self.0);
        queue.items.push_back(item);
        if let Some(waker) = queue.waker.take() {
            waker.wake();
        }
    }

    pub fn pop(&self) -> Option<T> {
        locked(&self.0).items.pop_front()
    }

    pub fn is_empty(&self) -> bool {
        locked(&self.0).items.is_empty()
    }

    async fn filled(&self) {
        poll_fn(|context| {
            let mut queue = locked(&self.0);
            if !queue.items.is_empty() {
                return Poll::Ready(());
            }
            queue.waker = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// The clock of a process' machine, and until when the process is paused.
#[derive(Clone)]
pub struct Clock {
    began: Instant,
    host: Host,
    paused_until: Arc<Mutex<Option<Time>>>,
}

impl Clock {
    pub fn new(began: Instant, host: Host) -> Self {
        let paused_until = Arc::default();
        Self {
            began,
            host,
            paused_until,
        }
    }

    /// Nothing of the process goes on before that.
    pub fn pause(&self, until: Time) {
        *locked(&self.paused_until) = Some(until);
    }

    fn shown(&self) -> BootTime {
        self.host.clock(Instant::now() - self.began)
    }

    /// Something that the process does.
    pub fn run<F: Future>(&self, work: F) -> Clocked<F> {
        Clocked {
            clock: self.clone(),
            work: Box::pin(work),
            pause: None,
        }
    }
}

/// Work by a clock.
pub struct Clocked<F> {
    clock: Clock,
    work: Pin<Box<F>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<F: Future> Future for Clocked<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let paused_until = *locked(&self.clock.paused_until);
        if let Some(until) = paused_until {
            let at = self.clock.began + until;
            if self.pause.as_ref().is_none_or(|it| it.deadline() < at) {
                self.pause = Some(Box::pin(sleep_until(at)));
            }
        }
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.pause = None;
        }
        let before = simulated::show(Some(self.clock.shown()));
        let polled = self.work.as_mut().poll(context);
        simulated::show(before);
        polled
    }
}
