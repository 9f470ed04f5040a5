//! Clients of others that find HTTP/3 (edge.md, 6): a real browser, and curl where it speaks HTTP/3.

use std::process::Command;

use e2e::browser::Browser;
use e2e::debian13;
use e2e::h3::SecuredGateway;
use e2e::h3::certificates::Certificates;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tools;
use e2e::wait::{SOON, wait_for};
use serde_json::{Value, json};

const NAME: &str = "shop.example";
/// Parts of the page: scripts, style sheets and pictures in turn.
const PARTS: usize = 200;

/// Loads its parts, and reports by which protocol each came and what went wrong.
fn page() -> String {
    let mut page = String::from(
        r#"<!doctype html><meta charset=utf-8><title>parts</title>
<link rel=icon href="data:,">
<script>
window.ran = 0;
const errors = [];
addEventListener("error", event => errors.push(String(event.message || event.target.outerHTML)), true);
addEventListener("load", () => {
  const parts = performance.getEntriesByType("resource");
  const document = performance.getEntriesByType("navigation")[0];
  const protocols = {};
  for (const part of [document, ...parts])
    protocols[part.nextHopProtocol] = (protocols[part.nextHopProtocol] || 0) + 1;
  const report = { protocols, errors, ran: window.ran, rules: window.document.styleSheets.length };
  fetch("/report", { method: "POST", body: JSON.stringify(report) });
});
</script>
<body>
"#,
    );
    for number in 0..PARTS {
        page += &match number % 3 {
            0 => format!("<script src=/part/{number}.js></script>\n"),
            1 => format!("<link rel=stylesheet href=/part/{number}.css>\n"),
            _ => format!("<img src=/part/{number}.svg>\n"),
        };
    }
    page
}

fn part(path: &str) -> Reply {
    let kind = path.rsplit('.').next().unwrap_or_default();
    let (media, text) = match kind {
        "js" => ("text/javascript", "window.ran += 1;".to_owned()),
        "css" => ("text/css", ".part { color: red }".to_owned()),
        _ => (
            "image/svg+xml",
            "<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>".to_owned(),
        ),
    };
    Reply::fresh(text).header("content-type", media)
}

#[tokio::test]
async fn a_page_of_two_hundred_parts_comes_by_http3_without_an_error() {
    let origin = Origin::start(|asked| async move {
        match asked.seen.path_only() {
            "/" => Reply::fresh(page()).header("content-type", "text/html"),
            "/report" => {
                asked.read().await;
                Reply::status_only(204)
            }
            path => part(path),
        }
    })
    .await;
    let certificates = Certificates::new(&[NAME]);
    let pin = certificates.pin();
    let gateway = certificates.secure(Setup::new(&origin), "").start().await;
    let secured = SecuredGateway {
        gateway,
        certificates,
    };
    let place = format!("{NAME}:{}", secured.address().port());
    let browser = Browser::open_by_http3(&format!("https://{place}/"), &place, &pin);
    let report = wait_for("the page has reported", SOON * 3, || async {
        let seen = origin.seen();
        let report = seen.into_iter().find(|seen| seen.path == "/report");
        report.and_then(|report| report.body)
    })
    .await;
    let report: Value = serde_json::from_slice(&report).unwrap();
    let scripts = PARTS.div_ceil(3);
    let wanted = json!({
        "protocols": {"h3": PARTS + 1},
        "errors": [],
        "ran": scripts,
        "rules": (PARTS - 1).div_ceil(3),
    });
    assert_eq!(report, wanted);
    assert_eq!(browser.console(), Vec::<String>::new());
    let by_http3 = [("protocol", "h3"), ("tls", "TLSv1.3")];
    let counted = "lamina_requests_by_protocol_total";
    let count = secured.gateway.metric(counted, &by_http3).await;
    assert!(count >= (PARTS + 2) as f64, "{count} requests by HTTP/3");
}

/// By TCP first, and then by what `Alt-Svc` has told. Debian 12's curl speaks no HTTP/3, so it is that
/// of Debian 13.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_goes_from_http2_to_http3_by_alt_svc() {
    let Ok(program) = debian13::program("bin/curl") else {
        return tools::is_missing(
            "curl of Debian 13",
            "a client that learns of HTTP/3 by Alt-Svc",
        );
    };
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let certificates = Certificates::new(&[NAME]);
    let gateway = certificates.secure(Setup::new(&origin), "").start().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.crt"), &certificates.authority).unwrap();
    let port = gateway.address.port();
    let mut versions = Vec::new();
    for _ in 0..3 {
        let mut curl = Command::new(&program.loader);
        curl.args(&program.arguments)
            .args(["--silent", "--show-error", "--max-time", "20"])
            .arg("--cacert")
            .arg(folder.path().join("ca.crt"))
            .arg("--alt-svc")
            .arg(folder.path().join("alt-svc"))
            .args(["--resolve", &format!("{NAME}:{port}:127.0.0.1")])
            .args(["--write-out", "%{http_version}", "--output", "/dev/null"])
            .arg(format!("https://{NAME}:{port}/"));
        let ran = tokio::task::spawn_blocking(move || curl.output());
        let ran = ran.await.unwrap().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.success(), "{said}");
        versions.push(String::from_utf8_lossy(&ran.stdout).into_owned());
    }
    assert_eq!(versions, ["2", "3", "3"]);
}
