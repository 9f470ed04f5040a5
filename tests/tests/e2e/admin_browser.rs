//! What a web page in a real Chromium may do to the admin listener: nothing, unless it is of
//! the listener's own origin.
//!
//! Between browser and listener stands `front`, which passes requests on as they are and so
//! tells what the browser sent; it also serves a page of the listener's own origin.

use std::sync::Arc;

use e2e::browser::Browser;
use e2e::gateway::Gateway;
use e2e::guest;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// Tries everything that a page can send to `target`, and reports what it saw.
const ATTACK: &str = r#"<!doctype html><title>attack</title><body><script>
const target = "TARGET";
const seen = {};
const all = '{"all": true}';
async function note(name, work) {
  try { seen[name] = await work(); } catch (error) { seen[name] = "failed"; }
}
function form(name, path, type) {
  return new Promise(done => {
    const frame = document.createElement("iframe");
    frame.name = name;
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, { method: "POST", action: target + path, enctype: type, target: name });
    const input = document.createElement("input");
    // As text/plain this is JSON.
    input.name = '{"all": true, "tag": "';
    input.value = '"}';
    form.append(input);
    document.body.append(form);
    frame.onload = () => done("loaded");
    form.submit();
  });
}
function element(tag, path) {
  return new Promise(done => {
    const element = document.createElement(tag);
    element.onload = () => done("loaded");
    element.onerror = () => done("error");
    element.src = target + path;
    document.body.append(element);
  });
}
const send = (path, options) => fetch(target + path, { method: "POST", ...options });
async function text(path, options) {
  const answer = await fetch(target + path, options);
  return answer.status + " " + await answer.text();
}
function xhr(type) {
  return new Promise(done => {
    const request = new XMLHttpRequest();
    request.open("POST", target + "/v1/purge");
    request.setRequestHeader("content-type", type);
    request.onload = () => done(request.status);
    request.onerror = () => done("error");
    request.send(all);
  });
}
(async () => {
  for (const path of ["/v1/purge", "/v1/plugins/p/quarantine"]) {
    for (const type of ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data"]) {
      await note("form " + type + " " + path, () => form("f" + Math.random(), path, type));
    }
    await note("no-cors " + path, async () => (await send(path, { mode: "no-cors", body: all })).type);
    await note("no-cors bare " + path, async () => (await send(path, { mode: "no-cors" })).type);
    await note("no-cors json " + path, async () =>
      (await send(path, { mode: "no-cors", headers: { "content-type": "application/json", "x-lamina-admin": "1" }, body: all })).type);
    await note("cors json " + path, async () =>
      (await send(path, { headers: { "content-type": "application/json" }, body: all })).status);
    await note("cors field " + path, async () =>
      (await send(path, { headers: { "x-lamina-admin": "1" } })).status);
    await note("cors plain " + path, async () => (await send(path, { body: all })).status);
    await note("image " + path, () => element("img", path));
  }
  await note("xhr json", () => xhr("application/json"));
  await note("xhr plain", () => xhr("text/plain"));
  await note("put", async () => (await fetch(target + "/v1/purge", { method: "PUT", body: all })).status);
  await note("keepalive", async () => (await send("/v1/purge", { mode: "no-cors", keepalive: true, body: all })).type);
  navigator.sendBeacon(target + "/v1/purge?beacon=text", all);
  navigator.sendBeacon(target + "/v1/purge?beacon=form", new URLSearchParams({ all }));
  try { navigator.sendBeacon(target + "/v1/purge?beacon=json", new Blob([all], { type: "application/json" })); } catch (error) {}
  for (const path of ["/livez", "/metrics", "/v1/plugins", "/v1/plugins/p/calls"]) {
    await note("read " + path, () => text(path));
    await note("script " + path, () => element("script", path));
    await note("picture " + path, () => element("img", path));
  }
  await note("frame", () => element("iframe", "/metrics"));
  await fetch("/report", { method: "POST", body: JSON.stringify(seen) });
})();
</script>"#;

/// Does what a page of the listener's own origin may.
const OWN: &str = r#"<!doctype html><title>own</title><script>
(async () => {
  const seen = {};
  const ask = async (name, path, options) => {
    const answer = await fetch(path, options);
    seen[name] = answer.status;
  };
  await ask("metrics", "/metrics");
  await ask("calls", "/v1/plugins/p/calls");
  await ask("quarantine", "/v1/plugins/p/quarantine", { method: "POST", headers: { "x-lamina-admin": "1" } });
  await ask("resume", "/v1/plugins/p/resume", { method: "POST", headers: { "content-type": "application/json" } });
  await ask("plain", "/v1/purge", { method: "POST", body: '{"tag": "x"}' });
  await ask("purge", "/v1/purge", { method: "POST", headers: { "content-type": "application/json" }, body: '{"all": true}' });
  await fetch("/report", { method: "POST", body: JSON.stringify(seen) });
})();
</script>"#;

struct BrowserScene {
    gateway: Gateway,
    /// What the browser takes for the listener.
    front: Origin,
    /// The origin behind the gateway.
    _site: Origin,
}

impl BrowserScene {
    /// A stored page and a guard that serves.
    async fn set() -> Self {
        let site = Origin::pages(|_| Reply::fresh("x")).await;
        let gateway = Setup::new(&site)
            .file("p.wasm", guest::built("asker"))
            .top(
                "plugins",
                "{p: {file: p.wasm, watch: false, on_error: {request: refuse}}}",
            )
            .route("{name: guarded, upstream: origin, request: {plugin: p}}")
            .start()
            .await;
        gateway.client().get("/").await;
        Self {
            front: front(&gateway).await,
            gateway,
            _site: site,
        }
    }

    async fn is_untouched(&self) {
        let answer = self.gateway.client().get("/").await;
        assert_eq!(answer.status, 200);
        assert!(answer.is_hit(), "the page was purged");
        let list = self.gateway.admin(Method::GET, "/v1/plugins", "").await;
        assert!(list.text.contains("\"state\":\"serving\""), "{}", list.text);
    }
}

/// Passes everything but its page and the report on to the admin listener.
async fn front(gateway: &Gateway) -> Origin {
    let admin = gateway.admin;
    Origin::start(move |asked| async move {
        let seen = asked.read().await;
        match seen.path.as_str() {
            "/page" => Reply::ok(OWN).header("content-type", "text/html"),
            "/rebound" => {
                Reply::ok(ATTACK.replace("TARGET", "")).header("content-type", "text/html")
            }
            "/report" | "/favicon.ico" => Reply::ok("{}"),
            _ => passed_on(admin, seen).await,
        }
    })
    .await
}

async fn passed_on(admin: std::net::SocketAddr, seen: Seen) -> Reply {
    let stream = tokio::net::TcpStream::connect(admin).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::builder().method(seen.method).uri(seen.path);
    *request.headers_mut().unwrap() = seen.headers;
    let body = Full::new(seen.body.unwrap_or_default());
    let response = sender
        .send_request(request.body(body).unwrap())
        .await
        .unwrap();
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let reply = Reply::ok(body).status(head.status.as_u16());
    head.headers
        .iter()
        .filter(|(name, _)| *name != "content-length")
        .fold(reply, |reply, (name, value)| {
            reply.header(name.as_str(), value.to_str().unwrap())
        })
}

/// What the page says it saw, once it has tried everything.
async fn report(of: &Origin) -> Value {
    let body = wait_for("the page has reported", SOON * 2, || async {
        let seen = of.seen();
        let report = seen.into_iter().find(|seen| seen.path == "/report");
        report.and_then(|report| report.body)
    })
    .await;
    serde_json::from_slice(&body).unwrap()
}

/// Whatever was tried came to the listener: the attack was one.
async fn all_was_sent(front: &Origin, site: &str) {
    let arrived = |wanted: &dyn Fn(&Seen) -> bool| front.seen().iter().any(wanted);
    let posted = |media: &str, seen: &Seen| {
        seen.method == Method::POST && seen.header("content-type").starts_with(media)
    };
    for media in [
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data",
        "",
    ] {
        for path in ["/v1/purge", "/v1/plugins/p/quarantine"] {
            assert!(
                arrived(&|seen| posted(media, seen)
                    && seen.path == path
                    && seen.header("sec-fetch-site") == site),
                "{media:?} came to {path}"
            );
        }
    }
    wait_for("the beacons have come", SOON, || async {
        let came = |kind: &str| front.count_of(&format!("/v1/purge?beacon={kind}")) > 0;
        (came("text") && came("form")).then_some(())
    })
    .await;
    assert!(
        arrived(&|seen| seen.method == Method::OPTIONS),
        "no preflight"
    );
}

#[tokio::test]
async fn a_page_of_another_site_can_do_nothing() {
    for (name, site) in [("evil.example", "cross-site"), ("127.0.0.1", "same-site")] {
        let scene = BrowserScene::set().await;
        let target = scene.front.url();
        let page = Arc::new(ATTACK.replace("TARGET", &target));
        let evil = Origin::pages(move |seen| match seen.path.as_str() {
            "/page" => Reply::ok(page.to_string()).header("content-type", "text/html"),
            _ => Reply::ok("{}"),
        })
        .await;
        let url = format!("http://{name}:{}/page", evil.address().port());
        let _browser = Browser::open(&url);
        let seen = report(&evil).await;
        all_was_sent(&scene.front, site).await;
        scene.is_untouched().await;
        let seen = seen.as_object().unwrap();
        assert!(seen.len() >= 30, "only {} attempts: {seen:?}", seen.len());
        for (what, outcome) in seen {
            let blind = ["form", "no-cors", "keepalive", "frame"];
            if blind.iter().any(|word| what.starts_with(word)) {
                assert!(
                    matches!(outcome.as_str(), Some("loaded" | "opaque" | "failed")),
                    "{what}: {outcome}"
                );
            } else {
                assert!(
                    matches!(outcome.as_str(), Some("failed" | "error")),
                    "{what}: {outcome}"
                );
            }
        }
    }
}

/// A name of the page's own leads to the listener: for the browser both are one origin.
#[tokio::test]
async fn a_page_whose_name_was_made_to_lead_here_can_do_nothing() {
    let scene = BrowserScene::set().await;
    let url = format!(
        "http://rebound.example:{}/rebound",
        scene.front.address().port()
    );
    let _browser = Browser::open(&url);
    let seen = report(&scene.front).await;
    scene.is_untouched().await;
    assert_eq!(seen["cors json /v1/purge"], 421, "{seen}");
    for path in ["/livez", "/metrics", "/v1/plugins", "/v1/plugins/p/calls"] {
        let read = seen[format!("read {path}")].as_str().unwrap_or_default();
        assert!(read.starts_with("421 "), "{path}: {read}");
    }
}

#[tokio::test]
async fn a_page_of_the_listeners_own_origin_works() {
    let scene = BrowserScene::set().await;
    let url = format!("http://127.0.0.1:{}/page", scene.front.address().port());
    let _browser = Browser::open(&url);
    let seen = report(&scene.front).await;
    assert_eq!(
        seen,
        json!({"metrics": 200, "calls": 200, "quarantine": 200, "resume": 200, "plain": 415, "purge": 200})
    );
    assert!(!scene.gateway.client().get("/").await.is_hit());
}
