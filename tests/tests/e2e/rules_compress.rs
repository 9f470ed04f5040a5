//! Compression (traffic.md, section 6): what origins are asked, what clients get, and that no client
//! gets a coding that it did not ask for.

use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use e2e::browser::Browser;
use e2e::client::{Answer, Streaming};
use e2e::fleet::{Fleet, Pages, node};
use e2e::gateway::Gateway;
use e2e::nats::Nats;
use e2e::origin::{Origin, Seen};
use e2e::redis::Redis;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use http::Method;
use lamina_http::coding::ContentCoding::{self, Brotli, Gzip, Zstd};
use lamina_http::coding::decode::{BodyDecoder, decode};
use lamina_http::coding::encode::{CodingLevels, encode};
use serde_json::{Value, json};

const TAG: &str = "\"v1\"";
const LEVELS: CodingLevels = CodingLevels {
    gzip: 6,
    brotli: 5,
    zstd: 3,
};

fn text() -> Vec<u8> {
    let line = |n: u32| format!("<p>line {n} of a page that is long enough to be compressed</p>\n");
    (0..400).flat_map(|n| line(n).into_bytes()).collect()
}

fn coded(coding: ContentCoding) -> Vec<u8> {
    let text = text();
    encode(coding, &LEVELS, &text, text.len()).unwrap()
}

/// The page of an origin that heeds `Accept-Encoding` as far as this coding goes.
fn page(seen: &Seen, coding: Option<ContentCoding>) -> Reply {
    let taken = coding.filter(|coding| seen.header("accept-encoding").contains(coding.as_str()));
    let reply = match taken {
        None => Reply::fresh(text()),
        Some(coding) => Reply::fresh(coded(coding)).header("content-encoding", coding.as_str()),
    };
    match seen.header("if-none-match") == TAG {
        true => Reply::status_only(304).header("etag", TAG),
        false => reply
            .header("etag", TAG)
            .header("content-type", "text/html")
            .header("accept-ranges", "bytes")
            .header("vary", "accept-encoding"),
    }
}

async fn site(origin: &Origin, compress: &str) -> Gateway {
    let route = format!("{{name: site, upstream: origin, compress: {compress}}}");
    Setup::new(origin).route(&route).start().await
}

async fn ask(gateway: &Gateway, target: &str, fields: &[(&str, &str)]) -> Answer {
    let ask = gateway.client().request(target);
    let ask = fields
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value));
    ask.send().await
}

/// The answer to a client that takes this, as soon as it has this coding.
async fn with_coding(gateway: &Gateway, target: &str, takes: &str, coding: &str) -> Answer {
    let what = format!("{target} has the coding {coding:?} for {takes:?}");
    wait_for(&what, SOON * 3, || async {
        let answer = ask(gateway, target, &[("accept-encoding", takes)]).await;
        (answer.header("content-encoding") == coding).then_some(answer)
    })
    .await
}

/// The content without its coding.
fn plain(answer: &Answer) -> Bytes {
    let coding = answer.header("content-encoding");
    match ContentCoding::named(coding.as_bytes()) {
        Some(coding) => decode(coding, &answer.body, 1 << 20).unwrap().into(),
        None => {
            assert_eq!(coding, "");
            answer.body.clone()
        }
    }
}

fn varies(answer: &Answer) -> bool {
    let lines = answer.headers.get_all("vary").into_iter();
    let lines = lines.filter_map(|line| line.to_str().ok());
    lines
        .flat_map(|line| line.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("accept-encoding"))
}

/// Z1, Z2, Z3, Z4, Z7, Z8.
#[tokio::test]
async fn one_entry_serves_all_clients_and_the_origin_sees_one_word() {
    let origin = Origin::pages(|seen| page(seen, None)).await;
    let gateway = site(&origin, "{}").await;
    let first = ask(
        &gateway,
        "/",
        &[("accept-encoding", "gzip, deflate, br, zstd")],
    )
    .await;
    assert_eq!(
        first.body,
        text(),
        "the first client of a miss gets what there is"
    );
    assert!(varies(&first));
    for (takes, coding) in [
        ("gzip, deflate, br, zstd", "br"),
        ("zstd, gzip", "zstd"),
        ("gzip", "gzip"),
        ("gzip;q=1.0, br;q=0.5", "gzip"),
        ("br;q=0, *", "zstd"),
        ("*", "br"),
        ("identity", ""),
        ("", ""),
        ("gzip;q=0", ""),
        ("identity;q=0", ""),
        ("deflate", ""),
    ] {
        let answer = with_coding(&gateway, "/", takes, coding).await;
        assert!(answer.is_hit(), "{takes}");
        assert_eq!(plain(&answer), text(), "{takes}");
        assert!(varies(&answer), "{takes}");
        let length = answer.header("content-length").to_owned();
        assert_eq!(length, answer.body.len().to_string(), "{takes}");
        let (tag, ranges) = match coding {
            "" => (TAG.to_owned(), "bytes"),
            _ => (format!("W/{TAG}"), ""),
        };
        assert_eq!(answer.header("etag"), tag, "{takes}");
        assert_eq!(answer.header("accept-ranges"), ranges, "{takes}");
        let head = gateway.client().ask(Method::HEAD, "/");
        let head = head.header("accept-encoding", takes).send().await;
        for field in [
            "content-encoding",
            "content-length",
            "etag",
            "vary",
            "content-type",
        ] {
            assert_eq!(
                head.header(field),
                answer.header(field),
                "{takes}: {field} of HEAD"
            );
        }
    }
    assert_eq!(origin.count(), 1);
    assert_eq!(origin.last().header("accept-encoding"), "gzip");
    let saved = gateway
        .metric("lamina_compress_saved_bytes_total", &[])
        .await;
    assert!(saved > 1000.0, "{saved}");
}

/// What a client and its request are in the matrix.
#[derive(Clone, Copy, Debug)]
struct MatrixCase {
    base: Option<ContentCoding>,
    takes: Option<ContentCoding>,
    none_match: Option<&'static str>,
    range: Option<Option<&'static str>>,
}

/// What the answer must be, by the RFC and the page alone.
#[derive(PartialEq, Eq, Debug)]
struct ExpectedAnswer {
    status: u16,
    coding: &'static str,
    body: Vec<u8>,
    tag: String,
    varies: bool,
}

impl MatrixCase {
    fn expected(self) -> ExpectedAnswer {
        let strong = TAG.to_owned();
        let weak = format!("W/{TAG}");
        // The stored octets are for who takes their coding.
        let stored = self.base.map_or_else(text, coded);
        let gets_stored = self.base.is_none_or(|base| self.takes == Some(base));
        let stored_coding = self.base.map_or("", ContentCoding::as_str);
        let encoded = self
            .takes
            .filter(|takes| self.range.is_none() && self.base != Some(*takes));
        if matches!(self.none_match, Some("\"v1\"" | "W/\"v1\"" | "*")) {
            let tag = match gets_stored && encoded.is_none() {
                true => strong,
                false => weak,
            };
            return ExpectedAnswer {
                status: 304,
                coding: "",
                body: Vec::new(),
                tag,
                varies: true,
            };
        }
        let in_force = match self.range {
            // RFC 9110 §13.1.5: the strong comparison.
            Some(condition) => gets_stored && condition.is_none_or(|condition| condition == TAG),
            None => false,
        };
        let (status, coding, body, tag) = match (in_force, encoded) {
            (true, _) => (206, stored_coding, stored[..10].to_vec(), strong),
            (false, Some(coding)) => (200, coding.as_str(), text(), weak),
            (false, None) if gets_stored => (200, stored_coding, text(), strong),
            (false, None) => (200, "", text(), weak),
        };
        ExpectedAnswer {
            status,
            coding,
            body,
            tag,
            varies: true,
        }
    }
}

/// Z3, Z4, Z5, Z14: ETag × encoding × conditional × range.
#[tokio::test]
async fn etags_encodings_conditions_and_ranges_agree_with_an_oracle() {
    for base in [None, Some(Gzip), Some(Brotli), Some(Zstd)] {
        let origin = Origin::pages(move |_| {
            // It does not heed what it is asked for.
            let reply = Reply::fresh(base.map_or_else(text, coded));
            let reply = match base {
                None => reply,
                Some(base) => reply.header("content-encoding", base.as_str()),
            };
            reply
                .header("etag", TAG)
                .header("content-type", "text/html")
        })
        .await;
        let gateway = site(&origin, "{}").await;
        for coding in [Gzip, Brotli, Zstd] {
            with_coding(&gateway, "/", coding.as_str(), coding.as_str()).await;
        }
        for takes in [None, Some(Gzip), Some(Brotli), Some(Zstd)] {
            for none_match in [
                None,
                Some(TAG),
                Some("W/\"v1\""),
                Some("\"other\""),
                Some("*"),
            ] {
                for range in [None, Some(None), Some(Some(TAG)), Some(Some("W/\"v1\""))] {
                    let case = MatrixCase {
                        base,
                        takes,
                        none_match,
                        range,
                    };
                    let mut fields = Vec::new();
                    fields.extend(takes.map(|takes| ("accept-encoding", takes.as_str())));
                    fields.extend(none_match.map(|tag| ("if-none-match", tag)));
                    fields.extend(range.map(|_| ("range", "bytes=0-9")));
                    fields.extend(range.flatten().map(|tag| ("if-range", tag)));
                    let answer = ask(&gateway, "/", &fields).await;
                    let body = match answer.status.as_u16() {
                        206 => answer.body.to_vec(),
                        _ => plain(&answer).to_vec(),
                    };
                    let got = ExpectedAnswer {
                        status: answer.status.as_u16(),
                        coding: match ContentCoding::named(
                            answer.header("content-encoding").as_bytes(),
                        ) {
                            Some(coding) => coding.as_str(),
                            None => "",
                        },
                        body,
                        tag: answer.header("etag").to_owned(),
                        varies: varies(&answer),
                    };
                    assert_eq!(got, case.expected(), "{case:?}");
                }
            }
        }
        // RFC 9111 §4.3.2: a cache does not evaluate it, so no form of the tag refuses a hit.
        for tag in [TAG, "W/\"v1\"", "\"other\""] {
            let answer = ask(&gateway, "/", &[("if-match", tag)]).await;
            assert!(answer.status == 200 && answer.is_hit(), "{base:?} {tag}");
        }
        assert_eq!(origin.count(), 1);
    }
}

/// Z5: a range that is kept as a part is one of octets without a coding.
#[tokio::test]
async fn parts_that_are_kept_are_never_compressed() {
    let origin = Origin::pages(|seen| {
        let text = text();
        let reply = match seen.header("range") {
            "" => Reply::fresh(text),
            range => {
                let ends = range.trim_start_matches("bytes=").split_once('-').unwrap();
                let first: usize = ends.0.parse().unwrap();
                let last = ends.1.parse().unwrap_or(usize::MAX).min(text.len() - 1);
                let place = format!("bytes {first}-{last}/{}", text.len());
                Reply::fresh(text[first..=last].to_vec())
                    .status(206)
                    .header("content-range", &place)
            }
        };
        reply
            .header("etag", TAG)
            .header("content-type", "text/html")
    })
    .await;
    let route = "{name: site, upstream: origin, compress: {}, policy: {ranges: parts}}";
    let gateway = Setup::new(&origin).route(route).start().await;
    for round in 0..3 {
        for takes in ["br", "zstd", "gzip", ""] {
            let fields = [("range", "bytes=10-4999"), ("accept-encoding", takes)];
            let part = ask(&gateway, "/", &fields).await;
            assert_eq!(part.status, 206, "{takes} in round {round}");
            assert_eq!(part.header("content-encoding"), "", "{takes}");
            assert_eq!(part.body, text()[10..5000], "{takes}");
        }
    }
    assert_eq!(origin.count(), 1, "it is kept");
    // All that came before would have been made by then.
    with_coding(&gateway, "/whole", "br", "br").await;
    let made = [("outcome", "made")];
    assert_eq!(gateway.metric("lamina_compress_total", &made).await, 1.0);
}

/// Z6: what tells of the octets goes where other octets go out; and answers that have no content of
/// their own, or a part of one, are left alone.
#[tokio::test]
async fn what_tells_of_octets_is_right_for_those_that_go_out() {
    const MD5: &str = "Q2hlY2sgSW50ZWdyaXR5IQ==";
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/none" => Reply::status_only(204).header("cache-control", "max-age=60"),
        "/part" => Reply::fresh(text()[..5000].to_vec())
            .status(206)
            .header("content-range", &format!("bytes 0-4999/{}", text().len()))
            .header("content-type", "text/html"),
        target => {
            let base = (target == "/gzip").then_some(Gzip);
            page(seen, base).header("content-md5", MD5)
        }
    })
    .await;
    let gateway = Setup::new(&origin)
        .route("{name: passed, match: {path: [/none, /part]}, upstream: origin, cache: off, compress: {passes: true}}")
        .route("{name: site, upstream: origin, compress: {}}")
        .start()
        .await;
    for target in ["/", "/gzip"] {
        let coded = with_coding(&gateway, target, "br", "br").await;
        assert!(!coded.has("content-md5"), "{target}: an encoding of ours");
        assert_eq!(plain(&coded), text(), "{target}");
        let stored = match target {
            "/gzip" => "gzip",
            _ => "",
        };
        let as_sent = ask(&gateway, target, &[("accept-encoding", stored)]).await;
        assert_eq!(as_sent.header("content-encoding"), stored);
        assert_eq!(as_sent.header("content-md5"), MD5, "{target}: as it came");
    }
    let decoded = ask(&gateway, "/gzip", &[]).await;
    assert_eq!(decoded.header("content-encoding"), "");
    assert!(!decoded.has("content-md5"), "its coding is undone");
    for _ in 0..3 {
        let takes = ("accept-encoding", "br, gzip, zstd");
        let none = ask(&gateway, "/none", &[takes]).await;
        assert_eq!((none.status.as_u16(), none.body.len()), (204, 0));
        let part = ask(&gateway, "/part", &[takes, ("range", "bytes=0-4999")]).await;
        assert_eq!((part.status.as_u16(), part.body.len()), (206, 5000));
        for answer in [none, part] {
            assert!(!answer.has("content-encoding"), "{:?}", answer.headers);
        }
    }
}

/// Z1: an origin's gzip is given to who takes it and decoded for others, also while it arrives.
#[tokio::test]
async fn a_coding_of_the_origin_is_undone_for_who_does_not_take_it() {
    let origin = Origin::pages(|seen| page(seen, Some(Gzip))).await;
    let gateway = site(&origin, "{encodings: [gzip]}").await;
    for (target, takes, coding) in [("/1", "gzip", "gzip"), ("/2", "", ""), ("/3", "br", "")] {
        for hit in [false, true] {
            let answer = ask(&gateway, target, &[("accept-encoding", takes)]).await;
            assert_eq!(answer.is_hit(), hit);
            assert_eq!(answer.header("content-encoding"), coding, "{takes}");
            assert_eq!(plain(&answer), text(), "{takes}");
            assert!(varies(&answer));
        }
        let head = gateway.client().ask(Method::HEAD, target);
        let head = head.header("accept-encoding", takes).send().await;
        assert_eq!(head.header("content-encoding"), coding, "{takes}");
    }
    // A range of a client that takes no gzip is of no octets that we have.
    let part = ask(&gateway, "/1", &[("range", "bytes=0-9")]).await;
    assert_eq!((part.status.as_u16(), &part.body[..]), (200, &text()[..]));
    assert!(
        origin
            .seen()
            .iter()
            .all(|seen| seen.header("accept-encoding") == "gzip")
    );
}

/// Z13: what is damaged or expands without end reaches no client as if it were whole.
/// The form is chosen by what the client said, also where the copy is stale when it is shown.
#[tokio::test]
async fn a_stale_copy_has_the_form_of_its_client() {
    let mut origin = Origin::pages(|_| {
        Reply::ok(text())
            .header("cache-control", "max-age=60, stale-while-revalidate=86400")
            .header("age", "100")
            .header("content-type", "text/html")
            .header("etag", TAG)
    })
    .await;
    let gateway = site(&origin, "{}").await;
    ask(&gateway, "/", &[("accept-encoding", "gzip")]).await;
    origin.stop().await;
    let stale = with_coding(&gateway, "/", "gzip", "gzip").await;
    assert!(stale.header("cache-status").contains("detail="));
    assert_eq!(plain(&stale), text());
    assert_eq!(stale.header("etag"), format!("W/{TAG}"));
    let fields = [
        ("accept-encoding", "gzip"),
        ("if-none-match", stale.header("etag")),
    ];
    let unchanged = ask(&gateway, "/", &fields).await;
    assert_eq!(unchanged.status, 304);
    assert_eq!(unchanged.header("etag"), stale.header("etag"));
    assert!(varies(&unchanged));
    let other = ask(&gateway, "/", &[]).await;
    assert!(!other.has("content-encoding"));
    assert_eq!(other.body, text());
}

#[tokio::test]
async fn damaged_and_exploding_content_is_refused() {
    let origin = Origin::pages(|seen| {
        let body = match seen.path_only() {
            "/damaged" => coded(Gzip)[..400].to_vec(),
            _ => encode(Gzip, &LEVELS, &vec![0; 30 << 20], 1 << 20).unwrap(),
        };
        let reply = Reply::fresh(body).header("content-encoding", "gzip");
        reply.header("content-type", "text/html")
    })
    .await;
    let gateway = site(&origin, "{}").await;
    for target in ["/damaged", "/bomb"] {
        for _ in 0..2 {
            let asked = gateway
                .client()
                .unchecked()
                .request(target)
                .try_send()
                .await;
            let refused = asked.map_or(true, |answer| answer.status == 502);
            assert!(refused, "{target}");
        }
    }
}

/// It is an error as any other: with the page, the fields and the rules of its route.
#[tokio::test]
async fn content_that_cannot_be_decoded_is_an_error_like_the_others() {
    let origin = Origin::pages(|_| {
        let reply = Reply::fresh("no gzip at all").header("content-encoding", "gzip");
        reply.header("content-type", "text/html")
    })
    .await;
    let gateway = Setup::new(&origin)
        .top("limits", "{often: {rate: 100/s, fields: true}}")
        .route(
            "{name: site, upstream: origin, compress: {}, errors: [{statuses: [502]}], \
             request_id: on, security_headers: basic, limit: [often], \
             cors: {origins: [\"https://a.test\"]}, headers: {response: {set: {x-resp: y}}}}",
        )
        .start()
        .await;
    for _ in 0..2 {
        let fields = [("accept", "application/json"), ("origin", "https://a.test")];
        let answer = ask(&gateway, "/", &fields).await;
        assert_eq!(answer.status, 502);
        let told: Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(told["status"], 502);
        for (name, value) in [
            ("content-type", "application/problem+json"),
            ("access-control-allow-origin", "https://a.test"),
            ("cache-control", "no-store"),
            ("x-resp", "y"),
            ("x-content-type-options", "nosniff"),
        ] {
            assert_eq!(answer.header(name), value, "{name}");
        }
        for name in ["x-request-id", "ratelimit", "cache-status", "proxy-status"] {
            assert!(answer.has(name), "{name}: {:?}", answer.headers);
        }
    }
}

/// HD3, Z6: what the origin said decides, for the first client as for the others; what a rule says is
/// for clients.
#[tokio::test]
async fn rules_for_fields_do_not_change_what_is_encoded() {
    let origin = Origin::pages(|seen| {
        let reply = Reply::fresh(text()).header("content-type", "text/html");
        match seen.path_only() {
            "/fixed" => reply
                .without("cache-control")
                .header("cache-control", "max-age=60, no-transform"),
            _ => reply,
        }
    })
    .await;
    for (compress, rule, target, coding) in [
        ("{stream_min: 1B}", "remove: [cache-control]", "/fixed", ""),
        (
            "{stream_min: 1B}",
            "set: {cache-control: \"public, no-transform\"}",
            "/free",
            "gzip",
        ),
        (
            "{stream_min: 1B}",
            "set: {content-digest: x}",
            "/free",
            "gzip",
        ),
        (
            "{stream_min: 1B}",
            "set: {content-type: image/png}",
            "/free",
            "gzip",
        ),
        (
            "{stream_min: 1B}",
            "remove: [content-type]",
            "/free",
            "gzip",
        ),
        (
            "{passes: true}, cache: off",
            "remove: [cache-control]",
            "/fixed",
            "",
        ),
        (
            "{passes: true}, cache: off",
            "set: {cache-control: no-transform}",
            "/free",
            "gzip",
        ),
    ] {
        let route = format!(
            "{{name: site, upstream: origin, compress: {compress}, headers: {{response: {{{rule}}}}}}}"
        );
        let gateway = Setup::new(&origin).route(&route).start().await;
        let first = ask(&gateway, target, &[("accept-encoding", "gzip")]).await;
        assert_eq!(
            first.header("content-encoding"),
            coding,
            "{rule}: the first client"
        );
        assert!(varies(&first), "{rule}");
        let later = with_coding(&gateway, target, "gzip", coding).await;
        assert!(varies(&later), "{rule}");
        assert_eq!(plain(&later), text(), "{rule}");
    }
}

/// Z3: a 304 says what the whole answer says.
#[tokio::test]
async fn a_304_of_a_route_that_answers_by_itself_varies_as_its_answer() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .route(
            "{name: own, respond: {body: \"some text\"}, compress: {passes: true, min_bytes: 1B}}",
        )
        .start()
        .await;
    let client = gateway.client().uncached();
    let whole = client.get("/").await;
    let ask = client
        .request("/")
        .header("if-none-match", whole.header("etag"));
    let unchanged = ask.send().await;
    assert_eq!(
        (whole.status.as_u16(), unchanged.status.as_u16()),
        (200, 304)
    );
    assert!(varies(&whole) && varies(&unchanged));
}

/// Z7: the page for an error of the origin is compressed as what is not stored, and HEAD says of it what
/// GET says.
#[tokio::test]
async fn the_page_for_an_error_has_one_head_for_get_and_for_head() {
    let origin = Origin::pages(|seen| {
        let reply = Reply::fresh("gone").status(404);
        match seen.path_only() {
            "/stored" => reply,
            _ => reply.header("cache-control", "no-store"),
        }
    })
    .await;
    let page = "<p>a long sorry</p>".repeat(200);
    for (compress, coding) in [
        ("{}", ""),
        ("{passes: true}", "gzip"),
        ("{passes: true, min_bytes: 64KiB}", ""),
        ("{stream_min: 1KiB}", ""),
    ] {
        let rules = format!("compress: {compress}, errors: [{{of: any, file: sorry.html}}]");
        let gateway = Setup::new(&origin)
            .route(&format!("{{name: site, upstream: origin, {rules}}}"))
            .file("sorry.html", page.clone())
            .start()
            .await;
        for client in [gateway.client(), gateway.client_http2()] {
            for target in ["/stored", "/passed", "/stored", "/passed"] {
                let ask = |method: Method| {
                    let ask = client.ask(method, target).header("accept", "text/html");
                    ask.header("accept-encoding", "gzip").send()
                };
                let head = ask(Method::HEAD).await;
                let got = ask(Method::GET).await;
                assert_eq!(plain(&got), page, "{compress} {target}");
                for answer in [&head, &got] {
                    assert_eq!(
                        answer.header("content-encoding"),
                        coding,
                        "{compress} {target}"
                    );
                    assert!(varies(answer));
                }
                let (said, long) = (head.header("content-length"), got.body.len().to_string());
                assert!(
                    said.is_empty() || said == long,
                    "{compress} {target}: {said}"
                );
            }
        }
    }
}

/// Z6, Z9.
#[tokio::test]
async fn what_must_not_or_need_not_be_compressed_is_left_alone() {
    let origin = Origin::pages(|seen| {
        let reply = match seen.path_only() {
            "/small" => Reply::fresh("small ".repeat(20)),
            _ => Reply::fresh(text()),
        };
        let kind = match seen.path_only() {
            "/events" => "text/event-stream",
            "/picture" => "image/png",
            _ => "text/html",
        };
        let reply = reply.header("content-type", kind);
        match seen.path_only() {
            "/no-transform" => reply.header("cache-control", "max-age=60, no-transform"),
            "/digest" => reply.header("content-digest", "sha-256=:AAAA:"),
            "/repr-digest" => reply.header("repr-digest", "sha-256=:AAAA:"),
            "/unbuffered" => reply.header("x-accel-buffering", "no"),
            "/deflate" => reply.header("content-encoding", "deflate"),
            _ => reply,
        }
    })
    .await;
    let gateway = site(&origin, "{}").await;
    let takes = ("accept-encoding", "br, zstd, gzip");
    let alone = [
        "/small",
        "/events",
        "/picture",
        "/no-transform",
        "/digest",
        "/repr-digest",
        "/unbuffered",
        "/deflate",
    ];
    for round in 0..3 {
        for target in alone {
            let answer = ask(&gateway, target, &[takes]).await;
            let coding = answer.header("content-encoding");
            assert!(
                ["", "deflate"].contains(&coding),
                "{target} in round {round}"
            );
            let own = ask(
                &gateway,
                "/own",
                &[takes, ("cache-control", "no-transform")],
            )
            .await;
            assert_eq!(
                own.header("content-encoding"),
                "",
                "no-transform of the client"
            );
        }
        // All that came before would have been made by then.
        with_coding(&gateway, &format!("/compressed/{round}"), "br", "br").await;
    }
    let made = [("encoding", "br"), ("outcome", "made")];
    assert_eq!(gateway.metric("lamina_compress_total", &made).await, 3.0);
}

/// Z9, Z11, Z14: forms go with their entry; a renewed entry keeps them; no tier gives anybody what
/// it did not ask for.
#[tokio::test]
async fn forms_live_and_go_with_their_entry() {
    let origin = Origin::pages(|seen| page(seen, None)).await;
    let gateway = site(&origin, "{encodings: [gzip]}").await;
    with_coding(&gateway, "/", "gzip", "gzip").await;
    let made = [("encoding", "gzip"), ("outcome", "made")];
    let url = format!("http://{}/", gateway.address);
    gateway.purge(json!({ "url": url, "soft": true })).await;
    wait_for("the origin says that nothing has changed", SOON, || async {
        let answer = ask(&gateway, "/", &[("accept-encoding", "gzip")]).await;
        assert_eq!(
            answer.header("content-encoding"),
            "gzip",
            "{:?}",
            answer.headers
        );
        let renewed = origin
            .seen()
            .iter()
            .any(|seen| seen.header("if-none-match") == TAG);
        (renewed && answer.is_hit()).then_some(())
    })
    .await;
    assert_eq!(gateway.metric("lamina_compress_total", &made).await, 1.0);
    gateway.purge(json!({ "url": url })).await;
    let after = ask(&gateway, "/", &[("accept-encoding", "gzip")]).await;
    assert!(!after.is_hit());
    assert_eq!(
        after.header("content-encoding"),
        "",
        "a purge takes the forms as well"
    );
}

#[tokio::test]
async fn a_disk_brings_back_what_the_origin_sent_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("l2");
    let patience = crate::l2::PATIENCE;
    let l2 = format!("{{disk: {{path: \"{}\"}}, {patience}}}", path.display());
    let origin = Origin::pages(|seen| {
        let coding = (seen.path_only() == "/gzip").then_some(Gzip);
        page(seen, coding)
            .without("cache-control")
            .header("cache-control", "max-age=3600")
    })
    .await;
    let start = || async {
        Setup::new(&origin)
            .route("{name: site, match: {host: site.example}, upstream: origin, compress: {}}")
            .top("cache", &format!("{{l2: {l2}}}"))
            .start()
            .await
    };
    let get = |gateway: &Gateway, target: &str, takes: &str| {
        let ask = gateway.client().request(target).host("site.example");
        ask.header("accept-encoding", takes).send()
    };
    let mut first = start().await;
    for target in ["/plain", "/gzip"] {
        wait_for("a form is made", SOON * 3, || async {
            let answer = get(&first, target, "zstd").await;
            (answer.header("content-encoding") == "zstd").then_some(())
        })
        .await;
    }
    first.terminate();
    assert!(first.ended(SOON).await.success());
    let again = start().await;
    for target in ["/plain", "/gzip"] {
        for takes in ["", "br", "zstd", "gzip"] {
            let answer = get(&again, target, takes).await;
            assert!(answer.is_hit(), "{target}: {:?}", answer.headers);
            let coding = answer.header("content-encoding");
            assert!(
                coding.is_empty() || coding == takes,
                "{target}: {coding} for {takes}"
            );
            assert_eq!(plain(&answer), text());
        }
    }
    assert_eq!(origin.count(), 2);
}

/// Z11, Z14: another node that has its copy from the bus or from Redis gives each client what it takes.
async fn a_node_has_what_the_origin_sent(first: &Gateway, second: &Gateway, origin: &Origin) {
    let get = |gateway: &Gateway, target: &str, takes: &str| {
        let ask = gateway.client().uncached().request(target);
        let ask = ask.host("site.example").header("accept-encoding", takes);
        ask.header("cache-control", "only-if-cached").send()
    };
    for target in ["/plain", "/gzip"] {
        let load = first.client().request(target).host("site.example");
        load.send().await;
        wait_for("the first node has a form", SOON * 3, || async {
            let answer = get(first, target, "zstd").await;
            (answer.header("content-encoding") == "zstd").then_some(())
        })
        .await;
        let plain_one = wait_for("the second node has a copy", SOON * 3, || async {
            let answer = get(second, target, "").await;
            (answer.status == 200).then_some(answer)
        })
        .await;
        assert_eq!(plain_one.header("content-encoding"), "", "{target}");
        assert_eq!(plain(&plain_one), text(), "{target}");
        for takes in ["gzip", "br", "zstd", ""] {
            let answer = get(second, target, takes).await;
            assert_eq!(answer.status, 200, "{target}");
            let coding = answer.header("content-encoding");
            assert!(
                coding.is_empty() || coding == takes,
                "{target}: {coding} for {takes}"
            );
            let is_as_sent = target == "/gzip" && takes == "gzip";
            assert!(!is_as_sent || coding == "gzip", "{target}: {coding}");
            assert_eq!(plain(&answer), text(), "{target} for {takes}");
        }
    }
    assert_eq!(origin.count(), 2, "the second node has asked nobody");
}

async fn of_both_codings() -> Origin {
    Origin::pages(|seen| {
        let coding = (seen.path_only() == "/gzip").then_some(Gzip);
        page(seen, coding)
            .without("cache-control")
            .header("cache-control", "max-age=3600")
    })
    .await
}

const NODE_ROUTE: &str =
    "{name: site, upstream: origin, compress: {}, policy: {request_directives: honor}}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_redis_nodes_share_what_the_origin_sent_and_nothing_else() {
    let redis = Redis::start().await;
    let origin = of_both_codings().await;
    let cache = format!(
        "{{l2: {{redis: {{url: \"{}\", connect_timeout: 1m, silence_timeout: 10m}}, {}}}}}",
        redis.url(),
        crate::l2::PATIENCE
    );
    let setup = Setup::new(&origin).top("cache", &cache).route(NODE_ROUTE);
    let (first, second) = (setup.start().await, setup.start().await);
    a_node_has_what_the_origin_sent(&first, &second, &origin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_the_bus_nodes_share_what_the_origin_sent_and_nothing_else() {
    let nats = Nats::start().await;
    let origin = of_both_codings().await;
    let bus = format!(
        "priming: always, nats: {{servers: [\"nats://127.0.0.1:{}\"]}}",
        nats.port
    );
    let mut nodes = Vec::new();
    for name in ["a", "b"] {
        nodes.push(node(&origin, name, &bus).route(NODE_ROUTE).start().await);
    }
    let fleet = Fleet {
        origin,
        pages: Pages::default(),
        nodes,
    };
    fleet.whole().await;
    a_node_has_what_the_origin_sent(&fleet.nodes[0], &fleet.nodes[1], &fleet.origin).await;
}

/// What the first bytes of an answer under way say, once at least so many are decoded. None of them
/// waits for a further piece from the origin.
async fn first_decoded(open: &mut Streaming, coding: ContentCoding, least: usize) -> Vec<u8> {
    let mut decoder = BodyDecoder::new(coding);
    let (mut read, mut room) = (Vec::new(), vec![0; 4096]);
    while read.len() < least {
        let piece = open
            .piece()
            .await
            .expect("a piece before the next is sent")
            .unwrap();
        let mut rest = &piece[..];
        while !rest.is_empty() {
            let step = decoder.step(rest, &mut room).unwrap();
            read.extend_from_slice(&room[..step.written]);
            rest = &rest[step.read..];
        }
    }
    read
}

/// Z12, and the flush of Z8.
#[tokio::test]
async fn what_is_not_stored_is_compressed_only_where_the_route_says_so() {
    let (pieces, streams) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |asked| {
        let pieces = pieces.clone();
        async move {
            match asked.seen.path_only() {
                "/stream" | "/passes/stream" => {
                    let (reply, sender) = Reply::stream();
                    pieces.send(sender).unwrap();
                    reply.header("content-type", "text/html")
                }
                _ => Reply::ok(text())
                    .header("content-type", "text/html")
                    .header("etag", TAG),
            }
        }
    })
    .await;
    let mut streams = streams;
    let gateway = Setup::new(&origin)
        .route("{name: passes, match: {path: /passes/*}, upstream: origin, cache: off, compress: {passes: true}}")
        .route("{name: site, upstream: origin, cache: off, compress: {}}")
        .start()
        .await;
    let takes = ("accept-encoding", "br, gzip");
    let answer = ask(&gateway, "/", &[takes]).await;
    assert_eq!(answer.header("content-encoding"), "");
    assert_eq!(
        origin.last().header("accept-encoding"),
        "br, gzip",
        "the client's own"
    );
    let answer = ask(&gateway, "/passes/", &[takes]).await;
    assert_eq!(
        answer.header("content-encoding"),
        "gzip",
        "there is no br of a piece at a time"
    );
    assert_eq!(answer.header("etag"), "W/\"v1\"");
    assert!(varies(&answer));
    assert_eq!(plain(&answer), text());

    let open = gateway
        .client()
        .request("/passes/stream")
        .header("accept-encoding", "zstd");
    let open = tokio::spawn(open.open());
    let sender = streams.recv().await.unwrap();
    sender.send("first piece, ".repeat(100)).await;
    let mut open = open.await.unwrap();
    assert_eq!(open.headers["content-encoding"], "zstd");
    let read = first_decoded(&mut open, Zstd, 1300).await;
    assert_eq!(read, "first piece, ".repeat(100).into_bytes());
    sender.finish().await;
}

/// The last sentence of Z8: what is large need not wait for its first client's whole download.
#[tokio::test]
async fn a_large_answer_is_encoded_while_it_is_loaded() {
    let (pieces, mut streams) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |asked| {
        let pieces = pieces.clone();
        async move {
            match asked.seen.path_only() {
                "/stream" => {
                    let (reply, sender) = Reply::stream();
                    pieces.send(sender).unwrap();
                    reply
                        .header("content-type", "text/html")
                        .header("cache-control", "max-age=60")
                }
                "/small" => Reply::fresh("small ".repeat(300)).header("content-type", "text/html"),
                _ => page(&asked.seen, None),
            }
        }
    })
    .await;
    let gateway = site(&origin, "{stream_min: 8KiB}").await;
    let takes = ("accept-encoding", "zstd, gzip;q=0.5");
    let first = ask(&gateway, "/", &[takes]).await;
    assert_eq!(
        (first.header("content-encoding"), first.is_hit()),
        ("zstd", false)
    );
    assert_eq!(
        (first.header("etag"), first.header("accept-ranges")),
        ("W/\"v1\"", "")
    );
    assert!(varies(&first) && !first.has("content-length"));
    assert_eq!(plain(&first), text());
    let stored = ask(&gateway, "/", &[]).await;
    assert!(stored.is_hit());
    assert_eq!(
        (&stored.body[..], stored.header("etag")),
        (&text()[..], TAG)
    );
    let made = with_coding(&gateway, "/", "zstd", "zstd").await;
    assert!(
        made.is_hit() && made.has("content-length"),
        "made once, behind the answers"
    );
    let part = ask(&gateway, "/part", &[takes, ("range", "bytes=0-9")]).await;
    assert_eq!(
        (part.status.as_u16(), part.header("content-encoding")),
        (206, "")
    );
    let small = ask(&gateway, "/small", &[takes]).await;
    assert_eq!(small.header("content-encoding"), "", "it waits for nothing");

    let open = gateway
        .client()
        .request("/stream")
        .header("accept-encoding", "gzip");
    let open = tokio::spawn(open.open());
    let sender = streams.recv().await.unwrap();
    sender.send("first piece, ".repeat(100)).await;
    let mut open = open.await.unwrap();
    assert_eq!(open.headers["content-encoding"], "gzip");
    let read = first_decoded(&mut open, Gzip, 1300).await;
    assert_eq!(read, "first piece, ".repeat(100).into_bytes());
    sender.finish().await;
}

/// What is asked for a lot is worth a better encoding, made once.
#[tokio::test]
async fn what_is_hot_is_encoded_once_more() {
    let origin = Origin::pages(|seen| page(seen, None)).await;
    let gateway = site(&origin, "{levels: {br: 0}, hot: {br: 9, after_hits: 20}}").await;
    let first = with_coding(&gateway, "/", "br", "br").await.body.len();
    let better = wait_for("a smaller form", SOON * 3, || async {
        let answer = with_coding(&gateway, "/", "br", "br").await;
        assert_eq!(plain(&answer), text());
        assert!(answer.is_hit());
        (answer.body.len() < first).then_some(answer)
    })
    .await;
    let made = [("encoding", "br"), ("outcome", "made")];
    assert_eq!(gateway.metric("lamina_compress_total", &made).await, 2.0);
    for _ in 0..30 {
        let again = with_coding(&gateway, "/", "br", "br").await;
        assert_eq!(again.body, better.body);
    }
    assert_eq!(gateway.metric("lamina_compress_total", &made).await, 2.0);
    gateway
        .purge(json!({"url": format!("http://{}/", gateway.address)}))
        .await;
    assert!(
        !ask(&gateway, "/", &[("accept-encoding", "br")])
            .await
            .is_hit()
    );
}

/// Z2 and Z1 in the words of `explain`, and what `validate` says.
#[tokio::test]
async fn explain_and_validate_tell_of_it() {
    let origin = Origin::pages(|seen| page(seen, None)).await;
    let gateway = Setup::new(&origin)
        .top(
            "defaults",
            "{ttl: 5s, compress: {encodings: [zstd], origin: identity}}",
        )
        .start()
        .await;
    let url = json!({"url": "http://a.example/"}).to_string();
    let told = gateway.admin(Method::POST, "/v1/explain", &url).await;
    let wanted = "compress: zstd; the origin is asked for identity";
    assert!(told.text.contains(wanted), "{}", told.text);
    with_coding(&gateway, "/", "zstd", "zstd").await;
    assert_eq!(origin.last().header("accept-encoding"), "identity");
}

const PLACES: [(&str, &str); 3] = [("br", "br"), ("zstd", "zstd"), ("gzip", "gzip")];

/// Asks for each text until it comes with its coding, and reports what it read.
const SCRIPT: &str = r#"<!doctype html><meta charset=utf-8><title>codings</title>
<link rel=icon href="data:,">
<script>
(async () => {
  const report = {};
  for (const coding of ["br", "zstd", "gzip"]) {
    for (let tries = 0; tries < 200; tries += 1) {
      const answer = await fetch(`/${coding}/text`, { cache: "no-store" });
      const text = await answer.text();
      const came = answer.headers.get("content-encoding");
      report[coding] = { came, text };
      if (came === coding) break;
      await new Promise(done => setTimeout(done, 50));
    }
    // The same as a document, which the browser renders.
    const frame = document.createElement("iframe");
    const loaded = new Promise(done => frame.onload = done);
    frame.src = `/${coding}/text`;
    document.documentElement.append(frame);
    await loaded;
    const lines = [...frame.contentDocument.querySelectorAll("p")];
    report[coding].rendered = lines.map(line => line.textContent);
  }
  fetch("/report", { method: "POST", body: JSON.stringify(report) });
})();
</script>
"#;

fn browsed(seen: &Seen) -> Reply {
    match seen.path_only() {
        "/" => Reply::fresh(SCRIPT).header("content-type", "text/html"),
        "/report" => Reply::status_only(204),
        _ => Reply::fresh(text()).header("content-type", "text/html"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_and_curl_read_all_encodings() {
    let origin = Arc::new(Origin::pages(browsed).await);
    let mut setup = Setup::new(&origin);
    for (place, coding) in PLACES {
        setup = setup.route(&format!(
            "{{name: {place}, match: {{path: /{place}/*}}, upstream: origin, compress: {{encodings: [{coding}]}}}}"
        ));
    }
    let gateway = setup.route("{name: site, upstream: origin}").start().await;
    let url = format!("http://127.0.0.1:{}", gateway.address.port());
    let _browser = Browser::open(&format!("{url}/"));
    let report = wait_for("the page has reported", SOON * 3, || async {
        let seen = origin.seen();
        let report = seen.into_iter().find(|seen| seen.path == "/report");
        report.and_then(|report| report.body)
    })
    .await;
    let report: Value = serde_json::from_slice(&report).unwrap();
    let text = String::from_utf8(text()).unwrap();
    for (_, coding) in PLACES {
        let line = |line: &str| line.replace("<p>", "").replace("</p>", "");
        let rendered: Vec<String> = text.lines().map(line).collect();
        let wanted = json!({"came": coding, "text": text, "rendered": rendered});
        assert!(report[coding] == wanted, "{coding}: {}", report[coding]);
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--compressed", "--max-time", "20"]);
        curl.arg(format!("{url}/{coding}/text"));
        let ran = tokio::task::spawn_blocking(move || curl.output());
        let read = ran.await.unwrap().unwrap().stdout;
        assert_eq!(String::from_utf8_lossy(&read), text, "curl: {coding}");
    }
}
