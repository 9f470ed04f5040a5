//! Edge Side Includes: the part of ESI 1.0 that applications use.
//!
//! `<esi:include src="…" alt="…" onerror="continue"/>` stands for a fragment,
//! `<esi:remove>…</esi:remove>` is left out with its content, `<esi:comment text="…"/>` is left out,
//! and of `<!--esi … -->` only the marks are left out. Everything else is text, also tags that are
//! no ESI of these kinds and ESI that is broken: a page is never lost because of one mark. What
//! stands in a comment of another kind (`<!-- … -->`) or in `<![CDATA[ … ]]>` is no mark.
//!
//! A page is read once, from its beginning to its end, and no part of it twice.

use std::ops::Range;

use memchr::memmem;

/// A part of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum EsiPiece {
    /// Octets of the page that are sent as they are.
    Text(Range<usize>),
    Include(EsiInclude),
}

/// A fragment that stands at a place of a page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct EsiInclude {
    /// Where the fragment is: a URL, or a reference relative to the page.
    pub source: String,
    /// Where it is if the first place fails.
    pub alternative: Option<String>,
    /// What becomes of the page if the fragment can't be had.
    pub on_error: IncludeFailure,
}

/// What becomes of a page if a fragment can't be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum IncludeFailure {
    /// The page breaks off.
    BreakOff,
    /// The fragment is left out (`onerror="continue"`).
    LeaveOut,
}

/// The marks, in the order in which they are looked for at one place.
const OPEN_COMMENT: &[u8] = b"<!--esi";
const CLOSE_COMMENT: &[u8] = b"-->";
const OPEN_TAG: &[u8] = b"<esi:";
const CLOSE_TAG: &[u8] = b"</esi:";
const CLOSE_REMOVE: &[u8] = b"</esi:remove>";
const PLAIN_COMMENT: &[u8] = b"<!--";
const OPEN_CDATA: &[u8] = b"<![CDATA[";
const CLOSE_CDATA: &[u8] = b"]]>";

/// The most octets of one tag; a longer one is text.
const MOST_OF_A_TAG: usize = 8 << 10;

/// Reads the pieces of a page, in their order.
pub fn pieces(page: &[u8]) -> Vec<EsiPiece> {
    let mut reader = EsiReader {
        page,
        pieces: Vec::new(),
        text_from: 0,
        open_comments: 0,
        no_more_removes: false,
    };
    let mut at = 0;
    while let Some(next) = next_mark(page, at, reader.open_comments > 0) {
        at = reader.mark(next);
    }
    reader.text_until(page.len());
    reader.pieces
}

/// The place of the next octets that may be a mark.
fn next_mark(page: &[u8], mut at: usize, in_comment: bool) -> Option<usize> {
    while let Some(found) = memchr::memchr2(b'<', b'-', page.get(at..)?) {
        let here = at + found;
        let rest = &page[here..];
        let is_mark = rest.starts_with(OPEN_TAG)
            || rest.starts_with(CLOSE_TAG)
            || rest.starts_with(PLAIN_COMMENT)
            || rest.starts_with(OPEN_CDATA)
            || (in_comment && rest.starts_with(CLOSE_COMMENT));
        if is_mark {
            return Some(here);
        }
        at = here + 1;
    }
    None
}

/// Whether marks count at a place of a page.
enum MarkFreeSection {
    /// No section without marks begins here.
    None,
    /// One of this length begins here.
    Closed(usize),
    /// One begins here that is never closed.
    Open,
}

impl MarkFreeSection {
    fn at(rest: &[u8]) -> Self {
        let (inside, close) = if rest.starts_with(OPEN_CDATA) {
            (OPEN_CDATA.len(), CLOSE_CDATA)
        } else if rest.starts_with(PLAIN_COMMENT) && !rest.starts_with(OPEN_COMMENT) {
            // The two dashes may be those of its end: `<!-->` is a whole comment of HTML.
            (b"<!".len(), CLOSE_COMMENT)
        } else {
            return Self::None;
        };
        match memmem::find(&rest[inside..], close) {
            Some(found) => Self::Closed(inside + found + close.len()),
            None => Self::Open,
        }
    }
}

struct EsiReader<'a> {
    page: &'a [u8],
    pieces: Vec<EsiPiece>,
    /// Where the text begins that is in no piece yet.
    text_from: usize,
    /// How many `<!--esi` have no `-->` yet.
    open_comments: usize,
    /// There is no further `</esi:remove>`, so that none is looked for again.
    no_more_removes: bool,
}

impl EsiReader<'_> {
    /// Reads the mark at this place. Returns where reading goes on.
    fn mark(&mut self, at: usize) -> usize {
        let rest = &self.page[at..];
        match MarkFreeSection::at(rest) {
            MarkFreeSection::None => {}
            MarkFreeSection::Closed(length) => return at + length,
            MarkFreeSection::Open => return self.page.len(),
        }
        if rest.starts_with(OPEN_COMMENT) {
            self.open_comments += 1;
            return self.leave_out(at, at + OPEN_COMMENT.len());
        }
        if rest.starts_with(CLOSE_COMMENT) {
            self.open_comments -= 1;
            return self.leave_out(at, at + CLOSE_COMMENT.len());
        }
        let Some(tag) = EsiTag::read(rest) else {
            return at + 1;
        };
        let end = at + tag.length;
        match tag.name {
            "include" => match tag.include() {
                Some(include) => {
                    self.text_until(at);
                    self.pieces.push(EsiPiece::Include(include));
                    self.text_from = end;
                    end
                }
                None => self.leave_out(at, end),
            },
            "/include" | "comment" | "/comment" => self.leave_out(at, end),
            "remove" if !tag.is_empty => match self.end_of_remove(end) {
                Some(close) => self.leave_out(at, close),
                None => at + 1,
            },
            _ => at + 1,
        }
    }

    fn end_of_remove(&mut self, from: usize) -> Option<usize> {
        if self.no_more_removes {
            return None;
        }
        let end = end_of_removed(self.page, from);
        self.no_more_removes = end.is_none();
        end
    }

    fn leave_out(&mut self, from: usize, to: usize) -> usize {
        self.text_until(from);
        self.text_from = to;
        to
    }

    fn text_until(&mut self, end: usize) {
        if self.text_from < end {
            self.pieces.push(EsiPiece::Text(self.text_from..end));
        }
        self.text_from = end;
    }
}

/// Where the end tag ends of what is removed from this place on. One in a comment is none, unless the
/// comment is never closed.
fn end_of_removed(page: &[u8], mut at: usize) -> Option<usize> {
    while let Some(found) = memchr::memchr(b'<', page.get(at..)?) {
        at += found;
        let rest = &page[at..];
        if rest.starts_with(CLOSE_REMOVE) {
            return Some(at + CLOSE_REMOVE.len());
        }
        match MarkFreeSection::at(rest) {
            MarkFreeSection::None => at += 1,
            MarkFreeSection::Closed(length) => at += length,
            MarkFreeSection::Open => {
                let found = memmem::find(rest, CLOSE_REMOVE)?;
                return Some(at + found + CLOSE_REMOVE.len());
            }
        }
    }
    None
}

/// A tag of ESI.
struct EsiTag<'a> {
    /// Its name without `esi:`; an end tag has a `/` before it.
    name: &'a str,
    attributes: &'a str,
    /// It ends with `/>`.
    is_empty: bool,
    length: usize,
}

impl<'a> EsiTag<'a> {
    /// None: this is no whole tag.
    fn read(rest: &'a [u8]) -> Option<Self> {
        let (mark, slash) = match rest.starts_with(CLOSE_TAG) {
            true => (CLOSE_TAG.len(), true),
            false => (OPEN_TAG.len(), false),
        };
        let window = &rest[..rest.len().min(MOST_OF_A_TAG)];
        let end = end_of_tag(&window[mark..])? + mark;
        let inside = std::str::from_utf8(&window[mark..end]).ok()?;
        let (inside, is_empty) = match inside.strip_suffix('/') {
            Some(inside) => (inside, true),
            None => (inside, false),
        };
        let name_ends = inside.find(|c: char| c.is_ascii_whitespace());
        let (name, attributes) = inside.split_at(name_ends.unwrap_or(inside.len()));
        let name = match (slash, name) {
            (false, name) => name,
            (true, "include") => "/include",
            (true, "comment") => "/comment",
            (true, _) => return None,
        };
        Some(Self {
            name,
            attributes,
            is_empty,
            length: end + 1,
        })
    }

    /// None: it names no fragment.
    fn include(&self) -> Option<EsiInclude> {
        let source = self.attribute("src").filter(|source| !source.is_empty())?;
        let continues = self
            .attribute("onerror")
            .is_some_and(|word| word == "continue");
        Some(EsiInclude {
            source,
            alternative: self.attribute("alt").filter(|place| !place.is_empty()),
            on_error: match continues {
                true => IncludeFailure::LeaveOut,
                false => IncludeFailure::BreakOff,
            },
        })
    }

    /// The value of an attribute, in quotes of either kind or without, with the five references of
    /// XML resolved.
    fn attribute(&self, wanted: &str) -> Option<String> {
        let mut rest = self.attributes.trim_start();
        while !rest.is_empty() {
            let (name, after) = rest.split_once('=')?;
            let after = after.trim_start();
            let (value, left) = match after.chars().next()? {
                quote @ ('"' | '\'') => after[1..].split_once(quote)?,
                _ => {
                    let end = after.find(|c: char| c.is_ascii_whitespace());
                    after.split_at(end.unwrap_or(after.len()))
                }
            };
            if name.trim() == wanted {
                return Some(resolved(value.trim()));
            }
            rest = left.trim_start();
        }
        None
    }
}

/// Where the `>` is that ends a tag; one in quotes does not. None: there is none, or another tag
/// begins before it.
fn end_of_tag(inside: &[u8]) -> Option<usize> {
    let mut quote = None;
    for (at, octet) in inside.iter().enumerate() {
        match (quote, octet) {
            (None, b'>') => return Some(at),
            (None, b'<') => return None,
            (None, b'"' | b'\'') => quote = Some(octet),
            (Some(open), octet) if open == octet => quote = None,
            _ => {}
        }
    }
    None
}

fn resolved(value: &str) -> String {
    if !value.contains('&') {
        return value.to_owned();
    }
    let references = [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
    ];
    let text = references
        .iter()
        .fold(value.to_owned(), |text, (reference, c)| {
            text.replace(reference, c)
        });
    // The last one, so that `&amp;lt;` stays `&lt;`.
    text.replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The page with each include as `[source|alternative|!]`.
    fn read(page: &str) -> String {
        let pieces = pieces(page.as_bytes())
            .into_iter()
            .map(|piece| match piece {
                EsiPiece::Text(range) => page[range].to_owned(),
                EsiPiece::Include(include) => {
                    let alternative = include.alternative.unwrap_or_default();
                    let breaks = match include.on_error {
                        IncludeFailure::BreakOff => "!",
                        IncludeFailure::LeaveOut => "",
                    };
                    format!("[{}|{alternative}|{breaks}]", include.source)
                }
            });
        pieces.collect()
    }

    #[test]
    fn pages_are_read_piece_by_piece() {
        for (page, expected) in [
            ("", ""),
            (
                "a page - <b>bold</b> --> end",
                "a page - <b>bold</b> --> end",
            ),
            ("a<esi:include src=\"/f\"/>b", "a[/f||!]b"),
            ("a<esi:include src='/f' />b", "a[/f||!]b"),
            ("<esi:include src=\"/f\"></esi:include>b", "[/f||!]b"),
            (
                "<esi:include\n  src=\"/f\"\n  alt=\"/g\" onerror=\"continue\"/>",
                "[/f|/g|]",
            ),
            ("<esi:include src=\"/f?a=1&amp;b=2\"/>", "[/f?a=1&b=2||!]"),
            ("<esi:include src=\"/f?a=>\"/>b", "[/f?a=>||!]b"),
            ("<esi:include src=/f />b", "[/f||!]b"),
            ("a<esi:remove>no <b>way</b></esi:remove>b", "ab"),
            ("a<esi:remove><esi:include src=\"/f\"/></esi:remove>b", "ab"),
            ("a<esi:comment text=\"no\"/>b", "ab"),
            (
                "a<!--esi <p><esi:include src=\"/f\"/></p>-->b",
                "a <p>[/f||!]</p>b",
            ),
            ("a<!--esi x--><!-- y -->b", "a x<!-- y -->b"),
            ("a<!-- y -->b", "a<!-- y -->b"),
            (
                "a<!-- <esi:include src=\"/f\"/> -->b<esi:include src=\"/f\"/>",
                "a<!-- <esi:include src=\"/f\"/> -->b[/f||!]",
            ),
            (
                "a<![CDATA[ <esi:include src=\"/f\"/><!--esi x --> ]]>b<esi:remove>c</esi:remove>d",
                "a<![CDATA[ <esi:include src=\"/f\"/><!--esi x --> ]]>bd",
            ),
            (
                "a<!-- <esi:include src=\"/f\"/>",
                "a<!-- <esi:include src=\"/f\"/>",
            ),
            (
                "a<![CDATA[ --> <esi:comment text=\"\"/>",
                "a<![CDATA[ --> <esi:comment text=\"\"/>",
            ),
            ("<!--><esi:include src=\"/f\"/>", "<!-->[/f||!]"),
            (
                "<!--[if !IE]><!--><esi:include src=\"/f\"/><!--<![endif]-->",
                "<!--[if !IE]><!-->[/f||!]<!--<![endif]-->",
            ),
            (
                "<!--esi a<!-- <esi:include src=\"/f\"/> -->b-->c",
                " a<!-- <esi:include src=\"/f\"/> -->bc",
            ),
            ("a<esi:remove>x<!-- </esi:remove> -->y</esi:remove>b", "ab"),
            ("a<esi:remove>x<!-- y</esi:remove>b", "ab"),
            (
                "a<esi:remove>x<![CDATA[</esi:remove>]]></esi:remove>b",
                "ab",
            ),
            ("a<esi:include/>b", "ab"),
            ("a<esi:include alt=\"/f\"/>b", "ab"),
            ("a<esi:vars>$(X)</esi:vars>b", "a<esi:vars>$(X)</esi:vars>b"),
            ("a<esi:include src=\"/f\"", "a<esi:include src=\"/f\""),
            ("a<esi:remove>never closed", "a<esi:remove>never closed"),
            ("<esi:", "<esi:"),
            (
                "<esi:include <esi:include src=\"/f\"/>",
                "<esi:include [/f||!]",
            ),
            ("<!--esi", ""),
        ] {
            assert_eq!(read(page), expected, "{page}");
        }
    }

    proptest! {
        #[test]
        fn text_is_never_lost_or_made_up(page in "(<esi:include src=\"/f\"/>|<esi:|</esi:remove>|<esi:remove>|<!--esi|-->|<!--|<!\\[CDATA\\[|\\]\\]>|[<>a/ =\"-]){0,40}") {
            let mut last = 0;
            for piece in pieces(page.as_bytes()) {
                if let EsiPiece::Text(range) = piece {
                    prop_assert!(range.start >= last && range.end > range.start && range.end <= page.len());
                    last = range.end;
                }
            }
        }

        #[test]
        fn a_page_without_marks_is_one_text(page in "[a-z <>/!-]{1,60}") {
            prop_assume!(!page.contains("esi"));
            prop_assert_eq!(pieces(page.as_bytes()), vec![EsiPiece::Text(0..page.len())]);
        }
    }
}
