//! The net under all translators of nginx: what a block says and the draft of its route does not. A
//! statement that may bear on who sees something closes the route, and one of which nobody here knows
//! what it bears on leaves it uncached.

use super::super::draft::DraftMap;
use super::super::source::{self, SourceStatement};
use super::blocks::BlockChain;
use super::guards;

/// What a statement may bear on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum DirectiveBearing {
    /// Neither of both.
    Neither,
    /// What is stored, and for whom it is served.
    Stored,
    /// Who may see something.
    Seen,
}

/// Statements that hold in a block and all blocks in it, whatever these say; of all others the innermost
/// block that has one decides.
const HOLD_IN_EVERY_BLOCK: [&str; 4] = ["if", "include", "rewrite", "set"];

/// Parts of names of directives that restrict.
const RESTRICTING: [&str; 14] = [
    "auth",
    "access_by",
    "rewrite_by",
    "js_access",
    "jwt",
    "oidc",
    "modsecurity",
    "naxsi",
    "acl",
    "waf",
    "allow",
    "deny",
    "secure_link",
    "ssl_verify_client",
];

/// Directives with such parts that restrict nothing, and those that `access` and `guards` judge.
const NOT_RESTRICTING: [&str; 11] = [
    "allow",
    "deny",
    "auth_basic",
    "auth_basic_user_file",
    "auth_request",
    "auth_request_set",
    "auth_delay",
    "satisfy",
    "secure_link",
    "secure_link_md5",
    "limit_except",
];

/// Directives that bear on neither, or that other modules judge.
const BEARS_ON_NEITHER: &[&str] = &[
    "access_log",
    "add_header",
    "add_trailer",
    "alias",
    "break",
    "charset",
    "charset_types",
    "chunked_transfer_encoding",
    "disable_symlinks",
    "empty_gif",
    "error_log",
    "error_page",
    "etag",
    "expires",
    "geo",
    "if_modified_since",
    "index",
    "listen",
    "location",
    "log_format",
    "log_not_found",
    "log_subrequest",
    "map",
    "max_ranges",
    "mirror",
    "mirror_request_body",
    "override_charset",
    "postpone_output",
    "real_ip_header",
    "recursive_error_pages",
    "resolver",
    "root",
    "server",
    "server_name",
    "set",
    "set_real_ip_from",
    "slice",
    "split_clients",
    "ssi",
    "status_zone",
    "try_files",
    "upstream",
    "valid_referers",
];

/// How names of such directives begin.
const BEGINNINGS_OF_NEITHER: [&str; 36] = [
    "addition",
    "add_after",
    "add_before",
    "autoindex",
    "brotli",
    "client_",
    "fancyindex",
    "fastcgi_",
    "grpc_",
    "gunzip",
    "gzip",
    "http2",
    "http3",
    "keepalive",
    "limit_",
    "log_",
    "msie_",
    "open_file_cache",
    "proxy_bind",
    "proxy_cache",
    "proxy_connect",
    "proxy_cookie_",
    "proxy_force_ranges",
    "proxy_hide_header",
    "proxy_ignore_",
    "proxy_intercept_errors",
    "proxy_next_upstream",
    "proxy_redirect",
    "proxy_set_header",
    "proxy_socket_keepalive",
    "proxy_ssl_",
    "scgi_",
    "ssl_",
    "sub_filter",
    "uwsgi_",
    "zstd",
];

/// How they end.
const ENDINGS_OF_NEITHER: [&str; 6] = [
    "_timeout",
    "_size",
    "_buffers",
    "_buffering",
    "_rate",
    "_zone",
];

/// Files of which it is known what is in them.
const KNOWN_INCLUDES: [&str; 6] = [
    "mime.types",
    "fastcgi_params",
    "fastcgi.conf",
    "proxy_params",
    "uwsgi_params",
    "scgi_params",
];

/// Makes a route careful where something that holds in these blocks is not said.
pub fn be_careful(chain: &BlockChain<'_>, route: &mut DraftMap) {
    if route.answers_itself() {
        return;
    }
    for one in holding(chain) {
        let is_of_http = chain
            .blocks()
            .last()
            .is_some_and(|http| http.iter().any(|other| std::ptr::eq(one, *other)));
        let why = "it is not said here";
        match bearing(one, chain) {
            DirectiveBearing::Seen => route.close(one, why),
            // Outside of servers, directives that nobody knows set modules up.
            DirectiveBearing::Stored if !is_of_http => route.leave_uncached(one, why),
            DirectiveBearing::Stored | DirectiveBearing::Neither => {}
        }
    }
}

/// The statements that hold in the innermost block.
fn holding<'a>(chain: &BlockChain<'a>) -> Vec<&'a SourceStatement> {
    let mut found: Vec<&SourceStatement> = Vec::new();
    for block in chain.blocks() {
        let outer = block.iter().copied().filter(|one| {
            HOLD_IN_EVERY_BLOCK.contains(&one.name())
                || found.iter().all(|inner| inner.name() != one.name())
        });
        let outer: Vec<&SourceStatement> = outer.collect();
        found.extend(outer);
    }
    found
}

/// Whether a block, whatever became of it, may bear on who sees something.
pub fn may_restrict(block: &SourceStatement) -> bool {
    let every = source::all(block.inside());
    let rules = [
        "allow",
        "deny",
        "auth_basic",
        "auth_request",
        "limit_except",
        "internal",
    ];
    every
        .into_iter()
        .any(|one| rules.contains(&one.name()) || is_restricting(one.name()))
}

/// Whether a location may answer some requests otherwise than by what an origin says.
pub fn may_withhold(block: &SourceStatement) -> bool {
    let every = source::all(block.inside());
    may_restrict(block) || every.into_iter().any(|one| one.name() == "return")
}

fn bearing(one: &SourceStatement, chain: &BlockChain<'_>) -> DirectiveBearing {
    if one.name() == "if" {
        return bearing_of_if(one, chain);
    }
    if !one.is_untouched() {
        return DirectiveBearing::Neither;
    }
    match one.name() {
        "include" => bearing_of_include(one),
        "rewrite" => bearing_of_rewrite(one, chain),
        "ssl_verify_client" => match one.argument() {
            "on" => DirectiveBearing::Seen,
            _ => DirectiveBearing::Neither,
        },
        name if is_restricting(name) => DirectiveBearing::Seen,
        name if bears_on_neither(name) => DirectiveBearing::Neither,
        _ => DirectiveBearing::Stored,
    }
}

fn is_restricting(name: &str) -> bool {
    let restricts = RESTRICTING.iter().any(|part| name.contains(part));
    restricts && !NOT_RESTRICTING.contains(&name)
}

fn bears_on_neither(name: &str) -> bool {
    BEARS_ON_NEITHER.contains(&name)
        || super::BY_ITSELF.contains(&name)
        || NOT_RESTRICTING.contains(&name)
        || BEGINNINGS_OF_NEITHER
            .iter()
            .any(|begin| name.starts_with(begin))
        || ENDINGS_OF_NEITHER.iter().any(|end| name.ends_with(end))
}

/// What is in an `if`. Its `set` matters where the variable is read, and there it is judged.
fn bearing_of_if(block: &SourceStatement, chain: &BlockChain<'_>) -> DirectiveBearing {
    let of_one = |one: &SourceStatement| match one.name() {
        "return" => match guards::is_said(block, one, chain) {
            true => DirectiveBearing::Neither,
            false => DirectiveBearing::Seen,
        },
        "proxy_pass" if one.is_untouched() => DirectiveBearing::Stored,
        "limit_rate" => DirectiveBearing::Neither,
        _ => bearing(one, chain),
    };
    let inside = block.inside().iter().map(of_one);
    inside.max().unwrap_or(DirectiveBearing::Neither)
}

/// One that takes requests away bears on who may see what stands where they come from.
fn bearing_of_rewrite(one: &SourceStatement, chain: &BlockChain<'_>) -> DirectiveBearing {
    match chain.rewrites().lead_away(one) {
        true => DirectiveBearing::Seen,
        false => DirectiveBearing::Stored,
    }
}

/// A file that could not be read may say anything. Around servers, a pattern for files most often names
/// further servers.
fn bearing_of_include(one: &SourceStatement) -> DirectiveBearing {
    let name = one.argument();
    let is_known = KNOWN_INCLUDES.iter().any(|known| name.ends_with(known));
    let names_servers = name.contains("conf.d/*") || name.contains("sites-enabled/*");
    match is_known || names_servers {
        true => DirectiveBearing::Neither,
        false => DirectiveBearing::Seen,
    }
}
