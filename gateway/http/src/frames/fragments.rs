//! Paths of HTTP/2 requests that came with a fragment, which h2 drops silently: they are noted as
//! their header blocks pass, and looked up when the request arrives. The streams whose client
//! waits before it sends their content are noted, too.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::Uri;
use parking_lot::Mutex;

use super::{CONTINUATION, END_STREAM, HEAD, HEADERS};
use crate::hpack::{ContentExpectation, FragmentlessPath, HpackReader};

/// Paths that may wait for their request. Some requests never come, since h2 refuses them for
/// another reason; the oldest path makes room.
const MOST_WAITING: usize = 256;
/// The capacity of the buffer that is kept between two blocks.
const KEPT: usize = 16 << 10;
/// The most octets of a block; h2 accepts fewer.
const MOST_OCTETS: usize = 1 << 20;

const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 0x20;

/// The paths that were found on one connection.
#[derive(Default)]
pub struct FragmentPaths {
    waiting: AtomicUsize,
    paths: Mutex<VecDeque<FragmentlessPath>>,
}

/// Reads header blocks as they pass.
pub(super) struct HeaderBlockReader {
    found: Arc<FragmentPaths>,
    fields: HpackReader,
    block: Vec<u8>,
    frame: Option<HeaderBlockFrame>,
    /// The stream of the block, if its content is still to come.
    stream: Option<u32>,
    /// Streams that wait for a 100.
    waiting: Vec<u32>,
}

/// A frame that is part of a block.
struct HeaderBlockFrame {
    kind: u8,
    flags: u8,
    /// Where the frame begins in the block.
    at: usize,
    left: usize,
}

/// Whether the blocks that follow can be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BlockReadState {
    On,
    Over,
}

impl FragmentPaths {
    /// Whether a request came with a fragment. Call it once for each request.
    pub fn take(&self, uri: &Uri) -> bool {
        if self.waiting.load(Ordering::Acquire) == 0 {
            return false;
        }
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let is_it = |cut: &FragmentlessPath| match cut.is_empty() {
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

    fn add(&self, path: FragmentlessPath) {
        let mut paths = self.paths.lock();
        if paths.len() == MOST_WAITING {
            paths.pop_front();
        }
        paths.push_back(path);
        self.waiting.store(paths.len(), Ordering::Release);
    }
}

impl HeaderBlockReader {
    pub fn new(found: Arc<FragmentPaths>) -> Self {
        Self {
            found,
            fields: HpackReader::default(),
            block: Vec::new(),
            frame: None,
            stream: None,
            waiting: Vec::new(),
        }
    }

    /// The streams that wait for a 100; each is returned once.
    pub fn take_waiting(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.waiting)
    }

    /// A frame begins.
    pub fn begin(&mut self, head: &[u8; HEAD]) -> BlockReadState {
        let [high, middle, low, kind, flags, a, b, c, d] = *head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        if !matches!(kind, HEADERS | CONTINUATION) {
            return BlockReadState::On;
        }
        if kind == HEADERS {
            let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
            self.stream = (flags & END_STREAM == 0).then_some(stream);
        }
        self.frame = Some(HeaderBlockFrame {
            kind,
            flags,
            at: self.block.len(),
            left: length as usize,
        });
        self.take(&[])
    }

    /// Takes a piece of the frame's payload.
    pub fn take(&mut self, piece: &[u8]) -> BlockReadState {
        let Some(frame) = &mut self.frame else {
            return BlockReadState::On;
        };
        self.block.extend_from_slice(piece);
        frame.left -= piece.len().min(frame.left);
        if self.block.len() > MOST_OCTETS {
            return BlockReadState::Over;
        }
        match frame.left {
            0 => self.end(),
            _ => BlockReadState::On,
        }
    }

    fn end(&mut self) -> BlockReadState {
        let Some(frame) = self.frame.take() else {
            return BlockReadState::On;
        };
        if frame.kind == HEADERS && !strip(&mut self.block, &frame) {
            return BlockReadState::Over;
        }
        if frame.flags & END_HEADERS == 0 {
            return BlockReadState::On;
        }
        let read = self.fields.read(&self.block);
        self.block.clear();
        self.block.shrink_to(KEPT);
        match read {
            Ok(told) => {
                told.cut.into_iter().for_each(|path| self.found.add(path));
                if told.content == ContentExpectation::Waits {
                    self.waiting.extend(self.stream.take());
                }
                BlockReadState::On
            }
            Err(_) => BlockReadState::Over,
        }
    }
}

/// Removes padding and priority from HEADERS (RFC 9113 §6.2). False if they are malformed.
fn strip(block: &mut Vec<u8>, frame: &HeaderBlockFrame) -> bool {
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
