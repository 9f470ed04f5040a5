//! nginx's directives in Lamina's words: servers and locations become routes, `upstream` becomes an
//! upstream, and what is said of the cache becomes a policy.

mod access;
mod answers;
mod blocks;
mod bypass;
mod conditions;
mod fields;
mod guards;
mod hosts;
mod listeners;
mod locations;
mod policy;
mod precedence;
mod request_uri;
mod rewrites;
mod server_location;
pub mod syntax;
mod unsaid;
mod upstreams;
mod values;

use super::draft::ConfigDraft;
use super::source::SourceStatement;

/// Directives that say how nginx works inside, or what Lamina does anyhow.
const BY_ITSELF: &[&str] = &[
    "sendfile",
    "tcp_nopush",
    "tcp_nodelay",
    "aio",
    "directio",
    "output_buffers",
    "multi_accept",
    "accept_mutex",
    "use",
    "types",
    "default_type",
    "types_hash_max_size",
    "types_hash_bucket_size",
    "server_names_hash_bucket_size",
    "server_names_hash_max_size",
    "variables_hash_max_size",
    "map_hash_bucket_size",
    "map_hash_max_size",
    "proxy_headers_hash_max_size",
    "proxy_headers_hash_bucket_size",
    "proxy_buffering",
    "proxy_buffers",
    "proxy_buffer_size",
    "proxy_busy_buffers_size",
    "proxy_temp_path",
    "proxy_temp_file_write_size",
    "proxy_max_temp_file_size",
    "proxy_request_buffering",
    "fastcgi_buffering",
    "fastcgi_buffers",
    "fastcgi_buffer_size",
    "fastcgi_busy_buffers_size",
    "fastcgi_temp_path",
    "fastcgi_temp_file_write_size",
    "fastcgi_keep_conn",
    "client_body_buffer_size",
    "client_body_temp_path",
    "reset_timedout_connection",
    "server_tokens",
    "proxy_http_version",
    "proxy_cache_lock",
    "fastcgi_cache_lock",
    "proxy_cache_lock_age",
    "proxy_cache_revalidate",
    "fastcgi_cache_revalidate",
    "proxy_cache_background_update",
    "fastcgi_cache_background_update",
    "proxy_pass_header",
    "fastcgi_pass_header",
    "proxy_cache_convert_head",
    "proxy_ssl_server_name",
    "proxy_ssl_session_reuse",
    "ssl_prefer_server_ciphers",
    "ssl_session_cache",
    "ssl_session_timeout",
    "ssl_session_tickets",
    "ssl_buffer_size",
    "ssl_dhparam",
    "gzip_vary",
    "gzip_proxied",
    "gzip_disable",
    "gzip_buffers",
    "gzip_http_version",
    "real_ip_recursive",
    "http2",
    "http3",
    "quic_retry",
    "pcre_jit",
    "worker_rlimit_nofile",
    "worker_cpu_affinity",
    "zone",
    "keepalive_requests",
    "keepalive_time",
    "merge_slashes",
    "underscores_in_headers",
    "ignore_invalid_headers",
    "absolute_redirect",
    "port_in_redirect",
    "server_name_in_redirect",
    "resolver_timeout",
    "upstream_conf",
    "load_module",
    "uninitialized_variable_warn",
];

/// Says as much of the configuration as can be said.
pub fn translate(statements: &[SourceStatement], draft: &mut ConfigDraft) {
    for one in super::source::all(statements) {
        if BY_ITSELF.contains(&one.name()) {
            one.needs_nothing_whole();
        }
    }
    let http = statements.iter().find(|one| one.name() == "http");
    for one in statements {
        match one.name() {
            "http" => one.translated(),
            "events" => listeners::events(one),
            "worker_processes" => listeners::threads(one, draft),
            _ => {}
        }
    }
    // A file of `conf.d` has no `http` around its servers.
    let inside = http.map_or(statements, SourceStatement::inside);
    upstreams::translate(inside, draft);
    policy::storage(inside, draft);
    policy::limit_zones(inside, draft);
    listeners::translate(inside, draft);
    locations::translate(inside, draft);
}

#[cfg(test)]
mod tests;
