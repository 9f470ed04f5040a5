//! Opens the file. One that is damaged, or no database, is set aside and a new one begun:
//! a cache that can't be read is an empty cache, and no reason not to start.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Instant, SystemTime};

use redb::backends::FileBackend;
use redb::{Database, DatabaseError};
use tokio::sync::Notify;

use super::config;
use super::writer::Writer;
use super::{Disk, millis, tables};
use crate::cache::l2::store::Store;

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "cache.l2.disk.path: {path} is in use by another process: give each gateway a file of its own"
    )]
    InUse { path: PathBuf },
    #[error("cache.l2.disk.path: {path} can't be opened")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cache.l2.disk.path: {path} can't be used")]
    Database {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
}

/// The mode of the file: our user alone.
const PRIVATE: u32 = 0o600;

/// Memory for pages of the file.
const PAGES: usize = 32 << 20;

/// Opens the store.
///
/// # Errors
/// When the file is another process's, or can neither be read nor replaced.
pub fn open(config: &config::Disk) -> Result<Arc<dyn Store>, OpenError> {
    let path = &config.path;
    let database = match checked(path) {
        Ok(database) => database,
        Err(Unusable::InUse) => {
            return Err(OpenError::InUse { path: path.clone() });
        }
        Err(Unusable::File(source)) => {
            return Err(OpenError::File {
                path: path.clone(),
                source,
            });
        }
        Err(Unusable::Damaged(reason)) => {
            set_aside(path, &reason).map_err(|source| OpenError::File {
                path: path.clone(),
                source,
            })?;
            prepared(path).map_err(|source| OpenError::Database {
                path: path.clone(),
                source: Box::new(source),
            })?
        }
    };
    Ok(Arc::new(start(database, config)))
}

enum Unusable {
    InUse,
    File(io::Error),
    Damaged(String),
}

fn start(database: Database, config: &config::Disk) -> Disk {
    let database = Arc::new(database);
    let appended = Arc::new(Notify::new());
    let (commands, receiver) = mpsc::channel();
    let writer = Writer {
        database: Arc::clone(&database),
        commands: receiver,
        appended: Arc::clone(&appended),
        max_bytes: config.max_bytes.0,
        sync_interval: config.sync_interval.0,
        tombstones: Default::default(),
        next_note: 0,
        synced: Instant::now(),
        unsynced: false,
    };
    let thread = std::thread::Builder::new().name("l2-disk".into());
    if let Err(error) = thread.spawn(move || writer.run()) {
        // Every write is answered with an error then.
        tracing::error!(%error, "no thread for the second tier's writes");
    }
    Disk {
        database,
        commands: Mutex::new(commands),
        appended,
    }
}

/// The database, if it is sound.
fn checked(path: &Path) -> Result<Database, Unusable> {
    if let Some(folder) = path.parent() {
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        private.create(folder).map_err(Unusable::File)?;
    }
    // redb panics on some damage.
    let opened = std::panic::catch_unwind(|| prepared(path));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(redb::Error::DatabaseAlreadyOpen)) => Err(Unusable::InUse),
        Ok(Err(redb::Error::Io(error))) if is_of_the_file(&error) => Err(Unusable::File(error)),
        Ok(Err(other)) => Err(Unusable::Damaged(other.to_string())),
        Err(_) => Err(Unusable::Damaged("it can't be read".into())),
    }
}

/// Not what the file holds, but whether we may have it.
fn is_of_the_file(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    !matches!(
        error.kind(),
        Kind::InvalidData | Kind::UnexpectedEof | Kind::InvalidInput
    )
}

fn prepared(path: &Path) -> Result<Database, redb::Error> {
    let file = private_file(path).map_err(redb::Error::Io)?;
    let mut database = FileBackend::new(file)
        .and_then(|file| {
            let mut builder = Database::builder();
            builder.set_cache_size(PAGES).create_with_backend(file)
        })
        .map_err(|error: DatabaseError| redb::Error::from(error))?;
    // A process that was killed leaves a file whose pages were not all checked.
    if !database.check_integrity()? {
        tracing::info!(path = %path.display(), "the second tier's file was repaired");
    }
    let write = database.begin_write()?;
    tables::prepare(&write, generation())?;
    write.commit()?;
    Ok(database)
}

/// Opens or makes the file so that only our user may read it: it holds what clients were
/// answered. A file that others could read until now is closed to them.
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

/// A number that no other file has, and not 0.
fn generation() -> u64 {
    RandomState::new().hash_one(SystemTime::now()).max(1)
}

fn set_aside(path: &Path, reason: &str) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".damaged-{}", millis(SystemTime::now())));
    std::fs::rename(path, &name)?;
    tracing::warn!(
        file = %path.display(),
        kept = %PathBuf::from(&name).display(),
        reason,
        "the second tier's file is damaged or not ours; it was set aside and a new one begun"
    );
    Ok(())
}
