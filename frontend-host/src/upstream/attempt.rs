//! One attempt at a backend, which is made once more on another connection where its own is silent: see [`Repeats`].

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use domain::time::BootTime;
use frontend_core::attempts::Repeats;
use rpc::retry::{RetryClass, RetryStatus as _};
use tokio::time::sleep;
use tonic::Status;

/// Makes an attempt, and makes it again where nothing comes back for `pause`, and later for twice as long each time. `make`
/// is told on which connection the one before was made, and says on which it makes the next; `heard` says when something
/// last came back on it, where it knows.
///
/// # Errors
/// What no further attempt can mend, or why the last of those under way failed.
pub(super) async fn attempt<C, T, F>(
    pause: Duration,
    mut make: impl FnMut(Option<&C>) -> (C, F),
    heard: impl Fn(&C) -> Option<BootTime>,
) -> Result<T, Status>
where
    F: Future<Output = Result<T, Status>>,
{
    let mut repeats = Repeats::begin(BootTime::now(), pause);
    let (mut connection, first) = make(None);
    let mut under_way = vec![Box::pin(first)];
    loop {
        let look = repeats.look_at().since(BootTime::now());
        tokio::select! {
            answered = first_over(&mut under_way) => match answered {
                Err(status) if may_be_mended(&status) && !under_way.is_empty() => {}
                answered => return answered,
            },
            () = sleep(look) => {
                if repeats.look(BootTime::now(), heard(&connection)) {
                    tracing::debug!("a connection is silent: asks on another one as well");
                    let (other, again) = make(Some(&connection));
                    under_way.push(Box::pin(again));
                    connection = other;
                }
            }
        }
    }
}

fn may_be_mended(status: &Status) -> bool {
    RetryClass::of(status) == RetryClass::Later
}

/// What the first of them that is over came to; it is none of them any more.
async fn first_over<F: Future>(under_way: &mut Vec<Pin<Box<F>>>) -> F::Output {
    poll_fn(|context| {
        for place in 0..under_way.len() {
            if let Poll::Ready(output) = under_way[place].as_mut().poll(context) {
                drop(under_way.swap_remove(place));
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use tokio::sync::oneshot;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(20);

    /// What an attempt is answered by.
    type Answer = oneshot::Sender<Result<&'static str, Status>>;

    /// Makes an attempt, on connections with numbers from 0 on. Meanwhile `answer` is given what answers each.
    async fn attempted(
        heard: impl Fn(&usize) -> Option<BootTime>,
        answer: impl AsyncFn(&RefCell<Vec<Answer>>),
    ) -> Result<&'static str, Status> {
        let made = RefCell::new(Vec::new());
        let make = |before: Option<&usize>| {
            let (sender, receiver) = oneshot::channel();
            made.borrow_mut().push(sender);
            let answered = async move { receiver.await.expect("it is answered") };
            (before.map_or(0, |before| before + 1), answered)
        };
        let answering = async {
            answer(&made).await;
            std::future::pending().await
        };
        tokio::select! {
            answered = attempt(PAUSE, make, heard) => answered,
            () = answering => unreachable!("it waits for ever"),
        }
    }

    async fn wait_for(made: &RefCell<Vec<Answer>>, count: usize) {
        while made.borrow().len() < count {
            sleep(Duration::from_millis(1)).await;
        }
    }

    fn answer(made: &RefCell<Vec<Answer>>, place: usize, with: Result<&'static str, Status>) {
        made.borrow_mut().remove(place).send(with).unwrap();
    }

    #[tokio::test]
    async fn on_a_silent_connection_it_is_made_again_on_another_and_either_answer_counts() {
        let silent = |_: &usize| None;
        let answered = attempted(silent, async |made| {
            wait_for(made, 2).await;
            answer(made, 1, Ok("the second"));
        });
        assert_eq!(answered.await.unwrap(), "the second");
        let answered = attempted(silent, async |made| {
            wait_for(made, 2).await;
            answer(made, 0, Ok("the first"));
        });
        assert_eq!(answered.await.unwrap(), "the first");
    }

    #[tokio::test]
    async fn while_its_connection_lives_it_is_made_once_however_long_the_answer_takes() {
        let alive = |_: &usize| Some(BootTime::now());
        let answered = attempted(alive, async |made| {
            sleep(PAUSE * 4).await;
            assert_eq!(made.borrow().len(), 1);
            answer(made, 0, Ok("at last"));
        });
        assert_eq!(answered.await.unwrap(), "at last");
    }

    #[tokio::test]
    async fn where_one_fails_the_other_is_waited_for_unless_no_attempt_can_mend_it() {
        let silent = |_: &usize| None;
        let failed = |class: RetryClass| Err(class.status(tonic::Code::Unavailable, "failed"));
        let answered = attempted(silent, async |made| {
            wait_for(made, 2).await;
            answer(made, 0, failed(RetryClass::Later));
            answer(made, 0, Ok("the second"));
        });
        assert_eq!(answered.await.unwrap(), "the second");
        let answered = attempted(silent, async |made| {
            wait_for(made, 2).await;
            answer(made, 0, failed(RetryClass::Never));
        });
        assert_eq!(answered.await.unwrap_err().message(), "failed");
    }
}
