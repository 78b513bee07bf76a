//! Where a running gateway is found: a unix socket in its data directory, for processes of its own user alone.

use std::fs::{self, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

/// Its name, in the data directory.
const FILE: &str = "handover";

/// Processes that wait to be accepted.
const BACKLOG_MAX: i32 = 8;

/// Longest path of a unix socket, in bytes (`sun_path` of unix(7), but for the zero at its end).
const PATH_BYTES_MAX: usize = 107;

/// Where it is.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// The same as short as a socket's path has to be, for as long as the file is held.
struct Reach {
    path: PathBuf,
    _dir: Option<File>,
}

impl Reach {
    fn of(data_dir: &Path) -> io::Result<Self> {
        let path = path(data_dir);
        if path.as_os_str().as_bytes().len() <= PATH_BYTES_MAX {
            return Ok(Self { path, _dir: None });
        }
        let dir = File::open(data_dir)?;
        Ok(Self {
            path: format!("/proc/self/fd/{}/{FILE}", dir.as_raw_fd()).into(),
            _dir: Some(dir),
        })
    }
}

/// The network that this process is in, as the system calls it: an address is another one in another.
pub(super) fn network() -> Option<String> {
    let network = fs::read_link("/proc/self/ns/net").ok()?;
    network.into_os_string().into_string().ok()
}

/// Listens there, in the place of whatever a process that is gone has left. For who has the directory's lock.
///
/// # Errors
/// Where the directory has no sockets, or takes no new file.
pub(super) fn listen(data_dir: &Path) -> io::Result<UnixListener> {
    let reach = Reach::of(data_dir)?;
    remove(&reach.path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(&reach.path)?)?;
    // Before anybody can connect.
    fs::set_permissions(&reach.path, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG_MAX)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(StdUnixListener::from(socket))
}

/// Nobody is found there any more. For who has the directory's lock.
pub(super) fn close(data_dir: &Path) {
    if let Err(error) = remove(&path(data_dir)) {
        tracing::debug!(%error, "the socket for a hand-over is left behind");
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Connects to whoever listens there; `None` where nobody does.
///
/// # Errors
/// Where somebody may, and cannot be reached.
pub(super) async fn connect(data_dir: &Path) -> io::Result<Option<UnixStream>> {
    let nobody = |error: &io::Error| {
        matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::ConnectionRefused
        )
    };
    let connected = match Reach::of(data_dir) {
        Ok(reach) => UnixStream::connect(&reach.path).await,
        Err(error) => Err(error),
    };
    match connected {
        Ok(stream) => Ok(Some(stream)),
        Err(error) if nobody(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_is_found_also_where_the_directory_has_a_long_name_and_a_process_left_a_socket() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("a".repeat(100)).join("b".repeat(100));
        fs::create_dir_all(&long).unwrap();
        for data_dir in [dir.path(), &long] {
            assert!(connect(data_dir).await.unwrap().is_none(), "nobody yet");
            let before = listen(data_dir).unwrap();
            drop(before);
            assert!(connect(data_dir).await.unwrap().is_none(), "it is gone");
            let _listener = listen(data_dir).unwrap();
            assert!(connect(data_dir).await.unwrap().is_some());
            let mode = fs::metadata(path(data_dir)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            close(data_dir);
            assert!(connect(data_dir).await.unwrap().is_none());
        }
    }
}
