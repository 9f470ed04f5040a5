//! Edge Side Includes: no octet of a page is sent twice or made up, and none is lost but the marks,
//! whatever they are.
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
}

/// Octets that are not sent are marks, and what stands between two of them.
fn assert_is_left_out(octets: &[u8]) {
    assert!(octets.is_empty() || MARKS.iter().any(|mark| octets.starts_with(mark)));
}
