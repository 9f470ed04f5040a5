//! What a client of HTTP/3 must not send, and the code that it gets for it (RFC 9114, RFC 9204).
//! Each fault is one of its own connection or stream: a client beside it is served all the time.

use e2e::h3::SecuredGateway;
use e2e::h3::raw::{
    RawEnd, RawH3, code, frame, frame_head, headers, kind, number, one_way, section, settings,
};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_until, within};
use http_body_util::BodyExt;

async fn site() -> (Origin, SecuredGateway) {
    let origin = Origin::pages(|seen| match &seen.body {
        Some(body) if !body.is_empty() => {
            Reply::ok(body.clone()).header("cache-control", "no-store")
        }
        _ => Reply::fresh("page"),
    })
    .await;
    let secured = SecuredGateway::start(Setup::new(&origin)).await;
    (origin, secured)
}

/// Puts what a client wrote beside what it gets for it.
struct FrameVerdicts<'a> {
    secured: &'a SecuredGateway,
    /// A client that does nothing wrong.
    bystander: RawH3,
    count: usize,
}

impl<'a> FrameVerdicts<'a> {
    async fn begin(secured: &'a SecuredGateway) -> Self {
        let bystander = secured.raw().await;
        Self {
            secured,
            bystander,
            count: 0,
        }
    }

    /// The connection must end with this code, and that of the bystander must not.
    async fn closes(&mut self, what: &str, raw: &RawH3, code: u64) {
        assert_eq!(raw.closed().await, RawEnd::Closed(code), "{what}");
        self.bystander_is_served(what).await;
    }

    async fn bystander_is_served(&mut self, what: &str) {
        assert!(self.bystander.answers("/").await, "beside: {what}");
        self.count += 1;
    }

    /// Writes a control stream that begins with these bytes.
    async fn control(&mut self, what: &str, bytes: Vec<u8>, code: u64) {
        let mut raw = self.secured.bare().await;
        raw.open_one_way(one_way::CONTROL, bytes).await;
        self.closes(what, &raw, code).await;
    }

    /// Writes a one-way stream beside a good control stream.
    async fn one_way(&mut self, what: &str, kind: u64, bytes: &[u8], code: u64) {
        let mut raw = self.secured.raw().await;
        raw.open_one_way(kind, bytes).await;
        self.closes(what, &raw, code).await;
    }

    /// Writes a request that ends the whole connection.
    async fn request(&mut self, what: &str, bytes: Vec<u8>, code: u64) {
        let raw = self.secured.raw().await;
        // The fault may be told before or after the client has asked for the answer.
        assert_eq!(raw.ask(bytes).await, RawEnd::Closed(code), "{what}");
        self.closes(what, &raw, code).await;
    }
}

fn get() -> Vec<u8> {
    headers(&[
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "shop.test"),
        (":path", "/"),
    ])
}

#[tokio::test]
async fn a_control_stream_begins_with_settings_that_come_once() {
    let (_origin, secured) = site().await;
    let mut verdicts = FrameVerdicts::begin(&secured).await;
    for (what, first) in [
        ("GOAWAY first", frame(kind::GOAWAY, number(0))),
        ("MAX_PUSH_ID first", frame(kind::MAX_PUSH_ID, number(0))),
        ("an unknown frame first", frame(kind::GREASE, b"x")),
        ("DATA first", frame(kind::DATA, b"x")),
    ] {
        verdicts.control(what, first, code::MISSING_SETTINGS).await;
    }
    let twice = [settings(&[]), settings(&[])].concat();
    verdicts
        .control("SETTINGS twice", twice, code::FRAME_UNEXPECTED)
        .await;
    assert_eq!(verdicts.count, 5);
}

#[tokio::test]
async fn settings_are_short_known_once_and_not_those_of_http2() {
    let (_origin, secured) = site().await;
    let mut verdicts = FrameVerdicts::begin(&secured).await;
    for id in [0x2, 0x3, 0x4, 0x5] {
        let what = format!("setting {id} of HTTP/2");
        verdicts
            .control(&what, settings(&[(id, 1)]), code::SETTINGS)
            .await;
    }
    verdicts
        .control(
            "a setting twice",
            settings(&[(6, 1), (6, 1)]),
            code::SETTINGS,
        )
        .await;
    verdicts
        .control(
            "an unknown setting twice",
            settings(&[(0x40, 1), (6, 9), (0x40, 2)]),
            code::SETTINGS,
        )
        .await;
    let half = frame(kind::SETTINGS, number(6));
    verdicts
        .control("a setting without a value", half, code::FRAME)
        .await;
    let half = frame(kind::SETTINGS, [6, 0x80, 0, 0]);
    verdicts.control("half a value", half, code::FRAME).await;
    let long = frame(kind::SETTINGS, vec![0; 5 << 10]);
    verdicts
        .control("SETTINGS of 5 KiB", long, code::EXCESSIVE_LOAD)
        .await;
    let long = frame_head(kind::SETTINGS, 1 << 30);
    verdicts
        .control(
            "SETTINGS of 1 GiB that never come",
            long,
            code::EXCESSIVE_LOAD,
        )
        .await;
    // Many that are not known are no fault (RFC 9114 §7.2.4.1).
    let mut raw = secured.bare().await;
    let unknown: Vec<_> = (0..200).map(|n| (0x1f * n + 0x21, n)).collect();
    let known = [(0x1, 0), (0x6, 1 << 20), (0x7, 0), (0x8, 0), (0x33, 1)];
    raw.open_one_way(one_way::CONTROL, settings(&[&unknown[..], &known].concat()))
        .await;
    assert!(raw.answers("/").await);
    assert_eq!(verdicts.count, 10);
}

#[tokio::test]
async fn our_settings_have_no_dynamic_table_and_tell_the_limit_of_a_section() {
    let (_origin, secured) = site().await;
    let raw = secured.raw().await;
    wait_until("the gateway's settings come", SOON, || {
        raw.seen().settings.is_some()
    })
    .await;
    let settings = raw.seen().settings.unwrap();
    let value = |id| {
        settings
            .iter()
            .find(|(known, _)| *known == id)
            .map(|(_, value)| *value)
    };
    assert_eq!(value(0x1).unwrap_or(0), 0, "QPACK_MAX_TABLE_CAPACITY");
    assert_eq!(value(0x7).unwrap_or(0), 0, "QPACK_BLOCKED_STREAMS");
    assert_eq!(value(0x6), Some(32 << 10), "MAX_FIELD_SECTION_SIZE");
    assert_eq!(value(0x8).unwrap_or(0), 0, "ENABLE_CONNECT_PROTOCOL");
    assert_eq!(value(0x33).unwrap_or(0), 0, "H3_DATAGRAM");
}

#[tokio::test]
async fn frames_on_a_control_stream_have_their_place_and_their_form() {
    let (_origin, secured) = site().await;
    let mut verdicts = FrameVerdicts::begin(&secured).await;
    let after = |more: Vec<u8>| [settings(&[]), more].concat();
    for (name, unexpected) in [
        ("DATA", kind::DATA),
        ("HEADERS", kind::HEADERS),
        ("PUSH_PROMISE", kind::PUSH_PROMISE),
        ("PRIORITY", kind::PRIORITY_OF_HTTP2),
        ("PING", kind::PING_OF_HTTP2),
        ("WINDOW_UPDATE", kind::WINDOW_UPDATE_OF_HTTP2),
        ("CONTINUATION", kind::CONTINUATION_OF_HTTP2),
    ] {
        let bytes = after(frame(unexpected, [0; 4]));
        verdicts.control(name, bytes, code::FRAME_UNEXPECTED).await;
    }
    for (what, bytes, code) in [
        (
            "GOAWAY with two numbers",
            frame(kind::GOAWAY, [0, 0]),
            code::FRAME,
        ),
        ("GOAWAY with none", frame(kind::GOAWAY, []), code::FRAME),
        (
            "GOAWAY of 1 GiB",
            frame_head(kind::GOAWAY, 1 << 30),
            code::FRAME,
        ),
        (
            "MAX_PUSH_ID that shrinks",
            [
                frame(kind::MAX_PUSH_ID, number(9)),
                frame(kind::MAX_PUSH_ID, number(8)),
            ]
            .concat(),
            code::ID,
        ),
        (
            "CANCEL_PUSH of a push that was not promised",
            frame(kind::CANCEL_PUSH, number(0)),
            code::ID,
        ),
        (
            "an unknown frame of 1 GiB",
            frame_head(kind::GREASE, 1 << 30),
            code::EXCESSIVE_LOAD,
        ),
    ] {
        verdicts.control(what, after(bytes), code).await;
    }
    assert_eq!(verdicts.count, 13);
    // What is in its place is borne.
    let mut raw = secured.raw().await;
    for bytes in [
        frame(kind::GREASE, b"whatever"),
        frame(kind::PRIORITY_UPDATE, [&number(0)[..], b"u=1"].concat()),
        frame(kind::MAX_PUSH_ID, number(8)),
        frame(kind::MAX_PUSH_ID, number(8)),
        frame(kind::GOAWAY, number(0)),
    ] {
        raw.control().write_all(&bytes).await.unwrap();
        assert!(raw.answers("/").await, "{bytes:?}");
    }
}

#[tokio::test]
async fn streams_that_may_come_once_come_once_and_stay() {
    let (_origin, secured) = site().await;
    let mut verdicts = FrameVerdicts::begin(&secured).await;
    let second = settings(&[]);
    verdicts
        .one_way(
            "a second control stream",
            one_way::CONTROL,
            &second,
            code::STREAM_CREATION,
        )
        .await;
    verdicts
        .one_way(
            "a push stream",
            one_way::PUSH,
            &number(0),
            code::STREAM_CREATION,
        )
        .await;
    for kind in [one_way::ENCODER, one_way::DECODER] {
        let mut raw = secured.raw().await;
        raw.open_one_way(kind, []).await;
        assert!(raw.answers("/").await);
        raw.open_one_way(kind, []).await;
        verdicts
            .closes("a second stream of QPACK", &raw, code::STREAM_CREATION)
            .await;
        for reset in [false, true] {
            let raw = secured.raw().await;
            let mut stream = raw.one_way(kind, []).await;
            assert!(raw.answers("/").await);
            match reset {
                true => stream.reset(0x100_u32.into()).unwrap(),
                false => stream.finish().unwrap(),
            }
            verdicts
                .closes(
                    "the end of a stream of QPACK",
                    &raw,
                    code::CLOSED_CRITICAL_STREAM,
                )
                .await;
        }
    }
    for reset in [false, true] {
        let mut raw = secured.raw().await;
        assert!(raw.answers("/").await);
        match reset {
            true => raw.control().reset(0x100_u32.into()).unwrap(),
            false => raw.control().finish().unwrap(),
        }
        verdicts
            .closes(
                "the end of the control stream",
                &raw,
                code::CLOSED_CRITICAL_STREAM,
            )
            .await;
    }
    assert_eq!(verdicts.count, 10);
}

#[tokio::test]
async fn qpack_has_no_dynamic_table() {
    let (_origin, secured) = site().await;
    let mut verdicts = FrameVerdicts::begin(&secured).await;
    for (what, bytes) in [
        ("a table of 220 octets", &[0x3f, 0xbd, 0x01][..]),
        (
            "an insertion with a name of the static table",
            &[0xc0, 1, b'x'],
        ),
        ("an insertion with a literal name", &[0x41, b'x', 1, b'y']),
        ("a duplicate", &[0x00]),
    ] {
        verdicts
            .one_way(what, one_way::ENCODER, bytes, code::ENCODER_STREAM)
            .await;
    }
    for (what, bytes) in [
        ("an acknowledged section", &[0x80][..]),
        ("an insert count", &[0x01]),
        (
            "a cancelled stream with a number that never ends",
            &[0xff; 100],
        ),
        (
            "a cancelled stream with a number that is too long",
            &[&[0x7f][..], &[0x80; 90], &[0]].concat(),
        ),
    ] {
        verdicts
            .one_way(what, one_way::DECODER, bytes, code::DECODER_STREAM)
            .await;
    }
    // The instruction that says what is so already, and cancelled streams.
    let mut raw = secured.raw().await;
    raw.open_one_way(one_way::ENCODER, [0x20, 0x20]).await;
    raw.open_one_way(one_way::DECODER, [0x40, 0x44, 0x7f, 0x81, 0x01])
        .await;
    assert!(raw.answers("/").await);
    for (what, bytes) in [
        ("a required insert count", &[2, 0, 0xd1][..]),
        ("an indexed field of the dynamic table", &[0, 0, 0x80]),
        ("one behind the base", &[0, 0, 0x10]),
        ("a name of the dynamic table", &[0, 0, 0x40, 1, b'x']),
        ("a name behind the base", &[0, 0, 0x00, 1, b'x']),
        (
            "an entry that the static table does not have",
            &[0, 0, 0xff, 0x24],
        ),
        (
            "a value that is longer than the section",
            &[0, 0, 0x51, 5, b'a'],
        ),
        (
            "a number without end",
            &[0, 0, 0x51, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ),
        (
            "a Huffman code that is none",
            &[0, 0, 0x51, 0x84, 0xff, 0xff, 0xff, 0xff],
        ),
        ("half a prefix", &[0]),
        ("no prefix", &[]),
    ] {
        verdicts
            .request(
                what,
                frame(kind::HEADERS, bytes),
                code::DECOMPRESSION_FAILED,
            )
            .await;
    }
    // Trailers are read by the same rules.
    let post = verdicts.bystander.head("POST", "/");
    let bytes = [
        headers(&post),
        frame(kind::DATA, b"x"),
        frame(kind::HEADERS, [2, 0]),
    ]
    .concat();
    verdicts
        .request(
            "trailers with a dynamic table",
            bytes,
            code::DECOMPRESSION_FAILED,
        )
        .await;
    assert_eq!(verdicts.count, 20);
}

#[tokio::test]
async fn frames_on_a_request_have_their_place() {
    let (_origin, secured) = site().await;
    let mut verdicts = FrameVerdicts::begin(&secured).await;
    let trailers = headers(&[("x-sum", "1")]);
    let data = frame(kind::DATA, b"x");
    for (what, bytes) in [
        ("DATA before the head", [data.clone(), get()].concat()),
        (
            "empty DATA before the head",
            [frame(kind::DATA, []), get()].concat(),
        ),
        (
            "DATA after trailers",
            [get(), data.clone(), trailers.clone(), data.clone()].concat(),
        ),
        (
            "trailers after trailers",
            [get(), data.clone(), trailers.clone(), trailers.clone()].concat(),
        ),
    ] {
        verdicts.request(what, bytes, code::FRAME_UNEXPECTED).await;
    }
    for unexpected in [
        kind::CANCEL_PUSH,
        kind::SETTINGS,
        kind::PUSH_PROMISE,
        kind::GOAWAY,
        kind::MAX_PUSH_ID,
        kind::PRIORITY_UPDATE,
        kind::PRIORITY_OF_HTTP2,
        kind::PING_OF_HTTP2,
        kind::WINDOW_UPDATE_OF_HTTP2,
        kind::CONTINUATION_OF_HTTP2,
    ] {
        let it = frame(unexpected, [0]);
        let what = format!("frame {unexpected:#x}");
        verdicts
            .request(&what, [it.clone(), get()].concat(), code::FRAME_UNEXPECTED)
            .await;
        verdicts
            .request(&what, [get(), it].concat(), code::FRAME_UNEXPECTED)
            .await;
    }
    for (what, bytes) in [
        ("half a head", frame_head(kind::HEADERS, 100)),
        (
            "half of the content",
            [get(), frame_head(kind::DATA, 100), b"short".to_vec()].concat(),
        ),
        (
            "half an unknown frame",
            [get(), frame_head(kind::GREASE, 100)].concat(),
        ),
        ("half a type", [get(), vec![0x40]].concat()),
    ] {
        verdicts.request(what, bytes, code::FRAME).await;
    }
    assert_eq!(verdicts.count, 28);
    // Unknown frames may be anywhere.
    let raw = secured.raw().await;
    let unknown = frame(kind::GREASE, [7; 300]);
    let all = [
        unknown.clone(),
        headers(&raw.head("POST", "/")),
        unknown.clone(),
        data.clone(),
        unknown.clone(),
        data,
        unknown.clone(),
        trailers,
        unknown,
    ];
    match raw.ask(all.concat()).await {
        RawEnd::Answered(answer) => {
            assert_eq!((answer.status, &answer.body[..]), (200, &b"xx"[..]))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_stream_that_ends_before_its_head_is_reset_alone() {
    let (_origin, secured) = site().await;
    let raw = secured.raw().await;
    assert_eq!(raw.ask([]).await, RawEnd::Reset(code::REQUEST_INCOMPLETE));
    let unknown = frame(kind::GREASE, b"x");
    assert_eq!(
        raw.ask(unknown).await,
        RawEnd::Reset(code::REQUEST_INCOMPLETE)
    );
    // It gives the request up before it is one: there is no answer, and no half of one.
    let mut stream = raw.stream(&get()[..5]).await;
    stream.reset(code::REQUEST_CANCELLED);
    assert_eq!(stream.end().await, RawEnd::Reset(code::REQUEST_CANCELLED));
    assert!(raw.answers("/").await);
}

#[tokio::test]
async fn messages_that_are_none_end_their_stream_alone() {
    let (origin, secured) = site().await;
    let raw = secured.raw().await;
    let good = [
        (":method", "GET"),
        (":scheme", "https"),
        (":authority", "shop.test"),
        (":path", "/"),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&good[..], more].concat();
    let without = |left_out: usize| {
        let mut fields = good.to_vec();
        fields.remove(left_out);
        fields
    };
    let instead = |at: usize, value: &'static str| {
        let mut fields = good.to_vec();
        fields[at].1 = value;
        fields
    };
    let malformed = [
        ("no method", without(0)),
        ("no scheme", without(1)),
        ("no path", without(3)),
        ("no fields at all", vec![]),
        ("a method twice", with(&[(":method", "GET")])),
        ("a scheme twice", with(&[(":scheme", "https")])),
        ("an authority twice", with(&[(":authority", "shop.test")])),
        ("a path twice", with(&[(":path", "/")])),
        (
            "an unknown pseudo-header field",
            with(&[(":protocol", "websocket")]),
        ),
        ("one of a response", with(&[(":status", "200")])),
        (
            "one behind a field",
            [&good[..3], &[("x", "y"), (":path", "/")]].concat(),
        ),
        ("an empty method", instead(0, "")),
        ("a method with a space", instead(0, "GET /")),
        ("an empty path", instead(3, "")),
        ("a path without a slash", instead(3, "page")),
        ("a path with a space", instead(3, "/a b")),
        ("an empty authority", instead(2, "")),
        ("an authority with a space", instead(2, "shop test")),
        ("an authority with a path", instead(2, "shop.test/x")),
        ("an authority against Host", with(&[("host", "other.test")])),
        ("a name in capitals", with(&[("X-Upper", "1")])),
        ("one capital", with(&[("x-uppeR", "1")])),
        ("an empty name", with(&[("", "1")])),
        ("a name with a space", with(&[("x y", "1")])),
        ("a name with a colon", with(&[("x:y", "1")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("upgrade", with(&[("upgrade", "websocket")])),
        ("te other than trailers", with(&[("te", "gzip")])),
        ("a value with a line feed", with(&[("x", "a\nb")])),
        ("a value with a return", with(&[("x", "a\rb")])),
        ("a value with a zero", with(&[("x", "a\0b")])),
        ("a value with a space before", with(&[("x", " a")])),
        ("a value with a tab behind", with(&[("x", "a\t")])),
        (
            "two lengths",
            with(&[("content-length", "0"), ("content-length", "0")]),
        ),
        ("a list of lengths", with(&[("content-length", "0, 0")])),
        ("a signed length", with(&[("content-length", "+1")])),
        (
            "a length that no number holds",
            with(&[("content-length", "99999999999999999999")]),
        ),
    ];
    let count = malformed.len();
    for (what, fields) in malformed {
        let end = raw.ask(headers(&fields)).await;
        assert_eq!(end, RawEnd::Reset(code::MESSAGE), "{what}");
    }
    assert_eq!(count, 40);
    // A user in the authority is told by an answer, as with the other protocols.
    let user = raw.ask(headers(&instead(2, "user@shop.test"))).await;
    assert_eq!(user.status(), Some(400));
    assert_eq!(origin.count(), 0, "one of them reached the origin");
    assert!(raw.answers("/").await);
}

#[tokio::test]
async fn trailers_that_are_none_and_wrong_lengths_never_look_whole_to_an_origin() {
    let (tell, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let origin = Origin::start(move |asked| {
        let tell = tell.clone();
        async move {
            let whole = asked.body.collect().await.is_ok();
            let _ = tell.send(whole);
            Reply::ok("taken")
        }
    })
    .await;
    let secured = SecuredGateway::start(Setup::new(&origin)).await;
    let raw = secured.raw().await;
    let post = |more: &[(&str, &str)]| {
        let more = more
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        headers(
            &raw.head("POST", "/")
                .into_iter()
                .chain(more)
                .collect::<Vec<_>>(),
        )
    };
    let data = |body: &[u8]| frame(kind::DATA, body);
    let trailers = |fields: &[(&str, &str)]| [post(&[]), data(b"abc"), headers(fields)].concat();
    let cases = [
        (
            "less than its length",
            [post(&[("content-length", "5")]), data(b"abc")].concat(),
        ),
        ("nothing of its length", post(&[("content-length", "5")])),
        (
            "more than its length",
            [post(&[("content-length", "2")]), data(b"abc")].concat(),
        ),
        (
            "more in a second frame",
            [post(&[("content-length", "3")]), data(b"abc"), data(b"d")].concat(),
        ),
        (
            "some when there is none",
            [post(&[("content-length", "0")]), data(b"abc")].concat(),
        ),
        (
            "less, and trailers",
            [
                post(&[("content-length", "5")]),
                data(b"abc"),
                headers(&[("x", "y")]),
            ]
            .concat(),
        ),
        (
            "a pseudo-header field in trailers",
            trailers(&[(":path", "/")]),
        ),
        (
            "a status in trailers",
            trailers(&[("x", "y"), (":status", "200")]),
        ),
        ("capitals in trailers", trailers(&[("X-Sum", "1")])),
        (
            "a connection field in trailers",
            trailers(&[("transfer-encoding", "chunked")]),
        ),
    ];
    let mut looked_at = 0;
    for (what, bytes) in cases {
        let end = raw.ask(bytes).await;
        // It may be told by an answer; then that is an error (RFC 9114 §4.1.2).
        let told = match &end {
            RawEnd::Reset(code) => *code == code::MESSAGE,
            RawEnd::Answered(answer) => answer.status == 400,
            _ => false,
        };
        assert!(told, "{what}: {end:?}");
        while let Ok(whole) = ends.try_recv() {
            assert!(!whole, "{what} looked whole");
        }
        looked_at += 1;
    }
    assert_eq!(looked_at, 10);
    // The same with what it should be, to see that the origin does tell.
    let good = [
        post(&[("content-length", "3")]),
        data(b"abc"),
        headers(&[("x", "y")]),
    ]
    .concat();
    while ends.try_recv().is_ok() {}
    assert_eq!(raw.ask(good).await.status(), Some(200));
    assert_eq!(
        within("the origin tells", SOON, ends.recv()).await,
        Some(true)
    );
}

#[tokio::test]
async fn unknown_one_way_streams_are_stopped_and_not_read() {
    let (_origin, secured) = site().await;
    let raw = secured.raw().await;
    let mut stopped = 0;
    for number in 0..50 {
        let kind = one_way::GREASE + 0x1f * number;
        let mut stream = raw.one_way(kind, b"first").await;
        let code = within("STOP_SENDING", SOON, stream.stopped()).await;
        let code = code.expect("the connection lives").map(u64::from);
        assert_eq!(code, Some(code::STREAM_CREATION), "type {kind:#x}");
        let _ = stream.reset(0x100_u32.into());
        stopped += 1;
    }
    assert_eq!(stopped, 50);
    assert!(raw.answers("/").await);
}

#[tokio::test]
async fn a_head_may_come_octet_by_octet() {
    let (_origin, secured) = site().await;
    let raw = secured.raw().await;
    let bytes = [
        frame(kind::GREASE, b"xy"),
        headers(&raw.head("POST", "/")),
        frame(kind::DATA, b"hello"),
    ]
    .concat();
    let mut stream = raw.stream([]).await;
    for octet in &bytes {
        assert!(stream.write([*octet]).await);
        // So that each goes by itself, as far as QUIC allows.
        tokio::task::yield_now().await;
    }
    stream.send.finish().unwrap();
    match stream.end().await {
        RawEnd::Answered(answer) => assert_eq!(answer.body, b"hello"),
        other => panic!("{other:?}"),
    }
}

/// Longer forms of the same numbers are allowed (RFC 9000 §16).
#[tokio::test]
async fn numbers_may_be_longer_than_they_need_be() {
    let (_origin, secured) = site().await;
    let raw = secured.raw().await;
    let section = section(&raw.head("POST", "/"));
    let wide = |kind: u8, length: usize| {
        let kind = [0xc0, 0, 0, 0, 0, 0, 0, kind];
        [&kind[..], &(length as u32 | 0x8000_0000).to_be_bytes()].concat()
    };
    let bytes = [
        wide(1, section.len()),
        section,
        wide(0, 5),
        b"hello".to_vec(),
    ]
    .concat();
    match raw.ask(bytes).await {
        RawEnd::Answered(answer) => assert_eq!(answer.body, b"hello"),
        other => panic!("{other:?}"),
    }
}
