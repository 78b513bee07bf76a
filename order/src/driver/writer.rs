//! The thread that writes to the store.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use protocol::Row;
use storage::error::fail_stop;
use tokio::sync::mpsc;

use super::Input;
use crate::core::message::Term;
use crate::store::Store;
use crate::store::saves::{self, Save};

/// Writes saves in their order, all that have queued as one transaction (group commit), and
/// reports what is then durable. The core bounds what queues.
#[derive(Debug)]
pub(super) struct Writer {
    saves: Sender<Save>,
    thread: JoinHandle<()>,
}

impl Writer {
    pub(super) fn start(store: impl Store, inputs: mpsc::Sender<Input>) -> Self {
        let (saves, queue) = channel();
        let thread = thread::Builder::new().name("order-store".into());
        let thread = thread
            .spawn(move || write(store, &queue, &inputs))
            .expect("the system has a thread to spare");
        Self { saves, thread }
    }

    pub(super) fn save(&self, term: Option<Term>, rows: Vec<Row>) {
        self.saves
            .send(Save { term, rows })
            .expect("the store's thread runs until it is finished");
    }

    /// Waits until everything is written, and lets go of the store.
    pub(super) async fn finish(self) {
        drop(self.saves);
        let finished = tokio::task::spawn_blocking(|| self.thread.join()).await;
        if let Ok(Err(panic)) = finished {
            std::panic::resume_unwind(panic);
        }
    }
}

fn write(mut store: impl Store, queue: &Receiver<Save>, inputs: &mpsc::Sender<Input>) {
    while let Ok(first) = queue.recv() {
        let group = saves::gather(first, || queue.try_recv().ok());
        let written = saves::write(&mut store, &group);
        let event = written.unwrap_or_else(|error| fail_stop(&error));
        // Where the driver has stopped nobody needs to know, yet what has queued is written.
        let _ = inputs.blocking_send(Input::Happened(event));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use storage::StorageError;

    use super::*;
    use crate::core::tests::bench::{end, journal, term};
    use crate::core::{Durable, Event};
    use crate::store::saves::GROUP_ROWS_MAX;
    use crate::store::{ReadRows, continuation};

    /// A store in memory, with room for so many rows.
    struct Memory {
        durable: Durable,
        room: usize,
    }

    impl Store for Memory {
        fn durable(&self) -> Durable {
            self.durable
        }

        fn save(&mut self, term: Option<Term>, rows: &[Row]) -> Result<Durable, StorageError> {
            let (new, end) = continuation(self.durable.end, rows)?;
            self.room = self
                .room
                .checked_sub(new.len())
                .ok_or(StorageError::Discontinuous("no room".into()))?;
            self.durable = Durable {
                term: term.unwrap_or(self.durable.term),
                end,
            };
            Ok(self.durable)
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
            .for_each(|save| sender.send(save).unwrap());
        drop(sender);
        let (inputs, mut reports) = mpsc::channel(count.max(1));
        write(
            Memory {
                durable: Durable::default(),
                room,
            },
            &queue,
            &inputs,
        );
        let event = |input| match input {
            Input::Happened(event) => event,
            other => panic!("not a report: {other:?}"),
        };
        std::iter::from_fn(|| reports.try_recv().ok())
            .map(event)
            .collect()
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
        });
        let events = report(9, saves.into());
        let [Event::Stored(durable)] = events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(
            durable,
            Durable {
                term: term(2, 3),
                end: end(&rows)
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
            }],
        );
        let [Event::StoreFailed(durable)] = events[..] else {
            panic!("{events:?}")
        };
        assert_eq!(durable, Durable::default());
    }
}
