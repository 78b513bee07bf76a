//! What is known of something that may take long to say it.

use std::sync::Arc;
use std::time::Duration;

use domain::time::BootTime;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// What was said last, and since when that is known.
pub struct Latest<T> {
    said: watch::Sender<Option<(Arc<T>, BootTime)>>,
    /// Of the one that is asking: however long it waits, no second thread waits beside it.
    turn: Arc<Semaphore>,
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self {
            said: watch::Sender::default(),
            turn: Arc::new(Semaphore::new(1)),
        }
    }
}

impl<T: Send + Sync + 'static> Latest<T> {
    /// Asks, on a thread that may wait, unless somebody else is asking; and waits for the answer, for no longer than `time_max`.
    /// Returns what is known then, with its age, if anything is.
    pub(super) async fn ask(
        &self,
        time_max: Duration,
        ask: impl FnOnce() -> T + Send + 'static,
    ) -> Option<(Arc<T>, Duration)> {
        let mut said = self.said.subscribe();
        if let Ok(turn) = Arc::clone(&self.turn).try_acquire_owned() {
            let sender = self.said.clone();
            tokio::task::spawn_blocking(move || {
                let answer = (Arc::new(ask()), BootTime::now());
                drop(turn);
                sender.send_replace(Some(answer));
            });
        }
        let _ = timeout(time_max, said.changed()).await; // else what was said before
        let latest = said.borrow().clone();
        latest.map(|(said, at)| (said, BootTime::now().since(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    const SOON: Duration = Duration::from_secs(60);
    const BRIEFLY: Duration = Duration::from_millis(1);

    #[tokio::test]
    async fn where_no_answer_comes_in_time_the_one_before_stands_with_its_age() {
        let latest = Latest::default();
        let (release, held) = mpsc::channel::<()>();
        assert_eq!(*latest.ask(SOON, || 1).await.unwrap().0, 1);
        let late = move || {
            held.recv().unwrap();
            2
        };
        let (said, age) = latest.ask(BRIEFLY, late).await.unwrap();
        assert_eq!(*said, 1);
        assert!(age >= BRIEFLY, "{age:?}");

        // Whoever asks meanwhile waits no longer, and takes no thread.
        let asked = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let counted = Arc::clone(&asked);
            let ask = move || counted.fetch_add(1, Ordering::Relaxed) as i32;
            assert_eq!(*latest.ask(BRIEFLY, ask).await.unwrap().0, 1);
        }
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        release.send(()).unwrap();
        while *latest.ask(SOON, || 3).await.unwrap().0 == 1 {}
    }

    #[tokio::test]
    async fn of_what_never_said_anything_nothing_is_known() {
        let latest = Latest::default();
        let (_release, held) = mpsc::channel::<()>();
        let never = move || held.recv().is_ok();
        assert!(latest.ask(BRIEFLY, never).await.is_none());
    }
}
