//! From a name and a public port to a certificate without a file: `lamina run --domain … --to …`.

use e2e::cli;
use e2e::gateway::Gateway;
use e2e::origin::Origin;
use e2e::pebble::{Pebble, here};
use e2e::reply::Reply;
use e2e::setup::write_config;
use e2e::tls::TlsClient;

use crate::acme::obtained;

const NAME: &str = "shop.example.com";

/// The options as a new user gives them. What they stand for is what runs here, with ports for the
/// admin listener that are free.
#[tokio::test]
async fn options_alone_obtain_a_certificate_and_serve_the_origin() {
    let pebble = Pebble::start().await;
    let origin = Origin::pages(|_| Reply::fresh("page")).await;
    let dir = tempfile::tempdir().unwrap();
    let (http, https) = (here(pebble.http_port), here(pebble.tls_port));
    let (http_text, https_text) = (http.to_string(), https.to_string());
    let (to, directory) = (origin.url(), pebble.directory());
    let authority = dir.path().join("issuer.pem");
    std::fs::write(&authority, pebble.server_authority()).unwrap();
    let state = dir.path().join("state");
    let environment = [("LAMINA_STATE_DIR", state.to_str().unwrap())];
    let ran = cli::run_with(
        &[
            "run",
            "--domain",
            NAME,
            "--to",
            &to,
            "--acme-directory",
            &directory,
            "--acme-ca-file",
            authority.to_str().unwrap(),
            "--https",
            &https_text,
            "--http",
            &http_text,
            "--print-config",
        ],
        &environment,
    );
    assert_eq!(ran.code, Some(0), "{}", ran.output());
    let line = format!("{{ acme: main, names: [\"{NAME}\"] }}");
    assert!(
        ran.stdout.contains(&line),
        "one line says it: {}",
        ran.stdout
    );
    let admin = "admin: { address: \"127.0.0.1:0\" }";
    let config = write_config(dir.path(), &format!("{}{admin}\n", ran.stdout));
    let gateway = Gateway::start(dir, &config, &[]).await;
    obtained(&pebble, https, NAME).await;
    let client = TlsClient::new(https, NAME);
    let page = client.clone().http2().http().await.get(NAME, "/").await;
    assert_eq!((page.status.as_u16(), page.text()), (200, "page"));
    assert!(client.http().await.get(NAME, "/").await.is_hit());
    let clear = gateway_redirect(http).await;
    assert_eq!(clear, format!("https://{NAME}:{}/", https.port()));
    drop(gateway);
}

/// Where a client of clear text is sent.
async fn gateway_redirect(address: std::net::SocketAddr) -> String {
    let client = e2e::client::Client::http1(address).uncached();
    let answer = client.request("/").host(NAME).send().await;
    assert_eq!(answer.status, 308);
    answer.header("location").to_owned()
}
