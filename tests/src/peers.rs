//! The caches of others, from Debian (`make bench-install`), each with one worker or
//! pool and a cache before one origin; their files lie in a folder of the caller's.
//!
//! Shared by the benchmark and the differential run, so that both speak of the same servers.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context;

use crate::debian13;
use crate::free_port::free_address;
use crate::process::Server;

/// nginx; `location` are further lines for its one location, as in `proxy_cache_revalidate on;`.
///
/// # Errors
/// When it is not installed or does not start.
pub fn nginx(
    core: Option<usize>,
    origin: SocketAddr,
    dir: &Path,
    location: &str,
) -> anyhow::Result<Server> {
    nginx_listening(core, origin, dir, location, "")
}

/// nginx with TLS and HTTP/2, by the files `tls.crt` and `tls.key` in its folder.
///
/// # Errors
/// When it is not installed or does not start.
pub fn nginx_secured(
    core: Option<usize>,
    origin: SocketAddr,
    dir: &Path,
) -> anyhow::Result<Server> {
    nginx_listening(core, origin, dir, "", " ssl http2")
}

/// nginx of Debian 13 with HTTP/3 beside HTTP/2, by the same files. `quic_gso` is on, as in Lamina.
///
/// # Errors
/// When it is not installed or does not start.
pub fn nginx_over_quic(
    core: Option<usize>,
    origin: SocketAddr,
    dir: &Path,
) -> anyhow::Result<Server> {
    let (address, home) = (free_address(), text(dir)?);
    let listen = format!(
        "listen {address} quic reuseport;\n    listen {address} ssl;\n    http2 on;\n    http3 on;\n    \
         quic_gso on;\n    http3_max_concurrent_streams 128;\n    ssl_certificate {home}/tls.crt;\n    \
         ssl_certificate_key {home}/tls.key;\n    ssl_protocols TLSv1.3;\n    ssl_session_tickets off;"
    );
    let file = nginx_config(dir, origin, &listen, "")?;
    let program = debian13::program("sbin/nginx")?;
    let arguments = program.arguments.iter().map(String::as_str);
    let arguments: Vec<_> = arguments.chain(["-p", home, "-c", &file]).collect();
    Server::start(core, address, &program.loader, &arguments)
}

fn nginx_listening(
    core: Option<usize>,
    origin: SocketAddr,
    dir: &Path,
    location: &str,
    listen: &str,
) -> anyhow::Result<Server> {
    let (address, home) = (free_address(), text(dir)?);
    let certificate = match listen.is_empty() {
        true => String::new(),
        false => format!(
            "    ssl_certificate {home}/tls.crt;\n    ssl_certificate_key {home}/tls.key;\n\
             \x20   ssl_protocols TLSv1.2 TLSv1.3;\n    ssl_session_tickets off;\n\
             \x20   http2_max_requests 1000000000;\n"
        ),
    };
    let listen = format!("listen {address}{listen};\n{certificate}");
    let file = nginx_config(dir, origin, &listen, location)?;
    let arguments = ["-p", home, "-c", &file];
    Server::start(core, address, "/usr/sbin/nginx", &arguments)
}

/// Writes a configuration with one server, whose `listen` has all but its location.
fn nginx_config(
    dir: &Path,
    origin: SocketAddr,
    listen: &str,
    location: &str,
) -> anyhow::Result<String> {
    let home = text(dir)?;
    let config = format!(
        "user root;\nworker_processes 1;\ndaemon off;\npid {home}/nginx.pid;\nerror_log {home}/error.log;\n\
         worker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  keepalive_requests 1000000000;\n\
         \x20 client_body_temp_path {home}/body;\n  proxy_temp_path {home}/proxy;\n  fastcgi_temp_path {home}/f;\n\
         \x20 uwsgi_temp_path {home}/u;\n  scgi_temp_path {home}/s;\n\
         \x20 proxy_cache_path {home}/cache levels=1:2 keys_zone=small:64m max_size=4g inactive=1h use_temp_path=off;\n\
         \x20 upstream origin {{ server {origin}; keepalive 64; keepalive_requests 1000000000; }}\n\
         \x20 server {{\n    {listen}\n    location / {{\n      proxy_pass http://origin;\n\
         \x20     proxy_http_version 1.1;\n      proxy_set_header Connection \"\";\n      proxy_cache small;\n\
         \x20     {location}\n    }}\n  }}\n}}\n"
    );
    let file = dir.join("nginx.conf");
    fs::write(&file, config).with_context(|| format!("writing {}", file.display()))?;
    Ok(text(&file)?.to_owned())
}

/// Varnish; `parameters` are for `-p`, as in `default_ttl=0`.
///
/// # Errors
/// When it is not installed or does not start.
pub fn varnish(
    core: Option<usize>,
    origin: SocketAddr,
    dir: &Path,
    parameters: &[&str],
) -> anyhow::Result<Server> {
    varnish_with(core, ["-b", &origin.to_string()], dir, parameters)
}

/// Varnish that does what a file in its language says.
///
/// # Errors
/// When it is not installed or does not start.
pub fn varnish_by(
    core: Option<usize>,
    vcl: &Path,
    dir: &Path,
    parameters: &[&str],
) -> anyhow::Result<Server> {
    varnish_with(core, ["-f", text(vcl)?], dir, parameters)
}

fn varnish_with(
    core: Option<usize>,
    behind: [&str; 2],
    dir: &Path,
    parameters: &[&str],
) -> anyhow::Result<Server> {
    let address = free_address();
    let (listen, home) = (address.to_string(), text(dir)?);
    let fixed = [
        ["-j", "none"],
        ["-n", home],
        ["-a", &listen],
        behind,
        ["-s", "malloc,256m"],
    ];
    let mut arguments = vec!["-F"];
    arguments.extend(fixed.into_iter().flatten());
    arguments.extend(parameters.iter().flat_map(|parameter| ["-p", parameter]));
    Server::start(core, address, "/usr/sbin/varnishd", &arguments)
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}
