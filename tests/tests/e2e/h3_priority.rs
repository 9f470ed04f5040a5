//! Which answers of a connection go first (RFC 9218; edge.md, Q8).
//!
//! All clients here have a narrow window for the whole connection, so that answers compete for it,
//! and a wide one for each stream: an answer whose own window is shut lets others go on. What is
//! measured are octets and not time: how much had come of others when one was whole.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use e2e::h3::raw::{
    RawEnd, RawH3, RawStream, code, frame, headers, kind, number, one_way, settings,
};
use e2e::h3::{Reach, SecuredGateway};
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, passed, within};
use futures_util::future::join_all;
use quinn::VarInt;

const PAGE: usize = 512 << 10;
const WINDOW: u32 = 64 << 10;
/// What may have come of an answer that waits for its turn: what was handed to QUIC before there
/// was a better one.
const HARDLY: usize = PAGE / 4;
/// What has come at least of an answer that shares, when another one is whole. They share by turns,
/// and the first one begins with a whole window.
const SHARE: usize = PAGE / 4;

async fn site() -> (Origin, SecuredGateway) {
    let origin = Origin::pages(|seen| {
        let reply = Reply::fresh(vec![b'p'; PAGE]);
        match seen.path.as_str() {
            "/by-origin" => reply.header("priority", "u=1"),
            _ => reply,
        }
    })
    .await;
    let secured = SecuredGateway::start(Setup::new(&origin)).await;
    let warm = secured.client().await;
    for path in ["/page", "/by-origin"] {
        assert_eq!(warm.get(path).await.status, 200);
    }
    (origin, secured)
}

async fn narrow(secured: &SecuredGateway) -> RawH3 {
    let reach = Reach::with(|transport| {
        transport
            .stream_receive_window(VarInt::from_u32(2 * PAGE as u32))
            .receive_window(VarInt::from_u32(WINDOW));
    });
    secured.raw_by(&reach).await
}

/// What a client asks for, and how.
#[derive(Clone, Copy)]
struct PrioritizedRequest {
    path: &'static str,
    priority: Option<&'static str>,
}

fn page(priority: &'static str) -> PrioritizedRequest {
    PrioritizedRequest {
        path: "/page",
        priority: Some(priority),
    }
}

/// An answer that is read as it comes.
struct AnswerReading {
    stream: RawStream,
    read: Arc<AtomicUsize>,
}

impl AnswerReading {
    /// Asks, and waits until the gateway has the request. Nothing can be read yet: the answer of
    /// the first request fills the window of the connection.
    async fn begin(raw: &RawH3, wish: PrioritizedRequest) -> Self {
        let reading = Self::ask(raw, wish).await;
        assert_eq!(reading.stream.stopped().await, None);
        reading
    }

    async fn ask(raw: &RawH3, wish: PrioritizedRequest) -> Self {
        let mut head = raw.get(wish.path);
        if let Some(priority) = wish.priority {
            head.push(("priority".to_owned(), priority.to_owned()));
        }
        let mut stream = raw.stream(headers(&head)).await;
        let _ = stream.send.finish();
        Self {
            stream,
            read: Arc::default(),
        }
    }

    /// Reads to the end.
    async fn rest(&mut self) {
        let mut piece = [0; 4 << 10];
        while let Some(count) = self
            .stream
            .receive
            .read(&mut piece)
            .await
            .expect("it goes on")
        {
            self.read.fetch_add(count, Ordering::SeqCst);
        }
    }
}

/// Reads all of them at once. For each, what had come of all when it was whole.
async fn read_all(readings: Vec<AnswerReading>) -> Vec<Vec<usize>> {
    let counts: Vec<_> = readings.iter().map(|one| Arc::clone(&one.read)).collect();
    let all = readings.into_iter().map(|mut reading| {
        let counts = counts.clone();
        async move {
            reading.rest().await;
            counts
                .iter()
                .map(|count| count.load(Ordering::SeqCst))
                .collect()
        }
    });
    let seen: Vec<Vec<usize>> = within("all answers end", SOON * 4, join_all(all)).await;
    for count in &counts {
        assert!(count.load(Ordering::SeqCst) > PAGE, "each is whole");
    }
    seen
}

async fn update(raw: &mut RawH3, stream: u64, value: &str) {
    let body = [&number(stream)[..], value.as_bytes()].concat();
    let frame = frame(kind::PRIORITY_UPDATE, body);
    raw.control().write_all(&frame).await.unwrap();
}

#[tokio::test]
async fn an_urgent_answer_overtakes_those_in_the_background() {
    let (_origin, secured) = site().await;
    let raw = narrow(&secured).await;
    let mut readings = Vec::new();
    for _ in 0..4 {
        readings.push(AnswerReading::begin(&raw, page("u=7")).await);
    }
    readings.push(AnswerReading::begin(&raw, page("u=0")).await);
    let seen = read_all(readings).await;
    let background: usize = seen[4][..4].iter().sum();
    assert!(background < HARDLY, "{:?}", seen[4]);
    // Those that are not incremental come one after the other.
    assert!(seen[0][3] < HARDLY, "{:?}", seen[0]);
    assert!(
        seen[0][1..4].iter().sum::<usize>() < 2 * HARDLY,
        "{:?}",
        seen[0]
    );
}

#[tokio::test]
async fn incremental_answers_share_and_others_come_in_order() {
    let (_origin, secured) = site().await;
    let raw = narrow(&secured).await;
    let mut readings = Vec::new();
    for priority in ["i", "i", "u=4", "u=4"] {
        readings.push(AnswerReading::begin(&raw, page(priority)).await);
    }
    let seen = read_all(readings).await;
    // Whichever of the two is whole first, the other is not far behind.
    let first = seen[0][1].min(seen[1][0]);
    assert!(first > SHARE, "{seen:?}");
    assert!(seen[0][2] + seen[0][3] < HARDLY, "{seen:?}");
    assert!(seen[2][3] < HARDLY, "{seen:?}");
}

#[tokio::test]
async fn answers_to_a_client_that_says_no_priority_share() {
    let (_origin, secured) = site().await;
    let raw = narrow(&secured).await;
    let wish = PrioritizedRequest {
        path: "/page",
        priority: None,
    };
    let mut readings = Vec::new();
    for _ in 0..2 {
        readings.push(AnswerReading::begin(&raw, wish).await);
    }
    let seen = read_all(readings).await;
    assert!(seen[0][1].min(seen[1][0]) > SHARE, "{seen:?}");
}

#[tokio::test]
async fn an_update_counts_for_what_is_under_way_and_for_what_is_to_come() {
    let (_origin, secured) = site().await;
    let mut raw = narrow(&secured).await;
    // The second request is not there yet: what is said of it goes before its own field.
    update(&mut raw, 4, "u=6").await;
    update(&mut raw, 4, "u=7").await;
    // A frame that can't be read changes nothing.
    update(&mut raw, 4, "u=").await;
    let mut readings = Vec::new();
    for priority in ["u=5", "u=0", "u=6"] {
        readings.push(AnswerReading::begin(&raw, page(priority)).await);
    }
    // The one that was the last of them goes first now.
    update(&mut raw, 8, "u=1").await;
    let seen = read_all(readings).await;
    assert!(seen[2][0] + seen[2][1] < 2 * HARDLY, "{seen:?}");
    assert!(seen[0][1] < HARDLY, "{seen:?}");
}

#[tokio::test]
async fn what_the_origin_says_goes_before_what_the_client_says() {
    let (_origin, secured) = site().await;
    let raw = narrow(&secured).await;
    let by_origin = PrioritizedRequest {
        path: "/by-origin",
        priority: Some("u=7"),
    };
    let readings = vec![
        AnswerReading::begin(&raw, page("u=2")).await,
        AnswerReading::begin(&raw, by_origin).await,
    ];
    let seen = read_all(readings).await;
    assert!(seen[1][0] < HARDLY, "{seen:?}");
}

/// An answer that waits because the client wants others first is not taken for one that the client
/// does not read.
#[tokio::test]
async fn an_answer_that_waits_for_its_turn_is_not_cut() {
    let origin = Origin::pages(|_| Reply::fresh(vec![b'p'; PAGE])).await;
    let limits = "{body_timeout: 500ms, min_rate: 64KiB, min_rate_grace: 500ms}";
    let secured = SecuredGateway::start(Setup::new(&origin).listener("limits", limits)).await;
    let raw = narrow(&secured).await;
    let mut waits = AnswerReading::begin(&raw, page("u=7")).await;
    let mut urgent = AnswerReading::begin(&raw, page("u=0")).await;
    let slowly = async {
        let (began, mut piece) = (Instant::now(), [0; 4 << 10]);
        // Three times as long as it would be borne.
        while began.elapsed() < Duration::from_millis(1_500) {
            let read = urgent.stream.receive.read(&mut piece).await;
            let count = read.expect("it goes on").expect("it has not ended");
            let read = urgent.read.fetch_add(count, Ordering::SeqCst) + count;
            let due = Duration::from_secs_f64(read as f64 / (256.0 * 1_024.0));
            passed(began, due).await;
        }
        urgent.rest().await;
    };
    futures_util::future::join(slowly, waits.rest()).await;
    assert!(waits.read.load(Ordering::SeqCst) > PAGE);
}

#[tokio::test]
async fn frames_that_are_wrong_end_the_connection_and_fields_never_do() {
    let (_origin, secured) = site().await;
    let element = |id: u64| [&number(id)[..], b"u=1"].concat();
    for (what, wrong, expected) in [
        ("no element", frame(kind::PRIORITY_UPDATE, []), code::FRAME),
        (
            "half a number",
            frame(kind::PRIORITY_UPDATE, [0x40]),
            code::FRAME,
        ),
        (
            "a stream of the gateway",
            frame(kind::PRIORITY_UPDATE, element(1)),
            code::ID,
        ),
        (
            "a one-way stream",
            frame(kind::PRIORITY_UPDATE, element(2)),
            code::ID,
        ),
        (
            "a stream beyond the limit",
            frame(kind::PRIORITY_UPDATE, element(4 * 128)),
            code::ID,
        ),
        (
            "a push",
            frame(kind::PRIORITY_UPDATE_OF_PUSH, element(0)),
            code::ID,
        ),
    ] {
        let mut raw = secured.bare().await;
        let bytes = [settings(&[]), wrong].concat();
        raw.open_one_way(one_way::CONTROL, bytes).await;
        assert_eq!(raw.closed().await, RawEnd::Closed(expected), "{what}");
    }
    for wrong in [kind::PRIORITY_UPDATE, kind::PRIORITY_UPDATE_OF_PUSH] {
        let raw = secured.raw().await;
        let bytes = [headers(&raw.get("/page")), frame(wrong, element(0))].concat();
        let end = raw.ask(bytes).await;
        assert_eq!(end, RawEnd::Closed(code::FRAME_UNEXPECTED), "{wrong:#x}");
    }
    let mut raw = secured.raw().await;
    update(&mut raw, 4 * 127, "u=1").await;
    for value in [
        "",
        "u=9",
        "u=\"1\"",
        "i=7",
        "u=1,",
        "\u{1f}",
        "u=0, x=(1 \"2\");y",
    ] {
        let mut head = raw.get("/page");
        head.push(("priority".to_owned(), value.to_owned()));
        let status = raw.ask(headers(&head)).await.status();
        let expected = match value {
            // No field may have such an octet.
            "\u{1f}" => None,
            _ => Some(200),
        };
        assert_eq!(status, expected, "{value:?}");
        update(&mut raw, 0, value).await;
    }
    assert!(raw.answers("/page").await);
}
