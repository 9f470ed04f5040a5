//! The declared inputs of a key, taken from a request as one sequence of bytes.
//!
//! These bytes are the key under which an answer is remembered, and after a miss the guest's inputs
//! are decoded from them. So the guest cannot see anything that the memory does not distinguish.
//! Each piece is preceded by its length: two requests with different inputs never give the same
//! bytes.

use http::header::COOKIE;
use http::request::Parts;

use super::bindings::types::{Field, KeyInputs};
use super::manifest::{HeaderNeed, KeyNeeds, QueryNeed};
use super::names;

/// The most headers and cookies that are named in the log.
const MAX_NAMED: usize = 32;
/// Marks one more header or cookie, or the end of them.
const MORE: u8 = 1;
const END: u8 = 0;

impl KeyNeeds {
    /// Appends to `out` the parts of this request on which the key depends.
    pub fn gather(&self, request: &Parts, host: &str, out: &mut Vec<u8>) {
        if self.method {
            put(out, request.method.as_str().as_bytes());
        }
        if self.host {
            put(out, host.as_bytes());
        }
        if self.path {
            put(out, request.uri.path().as_bytes());
        }
        self.gather_query(request.uri.query(), out);
        self.gather_headers(request, out);
        self.gather_cookies(request, out);
    }

    fn gather_query(&self, query: Option<&str>, out: &mut Vec<u8>) {
        match (&self.query, query) {
            (QueryNeed::None, _) => {}
            (_, None) => out.push(END),
            (QueryNeed::Whole, Some(query)) => {
                out.push(MORE);
                put(out, query.as_bytes());
            }
            (QueryNeed::Parameters(names), Some(query)) => {
                out.push(MORE);
                let pieces = names::parameters(query, |name| names.iter().any(|n| n.matches(name)));
                put_joined(out, pieces);
            }
        }
    }

    fn gather_headers(&self, request: &Parts, out: &mut Vec<u8>) {
        for need in &self.headers {
            match need {
                HeaderNeed::Exact(name) => {
                    for value in request.headers.get_all(name) {
                        put_field(out, name.as_str().as_bytes(), value.as_bytes());
                    }
                }
                HeaderNeed::Prefix(prefix) => {
                    for (name, value) in request
                        .headers
                        .iter()
                        .filter(|(n, _)| n.as_str().starts_with(&**prefix))
                    {
                        put_field(out, name.as_str().as_bytes(), value.as_bytes());
                    }
                }
            }
        }
        out.push(END);
    }

    fn gather_cookies(&self, request: &Parts, out: &mut Vec<u8>) {
        if !self.cookies.is_empty() {
            let lines = request.headers.get_all(COOKIE).iter();
            for (name, value) in lines.flat_map(|line| names::cookies(line.as_bytes())) {
                if self.cookies.iter().any(|wanted| wanted.matches(name)) {
                    put_field(out, name, value);
                }
            }
        }
        out.push(END);
    }

    /// The inputs for the guest: decodes the bytes of [`Self::gather`].
    pub fn decode(&self, gathered: &[u8]) -> KeyInputs {
        let mut rest = InputReader(gathered);
        KeyInputs {
            method: self.method.then(|| rest.text()),
            host: self.host.then(|| rest.text()),
            path: self.path.then(|| rest.text()),
            query: (self.query != QueryNeed::None && rest.byte() == MORE).then(|| rest.text()),
            headers: rest.fields(),
            cookies: rest.fields(),
        }
    }

    /// The names of what [`Self::gather`] found, without their values.
    pub fn names_in(&self, gathered: &[u8]) -> Vec<String> {
        let inputs = self.decode(gathered);
        let given = [
            ("method", inputs.method.is_some()),
            ("host", inputs.host.is_some()),
            ("path", inputs.path.is_some()),
            ("query", inputs.query.is_some()),
        ];
        let given = given.into_iter().filter(|(_, is)| *is);
        let headers = inputs.headers.iter().map(|f| format!("header {}", f.name));
        let cookies = inputs.cookies.iter().map(|f| format!("cookie {}", f.name));
        let mut names: Vec<String> = given.map(|(name, _)| name.to_owned()).collect();
        names.extend(headers.chain(cookies).take(MAX_NAMED));
        names
    }
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_joined(out, std::iter::once(bytes));
}

/// Writes the length of all pieces joined by `&`, then the joined pieces.
fn put_joined<P: AsRef<[u8]>>(out: &mut Vec<u8>, pieces: impl Iterator<Item = P>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    for (i, piece) in pieces.enumerate() {
        if i > 0 {
            out.push(b'&');
        }
        out.extend_from_slice(piece.as_ref());
    }
    let length = u32::try_from(out.len() - start - 4).expect("a request is smaller than 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn put_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(MORE);
    put(out, name);
    put(out, value);
}

/// Reads the bytes that the functions above wrote.
struct InputReader<'a>(&'a [u8]);

impl InputReader<'_> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self
            .0
            .split_first()
            .expect("decoded by the needs that gathered it");
        self.0 = rest;
        *first
    }

    fn text(&mut self) -> String {
        let (length, rest) = self
            .0
            .split_first_chunk()
            .expect("decoded by the needs that gathered it");
        let (text, rest) = rest.split_at(u32::from_le_bytes(*length) as usize);
        self.0 = rest;
        escape(text)
    }

    fn fields(&mut self) -> Vec<Field> {
        let mut fields = Vec::new();
        while self.byte() == MORE {
            fields.push(Field {
                name: self.text(),
                value: self.text(),
            });
        }
        fields
    }
}

/// Valid UTF-8 unchanged; other bytes as `%XX`.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(percent_encoding::percent_encode_byte(*byte));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::names::NamePattern;
    use super::*;
    use proptest::prelude::*;

    fn everything() -> KeyNeeds {
        KeyNeeds {
            method: true,
            host: true,
            path: true,
            query: QueryNeed::Whole,
            headers: vec![
                HeaderNeed::Exact(http::HeaderName::from_static("accept")),
                HeaderNeed::Prefix("x-".into()),
            ],
            cookies: vec![NamePattern::Prefix("".into())],
        }
    }

    fn parts(uri: &str, headers: &[(&str, &[u8])]) -> Parts {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn inputs(needs: &KeyNeeds, request: &Parts) -> KeyInputs {
        let mut bytes = Vec::new();
        needs.gather(request, "shop", &mut bytes);
        needs.decode(&bytes)
    }

    #[test]
    fn the_guest_sees_what_it_declared_and_nothing_else() {
        let request = parts(
            "/p?a=1",
            &[
                ("accept", b"x"),
                ("x-a", b"1"),
                ("x-a", b"\xff2"),
                ("via", b"no"),
                ("cookie", b"k=v"),
            ],
        );
        let all = inputs(&everything(), &request);
        assert_eq!(
            (
                all.method.as_deref(),
                all.host.as_deref(),
                all.path.as_deref()
            ),
            (Some("GET"), Some("shop"), Some("/p"))
        );
        assert_eq!(all.query.as_deref(), Some("a=1"));
        let headers: Vec<_> = all
            .headers
            .iter()
            .map(|f| (f.name.as_str(), f.value.as_str()))
            .collect();
        assert_eq!(headers, [("accept", "x"), ("x-a", "1"), ("x-a", "%FF2")]);
        assert_eq!(
            all.cookies,
            [Field {
                name: "k".into(),
                value: "v".into()
            }]
        );
    }

    #[test]
    fn single_parameters_come_in_the_spelling_of_the_request() {
        let parameters = ["id", "p_*"]
            .map(|n| NamePattern::parse(n).unwrap())
            .to_vec();
        let needs = KeyNeeds {
            query: QueryNeed::Parameters(parameters),
            ..everything()
        };
        assert_eq!(
            inputs(&needs, &parts("/?x=1&p_b=%20&id=7", &[]))
                .query
                .as_deref(),
            Some("p_b=%20&id=7")
        );
        assert_eq!(inputs(&needs, &parts("/", &[])).query, None);
    }

    proptest! {
        #[test]
        fn different_inputs_never_give_the_same_bytes(
            a in proptest::collection::vec(("(accept|x-[ab])", "[ -~]{0,6}"), 0..4),
            b in proptest::collection::vec(("(accept|x-[ab])", "[ -~]{0,6}"), 0..4),
        ) {
            let gathered = |headers: &[(String, String)]| {
                let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
                let mut bytes = Vec::new();
                everything().gather(&parts("/", &headers), "h", &mut bytes);
                bytes
            };
            let (left, right) = (gathered(&a), gathered(&b));
            let same = everything().decode(&left) == everything().decode(&right);
            prop_assert_eq!(left == right, same);
        }
    }
}
