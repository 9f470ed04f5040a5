//! Finds the routes that may take a request without trying all of them.
//!
//! The route of a request is the first one, in the order of the file, that takes it. The index
//! changes nothing about that: it only leaves out routes that cannot take the request, first by
//! their hosts and then by their paths. In the end each remaining route is asked itself, so a route
//! may stand in too many lists without harm.

use foldhash::HashMap;

use super::matching::RouteConditions;
use crate::http::reference::without_port;
use crate::pattern::Pattern;

/// A route's position in the order of the file.
type RoutePosition = u32;

/// Up to this many routes are tried one after the other: that costs less than a look-up.
const IN_TURN: usize = 8;

/// The routes by their hosts.
#[derive(Default)]
pub(super) struct RouteIndex {
    /// Routes by a literal host.
    whole: HashMap<Box<str>, PathIndex>,
    /// Routes by the end of the host, from a dot on: `.example.com` for `*.example.com`.
    domains: HashMap<Box<str>, PathIndex>,
    /// Routes without a host, or with a pattern that cannot be indexed.
    any: PathIndex,
}

/// The routes of some hosts, by their paths. Each list is in the order of the file.
#[derive(Default)]
struct PathIndex {
    whole: HashMap<Box<str>, Vec<RoutePosition>>,
    /// Routes by what a path begins with, and the lengths of these prefixes, ascending.
    beginnings: HashMap<Box<str>, Vec<RoutePosition>>,
    lengths: Vec<usize>,
    /// Routes without a path, or with a pattern that begins with a wildcard.
    any: Vec<RoutePosition>,
}

impl RouteIndex {
    /// None if there are so few routes that they are tried one after the other.
    pub(super) fn of<'a>(
        routes: impl ExactSizeIterator<Item = &'a RouteConditions>,
    ) -> Option<Self> {
        (routes.len() > IN_TURN).then(|| Self::all_of(routes))
    }

    fn all_of<'a>(routes: impl Iterator<Item = &'a RouteConditions>) -> Self {
        let mut index = Self::default();
        for (place, route) in routes.enumerate() {
            index.add(place as RoutePosition, route);
        }
        index
    }

    fn add(&mut self, place: RoutePosition, route: &RouteConditions) {
        if route.hosts.is_empty() {
            return self.any.add(place, &route.paths);
        }
        for host in &route.hosts {
            let by_path = match (host.literal(), host.end()) {
                (Some(whole), _) => self.whole.entry(whole.into()).or_default(),
                (None, end) if end.starts_with('.') => self.domains.entry(end.into()).or_default(),
                (None, _) => &mut self.any,
            };
            by_path.add(place, &route.paths);
        }
    }

    /// The position of the first route that takes the request.
    pub(super) fn first(
        &self,
        host: &str,
        path: &str,
        takes: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let host = without_port(host);
        let mut first = EarliestRoute { found: None, takes };
        self.any.visit(path, &mut first);
        if let Some(by_path) = self.whole.get(host) {
            by_path.visit(path, &mut first);
        }
        if !self.domains.is_empty() {
            let dots = host.bytes().enumerate().filter(|(_, octet)| *octet == b'.');
            let domains = dots.filter_map(|(at, _)| self.domains.get(&host[at..]));
            domains.for_each(|by_path| by_path.visit(path, &mut first));
        }
        first.found.map(|place| place as usize)
    }
}

impl PathIndex {
    fn add(&mut self, place: RoutePosition, paths: &[Pattern]) {
        if paths.is_empty() {
            return push(&mut self.any, place);
        }
        for path in paths {
            let beginning = path.beginning();
            match path.literal() {
                Some(whole) => push(self.whole.entry(whole.into()).or_default(), place),
                None if beginning.is_empty() => push(&mut self.any, place),
                None => {
                    if let Err(at) = self.lengths.binary_search(&beginning.len()) {
                        self.lengths.insert(at, beginning.len());
                    }
                    let list = self.beginnings.entry(beginning.into()).or_default();
                    push(list, place);
                }
            }
        }
    }

    fn visit<T: Fn(usize) -> bool>(&self, path: &str, first: &mut EarliestRoute<T>) {
        first.among(&self.any);
        if let Some(places) = self.whole.get(path) {
            first.among(places);
        }
        for length in &self.lengths {
            if *length > path.len() {
                break;
            }
            let places = path
                .get(..*length)
                .and_then(|path| self.beginnings.get(path));
            first.among(places.map_or(&[][..], Vec::as_slice));
        }
    }
}

/// Adds a position once, even if a route names the same path twice.
fn push(places: &mut Vec<RoutePosition>, place: RoutePosition) {
    if places.last() != Some(&place) {
        places.push(place);
    }
}

/// The earliest route found so far that takes the request.
struct EarliestRoute<T> {
    found: Option<RoutePosition>,
    takes: T,
}

impl<T: Fn(usize) -> bool> EarliestRoute<T> {
    fn among(&mut self, places: &[RoutePosition]) {
        let earlier = |place: &&RoutePosition| self.found.is_none_or(|found| **place < found);
        let mut earlier = places.iter().take_while(earlier);
        if let Some(place) = earlier.find(|place| (self.takes)(**place as usize)) {
            self.found = Some(*place);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::request::Parts;
    use proptest::prelude::*;

    use super::*;
    use crate::proxy::config;

    const HOSTS: [&str; 8] = [
        "a.example.com",
        "*.example.com",
        "*example.com",
        "*",
        "b.a.example.com",
        "?.example.com",
        "*.com",
        "example.*",
    ];
    const PATHS: [&str; 12] = [
        "/", "/*", "/a", "/a*", "/a/*", "/a/b", "/a/*/c", "*.png", "*", "/?", "/é*", "/a/b*",
    ];
    const METHODS: [&str; 3] = ["GET", "POST", "PUT"];

    /// Up to two items of a list, perhaps none.
    fn some(all: &'static [&'static str]) -> impl Strategy<Value = Vec<&'static str>> {
        proptest::collection::vec(prop::sample::select(all), 0..3)
    }

    fn routes() -> impl Strategy<Value = Vec<RouteConditions>> {
        let one = (some(&HOSTS), some(&PATHS), some(&METHODS[..1]));
        let made = one.prop_map(|(host, path, method)| {
            let text = serde_json::json!({"host": host, "path": path, "method": method});
            let config: config::RouteMatchConfig = serde_yaml::from_str(&text.to_string()).unwrap();
            RouteConditions::new(&config)
        });
        proptest::collection::vec(made, 0..40)
    }

    fn request(method: &str) -> Parts {
        let request = http::Request::builder().method(method).body(());
        request.unwrap().into_parts().0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_index_finds_what_the_plain_list_finds(
            routes in routes(),
            host in prop::sample::select(&[
                "a.example.com", "b.a.example.com:81", "example.com", "xexample.com", "x.com",
                "", "example.org", ".example.com", "b.example.com",
            ][..]),
            path in prop::sample::select(&[
                "/", "/a", "/ab", "/a/", "/a/b", "/a/b/c", "/x.png", "*", "/é", "/éa", "/b", "/a/x/c",
            ][..]),
            method in prop::sample::select(&METHODS[..2]),
        ) {
            let parts = request(method);
            let takes = |place: usize| routes[place].takes(host, &parts, path);
            let plain = (0..routes.len()).find(|place| takes(*place));
            let index = RouteIndex::all_of(routes.iter());
            prop_assert_eq!(index.first(host, path, takes), plain);
        }
    }

    #[test]
    fn few_of_many_routes_are_asked() {
        let of = |n: usize| {
            let text = format!("{{host: 'h{n}.example', path: '/p{n}/*'}}");
            let config: config::RouteMatchConfig = serde_yaml::from_str(&text).unwrap();
            RouteConditions::new(&config)
        };
        let routes: Vec<_> = (0..10_000).map(of).collect();
        let index = RouteIndex::of(routes.iter()).unwrap();
        let parts = request("GET");
        let asked = std::cell::Cell::new(0);
        for n in [0, 1, 5_000, 9_999] {
            let (host, path) = (format!("h{n}.example"), format!("/p{n}/x"));
            let found = index.first(&host, &path, |place| {
                asked.set(asked.get() + 1);
                routes[place].takes(&host, &parts, &path)
            });
            assert_eq!(found, Some(n));
        }
        assert_eq!(asked.get(), 4);
    }
}
