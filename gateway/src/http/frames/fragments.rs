//! Paths of HTTP/2 requests that came with a fragment, which h2 drops without a word: found
//! as their header blocks pass, and asked for when the request arrives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Uri;
use parking_lot::Mutex;

use super::{CONTINUATION, HEADERS};
use crate::http::hpack::{Cut, Fields};

/// Paths that wait for their request. Some never come, since h2 refuses them for another
/// reason; the oldest makes room.
const MOST_WAITING: usize = 256;
/// Octets that are kept between two blocks.
const KEPT: usize = 16 << 10;
/// Octets of a block at most, more than h2 takes.
const MOST_OCTETS: usize = 1 << 20;

const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// What was found on one connection.
#[derive(Default)]
pub struct Fragments {
    waiting: AtomicUsize,
    paths: Mutex<VecDeque<Cut>>,
}

/// Header blocks as they pass.
pub(super) struct Blocks {
    found: Arc<Fragments>,
    fields: Fields,
    block: Vec<u8>,
    frame: Option<Frame>,
}

/// A frame that is part of a block.
struct Frame {
    kind: u8,
    flags: u8,
    /// Where it begins in the block.
    at: usize,
    left: usize,
}

/// Whether the blocks that follow can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reading {
    On,
    Over,
}

impl Fragments {
    /// Whether a request came with a fragment. Asked once for each request.
    pub fn take(&self, uri: &Uri) -> bool {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return false;
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let is_it = |cut: &Cut| match cut.is_empty() {
            true => path == "/",
            false => **cut == *path.as_bytes(),
        };
        let mut paths = self.paths.lock();
        let found = paths.iter().position(is_it);
        if let Some(at) = found {
            paths.remove(at);
        }
        self.waiting.store(paths.len(), Ordering::Release);
        found.is_some()
    }

    fn add(&self, path: Cut) {
        let mut paths = self.paths.lock();
        if paths.len() == MOST_WAITING {
            paths.pop_front();
        }
        paths.push_back(path);
        self.waiting.store(paths.len(), Ordering::Release);
    }
}

impl Blocks {
    pub fn new(found: Arc<Fragments>) -> Self {
        Self {
            found,
            fields: Fields::default(),
            block: Vec::new(),
            frame: None,
        }
    }

    /// A frame begins.
    pub fn begin(&mut self, kind: u8, flags: u8, length: u32) -> Reading {
        if !matches!(kind, HEADERS | CONTINUATION) {
            return Reading::On;
        }
        self.frame = Some(Frame {
            kind,
            flags,
            at: self.block.len(),
            left: length as usize,
        });
        self.take(&[])
    }

    /// Takes a piece of what the frame holds.
    pub fn take(&mut self, piece: &[u8]) -> Reading {
        let Some(frame) = &mut self.frame else {
            return Reading::On;
        };
        self.block.extend_from_slice(piece);
        frame.left -= piece.len().min(frame.left);
        if self.block.len() > MOST_OCTETS {
            return Reading::Over;
        }
        match frame.left {
            0 => self.end(),
            _ => Reading::On,
        }
    }

    fn end(&mut self) -> Reading {
        let Some(frame) = self.frame.take() else {
            return Reading::On;
        };
        if frame.kind == HEADERS && !strip(&mut self.block, &frame) {
            return Reading::Over;
        }
        if frame.flags & END_HEADERS == 0 {
            return Reading::On;
        }
        let read = self.fields.cut_path(&self.block);
        self.block.clear();
        self.block.shrink_to(KEPT);
        match read {
            Ok(found) => {
                found.into_iter().for_each(|path| self.found.add(path));
                Reading::On
            }
            Err(_) => Reading::Over,
        }
    }
}

/// Takes padding and priority out of HEADERS (RFC 9113 §6.2). False: it can't be read.
fn strip(block: &mut Vec<u8>, frame: &Frame) -> bool {
    let mut before = 0;
    if frame.flags & PADDED != 0 {
        let padding = block
            .get(frame.at)
            .map_or(0, |padding| usize::from(*padding));
        before += 1;
        let Some(end) = block.len().checked_sub(padding) else {
            return false;
        };
        block.truncate(end.max(frame.at));
    }
    if frame.flags & PRIORITY != 0 {
        before += 5;
    }
    if frame.at + before > block.len() {
        return false;
    }
    block.drain(frame.at..frame.at + before);
    true
}
