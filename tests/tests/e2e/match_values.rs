//! Routes that are chosen by what fields and parameters hold.

use e2e::origin::Origin;
use e2e::reply::Reply;
use e2e::setup::Setup;

/// Names and values of header fields.
type FieldLines = &'static [(&'static str, &'static str)];

#[tokio::test]
async fn fields_and_parameters_choose_a_route_by_lists_and_in_any_case() {
    let origin = Origin::pages(|_| Reply::fresh("x")).await;
    let gateway = Setup::new(&origin)
        .route(
            "{name: members, match: {header: {cookie: [\"*session=*\", \"*logged_in*\"]}}, \
             upstream: origin, cache: off}",
        )
        .route(
            "{name: robots, match: {header: {user-agent: {any: [\"*bot*\", \"*spider*\"], \
             case: ignore}}}, upstream: origin, cache: off}",
        )
        .route("{name: previews, match: {query: {preview: \"*\"}}, upstream: origin, cache: off}")
        .route("{name: site, upstream: origin}")
        .start()
        .await;
    let cases: [(&str, FieldLines, bool); 7] = [
        ("/", &[], true),
        ("/", &[("cookie", "a=1; session=2")], false),
        ("/", &[("cookie", "wp_logged_in=1")], false),
        ("/", &[("user-agent", "GoogleBOT/2")], false),
        ("/?previews=1", &[], true),
        ("/?p=1&pre%76iew", &[], false),
        ("/?preview=true", &[], false),
    ];
    for (target, fields, cached) in cases {
        let mut stored = false;
        for _ in 0..2 {
            let ask = gateway.client().request(target);
            let ask = fields.iter().fold(ask, |ask, (n, v)| ask.header(n, v));
            stored = ask.send().await.is_hit();
        }
        assert_eq!(stored, cached, "{target} {fields:?}");
    }
}
