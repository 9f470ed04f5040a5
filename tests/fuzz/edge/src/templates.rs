//! Templates: any text is read or explained, what was read is written as it is read again, values
//! of a request stay in their places of a URL, and a redirect leads where its template lets it.
//!
//! Input: a template; hosts that are allowed; a request.

use fuzz_harness::input;
use http::header::{HOST, LOCATION};
use http::request::Parts;
use http::{HeaderValue, Uri};
use lamina_edge::proxy::rules::redirect::RouteRedirect;
use lamina_edge::proxy::rules::redirect::config::{RedirectConfig, TargetHost, target_host};
use lamina_edge::proxy::rules::template::{TemplatePiece, TemplateSource, TextTemplate, ValueForm};

static ID: HeaderValue = HeaderValue::from_static("0192-7a\"<?/");

pub fn check(data: &[u8]) {
    let [template, hosts, request] = input::blocks(data);
    let (Ok(to), Some(parts)) = (std::str::from_utf8(template), input::request(request)) else {
        return;
    };
    match TextTemplate::parse(to) {
        Err(problem) => assert!(!problem.is_empty()),
        Ok(template) => {
            written_again(to, &template);
            placed(&template, &parts);
            let allow_hosts = input::texts(hosts).map(str::to_owned).collect();
            let config = RedirectConfig {
                to: to.to_owned(),
                status: 308,
                allow_hosts,
            };
            redirected(&template, &config, &parts);
        }
    }
}

fn source(parts: &Parts) -> TemplateSource<'_> {
    let host = parts.headers.get(HOST);
    TemplateSource {
        parts,
        host: host.and_then(|host| host.to_str().ok()).unwrap_or_default(),
        scheme: "https",
        client: None,
        route: "shop/é",
        request_id: Some(&ID),
    }
}

/// It is read as it is written, and a text without places is itself.
fn written_again(text: &str, template: &TextTemplate) {
    let written = template.to_string();
    assert_eq!(TextTemplate::parse(&written).as_ref(), Ok(template));
    if !text.contains(['{', '}']) {
        assert_eq!(template.fixed(), Some(text));
    }
}

/// Each piece gives what it gives alone, and no value that a client chose has a sign that would end
/// its place.
fn placed(template: &TextTemplate, parts: &Parts) {
    for form in [ValueForm::Plain, ValueForm::Url] {
        let mut apart = Vec::new();
        for piece in template.pieces() {
            let filled = alone(piece).fill(source(parts), form);
            let is_value = matches!(
                piece,
                TemplatePiece::Host
                    | TemplatePiece::Header(_)
                    | TemplatePiece::RequestId
                    | TemplatePiece::Route
            );
            if is_value && form == ValueForm::Url {
                let ends = |octet: &u8| b"/?#\\@\r\n\t \"<".contains(octet) || *octet > 126;
                assert!(!filled.iter().any(ends), "{piece:?}: {filled:?}");
            }
            apart.extend(filled);
        }
        assert_eq!(template.fill(source(parts), form), apart);
    }
}

/// The template that has this piece and no other.
fn alone(piece: &TemplatePiece) -> TextTemplate {
    let text = match piece {
        TemplatePiece::Text(text) => text.replace('{', "{{").replace('}', "}}"),
        TemplatePiece::Host => "{host}".to_owned(),
        TemplatePiece::Path => "{path}".to_owned(),
        TemplatePiece::Query => "{query}".to_owned(),
        TemplatePiece::Segment(number) => format!("{{path.{number}}}"),
        TemplatePiece::Header(name) => format!("{{header.{name}}}"),
        TemplatePiece::Client => "{client}".to_owned(),
        TemplatePiece::RequestId => "{request_id}".to_owned(),
        TemplatePiece::Route => "{route}".to_owned(),
        TemplatePiece::Scheme => "{scheme}".to_owned(),
    };
    TextTemplate::parse(&text).expect("a piece of a template is a template")
}

/// A path leads to this host, a written host to itself, and one of the request's where it may.
fn redirected(template: &TextTemplate, config: &RedirectConfig, parts: &Parts) {
    let (Ok(host), Some(redirect)) = (target_host(template), RouteRedirect::new(config)) else {
        return;
    };
    let answer = redirect.answer(source(parts));
    let Some(location) = answer.headers().get(LOCATION) else {
        assert_eq!(answer.status(), 400);
        return;
    };
    let location = location.to_str().expect("a target is a text");
    if host == TargetHost::Own {
        assert!(location.starts_with('/'), "{location}");
        assert!(!location[1..].starts_with(['/', '\\']), "{location}");
        return;
    }
    let uri: Uri = location.parse().expect("a target is a URL");
    let authority = uri.authority().expect("it has a host");
    let found = authority.as_str().to_ascii_lowercase();
    match host {
        TargetHost::Written(written) => assert_eq!(found, written),
        _ => assert!(
            !found.contains('@') && !config.allow_hosts.is_empty(),
            "{location}"
        ),
    }
}
