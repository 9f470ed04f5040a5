//! The form of a table of cases.
//!
//! Keys in lower case are the runner's, those that begin with a capital are header fields
//! (a list stands for several lines, `null` for absence). A case is either short, one
//! answer and whether it is `reused` for the same request, or a list of `steps`.
//! `<now-60>` and its kin in values are explained in [`super::clock`].

use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_yaml::Value;

/// One file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Sections that have no case, and why.
    #[serde(default)]
    pub without: std::collections::BTreeMap<String, String>,
    pub cases: Vec<Case>,
}

/// One rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// As in `§4.2.1`.
    pub section: String,
    /// In our words.
    pub rule: String,
    /// Why it may fail for now; it is a fault when it does not.
    #[serde(default)]
    pub pending: Option<String>,
    /// Short form: what both requests carry.
    #[serde(default)]
    send: Message,
    /// Short form: what the origin answers, each time it is asked.
    #[serde(default)]
    answer: Answer,
    /// Short form: whether the second request is answered from the store.
    #[serde(default)]
    reused: Option<bool>,
    #[serde(default)]
    steps: Vec<Step>,
}

/// A request, what the origin answers if it is asked, and what is expected.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Method and target; `GET /` if absent.
    #[serde(default)]
    pub request: Option<String>,
    #[serde(default)]
    pub send: Message,
    #[serde(default)]
    pub answer: Option<Answer>,
    /// Answers in turn when the origin is asked more than once in this step; the last stays.
    #[serde(default)]
    pub answers: Vec<Answer>,
    #[serde(default)]
    pub expect: Expect,
    /// Milliseconds that must have passed since the step before ended: for lifetimes.
    #[serde(default)]
    pub wait: Option<u64>,
    /// Asked again until it holds: for what happens behind a reader.
    #[serde(default)]
    pub eventually: bool,
}

/// What the client sends.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Message {
    #[serde(default)]
    pub body: Option<String>,
    /// The version in the request line; 1.1 if absent.
    #[serde(default)]
    pub version: Option<String>,
    #[serde(flatten)]
    pub fields: Fields,
}

/// What the origin answers. Without a body it says `body N`, N being the step's number.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Answer {
    #[serde(default)]
    pub status: Option<u16>,
    #[serde(default)]
    pub body: Option<String>,
    /// The version in the status line; 1.1 if absent.
    #[serde(default)]
    pub version: Option<String>,
    /// The connection closes without an answer.
    #[serde(default)]
    pub closes: bool,
    /// The body breaks off: its announced end never comes.
    #[serde(default)]
    pub cut: bool,
    /// `Transfer-Encoding: chunked` in place of a length.
    #[serde(default)]
    pub chunked: bool,
    /// 1xx statuses before the answer.
    #[serde(default)]
    pub interim: Vec<u16>,
    /// Answers without reading the request's body.
    #[serde(default)]
    pub early: bool,
    /// Fields after a chunked body.
    #[serde(default)]
    pub trailers: Fields,
    #[serde(flatten)]
    pub fields: Fields,
}

/// What the client must get. Values may use `*` for any text (`\*` is an asterisk), `>=N` and `<=N`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Expect {
    #[serde(default)]
    pub from: From,
    /// Without it that of the answer it comes from.
    #[serde(default)]
    pub status: Option<u16>,
    #[serde(default)]
    pub body: Option<String>,
    /// The client's body breaks off, too.
    #[serde(default)]
    pub cut: bool,
    /// 1xx statuses that came before.
    #[serde(default)]
    pub interim: Option<Vec<u16>>,
    /// How often the origin was asked in this step, where it matters.
    #[serde(default)]
    pub asked: Option<usize>,
    /// What the origin saw last.
    #[serde(default)]
    pub seen: Seen,
    #[serde(flatten)]
    pub fields: Fields,
}

/// Where an answer comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// The origin was asked, and this is what it said.
    #[default]
    Origin,
    /// The origin was not asked.
    Cache,
    /// The origin was asked with a precondition, and what was stored still holds.
    Validation,
    /// What was stored, whether or not the origin was asked as well.
    Stale,
    /// The gateway's own, the origin having been asked or not.
    Gateway,
}

/// What the origin saw.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Seen {
    #[serde(default)]
    pub method: Option<String>,
    #[serde(default)]
    pub target: Option<String>,
    #[serde(default)]
    pub body: Option<String>,
    #[serde(flatten)]
    pub fields: Fields,
}

/// Header fields by name: lines, or none for absence.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub Vec<(String, Option<Vec<String>>)>);

impl Table {
    /// # Errors
    /// With line and column, when the text is no table.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: Self = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        match table.cases.iter().find(|case| !case.is_one_form()) {
            Some(case) => Err(format!(
                "{}: {}: either `reused` or `steps`",
                case.section, case.rule
            )),
            None => Ok(table),
        }
    }
}

impl Case {
    /// The steps, written out.
    pub fn steps(&self) -> Vec<Step> {
        let Some(reused) = self.reused else {
            return self.steps.clone();
        };
        let first = Step {
            send: self.send.clone(),
            answer: Some(self.answer.clone()),
            ..Step::default()
        };
        let from = if reused { From::Cache } else { From::Origin };
        let expect = Expect {
            from,
            ..Expect::default()
        };
        let second = Step {
            expect,
            ..first.clone()
        };
        vec![first, second]
    }

    fn is_one_form(&self) -> bool {
        self.reused.is_some() == self.steps.is_empty()
    }
}

impl Step {
    pub fn method(&self) -> &str {
        self.words().0
    }

    pub fn target(&self) -> &str {
        self.words().1
    }

    fn words(&self) -> (&str, &str) {
        let request = self.request.as_deref().unwrap_or("GET /");
        request.split_once(' ').unwrap_or((request, "/"))
    }

    /// The answer for the `n`th time that the origin is asked in this step.
    pub fn answer(&self, n: usize) -> Answer {
        let in_turn = self.answers.get(n).or(self.answers.last());
        let validates = Answer {
            status: (self.expect.from == From::Validation).then_some(304),
            ..Answer::default()
        };
        in_turn
            .or(self.answer.as_ref())
            .cloned()
            .unwrap_or(validates)
    }
}

impl Fields {
    pub fn get(&self, name: &str) -> Option<&[String]> {
        let same = |(known, _): &&(String, _)| known.eq_ignore_ascii_case(name);
        self.0.iter().find(same)?.1.as_deref()
    }

    /// Each line with its name.
    pub fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|(name, lines)| {
            let lines = lines.iter().flatten();
            lines.map(move |line| (name.as_str(), line.as_str()))
        })
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(FieldMap)
    }
}

struct FieldMap;

impl<'de> Visitor<'de> for FieldMap {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("header fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if !name.starts_with(|first: char| first.is_ascii_uppercase()) {
                return Err(A::Error::custom(format!(
                    "`{name}` is no key of the table; a header field begins with a capital"
                )));
            }
            fields.push((name, lines(value).map_err(A::Error::custom)?));
        }
        Ok(Fields(fields))
    }
}

fn lines(value: Value) -> Result<Option<Vec<String>>, String> {
    match value {
        Value::Null => Ok(None),
        Value::Sequence(all) => all
            .into_iter()
            .map(line)
            .collect::<Result<_, _>>()
            .map(Some),
        one => line(one).map(|line| Some(vec![line])),
    }
}

fn line(value: Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(format!("{other:?} is no line of a header field")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_form_is_two_requests() {
        let text = "cases: [{section: §1, rule: x, answer: {Age: 5}, reused: true}]";
        let table = Table::parse(text).unwrap();
        let steps = table.cases[0].steps();
        assert_eq!(steps.len(), 2);
        assert_eq!(steps[1].expect.from, From::Cache);
        assert_eq!(steps[1].answer(0).fields.get("age").unwrap(), ["5"]);
    }

    #[test]
    fn mistakes_are_told() {
        for text in [
            "cases: [{section: §1, rule: x}]",
            "cases: [{section: §1, rule: x, reused: true, steps: [{}]}]",
            "cases: [{section: §1, rule: x, reused: true, answer: {stauts: 200}}]",
            "cases: [{section: §1, rule: x, steps: [{expects: {}}]}]",
        ] {
            assert!(Table::parse(text).is_err(), "{text}");
        }
    }
}
