//! Names of servers: which hosts a server is for, which one nginx prefers, and which one takes what no
//! other has.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::super::expression::{self, PatternMeaning};
use super::super::source::SourceStatement;
use super::precedence::patterns_overlap;

/// How closely a name fits a host; nginx takes the closest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum HostCloseness {
    Name,
    /// `*.example.com`, the longest first.
    Beginning(Reverse<usize>),
    /// `www.example.*`, the longest first.
    Ending(Reverse<usize>),
    Expression,
    /// The server that takes what no other has.
    Rest,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct HostPattern {
    pattern: String,
    closeness: HostCloseness,
}

/// The hosts of a server.
#[derive(Clone, Debug)]
pub struct ServerHosts {
    patterns: Vec<HostPattern>,
    /// With a pattern for all hosts where it takes those that no other has, or those of an expression.
    with_rest: Rc<[HostPattern]>,
    /// Expressions of which there is no pattern.
    unsaid: Vec<String>,
    pub is_default: bool,
}

impl ServerHosts {
    pub fn of(server: &SourceStatement, http: &[SourceStatement]) -> Self {
        let mut patterns = Vec::new();
        let mut unsaid = Vec::new();
        for one in server
            .inside()
            .iter()
            .filter(|one| one.name() == "server_name")
        {
            let mut difference = None;
            for name in one.arguments() {
                match name.strip_prefix('~') {
                    Some(expression) => match host_patterns(expression) {
                        Some((hosts, differs)) => {
                            difference = difference.or(differs);
                            patterns.extend(hosts.into_iter().map(|pattern| HostPattern {
                                pattern,
                                closeness: HostCloseness::Expression,
                            }));
                        }
                        None => unsaid.push(name.clone()),
                    },
                    None if name.contains(['/', '\\', '?', '"']) => unsaid.push(name.clone()),
                    None => patterns.extend(named_hosts(name)),
                }
            }
            one.translated();
            if let Some(difference) = difference {
                one.remarked(difference);
            }
            if !unsaid.is_empty() {
                one.in_part("hosts are patterns with *");
            }
        }
        let is_default = is_default(server, http);
        let rest = match (is_default, unsaid.is_empty()) {
            (true, _) => Some(HostCloseness::Rest),
            (false, false) => Some(HostCloseness::Expression),
            (false, true) => None,
        };
        let rest = rest.map(|closeness| HostPattern {
            pattern: "*".to_owned(),
            closeness,
        });
        let with_rest = patterns.iter().cloned().chain(rest).collect();
        Self {
            patterns,
            with_rest,
            unsaid,
            is_default,
        }
    }

    /// The names, without those of expressions.
    pub fn names(&self) -> Vec<String> {
        let named = self.patterns.iter();
        let named = named.filter(|one| one.closeness != HostCloseness::Expression);
        named.map(|one| one.pattern.clone()).collect()
    }

    /// What routes ask for, in the order of the alphabet; nothing where the server takes what no other has.
    pub fn matched(&self) -> Vec<String> {
        match self.is_default {
            true => Vec::new(),
            false => {
                let patterns = self.patterns.iter();
                let all: BTreeSet<String> = patterns.map(|one| one.pattern.clone()).collect();
                all.into_iter().collect()
            }
        }
    }

    /// Whether a `match` says some of them, or none is needed.
    pub fn are_matched(&self) -> bool {
        self.is_default || !self.patterns.is_empty()
    }

    /// Whether requests for some of them meet other servers here.
    pub fn loses_some(&self) -> bool {
        !self.is_default && !self.unsaid.is_empty()
    }

    /// Whether no request would reach it in nginx.
    pub fn are_none(&self) -> bool {
        !self.is_default && self.patterns.is_empty() && self.unsaid.is_empty()
    }

    /// By which servers are sorted: one that has close names alone comes first.
    fn distance(&self) -> HostCloseness {
        let patterns = self.patterns.iter().map(|one| one.closeness);
        match self.is_default {
            true => HostCloseness::Rest,
            false => patterns.max().unwrap_or(HostCloseness::Expression),
        }
    }

    /// Whether requests for which nginx would take the other server may meet the routes of this one.
    pub fn may_take_from(&self, other: &Self) -> bool {
        self.with_rest.iter().any(|own| {
            other.with_rest.iter().any(|one| {
                one.closeness <= own.closeness && patterns_overlap(&own.pattern, &one.pattern)
            })
        })
    }
}

/// Servers with the hosts of each, in the order in which nginx prefers them. Those with the same hosts,
/// as for http and https, stand together.
pub fn grouped(inside: &[SourceStatement]) -> Vec<Vec<(&SourceStatement, ServerHosts)>> {
    let servers = inside.iter().filter(|one| one.name() == "server");
    let mut servers: Vec<_> = servers
        .map(|server| (server, ServerHosts::of(server, inside)))
        .collect();
    servers.sort_by_key(|(_, hosts)| hosts.distance());
    let mut groups: Vec<Vec<(&SourceStatement, ServerHosts)>> = Vec::new();
    let mut known: HashMap<(Vec<String>, bool, bool), usize> = HashMap::new();
    for (server, hosts) in servers {
        let group = known.entry((hosts.matched(), hosts.unsaid.is_empty(), hosts.is_default));
        let group = *group.or_insert(groups.len());
        match groups.get_mut(group) {
            Some(group) => group.push((server, hosts)),
            None => groups.push(vec![(server, hosts)]),
        }
    }
    groups
}

fn named_hosts(name: &str) -> Vec<HostPattern> {
    let name = name.to_ascii_lowercase();
    let length = Reverse(name.len());
    let pattern = |pattern: String, closeness| HostPattern { pattern, closeness };
    if name.is_empty() || name == "_" || name.contains('$') {
        return Vec::new();
    }
    if let Some(domain) = name.strip_prefix('.') {
        return vec![
            pattern(domain.to_owned(), HostCloseness::Name),
            pattern(format!("*.{domain}"), HostCloseness::Beginning(length)),
        ];
    }
    let closeness = match (name.starts_with('*'), name.ends_with('*')) {
        (true, _) => HostCloseness::Beginning(length),
        (false, true) => HostCloseness::Ending(length),
        (false, false) => HostCloseness::Name,
    };
    vec![pattern(name, closeness)]
}

/// Patterns for the hosts of an expression, and how they differ. A host is in small letters, and its
/// patterns know no `?`.
fn host_patterns(expression: &str) -> Option<(Vec<String>, Option<&'static str>)> {
    let list = expression::values(expression)?;
    let mut wider = list.meaning == PatternMeaning::Wider;
    let mut hosts = Vec::new();
    for pattern in &list.patterns {
        wider |= pattern.contains('?');
        let host = pattern.replace('?', "*").to_ascii_lowercase();
        let is_part = |c: char| c.is_ascii_alphanumeric() || ".-*".contains(c);
        if !host.chars().all(is_part) || !host.contains(|c: char| c.is_ascii_alphanumeric()) {
            return None;
        }
        hosts.push(expression::simple(&host));
    }
    let difference = wider.then_some("the patterns match a little more than the expression");
    Some((hosts, difference))
}

/// The address and port of each `listen` of a server; without one it is port 80.
fn addresses(server: &SourceStatement) -> Vec<String> {
    let listens = server.inside().iter().filter(|one| one.name() == "listen");
    let address = |one: &SourceStatement| match one.argument() {
        "" => "80".to_owned(),
        text => text
            .trim_start_matches("*:")
            .trim_start_matches("0.0.0.0:")
            .to_owned(),
    };
    let found: Vec<String> = listens.map(address).collect();
    match found.is_empty() {
        true => vec!["80".to_owned()],
        false => found,
    }
}

fn has_default_flag(server: &SourceStatement) -> bool {
    let is_flag = |word: &String| word == "default_server" || word == "default";
    let mut listens = server.inside().iter().filter(|one| one.name() == "listen");
    listens.any(|one| one.arguments().iter().any(is_flag))
}

/// Whether a server takes what no other has at one of its addresses: it says so, or none says so and it
/// is the first and has no name of its own. One that is the first and has names answers to these alone
/// here.
fn is_default(server: &SourceStatement, http: &[SourceStatement]) -> bool {
    if has_default_flag(server) {
        return true;
    }
    let names = server
        .inside()
        .iter()
        .filter(|one| one.name() == "server_name");
    let mut names = names.flat_map(|one| one.arguments());
    if names.any(|name| name.starts_with('~') || !named_hosts(name).is_empty()) {
        return false;
    }
    let servers: Vec<_> = http.iter().filter(|one| one.name() == "server").collect();
    addresses(server).iter().any(|address| {
        let mut sharing = servers
            .iter()
            .filter(|one| addresses(one).contains(address));
        let is_first = sharing
            .clone()
            .next()
            .is_some_and(|one| std::ptr::eq(*one, server));
        is_first && !sharing.any(|one| has_default_flag(one))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_for_hosts_become_patterns_or_nothing() {
        let hosts = |text: &str| host_patterns(text).map(|(hosts, _)| hosts);
        assert_eq!(hosts("^internal"), Some(vec!["internal*".to_owned()]));
        assert_eq!(
            hosts(r"^(www\.)?(?<name>[a-z]+)\.example$"),
            Some(vec!["*.example".to_owned(), "www.*.example".to_owned()])
        );
        assert_eq!(hosts("^.*$"), None);
        assert_eq!(hosts("^(?!www)"), None);
    }
}
