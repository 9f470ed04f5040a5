//! The routes that a VCL becomes, while they are put together.
//!
//! Decision: what a VCL says and the draft does not, restrains routes (`RouteRestraint`): they store
//! nothing, or nobody gets an answer. A person who has read the comments takes that off again.

mod finish;

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::draft::{ConfigDraft, DraftMap, STAND_IN};
use super::super::source::SourceStatement;
use super::branches::is_end;
use super::program::VclProgram;

/// The name of the route for everything.
const SITE: &str = "site";

/// The most routes for paths and hosts. What would make more is left unsaid.
const MOST: usize = 512;

/// What holds for a route beside what it says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum RouteRestraint {
    /// Nothing is stored.
    Uncached,
    /// Nobody gets an answer.
    Closed,
    /// Requests with cookies that are left bypass the cache.
    CookiesPass,
    /// Requests with `Authorization` bypass the cache.
    AuthorizationPasses,
}

/// What of a subroutine is also about the requests of a block.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BlockFollowUp {
    /// All that comes after it.
    Rest,
    /// Nothing: the block ends the subroutine.
    Ended,
}

/// The route for some paths.
struct PathRoute {
    paths: Vec<String>,
    route: DraftMap,
    restraints: BTreeSet<RouteRestraint>,
    follow_up: BlockFollowUp,
    /// What the site's route said of cookies when `vcl_recv` ended for these paths.
    cookies: Option<Value>,
    /// Whether addresses decide who may ask; such routes come first.
    is_guarded: bool,
    /// Which of all assignments its upstream comes from.
    upstream_at: Option<usize>,
    /// Whether later assignments are about these paths, too.
    upstream_follow_up: BlockFollowUp,
    lifetime: Option<PathLifetime>,
}

/// Which of all assignments a lifetime comes from.
#[derive(Clone, Copy)]
struct PathLifetime {
    at: usize,
    follow_up: BlockFollowUp,
}

/// What hosts have of their own.
struct HostRoute {
    hosts: Vec<String>,
    upstream: Option<(String, usize)>,
    upstream_follow_up: BlockFollowUp,
    restraints: BTreeSet<RouteRestraint>,
}

pub struct VclRoutes {
    /// Everything that no other route takes.
    pub site: DraftMap,
    restraints: BTreeSet<RouteRestraint>,
    paths: Vec<PathRoute>,
    hosts: Vec<HostRoute>,
    /// Answers of Varnish's own, before everything else.
    answers: Vec<DraftMap>,
    /// Lifetimes of kinds of responses, and what may change them.
    lifetimes: Vec<(Value, BlockFollowUp)>,
    assignments: usize,
    /// What is served at all, and the answer to all else.
    only: Option<ServedRequests>,
}

/// What is served at all: some methods, or some hosts.
pub struct ServedRequests {
    /// `match.method` or `match.host`.
    pub kind: &'static str,
    pub list: Vec<String>,
    /// The answer to all else.
    pub answer: DraftMap,
}

impl BlockFollowUp {
    /// What it is of a block.
    pub fn of(block: &SourceStatement) -> Self {
        match block.inside().last().is_some_and(is_end) {
            true => Self::Ended,
            false => Self::Rest,
        }
    }
}

impl VclRoutes {
    pub fn new(program: &VclProgram<'_>, draft: &ConfigDraft) -> Self {
        let mut site = DraftMap::default();
        site.set("name", SITE);
        let first = draft.upstreams.iter().find(|(_, one)| one.has("targets"));
        let default = draft.upstreams.iter().find(|(name, _)| name == "default");
        let upstream = default
            .or(first)
            .map_or(STAND_IN, |(name, _)| name.as_str());
        site.set("upstream", upstream);
        for one in program.statements {
            one.belongs_to(SITE);
        }
        // Varnish has a lifetime for what states none.
        site.set("policy.ttl", "2m");
        Self {
            site,
            restraints: BTreeSet::new(),
            paths: Vec::new(),
            hosts: Vec::new(),
            answers: Vec::new(),
            lifetimes: Vec::new(),
            assignments: 0,
            only: None,
        }
    }

    /// The route for these paths, whatever the query.
    pub fn of_paths(&mut self, paths: &[String], one: &SourceStatement) -> &mut DraftMap {
        let at = self.position(paths);
        let route = &mut self.paths[at].route;
        if let Some(name) = route.get("name").and_then(Value::as_str) {
            one.belongs_to(name);
        }
        route
    }

    /// Whether there may be further paths or hosts.
    pub fn have_room(&self) -> bool {
        (self.paths.len() + 2) * (self.hosts.len() + 2) <= MOST
    }

    fn position(&mut self, paths: &[String]) -> usize {
        let known = self.paths.iter().position(|one| one.paths == paths);
        known.unwrap_or_else(|| {
            let mut route = DraftMap::default();
            let n = self.paths.len() + 1;
            let name = match n {
                1 => "files".to_owned(),
                n => format!("files-{n}"),
            };
            route.set("name", name);
            route.set("match.path", paths);
            self.paths.push(PathRoute {
                paths: paths.to_vec(),
                route,
                restraints: self.restraints.clone(),
                follow_up: BlockFollowUp::Rest,
                cookies: None,
                is_guarded: false,
                upstream_at: None,
                upstream_follow_up: BlockFollowUp::Rest,
                lifetime: None,
            });
            self.paths.len() - 1
        })
    }

    fn next_assignment(&mut self) -> usize {
        self.assignments += 1;
        self.assignments
    }

    /// Requests for these paths go to another upstream.
    pub fn send_paths(&mut self, paths: &[String], upstream: String) {
        let (at, assignment) = (self.position(paths), self.next_assignment());
        self.paths[at].route.set("upstream", upstream);
        self.paths[at].upstream_at = Some(assignment);
    }

    /// Requests for these hosts go to another upstream.
    pub fn send_hosts(&mut self, hosts: &[String], upstream: String) {
        let assignment = self.next_assignment();
        self.host(hosts).upstream = Some((upstream, assignment));
    }

    /// All requests go to this upstream, whatever was said before.
    pub fn send_all(&mut self, upstream: String) {
        self.site.set("upstream", upstream);
        let is_open = |follow_up: BlockFollowUp| follow_up == BlockFollowUp::Rest;
        for one in &mut self.paths {
            if is_open(one.upstream_follow_up) {
                one.route.remove("upstream");
                one.upstream_at = None;
            }
        }
        for one in &mut self.hosts {
            if is_open(one.upstream_follow_up) {
                one.upstream = None;
            }
        }
    }

    /// What holds for the answers for these hosts.
    pub fn restrain_hosts(&mut self, hosts: &[String], restraint: RouteRestraint) {
        self.host(hosts).restraints.insert(restraint);
    }

    fn host(&mut self, hosts: &[String]) -> &mut HostRoute {
        let known = self.hosts.iter().position(|one| one.hosts == hosts);
        let at = known.unwrap_or_else(|| {
            self.hosts.push(HostRoute {
                hosts: hosts.to_vec(),
                upstream: None,
                upstream_follow_up: BlockFollowUp::Rest,
                restraints: BTreeSet::new(),
            });
            self.hosts.len() - 1
        });
        &mut self.hosts[at]
    }

    /// An answer of Varnish's own.
    pub fn answer(&mut self, mut route: DraftMap) {
        let n = self.answers.len() + 1;
        let name = match n {
            1 => "answer".to_owned(),
            n => format!("answer-{n}"),
        };
        let mut named = DraftMap::default();
        named.set("name", name);
        route.remove("name");
        named.fill_from(&route);
        self.answers.push(named);
    }

    /// What a block of `vcl_recv` for these paths ends with.
    pub fn look_up(&mut self, paths: &[String]) {
        let at = self.position(paths);
        if self.paths[at].follow_up == BlockFollowUp::Rest {
            self.paths[at].cookies = self.site.get("cookies").cloned();
        }
        self.paths[at].follow_up = BlockFollowUp::Ended;
        self.paths[at].upstream_follow_up = BlockFollowUp::Ended;
    }

    /// The upstream of these paths stays, since the block passes.
    pub fn keep_upstream_of_paths(&mut self, paths: &[String]) {
        let at = self.position(paths);
        self.paths[at].upstream_follow_up = BlockFollowUp::Ended;
    }

    /// The upstream of these hosts stays, since the block ends.
    pub fn keep_upstream_of_hosts(&mut self, hosts: &[String]) {
        self.host(hosts).upstream_follow_up = BlockFollowUp::Ended;
    }

    /// Which addresses may ask for these paths. One set of them for all paths: which of two would count
    /// where both hold can't be said.
    pub fn guard(&mut self, paths: &[String], access: &Value) -> bool {
        let other = |one: &PathRoute| one.is_guarded && one.paths != paths;
        if self.site.has("access") || self.paths.iter().any(other) {
            return false;
        }
        let at = self.position(paths);
        let guarded = &mut self.paths[at];
        if guarded.route.has("access") {
            return false;
        }
        guarded.is_guarded = true;
        guarded.route.set("access", access.clone());
        true
    }

    /// Which addresses may ask at all.
    pub fn guard_all(&mut self, access: Value) -> bool {
        let is_free = !self.site.has("access") && !self.paths.iter().any(|one| one.is_guarded);
        if is_free {
            self.site.set("access", access);
        }
        is_free
    }

    /// Nothing else is served. One such rule can be said.
    pub fn serve_only(&mut self, served: ServedRequests) -> bool {
        let is_free = self.only.is_none();
        if is_free {
            self.only = Some(served);
        }
        is_free
    }

    /// Restrains what a statement of `vcl_recv` at this place is about.
    pub fn restrain_rest(&mut self, restraint: RouteRestraint) {
        self.restrain_all_but(&[], restraint);
    }

    /// The same for all paths but these.
    pub fn restrain_all_but(&mut self, paths: &[String], restraint: RouteRestraint) {
        self.restraints.insert(restraint);
        for one in &mut self.paths {
            if one.follow_up == BlockFollowUp::Rest && one.paths != paths {
                one.restraints.insert(restraint);
            }
        }
    }

    /// Restrains all routes.
    pub fn restrain_all(&mut self, restraint: RouteRestraint) {
        self.restraints.insert(restraint);
        for one in &mut self.paths {
            one.restraints.insert(restraint);
        }
    }

    /// A lifetime for responses of a kind.
    pub fn lifetime_of_kind(&mut self, rule: Value, follow_up: BlockFollowUp) {
        self.lifetimes.push((rule, follow_up));
    }

    /// A lifetime for these paths.
    pub fn lifetime_of_paths(&mut self, paths: &[String], follow_up: BlockFollowUp) {
        let (position, at) = (self.position(paths), self.next_assignment());
        self.paths[position].lifetime = Some(PathLifetime { at, follow_up });
    }

    /// A lifetime for all, whatever was said before.
    pub fn lifetime_of_all(&mut self) {
        let is_open = |follow_up: BlockFollowUp| follow_up == BlockFollowUp::Rest;
        self.lifetimes.retain(|(_, follow_up)| !is_open(*follow_up));
        for one in &mut self.paths {
            if one
                .lifetime
                .is_some_and(|lifetime| is_open(lifetime.follow_up))
            {
                one.route.remove("policy.ttl");
                one.route.remove("policy.mode");
                one.lifetime = None;
            }
        }
    }
}
