//! Which addresses may send requests to a route (AD1): by the client that trusted proxies name, also
//! for answers that are stored (O1).

use e2e::cli::run;
use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::Method;

const ACCESS: &str =
    "{allow: [10.1.0.0/16, \"2001:db8::/32\"], deny: [10.1.6.6, \"2001:db8:bad::/48\"]}";

async fn origin() -> Origin {
    Origin::pages(|_| Reply::fresh("for some").header("etag", "\"1\"")).await
}

/// A gateway that believes its neighbours, with this access.
fn guarded(origin: &Origin, access: &str) -> Setup {
    let route = format!("{{name: site, upstream: origin, access: {access}}}");
    Setup::new(origin)
        .listener("trusted_proxies", "[127.0.0.0/8]")
        .route(&route)
}

async fn ask_as(gateway: &Gateway, client: &str, method: Method, more: &[(&str, &str)]) -> Answer {
    let client_of = gateway.client().uncached();
    let ask = client_of
        .ask(method, "/page")
        .header("x-forwarded-for", client);
    let ask = more
        .iter()
        .fold(ask, |ask, (name, value)| ask.header(name, value));
    ask.send().await
}

async fn get_as(gateway: &Gateway, client: &str) -> Answer {
    ask_as(gateway, client, Method::GET, &[]).await
}

#[tokio::test]
async fn the_client_that_proxies_name_decides_and_not_the_proxy() {
    let origin = origin().await;
    let gateway = guarded(&origin, ACCESS).start().await;
    for client in [
        "10.1.2.3",
        "::ffff:10.1.2.3",
        "2001:db8::7",
        "[2001:db8:1::1]:4711",
        "192.0.2.1, 10.1.2.3",
    ] {
        assert_eq!(get_as(&gateway, client).await.status, 200, "{client}");
    }
    let asked = origin.count();
    for client in [
        "10.2.0.1",
        "10.1.6.6",
        "::ffff:10.1.6.6",
        "2001:db9::1",
        "2001:db8:bad::1",
        "10.1.2.3, 192.0.2.1",
        "unknown",
        "10.1.2.3, unknown",
    ] {
        let answer = get_as(&gateway, client).await;
        assert_eq!(
            (answer.status.as_u16(), answer.text()),
            (403, "403 forbidden\n"),
            "{client}"
        );
    }
    let own = gateway.client().uncached().get("/page").await;
    assert_eq!(own.status, 403, "the proxy's own address is on no list");
    assert_eq!(
        origin.count(),
        asked,
        "nothing of that has reached the origin"
    );
}

#[tokio::test]
async fn who_is_denied_sees_nothing_that_is_stored() {
    let origin = origin().await;
    let gateway = guarded(&origin, ACCESS).start().await;
    get_as(&gateway, "10.1.2.3").await;
    assert!(get_as(&gateway, "10.1.2.3").await.is_hit(), "it is stored");
    let questions: [(Method, &[(&str, &str)]); 6] = [
        (Method::GET, &[]),
        (Method::HEAD, &[]),
        (Method::GET, &[("if-none-match", "\"1\"")]),
        (Method::GET, &[("range", "bytes=0-3")]),
        (Method::GET, &[("cache-control", "only-if-cached")]),
        (Method::GET, &[("cache-control", "max-stale=100")]),
    ];
    for (method, more) in questions {
        let answer = ask_as(&gateway, "10.1.6.6", method.clone(), more).await;
        assert_eq!(answer.status, 403, "{method} {more:?}");
        assert!(
            !answer.has("etag") && !answer.has("age"),
            "{method} {more:?}"
        );
        assert!(!answer.text().contains("for some"), "{method} {more:?}");
    }
    assert_eq!(origin.count(), 1);
}

#[tokio::test]
async fn the_proxy_protocol_names_the_client() {
    let origin = origin().await;
    let gateway = guarded(&origin, ACCESS)
        .listener("proxy_protocol", "true")
        .start()
        .await;
    let get = "GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    for (protocol, client, proxy, status) in [
        ("TCP4", "10.1.2.3", "10.0.0.1", "200"),
        ("TCP4", "10.1.6.6", "10.0.0.1", "403"),
        ("TCP4", "192.0.2.7", "10.0.0.1", "403"),
        ("TCP6", "2001:db8::7", "2001:db8::1", "200"),
        ("TCP6", "2001:db8:bad::7", "2001:db8::1", "403"),
    ] {
        let mut raw = gateway.raw().await;
        let header = format!("PROXY {protocol} {client} {proxy} 4321 80\r\n");
        raw.write(format!("{header}{get}")).await;
        let said = String::from_utf8_lossy(&raw.to_end().await).into_owned();
        let begins = format!("HTTP/1.1 {status} ");
        assert!(said.starts_with(&begins), "{client}: {said}");
    }
}

#[tokio::test]
async fn a_reload_changes_who_sees_what_is_stored() {
    let origin = origin().await;
    let gateway = guarded(&origin, "{}").start().await;
    get_as(&gateway, "10.1.2.3").await;
    assert!(get_as(&gateway, "192.0.2.1").await.is_hit());
    gateway.take_up(&guarded(&origin, ACCESS)).await;
    assert_eq!(get_as(&gateway, "192.0.2.1").await.status, 403);
    assert!(
        get_as(&gateway, "10.1.2.3").await.is_hit(),
        "it is still stored"
    );
    gateway
        .take_up(&guarded(&origin, "{deny: [10.1.0.0/16]}"))
        .await;
    assert_eq!(get_as(&gateway, "10.1.2.3").await.status, 403);
    assert!(get_as(&gateway, "192.0.2.1").await.is_hit());
}

#[tokio::test]
async fn what_is_no_network_is_shown_where_it_stands() {
    let origin = origin().await;
    let setup = guarded(
        &origin,
        "{allow: [10.0.0.0/8, 10.0.0.0/33], deny: [localhost]}",
    );
    let (_dir, file) = setup.write();
    let ran = run(&["validate", "-c", file.to_str().unwrap()]);
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    let yaml = setup.yaml();
    let line = yaml
        .lines()
        .position(|line| line.contains("access:"))
        .unwrap()
        + 1;
    for (key, wrong) in [("allow[1]", "10.0.0.0/33"), ("deny[0]", "localhost")] {
        let told = ran.output();
        assert!(told.contains(&format!("lamina.yaml:{line}:")), "{told}");
        assert!(
            told.contains(&format!("routes[0].access.{key}")) && told.contains(wrong),
            "{told}"
        );
    }
}

/// Issue 18: most proxies write one of the two fields and pass the other on as it came.
#[tokio::test]
async fn a_client_lets_itself_in_by_no_field_that_its_proxy_passes_on() {
    let origin = origin().await;
    let own = [("forwarded", "for=1.2.3.4")];
    for access in ["{deny: [10.6.6.6]}", "{deny: [\"0.0.0.0/0\", \"::/0\"]}"] {
        let gateway = guarded(&origin, access).start().await;
        for client in ["10.6.6.6", "unknown"] {
            for more in [&[][..], &own, &[("forwarded", "for=unknown")]] {
                let answer = ask_as(&gateway, client, Method::GET, more).await;
                assert_eq!(answer.status, 403, "{access} {client} {more:?}");
            }
        }
    }
    let believing =
        guarded(&origin, "{deny: [10.6.6.6]}").listener("client_from", "x-forwarded-for");
    let gateway = believing.start().await;
    for (client, status) in [("10.6.6.6", 403), ("10.7.7.7", 200)] {
        let answer = ask_as(&gateway, client, Method::GET, &own).await;
        assert_eq!(answer.status, status, "{client}");
    }
}
