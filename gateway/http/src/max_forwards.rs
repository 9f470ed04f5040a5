//! `Max-Forwards`: how far a TRACE or OPTIONS may go (RFC 9110 §7.6.2). What a TRACE that
//! ends here is answered with is in [`trace`](super::trace).

use http::header::MAX_FORWARDS;
use http::{HeaderMap, Method};

/// Whether a request may go on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hops {
    /// It may; the field, if there is one that counts, says so to the next.
    Left,
    /// It ends here.
    Spent,
}

/// Takes one hop off. Only TRACE and OPTIONS count hops; a value that is no number, or
/// comes more than once, is not ours to mend.
pub fn spend(method: &Method, headers: &mut HeaderMap) -> Hops {
    if !matches!(*method, Method::TRACE | Method::OPTIONS) {
        return Hops::Left;
    }
    let mut lines = headers.get_all(MAX_FORWARDS).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Hops::Left;
    };
    let digits = line.to_str().unwrap_or("");
    if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return Hops::Left;
    }
    // What does not fit is lowered to what does, as the section allows.
    let hops = digits.parse::<u64>().unwrap_or(u64::MAX);
    match hops.checked_sub(1) {
        None => Hops::Spent,
        Some(left) => {
            headers.insert(MAX_FORWARDS, left.into());
            Hops::Left
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(method: Method, value: &str) -> (Hops, String) {
        let mut headers = HeaderMap::from_iter([(MAX_FORWARDS, value.parse().unwrap())]);
        let hops = spend(&method, &mut headers);
        (hops, headers[MAX_FORWARDS].to_str().unwrap().to_owned())
    }

    #[test]
    fn trace_and_options_count_down_to_their_end() {
        for (method, value, hops, left) in [
            (Method::TRACE, "5", Hops::Left, "4"),
            (Method::OPTIONS, "1", Hops::Left, "0"),
            (Method::OPTIONS, "0", Hops::Spent, "0"),
            (Method::TRACE, "000", Hops::Spent, "000"),
            (Method::GET, "0", Hops::Left, "0"),
            (Method::TRACE, "-1", Hops::Left, "-1"),
            (Method::TRACE, "+1", Hops::Left, "+1"),
            (
                Method::TRACE,
                "99999999999999999999999",
                Hops::Left,
                "18446744073709551614",
            ),
        ] {
            let found = spent(method.clone(), value);
            assert_eq!(found, (hops, left.to_owned()), "{method} {value}");
        }
        assert_eq!(spend(&Method::TRACE, &mut HeaderMap::new()), Hops::Left);
    }
}
