//! The file of hot keys: its form, reading it and replacing it.
//!
//! | bytes | |
//! |---|---|
//! | `LAMWARM`, version | which file it is |
//! | 8 | the life of the process that it belongs to |
//! | any | records, in the form of the second tier, each sealed to its key |
//! | any | the index, in msgpack: the keys, the hottest first, and where their records are |
//! | 8, 8, 16 | the length of the index, that of the whole file, a seal over all but the records |
//!
//! Invariant: a file replaces another one whole, by a rename. Invariant: whoever begins takes the
//! file over before it uses a record, by a file without records; so records are used once, and a
//! process that died cannot bring them back. Invariant: nobody writes into the file of a process
//! that took it over later, and a file that is none of ours is left alone.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_bytes::Bytes as Bin;

use crate::key::{EntryKey, PurgeHash, StoredKeyFields};
use crate::record::{SEAL, Seal};

/// The beginning of the file; a version follows.
const MAGIC: &[u8; 7] = b"LAMWARM";
const VERSION: u8 = 1;
/// Magic, version and life.
const HEAD: usize = 16;
/// Two lengths and the seal.
const FOOT: usize = 16 + SEAL;
/// The largest index that is read or written.
const MAX_INDEX: usize = 64 << 20;
/// A longer key is not worth its place.
const MAX_KEY: usize = 8 << 10;
/// The most keys of a file.
pub const MOST_KEYS: usize = 1_000_000;
/// What the index is sealed to, in place of a key.
const SEALED_TO: &[u8] = b"lamina warm index";
/// Only our user may read and write it: it holds responses to clients.
const PRIVATE: u32 = 0o600;

/// A key that was asked for often.
#[derive(Clone, PartialEq, Debug)]
pub struct HotKey {
    pub key: EntryKey,
    /// Stands for its URL.
    pub identity: PurgeHash,
    /// For people.
    pub url: Box<str>,
    pub uses: u32,
    /// Where its record is. None: the file has none.
    record: Option<RecordSpan>,
}

/// The place of a record in the file.
#[derive(Clone, Copy, PartialEq, Debug)]
struct RecordSpan {
    at: u64,
    length: u32,
}

/// A file that was read.
pub struct WarmFile {
    file: File,
    /// The hottest first.
    pub keys: Vec<HotKey>,
}

/// Why a file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum WarmFileFault {
    #[error("it is not a file of hot keys of this program")]
    Foreign,
    #[error("its version is {0}; this program reads {VERSION}")]
    Version(u8),
    #[error("another user owns it or may write to it")]
    Writable,
    #[error("it is truncated")]
    Truncated,
    #[error("its seal is not valid: it is damaged, or sealed with another seal_key, or forged")]
    Seal,
    #[error("its content does not have the form of hot keys")]
    Form,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a file is not replaced.
#[derive(Debug, thiserror::Error)]
pub enum WarmWriteError {
    #[error("the file that is there is not one of hot keys; name another file, or remove it")]
    Foreign,
    #[error("another process has taken the file over")]
    TakenOver,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What was written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WarmFileSize {
    pub keys: usize,
    pub records: usize,
    pub bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct PackedHotKey<'a> {
    #[serde(borrow)]
    key: &'a Bin,
    identity: u64,
    url: &'a str,
    uses: u32,
    at: u64,
    length: u32,
}

impl HotKey {
    /// A key without a record. None: it is too long.
    pub fn new(key: EntryKey, identity: PurgeHash, url: &str, uses: u32) -> Option<Self> {
        let fits = key.as_bytes().len() + url.len() <= MAX_KEY;
        fits.then(|| Self {
            key,
            identity,
            url: url.into(),
            uses,
            record: None,
        })
    }

    /// The key without the variant.
    pub fn primary(&self) -> EntryKey {
        let fields = StoredKeyFields::read(self.key.as_bytes());
        fields.map_or_else(
            || self.key.clone(),
            |fields| match fields.primary.len() == self.key.as_bytes().len() {
                true => self.key.clone(),
                false => EntryKey::of(fields.primary),
            },
        )
    }

    /// Whether the file has its record.
    pub fn has_record(&self) -> bool {
        self.record.is_some()
    }

    fn without_record(&self) -> Self {
        Self {
            record: None,
            ..self.clone()
        }
    }
}

impl WarmFile {
    /// Reads the keys. None: there is no file, or an empty one.
    ///
    /// # Errors
    /// Why the file can't be used.
    pub fn open(path: &Path, seal: &Seal) -> Result<Option<Self>, WarmFileFault> {
        let file = match open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?.ok_or(WarmFileFault::Foreign)?,
        };
        let metadata = file.metadata()?;
        let size = metadata.len();
        if size == 0 {
            return Ok(None);
        }
        let head = read(&file, 0, HEAD.min(usize::try_from(size).unwrap_or(HEAD)))?;
        match head.get(..MAGIC.len()) {
            Some(magic) if magic == MAGIC => {}
            _ => return Err(WarmFileFault::Foreign),
        }
        match head.get(MAGIC.len()) {
            Some(&VERSION) => {}
            Some(&other) => return Err(WarmFileFault::Version(other)),
            None => return Err(WarmFileFault::Truncated),
        }
        let own = rustix::process::geteuid().as_raw();
        if (metadata.uid() != own && metadata.uid() != 0) || metadata.mode() & 0o022 != 0 {
            return Err(WarmFileFault::Writable);
        }
        let keys = index(&file, size, &head, seal)?;
        Ok(Some(Self { file, keys }))
    }

    /// The record of a key. None: the file has none.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn record(&self, key: &HotKey) -> io::Result<Option<Bytes>> {
        let Some(RecordSpan { at, length }) = key.record else {
            return Ok(None);
        };
        Ok(Some(read(&self.file, at, length as usize)?.into()))
    }

    /// Leaves the records out: they may not be used.
    pub fn without_records(mut self) -> Self {
        for key in &mut self.keys {
            key.record = None;
        }
        self
    }
}

/// None: it is no file. Whoever opened a pipe would wait for its writer.
fn open(path: &Path) -> io::Result<Option<File>> {
    match std::fs::metadata(path)?.is_file() {
        true => File::open(path).map(Some),
        false => Ok(None),
    }
}

fn read(file: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes)
}

fn index(file: &File, size: u64, head: &[u8], seal: &Seal) -> Result<Vec<HotKey>, WarmFileFault> {
    let beside = (HEAD + FOOT) as u64;
    let Some(rest) = size.checked_sub(beside) else {
        return Err(WarmFileFault::Truncated);
    };
    let foot = read(file, size - FOOT as u64, FOOT)?;
    let (lengths, given) = foot.split_at(16);
    let number = |at: usize| u64::from_be_bytes(std::array::from_fn(|i| lengths[at + i]));
    let (length, whole) = (number(0), number(8));
    if whole != size || length > rest {
        return Err(WarmFileFault::Truncated);
    }
    let length = usize::try_from(length).ok();
    let length = length.filter(|length| *length <= MAX_INDEX);
    let length = length.ok_or(WarmFileFault::Form)?;
    let at = size - (FOOT + length) as u64;
    let packed = read(file, at, length)?;
    let sealed = [head, &packed, lengths].concat();
    if !seal.holds(SEALED_TO, &sealed, given) {
        return Err(WarmFileFault::Seal);
    }
    let keys: Vec<PackedHotKey<'_>> =
        rmp_serde::from_slice(&packed).map_err(|_| WarmFileFault::Form)?;
    if keys.len() > MOST_KEYS {
        return Err(WarmFileFault::Form);
    }
    let unpacked = keys.into_iter().map(|packed| {
        let end = packed.at.checked_add(packed.length.into());
        let inside = end.is_some_and(|end| end <= at) && packed.at >= HEAD as u64;
        let known = HotKey::new(
            EntryKey::of(packed.key),
            packed.identity,
            packed.url,
            packed.uses,
        )?;
        let record = (packed.length > 0).then_some(RecordSpan {
            at: packed.at,
            length: packed.length,
        });
        (record.is_none() || inside).then_some(HotKey { record, ..known })
    });
    let unpacked: Option<Vec<HotKey>> = unpacked.collect();
    unpacked.ok_or(WarmFileFault::Form)
}

/// The right of one process to replace a file.
pub struct WarmFileOwner {
    pub path: PathBuf,
    life: u64,
    seal: Seal,
}

/// What a process found when it took a file over.
pub struct WarmFileTakeOver {
    pub owner: WarmFileOwner,
    pub found: Option<WarmFile>,
    /// What is wrong with the file that was there.
    pub fault: Option<WarmFileFault>,
    /// Why it could not be taken over, so that its records are not used.
    pub kept: Option<WarmWriteError>,
}

/// Who may be replaced.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ReplacedOwner {
    /// Whoever it belonged to.
    Anybody,
    ThisProcess,
}

impl WarmFileOwner {
    /// Reads a file, and makes it that of this process: what it says of keys stays, its records are
    /// gone.
    pub fn take_over(path: &Path, life: u64, seal: &Seal) -> WarmFileTakeOver {
        let owner = Self {
            path: path.to_owned(),
            life,
            seal: seal.clone(),
        };
        let (found, fault) = match WarmFile::open(path, seal) {
            Ok(found) => (found, None),
            Err(fault) => (None, Some(fault)),
        };
        let keys = found.iter().flat_map(|found| &found.keys);
        let keys = keys.map(|key| (key.without_record(), None));
        let taken = owner.replace(keys, ReplacedOwner::Anybody);
        let synced = taken.and_then(|_| Ok(owner.sync()?));
        let kept = synced.err();
        let found = match kept {
            None => found,
            Some(_) => found.map(WarmFile::without_records),
        };
        WarmFileTakeOver {
            owner,
            found,
            fault,
            kept,
        }
    }

    /// Replaces the file by one with these keys and records.
    ///
    /// # Errors
    /// Why it stays.
    pub fn write(
        &self,
        keys: impl Iterator<Item = (HotKey, Option<Bytes>)>,
    ) -> Result<WarmFileSize, WarmWriteError> {
        self.replace(keys, ReplacedOwner::ThisProcess)
    }

    fn replace(
        &self,
        keys: impl Iterator<Item = (HotKey, Option<Bytes>)>,
        replaced: ReplacedOwner,
    ) -> Result<WarmFileSize, WarmWriteError> {
        self.may_replace(replaced)?;
        let mut name = self.path.as_os_str().to_owned();
        name.push(".new");
        let unfinished = PathBuf::from(name);
        let written = self.write_to(&unfinished, keys);
        let renamed = written.and_then(|size| {
            self.may_replace(replaced)?;
            std::fs::rename(&unfinished, &self.path)?;
            Ok(size)
        });
        if renamed.is_err() {
            // Nothing may be left of it on a full disk.
            let _ = std::fs::remove_file(&unfinished);
        }
        renamed
    }

    /// Whether the file that is there may be replaced.
    fn may_replace(&self, replaced: ReplacedOwner) -> Result<(), WarmWriteError> {
        let mut there = match open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?.ok_or(WarmWriteError::Foreign)?,
        };
        let mut head = Vec::new();
        Read::by_ref(&mut there)
            .take(HEAD as u64)
            .read_to_end(&mut head)?;
        let magic = head.len().min(MAGIC.len());
        if head[..magic] != MAGIC[..magic] {
            return Err(WarmWriteError::Foreign);
        }
        match replaced {
            ReplacedOwner::Anybody => Ok(()),
            ReplacedOwner::ThisProcess if head.is_empty() || head == self.head() => Ok(()),
            ReplacedOwner::ThisProcess => Err(WarmWriteError::TakenOver),
        }
    }

    fn head(&self) -> [u8; HEAD] {
        let mut head = [VERSION; HEAD];
        head[..MAGIC.len()].copy_from_slice(MAGIC);
        head[MAGIC.len() + 1..].copy_from_slice(&self.life.to_be_bytes());
        head
    }

    fn write_to(
        &self,
        path: &Path,
        keys: impl Iterator<Item = (HotKey, Option<Bytes>)>,
    ) -> Result<WarmFileSize, WarmWriteError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .mode(PRIVATE)
            .open(path)?;
        let mut out = BufWriter::new(file);
        let head = self.head();
        out.write_all(&head)?;
        let mut size = WarmFileSize::default();
        let (mut at, mut room, mut index) = (HEAD as u64, MAX_INDEX, Vec::new());
        for (key, record) in keys.take(MOST_KEYS) {
            let cost = key.key.as_bytes().len() + key.url.len() + PACKED_BESIDE;
            match room.checked_sub(cost) {
                Some(left) => room = left,
                None => break,
            }
            let record = record.unwrap_or_default();
            out.write_all(&record)?;
            let length = u32::try_from(record.len()).map_err(io::Error::other)?;
            size.records += usize::from(length > 0);
            index.push((key, at, length));
            at += u64::from(length);
        }
        let packed: Vec<PackedHotKey<'_>> = index
            .iter()
            .map(|(key, at, length)| PackedHotKey {
                key: Bin::new(key.key.as_bytes()),
                identity: key.identity,
                url: &key.url,
                uses: key.uses,
                at: *at,
                length: *length,
            })
            .collect();
        let packed = rmp_serde::to_vec(&packed).map_err(io::Error::other)?;
        size.keys = index.len();
        size.bytes = at + (packed.len() + FOOT) as u64;
        let lengths = [packed.len() as u64, size.bytes].map(u64::to_be_bytes);
        let lengths = lengths.concat();
        let seal = self
            .seal
            .over(SEALED_TO, &[&head[..], &packed, &lengths].concat());
        out.write_all(&packed)?;
        out.write_all(&lengths)?;
        out.write_all(&seal)?;
        out.flush()?;
        Ok(size)
    }

    /// Makes sure that the file that was there does not come back after a crash of the machine.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        let folder = self.path.parent().filter(|at| !at.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

/// The most bytes that a key takes in the index beside itself and its URL.
const PACKED_BESIDE: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> HotKey {
        HotKey::new(EntryKey::of(&[n; 40]), n.into(), "site.example/a", 7).unwrap()
    }

    fn written(path: &Path, seal: &Seal, life: u64) -> WarmFileOwner {
        let taken = WarmFileOwner::take_over(path, life, seal);
        assert!(taken.kept.is_none() && taken.fault.is_none());
        let records = [Some(Bytes::from("one")), None, Some(Bytes::from("three"))];
        let keys = (1..=3).map(key).zip(records);
        let size = taken.owner.write(keys).unwrap();
        assert_eq!((size.keys, size.records), (3, 2));
        assert_eq!(size.bytes, std::fs::metadata(path).unwrap().len());
        taken.owner
    }

    #[test]
    fn what_was_written_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, seal) = (dir.path().join("hot"), Seal::new(b"a secret of sixteen"));
        written(&path, &seal, 1);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, PRIVATE);
        let found = WarmFileOwner::take_over(&path, 2, &seal).found.unwrap();
        let records: Vec<_> = found
            .keys
            .iter()
            .map(|key| found.record(key).unwrap())
            .collect();
        let expected = [Some("one"), None, Some("three")].map(|text| text.map(Bytes::from));
        assert_eq!(records, expected);
        assert_eq!(found.keys[2].without_record(), key(3));
        let again = WarmFileOwner::take_over(&path, 3, &seal).found.unwrap();
        assert_eq!(again.keys.len(), 3);
        assert!(again.keys.iter().all(|key| !key.has_record()));
    }

    #[test]
    fn who_was_replaced_writes_no_more() {
        let dir = tempfile::tempdir().unwrap();
        let (path, seal) = (dir.path().join("hot"), Seal::public());
        let old = written(&path, &seal, 1);
        let new = WarmFileOwner::take_over(&path, 2, &seal).owner;
        let late = old.write((1..=3).map(|n| (key(n), Some(Bytes::from("late")))));
        assert!(matches!(late, Err(WarmWriteError::TakenOver)), "{late:?}");
        new.write(std::iter::once((key(9), None))).unwrap();
        let names: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 1, "{names:?}");
    }

    /// Every shorter file, and each changed byte outside of the records, is a fault.
    #[test]
    fn what_is_not_whole_or_not_ours_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let (path, seal) = (dir.path().join("hot"), Seal::new(b"a secret of sixteen"));
        written(&path, &seal, 1);
        let whole = std::fs::read(&path).unwrap();
        for length in 1..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(WarmFile::open(&path, &seal).is_err(), "{length} bytes");
        }
        let records = HEAD..HEAD + 8;
        for at in (0..whole.len()).filter(|at| !records.contains(at)) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert!(WarmFile::open(&path, &seal).is_err(), "byte {at}");
        }
        std::fs::write(&path, &whole).unwrap();
        let other = WarmFile::open(&path, &Seal::public()).err();
        assert!(matches!(other, Some(WarmFileFault::Seal)), "{other:?}");
        assert!(WarmFile::open(&path, &seal).unwrap().is_some());
    }

    #[test]
    fn a_file_of_somebody_else_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notes.txt");
        std::fs::write(&path, "not to be lost").unwrap();
        let taken = WarmFileOwner::take_over(&path, 1, &Seal::public());
        assert!(matches!(taken.fault, Some(WarmFileFault::Foreign)));
        assert!(matches!(taken.kept, Some(WarmWriteError::Foreign)));
        assert!(taken.owner.write(std::iter::empty()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "not to be lost");
    }
}
