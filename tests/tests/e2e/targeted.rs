//! Targeted cache control (RFC 9213): a field for our class of caches replaces
//! `Cache-Control` and `Expires`.

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::reply::Reply;
use e2e::setup::site;

async fn twice(gateway: &Gateway, path: &str) -> (Answer, Answer) {
    let client = gateway.client();
    (client.get(path).await, client.get(path).await)
}

#[tokio::test]
async fn a_valid_targeted_field_rules_in_both_directions_and_goes_on_to_the_client() {
    let (_origin, gateway) = site("{}", |seen| {
        let (general, ours) = match seen.path.as_str() {
            "/allow" => ("no-store", "max-age=100"),
            "/forbid" => ("max-age=100", "no-store"),
            "/private" => ("public, max-age=100", "private"),
            _ => ("max-age=1", "max-age=100"),
        };
        Reply::ok("x")
            .header("cache-control", general)
            .header("cdn-cache-control", ours)
            .header("expires", "Thu, 01 Jan 1970 00:00:00 GMT")
    })
    .await;
    for (path, kept) in [
        ("/allow", true),
        ("/forbid", false),
        ("/private", false),
        ("/longer", true),
    ] {
        let (_, second) = twice(&gateway, path).await;
        assert_eq!(second.is_hit(), kept, "{path}");
        assert!(!second.header("cdn-cache-control").is_empty(), "{path}");
        assert!(!second.header("cache-control").is_empty(), "{path}");
        if kept {
            assert!(second.cache().ttl.unwrap() > 50, "{path}");
        }
    }
}

#[tokio::test]
async fn an_invalid_targeted_field_is_as_if_it_were_not_there() {
    let (_origin, gateway) = site("{}", |seen| {
        let ours = match seen.path.as_str() {
            "/syntax" => "max-age=10000, &&&",
            "/type" => "max-age=\"10000\"",
            _ => "",
        };
        Reply::ok("x")
            .header("cache-control", "max-age=60")
            .header("cdn-cache-control", ours)
    })
    .await;
    for path in ["/syntax", "/type", "/empty"] {
        let (_, second) = twice(&gateway, path).await;
        assert!(
            matches!(second.cache().ttl, Some(50..=60)),
            "{path}: {:?}",
            second.cache()
        );
    }
}

#[tokio::test]
async fn a_targeted_field_without_a_lifetime_silences_expires() {
    let (_origin, gateway) = site("{}", |seen| {
        let page = Reply::ok("x").header("expires", "Fri, 01 Jan 2100 00:00:00 GMT");
        match seen.path.as_str() {
            "/targeted" => page.header("cdn-cache-control", "must-revalidate"),
            _ => page,
        }
    })
    .await;
    assert!(!twice(&gateway, "/targeted").await.1.is_hit());
    assert!(twice(&gateway, "/").await.1.is_hit(), "Expires alone holds");
}

#[tokio::test]
async fn the_field_forms_of_a_targeted_field_hide_the_fields_they_name() {
    let (_origin, gateway) = site("{}", |_| {
        Reply::fresh("x")
            .header("cdn-cache-control", "max-age=60, private=\"x-user\"")
            .header("x-user", "ann")
    })
    .await;
    let (first, second) = twice(&gateway, "/").await;
    assert_eq!(first.header("x-user"), "ann", "it is hers");
    assert_eq!((second.is_hit(), second.header("x-user")), (true, ""));
}

#[tokio::test]
async fn a_route_names_its_targets_and_their_order() {
    let (_origin, gateway) = site(
        "{targeted: [Lamina-Cache-Control, CDN-Cache-Control]}",
        |_| {
            Reply::ok("x")
                .header("cdn-cache-control", "max-age=10")
                .header("lamina-cache-control", "max-age=100")
        },
    )
    .await;
    assert!(twice(&gateway, "/").await.1.cache().ttl.unwrap() > 50);
    let (_origin, gateway) = site("{targeted: []}", |_| {
        Reply::fresh("x").header("cdn-cache-control", "no-store")
    })
    .await;
    assert!(twice(&gateway, "/").await.1.is_hit());
}
