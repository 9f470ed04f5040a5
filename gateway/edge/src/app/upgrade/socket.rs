//! The Unix socket on which a gateway is asked to hand over.
//!
//! A new process opens its own and moves it to the place of the old one, so that somebody listens
//! there at any moment.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

/// The listening socket; dropping it removes its file, unless another process has one in its place.
pub struct UpgradeSocket {
    pub(super) listener: tokio::net::UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

/// One that listens beside its place, where the one of the process before may still be.
pub struct PreparedUpgradeSocket {
    listener: tokio::net::UnixListener,
    beside: BesideFile,
    path: PathBuf,
    identity: (u64, u64),
}

/// The file of a socket that is not in its place yet; dropping it removes the file.
struct BesideFile(PathBuf);

/// Why it can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeSocketError {
    #[error(
        "server.upgrade_socket: {} belongs to another gateway that runs: give each one a path of its own, or take its place by `lamina upgrade`",
        path.display()
    )]
    InUse { path: PathBuf },
    #[error(
        "server.upgrade_socket: {} exists and is not a socket: remove it, or choose another path",
        path.display()
    )]
    NoSocket { path: PathBuf },
    #[error(
        "server.upgrade_socket: {} can't be created: does its folder exist, and may this user write there?",
        path.display()
    )]
    File { path: PathBuf, source: io::Error },
}

/// How often it is seen whether another socket is there.
const LOOK: Duration = Duration::from_millis(5);

/// Connections that may wait.
const BACKLOG: i32 = 16;

impl UpgradeSocket {
    /// Opens it where no other gateway listens.
    ///
    /// # Errors
    /// If one does, or the file can't be made.
    pub fn open(path: &Path) -> Result<Self, UpgradeSocketError> {
        if let Ok(there) = fs::symlink_metadata(path) {
            let path = path.to_owned();
            if !there.file_type().is_socket() {
                return Err(UpgradeSocketError::NoSocket { path });
            }
            if UnixStream::connect(&path).is_ok() {
                return Err(UpgradeSocketError::InUse { path });
            }
        }
        PreparedUpgradeSocket::beside(path)?.put_in_place()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits, for at most `patience`, until another process has its own socket in the place of this
    /// one. Blocks.
    pub(super) fn await_next(&self, patience: Duration) {
        let end = Instant::now() + patience;
        while self.is_in_place() && Instant::now() < end {
            thread::sleep(LOOK);
        }
    }

    fn is_in_place(&self) -> bool {
        let there = fs::symlink_metadata(&self.path);
        there.is_ok_and(|file| (file.dev(), file.ino()) == self.identity)
    }
}

impl PreparedUpgradeSocket {
    /// Opens one beside `path`.
    ///
    /// # Errors
    /// If the file can't be made.
    pub fn beside(path: &Path) -> Result<Self, UpgradeSocketError> {
        let opened = Self::at(path);
        opened.map_err(|source| UpgradeSocketError::File {
            path: path.to_owned(),
            source,
        })
    }

    fn at(path: &Path) -> io::Result<Self> {
        let mut beside = path.as_os_str().to_owned();
        beside.push(format!(".{}", std::process::id()));
        let beside = BesideFile(PathBuf::from(beside));
        // Of a process with the same number that was killed.
        let _ = fs::remove_file(&beside.0);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.bind(&SockAddr::unix(&beside.0)?)?;
        // Nobody can connect before it listens.
        fs::set_permissions(&beside.0, Permissions::from_mode(0o600))?;
        socket.listen(BACKLOG)?;
        let made = fs::symlink_metadata(&beside.0)?;
        Ok(Self {
            identity: (made.dev(), made.ino()),
            listener: tokio::net::UnixListener::from_std(UnixListener::from(socket))?,
            path: path.to_owned(),
            beside,
        })
    }

    /// Moves it to the place of whatever is there.
    ///
    /// # Errors
    /// If the file can't be moved.
    pub fn put_in_place(self) -> Result<UpgradeSocket, UpgradeSocketError> {
        let moved = fs::rename(&self.beside.0, &self.path);
        moved.map_err(|source| UpgradeSocketError::File {
            path: self.path.clone(),
            source,
        })?;
        Ok(UpgradeSocket {
            listener: self.listener,
            path: self.path,
            identity: self.identity,
        })
    }
}

impl Drop for BesideFile {
    fn drop(&mut self) {
        // One that was moved is not there any more.
        let _ = fs::remove_file(&self.0);
    }
}

impl Drop for UpgradeSocket {
    fn drop(&mut self) {
        if self.is_in_place() {
            // A file that can't be removed is taken over by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_its_user_may_connect_and_the_file_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("upgrade.sock");
        let socket = UpgradeSocket::open(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let again = UpgradeSocket::open(&path);
        assert!(matches!(again, Err(UpgradeSocketError::InUse { .. })));
        drop(socket);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&path, "kept").unwrap();
        let over_a_file = UpgradeSocket::open(&path);
        assert!(matches!(
            over_a_file,
            Err(UpgradeSocketError::NoSocket { .. })
        ));
        assert_eq!(fs::read_to_string(&path).unwrap(), "kept");
        let nowhere = UpgradeSocket::open(&dir.path().join("none/upgrade.sock"));
        assert!(matches!(nowhere, Err(UpgradeSocketError::File { .. })));
    }

    #[tokio::test]
    async fn the_one_of_the_next_process_stays_when_this_one_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("upgrade.sock");
        let old = UpgradeSocket::open(&path).unwrap();
        let prepared = PreparedUpgradeSocket::beside(&path).unwrap();
        assert!(old.is_in_place());
        let new = prepared.put_in_place().unwrap();
        drop(old);
        assert!(UnixStream::connect(&path).is_ok());
        drop(new);
        assert!(!path.exists());
        // What a process that was killed has left.
        let left = UpgradeSocket::open(&path).unwrap();
        std::mem::forget(left.path.clone());
        let kept = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(kept, 1);
    }
}
