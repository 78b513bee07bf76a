//! Who writes to the store: a thread, or the driver itself.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use daemon::tasks;
use storage::error::fail_stop;
use tokio::sync::mpsc;

use super::Input;
use crate::measured::Measured;
use crate::store::Store;
use crate::store::saves;
use crate::traced::Spans;
use order_core::Event;
use order_core::Save;

/// Writes saves in their order: on a thread, all that have queued as one transaction (group
/// commit), or at once on the caller's. Reports what is then durable. The core bounds what queues.
pub(super) struct Writer {
    /// Locked while something is written; the thread does only where something has queued.
    store: Arc<Mutex<dyn Store>>,
    saves: Sender<(Save, Spans)>,
    /// Saves of the thread's that it has not reported yet.
    queued: usize,
    thread: JoinHandle<()>,
    measured: Arc<Measured>,
}

impl Writer {
    pub(super) fn start(
        store: impl Store,
        inputs: mpsc::Sender<Input>,
        measured: Arc<Measured>,
    ) -> Self {
        let store = Arc::new(Mutex::new(store));
        let (saves, queue) = channel();
        let thread = tasks::thread("order-store", {
            let (store, measured) = (Arc::clone(&store), Arc::clone(&measured));
            move || write(&store, &queue, &inputs, &measured)
        });
        Self {
            store,
            saves,
            queued: 0,
            thread: thread.expect("the system has a thread to spare"),
            measured,
        }
    }

    /// Writes on the thread, which reports it.
    pub(super) fn save(&mut self, save: Save, spans: Spans) {
        self.queued += 1;
        self.saves
            .send((save, spans))
            .expect("the store's thread runs until it is finished");
    }

    /// The thread has reported so many.
    pub(super) fn note_reported(&mut self, saves: usize) {
        self.queued -= saves;
    }

    /// Whether everything was reported, so that the next save may be written anywhere.
    pub(super) fn is_idle(&self) -> bool {
        self.queued == 0
    }

    /// Writes here and now, and says what is then durable.
    ///
    /// # Panics
    /// Where the writer is not idle: reports would come out of order.
    pub(super) fn save_now(&self, save: &Save) -> Event {
        assert!(self.is_idle(), "{} saves have queued", self.queued);
        write_group(&mut *lock(&self.store), save, &self.measured)
    }

    /// Waits until everything is written, and lets go of the store.
    pub(super) async fn finish(self) {
        drop((self.saves, self.store));
        let finished = tokio::task::spawn_blocking(|| self.thread.join()).await;
        if let Ok(Err(panic)) = finished {
            std::panic::resume_unwind(panic);
        }
    }
}

fn write(
    store: &Mutex<impl Store>,
    queue: &Receiver<(Save, Spans)>,
    inputs: &mpsc::Sender<Input>,
    measured: &Measured,
) {
    while let Ok((first, mut spans)) = queue.recv() {
        measured.writing.begin();
        let mut saves = 1;
        let group = order_core::durable::gather(first, || {
            let (next, with_it) = queue.try_recv().ok()?;
            saves += 1;
            spans.extend(with_it);
            Some(next)
        });
        let event = write_group(&mut *lock(store), &group, measured);
        drop(spans);
        measured.writing.end();
        // Where the driver has stopped nobody needs to know, yet what has queued is written.
        let _ = inputs.blocking_send(Input::Saved { saves, event });
    }
}

fn write_group(store: &mut (impl Store + ?Sized), group: &Save, measured: &Measured) -> Event {
    let began = Instant::now();
    let event = saves::write(store, group).unwrap_or_else(|error| fail_stop(&error));
    if matches!(event, Event::Stored(_)) {
        measured.saved(group.rows.len(), began.elapsed());
    }
    event
}

fn lock<S: ?Sized>(store: &Mutex<S>) -> MutexGuard<'_, S> {
    store.lock().expect("a store that panicked is used no more")
}

#[cfg(test)]
mod tests {
    use storage::StorageError;

    use super::*;
    use crate::fixtures::{end, journal, term};
    use crate::store::ReadRows;
    use order_core::durable::GROUP_ROWS_MAX;
    use order_core::memory::Memory;
    use order_core::{Durable, Event};

    /// A store in memory, with room for so many rows.
    struct Small {
        memory: Memory,
        room: usize,
    }

    impl Store for Small {
        fn durable(&self) -> Durable {
            self.memory.durable()
        }

        fn identity(&self) -> Option<domain::Identity> {
            self.memory.identity
        }

        fn save(&mut self, save: &Save) -> Result<Durable, StorageError> {
            let room = self.room.checked_sub(save.rows.len());
            self.room = room.ok_or(StorageError::Discontinuous("no room".into()))?;
            let saved = self.memory.save(save);
            saved.map_err(|error| StorageError::Discontinuous(error.0))
        }

        fn reader(&self) -> Arc<dyn ReadRows> {
            unreachable!("nobody reads in these tests")
        }
    }

    /// Writes what has queued before the thread starts, and returns what it reports.
    fn report(room: usize, saves: Vec<Save>) -> Vec<Event> {
        let (sender, queue) = channel();
        let count = saves.len();
        saves
            .into_iter()
            .for_each(|save| sender.send((save, Spans::default())).unwrap());
        drop(sender);
        let (inputs, mut reports) = mpsc::channel(count.max(1));
        let store = Mutex::new(Small {
            memory: Memory::default(),
            room,
        });
        write(&store, &queue, &inputs, &Measured::new([]));
        let mut reported = 0;
        let event = |input| match input {
            Input::Saved { saves, event } => {
                reported += saves;
                event
            }
            other => panic!("not a report: {other:?}"),
        };
        let events = std::iter::from_fn(|| reports.try_recv().ok())
            .map(event)
            .collect();
        assert_eq!(reported, count, "each save is reported once");
        events
    }

    #[test]
    fn what_has_queued_is_one_group_and_the_last_term_counts() {
        let rows = journal(3);
        let saves = [
            (Some(term(1, 2)), 0..1),
            (None, 1..3),
            (Some(term(2, 3)), 0..0),
        ];
        let saves = saves.map(|(term, range)| Save {
            term,
            rows: rows[range].to_vec(),
            ..Save::default()
        });
        let events = report(9, saves.into());
        let [Event::Stored(durable)] = events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(
            durable,
            Durable {
                term: term(2, 3),
                end: end(&rows),
                ..Durable::default()
            }
        );
    }

    #[test]
    fn a_group_has_a_bound() {
        let rows = journal(GROUP_ROWS_MAX + 1);
        let (first, last) = rows.split_at(GROUP_ROWS_MAX);
        let saves = [first, last].map(|rows| Save {
            term: None,
            rows: rows.to_vec(),
            ..Save::default()
        });
        let events = report(usize::MAX, saves.into());
        assert!(
            matches!(events[..], [Event::Stored(_), Event::Stored(_)]),
            "{events:?}"
        );
    }

    #[test]
    fn a_failure_says_what_the_store_still_holds() {
        let rows = journal(3);
        let events = report(
            2,
            vec![Save {
                term: Some(term(1, 2)),
                rows,
                ..Save::default()
            }],
        );
        let [Event::StoreFailed(durable)] = events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(durable, Durable::default());
    }
}
