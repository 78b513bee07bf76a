//! Listening, with errors that name the port.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

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

/// What is to listen where.
#[derive(Debug, Clone)]
pub struct Place {
    /// Port 0 stands for any that is free.
    pub address: SocketAddr,
    /// For messages: "the gateway's HTTP".
    pub purpose: String,
    /// For messages: the flag that names the address.
    pub flag: &'static str,
}

impl Place {
    /// Listens there, for `tokio` to take over.
    ///
    /// # Errors
    /// [`Error::Taken`] where another process does.
    pub fn bind(&self) -> Result<TcpListener, Error> {
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
