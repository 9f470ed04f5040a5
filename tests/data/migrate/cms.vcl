# A CMS behind Varnish in a container, whose image fills variables in. Written for the tests of
# `lamina migrate`.
vcl 4.0;
import dynamic;

backend default { .host = "${CMS_HOST:-127.0.0.1}"; .port = "${CMS_PORT:-8081}"; }
acl inside { "10.0.0.0"/8; "::1"; }

sub vcl_recv {
    if (req.method == "REFRESH") {
        set req.hash_always_miss = true;
    }
    if (req.method == "BAN" || req.method == "PURGE") {
        if (!client.ip ~ inside) { return (synth(403)); }
        ban("req.url ~ " + req.url);
        return (synth(200, "Ban added"));
    }
    if (req.http.Accept-Encoding) {
        if (req.http.Accept-Encoding ~ "gzip") { set req.http.Accept-Encoding = "gzip"; }
        else { unset req.http.Accept-Encoding; }
    }
    if (req.http.X-Layer) { set req.http.X-Skip = "yes"; }
    if (req.http.X-Skip == "yes") { return (pass); }
    if (req.url ~ "^/admin([/?]|$).*$" || req.url ~ "^/cron\.php$") { return (pass); }
    if (req.http.Cookie) {
        set req.http.Cookie = ";" + req.http.Cookie;
        set req.http.Cookie = regsuball(req.http.Cookie, "; +", ";");
        set req.http.Cookie = regsuball(req.http.Cookie, ";(${KEPT:-SESS[a-z0-9]+|NO_CACHE})=", "; \1=");
        set req.http.Cookie = regsuball(req.http.Cookie, ";[^ ][^;]*", "");
        if (req.http.Cookie == "") { unset req.http.Cookie; } else { return (pass); }
    }
    if (req.http.host == "www.old.example") { return (synth(750, "https://new.example/")); }
}

sub vcl_backend_response {
    set beresp.ttl = 5m;
    set beresp.grace = 6h;
    if (beresp.http.content-type ~ "^image/") { set beresp.ttl = 1d; }
}

sub vcl_synth {
    if (resp.status == 750) {
        set resp.http.Location = resp.reason;
        set resp.status = 301;
        return (deliver);
    }
    synthetic({"
        <p>It is broken.</p>
    "});
}
C{ int unused; }C
