// A shop behind Varnish: a key by a cookie, tags, ESI. Written for the tests of `lamina migrate`.
vcl 4.0;
import std;

probe alive { .url = "/alive.php"; .interval = 6s; .timeout = 1s; .window = 10; .threshold = 5; }
backend default { .host = "127.0.0.1"; .port = "8081"; .first_byte_timeout = 5m; .probe = alive; }

/* Filled in by the shop. */
acl shop_servers {
}

sub vcl_recv {
    if (req.method == "PURGE") {
        if (client.ip !~ shop_servers) {
            return (synth(405, "Method not allowed"));
        }
        if (!req.http.X-Magento-Tags-Pattern && !req.http.X-Pool) {
            return (synth(400, "A pattern or a pool is needed"));
        }
        if (req.http.X-Magento-Tags-Pattern) {
            ban("obj.http.X-Magento-Tags ~ " + req.http.X-Magento-Tags-Pattern);
        }
        if (req.http.X-Pool) {
            ban("obj.http.X-Pool ~ " + req.http.X-Pool);
        }
        return (synth(200, "Purged"));
    }
    if (req.url ~ "/account" || req.url ~ "/basket") {
        return (pass);
    }
    set req.http.grace = "none";
    std.collect(req.http.Cookie);
    if (req.url ~ "(\?|&)(gclid|mk[a-z]{3}|(mtm|matomo)_[a-z]+)=") {
        set req.url = regsuball(req.url, "(gclid|mk[a-z]{3}|(mtm|matomo)_[a-z]+)=[-_A-z0-9+()%.]+&?", "");
        set req.url = regsub(req.url, "[?|&]+$", "");
    }
    if (req.url ~ "^/(pub/)?(media|static)/") {
        return (pass);
    }
    if (req.url ~ "/graphql" && !req.http.X-Magento-Cache-Id && req.http.Authorization ~ "^Bearer") {
        return (pass);
    }
    return (hash);
}

sub vcl_hash {
    if (req.http.cookie ~ "X-Magento-Vary=") {
        hash_data(regsub(req.http.cookie, "^.*?X-Magento-Vary=([^;]+);*.*$", "\1"));
    }
    if (req.url ~ "/graphql") {
        call by_store;
    }
}

sub by_store {
    if (req.http.Store) {
        hash_data(req.http.Store);
    }
}

sub vcl_backend_response {
    set beresp.grace = 3d;
    if (beresp.http.content-type ~ "text") {
        set beresp.do_esi = true;
    }
    if (beresp.http.Cache-Control ~ "private") {
        set beresp.uncacheable = true;
        return (deliver);
    }
    if (beresp.ttl > 0s && bereq.method == "GET") {
        unset beresp.http.set-cookie;
    }
    return (deliver);
}

sub vcl_hit {
    if (obj.ttl >= 0s) {
        return (deliver);
    }
    if (std.healthy(req.backend_hint)) {
        if (obj.ttl + 300s > 0s) {
            return (deliver);
        } else {
            return (restart);
        }
    } else {
        return (deliver);
    }
}

sub vcl_deliver {
    unset resp.http.X-Magento-Tags;
    unset resp.http.X-Powered-By;
    if (resp.http.Cache-Control !~ "private") {
        set resp.http.Pragma = "no-cache";
    }
}
