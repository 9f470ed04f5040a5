//! Sets the store to work: at once, or, where the disk has no room, as soon as it has some.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};

use tokio::sync::{Notify, watch};

use super::access::Access;
use super::file::{DatabaseFile, Unusable};
use super::writer::{Setting, Writer};
use super::{Disk, config, io_failed};
use crate::l2::store::{Store, StoreError};

/// Why there is no store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
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

/// Opens the store. On a full disk it begins to work when there is room.
///
/// # Errors
/// When the file is another process's, or can neither be read nor replaced.
pub fn open(config: &config::Disk) -> Result<Arc<dyn Store>, OpenError> {
    let mut file = DatabaseFile::new(&config.path);
    let (access, outage) = match file.open() {
        Ok(database) => (Access::open(database), None),
        Err(Unusable::Full(error)) => {
            let why = io_failed(&error);
            (Access::shut(why.clone()), Some(why))
        }
        Err(other) => return Err(OpenError::of(other, &config.path)),
    };
    Ok(Arc::new(start(file, access, outage, config)))
}

fn start(
    file: DatabaseFile,
    access: Access,
    outage: Option<StoreError>,
    config: &config::Disk,
) -> Disk {
    let access = Arc::new(access);
    let appended = Arc::new(Notify::new());
    let (commands, receiver) = mpsc::channel();
    let (trouble, writes) = watch::channel(outage.clone());
    let setting = Setting {
        // What was set aside counts, but the tier keeps half of its room in any case.
        max_bytes: (config.max_bytes.0 - file.bytes_aside().min(config.max_bytes.0 / 2)),
        sync_interval: config.sync_interval.0,
        access: Arc::clone(&access),
        appended: Arc::clone(&appended),
        commands: receiver,
        trouble,
    };
    let writer = Writer::new(file, setting, outage);
    let thread = std::thread::Builder::new().name("l2-disk".into());
    if let Err(error) = thread.spawn(move || writer.run()) {
        // Every write is answered with an error then.
        tracing::error!(%error, "no thread for the second tier's writes");
    }
    Disk {
        access,
        commands: Mutex::new(commands),
        appended,
        writes,
    }
}

impl OpenError {
    fn of(unusable: Unusable, path: &Path) -> Self {
        let path = path.to_owned();
        match unusable {
            Unusable::InUse => Self::InUse { path },
            Unusable::File(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
                Self::ReadOnly { path }
            }
            Unusable::Full(source) | Unusable::File(source) => Self::File { path, source },
            Unusable::Database(source) => Self::Database {
                path,
                source: Box::new(source),
            },
        }
    }
}
