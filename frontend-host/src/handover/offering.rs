//! The running gateway's side: it offers its place to whoever comes, to one at a time.

use std::future::Future;
use std::io::{self, PipeReader};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use daemon::data_dir::Lock;
use daemon::notify;
use frontend_policy::Versions;
use rustix::process::geteuid;
use serde_json::json;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::conversation::{Conversation, VERSION};
use super::{
    OFFER, READY, READY_SLACK, READY_TIME_MAX, SERVING, SPEAK_TIME_MAX, TAKE_OVER, YOURS, socket,
};

/// Pause after accepting failed, as it does when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What others are told who come while one is there.
const BUSY: &str = "another process is taking its place already";

/// What one is told whose predecessor is told to stop.
const STOPPING: &str = "it is told to stop";

/// A gateway's place, for another process to take.
pub(crate) struct Offering {
    data_dir: PathBuf,
    offers: UnixListener,
    policy: Arc<Versions>,
    sockets: Sockets,
}

/// What another process gets: the same as this one has.
#[derive(Debug)]
struct Sockets {
    clients: OwnedFd,
    clients_address: SocketAddr,
    operators: OwnedFd,
    operators_address: SocketAddr,
    /// Whether a supervisor has them as well.
    are_kept: bool,
    lock: OwnedFd,
    offers: OwnedFd,
    alive: OwnedFd,
}

/// Why this gateway goes on, in words for the other one and the log.
type Why = String;

impl Offering {
    /// Of a gateway with these listeners and this directory. `offers` is where to listen, if that is handed over, too;
    /// `alive` ends with this process, and a supervisor may have the sockets, too (`are_kept`).
    ///
    /// # Errors
    /// Where nothing can be listened on in the directory, or no file descriptors are left.
    pub(crate) fn new(
        (data_dir, lock): (&Path, &Lock),
        ((clients, operators), are_kept): ((&TcpListener, &TcpListener), bool),
        (offers, alive): (Option<UnixListener>, PipeReader),
        policy: Arc<Versions>,
    ) -> io::Result<Self> {
        let offers = match offers {
            Some(offers) => offers,
            None => socket::listen(data_dir)?,
        };
        Ok(Self {
            sockets: Sockets {
                clients: clients.as_fd().try_clone_to_owned()?,
                clients_address: clients.local_addr()?,
                operators: operators.as_fd().try_clone_to_owned()?,
                operators_address: operators.local_addr()?,
                are_kept,
                lock: lock.share()?,
                offers: offers.as_fd().try_clone_to_owned()?,
                alive: alive.into(),
            },
            data_dir: data_dir.to_owned(),
            offers,
            policy,
        })
    }

    /// Offers it until another process has taken it, which is `true`, or this one is told to stop.
    pub(crate) async fn until_taken(self, mut stopping: watch::Receiver<bool>) -> bool {
        let of_lent = stopping.clone();
        let (mut lending, mut refusing) = (None, None);
        let mut is_stopping = false;
        while !is_stopping || lending.is_some() {
            tokio::select! {
                // Nobody is taken on once this process is to stop, and who was is told so.
                biased;
                () = told(&mut stopping), if !is_stopping => is_stopping = true,
                taken = once(&mut lending) => match taken {
                    Ok(()) => return true,
                    Err(why) => tracing::warn!(why, "no other process took this one's place: it goes on"),
                },
                () = once(&mut refusing) => {}
                accepted = self.offers.accept(), if refusing.is_none() && !is_stopping => match accepted {
                    Ok((stream, _)) => {
                        let conversation = Conversation::new(stream);
                        match self.why_not(&conversation, lending.is_some()) {
                            Some(why) => refusing = Some(Box::pin(refuse(conversation, why))),
                            None => {
                                let lent: Lending<'_> = Box::pin(self.lend(conversation, of_lent.clone()));
                                lending = Some(lent);
                            }
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept a process that would take this one's place");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop((lending, refusing));
        self.withdraw();
        false
    }

    /// Nobody finds it any more.
    pub(crate) fn withdraw(self) {
        socket::close(&self.data_dir);
    }

    /// Why a process gets nothing, whatever it has to say.
    fn why_not(&self, conversation: &Conversation, is_busy: bool) -> Option<Why> {
        let own = geteuid().as_raw();
        match conversation.peer() {
            Ok(peer) if peer.uid() != own => Some(format!(
                "it runs as user {own}, and only to a process of that user: this one is of {}",
                peer.uid()
            )),
            Err(error) => Some(format!("it cannot tell who asks: {error}")),
            Ok(_) if is_busy => Some(BUSY.to_owned()),
            Ok(_) => None,
        }
    }

    /// Has one process take this one's place, or says why not. What is saved of the policy stays as it is meanwhile,
    /// and for good once it is taken.
    async fn lend(
        &self,
        mut conversation: Conversation,
        mut stopping: watch::Receiver<bool>,
    ) -> Result<(), Why> {
        let greeted = tokio::select! {
            biased;
            () = told(&mut stopping) => Err(STOPPING.to_owned()),
            greeted = greet(&mut conversation) => greeted,
        };
        if let Err(why) = greeted {
            conversation.refuse(&why).await;
            return Err(why);
        }
        notify::reloading();
        self.with_policy(Versions::hold).await;
        let lent = tokio::select! {
            biased;
            () = told(&mut stopping) => Err(STOPPING.to_owned()),
            lent = self.wait_until_ready(&mut conversation) => lent,
        };
        let taken = match lent {
            Ok(()) => {
                // From now on it may say that it is the one to watch over.
                notify::leave_place();
                give(&mut conversation, &mut stopping).await
            }
            Err(why) => Err(why),
        };
        match &taken {
            Ok(()) => self.tell_of_late_changes().await,
            Err(why) => {
                conversation.refuse(why).await;
                self.with_policy(Versions::release).await;
                notify::take_place();
            }
        }
        taken
    }

    /// A version that goes out of service between the last look and the other one's word that it serves is in service
    /// there, and nothing says so but this.
    async fn tell_of_late_changes(&self) {
        let changes = self.with_policy(Versions::changes_since_held).await;
        for change in changes.unwrap_or_default() {
            tracing::error!(
                what = change.what,
                why = change.why,
                from = change.from,
                to = change.to,
                candidate = change.candidate,
                "the policy changed here as the place was taken, and not in the process that has it: change it there"
            );
        }
    }

    /// Gives another process what it needs to be ready, and waits until it is.
    async fn wait_until_ready(&self, conversation: &mut Conversation) -> Result<(), Why> {
        let Sockets {
            clients,
            clients_address,
            operators,
            operators_address,
            are_kept,
            lock,
            offers,
            alive,
        } = &self.sockets;
        let alive_every = notify::alive_every();
        let words = json!({
            "release": env!("CARGO_PKG_VERSION"),
            "clients": clients_address.to_string(),
            "operators": operators_address.to_string(),
            "are_kept": are_kept,
            "network": socket::network(),
            "pid": std::process::id(),
            "alive_every_us": alive_every.map(|every| every.as_micros() as u64),
        })
        .to_string();
        let handed = [clients, operators, lock, offers, alive].map(|socket| socket.as_fd());
        let said = conversation.say_with(OFFER, &words, &handed);
        said.await.map_err(|error| lost(&error))?;
        let heard = timeout(READY_TIME_MAX + READY_SLACK, conversation.hear()).await;
        match heard {
            Err(_) => return Err("it took too long to be ready".to_owned()),
            Ok(Err(error)) => return Err(lost(&error)),
            Ok(Ok(line)) if !line.is(READY) => return Err(unexpected(&line.word)),
            Ok(Ok(_)) => {}
        }
        let changes = self.with_policy(Versions::changes_since_held).await;
        match changes.is_some_and(|changes| changes.is_empty()) {
            true => Ok(()),
            // It would serve with the version that failed.
            false => {
                Err("a version of the policy went out of service meanwhile: try again".to_owned())
            }
        }
    }

    /// Does what may wait for a disk.
    async fn with_policy<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Versions) -> T + Send + 'static,
    ) -> Option<T> {
        let policy = Arc::clone(&self.policy);
        spawn_blocking(move || work(&policy)).await.ok()
    }
}

type Lending<'a> = Pin<Box<dyn Future<Output = Result<(), Why>> + Send + 'a>>;

/// Waits until this process is to stop.
async fn told(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// Completes with what completes in there, which is gone then; never while there is nothing.
async fn once<F: Future + Unpin>(waiting: &mut Option<F>) -> F::Output {
    match waiting {
        None => std::future::pending().await,
        Some(future) => {
            let output = future.await;
            *waiting = None;
            output
        }
    }
}

async fn refuse(mut conversation: Conversation, why: Why) {
    // It is heard only by who has said something.
    let _ = timeout(SPEAK_TIME_MAX, conversation.hear()).await;
    tracing::warn!(why, "a process would take this one's place, and may not");
    conversation.refuse(&why).await;
}

/// Hears what the other one wants.
async fn greet(conversation: &mut Conversation) -> Result<(), Why> {
    match timeout(SPEAK_TIME_MAX, conversation.hear()).await {
        Err(_) => Err("it said nothing".to_owned()),
        Ok(Err(error)) => Err(lost(&error)),
        Ok(Ok(line)) if line.version != VERSION => Err(format!(
            "it is release {}, which knows version {VERSION} of the protocol, and was asked by version {}: stop it, then start the new one",
            env!("CARGO_PKG_VERSION"),
            line.version
        )),
        Ok(Ok(line)) if line.word != TAKE_OVER => Err(unexpected(&line.word)),
        Ok(Ok(line)) => {
            let pid = conversation.peer().ok().and_then(|peer| peer.pid());
            tracing::info!(
                pid,
                release = line.words,
                "another process takes this one's place"
            );
            Ok(())
        }
    }
}

/// Leaves the place to the other one, if it is there to take it, and this one is not told to stop before.
async fn give(
    conversation: &mut Conversation,
    stopping: &mut watch::Receiver<bool>,
) -> Result<(), Why> {
    let said = conversation.say(YOURS, "").await;
    said.map_err(|error| lost(&error))?;
    let mut is_stopping = false;
    let heard = tokio::select! {
        biased;
        () = told(stopping) => {
            is_stopping = true;
            None
        }
        heard = timeout(SPEAK_TIME_MAX, conversation.hear()) => heard.ok(),
    };
    let heard = match heard {
        Some(heard) => heard,
        // It may be saying so at this moment, and must know whether that was heard.
        None => conversation.hear_last().await,
    };
    match heard {
        Ok(line) if line.is(SERVING) => Ok(()),
        Ok(line) => Err(unexpected(&line.word)),
        Err(_) if is_stopping => Err(STOPPING.to_owned()),
        Err(error) => Err(lost(&error)),
    }
}

fn lost(error: &io::Error) -> Why {
    format!("the other process is not heard any more: {error}")
}

fn unexpected(word: &str) -> Why {
    format!("it does not understand `{}`", word.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixStream;

    #[tokio::test]
    async fn a_place_is_given_only_to_who_says_that_it_serves() {
        for (says, is_taken) in [(Some(SERVING), true), (Some(READY), false), (None, false)] {
            let (one, other) = UnixStream::pair().unwrap();
            let mut running = Conversation::new(one);
            let mut new = Conversation::new(other);
            let answering = async move {
                assert!(new.hear().await.unwrap().is(YOURS));
                if let Some(word) = says {
                    new.say(word, "").await.unwrap();
                }
            };
            let (_stop, mut stopping) = watch::channel(false);
            let (given, ()) = tokio::join!(give(&mut running, &mut stopping), answering);
            assert_eq!(given.is_ok(), is_taken, "{says:?}: {given:?}");
        }
    }

    #[tokio::test]
    async fn who_is_told_to_stop_waits_for_nobody_and_hears_what_was_said() {
        for says in [None, Some(SERVING)] {
            let (one, other) = UnixStream::pair().unwrap();
            let mut running = Conversation::new(one);
            let mut new = Conversation::new(other);
            if let Some(word) = says {
                new.say(word, "").await.unwrap();
            }
            let (_stop, mut stopping) = watch::channel(true);
            let giving = give(&mut running, &mut stopping);
            let given = timeout(SPEAK_TIME_MAX / 5, giving).await.expect("at once");
            match says {
                None => {
                    assert_eq!(given.unwrap_err(), STOPPING);
                    // It cannot believe that it was heard.
                    assert!(new.hear().await.unwrap().is(YOURS));
                    new.say(SERVING, "").await.unwrap_err();
                }
                Some(_) => given.unwrap(),
            }
        }
    }
}
