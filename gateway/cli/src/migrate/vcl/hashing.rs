//! `vcl_hash`. What a key holds for some requests it may hold for all, and a whole field in place of a
//! part of it: keys are finer then, and nothing is shared that was not before.

use super::super::draft::DraftMap;
use super::super::source::SourceStatement;
use super::condition::VclCondition;
use super::passes::field_name;
use super::program::{VclProgram, branch_kind, call_arguments, quoted_text};
use super::receive::own_fields;
use super::routes::VclRoutes;

/// Says the key.
pub fn translate(program: &VclProgram<'_>, routes: &mut VclRoutes) {
    let mut hashing = KeyParts {
        program,
        own_fields: own_fields(program),
        site: &mut routes.site,
        called: Vec::new(),
        cookies: Vec::new(),
    };
    for one in program.sub("vcl_hash") {
        hashing.statement(one);
    }
}

struct KeyParts<'a, 'b> {
    program: &'b VclProgram<'a>,
    own_fields: Vec<String>,
    site: &'b mut DraftMap,
    called: Vec<String>,
    /// What the cookies match in the blocks around.
    cookies: Vec<String>,
}

impl KeyParts<'_, '_> {
    fn statement(&mut self, one: &SourceStatement) {
        if branch_kind(one).is_some() {
            return self.block(one);
        }
        if one.name() == "call" {
            return self.call(one);
        }
        let Some(arguments) = call_arguments(&one.text, "hash_data") else {
            return;
        };
        let said = arguments.iter().map(|what| self.part(what));
        match said.max() {
            Some(KeyExtent::ByItself) => one.needs_nothing(),
            Some(KeyExtent::Said) => one.translated(),
            _ => {}
        }
    }

    fn block(&mut self, one: &SourceStatement) {
        let conditions = VclCondition::of(&one.text);
        let known = self.cookies.len();
        if let Some(("~", right)) = conditions.as_ref().and_then(of_cookies) {
            self.cookies.push(right.to_owned());
        }
        one.inside().iter().for_each(|inner| self.statement(inner));
        self.cookies.truncate(known);
        let of_fields = conditions
            .iter()
            .flat_map(VclCondition::leaves)
            .all(|leaf| leaf.left().starts_with("req.http."));
        if one.inside().iter().any(SourceStatement::is_untouched) {
            return;
        }
        one.translated();
        if !of_fields {
            one.remarked("it is in the key of all requests");
        }
    }

    fn call(&mut self, one: &SourceStatement) {
        let inside = self.program.sub(one.argument());
        if inside.is_empty() {
            return;
        }
        one.translated();
        let name = one.argument().to_owned();
        if !self.called.contains(&name) {
            self.called.push(name);
            inside.iter().for_each(|inner| self.statement(inner));
        }
        // What it leaves unsaid is weighed as what the call leaves unsaid.
        if inside.iter().any(|inner| inner.is_untouched()) {
            one.in_part("not all that it says is in the key");
        }
    }

    /// A value that is made of one or more others.
    fn part(&mut self, what: &str) -> KeyExtent {
        if let Some([of, expression, _]) = call_arguments(what, "regsub").as_deref() {
            let name = quoted_text(expression).and_then(cookie_of);
            // Where the cookie is not there, `regsub` gives the whole field.
            let is_there = |name: &String| {
                let mark = format!("{name}=");
                let of_one = |right: &String| right.ends_with(&mark) && !right.contains('|');
                self.cookies.iter().any(of_one)
            };
            let is_cookie = of.eq_ignore_ascii_case("req.http.cookie");
            if let Some(name) = name.filter(|name| is_cookie && is_there(name)) {
                self.site.add("key.cookies", name);
                return KeyExtent::Said;
            }
        }
        let variables = variables(what);
        let kept = variables.iter().map(|one| self.variable(one));
        kept.max().unwrap_or(KeyExtent::ByItself)
    }

    fn variable(&mut self, name: &str) -> KeyExtent {
        let small = name.to_lowercase();
        let is_in_key = matches!(
            small.as_str(),
            "req.http.x-forwarded-proto" | "req.http.host"
        );
        if self.own_fields.contains(&small) && !is_in_key {
            return KeyExtent::Unsaid;
        }
        match small.as_str() {
            "req.url" | "req.http.host" | "server.ip" | "req.http.x-forwarded-proto" => {
                KeyExtent::ByItself
            }
            "regsub" | "regsuball" | "std.tolower" | "std.toupper" => KeyExtent::ByItself,
            small => match field_name(small) {
                Some(field) => {
                    self.site.add("key.headers", field);
                    KeyExtent::Said
                }
                None => KeyExtent::Unsaid,
            },
        }
    }
}

/// The operator and the right side of a comparison of the cookies.
fn of_cookies(condition: &VclCondition) -> Option<(&str, &str)> {
    let (left, operator, right) = condition.comparison()?;
    (left == "req.http.cookie").then_some((operator, right))
}

/// How much of a value the key holds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum KeyExtent {
    /// All of it, whatever the configuration says.
    ByItself,
    Said,
    Unsaid,
}

/// The variables and functions of an expression, outside of quotation marks.
fn variables(expression: &str) -> Vec<&str> {
    let unquoted = expression.split('"').step_by(2);
    let is_part = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    unquoted
        .flat_map(|text| text.split(move |c: char| !is_part(c)))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_alphabetic()))
        .collect()
}

/// The name in `^.*?NAME=([^;]+);*.*$`.
fn cookie_of(expression: &str) -> Option<String> {
    let (before, after) = expression.split_once("=(")?;
    // All of the value, and not a part of it.
    after.starts_with("[^;").then_some(())?;
    let is_part = |c: &char| c.is_ascii_alphanumeric() || *c == '-' || *c == '_';
    let name: Vec<char> = before.chars().rev().take_while(is_part).collect();
    let name: String = name.into_iter().rev().collect();
    (!name.is_empty()).then_some(name)
}
