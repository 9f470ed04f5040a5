//! The file of a Unix socket: created with its permissions, taken over from a process that is
//! gone, and removed at the end.
//!
//! Decision: whoever holds the lock on `PATH.lock` owns the path. Without a lock two
//! processes that start at once could both find a socket without a process behind it, and
//! the later one would remove the socket of the earlier one. The lock file stays where it
//! is: removing it would open the same race again.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use socket2::{Domain, SockAddr, Socket, Type};

use super::bind_error::BindError;
use super::socket::BACKLOG;
use crate::endpoint::SocketMode;

/// The file of a socket that this process listens on; dropping it removes the file if it is ours.
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode number of the file, so that only our own file is removed.
    identity: (u64, u64),
    lock: File,
    mode: SocketMode,
    owner: SocketFileOwner,
}

/// Who removes the file at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum SocketFileOwner {
    ThisProcess,
    /// The one that has handed it over, or has taken it over.
    AnotherProcess,
}

impl SocketFile {
    /// A duplicate of what holds the path: it is held until both are closed.
    pub(super) fn lock(&self) -> io::Result<OwnedFd> {
        Ok(self.lock.try_clone()?.into())
    }

    /// From now on this process removes the file, which gets the mode that is configured here.
    pub(super) fn own(&mut self) {
        self.owner = SocketFileOwner::ThisProcess;
        let permissions = Permissions::from_mode(self.mode.bits());
        if let Err(error) = fs::set_permissions(&self.path, permissions) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the Unix socket keeps the mode that it had");
        }
    }

    /// From now on another process has the file.
    pub(super) fn give_up(&mut self) {
        self.owner = SocketFileOwner::AnotherProcess;
    }
}

/// Uses a socket of the process before, with what holds its path. The file is that process's until
/// [`SocketFile::own`].
pub(super) fn adopt(
    path: &Path,
    mode: SocketMode,
    listener: UnixListener,
    lock: OwnedFd,
) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |source| BindError::UnixSocket {
        path: path.to_owned(),
        source,
    };
    listener.set_nonblocking(true).map_err(failed)?;
    let file = fs::symlink_metadata(path).map_err(failed)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(&file),
        lock: lock.into(),
        mode,
        owner: SocketFileOwner::AnotherProcess,
    };
    Ok((listener, file))
}

/// Opens the socket at `path`. Nobody can connect before its permissions are set, since it
/// listens only after that.
pub(super) fn open(path: &Path, mode: SocketMode) -> Result<(UnixListener, SocketFile), BindError> {
    let failed = |source| BindError::UnixSocket {
        path: path.to_owned(),
        source,
    };
    let lock = lock(path)?;
    remove_leftover(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).map_err(failed)?;
    let address = SockAddr::unix(path).map_err(failed)?;
    socket.set_nonblocking(true).map_err(failed)?;
    socket.bind(&address).map_err(failed)?;
    let file = fs::symlink_metadata(path).map_err(failed)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(&file),
        lock,
        mode,
        owner: SocketFileOwner::ThisProcess,
    };
    fs::set_permissions(path, Permissions::from_mode(mode.bits())).map_err(failed)?;
    socket.listen(BACKLOG).map_err(failed)?;
    Ok((socket.into(), file))
}

fn lock(path: &Path) -> Result<File, BindError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&name);
    let failed = |source| BindError::UnixSocket {
        path: PathBuf::from(&name),
        source,
    };
    let file = opened.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(in_use(path)),
        Err(fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Removes a socket that nobody listens on any more. Leaves alone a socket in use and any file that
/// is not a socket.
fn remove_leftover(path: &Path) -> Result<(), BindError> {
    let failed = |source| BindError::UnixSocket {
        path: path.to_owned(),
        source,
    };
    let file = match fs::symlink_metadata(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !file.file_type().is_socket() {
        return Err(BindError::NoSocket {
            path: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed)
        }
        Ok(_) => Err(in_use(path)),
        Err(error) => Err(failed(error)),
    }
}

fn in_use(path: &Path) -> BindError {
    BindError::UnixInUse {
        path: path.to_owned(),
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.owner == SocketFileOwner::AnotherProcess {
            return;
        }
        let ours = fs::symlink_metadata(&self.path);
        if ours.is_ok_and(|file| identity(&file) == self.identity) {
            // A file that cannot be removed is taken over by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &Path) -> Result<(UnixListener, SocketFile), BindError> {
        open(path, "0640".parse().unwrap())
    }

    #[test]
    fn a_socket_has_its_mode_and_goes_with_its_listener() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let (listener, file) = opened(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(UnixStream::connect(&path).is_ok());
        drop((listener, file));
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_that_is_handed_over_keeps_its_file_and_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let (listener, mut file) = opened(&path).unwrap();
        let adopted = || {
            let mode = "0600".parse().unwrap();
            adopt(
                &path,
                mode,
                listener.try_clone().unwrap(),
                file.lock().unwrap(),
            )
        };
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        // One that never took it over.
        drop(adopted().unwrap());
        assert!(path.exists());
        let (again, mut own) = adopted().unwrap();
        assert_eq!(mode(), 0o640);
        own.own();
        assert_eq!(mode(), 0o600);
        file.give_up();
        drop((listener, file));
        assert!(UnixStream::connect(&path).is_ok());
        drop(again);
        assert!(
            matches!(opened(&path), Err(BindError::UnixInUse { .. })),
            "the lock"
        );
        drop(own);
        assert!(!path.exists());
        assert!(opened(&path).is_ok());
    }

    #[test]
    fn what_is_alive_or_no_socket_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let ours = opened(&path).unwrap();
        assert!(matches!(opened(&path), Err(BindError::UnixInUse { .. })));
        drop(ours);
        let another = UnixListener::bind(&path).unwrap();
        assert!(matches!(opened(&path), Err(BindError::UnixInUse { .. })));
        drop(another);
        assert!(opened(&path).is_ok(), "nobody listens on it any more");
        fs::write(&path, "kept").unwrap();
        assert!(matches!(opened(&path), Err(BindError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/nowhere", &path).unwrap();
        assert!(matches!(opened(&path), Err(BindError::NoSocket { .. })));
    }

    #[test]
    fn the_socket_of_a_successor_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let ours = opened(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let _another = UnixListener::bind(&path).unwrap();
        drop(ours);
        assert!(path.exists());
    }
}
