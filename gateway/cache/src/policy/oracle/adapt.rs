//! The changes to a case that the crate needs, each with the section that requires it.

use http::HeaderMap;

use super::case::{OracleCase, OracleFields, OracleForm, fields};

/// A case in the form that the crate reads.
pub struct AdaptedOracleCase {
    pub status: u16,
    pub fields: HeaderMap,
    pub asked: OracleFields,
    pub elapsed: u64,
}

impl AdaptedOracleCase {
    /// Applies all adaptations except the one that `left_out` names.
    pub fn new(case: &OracleCase, left_out: Option<&str>) -> Self {
        let text = |form: &OracleForm| match form.section == left_out && left_out.is_some() {
            true => form.wire,
            false => form.crates,
        };
        let mut adapted = Self {
            status: case.status,
            fields: fields(case, text),
            asked: case.asked.clone(),
            elapsed: case.elapsed,
        };
        for (name, adapt) in ADAPTATIONS {
            if left_out != Some(name) {
                adapt(&mut adapted);
            }
        }
        adapted
    }

    fn refuse(&mut self) {
        self.add_directive("no-store");
    }

    fn add_directive(&mut self, directive: &str) {
        self.fields
            .append("cache-control", directive.parse().unwrap());
    }

    fn set(&mut self, name: &'static str, value: &str) {
        self.fields.insert(name, value.parse().unwrap());
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().unwrap())
    }

    /// The generator writes one directive on each line.
    fn directives(&self) -> Vec<String> {
        let lines = self.fields.get_all("cache-control").iter();
        lines
            .map(|line| line.to_str().unwrap().to_owned())
            .collect()
    }

    fn has(&self, directive: &str) -> bool {
        self.directives()
            .iter()
            .any(|line| name_of(line) == directive)
    }

    fn keep_directives(&mut self, keep: impl Fn(&str) -> bool) {
        let kept: Vec<String> = self.directives().into_iter().filter(|d| keep(d)).collect();
        self.fields.remove("cache-control");
        kept.iter()
            .for_each(|directive| self.add_directive(directive));
    }

    fn is_explicit(&self) -> bool {
        self.has("max-age") || self.has("s-maxage") || self.fields.contains_key("expires")
    }

    fn is_understood(&self) -> bool {
        !matches!(self.status, 206 | 299 | 304 | 500 | 503 | 999)
    }

    /// Seconds before [`NOW`], by the table of dates.
    fn ago(&self, name: &str) -> Option<i64> {
        match self.text(name)? {
            "Sun, 06 Nov 1994 08:49:37 GMT" => Some(0),
            "Sun, 06 Nov 1994 08:50:37 GMT" => Some(-60),
            "Sun, 06 Nov 1994 08:48:37 GMT" => Some(60),
            "Tue, 18 Oct 1994 08:49:37 GMT" => Some(19 * 86_400),
            _ => None,
        }
    }
}

fn name_of(directive: &str) -> &str {
    directive.split('=').next().unwrap_or_default()
}

/// The section with the reason, and the change.
pub type OracleAdaptation = (&'static str, fn(&mut AdaptedOracleCase));

/// Applied in this order; each changes only what it is about.
pub const ADAPTATIONS: [OracleAdaptation; 10] = [
    ("9111 §4.2.1: two values that differ are stale", repeated),
    ("9111 §5.3: several Expires are expired", several_expires),
    ("9111 §5.4: Pragma means nothing in a response", |case| {
        drop(case.fields.remove("pragma"));
    }),
    ("9111 §4.2.3: Date counts for the age", apparent_age),
    (
        "9111 §5.2.2.3: must-understand outdoes no-store",
        must_understand,
    ),
    ("9111 §3: any final status, if explicit", |case| {
        if matches!(case.status, 299 | 500 | 503 | 999) && !case.has("must-understand") {
            case.status = 302;
        }
    }),
    ("9111 §7.3: a cookie is somebody's", |case| {
        if case.fields.contains_key("set-cookie") {
            case.refuse();
        }
    }),
    ("9111 §4.1: nothing matches Vary: *", |case| {
        let mut lines = case.fields.get_all("vary").iter();
        if lines.any(|line| line.as_bytes().contains(&b'*')) {
            case.refuse();
        }
    }),
    (
        "9111 §3 leaves open: neither fresh nor to be validated",
        |case| {
            let validated = case.fields.contains_key("etag") || case.ago("last-modified").is_some();
            if !validated && (!case.is_explicit() || case.has("no-cache")) {
                case.refuse();
            }
        },
    ),
    (
        "9111 §4.2.2 leaves open: heuristics end after a day",
        |case| {
            let modified = case.ago("last-modified").unwrap_or(0);
            let unchanged = modified - case.ago("date").unwrap_or(0);
            let heuristic = case.has("public") || case.status != 302;
            if heuristic && !case.is_explicit() && unchanged > 864_000 {
                case.add_directive("max-age=86400");
            }
        },
    ),
];

fn repeated(case: &mut AdaptedOracleCase) {
    let all = case.directives();
    case.fields.remove("cache-control");
    for (at, directive) in all.iter().enumerate() {
        let name = name_of(directive);
        let alike = |other: &&String| name_of(other) == name;
        let plain = |text: &String| text.replace('"', "");
        if all[..at].iter().any(|earlier| alike(&earlier)) {
            continue;
        }
        let differ = all
            .iter()
            .filter(alike)
            .any(|other| plain(other) != plain(directive));
        match name {
            "max-age" | "s-maxage" if differ => case.add_directive(&format!("{name}=0")),
            _ => case.add_directive(directive),
        }
    }
}

fn several_expires(case: &mut AdaptedOracleCase) {
    if case.fields.get_all("expires").iter().count() > 1 {
        case.set("expires", "0");
    }
}

fn apparent_age(case: &mut AdaptedOracleCase) {
    let told: i64 = case
        .text("age")
        .and_then(|age| age.parse().ok())
        .unwrap_or(0);
    let apparent = case.ago("date").unwrap_or(0);
    if apparent > told {
        case.set("age", &apparent.to_string());
    }
}

fn must_understand(case: &mut AdaptedOracleCase) {
    match case.has("must-understand") {
        true if case.is_understood() => case.keep_directives(|d| d != "no-store"),
        true => case.refuse(),
        false => {}
    }
}
