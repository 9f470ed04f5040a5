//! A folder as the storage, which nodes may share.
//!
//! Decision: a record is written beside its place, brought to the disk and renamed over it, so that
//! nobody ever reads half of one. A lease is a file that is made only if there is none (O_EXCL);
//! its owner writes a growing number into it. Clocks of machines are not compared: a lease is over
//! when an observer has seen no change for as long as it holds, by its own clock, or at once when
//! its owner was a process of this machine that is gone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::{HashMap, HashMapExt};
use futures_util::FutureExt;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    AcmeLease, AcmeRecordKey, AcmeRecordKind, AcmeStorage, AcmeStorageError, AcmeStored, new_token,
    stem,
};

/// The most octets of a record. A larger file is none.
const MOST_OCTETS: u64 = 1 << 20;

/// Challenges that are older than this are left over.
const CHALLENGE_LIFE: Duration = Duration::from_secs(3_600);

/// The folder of the leases.
const LEASES: &str = "leases";

/// A folder with the records.
#[derive(Clone)]
pub struct AcmeFolder(Arc<FolderState>);

struct FolderState {
    root: PathBuf,
    /// Leases of others by name: what was seen, and since when.
    observed: Mutex<HashMap<String, (HeldLock, Instant)>>,
}

/// What stands in the file of a lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct HeldLock {
    number: u64,
    token: String,
    /// Grows with each renewal.
    beat: u64,
    process: LockOwner,
}

/// The process that holds a lease.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
struct LockOwner {
    /// Which machine since its last start, and which processes can be seen from there.
    machine: String,
    id: u32,
}

impl LockOwner {
    fn of_this_process() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let space = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Self {
            machine: format!("{} {}", boot.trim(), space.display()),
            id: std::process::id(),
        }
    }

    /// Whether it is known that the process has ended.
    fn has_ended(&self) -> bool {
        let this = Self::of_this_process();
        let is_near = self.machine == this.machine && this.machine.len() > 1;
        is_near && !Path::new("/proc").join(self.id.to_string()).exists()
    }
}

impl AcmeFolder {
    /// Makes the folder if it is not there.
    ///
    /// # Errors
    /// If that is not possible, or others have rights to it.
    pub fn open(root: &Path) -> Result<Self, AcmeStorageError> {
        let folders = AcmeRecordKind::ALL.iter().map(|kind| kind.as_str());
        let made = std::iter::once("")
            .chain(folders)
            .chain([LEASES])
            .try_for_each(|name| make_folder(&root.join(name)));
        made.map_err(|error| unusable(root, &error))?;
        let mode = fs::metadata(root).map(|found| found.mode() & 0o077);
        match mode.map_err(|error| unusable(root, &error))? {
            0 => {}
            _ => {
                let reason = format!(
                    "{}: others than its owner have rights to it; expected mode 0700, as of `chmod 700`",
                    root.display()
                );
                return Err(AcmeStorageError::Unusable(reason));
            }
        }
        let folder = Self(Arc::new(FolderState {
            root: root.to_owned(),
            observed: Mutex::new(HashMap::new()),
        }));
        folder.0.remove_leftovers();
        Ok(folder)
    }

    /// Does work that may block away from the threads that serve.
    fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&FolderState) -> Result<T, AcmeStorageError> + Send + 'static,
    ) -> AcmeStored<'static, T> {
        let state = Arc::clone(&self.0);
        async move {
            let done = tokio::task::spawn_blocking(move || work(&state)).await;
            done.unwrap_or_else(|error| Err(AcmeStorageError::Unusable(error.to_string())))
        }
        .boxed()
    }
}

impl AcmeStorage for AcmeFolder {
    fn is_shared(&self) -> bool {
        true
    }

    fn read<'a>(&'a self, key: &'a AcmeRecordKey) -> AcmeStored<'a, Option<Vec<u8>>> {
        let key = key.clone();
        self.run(move |state| state.read(&state.path(&key)))
    }

    fn write<'a>(
        &'a self,
        key: &'a AcmeRecordKey,
        record: Vec<u8>,
        _life: Option<Duration>,
        lease: Option<&'a AcmeLease>,
    ) -> AcmeStored<'a, ()> {
        let (key, lease) = (key.clone(), lease.cloned());
        self.run(move |state| {
            if lease.is_some_and(|lease| !state.holds(&lease)) {
                return Err(AcmeStorageError::LeaseLost);
            }
            state.write(&state.path(&key), &record)
        })
    }

    fn remove<'a>(&'a self, key: &'a AcmeRecordKey) -> AcmeStored<'a, ()> {
        let key = key.clone();
        self.run(move |state| state.remove(&state.path(&key)))
    }

    fn version(&self) -> AcmeStored<'_, Vec<u8>> {
        self.run(FolderState::version)
    }

    fn acquire<'a>(&'a self, name: &'a str, life: Duration) -> AcmeStored<'a, Option<AcmeLease>> {
        let name = name.to_owned();
        self.run(move |state| state.acquire(name, life))
    }

    fn renew<'a>(&'a self, lease: &'a AcmeLease, _life: Duration) -> AcmeStored<'a, bool> {
        let lease = lease.clone();
        self.run(move |state| state.renew(&lease))
    }

    fn release<'a>(&'a self, lease: &'a AcmeLease) -> AcmeStored<'a, ()> {
        let lease = lease.clone();
        self.run(move |state| match state.holds(&lease) {
            true => state.remove(&state.lock(&lease.name)),
            false => Ok(()),
        })
    }
}

impl FolderState {
    fn path(&self, key: &AcmeRecordKey) -> PathBuf {
        self.root.join(format!("{key}.json"))
    }

    fn lock(&self, name: &str) -> PathBuf {
        self.root.join(LEASES).join(format!("{}.lock", stem(name)))
    }

    fn read(&self, path: &Path) -> Result<Option<Vec<u8>>, AcmeStorageError> {
        let mut octets = Vec::new();
        let read =
            File::open(path).and_then(|file| file.take(MOST_OCTETS).read_to_end(&mut octets));
        match read {
            Ok(_) => Ok(Some(octets)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(path, &error)),
        }
    }

    fn write(&self, path: &Path, octets: &[u8]) -> Result<(), AcmeStorageError> {
        let beside = path.with_extension(format!("{}.new", new_token()?));
        let written = create(&beside)
            .and_then(|mut file| {
                file.write_all(octets)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&beside, path))
            .and_then(|()| sync_folder_of(path));
        written.map_err(|error| {
            // The error that is told is the first one.
            let _ = fs::remove_file(&beside);
            unusable(path, &error)
        })
    }

    fn remove(&self, path: &Path) -> Result<(), AcmeStorageError> {
        match fs::remove_file(path) {
            Ok(()) => sync_folder_of(path).map_err(|error| unusable(path, &error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(unusable(path, &error)),
        }
    }

    /// What a rename into a watched folder changes.
    fn version(&self) -> Result<Vec<u8>, AcmeStorageError> {
        let watched = AcmeRecordKind::ALL.iter().filter(|kind| kind.is_watched());
        let mut version = Vec::new();
        for kind in watched {
            let path = self.root.join(kind.as_str());
            let found = fs::metadata(&path).map_err(|error| unusable(&path, &error))?;
            version.extend(found.mtime().to_be_bytes());
            version.extend(found.mtime_nsec().to_be_bytes());
        }
        Ok(version)
    }

    /// Removes answers to challenges that a process which has ended has left.
    fn remove_leftovers(&self) {
        let folder = self.root.join(AcmeRecordKind::Challenge.as_str());
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let changed = entry.metadata().and_then(|found| found.modified());
            let age = changed.ok().and_then(|changed| changed.elapsed().ok());
            if age.is_some_and(|age| age > CHALLENGE_LIFE) {
                // One that remains does no harm, and is tried again at the next start.
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn held(&self, name: &str) -> Result<Option<HeldLock>, AcmeStorageError> {
        let octets = self.read(&self.lock(name))?;
        Ok(octets.map(|octets| {
            // One that is only just being written can't be read yet, and is watched like any other.
            serde_json::from_slice(&octets).unwrap_or_else(|_| HeldLock::unreadable())
        }))
    }

    fn holds(&self, lease: &AcmeLease) -> bool {
        let held = self.held(&lease.name);
        held.is_ok_and(|held| held.is_some_and(|held| held.token == lease.token))
    }

    fn acquire(&self, name: String, life: Duration) -> Result<Option<AcmeLease>, AcmeStorageError> {
        let held = self.held(&name)?;
        let number = match &held {
            None => 0,
            Some(held) if self.is_over(&name, held, life) => {
                if !self.take_away(&name, held)? {
                    return Ok(None);
                }
                held.number
            }
            Some(_) => return Ok(None),
        };
        let lease = AcmeLease {
            name,
            number: number + 1,
            token: new_token()?,
        };
        let path = self.lock(&lease.name);
        let text = HeldLock::of(&lease, 0).text();
        let made = create(&path).and_then(|mut file| file.write_all(&text));
        match made {
            Ok(()) => {
                self.observed.lock().remove(&lease.name);
                Ok(Some(lease))
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(None),
            Err(error) => Err(unusable(&path, &error)),
        }
    }

    /// Whether a lease of somebody else has ended.
    fn is_over(&self, name: &str, held: &HeldLock, life: Duration) -> bool {
        if held.process.has_ended() {
            return true;
        }
        let mut observed = self.observed.lock();
        match observed.get(name) {
            Some((seen, since)) if seen == held => since.elapsed() >= life,
            _ => {
                observed.insert(name.to_owned(), (held.clone(), Instant::now()));
                false
            }
        }
    }

    /// Takes away a lease that is over. Returns false if it was another one by then, which is put
    /// back.
    fn take_away(&self, name: &str, over: &HeldLock) -> Result<bool, AcmeStorageError> {
        let path = self.lock(name);
        let aside = path.with_extension(format!("{}.over", new_token()?));
        match fs::rename(&path, &aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(unusable(&path, &error)),
        }
        let taken = self.read(&aside)?.unwrap_or_default();
        let taken = serde_json::from_slice::<HeldLock>(&taken);
        let is_right = taken.unwrap_or_else(|_| HeldLock::unreadable()) == *over;
        if !is_right {
            // Fails if there is a newer one already, whose owner has the lease then.
            let _ = fs::hard_link(&aside, &path);
        }
        fs::remove_file(&aside).map_err(|error| unusable(&aside, &error))?;
        Ok(is_right)
    }

    fn renew(&self, lease: &AcmeLease) -> Result<bool, AcmeStorageError> {
        match self.held(&lease.name)? {
            Some(held) if held.token == lease.token => {
                let text = HeldLock::of(lease, held.beat + 1).text();
                self.write(&self.lock(&lease.name), &text)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }
}

impl HeldLock {
    fn of(lease: &AcmeLease, beat: u64) -> Self {
        Self {
            number: lease.number,
            token: lease.token.clone(),
            beat,
            process: LockOwner::of_this_process(),
        }
    }

    fn unreadable() -> Self {
        Self {
            number: 0,
            token: String::new(),
            beat: 0,
            process: LockOwner {
                machine: String::new(),
                id: 0,
            },
        }
    }

    fn text(&self) -> Vec<u8> {
        // Numbers and texts can always be written as JSON.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700).create(path)
}

/// A new file, which only its owner has rights to.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn unusable(path: &Path, error: &io::Error) -> AcmeStorageError {
    AcmeStorageError::Unusable(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const LONG: Duration = Duration::from_secs(3_600);

    fn folder() -> (tempfile::TempDir, AcmeFolder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = AcmeFolder::open(&dir.path().join("acme")).unwrap();
        (dir, folder)
    }

    fn certificate(name: &str) -> AcmeRecordKey {
        AcmeRecordKey::new(AcmeRecordKind::Certificate, name)
    }

    #[tokio::test]
    async fn what_is_written_is_read_and_only_its_owner_may_read_it() {
        let (dir, folder) = folder();
        let key = certificate("le a.example *.b.example");
        assert_eq!(folder.read(&key).await, Ok(None));
        let before = folder.version().await.unwrap();
        folder
            .write(&key, b"one".to_vec(), None, None)
            .await
            .unwrap();
        assert_ne!(folder.version().await.unwrap(), before);
        assert_eq!(folder.read(&key).await.unwrap().unwrap(), b"one");
        let path = dir.path().join("acme").join(format!("{key}.json"));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        assert_eq!(mode(&dir.path().join("acme")), 0o700);
        folder.remove(&key).await.unwrap();
        assert_eq!(folder.read(&key).await, Ok(None));
    }

    #[test]
    fn a_folder_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = AcmeFolder::open(dir.path()).err().unwrap().to_string();
        assert!(error.contains("expected mode 0700"), "{error}");
    }

    #[tokio::test]
    async fn a_lease_has_one_owner_and_a_former_one_writes_nothing() {
        let (dir, folder) = folder();
        let other = AcmeFolder::open(&dir.path().join("acme")).unwrap();
        let lease = folder.acquire("c", LONG).await.unwrap().unwrap();
        assert_eq!(other.acquire("c", LONG).await, Ok(None));
        assert_eq!(folder.renew(&lease, LONG).await, Ok(true));
        // It has changed, so that its time begins anew.
        assert_eq!(other.acquire("c", Duration::ZERO).await, Ok(None));
        let taken = other.acquire("c", Duration::ZERO).await.unwrap().unwrap();
        assert_eq!(taken.number, lease.number + 1);
        assert_eq!(folder.renew(&lease, LONG).await, Ok(false));
        let key = certificate("c");
        let late = folder.write(&key, b"late".to_vec(), None, Some(&lease));
        assert_eq!(late.await, Err(AcmeStorageError::LeaseLost));
        folder.release(&lease).await.unwrap();
        let right = other.write(&key, b"right".to_vec(), None, Some(&taken));
        assert_eq!(right.await, Ok(()));
        other.release(&taken).await.unwrap();
        assert!(folder.acquire("c", LONG).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn the_lease_of_a_process_that_has_ended_is_free_at_once() {
        let (_dir, folder) = folder();
        let lease = folder.acquire("c", LONG).await.unwrap().unwrap();
        let mut held = HeldLock::of(&lease, 0);
        // No process has this number: it is above what Linux gives out.
        held.process.id = u32::MAX;
        fs::write(folder.0.lock("c"), held.text()).unwrap();
        assert!(folder.acquire("c", LONG).await.unwrap().is_some());
    }
}
