//! Routes of a server get their places in the draft, or are known by their rules alone.

use std::collections::HashSet;

use super::super::super::draft::{ConfigDraft, DraftMap, name_of_route};
use super::super::super::expression::ExpressionCase;
use super::super::super::source::SourceStatement;
use super::super::listeners::ServerListeners;
use super::super::precedence::{PlacedRoute, RouteOrder, RouteReach};
use super::ServerRoutes;

/// Why a server or a location gets no route.
pub(super) const SAME_NAMES: &str =
    "another server has these names and this path, and routes know no ports";

/// Where a route stands, and for which statement.
#[derive(Clone)]
pub(super) struct RoutePlace<'a> {
    pub(super) statement: &'a SourceStatement,
    pub(super) paths: Vec<String>,
    pub(super) path_case: ExpressionCase,
    pub(super) order: RouteOrder,
    pub(super) reach: RouteReach,
    pub(super) is_expression: bool,
}

impl<'a> RoutePlace<'a> {
    pub(super) fn of_server(statement: &'a SourceStatement, rank: u8, paths: &[String]) -> Self {
        Self {
            statement,
            paths: paths.to_vec(),
            path_case: ExpressionCase::Told,
            order: RouteOrder {
                rank,
                within: 0,
                part: 0,
            },
            reach: RouteReach::Exact,
            is_expression: false,
        }
    }
}

impl<'a> ServerRoutes<'a> {
    /// A route of this server, for this path, without a place in the draft yet.
    pub(super) fn route(&self, draft: &ConfigDraft, path: &str, patterns: &[String]) -> DraftMap {
        let mut route = DraftMap::default();
        let names = self.hosts.names();
        let host = names.first().map_or("", String::as_str);
        route.set("name", draft.route_name(&format!("{host} {path}")));
        let matched = self.hosts.matched();
        if !matched.is_empty() {
            route.set("match.host", matched);
        }
        if !patterns.is_empty() {
            route.set("match.path", patterns);
        }
        route
    }

    /// Puts a route into the draft, unless another one is for the same requests or the hosts can't be
    /// said; then its rules are known all the same.
    pub(super) fn place(
        &mut self,
        mut route: DraftMap,
        place: RoutePlace<'a>,
        draft: &mut ConfigDraft,
    ) -> bool {
        self.keep_to_listeners(&mut route, draft);
        let is_new = is_new(&route, draft);
        let is_placed = is_new && self.hosts.are_matched();
        if !is_new {
            place.statement.in_part(SAME_NAMES);
        }
        if is_placed
            && draft
                .routes
                .iter()
                .any(|one| one.get("name") == route.get("name"))
        {
            let name = name_of_route(&route).unwrap_or_default();
            route.set("name", draft.route_name(&name));
        }
        let name = name_of_route(&route).filter(|_| is_placed);
        if is_placed && self.hosts.loses_some() {
            self.note(None, &route, &place);
        }
        self.note(name, &route, &place);
        if is_placed {
            draft.routes.push(route);
        }
        is_placed
    }

    /// Notes a route, or the rules of one that is not there.
    fn note(&mut self, name: Option<String>, rules: &DraftMap, place: &RoutePlace<'a>) {
        let reach = match name {
            Some(_) => place.reach,
            None => RouteReach::None,
        };
        self.placed.push(PlacedRoute {
            name,
            rules: rules.clone(),
            paths: place.paths.clone(),
            path_case: place.path_case,
            server: self.server,
            hosts: self.hosts.clone(),
            order: place.order,
            reach,
            is_expression: place.is_expression,
            statement: place.statement,
        });
    }

    /// Routes know no listeners. Who could not reach the server with nginx does not reach it here.
    fn keep_to_listeners(&self, route: &mut DraftMap, draft: &ConfigDraft) {
        let (kind, listen) = ServerListeners::of(self.server, draft);
        let Some(listen) = listen.filter(|_| !route.answers_itself()) else {
            return;
        };
        match kind {
            ServerListeners::All => {}
            ServerListeners::ThisMachine if !route.has("access") => {
                listen.remarked(
                    "routes know no listeners: clients must have an address of this machine",
                );
                route.set("access.allow", vec!["127.0.0.0/8", "::1/128"]);
            }
            ServerListeners::ThisMachine | ServerListeners::Inner => {
                route.close(
                    listen,
                    "routes know no listeners, and with nginx it is reached at this one alone",
                );
            }
            ServerListeners::Some => {
                listen.remarked("routes know no listeners: it is reached at each of them");
            }
        }
    }

    /// Two routes of the server that a guard has made the same are one: the second answers nothing.
    pub(super) fn leave_out_hidden(&mut self, draft: &mut ConfigDraft) {
        let names = self.placed.iter().filter_map(|one| one.name.as_ref());
        let own: HashSet<&String> = names.collect();
        let mut known = HashSet::new();
        let mut hidden = HashSet::new();
        draft.routes.retain(|route| {
            let name = name_of_route(route).filter(|name| own.contains(name));
            let matched = route.get("match").map(ToString::to_string);
            let is_kept = name.is_none() || known.insert(matched);
            hidden.extend(name.filter(|_| !is_kept));
            is_kept
        });
        for placed in &mut self.placed {
            if placed
                .name
                .as_ref()
                .is_some_and(|name| hidden.contains(name))
            {
                placed.name = None;
                placed.reach = RouteReach::Rest;
            }
        }
    }
}

/// Whether no route before takes the same requests.
pub(super) fn is_new(route: &DraftMap, draft: &ConfigDraft) -> bool {
    let wanted = route.get("match");
    let mut known = draft.routes.iter();
    known.all(|known| known.get("match") != wanted)
}
