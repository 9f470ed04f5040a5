//! Text of a guest in the form that a log may hold.

/// Text for a log: bounded, and without control characters, so that a guest can't
/// forge a line.
pub(super) fn one_line(text: &str, max: usize) -> String {
    let mut kept = text.len().min(max);
    while !text.is_char_boundary(kept) {
        kept -= 1;
    }
    text[..kept]
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
