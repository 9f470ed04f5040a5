//! Whether the file may be believed at the next start: an empty file beside it says so.
//!
//! A purge that can't be written to a full disk must not be forgotten by a crash. Taking the
//! marker away needs no room, so it is taken away before such a purge is answered, and put back
//! once the purge is in the database. A database that was made with a marker and has none is
//! not believed.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::file::{PRIVATE, beside};

/// The marker of one database.
pub(super) struct TrustMarker {
    marker: PathBuf,
    withdrawn: TrustMarkerWithdrawal,
}

/// Whether this process took the marker away, and so knows what the database lacks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TrustMarkerWithdrawal {
    No,
    ByUs,
    /// We tried, and it was told that we can't.
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
            // It lacks more than we know.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(_) if self.withdrawn == TrustMarkerWithdrawal::Failed => {}
            Err(error) => {
                self.withdrawn = TrustMarkerWithdrawal::Failed;
                tracing::error!(
                    %error,
                    marker = %self.marker.display(),
                    "a purge can neither be written to the second tier's file nor be noted as \
                     missing: remove the file if this process ends before the disk works again"
                );
            }
        }
    }

    /// Notes that the database lacks nothing.
    ///
    /// # Errors
    /// When the marker can't be made.
    pub(super) fn grant(&mut self) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        options.mode(PRIVATE).open(&self.marker)?;
        self.withdrawn = TrustMarkerWithdrawal::No;
        self.sync_folder();
        Ok(())
    }

    /// A crash of the machine may lose the change else; one of the process does not.
    fn sync_folder(&self) {
        let folder = self.marker.parent().filter(|at| !at.as_os_str().is_empty());
        let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|at| at.sync_all());
        if let Err(error) = synced {
            tracing::debug!(%error, "the folder of the second tier's file can't be synced");
        }
    }
}
