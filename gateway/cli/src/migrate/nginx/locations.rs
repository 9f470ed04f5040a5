//! Servers and their locations: which routes there are, in the order in which nginx would look.

use serde_json::json;

use super::super::draft::{ConfigDraft, DraftMap, STAND_IN};
use super::super::expression;
use super::super::source::SourceStatement;
use super::{answers, conditions, listeners, policy, upstreams};

/// The blocks around a directive, the innermost first. A directive of an outer block holds where no
/// inner one has it.
#[derive(Clone)]
pub struct BlockChain<'a>(Vec<&'a [SourceStatement]>);

impl<'a> BlockChain<'a> {
    fn within(&self, inner: &'a [SourceStatement]) -> Self {
        Self(
            std::iter::once(inner)
                .chain(self.0.iter().copied())
                .collect(),
        )
    }

    pub fn blocks(&self) -> impl Iterator<Item = &'a [SourceStatement]> + '_ {
        self.0.iter().copied()
    }

    /// The directives of this name that hold here.
    pub fn directives(&self, name: &str) -> Vec<&'a SourceStatement> {
        let of_block = |block: &&'a [SourceStatement]| -> Vec<&'a SourceStatement> {
            let all: &'a [SourceStatement] = block;
            all.iter().filter(|one| one.name() == name).collect()
        };
        let mut levels = self.0.iter().map(of_block);
        levels.find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// Those of `proxy_`, `fastcgi_` and `uwsgi_` with this ending.
    pub fn cache_directives(&self, ending: &str) -> Vec<&'a SourceStatement> {
        let names = ["proxy_", "fastcgi_", "uwsgi_"].map(|kind| format!("{kind}{ending}"));
        let found = names.iter().map(|name| self.directives(name));
        found.flatten().collect()
    }

    pub fn first(&self, name: &str) -> Option<&'a SourceStatement> {
        self.directives(name).first().copied()
    }
}

/// All servers; the default one takes what no other has, and so comes last.
pub fn translate(inside: &[SourceStatement], draft: &mut ConfigDraft) {
    let servers: Vec<&SourceStatement> =
        inside.iter().filter(|one| one.name() == "server").collect();
    let (last, named): (Vec<_>, Vec<_>) = servers.into_iter().partition(|one| is_default(one));
    for server in named.iter().chain(&last) {
        server.translated();
        ServerRoutes::new(server, inside).translate(draft);
    }
}

fn is_default(server: &SourceStatement) -> bool {
    let flagged = |one: &SourceStatement| {
        let words = one.arguments();
        one.name() == "listen"
            && words
                .iter()
                .any(|word| word == "default_server" || word == "default")
    };
    server.inside().iter().any(flagged) || hosts(server).is_empty()
}

/// The names of a server, without `_` and expressions.
fn hosts(server: &SourceStatement) -> Vec<String> {
    let names = server
        .inside()
        .iter()
        .filter(|one| one.name() == "server_name");
    let names = names.flat_map(|one| one.arguments().iter().cloned());
    names
        .filter(|name| !name.is_empty() && name != "_" && !name.starts_with('~'))
        .flat_map(|name| match name.strip_prefix('.') {
            Some(domain) => vec![domain.to_owned(), format!("*.{domain}")],
            None => vec![name],
        })
        .collect()
}

struct ServerRoutes<'a> {
    server: &'a SourceStatement,
    chain: BlockChain<'a>,
    hosts: Vec<String>,
    is_default: bool,
}

impl<'a> ServerRoutes<'a> {
    fn new(server: &'a SourceStatement, http: &'a [SourceStatement]) -> Self {
        Self {
            server,
            chain: BlockChain(vec![server.inside(), http]),
            hosts: hosts(server),
            is_default: is_default(server),
        }
    }

    fn translate(&self, draft: &mut ConfigDraft) {
        for one in self
            .server
            .inside()
            .iter()
            .filter(|one| one.name() == "server_name")
        {
            match one.arguments().iter().any(|name| name.starts_with('~')) {
                true => one.in_part("hosts are patterns with *"),
                false => one.translated(),
            }
        }
        let begun = draft.routes.len();
        self.redirects(draft);
        let returns = self
            .server
            .inside()
            .iter()
            .find(|one| one.name() == "return");
        match returns {
            Some(one) => self.returned(one, draft),
            None => self.locations(draft),
        }
        let main = draft.routes.last().and_then(|route| route.get("name"));
        if let Some(main) = main
            .and_then(|name| name.as_str())
            .filter(|_| draft.routes.len() > begun)
        {
            let own = self.server.inside().iter();
            for one in own.filter(|one| one.home().is_none()) {
                one.belongs_to(main);
            }
        }
    }

    /// A route of this server, for this path, without a place in the draft yet.
    fn route(&self, draft: &ConfigDraft, path: &str, patterns: &[String]) -> DraftMap {
        let mut route = DraftMap::default();
        let host = self.hosts.first().map_or("", String::as_str);
        route.set("name", draft.route_name(&format!("{host} {path}")));
        if !self.hosts.is_empty() && !self.is_default {
            route.set("match.host", self.hosts.clone());
        }
        if !patterns.is_empty() {
            route.set("match.path", patterns);
        }
        route
    }

    /// A server that only answers.
    fn returned(&self, one: &SourceStatement, draft: &mut ConfigDraft) {
        if answers::redirect_whole_listener(one, self.server, self.chain.blocks().last(), draft) {
            return;
        }
        let mut route = self.route(draft, "all", &[]);
        if !is_new(&route, draft) {
            return one.remarked("another server has these names, and routes know no ports");
        }
        if answers::returned(one, &self.hosts, &mut route) {
            draft.routes.push(route);
        }
    }

    /// `rewrite … permanent` and `if ($host = …) { return … }` of the server.
    fn redirects(&self, draft: &mut ConfigDraft) {
        for one in self.server.inside() {
            match one.name() {
                "rewrite" => {
                    let Some((patterns, to, status)) = answers::redirecting_rewrite(one) else {
                        continue;
                    };
                    let mut route = self.route(draft, "redirect", &patterns);
                    if answers::set_redirect(&to, status, &self.hosts, &mut route) {
                        one.translated();
                        draft.routes.push(route);
                    }
                }
                "if" => self.redirect_of_host(one, draft),
                _ => {}
            }
        }
    }

    fn redirect_of_host(&self, block: &SourceStatement, draft: &mut ConfigDraft) {
        let [inner] = block.inside() else { return };
        let Some((variable, operator, value)) = conditions::condition(block) else {
            return;
        };
        if variable != "$host" || operator != "=" || inner.name() != "return" {
            return;
        }
        let mut route = self.route(draft, &format!("from {value}"), &[]);
        route.set("match.host", json!([value]));
        if answers::returned(inner, &self.hosts, &mut route) {
            block.translated();
            draft.routes.push(route);
        }
    }

    fn locations(&self, draft: &mut ConfigDraft) {
        let all = self
            .server
            .inside()
            .iter()
            .filter(|one| one.name() == "location");
        let mut locations: Vec<ServerLocation<'_>> = all.map(ServerLocation::new).collect();
        locations.sort_by_key(ServerLocation::rank);
        let php = self.lifted(&locations);
        let mut has_root = false;
        for location in &locations {
            if php.is_some_and(|php| std::ptr::eq(php, location.block)) {
                continue;
            }
            let is_root = location.kind == LocationKind::Prefix && location.path == "/";
            has_root |= is_root;
            let mut chain = self.chain.clone();
            if let Some(php) = php.filter(|_| is_root) {
                chain = chain.within(php.inside());
            }
            self.location(location, &chain.within(location.block.inside()), draft);
        }
        let route = self.route(draft, "", &[]);
        if !has_root && self.serves_files() && is_new(&route, draft) {
            let chain =
                php.map_or_else(|| self.chain.clone(), |php| self.chain.within(php.inside()));
            self.serve(route, &chain, None, draft);
        }
        if let Some(php) = php {
            php.translated();
        }
    }

    /// Whether requests that no location takes are answered: from files, or by an `index.php`.
    fn serves_files(&self) -> bool {
        let names = ["root", "try_files", "fastcgi_pass", "index"];
        self.server
            .inside()
            .iter()
            .any(|one| names.contains(&one.name()))
            || !self
                .server
                .inside()
                .iter()
                .any(|one| one.name() == "location")
    }

    /// The location for PHP, where all pages end by `try_files`: what it says of the cache is said of
    /// them.
    fn lifted<'b>(&self, locations: &'b [ServerLocation<'a>]) -> Option<&'b SourceStatement> {
        let is_php = |one: &&ServerLocation<'a>| {
            let passes = one
                .block
                .inside()
                .iter()
                .any(|inner| inner.name() == "fastcgi_pass");
            passes && one.path.contains("php")
        };
        let to_php =
            |one: &SourceStatement| one.name() == "try_files" && one.text.contains("index.php");
        let all = super::super::source::all(self.server.inside());
        let found = locations.iter().find(is_php)?;
        all.into_iter().any(to_php).then_some(found.block)
    }

    fn location(
        &self,
        location: &ServerLocation<'_>,
        chain: &BlockChain<'_>,
        draft: &mut ConfigDraft,
    ) {
        let block = location.block;
        let has = |name: &str| block.inside().iter().any(|one| one.name() == name);
        if block
            .inside()
            .iter()
            .any(|one| one.name().ends_with("_cache_purge"))
        {
            return answers::purging(block, draft);
        }
        if has("stub_status") {
            return block.needs_nothing_whole();
        }
        if has("internal") {
            return block.remarked("internal locations have no counterpart");
        }
        let Some(patterns) = location.patterns() else {
            return block.remarked("no pattern says the same as this expression");
        };
        let mut route = self.route(draft, &location.path, &patterns);
        if !is_new(&route, draft) {
            return block.remarked(
                "another server has these names and this path, and routes know no ports",
            );
        }
        let name = route
            .get("name")
            .and_then(|name| name.as_str())
            .unwrap_or_default();
        block.belongs_to(name);
        block.translated();
        location.tell_difference();
        if let Some(one) = block.inside().iter().find(|one| one.name() == "return") {
            if answers::returned(one, &self.hosts, &mut route) {
                draft.routes.push(route);
            } else {
                block.in_part("there is no route for it");
            }
            return;
        }
        if answers::is_closed(block) {
            route.set("respond.status", 403);
            block.translated_whole();
            draft.routes.push(route);
            return;
        }
        for one in block.inside().iter().filter(|one| one.name() == "location") {
            one.remarked("a location inside another one; its route must stand before this one");
        }
        self.serve(route, chain, Some(location), draft);
    }

    /// A route that goes to an upstream.
    fn serve(
        &self,
        mut route: DraftMap,
        chain: &BlockChain<'_>,
        location: Option<&ServerLocation<'_>>,
        draft: &mut ConfigDraft,
    ) {
        let passes = chain.blocks().next().into_iter().flatten();
        let target = passes
            .filter(|one| matches!(one.name(), "proxy_pass" | "grpc_pass"))
            .find_map(|one| upstreams::of_proxy_pass(one, draft));
        let upstream = target
            .as_ref()
            .map_or(STAND_IN, |target| target.upstream.as_str());
        route.set("upstream", upstream);
        let replaced = target.as_ref().and_then(|target| target.path.as_deref());
        if let (Some(path), Some(location)) = (replaced, location) {
            answers::replaced_path(&location.path, path, &mut route);
        }
        policy::of_route(chain, &mut route, draft);
        answers::of_route(chain, &mut route, draft);
        policy::of_upstream(chain, upstream, draft);
        for name in ["client_max_body_size", "client_body_timeout"] {
            for one in chain.directives(name) {
                listeners::body_limits(one, &mut route);
            }
        }
        draft.routes.push(route);
    }
}

/// Whether no route before takes the same requests.
fn is_new(route: &DraftMap, draft: &ConfigDraft) -> bool {
    let wanted = route.get("match");
    draft
        .routes
        .iter()
        .all(|known| known.get("match") != wanted)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum LocationKind {
    Exact,
    /// `^~`: before expressions.
    PrefixFirst,
    Expression,
    Prefix,
    /// `@name`.
    Named,
}

struct ServerLocation<'a> {
    block: &'a SourceStatement,
    kind: LocationKind,
    path: String,
}

impl<'a> ServerLocation<'a> {
    fn new(block: &'a SourceStatement) -> Self {
        // The sign may stand before the path without a space.
        let words = block.arguments().join(" ");
        let signs = [
            ("^~", LocationKind::PrefixFirst),
            ("~*", LocationKind::Expression),
            ("~", LocationKind::Expression),
            ("=", LocationKind::Exact),
            ("@", LocationKind::Named),
        ];
        let found = signs
            .iter()
            .find_map(|(sign, kind)| Some((words.strip_prefix(sign)?, *kind)));
        let (path, kind) = found.unwrap_or((&words, LocationKind::Prefix));
        Self {
            block,
            kind,
            path: path.trim().to_owned(),
        }
    }

    /// nginx takes an exact path, then the longest prefix with `^~`, then the first expression, then
    /// the longest prefix.
    fn rank(&self) -> (u8, usize) {
        let longest_first = usize::MAX - self.path.len();
        match self.kind {
            LocationKind::Exact => (0, 0),
            LocationKind::PrefixFirst => (1, longest_first),
            LocationKind::Expression => (2, 0),
            LocationKind::Prefix => (3, longest_first),
            LocationKind::Named => (4, 0),
        }
    }

    /// The patterns for its paths; none of them is every path.
    fn patterns(&self) -> Option<Vec<String>> {
        let literal = |text: &str| {
            let special = |c: char| match c {
                '*' | '?' | '\\' => format!("\\{c}"),
                c => c.to_string(),
            };
            text.chars().map(special).collect::<String>()
        };
        match self.kind {
            LocationKind::Expression => Some(expression::paths(&self.path)?.patterns),
            _ if !self.path.starts_with('/') => None,
            LocationKind::Exact => Some(vec![literal(&self.path)]),
            LocationKind::Prefix | LocationKind::PrefixFirst if self.path == "/" => {
                Some(Vec::new())
            }
            LocationKind::Prefix | LocationKind::PrefixFirst => {
                Some(vec![format!("{}*", literal(&self.path))])
            }
            LocationKind::Named => None,
        }
    }

    fn tell_difference(&self) {
        if self.kind != LocationKind::Expression {
            return;
        }
        let wider = expression::paths(&self.path).and_then(|list| list.difference());
        let ignores_case = self.block.argument().starts_with("~*");
        match (wider, ignores_case) {
            (Some(wider), _) => self.block.remarked(wider),
            (None, true) => self
                .block
                .remarked("capital and small letters are told apart here"),
            (None, false) => {}
        }
    }
}
