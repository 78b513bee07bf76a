//! What a supervisor is told of a service, as systemd wants it: `sd_notify(3)`.
//!
//! `sd_notify`'s own sending waits where nobody reads; nothing here does. Where `NOTIFY_SOCKET` is absent nothing
//! happens, and where nothing can be sent there, the log says so once.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;

/// Where the supervisor listens.
const SOCKET: &str = "NOTIFY_SOCKET";

/// The service does its part from now on.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The same of a process that has taken the place of another one, or has it again: it is the one to watch over.
pub fn ready_as_main() {
    tell(&[NotifyState::MainPid(process::id()), NotifyState::Ready]);
}

/// The service goes on under another process, or goes on as it was: [`ready_as_main`] says when.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "there is no monotonic clock"),
    }
}

/// The service comes to its end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// The service is alive. To be said by what serves, so that nobody says it where that stands still.
pub fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// What a supervisor asked of the process whose place this one has taken.
static ASKED_BEFORE: OnceLock<Duration> = OnceLock::new();

/// How often the supervisor wants to hear that the service is alive: half of the time after which it takes it for dead.
/// `None` where it does not ask for that.
pub fn alive_every() -> Option<Duration> {
    let own = sd_notify::watchdog_enabled().map(|dead_after| dead_after / 2);
    let every = own.or_else(|| ASKED_BEFORE.get().copied());
    every.filter(|every| !every.is_zero())
}

/// Another process was to say [so often](alive_every) that it is alive, and this one takes its place: it is asked of it from
/// now on, unless it is asked already.
pub fn take_over(alive_every: Option<Duration>) {
    if let Some(every) = alive_every {
        let _ = ASKED_BEFORE.set(every); // once is enough
    }
}

fn tell(states: &[NotifyState<'_>]) {
    /// Whether the log has said that it does not work.
    static COMPLAINED: AtomicBool = AtomicBool::new(false);
    let Some(socket) = socket() else {
        return;
    };
    let text: String = states.iter().map(|state| format!("{state}\n")).collect();
    if let Err(error) = send(socket, text.as_bytes())
        && !COMPLAINED.swap(true, Ordering::Relaxed)
    {
        tracing::warn!(%error, ?socket, "the supervisor cannot be told how this service does");
    }
}

/// As it was when the process started: nothing here changes it.
fn socket() -> Option<&'static OsString> {
    static SOCKET_NAME: OnceLock<Option<OsString>> = OnceLock::new();
    let name = SOCKET_NAME.get_or_init(|| env::var_os(SOCKET).filter(|name| !name.is_empty()));
    name.as_ref()
}

/// Where the reader's queue is full, the message is lost.
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
}
