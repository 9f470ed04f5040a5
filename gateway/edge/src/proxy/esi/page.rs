//! The body of a page while it is put together.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use http_body::{Frame, SizeHint};

use super::PageRequest;
use crate::http::body::{Body, BodyError};
use crate::http::esi::{self, EsiInclude, EsiPiece, IncludeFailure};
use crate::http::memory::PROCESS;

/// How many fragments of a page are got side by side.
const SIDE_BY_SIDE: usize = 8;

/// What arrives in small pieces is put into larger ones, so that many small buffers don't hold more
/// than their octets.
const LEAST_PIECE: usize = 16 << 10;

type PagePieces = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

/// A page of which the marks are replaced by their fragments, in the order of the page.
pub(super) struct AssembledPage(AssemblyState);

enum AssemblyState {
    /// The page with its marks is still arriving.
    Reading {
        whole: Pin<Box<dyn Future<Output = Option<Bytes>> + Send>>,
        page: Arc<PageRequest>,
    },
    Giving(PagePieces),
    Ended,
}

/// Whose octets a body has: what comes from origins is counted as held since it arrived, and what is
/// stored is the cache's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ContentOwner {
    Others,
    /// They were decoded here.
    Ours,
}

impl AssembledPage {
    pub(super) fn new((body, owner): (Body, ContentOwner), page: Arc<PageRequest>) -> Self {
        let of = Arc::clone(&page);
        let whole = async move {
            let pieces = collected((body, owner), &of).await?;
            Some(in_one_piece(pieces, &of))
        };
        Self(AssemblyState::Reading {
            whole: Box::pin(whole),
            page,
        })
    }
}

/// The whole of a body, which is read no faster than the connection has room for it. None: it broke
/// off, or there is no room for it, in the page or in the process.
pub(super) async fn collected(
    (mut body, owner): (Body, ContentOwner),
    page: &PageRequest,
) -> Option<Vec<Bytes>> {
    let room = &page.place.budget.bytes;
    let (mut first, mut pieces) = (Bytes::new(), Vec::new());
    let mut last = BytesMut::new();
    while let Some(frame) = next_frame(&mut body).await {
        let Ok(data) = frame.ok()?.into_data() else {
            continue;
        };
        let less = |left: u64| left.checked_sub(data.len() as u64);
        room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .ok()?;
        // The usual body is one piece, which is not copied.
        if first.is_empty() && last.is_empty() && pieces.is_empty() {
            first = data;
        } else {
            if PROCESS.stays_full().await {
                return None;
            }
            last.extend_from_slice(&std::mem::take(&mut first));
            last.extend_from_slice(&data);
            drop(data);
            if last.len() >= LEAST_PIECE {
                pieces.push(page.held(last.split().freeze()));
            }
        }
        if !http_body::Body::is_end_stream(&body) {
            page.channel
                .memory()
                .room(&page.place.budget.exemption)
                .await;
        }
    }
    match owner {
        ContentOwner::Others => pieces.extend([first]),
        ContentOwner::Ours => pieces.extend([page.held(first)]),
    }
    pieces.extend([page.held(last.freeze())]);
    pieces.retain(|piece| !piece.is_empty());
    Some(pieces)
}

/// What is in the pieces, in one of them.
fn in_one_piece(mut pieces: Vec<Bytes>, page: &PageRequest) -> Bytes {
    if pieces.len() < 2 {
        return pieces.pop().unwrap_or_default();
    }
    page.held(pieces.concat().into())
}

async fn next_frame(body: &mut Body) -> Option<Result<Frame<Bytes>, BodyError>> {
    std::future::poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *body), cx)).await
}

/// A fragment, if there is one, with the text behind it.
#[derive(Default)]
struct PageSection {
    include: Option<EsiInclude>,
    texts: Vec<Bytes>,
}

/// The sections of a page: each fragment begins one, so that no text counts among what is got side
/// by side. The text before the first fragment is sent at once.
fn sections(whole: &Bytes) -> Vec<PageSection> {
    let mut sections = vec![PageSection::default()];
    for piece in esi::pieces(whole) {
        match piece {
            EsiPiece::Text(range) => {
                let text = whole.slice(range);
                if let Some(section) = sections.last_mut() {
                    section.texts.push(text);
                }
            }
            EsiPiece::Include(include) => sections.push(PageSection {
                include: Some(include),
                texts: Vec::new(),
            }),
        }
    }
    sections
}

/// The pieces of a page. Fragments are got while those before them are sent.
fn given(whole: &Bytes, page: &Arc<PageRequest>) -> PagePieces {
    let page = Arc::clone(page);
    let sections = sections(whole).into_iter().map(move |section| {
        let page = Arc::clone(&page);
        async move {
            let mut pieces = Vec::with_capacity(1 + section.texts.len());
            if let Some(include) = section.include {
                pieces.extend(included(page, include).await?.into_iter().map(Ok));
            }
            pieces.extend(section.texts.into_iter().map(Ok));
            Ok::<_, BodyError>(stream::iter(pieces))
        }
    });
    Box::pin(stream::iter(sections).buffered(SIDE_BY_SIDE).try_flatten())
}

async fn included(page: Arc<PageRequest>, include: EsiInclude) -> Result<Vec<Bytes>, BodyError> {
    if let Some(content) = page.fragment(&include.source).await {
        return Ok(content);
    }
    if let Some(alternative) = &include.alternative
        && let Some(content) = page.fragment(alternative).await
    {
        return Ok(content);
    }
    match include.on_error {
        IncludeFailure::LeaveOut => Ok(Vec::new()),
        IncludeFailure::BreakOff => {
            page.warn("a page breaks off: a fragment without onerror=\"continue\" can't be had");
            Err(BodyError::Aborted)
        }
    }
}

impl http_body::Body for AssembledPage {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let state = &mut self.get_mut().0;
        loop {
            match state {
                AssemblyState::Reading { whole, page } => match ready!(whole.as_mut().poll(cx)) {
                    Some(whole) => {
                        let pieces = given(&whole, page);
                        *state = AssemblyState::Giving(pieces);
                    }
                    None => {
                        page.warn(
                            "a page breaks off: its content ended early, can't be decoded, is larger than esi.max_bytes, or server.max_held_bytes is reached",
                        );
                        *state = AssemblyState::Ended;
                        return Poll::Ready(Some(Err(BodyError::Aborted)));
                    }
                },
                AssemblyState::Giving(pieces) => match ready!(pieces.poll_next_unpin(cx)) {
                    Some(Ok(data)) if data.is_empty() => {}
                    Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Some(Err(error)) => {
                        *state = AssemblyState::Ended;
                        return Poll::Ready(Some(Err(error)));
                    }
                    None => *state = AssemblyState::Ended,
                },
                AssemblyState::Ended => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0, AssemblyState::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
