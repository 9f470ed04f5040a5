//! The routes that a VCL becomes, while they are put together.

use super::super::draft::{ConfigDraft, DraftMap, STAND_IN};
use super::super::expression::PatternList;
use super::super::source::SourceStatement;
use super::program::VclProgram;

/// The name of the route for everything.
const SITE: &str = "site";

pub struct VclRoutes {
    /// Everything that no other route takes.
    pub site: DraftMap,
    /// Paths with their route, in the order in which the VCL tells of them.
    paths: Vec<(Vec<String>, DraftMap)>,
    /// Routes that need nothing of the site: those with their own answers, or for a host.
    pub others: Vec<DraftMap>,
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
            paths: Vec::new(),
            others: Vec::new(),
        }
    }

    /// The route for these paths. Patterns match paths alone, whatever the query.
    pub fn of_paths(&mut self, list: &PatternList, one: &SourceStatement) -> &mut DraftMap {
        let known = self
            .paths
            .iter()
            .position(|(paths, _)| *paths == list.patterns);
        let at = known.unwrap_or_else(|| {
            let mut route = DraftMap::default();
            let n = self.paths.len() + 1;
            let name = if n == 1 {
                "files".to_owned()
            } else {
                format!("files-{n}")
            };
            route.set("name", name);
            route.set("match.path", list.patterns.clone());
            self.paths.push((list.patterns.clone(), route));
            self.paths.len() - 1
        });
        if let Some(difference) = list.difference() {
            one.remarked(difference);
        }
        let route = &mut self.paths[at].1;
        if let Some(name) = route.get("name").and_then(|name| name.as_str()) {
            one.belongs_to(name);
        }
        route
    }

    /// A name for one more route.
    pub fn name(&self, wanted: &str) -> String {
        let known = |name: &str| {
            let named = self.others.iter().filter_map(|route| route.get("name"));
            named.into_iter().any(|one| one == name)
        };
        let mut names =
            std::iter::once(wanted.to_owned()).chain((2..).map(|n| format!("{wanted}-{n}")));
        names.find(|name| !known(name)).unwrap_or_default()
    }

    /// Puts all of them into the draft, the narrower ones first.
    pub fn finish(mut self, draft: &mut ConfigDraft) {
        draft.routes.append(&mut self.others);
        for (_, mut route) in self.paths {
            let has_lifetime = route.has("policy.ttl");
            let keeps = route.has("cookies.keep");
            route.fill_from(&self.site);
            if keeps {
                route.remove("cookies.drop");
            }
            if has_lifetime && !route.has("policy.cookies") {
                route.set("policy.cookies", "ignore");
            }
            // Pages are put together on the route for pages alone.
            route.remove("esi");
            draft.routes.push(route);
        }
        if self.site.has("cookies.keep") {
            self.site.remove("cookies.drop");
        }
        draft.routes.push(self.site);
        draft.top.set_default("purge_method.enabled", false);
        if draft
            .top
            .get("purge_method.enabled")
            .is_some_and(|on| on == false)
        {
            draft.top.remove("purge_method");
        }
    }
}
