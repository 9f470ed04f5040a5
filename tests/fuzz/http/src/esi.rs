//! Edge Side Includes: no octet of a page is sent twice or made up, whatever its marks are.
//!
//! Input: a page.

use lamina_http::esi::{EsiPiece, pieces};

pub fn check(page: &[u8]) {
    let mut sent = 0;
    for piece in pieces(page) {
        match piece {
            EsiPiece::Text(range) => {
                assert!(range.start >= sent && range.start < range.end);
                assert!(range.end <= page.len());
                sent = range.end;
            }
            EsiPiece::Include(include) => assert!(!include.source.is_empty()),
        }
    }
}
