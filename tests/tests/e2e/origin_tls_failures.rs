//! TLS to origins that fails: what the client is told, and that the origin gets nothing of the
//! request (OT6, OT7).

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::tls_origin::{
    FrontSettings, Manner, TestAuthority, TestCertificate, TlsFront, TlsOrigin, Validity,
};
use e2e::wait::{SOON, wait_for, wait_until};
use http::Method;

use crate::origin_tls::{TRUSTING, failed, paths, setup};

/// A way to fail: its name, how the origin is, and what the client is told.
struct Fault {
    name: &'static str,
    settings: FrontSettings,
    status: u16,
    told: &'static str,
    /// A further key of `tls`.
    demands: &'static str,
}

fn faults(authority: &TestAuthority) -> Vec<Fault> {
    let certificate = |names: &[&str]| FrontSettings::new(authority.certify(names));
    let right = certificate(&["localhost"]);
    let of = |name, settings, told| Fault {
        name,
        settings,
        status: 502,
        told,
        demands: "",
    };
    let wrong = |name, shown| of(name, FrontSettings::new(shown), "tls_certificate_error");
    let acts = |name, manner, told| {
        let right = right.clone();
        of(name, FrontSettings { manner, ..right }, told)
    };
    let below = authority.below("between");
    vec![
        wrong("another-name", authority.certify(&["shop.example"])),
        wrong(
            "part-of-the-name",
            authority.certify(&["ocalhost", "localhost.example"]),
        ),
        wrong("an-address-alone", authority.certify(&["127.0.0.1"])),
        wrong(
            "expired",
            authority.certify_for(&["localhost"], Validity::Past),
        ),
        wrong(
            "not-yet",
            authority.certify_for(&["localhost"], Validity::Future),
        ),
        wrong("self-signed", TestCertificate::self_signed(&["localhost"])),
        wrong(
            "another-authority",
            TestAuthority::new("authority").certify(&["localhost"]),
        ),
        wrong("no-intermediate", below.certify(&["localhost"]).alone()),
        acts(
            "alert-handshake-failure",
            Manner::Alert(40),
            "tls_alert_received; alert-id=40",
        ),
        acts(
            "alert-unrecognized-name",
            Manner::Alert(112),
            "tls_alert_received; alert-id=112",
        ),
        acts(
            "alert-of-no-name",
            Manner::Alert(200),
            "tls_alert_received; alert-id=200",
        ),
        acts("hangs-up", Manner::HangUp, "tls_protocol_error"),
        acts(
            "clear-text",
            Manner::Say(
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
            ),
            "tls_protocol_error",
        ),
        acts("flood", Manner::Flood, "tls_protocol_error"),
        Fault {
            demands: ", min_version: \"1.3\"",
            ..of(
                "too-old-for-us",
                FrontSettings {
                    versions: vec![&rustls::version::TLS12],
                    ..right.clone()
                },
                "tls_alert_received; alert-id=70",
            )
        },
        Fault {
            status: 504,
            ..acts("stalls", Manner::Stall, "connection_timeout")
        },
    ]
}

#[tokio::test]
async fn each_way_to_fail_has_its_name_and_no_byte_of_the_request_is_sent() {
    let tls = paths().await;
    let protocols = ["auto", "http1", "http2"];
    let (mut setup, mut cases) = (setup(&tls, TRUSTING, ""), Vec::new());
    for fault in faults(&tls.authority) {
        let front = TlsFront::before(tls.origin.address(), fault.settings.clone()).await;
        for protocol in protocols {
            let name = format!("{}-{protocol}", fault.name);
            // Wide where it is no matter, since the machine may be busy.
            let connect = if fault.status == 504 { "300ms" } else { "20s" };
            let upstream = format!(
                "{{targets: [\"{}\"], protocol: {protocol}, timeouts: {{connect: {connect}}}, tls: {{ca_file: ca.pem{}}}}}",
                front.url(),
                fault.demands
            );
            setup = setup.upstream(&name, &upstream).route(&format!(
                "{{name: {name}, match: {{path: /{name}}}, upstream: {name}}}"
            ));
        }
        cases.push((fault, front));
    }
    let gateway = setup.route("{name: site, upstream: origin}").start().await;
    let mut looked = 0;
    for (fault, front) in &cases {
        for protocol in protocols {
            let path = format!("/{}-{protocol}", fault.name);
            for client in [gateway.client(), gateway.client_http2()] {
                let ask = client.ask(Method::POST, &path).header("x-secret", "secret");
                let posted = ask.body("secret").send().await;
                let got = client.get(&path).await;
                for answer in [posted, got] {
                    let said = answer.header("proxy-status");
                    let wanted = format!("lamina; error={}", fault.told);
                    assert_eq!(
                        (answer.status.as_u16(), said),
                        (fault.status, &*wanted),
                        "{path}"
                    );
                    looked += 1;
                }
            }
        }
        let what = fault.name;
        assert!(front.connections() >= protocols.len() * 4, "{what}");
        assert!(front.data().is_empty(), "{what}: {:?}", front.data());
        // Another upstream does not notice.
        assert_eq!(
            gateway.client().get("/good").await.text(),
            "/good",
            "{what}"
        );
    }
    assert_eq!(looked, 16 * 3 * 4);
    assert_eq!(tls.origin.count(), 16, "the good ones");
    for path in ["flood", "hangs-up"] {
        let log = gateway.log();
        let told = log
            .iter()
            .any(|line| line.contains(&format!("{path}-auto")));
        assert!(told, "the log names {path}");
    }
}

/// `openssl s_server` with versions that rustls does not speak.
struct OldServer {
    process: Child,
    port: u16,
    said: Arc<Mutex<String>>,
}

impl OldServer {
    async fn start(certificate: &TestCertificate, version: &str) -> (Self, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("own.pem"), &certificate.pem).unwrap();
        std::fs::write(dir.path().join("own.key"), &certificate.key_pem).unwrap();
        let mut process = Command::new("openssl")
            .args(["s_server", "-accept", "127.0.0.1:0", "-cert", "own.pem"])
            .args(["-key", "own.key", version, "-cipher", "ALL:@SECLEVEL=0"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("openssl is installed (make test-install)");
        let said = Arc::<Mutex<String>>::default();
        follow(process.stdout.take().unwrap(), &said);
        follow(process.stderr.take().unwrap(), &said);
        let mut port = None;
        wait_until("openssl says where it listens", SOON, || {
            let said = said.lock().unwrap();
            let line = said.lines().find_map(|line| line.strip_prefix("ACCEPT "));
            port = line.and_then(|at| at.rsplit(':').next()?.trim().parse().ok());
            port.is_some()
        })
        .await;
        let port = port.expect("the wait ended with a port");
        (
            Self {
                process,
                port,
                said,
            },
            dir,
        )
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

impl Drop for OldServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn follow(pipe: impl Read + Send + 'static, into: &Arc<Mutex<String>>) {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            let mut said = into.lock().unwrap();
            said.push_str(&line);
            said.push('\n');
        }
    });
}

#[tokio::test]
async fn versions_of_tls_that_are_broken_are_not_spoken() {
    let tls = paths().await;
    let certificate = tls.authority.certify(&["localhost"]);
    for (version, taken) in [("-tls1", false), ("-tls1_1", false), ("-tls1_2", true)] {
        let (server, _dir) = OldServer::start(&certificate, version).await;
        for protocol in ["auto", "http1"] {
            let upstream = format!(
                "{{targets: [\"https://localhost:{}\"], protocol: {protocol}, timeouts: {{first_byte: 500ms}}, tls: {TRUSTING}}}",
                server.port
            );
            let setup = setup(&tls, TRUSTING, "").upstream("origin", &upstream);
            let gateway = setup.start().await;
            let answer = gateway.client().get("/secret").await;
            let told = answer.header("proxy-status").to_owned();
            if taken {
                // It never answers, but it was asked: so what is below would be seen.
                assert_eq!(answer.status, 504, "{version}: {told}");
                wait_for("openssl shows the request", SOON, || async {
                    server.said().contains("GET /secret").then_some(())
                })
                .await;
                break;
            }
            let wanted = "tls_alert_received; alert-id=70";
            failed(&answer, wanted, &format!("{version}, {protocol}"));
            wait_for("openssl says why it refused", SOON, || async {
                let said = server.said();
                let refused = said.contains("unsupported protocol") || said.contains("version");
                refused.then_some(())
            })
            .await;
            assert!(!server.said().contains("secret"), "{}", server.said());
        }
    }
}

#[tokio::test]
async fn a_connection_that_closes_after_its_handshake_is_a_502() {
    let tls = paths().await;
    tls.front
        .change(|settings| settings.manner = Manner::CloseAfterHandshake);
    for protocol in ["auto", "http1", "http2"] {
        let more = format!(", protocol: {protocol}");
        let gateway = setup(&tls, TRUSTING, &more).start().await;
        for _ in 0..4 {
            let answer = gateway.client().post("/a", "body").await;
            let said = answer.header("proxy-status");
            assert_eq!(answer.status, 502, "{protocol}: {said}");
            assert_eq!(said, "lamina; error=connection_terminated", "{protocol}");
        }
    }
    assert_eq!(tls.origin.count(), 0);
}

/// Loads a page, which is stale at once.
async fn stale_page(protocol: &str) -> (TlsOrigin, Gateway) {
    let tls = TlsOrigin::pages(|_| Reply::ok("page").header("cache-control", "max-age=0")).await;
    let more = format!(", protocol: {protocol}, timeouts: {{connect: 1s}}");
    let gateway = setup(&tls, TRUSTING, &more)
        .top("cache", "{backoff: {base: 10ms, max: 20ms}}")
        .policy("{stale_if_error: 1d}")
        .start()
        .await;
    assert_eq!(gateway.client().get("/").await.text(), "page");
    (tls, gateway)
}

#[tokio::test]
async fn a_stale_copy_is_served_while_tls_fails_and_a_fresh_one_after_that() {
    for protocol in ["http1", "http2"] {
        let (tls, gateway) = stale_page(protocol).await;
        let right = tls.authority.certify(&["localhost"]);
        let faults: [(&str, FrontSettings); 4] = [
            (
                "expired",
                FrontSettings::new(tls.authority.certify_for(&["localhost"], Validity::Past)),
            ),
            (
                "another name",
                FrontSettings::new(tls.authority.certify(&["shop.example"])),
            ),
            (
                "an alert",
                FrontSettings {
                    manner: Manner::Alert(80),
                    ..FrontSettings::new(right.clone())
                },
            ),
            (
                "it stalls",
                FrontSettings {
                    manner: Manner::Stall,
                    ..FrontSettings::new(right.clone())
                },
            ),
        ];
        for (what, settings) in faults {
            tls.front.change(|current| *current = settings);
            tls.front.cut();
            let (asked, tried) = (tls.origin.count(), tls.front.connections());
            wait_for("the origin was tried again", SOON, || async {
                let answer = gateway.client().get("/").await;
                let said = (answer.status.as_u16(), answer.text());
                assert_eq!(said, (200, "page"), "{protocol}, {what}");
                (tls.front.connections() > tried).then_some(())
            })
            .await;
            assert_eq!(tls.origin.count(), asked, "{protocol}, {what}");
        }
        let asked = tls.origin.count();
        tls.front
            .change(|current| *current = FrontSettings::new(right));
        wait_for("the origin is asked again", SOON, || async {
            assert_eq!(gateway.client().get("/").await.text(), "page");
            (tls.origin.count() > asked).then_some(())
        })
        .await;
    }
}

async fn ok(answer: &Answer, what: &str) {
    let said = answer.header("proxy-status");
    assert_eq!(answer.status, 200, "{what}: {said}");
}

#[tokio::test]
async fn a_kept_connection_that_the_origin_has_closed_costs_no_request() {
    let tls = paths().await;
    for protocol in ["http1", "http2", "auto"] {
        for goodbye in [true, false] {
            tls.front.change(|settings| settings.says_goodbye = goodbye);
            let more = format!(", protocol: {protocol}");
            let gateway = setup(&tls, TRUSTING, &more).start().await;
            let before = (tls.origin.count(), tls.front.connections());
            for n in 0..20 {
                let what = format!("{protocol}, goodbye {goodbye}, {n}");
                let (path, body) = (format!("/{n}"), "body");
                ok(&gateway.client().post(&path, body).await, &what).await;
                ok(&gateway.client().get(&path).await, &what).await;
                tls.front.cut();
                wait_until("its connections are closed", SOON, || tls.front.open() == 0).await;
            }
            assert_eq!(tls.origin.count(), before.0 + 40, "none was sent twice");
            let opened = tls.front.connections() - before.1;
            assert!((20..=60).contains(&opened), "{opened} connections");
        }
    }
}

#[tokio::test]
async fn a_request_that_an_origin_has_read_is_not_sent_again() {
    let origin = Origin::pages(|seen| match seen.path_only() {
        "/gone" => Reply::hang_up(),
        path => Reply::ok(path.to_owned()).header("cache-control", "no-store"),
    })
    .await;
    let tls = TlsOrigin::of(origin).await;
    for protocol in ["http1", "http2"] {
        let more = format!(", protocol: {protocol}");
        let gateway = setup(&tls, TRUSTING, &more).start().await;
        for n in 0..10 {
            ok(&gateway.client().get("/a").await, "a kept connection").await;
            let path = format!("/gone?{protocol}{n}");
            for method in [Method::GET, Method::POST] {
                let answer = gateway.client().ask(method, &path).send().await;
                assert_eq!(answer.status, 502, "{path}");
            }
            assert_eq!(tls.origin.count_of(&path), 2, "{path}");
        }
    }
}

#[tokio::test]
async fn the_next_target_is_asked_where_tls_fails_before_anything_is_sent() {
    let tls = paths().await;
    let shown = tls.authority.certify(&["shop.example"]);
    let bad = TlsFront::before(tls.origin.address(), FrontSettings::new(shown)).await;
    let (first, second) = (bad.url(), tls.front.url());
    for protocol in ["http1", "http2", "auto"] {
        let upstream = format!(
            "{{targets: [\"{first}\", \"{second}\"], protocol: {protocol}, tls: {TRUSTING}}}"
        );
        let setup: Setup = setup(&tls, TRUSTING, "").upstream("origin", &upstream);
        let gateway = setup.start().await;
        for n in 0..6 {
            let path = format!("/{n}");
            assert_eq!(gateway.client().get(&path).await.text(), path, "{protocol}");
        }
    }
    assert!(bad.connections() >= 3, "it was tried");
    assert!(bad.data().is_empty());
    assert_eq!(tls.origin.count(), 18);
}
