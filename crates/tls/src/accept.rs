//! Taking a connection, so that a client that is refused hears why.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::BUFFER_BYTES_MAX;
use crate::words::readable;

/// How long who is refused has to hear it, and how much of what it sends meanwhile is thrown away.
const LINGER_MAX: Duration = Duration::from_secs(1);
const THROWN_AWAY_BYTES_MAX: u64 = 64 << 10;

/// Agrees on how a connection is encrypted, and whose it is.
///
/// A client that has sent more already, as one does by TLS 1.3, would have the connection reset where it is closed at
/// once, and not read the alert that says what is wrong with its certificate: so that is read before.
pub(crate) async fn accept(
    config: Arc<ServerConfig>,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    match TlsAcceptor::from(config)
        .accept(stream)
        .into_fallible()
        .await
    {
        Ok(mut stream) => {
            stream.get_mut().1.set_buffer_limit(Some(BUFFER_BYTES_MAX));
            Ok(stream)
        }
        Err((error, mut stream)) => {
            let hear = async {
                stream.shutdown().await?;
                let mut rest = stream.take(THROWN_AWAY_BYTES_MAX);
                tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
            };
            let _ = timeout(LINGER_MAX, hear).await; // whoever it is was told
            Err(readable(error))
        }
    }
}
