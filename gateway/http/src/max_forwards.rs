//! `Max-Forwards`: how far a TRACE or OPTIONS may go (RFC 9110 §7.6.2). The answer to a TRACE that
//! ends here is made in [`trace`](super::trace).

use http::header::MAX_FORWARDS;
use http::{HeaderMap, Method};

/// Whether a request may be forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HopBudget {
    /// It may. Its `Max-Forwards`, if it is valid, has the number of hops that are left.
    Left,
    /// It must be answered here.
    Spent,
}

/// Subtracts one hop. Only TRACE and OPTIONS count hops. A value that is not a number, or that
/// comes more than once, is left as it is and ignored.
pub fn spend(method: &Method, headers: &mut HeaderMap) -> HopBudget {
    if !matches!(*method, Method::TRACE | Method::OPTIONS) {
        return HopBudget::Left;
    }
    let mut lines = headers.get_all(MAX_FORWARDS).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return HopBudget::Left;
    };
    let digits = line.to_str().unwrap_or("");
    if digits.is_empty() || !digits.bytes().all(|octet| octet.is_ascii_digit()) {
        return HopBudget::Left;
    }
    // A number that does not fit is replaced by the largest one that does, as the section allows.
    let hops = digits.parse::<u64>().unwrap_or(u64::MAX);
    match hops.checked_sub(1) {
        None => HopBudget::Spent,
        Some(left) => {
            headers.insert(MAX_FORWARDS, left.into());
            HopBudget::Left
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(method: Method, value: &str) -> (HopBudget, String) {
        let mut headers = HeaderMap::from_iter([(MAX_FORWARDS, value.parse().unwrap())]);
        let hops = spend(&method, &mut headers);
        (hops, headers[MAX_FORWARDS].to_str().unwrap().to_owned())
    }

    #[test]
    fn trace_and_options_count_down_to_their_end() {
        for (method, value, hops, left) in [
            (Method::TRACE, "5", HopBudget::Left, "4"),
            (Method::OPTIONS, "1", HopBudget::Left, "0"),
            (Method::OPTIONS, "0", HopBudget::Spent, "0"),
            (Method::TRACE, "000", HopBudget::Spent, "000"),
            (Method::GET, "0", HopBudget::Left, "0"),
            (Method::TRACE, "-1", HopBudget::Left, "-1"),
            (Method::TRACE, "+1", HopBudget::Left, "+1"),
            (
                Method::TRACE,
                "99999999999999999999999",
                HopBudget::Left,
                "18446744073709551614",
            ),
        ] {
            let found = spent(method.clone(), value);
            assert_eq!(found, (hops, left.to_owned()), "{method} {value}");
        }
        assert_eq!(
            spend(&Method::TRACE, &mut HeaderMap::new()),
            HopBudget::Left
        );
    }
}
