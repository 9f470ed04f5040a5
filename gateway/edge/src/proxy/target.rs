//! Which route takes a request, and with which path: the step from the path that a client wrote to
//! the one that key, purges, log and origin share.
//!
//! The order of the steps makes it safe. The listener's rules shape the path, and the shaped path
//! selects a route. Then that route's own rules, if they differ from the listener's, shape the path
//! anew. The result, and every form in which an origin may read it ([`readings`]), must select the
//! same route again; otherwise the request is refused. So no spelling of a path can bypass the
//! route that is meant for it.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use http::request::Parts;
use http::uri::PathAndQuery;

use crate::http::path::{self, PathFault, PathRules, PathSpelling, readings};
use crate::proxy::route::{Route, Routes};

/// The result of the search for a route.
pub enum RoutingOutcome<'a> {
    /// This route takes it.
    Route(&'a Arc<Route>),
    /// This route takes it, with this path and query.
    Shaped(&'a Arc<Route>, PathAndQuery),
    /// No route takes it.
    Nowhere,
    Refused(PathRefusal),
}

/// Why a path is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum PathRefusal {
    Fault(PathFault),
    Ambiguous(Box<AmbiguousPath>),
}

/// A path that selects one route as it is, and another route in a form in which an origin may read
/// it.
#[derive(Debug, PartialEq, Eq)]
pub struct AmbiguousPath {
    path: String,
    route: Option<Arc<str>>,
    reading: String,
    other: Option<Arc<str>>,
}

impl PathRefusal {
    /// The reason for the client. It reveals nothing about routes.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.reason(),
            Self::Ambiguous(_) => "the path can be read in more than one way",
        }
    }
}

/// The reason for the operator.
impl fmt::Display for PathRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Ambiguous(found) = self else {
            return f.write_str(self.reason());
        };
        let name = |route: &Option<Arc<str>>| match route {
            Some(name) => format!("route {name}"),
            None => "no route".to_owned(),
        };
        write!(
            f,
            "{} selects {}, but an origin may read it as {}, which selects {}",
            found.path,
            name(&found.route),
            found.reading,
            name(&found.other)
        )
    }
}

impl Routes {
    /// Finds the route of a request whose path is in normal form, on a listener with `rules`.
    pub fn target(
        &self,
        host: &str,
        parts: &Parts,
        spelling: PathSpelling,
        rules: PathRules,
    ) -> RoutingOutcome<'_> {
        match spelling {
            PathSpelling::Sole => self
                .find(host, parts)
                .map_or(RoutingOutcome::Nowhere, RoutingOutcome::Route),
            PathSpelling::Several => self
                .told_apart(host, parts, rules)
                .unwrap_or_else(RoutingOutcome::Refused),
        }
    }

    fn told_apart(
        &self,
        host: &str,
        parts: &Parts,
        rules: PathRules,
    ) -> Result<RoutingOutcome<'_>, PathRefusal> {
        let given = parts.uri.path();
        let selects = |path: &str| self.find_at(host, parts, path);
        let arrived = rules.shape(given);
        let route = selects(&arrived.path);
        let shaped = match route {
            Some(route) => route.path.over(rules).shape(given),
            None => arrived,
        };
        if let Some(fault) = shaped.fault {
            return Err(PathRefusal::Fault(fault));
        }
        let others = readings(&shaped.path).map_err(PathRefusal::Fault)?;
        for reading in std::iter::once(shaped.path.clone().into_owned()).chain(others) {
            let other = selects(&reading);
            if other.map(Arc::as_ptr) != route.map(Arc::as_ptr) {
                let name = |route: Option<&Arc<Route>>| route.map(|route| Arc::clone(&route.name));
                return Err(PathRefusal::Ambiguous(Box::new(AmbiguousPath {
                    path: given.to_owned(),
                    route: name(route),
                    reading,
                    other: name(other),
                })));
            }
        }
        let Some(route) = route else {
            return Ok(RoutingOutcome::Nowhere);
        };
        if shaped.path == given {
            return Ok(RoutingOutcome::Route(route));
        }
        let target = path::with_query(&shaped.path, &parts.uri).map_err(PathRefusal::Fault)?;
        Ok(RoutingOutcome::Shaped(route, target))
    }
}

/// Brings a path that the route's request plugin wrote into its normal form, under the rules that
/// apply to the route.
///
/// # Errors
/// If the rules refuse the path.
pub fn reshape(uri: &mut Uri, rules: PathRules) -> Result<(), PathFault> {
    if path::arrive(uri)? == PathSpelling::Sole {
        return Ok(());
    }
    let shaped = rules.shape(uri.path());
    if let Some(fault) = shaped.fault {
        return Err(fault);
    }
    if shaped.path != uri.path() {
        let target = path::with_query(&shaped.path, uri)?;
        path::set(uri, target);
    }
    Ok(())
}
