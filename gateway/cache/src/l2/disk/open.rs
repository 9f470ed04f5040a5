//! Starts the store: at once, or as soon as a full disk has room.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::{Notify, watch};

use super::access::DatabaseAccess;
use super::file::{DatabaseFile, DatabaseFileError};
use super::writer::{DiskWriter, DiskWriterSettings, unusable};
use super::{DiskStore, config, io_failed};
use crate::l2::description::StoreOwnerBefore;
use crate::l2::store::{Store, StoreError};

/// Why the store can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum DiskStoreOpenError {
    #[error(
        "cache.l2.disk.path: {path} is in use by another process: give each gateway a file of its own"
    )]
    InUse { path: PathBuf },
    #[error(
        "cache.l2.disk.path: {path} is on a read-only file system: name a file on one that can be written, or mount it so"
    )]
    ReadOnly { path: PathBuf },
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

/// Opens the store. On a full disk it starts to work when there is room; where a process has the
/// file whose place this one takes, when that has closed it.
///
/// # Errors
/// When another process uses the file, or when it can neither be read nor replaced.
pub fn open(
    config: &config::DiskTierConfig,
    before: StoreOwnerBefore,
) -> Result<Arc<dyn Store>, DiskStoreOpenError> {
    let mut file = DatabaseFile::new(&config.path);
    let (access, outage) = match file.open() {
        Ok(database) => (DatabaseAccess::open(database), None),
        Err(DatabaseFileError::Full(error)) => {
            let why = io_failed(&error);
            (DatabaseAccess::shut(why.clone()), Some(why))
        }
        Err(DatabaseFileError::InUse) if before == StoreOwnerBefore::ReplacedProcess => {
            let why = unusable(DatabaseFileError::InUse);
            (DatabaseAccess::held_by_predecessor(why.clone()), Some(why))
        }
        Err(other) => return Err(DiskStoreOpenError::of(other, &config.path)),
    };
    Ok(Arc::new(start(file, access, outage, config)))
}

fn start(
    file: DatabaseFile,
    access: DatabaseAccess,
    outage: Option<StoreError>,
    config: &config::DiskTierConfig,
) -> DiskStore {
    let access = Arc::new(access);
    let appended = Arc::new(Notify::new());
    let (commands, receiver) = mpsc::channel();
    let (trouble, writes) = watch::channel(outage.clone());
    let setting = DiskWriterSettings {
        // A file that was set aside counts, but the tier always keeps at least half of its space.
        max_bytes: (config.max_bytes.0 - file.bytes_aside().min(config.max_bytes.0 / 2)),
        sync_interval: config.sync_interval.0,
        access: Arc::clone(&access),
        appended: Arc::clone(&appended),
        commands: receiver,
        trouble,
    };
    let writer = DiskWriter::new(file, setting, outage);
    let thread = std::thread::Builder::new().name("l2-disk".into());
    if let Err(error) = thread.spawn(move || writer.run()) {
        // Without the thread, every write is answered with an error.
        tracing::error!(
            %error,
            "the thread that writes to the second tier's file could not be started"
        );
    }
    DiskStore {
        access,
        commands: Mutex::new(commands),
        appended,
        writes,
    }
}

impl DiskStoreOpenError {
    fn of(unusable: DatabaseFileError, path: &Path) -> Self {
        let path = path.to_owned();
        match unusable {
            DatabaseFileError::InUse => Self::InUse { path },
            DatabaseFileError::File(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path }
            }
            DatabaseFileError::Full(source) | DatabaseFileError::File(source) => {
                Self::File { path, source }
            }
            DatabaseFileError::Database(source) => Self::Database {
                path,
                source: Box::new(source),
            },
        }
    }
}
