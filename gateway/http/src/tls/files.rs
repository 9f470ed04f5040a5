//! The files of a listener's certificates, and what was last good in them.
//!
//! Files are looked at again and again, since no notification of the kernel covers a swapped
//! symbolic link, a mounted secret and NFS alike. Whoever writes two files does not write them at
//! once: a pair that does not fit, is half written or has expired changes nothing, and is told
//! once for each content. A pair that vanishes is used further until it expires.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::certificate::{CertificateError, CertificatePair, ServerCertificate};
use super::config::CertificateSource;
use super::names::ServerNamePattern;

/// Where a certificate and its key are, and the only names that it is used for (empty: all).
#[derive(Clone, PartialEq, Eq, Debug)]
struct PairPlace {
    cert: PathBuf,
    key: PathBuf,
    only: Vec<ServerNamePattern>,
    origin: PairOrigin,
    /// The place of its source in the configuration.
    source: usize,
}

/// How a pair is named in the configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PairOrigin {
    /// By its files. It must be good when the listener is opened.
    Files,
    /// By its folder. One pair that is not good does not keep the others from use.
    Folder,
}

/// What is known of the two files of a certificate.
#[derive(Default)]
struct KnownPair {
    stamps: Option<[FileStamp; 2]>,
    /// The content that was last looked at.
    digest: Option<[u8; 32]>,
    good: Option<Arc<ServerCertificate>>,
    /// The last error that was reported, until there is another one or none.
    reported: Option<CertificateError>,
}

/// What shows, without reading a file, that it may have changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The sources of certificates with what is known of their files.
pub(super) struct CertificateFiles {
    sources: Vec<CertificateSource>,
    /// By the path of the certificate, in the order in which they are listed.
    known: BTreeMap<PathBuf, KnownPair>,
    order: Vec<PairPlace>,
    /// The last error that was reported of a source as a whole, until there is another one or none.
    unread: BTreeMap<usize, CertificateError>,
}

/// What a look at the files has shown.
#[derive(Default)]
pub(super) struct FilesLook {
    /// Whether another certificate is good than before.
    pub(super) changed: bool,
    /// What is wrong with pairs and was not reported before.
    pub(super) errors: Vec<PairFault>,
}

/// What is wrong with a pair.
pub(super) struct PairFault {
    pub(super) origin: PairOrigin,
    /// The place of its source in the configuration.
    pub(super) source: usize,
    pub(super) error: CertificateError,
}

/// A file that was changed this short a time ago may change again without another stamp.
const SETTLED: Duration = Duration::from_secs(3);

impl CertificateFiles {
    pub(super) fn new(sources: &[CertificateSource]) -> Self {
        Self {
            sources: sources.to_vec(),
            known: BTreeMap::new(),
            order: Vec::new(),
            unread: BTreeMap::new(),
        }
    }

    /// The certificates that are good, in the order of the configuration.
    pub(super) fn good(&self) -> Vec<Arc<ServerCertificate>> {
        let known = self.order.iter().map(|place| self.known.get(&place.cert));
        known
            .flatten()
            .filter_map(|pair| pair.good.clone())
            .collect()
    }

    /// What is wrong with pairs that are not used, or not in their present content.
    pub(super) fn unusable(&self) -> Vec<CertificateError> {
        let known = self.order.iter().map(|place| self.known.get(&place.cert));
        known
            .flatten()
            .filter_map(|pair| pair.reported.clone())
            .collect()
    }

    /// Looks at all files again.
    pub(super) fn look(&mut self) -> FilesLook {
        let mut seen = FilesLook::default();
        let mut order = Vec::new();
        for (n, source) in self.sources.iter().enumerate() {
            match places(n, source) {
                Ok(places) => {
                    self.unread.remove(&n);
                    order.extend(places);
                }
                Err(error) if self.unread.get(&n) == Some(&error) => {}
                Err(error) => {
                    self.unread.insert(n, error.clone());
                    seen.errors.push(PairFault {
                        origin: PairOrigin::Files,
                        source: n,
                        error,
                    });
                }
            }
        }
        let there: HashSet<_> = order.iter().map(|place| place.cert.clone()).collect();
        let before = self.order.drain(..);
        order.extend(before.filter(|place| !there.contains(&place.cert)));
        for place in &order {
            let pair = self.known.entry(place.cert.clone()).or_default();
            match pair.look(place) {
                Ok(changed) => {
                    seen.changed |= changed;
                    pair.reported = None;
                }
                Err(error) if pair.reported.as_ref() == Some(&error) => {}
                Err(error) => {
                    pair.reported = Some(error.clone());
                    seen.errors.push(PairFault {
                        origin: place.origin,
                        source: place.source,
                        error,
                    });
                }
            }
        }
        self.order = order;
        seen
    }
}

impl KnownPair {
    /// Looks whether there is another good certificate now.
    fn look(&mut self, place: &PairPlace) -> Result<bool, CertificateError> {
        let stamps = stamp(&place.cert).and_then(|cert| Ok([cert, stamp(&place.key)?]));
        if let Ok(stamps) = &stamps
            && self.stamps.as_ref() == Some(stamps)
        {
            return self.reported.clone().map_or(Ok(false), Err);
        }
        let pair = CertificatePair::read(&place.cert, &place.key)?;
        self.stamps = stamps
            .ok()
            .filter(|all| all.iter().all(FileStamp::is_settled));
        let digest = pair.digest();
        if self.digest == Some(digest) {
            // What could not be read is back, as it was.
            self.reported
                .take_if(|error| matches!(error, CertificateError::Read { .. }));
            return self.reported.clone().map_or(Ok(false), Err);
        }
        // The same mistake in other content is told again.
        self.reported = None;
        let files = (&*place.cert, &*place.key);
        let new = ServerCertificate::new(files, &pair, &place.only);
        self.digest = Some(digest);
        let new = new?;
        if new.is_expired() && self.good.is_some() {
            return Err(CertificateError::Expired {
                file: place.cert.clone(),
            });
        }
        self.good = Some(Arc::new(new));
        Ok(true)
    }
}

impl FileStamp {
    fn is_settled(&self) -> bool {
        let (seconds, _) = self.changed;
        let changed = super::certificate::instant(seconds);
        let age = SystemTime::now().duration_since(changed);
        age.is_ok_and(|age| age > SETTLED)
    }
}

/// The stamp of a file.
///
/// # Errors
/// If the file is not there or its folder can't be read.
pub fn stamp(file: &Path) -> io::Result<FileStamp> {
    let file = fs::metadata(file)?;
    Ok(FileStamp {
        device: file.dev(),
        inode: file.ino(),
        size: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
        changed: (file.ctime(), file.ctime_nsec()),
    })
}

/// The pairs of the source that stands at this place. One of a local authority that was not issued
/// yet is none.
fn places(n: usize, source: &CertificateSource) -> Result<Vec<PairPlace>, CertificateError> {
    let names = source.names.iter();
    let only: Vec<_> = names
        .filter_map(|name| ServerNamePattern::parse(name))
        .collect();
    let place = |origin, cert: PathBuf, key: PathBuf| PairPlace {
        cert,
        key,
        only: only.clone(),
        origin,
        source: n,
    };
    if let Some(local) = &source.local {
        let (cert, key) = local.files();
        return Ok(match local.is_issued() {
            true => vec![place(PairOrigin::Files, cert, key)],
            false => Vec::new(),
        });
    }
    match (&source.cert, &source.key, &source.dir) {
        (Some(cert), Some(key), _) => Ok(vec![place(PairOrigin::Files, cert.clone(), key.clone())]),
        (.., Some(dir)) => {
            let found = pairs_of(dir).map_err(|error| CertificateError::Read {
                file: dir.clone(),
                reason: error.to_string(),
            })?;
            let found = found.into_iter();
            Ok(found
                .map(|(cert, key)| place(PairOrigin::Folder, cert, key))
                .collect())
        }
        _ => Ok(Vec::new()),
    }
}

/// Every `NAME.crt` with `NAME.key`, and every folder with `tls.crt` and `tls.key`, by their names.
fn pairs_of(dir: &Path) -> io::Result<Vec<(PathBuf, PathBuf)>> {
    let mut pairs = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // Kubernetes keeps the generations of a mounted secret in hidden folders.
        if name.starts_with('.') {
            continue;
        }
        if path.extension().is_some_and(|extension| extension == "crt") {
            pairs.push((path.clone(), path.with_extension("key")));
        } else if path.join("tls.crt").is_file() {
            pairs.push((path.join("tls.crt"), path.join("tls.key")));
        }
    }
    pairs.sort_unstable();
    Ok(pairs)
}
