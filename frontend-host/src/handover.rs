//! How a gateway takes the place of a running one: it gets the sockets that clients and operators connect to, so that
//! nobody is refused, and the data directory with its lock.
//!
//! ```text
//! new process                                running gateway
//!     │ take-over ───────────────────────────────▶ │ leaves what is saved of the policy as it is
//!     │ ◀─────────── offer: its sockets, the lock  │ serves
//!     │ loads the policy, opens its session        │ serves
//!     │ ready: a trade could be served ──────────▶ │ serves
//!     │ ◀────────────────────────────────── yours  │ serves, both of them could
//!     │ serving ─────────────────────────────────▶ │ accepts no more, answers what is under way, ends
//! ```
//!
//! A socket is one thing with one queue of those who have connected, whichever process accepts from it: whoever is in
//! it when one process ends is served by the other. The lock of the data directory is shared likewise, and nobody
//! else gets it in between.
//!
//! Who may write to the directory: the running gateway until it has read `serving`, the new one from having written
//! it. Until then both [hold](frontend_policy::Versions::hold) changes: operators get 503, with `Retry-After`. Where the new one
//! ends before, whatever the cause, the running one goes on as before; where that one ends, the new one has all it
//! needs, and goes on alone.
//!
//! - [`socket`]: where a running gateway is found;
//! - [`conversation`]: lines, and the file descriptors that go with one;
//! - [`offering`]: the running gateway's side; [`taking`]: the new one's.

mod socket;
mod conversation;
mod offering;
mod taking;

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use offering::Offering;
pub(crate) use taking::Replaced;
pub use taking::{Handed, Predecessor, take_over};

/// How long the other one may take to say what it has to say at once.
const SPEAK_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a new process may take until it could serve a trade.
pub const READY_TIME_MAX: Duration = Duration::from_secs(60);

/// How much longer the running gateway waits for that: the new one says better what is wrong.
const READY_SLACK: Duration = Duration::from_secs(10);

/// How long the supervisor may take to have room for the word that this process is the one to watch over.
const TELL_TIME_MAX: Duration = Duration::from_secs(2);

/// How long a gateway that breaks off without a word may take to end.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// The words, of which each line has one.
const TAKE_OVER: &str = "take-over";
const OFFER: &str = "offer";
const REFUSED: &str = "refused";
const READY: &str = "ready";
const YOURS: &str = "yours";
const SERVING: &str = "serving";

/// Why a gateway did not take another one's place.
#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    /// The running gateway cannot be asked.
    #[error("cannot ask the running gateway at {}: {source}", path.display())]
    Unreachable {
        /// Its socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another user's process listens there.
    #[error("the gateway at {} is of another user ({uid}): start the new one as that user", path.display())]
    Stranger {
        /// Its socket.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
    },
    /// It says why not, in its own words.
    #[error("the running gateway hands nothing over: {0}")]
    Refused(String),
    /// It speaks another version of this.
    #[error(
        "the running gateway hands over by version {theirs} of the protocol, and this release knows version {}: stop it, then start this one",
        conversation::VERSION
    )]
    OtherVersion {
        /// As it says.
        theirs: u32,
    },
    /// It says what it must not.
    #[error("the running gateway is not understood: {0}")]
    NotUnderstood(String),
    /// It said nothing for too long.
    #[error("the running gateway did not answer within {} s", SPEAK_TIME_MAX.as_secs())]
    Silent,
    /// The new one did not get that far.
    #[error("no trade could be served within {} s, so the running gateway goes on: {why}", READY_TIME_MAX.as_secs())]
    NotReady {
        /// What was missing at last.
        why: Cow<'static, str>,
    },
    /// It is in another network namespace, as in another container.
    #[error(
        "the gateway that runs on this data directory is in another network ({theirs}, and this process in {own}), so its sockets are nothing here: start the new one where it runs, or stop that one first"
    )]
    OtherNetwork {
        /// As the system calls it.
        theirs: String,
        /// As the system calls it.
        own: String,
    },
    /// It would decide otherwise than the running one.
    #[error(
        "this process cannot start with the policies that are in service, so the running gateway goes on: {0}"
    )]
    OtherPolicies(String),
    /// The connection broke off, and the process at its other end has not ended.
    #[error("the running gateway broke off, and has not ended: {0}")]
    BrokenOff(io::Error),
    /// What it handed over will not do.
    #[error("what the running gateway handed over cannot be used: {0}")]
    Unusable(String),
}
