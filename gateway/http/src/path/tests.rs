//! Tests of `http::path`: tables of spellings, and laws that hold for all of them.

use proptest::prelude::*;

use super::*;
use lamina_base::pattern::Pattern;

#[test]
fn equivalent_spellings_have_one_form() {
    for (given, form) in [
        ("/account/me", "/account/me"),
        ("/%61ccount/%6De", "/account/me"),
        ("/a%2fb%c3%A9", "/a%2Fb%C3%A9"),
        ("/café", "/caf%C3%A9"),
        ("/x/../account/me", "/account/me"),
        ("/./account/me", "/account/me"),
        ("/account/%2e%2E/account/.%2e/me", "/me"),
        ("/..", "/"),
        ("/a/.", "/a/"),
        ("/a/b/..", "/a/"),
        ("/a//../b", "/a/b"),
        ("//account//me", "//account//me"),
        ("/...", "/..."),
        ("/a/..;/b", "/a/..;/b"),
        ("/a\\b", "/a%5Cb"),
        ("/a%5cb", "/a%5Cb"),
        ("/100%", "/100%25"),
        ("/%%36%31", "/%2561"),
        ("/%zz", "/%25zz"),
        ("/%2561", "/%2561"),
        ("/[id]", "/%5Bid%5D"),
        ("/!$&'()*+,;=:@", "/!$&'()*+,;=:@"),
        ("/%21%40", "/%21%40"),
        ("/a?", "/a?"),
        ("/?%7e=%2f&b=%c3%a9&&c=+", "/?~=%2F&b=%C3%A9&&c=+"),
        ("/?é/../x", "/?%C3%A9/../x"),
        ("/?a[]={|}\\^`", "/?a[]={|}\\^`"),
        ("/?%%36%31", "/?%2561"),
        ("?x", "/?x"),
    ] {
        assert_eq!(normal(given), form, "{given}");
    }
}

#[test]
fn a_plain_path_is_not_touched() {
    let mut uri: Uri = "/shop/items/7.html?lang=de&x=[1]".parse().unwrap();
    let before = uri.path_and_query().unwrap().as_str().as_ptr();
    assert_eq!(arrive(&mut uri), Ok(PathSpelling::Sole));
    assert_eq!(uri.path_and_query().unwrap().as_str().as_ptr(), before);
    let mut all: Uri = "*".parse().unwrap();
    assert_eq!(arrive(&mut all), Ok(PathSpelling::Sole));
    assert_eq!(all, "*");
}

#[test]
fn only_what_can_be_read_otherwise_has_readings() {
    for (path, other) in [
        ("//account/me", &["/account/me"][..]),
        ("/account%2Fme", &["/account/me"]),
        ("/account%5Cme", &["/account/me", "/account%5Cme"]),
        ("/%2561ccount/me", &["/account/me"]),
        ("/%252561ccount/me", &["/account/me", "/%2561ccount/me"]),
        ("/account;x/me", &["/account/me"]),
        ("/account/me;x", &["/account/me"]),
        ("/account%3Bx/me", &["/account/me", "/account;x/me"]),
        ("/account/me%00", &["/account/me", "/account/me%00"]),
        ("/account/me%2500", &["/account/me", "/account/me%00"]),
        ("/account/me%3Fx", &["/account/me"]),
        ("/x/..;/account/me", &["/account/me"]),
        ("/x%2F..%2Faccount/me", &["/account/me"]),
        ("/x/%252e%252e/account/me", &["/account/me"]),
        ("/x/%2F..%2Faccount", &["/account", "/x/account"]),
        ("/x%5C..%5Caccount/me", &["/account/me"]),
        ("/@scope%2Fname", &["/@scope/name"]),
        ("/%40scope/name", &["/@scope/name"]),
    ] {
        let found = readings(path).unwrap();
        for other in other.iter().filter(|other| **other != path) {
            assert!(found.iter().any(|text| text == other), "{path}: {found:?}");
        }
    }
    for path in ["/caf%C3%A9/a%20b", "/a.b/~c/(d)", "/"] {
        assert!(!may_differ_and_does(path), "{path}");
    }
    let nested = |times: usize| format!("/%{}61", "25".repeat(times));
    assert!(readings(&nested(MOST_DECODINGS - 1)).is_ok());
    assert_eq!(readings(&nested(MOST_DECODINGS)), Err(PathFault::TooDeep));
}

fn may_differ_and_does(path: &str) -> bool {
    readings::may_differ(path) || !readings(path).unwrap().is_empty()
}

#[test]
fn rules_keep_change_or_refuse() {
    let rules = |yaml: &str| serde_yaml::from_str::<PathRules>(yaml).unwrap();
    for (yaml, path, shaped, fault) in [
        ("{}", "//a%2Fb", "//a%2Fb", None),
        ("{}", "/a%5Cb", "/a%5Cb", Some(PathFault::Backslash)),
        ("{}", "/a%00", "/a%00", Some(PathFault::Nul)),
        ("{}", "/a%255Cb%2500", "/a%255Cb%2500", None),
        ("{backslash: keep, nul: keep}", "/%5C%00", "/%5C%00", None),
        ("{slashes: merge}", "//a///b/", "/a/b/", None),
        (
            "{slashes: refuse}",
            "/a//b",
            "/a//b",
            Some(PathFault::RepeatedSlashes),
        ),
        ("{escaped_slash: decode}", "/a%2F..%2Fb", "/b", None),
        (
            "{escaped_slash: decode, slashes: merge}",
            "/a%2F%2Fb",
            "/a/b",
            None,
        ),
        (
            "{escaped_slash: decode, slashes: refuse}",
            "/a/%2Fb",
            "/a//b",
            Some(PathFault::RepeatedSlashes),
        ),
        (
            "{escaped_slash: refuse}",
            "/a%2Fb",
            "/a%2Fb",
            Some(PathFault::EscapedSlash),
        ),
        ("{escaped_slash: refuse}", "/a%252Fb", "/a%252Fb", None),
    ] {
        let found = rules(yaml).shape(path);
        assert_eq!(
            (&*found.path, found.fault),
            (shaped, fault),
            "{yaml} {path}"
        );
    }
}

#[test]
fn what_a_route_says_goes_before_what_its_listener_says() {
    let listener: PathRules = serde_yaml::from_str("{slashes: refuse, nul: keep}").unwrap();
    let route: PathRuleOverrides = serde_yaml::from_str("{slashes: keep}").unwrap();
    let rules = route.over(listener);
    assert_eq!(
        (rules.slashes, rules.nul),
        (RepeatedSlashes::Keep, UnusualOctet::Keep)
    );
    assert_eq!(PathRuleOverrides::default().over(listener), listener);
}

#[test]
fn texts_that_select_paths_get_the_same_form() {
    for (given, form) in [
        ("/p/café", "/p/caf%C3%A9"),
        ("/p/caf%c3%a9", "/p/caf%C3%A9"),
        ("http://a.example/x/../p é", "http://a.example/p%20%C3%A9"),
        ("[::1]:80/%61", "[::1]:80/a"),
        ("user:é", "user:é"),
        ("http://a.example?x", "http://a.example/?x"),
    ] {
        assert_eq!(text::whole(given), form, "{given}");
    }
    for (given, form) in [
        ("/p/caf%c3%a9/", "/p/caf%C3%A9/"),
        ("/p/caf%c3%a", "/p/caf%C3%A"),
        ("/p/caf%c3%", "/p/caf%C3%"),
        ("/p/%4", "/p/%4"),
        ("/x/../p/..", "/p/.."),
        ("/x/./.well", "/x/.well"),
        ("/a/..?b", "/?b"),
        ("shop.example/é", "shop.example/%C3%A9"),
        ("shop.exa", "shop.exa"),
    ] {
        assert_eq!(text::beginning(given), form, "{given}");
    }
    for (given, form) in [
        ("/p/café*", "/p/caf%C3%A9*"),
        ("*/p/caf%c3%a9/?", "*/p/caf%C3%A9/?"),
        (r"/a\*b\\c", r"/a\*b%5Cc"),
        (r"/a\?é=\\", r"/a\?%C3%A9=\\"),
        ("/%61*/../%2a", "/a*/../%2A"),
        ("/x/../a/*", "/a/*"),
        ("/a/*/../../b/..", "/a/*/../../"),
        (r"/a/\*/../b", "/a/b"),
        ("/a/%c*/%", "/a/%C*/%25"),
        ("*café*", "*caf%C3%A9*"),
        ("http://[::1]/é*", "http://[::1]/%C3%A9*"),
    ] {
        assert_eq!(text::pattern(given), form, "{given}");
    }
    assert_eq!(text::of_octets(b"/caf\xe9?"), "/caf%E9?");
}

/// Texts of pieces that matter to paths.
fn target() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("//"),
        Just("."),
        Just(".."),
        Just("%2e"),
        Just("%2E%2e"),
        Just("a"),
        Just("b"),
        Just("%61"),
        Just("%2561"),
        Just("%2f"),
        Just("%252F"),
        Just("%5c"),
        Just("\\"),
        Just(";"),
        Just("%3b"),
        Just("%"),
        Just("%4"),
        Just("%00"),
        Just("é"),
        Just("%c3%a9"),
        Just("%3F"),
        Just("%23"),
        Just("@"),
        Just("%40"),
        Just("[")
    ];
    proptest::collection::vec(piece, 0..10).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn query() -> impl Strategy<Value = String> {
    "(\\?[a%6é/.\\[&=+]{0,8})?"
}

/// A path as an origin may see it: a second implementation, step by step, of what RFC 3986 says
/// and what servers do.
fn seen(path: &str, decodings: usize, merges: bool, cuts: bool) -> String {
    let mut octets = path.as_bytes().to_vec();
    for _ in 0..decodings {
        octets = percent_encoding::percent_decode(&octets).collect();
    }
    let text: String = octets
        .iter()
        .map(|b| match *b {
            b'\\' => "/".to_owned(),
            b if decodings == 0 && b == b'%' => "%".to_owned(),
            b if b.is_ascii_graphic() && !b"\"#%<>?[\\]^`{|}".contains(&b) => {
                (b as char).to_string()
            }
            b => format!("%{b:02X}"),
        })
        .collect();
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = text.split('/').skip(1).collect();
    for (n, segment) in segments.iter().enumerate() {
        let is_last = n + 1 == segments.len();
        let name = match cuts {
            true => segment.split(';').next().unwrap(),
            false => segment,
        };
        match name {
            "" if merges && !is_last => {}
            "." | ".." => {
                if name == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            name => kept.push(name),
        }
    }
    format!("/{}", kept.join("/"))
}

fn routes() -> impl Strategy<Value = Vec<Pattern>> {
    let path = prop_oneof![
        Just("/a/*"),
        Just("/a*"),
        Just("/b"),
        Just("/a/b"),
        Just("/*"),
        Just("/@*"),
        Just("/a%2Fb*"),
        Just("//a*"),
        Just("/caf%C3%A9*"),
        Just("/%C3%A9/*"),
        Just("*b"),
        Just("/a;*")
    ];
    let patterns = proptest::collection::vec(path, 1..4);
    patterns.prop_map(|all| all.into_iter().map(Pattern::new).collect())
}

fn first(routes: &[Pattern], path: &str) -> Option<usize> {
    routes.iter().position(|route| route.matches(path))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_normal_form_is_its_own(path in target(), query in query()) {
        let once = normal(&format!("{path}{query}")).into_owned();
        prop_assert_eq!(&*normal(&once), &once);
        prop_assert_eq!(&*text::whole(&once), &once);
        let mut uri: Uri = once.parse().unwrap();
        let spelling = arrive(&mut uri).unwrap();
        let others = readings(uri.path());
        prop_assert!(spelling == PathSpelling::Several || others == Ok(Vec::new()), "{}", once);
        prop_assert_eq!(uri.path_and_query().unwrap().as_str(), once);
    }

    #[test]
    fn equivalents_share_their_form(path in "/[a-c./~]{0,8}", escapes in proptest::collection::vec(0..3_usize, 9)) {
        let spelt: String = path
            .bytes()
            .zip(escapes)
            .enumerate()
            .map(|(n, (octet, how))| match how {
                1 if n > 0 && octet != b'/' => format!("%{octet:02x}"),
                2 if n > 0 && octet != b'/' => format!("%{octet:02X}"),
                _ => (octet as char).to_string(),
            })
            .collect();
        prop_assert_eq!(normal(&spelt), normal(&path));
        let detour = spelt.replacen('/', "/x/%2E%2e/./", 1);
        prop_assert_eq!(normal(&detour), normal(&path));
    }

    #[test]
    fn no_origin_sees_another_route_than_the_one_that_answers(
        path in target(),
        routes in routes(),
        decodings in 0..=MOST_DECODINGS,
        merges: bool,
        cuts: bool,
    ) {
        let normal = normal(&path);
        let Ok(others) = readings(&normal) else { return Ok(()) };
        let route = first(&routes, &normal);
        let is_refused = others.iter().any(|other| first(&routes, other) != route);
        let seen = seen(&normal, decodings, merges, cuts);
        prop_assert!(is_refused || first(&routes, &seen) == route, "{} is {}: {:?}", normal, seen, others);
    }

    #[test]
    fn readings_of_a_reading_are_readings(path in target()) {
        let normal = normal(&path);
        let Ok(others) = readings(&normal) else { return Ok(()) };
        for other in &others {
            prop_assert_eq!(&*super::normal(other), other, "a reading is in normal form");
        }
    }

    #[test]
    fn what_rules_make_of_a_path_they_leave_alone(path in target(), merge: bool, decode: bool) {
        let rules = PathRules {
            slashes: if merge { RepeatedSlashes::Merge } else { RepeatedSlashes::Keep },
            escaped_slash: if decode { EscapedSlash::Decode } else { EscapedSlash::Keep },
            ..PathRules::default()
        };
        let normal = normal(&path);
        let once = rules.shape(&normal).path.into_owned();
        prop_assert_eq!(&*rules.shape(&once).path, &once);
        prop_assert_eq!(&*super::normal(&once), &once);
    }

    #[test]
    fn a_pattern_without_wildcards_is_the_form_of_its_text(path in target()) {
        let pattern = Pattern::exactly(&path);
        let form = text::pattern(pattern.as_str()).into_owned();
        let compiled = Pattern::new(&form);
        prop_assert_eq!(compiled.literal(), Some(&*normal(&path)));
        let open = format!("{}*", pattern.as_str());
        let open = Pattern::new(&text::pattern(&open));
        prop_assert_eq!(&*text::pattern(open.as_str()), open.as_str());
    }

    #[test]
    fn a_beginning_that_ends_at_a_slash_begins_what_follows_it(path in target(), rest in "[ab]{1,3}") {
        let form = text::beginning(&format!("{path}/")).into_owned();
        let whole = normal(&format!("{path}/{rest}")).into_owned();
        prop_assert!(whole.starts_with(&form), "{} {}", whole, form);
    }
}
