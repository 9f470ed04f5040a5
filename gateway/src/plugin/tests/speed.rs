//! Measurements, run by hand: `cargo test --release -p lamina --lib plugin::tests::speed -- --ignored --nocapture`.

use super::*;

fn per_call(name: &str, calls: u32, mut call: impl FnMut(u32)) {
    (0..calls / 10).for_each(&mut call);
    let started = Instant::now();
    (0..calls).for_each(&mut call);
    println!(
        "{name:32} {:8.0} ns",
        started.elapsed().as_nanos() as f64 / f64::from(calls)
    );
}

#[tokio::test]
#[ignore = "a measurement"]
async fn what_a_key_costs() {
    let site = load_shipped(
        "normalize-query",
        json!({ "drop": ["utm_*"], "sort": true }),
    )
    .await;
    let plugin = site.plugin("normalize-query");
    let request = get("/p?b=2&utm_source=mail&a=1", &[]);
    per_call("key, remembered", 1_000_000, |_| {
        drop(plugin.key(&request, "shop"))
    });
    let requests: Vec<_> = (0..200_000)
        .map(|i| get(&format!("/p?b=2&utm_source={i}&a=1"), &[]))
        .collect();
    per_call("key, called", 200_000, |i| {
        drop(plugin.key(&requests[i as usize], "shop"))
    });
    let site = load_shipped(
        "normalize-query",
        json!({ "drop": ["utm_*"], "sort": true, "declarative": true }),
    )
    .await;
    let plugin = site.plugin("normalize-query");
    per_call("key, declared", 1_000_000, |_| {
        drop(plugin.key(&request, "shop"))
    });
    let site = load_code(key_guest("unreachable", "")).await.unwrap();
    let plugin = site.plugin("bad");
    per_call("key, a fresh instance and a trap", 20_000, |_| {
        drop(plugin.key(&request, "shop"))
    });
}
