//! Reads the Prometheus text format, as much of it as tests ask for.
//!
//! A counter that was never touched has no series, so that a missing series counts as 0. A
//! series that the gateway cannot have at all, because its name, a label or a label's value is
//! misspelt, would read as 0 just the same: asking for one is a failed test.

use std::path::Path;
use std::sync::LazyLock;

/// Labels whose values are names that a configuration gives.
const OF_THE_CONFIGURATION: [&str; 5] = ["plugin", "route", "upstream", "issuer", "certificate"];

/// One sample.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

/// Every sample of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Scrape(pub Vec<Sample>);

impl Scrape {
    /// Takes the text apart; comments and lines that are not samples are left out.
    pub fn parse(text: &str) -> Self {
        Self(
            text.lines()
                .filter(|line| !line.starts_with('#'))
                .filter_map(sample)
                .collect(),
        )
    }

    /// The sum of the series with this name that carry all these labels; 0 when there is none.
    /// Panics when there cannot be one.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.expect_possible(name, labels);
        self.series(name, labels).map(|sample| sample.value).sum()
    }

    /// Whether such a series is there. Panics when there cannot be one.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.expect_possible(name, labels);
        self.series(name, labels).next().is_some()
    }

    /// A name has to be in this scrape or in the gateway's code, a label in the family's other
    /// series or in the code, and a value in this scrape or in the code, unless the test's own
    /// configuration made it up.
    fn expect_possible(&self, name: &str, labels: &[(&str, &str)]) {
        if self.series(name, labels).next().is_some() {
            return;
        }
        let family: Vec<_> = self.0.iter().filter(|sample| sample.name == name).collect();
        let endings = ["_count", "_sum", "_bucket"];
        let histogram = endings.iter().find_map(|ending| name.strip_suffix(ending));
        let histogram = histogram.unwrap_or(name);
        assert!(
            !family.is_empty() || is_in_the_code(name) || is_in_the_code(histogram),
            "the gateway has no metric `{name}`"
        );
        for (label, value) in labels {
            let has_label = |sample: &&&Sample| sample.labels.iter().any(|(k, _)| k == label);
            let carried = if family.is_empty() {
                is_in_the_code(label)
            } else {
                family.iter().any(|sample| has_label(&sample))
            };
            assert!(carried, "`{name}` has no label `{label}`");
            let mut known = self.0.iter().flat_map(|sample| &sample.labels);
            assert!(
                OF_THE_CONFIGURATION.contains(label)
                    || known.any(|(k, v)| k == label && v == value)
                    || is_in_the_code(value),
                "no metric has `{label}=\"{value}\"`, and nothing in the gateway's code is called so"
            );
        }
    }

    /// The names that occur.
    pub fn names(&self) -> std::collections::BTreeSet<&str> {
        self.0.iter().map(|sample| sample.name.as_str()).collect()
    }

    fn series<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.0.iter().filter(move |sample| {
            let carries = |(key, value): &(&str, &str)| {
                sample.labels.iter().any(|(k, v)| k == key && v == value)
            };
            sample.name == name && labels.iter().all(carries)
        })
    }
}

/// Whether the gateway's code, without its tests, has this text as a literal.
fn is_in_the_code(text: &str) -> bool {
    static CODE: LazyLock<String> = LazyLock::new(|| {
        let mut code = String::new();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway");
        collect(&folder, &mut code);
        assert!(code.contains("\"lamina_requests_total\""), "{folder:?}");
        code
    });
    CODE.contains(&format!("\"{text}\""))
}

fn collect(folder: &Path, code: &mut String) {
    for entry in std::fs::read_dir(folder).expect("the gateway's code is beside the tests") {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            collect(&path, code);
        } else {
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            code.push_str(text.split("\nmod tests {").next().unwrap_or_default());
        }
    }
}

fn sample(line: &str) -> Option<Sample> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, labels(rest.strip_suffix('}')?)),
        None => (series, Vec::new()),
    };
    Some(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// `a="x",b="y"`; values with an escaped quote do not occur, since labels are configured names.
fn labels(text: &str) -> Vec<(String, String)> {
    text.split("\",")
        .filter_map(|pair| pair.split_once("=\""))
        .map(|(key, value)| {
            (
                key.trim().to_owned(),
                value.trim_end_matches('"').to_owned(),
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_over_labels_not_named() {
        let scrape = Scrape::parse(
            "# HELP x y\nx{a=\"1\",b=\"2\"} 3\nx{a=\"1\",b=\"3\"} 4\nx{a=\"2\"} 9\ny 1.5\n",
        );
        assert_eq!(scrape.sum("x", &[("a", "1")]), 7.0);
        assert_eq!(scrape.sum("x", &[]), 16.0);
        assert_eq!(scrape.sum("y", &[]), 1.5);
        assert!(!scrape.has("x", &[("a", "2"), ("b", "2")]));
    }

    #[test]
    fn what_the_gateway_cannot_have_is_not_zero() {
        let scrape = Scrape::parse("lamina_requests_total{route=\"site\",status=\"200\"} 3\n");
        let asked = |name: &str, labels: &[(&str, &str)]| {
            std::panic::catch_unwind(|| scrape.sum(name, labels)).ok()
        };
        assert_eq!(
            asked("lamina_requests_total", &[("status", "200")]),
            Some(3.0)
        );
        assert_eq!(
            asked("lamina_l2_leases_total", &[("outcome", "busy")]),
            Some(0.0)
        );
        assert_eq!(asked("lamina_l2_lease_total", &[]), None, "a name");
        assert_eq!(
            asked("lamina_requests_total", &[("rout", "site")]),
            None,
            "a label"
        );
        let busi = [("outcome", "busi")];
        assert_eq!(asked("lamina_l2_leases_total", &busi), None, "a value");
    }
}
