//! A loader: `/account/7` is a user's JSON, fetched from the upstream `shop`, in an answer of
//! our own.

use lamina_plugin::fetch::{self, FetchRequest};
use lamina_plugin::{Context, LoadDecision, LoaderPlugin, Manifest, Request, Response};

struct Plugin;

impl LoaderPlugin for Plugin {
    /// Reads `config` of the YAML, as JSON text.
    fn new(_config: &str) -> Result<Self, String> {
        Ok(Self)
    }

    /// `load` gets the headers and cookies that are named here, as in `.reads_headers(&["accept"])`.
    fn manifest(&self) -> Manifest {
        Manifest::new("{{name}}", env!("CARGO_PKG_VERSION"))
    }

    /// What is returned is cached like an origin's response; the context has the deadline.
    fn load(&self, request: Request, _context: Context) -> LoadDecision {
        let Some(id) = id_of(&request) else {
            return LoadDecision::Absent;
        };
        let asked = FetchRequest::get("shop", &format!("/api/user/{id}"));
        match fetch::one(&asked.header("accept", "application/json")) {
            Ok(user) if user.status == 200 => account(id, &user.body).into(),
            Ok(user) if user.status == 404 => LoadDecision::Absent,
            Ok(user) => {
                let status = user.status;
                LoadDecision::Error(format!("the user's API answered with status {status}"))
            }
            Err(error) => LoadDecision::Error(format!("the user's API: {error}")),
        }
    }
}

/// The number at the end of the path: what goes into another path must be known.
fn id_of(request: &Request) -> Option<&str> {
    let id = request.segment(1)?;
    let is_last = request.path().trim_start_matches('/').split('/').count() == 2;
    (is_last && id.bytes().all(|byte| byte.is_ascii_digit())).then_some(id)
}

/// The answer, made of what the user's API said, which is JSON.
fn account(id: &str, user: &[u8]) -> Response {
    let body = [b"{\"user\": ", user, b"}"].concat();
    Response::new(200, "application/json", body)
        .ttl_seconds(10)
        .tag(format!("user-{id}"))
}

lamina_plugin::export_loader!(Plugin);

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str) -> Request {
        Request {
            method: "GET".into(),
            scheme: "http".into(),
            host: "shop.example".into(),
            path_and_query: path.into(),
            headers: vec![],
            body: vec![],
        }
    }

    #[test]
    fn the_number_at_the_end_of_the_path_names_the_user() {
        assert_eq!(id_of(&request("/account/7?x=1")), Some("7"));
        for path in ["/account", "/account/", "/account/..", "/account/7/8", "/account/7a"] {
            assert_eq!(id_of(&request(path)), None, "{path}");
        }
    }

    #[test]
    fn the_user_is_a_part_of_the_answer() {
        let answer = account("7", b"{}");
        assert_eq!((&*answer.body, answer.ttl_ms), (&b"{\"user\": {}}"[..], Some(10_000)));
    }
}
