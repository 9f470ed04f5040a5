# A blog behind Varnish, with what most VCLs for one say. Written for the tests of `lamina migrate`.
vcl 4.1;
import std;
import directors;

backend first {
    .host = "127.0.0.1";
    .port = "8081";
    .max_connections = 200;
    .connect_timeout = 3s;
    .first_byte_timeout = 120s;
    .between_bytes_timeout = 20s;
    .probe = {
        .url = "/ping.txt";
        .interval = 4s;
        .timeout = 2s;
        .window = 6;
        .threshold = 4;
    }
}
backend second { .host = "127.0.0.1"; .port = "8082"; }

acl editors {
    "localhost";
    "10.1.0.0"/16;
    "deploy.internal";
}

sub vcl_init {
    new pool = directors.round_robin();
    pool.add_backend(first);
    pool.add_backend(second);
}

sub vcl_recv {
    set req.backend_hint = pool.backend();
    unset req.http.proxy;
    set req.url = std.querysort(req.url);

    if (req.method == "PURGE") {
        if (!client.ip ~ editors) {
            return (synth(405, "Not for you"));
        }
        return (purge);
    }
    if (req.method != "GET" && req.method != "HEAD") {
        return (pass);
    }
    if (req.http.Upgrade ~ "(?i)websocket") {
        return (pipe);
    }
    if (req.url ~ "^/old-feed$") {
        return (synth(410, "Gone for good"));
    }
    if (req.url ~ "(\?|&)(utm_medium|fbclid|trk_[a-z]+)=") {
        set req.url = regsuball(req.url, "&(utm_medium|fbclid|trk_[a-z]+)=([a-z0-9]+)", "");
        set req.url = regsuball(req.url, "\?(utm_medium|fbclid|trk_[a-z]+)=([a-z0-9]+)", "?");
        set req.url = regsub(req.url, "\?$", "");
    }
    set req.http.Cookie = regsuball(req.http.Cookie, "_ga=[^;]+(; )?", "");
    set req.http.Cookie = regsuball(req.http.Cookie, "__utm.=[^;]+(; )?", "");
    set req.http.Cookie = regsuball(req.http.Cookie, "^;\s*", "");
    if (req.http.Cookie ~ "^\s*$") {
        unset req.http.Cookie;
    }
    if (req.http.Authorization || req.http.Cookie ~ "(wordpress_logged_in|comment_author)_") {
        return (pass);
    }
    if (req.url ~ "/wp-(admin|login)" || req.url ~ "^/preview") {
        return (pass);
    }
    if (req.url ~ "^[^?]*\.(css|js|png|woff2?)(\?.*)?$") {
        unset req.http.Cookie;
        return (hash);
    }
    if (std.time("2030-01-01", now) > now) {
        set req.http.X-Era = "early";
    }
    return (hash);
}

sub vcl_hash {
    hash_data(req.url);
    if (req.http.host) {
        hash_data(req.http.host);
    } else {
        hash_data(server.ip);
    }
    if (req.http.Cookie) {
        hash_data(req.http.Cookie);
    }
}

sub vcl_backend_response {
    if (bereq.url ~ "^[^?]*\.(css|js|png|woff2?)(\?.*)?$") {
        unset beresp.http.set-cookie;
        set beresp.ttl = 7d;
    }
    if (beresp.status == 404) {
        set beresp.ttl = 15s;
    }
    if (beresp.ttl <= 0s || beresp.http.Set-Cookie || beresp.http.Vary == "*") {
        set beresp.ttl = 60s;
        set beresp.uncacheable = true;
        return (deliver);
    }
    set beresp.grace = 2h;
    return (deliver);
}

sub vcl_deliver {
    if (obj.hits > 0) {
        set resp.http.X-Cache = "HIT";
    } else {
        set resp.http.X-Cache = "MISS";
    }
    unset resp.http.Server;
    unset resp.http.Via;
    set resp.http.X-Frame-Options = "SAMEORIGIN";
    return (deliver);
}
