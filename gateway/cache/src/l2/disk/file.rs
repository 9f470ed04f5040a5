//! The file of the database: opening it, checking it, beginning a new one, and whether its disk has
//! room.
//!
//! A file that is damaged, or that is not a database, is set aside and a new one is begun. A file
//! that lacks purges is removed. A cache that can't be read is an empty cache, and no reason not to
//! start.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use redb::backends::FileBackend;
use redb::{Database, DatabaseError};

use super::access::TimedDatabase;
use super::clock::DiskClock;
use super::trust::TrustMarker;
use super::{aside, tables};
use crate::record::ClockReading;

/// The mode of the files: only our user may read and write them.
pub(super) const PRIVATE: u32 = 0o600;
/// The memory for pages of the file, in bytes.
const PAGES: usize = 32 << 20;
/// If the disk accepts these bytes, it has room.
static ROOM: [u8; 256 << 10] = [0; 256 << 10];

/// The file, and whether it is trusted.
pub(super) struct DatabaseFile {
    path: PathBuf,
    pub(super) trust: TrustMarker,
}

/// Why it can't be opened.
#[derive(Debug)]
pub(super) enum DatabaseFileError {
    /// Another process has it open.
    InUse,
    /// The disk has no room.
    Full(io::Error),
    /// We have no right to it, or the disk fails.
    File(io::Error),
    Database(redb::Error),
}

/// The result of an attempt to open it.
enum OpenedDatabase {
    Sound(Database),
    /// It lacks purges that nobody knows any more.
    Distrusted,
    Damaged(String),
}

impl DatabaseFile {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            trust: TrustMarker::of(path),
        }
    }

    /// Opens the database after checking all of it; begins a new one if it is damaged or not
    /// trusted.
    ///
    /// # Errors
    /// See [`DatabaseFileError`].
    pub(super) fn open(&mut self) -> Result<TimedDatabase, DatabaseFileError> {
        Ok(timed(self.sound()?)?)
    }

    fn sound(&mut self) -> Result<Database, DatabaseFileError> {
        if let Some(folder) = self.path.parent() {
            let mut private = DirBuilder::new();
            private.recursive(true).mode(0o700);
            private.create(folder)?;
        }
        match self.examined()? {
            OpenedDatabase::Sound(database) => return Ok(database),
            OpenedDatabase::Distrusted => {
                std::fs::remove_file(&self.path)?;
                tracing::warn!(
                    file = %self.path.display(),
                    "purges could not be written to the second tier's file when its disk failed, \
                     so its content can't be trusted: the file was removed and a new one begun"
                );
            }
            OpenedDatabase::Damaged(reason) => aside::set_aside(&self.path, &reason)?,
        }
        Ok(self.prepared()?)
    }

    /// Opens the database as it is, for reading.
    ///
    /// # Errors
    /// When it can't be opened without a repair.
    pub(super) fn reopen(&self) -> Result<TimedDatabase, String> {
        // redb panics on some damage.
        match std::panic::catch_unwind(|| timed(database(&self.path)?)) {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(_) => Err("it can't be read".to_owned()),
        }
    }

    /// Checks whether the disk accepts writes, by writing a small file beside the database.
    ///
    /// # Errors
    /// The reason why it does not.
    pub(super) fn probe(&self) -> io::Result<()> {
        let path = beside(&self.path, ".probe");
        let written = private_file(&path).and_then(|mut file| {
            file.write_all(&ROOM)?;
            file.sync_all()
        });
        let removed = std::fs::remove_file(&path);
        written.and(removed)
    }

    /// Whether another process has it open.
    pub(super) fn is_in_use(&self) -> bool {
        let file = File::open(&self.path);
        // The lock that redb has on a file that is open; this one ends with the statement.
        file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    }

    /// The size of the file that was set aside.
    pub(super) fn bytes_aside(&self) -> u64 {
        aside::bytes(&self.path)
    }

    fn examined(&mut self) -> Result<OpenedDatabase, DatabaseFileError> {
        let prepared = std::panic::AssertUnwindSafe(|| self.prepared());
        match std::panic::catch_unwind(prepared) {
            Ok(Ok(_)) if self.trust.is_broken() => Ok(OpenedDatabase::Distrusted),
            Ok(Ok(database)) => Ok(OpenedDatabase::Sound(database)),
            Ok(Err(redb::Error::DatabaseAlreadyOpen)) => Err(DatabaseFileError::InUse),
            Ok(Err(redb::Error::Io(error))) if is_of_the_content(&error) => {
                Ok(OpenedDatabase::Damaged(error.to_string()))
            }
            Ok(Err(redb::Error::Io(error))) => Err(error.into()),
            Ok(Err(other)) => Ok(OpenedDatabase::Damaged(other.to_string())),
            Err(_) => Ok(OpenedDatabase::Damaged("it can't be read".into())),
        }
    }

    /// Opens the database and its tables. Nothing is written if all of them exist, so this works on
    /// a full disk.
    fn prepared(&mut self) -> Result<Database, redb::Error> {
        let mut database = database(&self.path)?;
        // A process that was killed leaves a file whose pages were not all checked.
        if !database.check_integrity()? {
            tracing::info!(path = %self.path.display(), "the second tier's file was repaired");
        }
        if !tables::is_marked(&database)? {
            self.trust.grant().map_err(redb::Error::Io)?;
            let write = database.begin_write()?;
            tables::prepare(&write, generation())?;
            write.commit()?;
        }
        Ok(database)
    }
}

fn database(path: &Path) -> Result<Database, redb::Error> {
    let file = private_file(path).map_err(redb::Error::Io)?;
    FileBackend::new(file)
        .and_then(|file| {
            let mut builder = Database::builder();
            builder.set_cache_size(PAGES).create_with_backend(file)
        })
        .map_err(|error: DatabaseError| redb::Error::from(error))
}

fn timed(database: Database) -> Result<TimedDatabase, redb::Error> {
    let kept = tables::kept_time(&database)?;
    Ok(TimedDatabase {
        database,
        clock: DiskClock::resume(kept, &ClockReading::now()),
    })
}

/// Opens or creates a file that only our user can read, because it contains responses to clients.
/// If others could read the file until now, this is changed.
fn private_file(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(PRIVATE).open(path)?;
    let metadata = file.metadata()?;
    if metadata.is_file() && metadata.permissions().mode() & 0o077 != 0 {
        file.set_permissions(Permissions::from_mode(PRIVATE))?;
    }
    Ok(file)
}

/// The path with `end` appended.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    PathBuf::from(name)
}

/// A number that no other file has; never 0.
fn generation() -> u64 {
    RandomState::new().hash_one(SystemTime::now()).max(1)
}

/// Whether the cause is the content of the file, and not the disk or missing rights.
fn is_of_the_content(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::InvalidData | Kind::UnexpectedEof | Kind::InvalidInput
    )
}

/// Whether the disk, or our share of it, is full.
pub(super) fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge
    )
}

impl From<io::Error> for DatabaseFileError {
    fn from(error: io::Error) -> Self {
        match is_full(&error) {
            true => Self::Full(error),
            false => Self::File(error),
        }
    }
}

impl From<redb::Error> for DatabaseFileError {
    fn from(error: redb::Error) -> Self {
        match error {
            redb::Error::Io(error) => error.into(),
            other => Self::Database(other),
        }
    }
}
