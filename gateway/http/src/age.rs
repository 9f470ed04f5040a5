//! The `Age` field of a response that another cache gave us (RFC 9111 §5.1).

use std::cell::RefCell;

use http::{HeaderMap, HeaderValue, header};

use super::cache_control::delta_seconds;
use super::numbered::{self, NumberedValues};

/// The seconds that the response says it has spent in caches, at most 2³¹.
///
/// Of a list only the first value counts, of several lines the first line. A value that is not a
/// non-negative integer is ignored, as §5.1 asks.
pub fn age_value(headers: &HeaderMap) -> Option<u32> {
    let line = headers.get(header::AGE)?.as_bytes();
    let first = line.split(|&octet| octet == b',').next()?;
    delta_seconds(super::list::trim(first))
}

/// The field's value for a response of this age.
pub fn to_value(seconds: u64) -> HeaderValue {
    thread_local!(static AGES: RefCell<NumberedValues> = const { NumberedValues::new() });
    let number = i64::try_from(seconds).unwrap_or(i64::MAX);
    numbered::value(&AGES, number, || number.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_counts_if_it_is_a_number() {
        for (lines, age) in [
            (&[][..], None),
            (&["0"][..], Some(0)),
            (&["7200"], Some(7200)),
            (&["7200, 0"], Some(7200)),
            (&["0 ,7200"], Some(0)),
            (&["7200", "0"], Some(7200)),
            (&["99999999999"], Some(1 << 31)),
            (&["abc"], None),
            (&["abc, 5"], None),
            (&[", 5"], None),
            (&["-5"], None),
            (&["7200.0"], None),
            (&["+5"], None),
            (&[""], None),
        ] {
            let headers = lines
                .iter()
                .map(|line| (header::AGE, HeaderValue::from_static(line)))
                .collect();
            assert_eq!(age_value(&headers), age, "{lines:?}: RFC 9111 §5.1");
        }
    }
}
