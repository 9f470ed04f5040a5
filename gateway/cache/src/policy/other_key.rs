//! Whether a response belongs to another key than its request: it sets a cookie of the key anew.

use http::HeaderMap;
use http::header::SET_COOKIE;

use crate::http::cookies;

/// Whether the response sets one of these cookies, which the key contains, to another value than
/// the request came with. The client's next request has another key then, and what it got now was
/// made for that one, as a page for a customer whose cookie for the group of customers was lost.
pub fn sets_other_key(keyed: &[Box<str>], request: &HeaderMap, response: &HeaderMap) -> bool {
    if keyed.is_empty() {
        return false;
    }
    let mut lines = response.get_all(SET_COOKIE).into_iter();
    lines.any(|line| {
        let pair = line.as_bytes().split(|&octet| octet == b';').next();
        let pair = pair.unwrap_or_default();
        let Some(equals) = memchr::memchr(b'=', pair) else {
            return false;
        };
        let (name, value) = (pair[..equals].trim_ascii(), pair[equals + 1..].trim_ascii());
        let is_keyed = keyed.iter().any(|known| known.as_bytes() == name);
        is_keyed && !has_only(request, name, value)
    })
}

/// Whether the request has this cookie, and with no other value.
fn has_only(request: &HeaderMap, name: &[u8], value: &[u8]) -> bool {
    let mut values = cookies::values(request, name).peekable();
    values.peek().is_some() && values.all(|one| one.trim_ascii() == value)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use http::header::COOKIE;

    use super::*;

    fn fields(name: HeaderName, values: &[&str]) -> HeaderMap {
        let values = values.iter().map(|value| value.parse().unwrap());
        values.map(|value| (name.clone(), value)).collect()
    }

    #[test]
    fn a_cookie_of_the_key_with_a_new_value_belongs_to_another_key() {
        let keyed = ["group".into(), "lang".into()];
        let table: [(&[&str], &[&str], bool); 12] = [
            (&[], &["group=7; path=/"], true),
            (&["group=7"], &["group=7; path=/"], false),
            (&["a=1; group=7"], &[" group = 7 ;secure"], false),
            (&["group=7"], &["group=8"], true),
            (&["group=7"], &["group=; max-age=0"], true),
            (&["group=7; group=8"], &["group=7"], true),
            (&["group=7"], &["lang=de"], true),
            (&["group=7", "lang=de"], &["lang=de", "group=7"], false),
            (&["group=7"], &["session=1", "group=9"], true),
            (&[], &["session=1", "Group=7", "xgroup=7", "group"], false),
            (&["group=7"], &[], false),
            (&["group=a=b"], &["group=a=b; path=/"], false),
        ];
        for (sent, set, other) in table {
            let (request, response) = (fields(COOKIE, sent), fields(SET_COOKIE, set));
            assert_eq!(
                sets_other_key(&keyed, &request, &response),
                other,
                "{sent:?} {set:?}"
            );
            assert!(!sets_other_key(&[], &request, &response));
        }
    }
}
