//! The new process's side: it takes a running gateway's place.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::Path;
use std::time::Duration;

use daemon::data_dir::Lock;
use daemon::notify;
use rustix::process::geteuid;
use serde_json::Value;
use socket2::SockRef;
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::time::timeout;

use super::conversation::{Conversation, DESCRIPTORS, Line, VERSION, is_end};
use super::{
    END_TIME_MAX, HandoverError, OFFER, READY, READY_TIME_MAX, REFUSED, SERVING, SPEAK_TIME_MAX,
    TAKE_OVER, TELL_TIME_MAX, YOURS, socket,
};

/// What a running gateway handed over.
#[derive(Debug)]
pub struct Handed {
    /// What its clients connect to.
    pub clients: TcpListener,
    /// What its operators connect to.
    pub operators: TcpListener,
    /// Whether its supervisor has these as well: see [`Listeners`](crate::Listeners).
    pub are_kept: bool,
    /// How often its supervisor wants to hear of it, if at all.
    pub alive_every: Option<Duration>,
    /// The gateway itself.
    pub predecessor: Predecessor,
}

/// A running gateway whose place is being taken. Dropped before that is done, it goes on.
#[derive(Debug)]
pub struct Predecessor {
    pub(crate) lock: Lock,
    pub(crate) offers: UnixListener,
    pub(crate) conversation: Replacing,
}

/// What is still to be said.
#[derive(Debug)]
pub(crate) struct Replacing {
    conversation: Conversation,
    /// Ends with the process.
    alive: pipe::Receiver,
}

/// How a predecessor left its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replaced {
    /// To a process that is ready, as the supervisor knows.
    Ready,
    /// It ended before, so that nobody serves until this process does.
    Ended,
}

/// No word.
const NOTHING: &str = "";

/// Asks the gateway that runs on a data directory for its place; `None` where none runs there that offers it.
///
/// # Errors
/// Where it says no, or is not understood; it goes on then.
pub async fn take_over(data_dir: &Path) -> Result<Option<Handed>, HandoverError> {
    let path = socket::path(data_dir);
    let unreachable = |source| HandoverError::Unreachable {
        path: path.clone(),
        source,
    };
    let connecting = timeout(SPEAK_TIME_MAX, socket::connect(data_dir)).await;
    let connected = connecting.map_err(|_| HandoverError::Silent)?;
    let Some(stream) = connected.map_err(unreachable)? else {
        return Ok(None);
    };
    let mut conversation = Conversation::new(stream);
    let peer = conversation.peer().map_err(unreachable)?;
    if peer.uid() != geteuid().as_raw() {
        let (path, uid) = (path.clone(), peer.uid());
        return Err(HandoverError::Stranger { path, uid });
    }
    let said = conversation.say(TAKE_OVER, env!("CARGO_PKG_VERSION"));
    said.await.map_err(unreachable)?;
    let heard = timeout(SPEAK_TIME_MAX, conversation.hear()).await;
    let line = heard
        .map_err(|_| HandoverError::Silent)?
        .map_err(unreachable)?;
    let offer = expected(line, OFFER)?;
    check_network(&offer, socket::network())?;
    let handed = offered(data_dir, &offer, conversation)?;
    // The system knows of the first process that listened there, which may be one before this.
    tracing::info!(
        pid = offer["pid"].as_u64(),
        release = %offer["release"],
        "taking the place of the gateway that runs"
    );
    Ok(Some(handed))
}

/// The words of a line, if it is the one that is expected.
fn expected(line: Line, word: &str) -> Result<Value, HandoverError> {
    if line.word == REFUSED {
        return Err(HandoverError::Refused(line.words));
    }
    if line.version != VERSION {
        let theirs = line.version;
        return Err(HandoverError::OtherVersion { theirs });
    }
    if line.word != word {
        return Err(HandoverError::NotUnderstood(line.word));
    }
    match &*line.words {
        "" => Ok(Value::Null),
        words => serde_json::from_str(words)
            .map_err(|error| HandoverError::NotUnderstood(error.to_string())),
    }
}

/// That an address means the same to both.
fn check_network(offer: &Value, own: Option<String>) -> Result<(), HandoverError> {
    match (offer["network"].as_str(), own) {
        (Some(theirs), Some(own)) if theirs != own => Err(HandoverError::OtherNetwork {
            theirs: theirs.to_owned(),
            own,
        }),
        _ => Ok(()),
    }
}

fn offered(
    data_dir: &Path,
    offer: &Value,
    mut conversation: Conversation,
) -> Result<Handed, HandoverError> {
    let unusable = |why: String| HandoverError::Unusable(why);
    let descriptors = conversation.take_descriptors();
    let count = descriptors.len();
    let [clients, operators, lock, offers, alive] = <[OwnedFd; DESCRIPTORS]>::try_from(descriptors)
        .map_err(|_| unusable(format!("{count} file descriptors instead of {DESCRIPTORS}")))?;
    let lock = Lock::shared(data_dir, lock).map_err(|error| unusable(error.to_string()))?;
    let offers = StdUnixListener::from(offers);
    let offers = offers
        .set_nonblocking(true)
        .and_then(|()| UnixListener::from_std(offers));
    Ok(Handed {
        clients: listener(clients, "clients")?,
        operators: listener(operators, "operators")?,
        are_kept: offer["are_kept"].as_bool().unwrap_or(false),
        alive_every: offer["alive_every_us"].as_u64().map(Duration::from_micros),
        predecessor: Predecessor {
            lock,
            offers: offers.map_err(|error| unusable(error.to_string()))?,
            conversation: Replacing {
                conversation,
                alive: pipe::Receiver::from_owned_fd(alive)
                    .map_err(|error| unusable(error.to_string()))?,
            },
        },
    })
}

fn listener(socket: OwnedFd, whose: &str) -> Result<TcpListener, HandoverError> {
    let listener = TcpListener::from(socket);
    let is_one = SockRef::from(&listener).is_listener().unwrap_or(false);
    match listener.local_addr() {
        Ok(_) if is_one => Ok(listener),
        _ => Err(HandoverError::Unusable(format!(
            "the socket of its {whose} is not one that listens on TCP"
        ))),
    }
}

impl Replacing {
    /// Takes its place once `ready` completes: from when this returns it serves nobody new, and what is saved is this
    /// process's to write. At once where it ends before. `unready` says what is missing.
    ///
    /// # Errors
    /// Where it goes on.
    pub(crate) async fn replace(
        mut self,
        ready: impl Future<Output = ()>,
        unready: impl Fn() -> Option<Cow<'static, str>>,
    ) -> Result<Replaced, HandoverError> {
        tokio::select! {
            heard = self.conversation.hear() => return self.unless_ended(heard).await,
            waited = timeout(READY_TIME_MAX, ready) => if waited.is_err() {
                let why = unready().unwrap_or("it was at last".into());
                return Err(HandoverError::NotReady { why });
            },
        }
        if let Err(error) = self.conversation.say(READY, "").await {
            return self.unless_ended(Err(error)).await;
        }
        let heard = match timeout(SPEAK_TIME_MAX, self.conversation.hear()).await {
            Ok(heard) => heard,
            Err(_) => return Err(HandoverError::Silent),
        };
        match heard {
            Ok(line) => expected(line, YOURS)?,
            Err(error) => return self.unless_ended(Err(error)).await,
        };
        // Before the one that the supervisor watches over ends.
        notify::claim_place();
        if !notify::said(TELL_TIME_MAX).await {
            tracing::warn!(
                "the supervisor does not read which process has the place: it may take the other one's end for the service's"
            );
        }
        match self.conversation.say(SERVING, "").await {
            Ok(()) => {
                notify::hold_place();
                Ok(Replaced::Ready)
            }
            Err(_) => {
                notify::leave_place();
                // It may have said why, before it heard no more.
                let heard = match timeout(SPEAK_TIME_MAX, self.conversation.hear()).await {
                    Ok(heard) => heard,
                    Err(_) => return Err(HandoverError::Silent),
                };
                self.unless_ended(heard).await
            }
        }
    }

    /// What became of it that it breaks off, or says something that nobody asked for.
    async fn unless_ended(mut self, heard: io::Result<Line>) -> Result<Replaced, HandoverError> {
        let error = match heard {
            Ok(line) => {
                expected(line, NOTHING)?;
                return Err(HandoverError::NotUnderstood(String::new()));
            }
            Err(error) => error,
        };
        if !is_end(&error) {
            return Err(HandoverError::BrokenOff(error));
        }
        match timeout(END_TIME_MAX, self.alive.read_u8()).await {
            Ok(Err(_)) => {
                tracing::warn!(
                    "the gateway whose place is taken has ended before: going on without it"
                );
                Ok(Replaced::Ended)
            }
            _ => Err(HandoverError::BrokenOff(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};
    use std::io::PipeWriter;

    use tokio::net::UnixStream;

    /// The running gateway's end of it: what it says and hears, and what ends with it.
    fn running() -> (Replacing, Conversation, PipeWriter) {
        let (one, other) = UnixStream::pair().unwrap();
        let (alive, process) = io::pipe().unwrap();
        let replacing = Replacing {
            conversation: Conversation::new(one),
            alive: pipe::Receiver::from_owned_fd(alive.into()).unwrap(),
        };
        (replacing, Conversation::new(other), process)
    }

    #[tokio::test]
    async fn it_serves_once_the_other_one_has_left_it_the_place() {
        let (replacing, mut running, _process) = running();
        let hearing = async {
            assert!(running.hear().await.unwrap().is(READY));
            running.say(YOURS, "").await.unwrap();
            assert!(running.hear().await.unwrap().is(SERVING));
        };
        let (replaced, ()) = tokio::join!(replacing.replace(ready(()), || None), hearing);
        assert_eq!(replaced.unwrap(), Replaced::Ready);
    }

    #[tokio::test]
    async fn whoever_is_refused_says_why_and_whoever_is_not_understood_goes_on() {
        for (word, why) in [
            (REFUSED, "hands nothing over: later"),
            (READY, "not understood"),
        ] {
            let (replacing, running, _process) = running();
            running.say(word, "later").await.unwrap();
            let refused = replacing.replace(pending(), || None).await.unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
        }
    }

    #[tokio::test]
    async fn who_is_not_heard_any_more_when_it_serves_says_what_it_was_told() {
        let (replacing, mut running, _process) = running();
        let stopping = async {
            assert!(running.hear().await.unwrap().is(READY));
            running.say(YOURS, "").await.unwrap();
            assert!(running.hear_last().await.is_err(), "it says nothing yet");
            running.refuse("it is told to stop").await;
        };
        let (replaced, ()) = tokio::join!(replacing.replace(ready(()), || None), stopping);
        let refused = replaced.unwrap_err();
        assert!(refused.to_string().contains("told to stop"), "{refused}");
    }

    #[test]
    fn a_gateway_in_another_network_is_named_and_an_unknown_one_is_believed() {
        let offer = serde_json::json!({"network": "net:[1]"});
        check_network(&offer, Some("net:[1]".to_owned())).unwrap();
        check_network(&offer, None).unwrap();
        check_network(&Value::Null, Some("net:[1]".to_owned())).unwrap();
        let other = check_network(&offer, Some("net:[2]".to_owned())).unwrap_err();
        let why = other.to_string();
        assert!(why.contains("net:[1]") && why.contains("net:[2]"), "{why}");
    }

    #[tokio::test]
    async fn of_one_that_has_ended_the_place_is_taken_at_once() {
        // Before this one is ready, when it says so, and while it waits for the answer.
        let (replacing, running, process) = running();
        drop((running, process));
        let replaced = replacing.replace(pending(), || None).await;
        assert_eq!(replaced.unwrap(), Replaced::Ended);
        let (replacing, mut running, process) = self::running();
        let ending = async {
            assert!(running.hear().await.unwrap().is(READY));
            drop((running, process));
        };
        let (replaced, ()) = tokio::join!(replacing.replace(ready(()), || None), ending);
        assert_eq!(replaced.unwrap(), Replaced::Ended);
    }
}
