//! The memory that the instances of all plugins share (`plugins.max_total_memory`).

use e2e::cli;
use e2e::guest;
use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;
use e2e::wait::{SOON, wait_for};
use tokio::sync::Semaphore;

const CALLS: usize = 16;

fn setup(origin: &Origin, total: &str) -> Setup {
    let limits = "limits: {load_timeout: 10m, max_memory: 8MiB, recycle_memory: 4MiB}";
    Setup::new(origin)
        .upstream("shop", &format!("{{targets: [\"{}\"]}}", origin.url()))
        .file("web.wasm", guest::built("web"))
        .top(
            "plugins",
            &format!(
                "{{max_total_memory: {total}, p: {{file: web.wasm, fetch: [shop], {limits}}}}}"
            ),
        )
        .route("{name: site, loader: {plugin: p}}")
}

#[tokio::test]
async fn a_call_for_which_all_have_no_memory_left_is_503_with_the_key_and_the_next_is_served() {
    let doors: &'static Semaphore = Box::leak(Box::new(Semaphore::new(0)));
    let origin = Origin::start(move |_| async move {
        drop(doors.acquire().await);
        Reply::ok("page").header("cache-control", "no-store")
    })
    .await;
    let gateway = setup(&origin, "8MiB").start().await;
    let client = gateway.client();
    let asking: Vec<_> = (0..CALLS)
        .map(|n| {
            let client = client.clone();
            tokio::spawn(async move { client.get(&format!("/fetch?http://shop/{n}")).await })
        })
        .collect();
    let refused = [("plugin", "p"), ("outcome", "overloaded")];
    let refused = async || gateway.metric("lamina_plugin_calls_total", &refused).await;
    wait_for("each call is under way or refused", SOON, async || {
        (refused().await as usize + origin.count() >= CALLS).then_some(())
    })
    .await;
    doors.add_permits(10_000);
    let mut statuses = Vec::new();
    for asking in asking {
        statuses.push(asking.await.unwrap().status.as_u16());
    }
    let of = |status| statuses.iter().filter(|got| **got == status).count();
    assert_eq!(of(503), refused().await as usize);
    assert!(of(503) > 0 && of(200) > 0, "{statuses:?}");
    assert_eq!(of(503) + of(200), CALLS, "{statuses:?}");
    let named = |line: &str| line.contains("plugins.max_total_memory");
    gateway.logged("the reason", named).await;
    let answer = client.get("/fetch?http://shop/again").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn an_instance_that_may_have_more_than_all_together_is_an_error_of_the_configuration() {
    let origin = Origin::pages(|_| Reply::ok("")).await;
    let (_dir, config) = setup(&origin, "4MiB").write();
    let ran = cli::run(&["validate", "-c", config.to_str().unwrap()]);
    assert_eq!(ran.code, Some(2), "{}", ran.output());
    for word in [
        "plugins.p.limits.max_memory",
        "plugins.max_total_memory (4MiB)",
    ] {
        assert!(ran.output().contains(word), "{}", ran.output());
    }
}
