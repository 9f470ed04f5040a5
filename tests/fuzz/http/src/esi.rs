//! Edge Side Includes: no octet of a page is sent twice or made up, and none is lost but the marks,
//! whatever they are. What stands in a comment or in a CDATA section stays as it is.
//!
//! Input: a page.

use lamina_http::esi::{EsiPiece, pieces};

/// What each octet that is left out begins with.
const MARKS: [&[u8]; 4] = [b"<esi:", b"</esi:", b"<!--esi", b"-->"];

pub fn check(page: &[u8]) {
    let mut sent = 0;
    let mut includes = 0;
    for piece in pieces(page) {
        match piece {
            EsiPiece::Text(range) => {
                assert!(range.start >= sent && range.start < range.end);
                assert!(range.end <= page.len());
                assert_is_left_out(&page[sent..range.start]);
                sent = range.end;
            }
            EsiPiece::Include(include) => {
                assert!(!include.source.is_empty());
                includes += 1;
            }
        }
    }
    assert_is_left_out(&page[sent..]);
    let tags = page
        .windows(5)
        .filter(|octets| octets.starts_with(MARKS[0]));
    assert!(includes <= tags.count(), "an include without a mark");
    assert_is_kept(b"<![CDATA[", page, b"]]>");
    assert_is_kept(b"<!-- ", page, b"-->");
}

/// A page that stands as a whole between two octet strings that make text of it.
fn assert_is_kept(open: &[u8], page: &[u8], close: &[u8]) {
    let whole = [open, page, close].concat();
    let inside = &whole[open.len()..];
    let first_close = inside
        .windows(close.len())
        .position(|octets| octets == close);
    if first_close == Some(page.len()) {
        assert_eq!(pieces(&whole), [EsiPiece::Text(0..whole.len())]);
    }
}

/// Octets that are not sent are marks, and what stands between two of them.
fn assert_is_left_out(octets: &[u8]) {
    assert!(octets.is_empty() || MARKS.iter().any(|mark| octets.starts_with(mark)));
}
