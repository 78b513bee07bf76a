//! What a supervisor is told of a service, as systemd wants it: `sd_notify(3)`.
//!
//! `sd_notify`'s own sending waits where nobody reads; nothing here does. Where `NOTIFY_SOCKET` is absent nothing
//! happens, and where nothing can be sent there, the log says so once. Where the reader's queue is full, a task tries
//! again for [`SAY_TIME_MAX`]: of a state only the latest is worth saying then.
//!
//! A supervisor watches over one process, and others may tell it something as well: one that would take the place of
//! the one that runs, and one whose place is taken. These say nothing of the service's state.

use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::{Instant, sleep};

use crate::tasks;

/// Where the supervisor listens.
const SOCKET: &str = "NOTIFY_SOCKET";

/// How long it is tried to say something, and how often.
const SAY_TIME_MAX: Duration = Duration::from_secs(60);
const SAY_INTERVAL: Duration = Duration::from_millis(20);

/// The service does its part from now on. To be said in a runtime, as everything but [`alive`].
pub fn ready() {
    tell(Part::ready);
}

/// This process is the one to watch over from now on: it has the place of another one. See [`ready`].
pub fn take_place() {
    tell(Part::take);
}

/// This process does its part, and is the one to watch over in a moment: another one leaves it its place. Until it
/// [holds](hold_place) that, the other one may have it again, and says so.
pub fn claim_place() {
    tell(Part::claim);
}

/// What this process has [claimed](claim_place) it has.
pub fn hold_place() {
    tell(Part::hold);
}

/// Another process takes this one's place, and says so, unless this one [has it again](take_place).
pub fn leave_place() {
    tell(Part::leave);
}

/// The service goes on under another process, or goes on as it was: [`take_place`] says when.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(|part| part.of_service(&[NotifyState::Reloading, now])),
        Err(error) => tracing::debug!(%error, "there is no monotonic clock"),
    }
}

/// The service comes to its end, if this process is still the one that is watched over; otherwise that goes on.
pub fn stopping() {
    tell(Part::stop);
}

/// The service is alive. To be said by what serves, so that nobody says it where that stands still.
pub fn alive() {
    let Some(socket) = socket() else {
        return;
    };
    match send(socket, format!("{}\n", NotifyState::Watchdog).as_bytes()) {
        Err(error) if error.kind() != ErrorKind::WouldBlock => complain(&error),
        // The next one may find a place.
        _ => {}
    }
}

/// Waits until all that was to be said has been, or cannot be; `false` where it is not for so long.
pub async fn said(time_max: Duration) -> bool {
    let until = Instant::now() + time_max;
    while lock().unsaid.is_some() {
        if Instant::now() >= until {
            return false;
        }
        sleep(SAY_INTERVAL).await;
    }
    true
}

/// What a supervisor asked of the process whose place this one takes.
static ASKED_BEFORE: OnceLock<Duration> = OnceLock::new();

/// How often the supervisor wants to hear that the service is alive: half of the time after which it takes it for dead.
/// `None` where it does not ask for that.
pub fn alive_every() -> Option<Duration> {
    let own = sd_notify::watchdog_enabled().map(|dead_after| dead_after / 2);
    let every = own.or_else(|| ASKED_BEFORE.get().copied());
    every.filter(|every| !every.is_zero())
}

/// Another process has the place that this one is to take: until it [has it](take_place), that one is watched over. It
/// was to say [so often](alive_every) that it is alive, which is asked of this one as well, unless it is asked already.
pub fn follow(alive_every: Option<Duration>) {
    if let Some(every) = alive_every {
        let _ = ASKED_BEFORE.set(every); // once is enough
    }
    leave_place();
}

/// What part a process has in a service, and what the supervisor is to be told of it.
#[derive(Debug)]
struct Part {
    /// Whether it is the process that is watched over.
    has_place: bool,
    is_ready: bool,
    is_stopping: bool,
    unsaid: Option<Unsaid>,
}

/// What could not be said yet.
#[derive(Debug)]
struct Unsaid {
    /// Whether it has to say that this is the process to watch over.
    is_main: bool,
    states: String,
}

static PART: Mutex<Part> = Mutex::new(Part::new());

fn lock() -> MutexGuard<'static, Part> {
    PART.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Part {
    const fn new() -> Self {
        Self {
            has_place: true,
            is_ready: false,
            is_stopping: false,
            unsaid: None,
        }
    }

    fn ready(&mut self) {
        self.is_ready = true;
        self.of_service(&[NotifyState::Ready]);
    }

    fn stop(&mut self) {
        self.is_stopping = true;
        self.of_service(&[NotifyState::Stopping]);
    }

    fn leave(&mut self) {
        self.has_place = false;
        self.unsaid = None; // it is the other one's to say
    }

    fn claim(&mut self) {
        self.is_ready = true;
        self.say(true, &[NotifyState::Ready]);
    }

    fn hold(&mut self) {
        self.has_place = true;
        if self.is_stopping {
            self.say(false, &[NotifyState::Stopping]);
        }
    }

    /// Says what has become of the service meanwhile, too.
    fn take(&mut self) {
        self.has_place = true;
        let state: &[NotifyState<'_>] = match (self.is_stopping, self.is_ready) {
            (true, _) => &[NotifyState::Stopping],
            (false, true) => &[NotifyState::Ready],
            (false, false) => &[],
        };
        self.say(true, state);
    }

    /// What only the process that is watched over says.
    fn of_service(&mut self, states: &[NotifyState<'_>]) {
        if self.has_place {
            self.say(false, states);
        }
    }

    /// Instead of what is unsaid, but for which process it is.
    fn say(&mut self, is_main: bool, states: &[NotifyState<'_>]) {
        let before = self.unsaid.take().is_some_and(|unsaid| unsaid.is_main);
        self.unsaid = Some(Unsaid {
            is_main: is_main || before,
            states: states.iter().map(|state| format!("{state}\n")).collect(),
        });
    }

    /// Says what is unsaid, unless the reader's queue is full: `false`.
    fn speak(&mut self, socket: &OsString) -> bool {
        let Some(Unsaid { is_main, states }) = &self.unsaid else {
            return true;
        };
        let main = match is_main {
            true => format!("{}\n", NotifyState::MainPid(process::id())),
            false => String::new(),
        };
        match send(socket, format!("{main}{states}").as_bytes()) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            Err(error) => complain(&error),
            Ok(()) => {}
        }
        self.unsaid = None;
        true
    }
}

/// Has the supervisor know what `change` says; see [`said`].
fn tell(change: impl FnOnce(&mut Part)) {
    /// Whether a task is at it.
    static IS_TRYING: AtomicBool = AtomicBool::new(false);
    let mut part = lock();
    change(&mut part);
    let Some(socket) = socket() else {
        part.unsaid = None;
        return;
    };
    if part.speak(socket) || IS_TRYING.swap(true, Ordering::Relaxed) {
        return;
    }
    drop(part);
    tasks::spawn_for_caller(async move {
        let until = Instant::now() + SAY_TIME_MAX;
        loop {
            sleep(SAY_INTERVAL).await;
            let mut part = lock();
            let is_over = Instant::now() >= until;
            if part.speak(socket) || is_over {
                // Under the lock: whoever has more to say finds a task at it, or starts one.
                IS_TRYING.store(false, Ordering::Relaxed);
                if part.unsaid.take().is_some() {
                    tracing::warn!(?socket, "the supervisor does not read what it is told");
                }
                return;
            }
        }
    });
}

/// The log says once that it does not work.
fn complain(error: &io::Error) {
    static COMPLAINED: AtomicBool = AtomicBool::new(false);
    if !COMPLAINED.swap(true, Ordering::Relaxed) {
        let socket = socket();
        tracing::warn!(%error, ?socket, "the supervisor cannot be told how this service does");
    }
}

/// As it was when the process started: nothing here changes it.
fn socket() -> Option<&'static OsString> {
    static SOCKET_NAME: OnceLock<Option<OsString>> = OnceLock::new();
    let name = SOCKET_NAME.get_or_init(|| env::var_os(SOCKET).filter(|name| !name.is_empty()));
    name.as_ref()
}

/// Never waits: where the reader's queue is full, that is an error.
fn send(socket: &OsString, text: &[u8]) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let sender = UnixDatagram::unbound()?;
    sender.set_nonblocking(true)?;
    sender.send_to_addr(text, &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_arrives_by_a_path_and_by_an_abstract_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("bazaar-test-{}", process::id());
        let by_path = UnixDatagram::bind(&path).unwrap();
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        let names = [path.into_os_string(), format!("@{abstract_name}").into()];
        for (reader, name) in [by_path, by_name].into_iter().zip(names) {
            send(&name, b"READY=1\n").unwrap();
            let mut text = [0; 16];
            let length = reader.recv(&mut text).unwrap();
            assert_eq!(&text[..length], b"READY=1\n");
        }
    }

    #[test]
    fn nobody_who_listens_and_nobody_who_reads_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = path.clone().into_os_string();
        send(&name, b"READY=1\n").unwrap_err();
        send(&"x".repeat(200).into(), b"READY=1\n").unwrap_err();
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let full = (0..100_000).find_map(|_| send(&name, b"WATCHDOG=1\n").err());
        assert_eq!(
            full.map(|error| error.kind()),
            Some(io::ErrorKind::WouldBlock)
        );
    }

    fn texts(part: &mut Part) -> Option<(bool, String)> {
        let unsaid = part.unsaid.take()?;
        Some((unsaid.is_main, unsaid.states))
    }

    #[test]
    fn only_who_has_the_place_says_how_the_service_does() {
        let mut part = Part::new();
        part.leave();
        part.stop();
        assert_eq!(texts(&mut part), None, "the other one goes on");
        // It comes back to this one, which was never ready, and is told to stop.
        part.take();
        assert_eq!(texts(&mut part), Some((true, "STOPPING=1\n".to_owned())));

        let mut part = Part::new();
        part.leave();
        part.claim();
        assert_eq!(texts(&mut part), Some((true, "READY=1\n".to_owned())));
        part.stop();
        assert_eq!(texts(&mut part), None, "the other one may go on");
        part.hold();
        assert_eq!(texts(&mut part), Some((false, "STOPPING=1\n".to_owned())));

        let mut part = Part::new();
        part.take();
        assert_eq!(texts(&mut part), Some((true, String::new())), "not ready");
        part.ready();
        part.leave();
        assert_eq!(texts(&mut part), None, "it is the other one's to say");
        part.take();
        assert_eq!(texts(&mut part), Some((true, "READY=1\n".to_owned())));
    }

    #[test]
    fn what_finds_no_place_is_said_later_by_its_latest_state_and_with_who_says_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = path.clone().into_os_string();
        let reader = UnixDatagram::bind(&path).unwrap();
        reader.set_nonblocking(true).unwrap();
        while send(&name, b"WATCHDOG=1\n").is_ok() {}
        let mut part = Part::new();
        part.is_ready = true;
        part.take();
        assert!(!part.speak(&name), "the queue is full");
        part.stop();
        assert!(!part.speak(&name));
        let mut told = [0; 64];
        while reader.recv(&mut told).is_ok() {}
        assert!(part.speak(&name));
        let length = reader.recv(&mut told).unwrap();
        let expected = format!("MAINPID={}\nSTOPPING=1\n", process::id());
        assert_eq!(str::from_utf8(&told[..length]).unwrap(), expected);
        assert!(part.speak(&name), "nothing is left to say");
        assert!(reader.recv(&mut told).is_err());
    }
}
