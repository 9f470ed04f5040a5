//! The tables of what rules of routes do (`tests/data/rules/*.yaml`), played through the front door.
//!
//! A case is a route, a request, what the origin answers and what both ends must see. Each has a host
//! of its own, which is its route's and by which the origin knows whose answer to give; `<host>` and
//! `<route>` stand for them. Header fields with `null` must be absent, and a list stands for several
//! lines. Without an answer the origin sends a page that may be stored. A case with `twice` is asked a
//! second time, and the cache must answer; one with `again` is asked again, and the origin must
//! answer. `asked: nothing` says that the origin must not be asked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use e2e::client::Answer;
use e2e::gateway::Gateway;
use e2e::origin::{Origin, Seen};
use e2e::reply::Reply;
use e2e::setup::Setup;
use http::{HeaderMap, Method};
use serde::Deserialize;
use serde_yaml::{Mapping, Value};

/// Cases of all tables, at least.
const CASES: usize = 45;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTable {
    cases: Vec<RuleCase>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleCase {
    rule: String,
    says: String,
    route: Mapping,
    #[serde(default)]
    ask: CaseRequest,
    #[serde(default)]
    answer: CaseAnswer,
    #[serde(default)]
    twice: bool,
    #[serde(default)]
    again: bool,
    #[serde(default)]
    expect: CaseAnswer,
    #[serde(default)]
    asked: Option<SeenByOrigin>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseRequest {
    method: Option<String>,
    path: Option<String>,
    headers: BTreeMap<String, FieldLines>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseAnswer {
    status: Option<u16>,
    headers: BTreeMap<String, FieldLines>,
    body: Option<String>,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum SeenByOrigin {
    Request(CaseRequest),
    Nothing(String),
}

/// What a field says, in its lines.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum FieldLines {
    Absent(()),
    One(String),
    Many(Vec<String>),
}

impl FieldLines {
    fn lines(&self, names: &CaseNames) -> Vec<String> {
        match self {
            Self::Absent(()) => Vec::new(),
            Self::One(line) => vec![names.filled(line)],
            Self::Many(lines) => lines.iter().map(|line| names.filled(line)).collect(),
        }
    }
}

/// The route of a case, and its host.
#[derive(Clone)]
struct CaseNames {
    route: String,
    host: String,
}

impl CaseNames {
    fn of(number: usize) -> Self {
        Self {
            route: format!("case-{number}"),
            host: format!("case-{number}.test"),
        }
    }

    fn filled(&self, text: &str) -> String {
        text.replace("<host>", &self.host)
            .replace("<route>", &self.route)
    }
}

impl RuleCase {
    /// The route in YAML.
    fn yaml(&self, names: &CaseNames) -> String {
        let mut route = self.route.clone();
        let text = |text: &str| Value::String(text.to_owned());
        let answers = ["redirect", "respond", "upstream"];
        if !answers.iter().any(|key| route.contains_key(text(key))) {
            route.insert(text("upstream"), text("origin"));
        }
        route.insert(text("name"), text(&names.route));
        let host = Mapping::from_iter([(text("host"), text(&names.host))]);
        route.insert(text("match"), Value::Mapping(host));
        serde_json::to_string(&route).unwrap()
    }

    fn reply(&self, names: &CaseNames) -> Reply {
        let reply = Reply::ok(
            self.answer
                .body
                .clone()
                .unwrap_or_else(|| "page".to_owned()),
        );
        let reply = reply.status(self.answer.status.unwrap_or(200));
        let fields = self.answer.headers.iter();
        let reply = fields.fold(reply, |reply, (name, lines)| {
            let lines = lines.lines(names).into_iter();
            lines.fold(reply, |reply, line| reply.header(name, &line))
        });
        match self.answer.headers.contains_key("Cache-Control") {
            true => reply,
            false => reply.header("cache-control", "max-age=60"),
        }
    }

    async fn ask(&self, gateway: &Gateway, names: &CaseNames) -> Answer {
        let method = self.ask.method.as_deref().unwrap_or("GET");
        let method: Method = method.parse().unwrap();
        let client = gateway.client().uncached();
        let path = self.ask.path.as_deref().unwrap_or("/");
        let ask = client.ask(method, path).host(&names.host);
        let fields = self.ask.headers.iter();
        let ask = fields.fold(ask, |ask, (name, lines)| {
            let lines = lines.lines(names).into_iter();
            lines.fold(ask, |ask, line| ask.header(name, &line))
        });
        ask.send().await
    }

    /// What is not as the case has it.
    fn faults(&self, answer: &Answer, seen: &[Seen], names: &CaseNames) -> Vec<String> {
        let mut faults = Vec::new();
        let status = self.expect.status.unwrap_or(200);
        if answer.status.as_u16() != status {
            faults.push(format!("the status is {}, not {status}", answer.status));
        }
        if let Some(body) = &self.expect.body
            && answer.text() != body
        {
            faults.push(format!("the body is {:?}, not {body:?}", answer.text()));
        }
        compare(
            "answer",
            &self.expect.headers,
            &answer.headers,
            names,
            &mut faults,
        );
        match (&self.asked, seen.first()) {
            (None, _) => {}
            (Some(SeenByOrigin::Nothing(word)), first) => {
                assert_eq!(word, "nothing");
                if first.is_some() {
                    faults.push("the origin was asked".to_owned());
                }
            }
            (Some(SeenByOrigin::Request(_)), None) => {
                faults.push("the origin was not asked".to_owned());
            }
            (Some(SeenByOrigin::Request(wanted)), Some(got)) => {
                if let Some(path) = wanted.path.as_ref().filter(|path| **path != got.path) {
                    faults.push(format!("the origin was asked for {}, not {path}", got.path));
                }
                compare("origin", &wanted.headers, &got.headers, names, &mut faults);
            }
        }
        faults
    }
}

fn compare(
    whose: &str,
    wanted: &BTreeMap<String, FieldLines>,
    got: &HeaderMap,
    names: &CaseNames,
    faults: &mut Vec<String>,
) {
    for (name, lines) in wanted {
        let got = got.get_all(name.to_lowercase()).iter();
        let got: Vec<_> = got
            .map(|line| String::from_utf8_lossy(line.as_bytes()))
            .collect();
        let lines = lines.lines(names);
        if got != lines {
            faults.push(format!("{whose}: {name} is {got:?}, not {lines:?}"));
        }
    }
}

fn cases() -> Vec<RuleCase> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/rules");
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let table: RuleTable = serde_yaml::from_str(&text)
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        cases.extend(table.cases);
    }
    cases
}

#[tokio::test]
async fn each_rule_does_what_the_tables_say() {
    let cases = cases();
    assert!(cases.len() >= CASES, "only {} cases were read", cases.len());
    let all = Arc::new(cases.clone());
    let origin = Origin::pages(move |seen| {
        let number = seen.authority.strip_prefix("case-").and_then(|rest| {
            let digits = rest.split('.').next()?;
            digits.parse::<usize>().ok()
        });
        match number.and_then(|number| Some((number, all.get(number)?))) {
            Some((number, case)) => case.reply(&CaseNames::of(number)),
            None => Reply::status_only(500),
        }
    })
    .await;
    let page = "<style>p{}</style><p>{status} {reason}</p>";
    let setup = Setup::new(&origin)
        .upstream("gone", "{targets: [\"http://127.0.0.1:1\"]}")
        .file("sorry.html", page);
    let setup = cases
        .iter()
        .enumerate()
        .fold(setup, |setup, (number, case)| {
            setup.route(&case.yaml(&CaseNames::of(number)))
        });
    let gateway = setup.start().await;
    let mut faults = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let names = CaseNames::of(number);
        origin.forget();
        let first = case.ask(&gateway, &names).await;
        let seen = origin.seen();
        let mut found = case.faults(&first, &seen, &names);
        if case.twice || case.again {
            let second = case.ask(&gateway, &names).await;
            found.extend(case.faults(&second, &seen, &names));
            let asked = origin.count();
            match (case.twice, asked) {
                (true, 1) | (false, 2) => {}
                _ => found.push(format!("the origin was asked {asked} times")),
            }
        }
        let found = found.into_iter();
        let told = found.map(|fault| format!("{} {}: {fault}", case.rule, case.says));
        faults.extend(told);
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
