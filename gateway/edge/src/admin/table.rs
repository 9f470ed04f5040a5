//! Every request that the admin listener answers, and what it requires of its sender.
//!
//! `gate` checks each request against its entry. A request without an entry does not exist, so
//! nothing can be added without its check.

use http::Method;

use super::config::AdminRight;

/// One request that is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdminOperation {
    pub verb: AdminMethod,
    /// `{name}` and `{target}` stand for one segment each, and `{rest}` for all that remains.
    pub path: &'static str,
    pub access: AdminAccess,
    pub action: AdminAction,
}

/// The methods of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminMethod {
    /// GET and HEAD: nothing changes.
    Get,
    /// POST: something changes, or the question is too long for a URL.
    Post,
    /// POST or PURGE: something is purged.
    PostOrPurge,
    /// POST or DELETE: something is purged.
    PostOrDelete,
}

/// Who may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminAccess {
    /// Everybody who reaches the listener.
    Open,
    /// A caller with a token that has this right; if no token is configured, everybody who reaches
    /// the listener.
    Needs(AdminRight),
    /// A caller with a token that has this right; if no token is configured, nobody.
    NeedsToken(AdminRight),
}

/// The action of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminAction {
    Live,
    Ready,
    Metrics,
    Nodes,
    Plugins,
    FailedCalls,
    Keys,
    RecentRequests,
    Explain,
    Purge,
    ReloadConfig,
    Reload,
    Quarantine,
    Resume,
    Certificates,
    RenewCertificate,
    RevokeCertificate,
    Upstreams,
    ChangeTarget,
    SwitchMaintenance,
    PurgeAs(PurgeApi),
}

/// A request of another cache's purge API.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PurgeApi {
    FastlyKey,
    FastlyKeys,
    FastlyAll,
    FastlyUrl,
    Cloudflare,
    Souin,
}

/// The result of looking up a method and a path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TableMatch<'a> {
    Entry(&'static AdminOperation, PathNames<'a>),
    /// The path has entries, but none for this method.
    WrongMethod(AdminMethod),
    Nothing,
}

/// The segments in the places of `{name}` and `{target}`, and what is in that of `{rest}`; empty
/// where the entry has none.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PathNames<'a> {
    pub name: &'a str,
    pub target: &'a str,
}

const fn get(path: &'static str, access: AdminAccess, action: AdminAction) -> AdminOperation {
    AdminOperation {
        verb: AdminMethod::Get,
        path,
        access,
        action,
    }
}

const fn post(path: &'static str, right: AdminRight, action: AdminAction) -> AdminOperation {
    AdminOperation {
        verb: AdminMethod::Post,
        path,
        access: AdminAccess::Needs(right),
        action,
    }
}

const fn purge(verb: AdminMethod, path: &'static str, api: PurgeApi) -> AdminOperation {
    AdminOperation {
        verb,
        path,
        access: AdminAccess::Needs(AdminRight::Purge),
        action: AdminAction::PurgeAs(api),
    }
}

/// All entries.
pub const TABLE: [AdminOperation; 27] = [
    get("/livez", AdminAccess::Open, AdminAction::Live),
    get("/readyz", AdminAccess::Open, AdminAction::Ready),
    get("/metrics", AdminAccess::Open, AdminAction::Metrics),
    get("/v1/nodes", AdminAccess::Open, AdminAction::Nodes),
    get("/v1/plugins", AdminAccess::Open, AdminAction::Plugins),
    get(
        "/v1/plugins/{name}/calls",
        AdminAccess::Needs(AdminRight::Read),
        AdminAction::FailedCalls,
    ),
    get(
        "/v1/l2/keys",
        AdminAccess::Needs(AdminRight::Read),
        AdminAction::Keys,
    ),
    get(
        "/v1/requests/recent",
        AdminAccess::NeedsToken(AdminRight::Read),
        AdminAction::RecentRequests,
    ),
    post("/v1/explain", AdminRight::Read, AdminAction::Explain),
    post("/v1/purge", AdminRight::Purge, AdminAction::Purge),
    post(
        "/v1/config/reload",
        AdminRight::Config,
        AdminAction::ReloadConfig,
    ),
    post(
        "/v1/plugins/{name}/reload",
        AdminRight::Plugins,
        AdminAction::Reload,
    ),
    post(
        "/v1/plugins/{name}/quarantine",
        AdminRight::Plugins,
        AdminAction::Quarantine,
    ),
    post(
        "/v1/plugins/{name}/resume",
        AdminRight::Plugins,
        AdminAction::Resume,
    ),
    get(
        "/v1/certificates",
        AdminAccess::Needs(AdminRight::Read),
        AdminAction::Certificates,
    ),
    post(
        "/v1/certificates/{name}/renew",
        AdminRight::Certificates,
        AdminAction::RenewCertificate,
    ),
    post(
        "/v1/certificates/{name}/revoke",
        AdminRight::Certificates,
        AdminAction::RevokeCertificate,
    ),
    get(
        "/v1/upstreams",
        AdminAccess::Needs(AdminRight::Read),
        AdminAction::Upstreams,
    ),
    post(
        "/v1/upstreams/{name}/targets/{target}",
        AdminRight::Targets,
        AdminAction::ChangeTarget,
    ),
    post(
        "/v1/routes/{name}/maintenance",
        AdminRight::Config,
        AdminAction::SwitchMaintenance,
    ),
    purge(
        AdminMethod::Post,
        "/service/{name}/purge/{rest}",
        PurgeApi::FastlyKey,
    ),
    purge(
        AdminMethod::Post,
        "/service/{name}/purge",
        PurgeApi::FastlyKeys,
    ),
    purge(
        AdminMethod::Post,
        "/service/{name}/purge_all",
        PurgeApi::FastlyAll,
    ),
    purge(AdminMethod::Post, "/purge/{rest}", PurgeApi::FastlyUrl),
    // Cloudflare's own plugins for WordPress and Magento still send DELETE, as the API once said.
    purge(
        AdminMethod::PostOrDelete,
        "/client/v4/zones/{name}/purge_cache",
        PurgeApi::Cloudflare,
    ),
    purge(
        AdminMethod::PostOrPurge,
        "/souin-api/souin",
        PurgeApi::Souin,
    ),
    purge(
        AdminMethod::PostOrPurge,
        "/souin-api/souin/{rest}",
        PurgeApi::Souin,
    ),
];

/// Looks a request up.
pub fn find<'a>(method: &Method, path: &'a str) -> TableMatch<'a> {
    let of_path = |entry: &'static AdminOperation| Some((entry, entry.names_in(path)?));
    let mut found = TABLE.iter().filter_map(of_path);
    match found.next() {
        None => TableMatch::Nothing,
        Some((entry, names)) if entry.verb.is(method) => TableMatch::Entry(entry, names),
        Some((entry, _)) => TableMatch::WrongMethod(entry.verb),
    }
}

impl AdminOperation {
    /// The names in `path`. None if the path is another one.
    fn names_in<'a>(&self, path: &'a str) -> Option<PathNames<'a>> {
        let mut names = PathNames::default();
        let is_segment = |given: &str| !given.is_empty() && !given.contains('/');
        let mut wanted = self.path.split('/');
        // The last one is all that remains, with its slashes.
        let mut given = path.splitn(wanted.clone().count(), '/');
        loop {
            match (wanted.next(), given.next()) {
                (None, None) => return Some(names),
                (Some("{rest}"), Some(rest)) => names.target = rest,
                (Some("{name}"), Some(name)) if is_segment(name) => names.name = name,
                (Some("{target}"), Some(target)) if is_segment(target) => names.target = target,
                (Some(wanted), Some(given)) if wanted == given => {}
                _ => return None,
            }
        }
    }
}

impl AdminMethod {
    /// The methods as a value of `Allow`.
    pub fn methods(self) -> &'static str {
        match self {
            Self::Get => "GET, HEAD",
            Self::Post => "POST",
            Self::PostOrPurge => "POST, PURGE",
            Self::PostOrDelete => "POST, DELETE",
        }
    }

    fn is(self, method: &Method) -> bool {
        match self {
            Self::Get => matches!(*method, Method::GET | Method::HEAD),
            Self::Post => *method == Method::POST,
            Self::PostOrPurge => *method == Method::POST || method.as_str() == "PURGE",
            Self::PostOrDelete => matches!(*method, Method::POST | Method::DELETE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new entry must be written down here, too, with the right that it requires.
    #[test]
    fn each_entry_asks_for_its_right() {
        let said = TABLE.map(|entry| {
            let right = match entry.access {
                AdminAccess::Open => "open".to_owned(),
                AdminAccess::Needs(right) => right.as_str().to_owned(),
                AdminAccess::NeedsToken(right) => format!("{}, token", right.as_str()),
            };
            (entry.verb.methods(), entry.path, right)
        });
        let expected = [
            ("GET, HEAD", "/livez", "open"),
            ("GET, HEAD", "/readyz", "open"),
            ("GET, HEAD", "/metrics", "open"),
            ("GET, HEAD", "/v1/nodes", "open"),
            ("GET, HEAD", "/v1/plugins", "open"),
            ("GET, HEAD", "/v1/plugins/{name}/calls", "read"),
            ("GET, HEAD", "/v1/l2/keys", "read"),
            ("GET, HEAD", "/v1/requests/recent", "read, token"),
            ("POST", "/v1/explain", "read"),
            ("POST", "/v1/purge", "purge"),
            ("POST", "/v1/config/reload", "config"),
            ("POST", "/v1/plugins/{name}/reload", "plugins"),
            ("POST", "/v1/plugins/{name}/quarantine", "plugins"),
            ("POST", "/v1/plugins/{name}/resume", "plugins"),
            ("GET, HEAD", "/v1/certificates", "read"),
            ("POST", "/v1/certificates/{name}/renew", "certificates"),
            ("POST", "/v1/certificates/{name}/revoke", "certificates"),
            ("GET, HEAD", "/v1/upstreams", "read"),
            ("POST", "/v1/upstreams/{name}/targets/{target}", "targets"),
            ("POST", "/v1/routes/{name}/maintenance", "config"),
            ("POST", "/service/{name}/purge/{rest}", "purge"),
            ("POST", "/service/{name}/purge", "purge"),
            ("POST", "/service/{name}/purge_all", "purge"),
            ("POST", "/purge/{rest}", "purge"),
            (
                "POST, DELETE",
                "/client/v4/zones/{name}/purge_cache",
                "purge",
            ),
            ("POST, PURGE", "/souin-api/souin", "purge"),
            ("POST, PURGE", "/souin-api/souin/{rest}", "purge"),
        ];
        let expected = expected.map(|(verb, path, right)| (verb, path, right.to_owned()));
        assert_eq!(said, expected);
    }

    /// `find` takes the first entry of a path, so each path must have only one.
    #[test]
    fn each_path_has_one_entry() {
        for entry in &TABLE {
            let path = entry.path.replace("{name}", "p").replace("{rest}", "a/b");
            let all = TABLE.iter().filter(|other| other.names_in(&path).is_some());
            assert_eq!(all.count(), 1, "{path}");
        }
    }

    #[test]
    fn a_path_is_taken_as_it_is_written() {
        let purge = |path| matches!(find(&Method::POST, path), TableMatch::Entry(..));
        assert!(purge("/v1/purge") && purge("/v1/plugins/p.q/reload"));
        assert!(purge("/v1/upstreams/shop/targets/10.0.0.1:80"));
        for path in [
            "/v1/purge/",
            "//v1/purge",
            "/v1/./purge",
            "/v1/%70urge",
            "/V1/purge",
            "/v1/plugins//reload",
            "/v1/plugins/a/b/reload",
            "/v1/plugins/p/dance",
            "/v1/upstreams/shop/targets/",
            "/v1/upstreams//targets/a",
            "/v1/upstreams/shop/targets/a/b",
        ] {
            assert!(
                matches!(find(&Method::POST, path), TableMatch::Nothing),
                "{path}"
            );
        }
        for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PURGE", "post"] {
            let method = method.parse().unwrap();
            let found = find(&method, "/v1/purge");
            assert_eq!(
                found,
                TableMatch::WrongMethod(AdminMethod::Post),
                "{method}"
            );
        }
    }
}
