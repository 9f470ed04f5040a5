//! Texts with places that a request fills in, as in `https://{host}/new/{path.2}`.
//!
//! A template is parsed once, when the configuration is read. What a request lacks is nothing: its
//! place stays empty.

use std::fmt;
use std::fmt::Write as _;
use std::net::IpAddr;

use http::request::Parts;
use http::{HeaderName, HeaderValue};

/// The places that a template may have, in words.
pub const PLACES: &str = "expected {host}, {path}, {path.N}, {query}, {header.NAME}, {client}, \
                          {request_id}, {route} or {scheme}, and `{{` for a brace itself";

/// A parsed template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TextTemplate(Box<[TemplatePiece]>);

/// A part of a template.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TemplatePiece {
    Text(Box<str>),
    Host,
    Path,
    Query,
    /// The Nth segment of the path, from 1.
    Segment(u16),
    Header(HeaderName),
    Client,
    RequestId,
    Route,
    Scheme,
}

/// What a template is filled in from.
#[derive(Clone, Copy)]
pub struct TemplateSource<'a> {
    pub parts: &'a Parts,
    pub host: &'a str,
    pub scheme: &'a str,
    pub client: Option<IpAddr>,
    pub route: &'a str,
    pub request_id: Option<&'a HeaderValue>,
}

/// How values of a request are written into a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ValueForm {
    /// As they are.
    Plain,
    /// As a part of a URL: what is not part of one already is percent-encoded.
    Url,
}

impl TextTemplate {
    /// # Errors
    /// What is wrong with the text, for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, brace) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = brace.strip_prefix("{{").or(brace.strip_prefix("}}")) {
                plain.push_str(&brace[..1]);
                rest = after;
                continue;
            }
            let Some(inner) = brace.strip_prefix('{') else {
                return Err(format!("`}}` without `{{` in {text:?}; {PLACES}"));
            };
            let Some((name, after)) = inner.split_once('}') else {
                return Err(format!("`{{` without `}}` in {text:?}; {PLACES}"));
            };
            let piece = TemplatePiece::parse(name)
                .ok_or_else(|| format!("unknown placeholder `{{{name}}}`; {PLACES}"))?;
            if !plain.is_empty() {
                pieces.push(TemplatePiece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(piece);
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(TemplatePiece::Text(plain.into()));
        }
        Ok(Self(pieces.into()))
    }

    /// The parts of the template, in order. No two texts stand side by side.
    pub fn pieces(&self) -> &[TemplatePiece] {
        &self.0
    }

    /// The text, if the template has no places.
    pub fn fixed(&self) -> Option<&str> {
        match &*self.0 {
            [] => Some(""),
            [TemplatePiece::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether it has a place for the request's id.
    pub fn names_request_id(&self) -> bool {
        self.0.contains(&TemplatePiece::RequestId)
    }

    /// The text for one request.
    pub fn fill(&self, source: TemplateSource<'_>, form: ValueForm) -> Vec<u8> {
        let mut out = Vec::with_capacity(64);
        self.fill_into(source, form, &mut out);
        out
    }

    /// Appends the text for one request.
    pub fn fill_into(&self, source: TemplateSource<'_>, form: ValueForm, out: &mut Vec<u8>) {
        for piece in &self.0 {
            piece.fill(source, form, out);
        }
    }
}

impl TemplatePiece {
    fn parse(name: &str) -> Option<Self> {
        Some(match name.split_once('.') {
            None => match name {
                "host" => Self::Host,
                "path" => Self::Path,
                "query" => Self::Query,
                "client" => Self::Client,
                "request_id" => Self::RequestId,
                "route" => Self::Route,
                "scheme" => Self::Scheme,
                _ => return None,
            },
            Some(("path", number)) => {
                let digits = number.bytes().all(|octet| octet.is_ascii_digit());
                let number = number.parse().ok().filter(|number| digits && *number > 0)?;
                Self::Segment(number)
            }
            Some(("header", name)) => Self::Header(name.parse().ok()?),
            Some(_) => return None,
        })
    }

    /// Whether its value may differ between requests that are the same to the cache.
    pub fn is_of_the_client(&self) -> bool {
        matches!(self, Self::Header(_) | Self::Client | Self::RequestId)
    }

    fn fill(&self, source: TemplateSource<'_>, form: ValueForm, out: &mut Vec<u8>) {
        let uri = &source.parts.uri;
        match self {
            Self::Text(text) => out.extend_from_slice(text.as_bytes()),
            // These are parts of a URL in its normal form.
            Self::Path => out.extend_from_slice(uri.path().as_bytes()),
            Self::Query => out.extend_from_slice(uri.query().unwrap_or_default().as_bytes()),
            Self::Segment(number) => {
                let segment = uri.path().split('/').nth(usize::from(*number));
                out.extend_from_slice(segment.unwrap_or_default().as_bytes());
            }
            Self::Host => write(source.host.as_bytes(), form, out),
            Self::Header(name) => {
                let value = source.parts.headers.get(name);
                write(value.map_or(&[][..], HeaderValue::as_bytes), form, out);
            }
            Self::Client => {
                let client = source.client.map(|client| client.to_string());
                write(client.unwrap_or_default().as_bytes(), form, out);
            }
            Self::RequestId => {
                let id = source.request_id.map_or(&[][..], HeaderValue::as_bytes);
                write(id, form, out);
            }
            Self::Route => write(source.route.as_bytes(), form, out),
            Self::Scheme => out.extend_from_slice(source.scheme.as_bytes()),
        }
    }
}

fn write(value: &[u8], form: ValueForm, out: &mut Vec<u8>) {
    if form == ValueForm::Plain {
        return out.extend_from_slice(value);
    }
    const HEX: [u8; 16] = *b"0123456789ABCDEF";
    for &octet in value {
        // A colon and brackets are part of authorities.
        if octet.is_ascii_alphanumeric() || b"-._~:[]".contains(&octet) {
            out.push(octet);
        } else {
            let (high, low) = (octet >> 4, octet & 15);
            out.extend([b'%', HEX[usize::from(high)], HEX[usize::from(low)]]);
        }
    }
}

/// The template as it is written in YAML.
impl fmt::Display for TextTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                TemplatePiece::Text(text) => {
                    for letter in text.chars() {
                        f.write_char(letter)?;
                        if matches!(letter, '{' | '}') {
                            f.write_char(letter)?;
                        }
                    }
                }
                TemplatePiece::Host => f.write_str("{host}")?,
                TemplatePiece::Path => f.write_str("{path}")?,
                TemplatePiece::Query => f.write_str("{query}")?,
                TemplatePiece::Segment(number) => write!(f, "{{path.{number}}}")?,
                TemplatePiece::Header(name) => write!(f, "{{header.{name}}}")?,
                TemplatePiece::Client => f.write_str("{client}")?,
                TemplatePiece::RequestId => f.write_str("{request_id}")?,
                TemplatePiece::Route => f.write_str("{route}")?,
                TemplatePiece::Scheme => f.write_str("{scheme}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parts(uri: &str, fields: &[(&'static str, &[u8])]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in fields {
            request = request.header(*name, HeaderValue::from_bytes(value).unwrap());
        }
        request.body(()).unwrap().into_parts().0
    }

    fn filled(template: &str, parts: &Parts, form: ValueForm) -> String {
        let id = HeaderValue::from_static("7-7");
        let source = TemplateSource {
            parts,
            host: "shop.example:8080",
            scheme: "https",
            client: Some("192.0.2.7".parse().unwrap()),
            route: "shop",
            request_id: Some(&id),
        };
        let filled = TextTemplate::parse(template).unwrap().fill(source, form);
        String::from_utf8(filled).unwrap()
    }

    #[test]
    fn each_place_is_filled_in() {
        let request = parts("/a/b%20c/?x=1&y=%2F", &[("x-user", b"ann lee/\xC3\xA9")]);
        for (template, plain) in [
            ("", ""),
            ("plain", "plain"),
            ("{{{path.1}}}", "{a}"),
            ("{host}|{scheme}|{route}", "shop.example:8080|https|shop"),
            ("{path}?{query}", "/a/b%20c/?x=1&y=%2F"),
            ("{path.2}{path.3}{path.4}", "b%20c"),
            ("{client} {request_id}", "192.0.2.7 7-7"),
            ("{header.X-User}{header.none}", "ann lee/é"),
        ] {
            assert_eq!(filled(template, &request, ValueForm::Plain), plain);
        }
        let url = filled("https://{host}/{header.x-user}", &request, ValueForm::Url);
        assert_eq!(url, "https://shop.example:8080/ann%20lee%2F%C3%A9");
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for bad in [
            "{",
            "}",
            "{x",
            "x}",
            "{}",
            "{path.0}",
            "{path.}",
            "{path.+1}",
            "{path.a}",
            "{header.}",
            "{header.a b}",
            "{query.x}",
            "{Host}",
            "{ host }",
            "{{host}",
            "{path.99999}",
        ] {
            assert!(TextTemplate::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        /// A template is read as it is written, and one without places is its own text.
        #[test]
        fn what_was_parsed_is_written_again(text in "([a-z/{}. ]|\\{host\\}|\\{path\\.[0-9]\\}|\\{header\\.x\\}){0,12}") {
            if let Ok(template) = TextTemplate::parse(&text) {
                let again = TextTemplate::parse(&template.to_string()).unwrap();
                prop_assert_eq!(&again, &template);
                let texts = template.pieces().windows(2);
                let two_texts = |pair: &&[TemplatePiece]| {
                    pair.iter().all(|piece| matches!(piece, TemplatePiece::Text(_)))
                };
                prop_assert_eq!(texts.filter(two_texts).count(), 0);
            }
            if !text.contains(['{', '}']) {
                let template = TextTemplate::parse(&text).unwrap();
                prop_assert_eq!(template.fixed(), Some(&*text));
            }
        }

        /// Whatever a client sends, its values can't leave their place in a URL.
        #[test]
        fn a_value_stays_in_its_place(value in prop::collection::vec(b' '..=255u8, 0..20)) {
            prop_assume!(HeaderValue::from_bytes(&value).is_ok());
            let request = parts("/", &[("x", &value)]);
            let url = filled("/a/{header.x}/b", &request, ValueForm::Url);
            prop_assert!(url.parse::<http::Uri>().is_ok(), "{}", url);
            prop_assert_eq!(url.matches('/').count(), 3);
            prop_assert!(!url.contains(['?', '#', '\\', '@', '\t', '\r', '\n']));
        }
    }
}
