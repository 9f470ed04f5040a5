//! Whether the database file may be trusted at the next start: an empty file beside it says so.
//!
//! A purge that can't be written to a full disk must not be forgotten by a crash. Removing the
//! marker needs no room, so it is removed before such a purge is answered, and created again once
//! the purge is in the database. A database that was made with a marker and has none is not
//! trusted.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::file::{PRIVATE, beside};

/// The marker file of one database.
pub(super) struct TrustMarker {
    marker: PathBuf,
    withdrawn: TrustMarkerWithdrawal,
}

/// Whether this process removed the marker and so knows what the database lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TrustMarkerWithdrawal {
    No,
    ByUs,
    /// The removal failed, and that was logged.
    Failed,
}

impl TrustMarker {
    pub(super) fn of(database: &Path) -> Self {
        Self {
            marker: beside(database, ".trusted"),
            withdrawn: TrustMarkerWithdrawal::No,
        }
    }

    /// Whether the database lacks purges that nobody knows any more.
    pub(super) fn is_broken(&self) -> bool {
        self.withdrawn != TrustMarkerWithdrawal::ByUs && !self.marker.exists()
    }

    /// Notes that the database lacks a purge that this process knows.
    pub(super) fn withdraw(&mut self) {
        if self.withdrawn == TrustMarkerWithdrawal::ByUs {
            return;
        }
        match std::fs::remove_file(&self.marker) {
            Ok(()) => {
                self.withdrawn = TrustMarkerWithdrawal::ByUs;
                self.sync_folder();
            }
            // The database lacks more than we know.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) if self.withdrawn == TrustMarkerWithdrawal::Failed => {}
            Err(error) => {
                self.withdrawn = TrustMarkerWithdrawal::Failed;
                tracing::error!(
                    %error,
                    marker = %self.marker.display(),
                    "a purge can neither be written to the second tier's file nor be noted as \
                     missing: if this process ends before the disk works again, remove the file, \
                     or purged content may be served"
                );
            }
        }
    }

    /// Notes that the database lacks nothing.
    ///
    /// # Errors
    /// When the marker can't be created.
    pub(super) fn grant(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        options.mode(PRIVATE).open(&self.marker)?;
        self.withdrawn = TrustMarkerWithdrawal::No;
        self.sync_folder();
        Ok(())
    }

    /// Otherwise a crash of the machine could lose the change; a crash of the process does not.
    fn sync_folder(&self) {
        let folder = self.marker.parent().filter(|at| !at.as_os_str().is_empty());
        let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|at| at.sync_all());
        if let Err(error) = synced {
            tracing::debug!(%error, "the folder of the second tier's file can't be synced");
        }
    }
}
