//! Listening, with errors that name the port; and sockets that a supervisor listens on already.

use std::env;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use listenfd::ListenFd;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::error::Error;

/// Connections that wait to be accepted: as many as the system allows, which takes this as its
/// own limit (`net.core.somaxconn`). With the 128 of the standard library, a burst of clients
/// waits a second for their openings to be sent again.
const BACKLOG_MAX: i32 = i32::MAX;

/// How often a taken port is tried again, and after how long. The replicas' default ports are
/// among those that Linux gives to outgoing connections, so one may be taken for a moment by
/// nobody in particular.
const ATTEMPTS_MAX: u32 = 5;
const ATTEMPT_INTERVAL: Duration = Duration::from_millis(100);

/// Sockets that a supervisor may hand over: far more than any service has flags for.
const INHERITED_MAX: u128 = 1_024;

/// What is to listen where.
#[derive(Debug, Clone)]
pub struct ListenAddress {
    /// Port 0 stands for any that is free.
    pub address: SocketAddr,
    /// For messages: "the gateway's HTTP".
    pub purpose: String,
    /// For messages: the flag that names the address.
    pub flag: &'static str,
}

impl ListenAddress {
    /// Listens there, for `tokio` to take over: with the inherited socket of that address, where there is one.
    ///
    /// # Errors
    /// [`Error::Taken`] where another process does.
    pub fn bind(&self, inherited: &mut Inherited) -> Result<TcpListener, Error> {
        match inherited.take(self.address) {
            Some(listener) => Ok(listener),
            None => self.bind_anew(),
        }
    }

    /// The same with a socket of its own.
    ///
    /// # Errors
    /// [`Error::Taken`] where another process listens there.
    pub fn bind_anew(&self) -> Result<TcpListener, Error> {
        let Self {
            address,
            purpose,
            flag,
        } = self.clone();
        let mut listener = listen(address);
        for _ in 1..ATTEMPTS_MAX {
            match &listener {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    std::thread::sleep(ATTEMPT_INTERVAL);
                    listener = listen(address);
                }
                _ => break,
            }
        }
        listener.map_err(|source| match source.kind() {
            ErrorKind::AddrInUse => Error::Taken {
                address,
                purpose,
                flag,
            },
            _ => Error::Listen {
                address,
                purpose,
                flag,
                source,
            },
        })
    }
}

/// Like `TcpListener::bind`, but for the backlog, and without blocking.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A port whose connections of before are not yet forgotten can be had at once.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG_MAX)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// That `LISTEN_FDS` speaks of no more sockets than there can be: memory is taken for each that it speaks of.
fn check_count() -> Result<(), Error> {
    let text = env::var("LISTEN_FDS").unwrap_or_default();
    match text.trim_start_matches('+').parse::<u128>() {
        Ok(count) if count > INHERITED_MAX => Err(Error::Usage(format!(
            "LISTEN_FDS speaks of {count} sockets, and {INHERITED_MAX} can be handed to a process"
        ))),
        _ => Ok(()),
    }
}

/// Sockets that a supervisor listens on for this process, and keeps when it ends: systemd's socket activation,
/// `sd_listen_fds(3)`.
#[derive(Debug, Default)]
pub struct Inherited(Vec<(SocketAddr, TcpListener)>);

impl Inherited {
    /// As `LISTEN_FDS` says, where `LISTEN_PID` is this process or absent. Children get neither the variables nor the
    /// sockets.
    ///
    /// To be called before there are threads: it changes the environment.
    ///
    /// # Errors
    /// Where one is no TCP socket that listens, and where there would be more than [`INHERITED_MAX`].
    pub fn from_environment() -> Result<Self, Error> {
        check_count()?;
        let names = env::var("LISTEN_FDNAMES").unwrap_or_default();
        let names: Vec<&str> = names.split(':').collect();
        let mut handed = ListenFd::from_env();
        let mut sockets = Vec::new();
        for index in 0..handed.len() {
            let unusable = |why: &dyn std::fmt::Display| {
                let name = names.get(index).filter(|name| !name.is_empty());
                let name = name.map(|name| format!(" (`{name}`)")).unwrap_or_default();
                Error::Usage(format!(
                    "the socket number {}{name} that LISTEN_FDS speaks of cannot be listened on: {why}",
                    index + 1
                ))
            };
            let listener = handed
                .take_tcp_listener(index)
                .map_err(|error| unusable(&error))?
                .ok_or_else(|| unusable(&"it is not there"))?;
            if !SockRef::from(&listener).is_listener().unwrap_or(false) {
                return Err(unusable(&"it is a TCP socket that does not listen"));
            }
            // A supervisor need not have seen to it.
            let prepared = listener.set_nonblocking(true);
            let address = prepared.and_then(|()| listener.local_addr());
            sockets.push((address.map_err(|error| unusable(&error))?, listener));
        }
        Ok(Self(sockets))
    }

    fn take(&mut self, address: SocketAddr) -> Option<TcpListener> {
        let same = self.0.iter().position(|(bound, _)| *bound == address)?;
        Some(self.0.swap_remove(same).1)
    }

    /// Whether it has a socket of that address.
    pub fn has(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|(bound, _)| *bound == address)
    }

    /// That every socket has been taken; `why_not` says in words why one was not.
    ///
    /// # Errors
    /// Where one was not: whoever connects to it would never be answered.
    pub fn check_all_taken(&self, why_not: &str) -> Result<(), Error> {
        match self.0.first() {
            None => Ok(()),
            Some((address, _)) => Err(Error::Usage(format!(
                "a socket that listens on {address} was handed to this process (LISTEN_FDS), and {why_not}"
            ))),
        }
    }
}
