//! Listening, with errors that name the port.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::error::Error;

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
        for _ in 1..ATTEMPTS_MAX {
            match TcpListener::bind(address) {
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    std::thread::sleep(ATTEMPT_INTERVAL)
                }
                _ => break,
            }
        }
        let listener = TcpListener::bind(address).map_err(|source| match source.kind() {
            ErrorKind::AddrInUse => Error::Taken {
                address,
                purpose: purpose.clone(),
                flag,
            },
            _ => Error::Listen {
                address,
                purpose: purpose.clone(),
                flag,
                source,
            },
        })?;
        let ready = listener.set_nonblocking(true);
        ready.map(|()| listener).map_err(|source| Error::Listen {
            address,
            purpose,
            flag,
            source,
        })
    }
}
