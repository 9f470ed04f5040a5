/* Write Lamina loaders in C: the world `loader-plugin` of ../wit.
 *
 * Define two functions, `lamina_describe` and `lamina_load`, include this header in one
 * file, and link it with loader_plugin_component_type.s. README.md has the command.
 */
#ifndef LAMINA_LOADER_PLUGIN_H
#define LAMINA_LOADER_PLUGIN_H

#include "lamina_plugin.h"

typedef struct { const uint8_t *ptr; size_t len; } lamina_bytes;
/* A header line; its name in any case. */
typedef struct { lamina_text name; lamina_bytes value; } lamina_header;
typedef struct { const lamina_header *ptr; size_t len; } lamina_headers;

/* A request that the loader is to answer, with the headers that the manifest `reads`. */
typedef struct {
    lamina_text method, scheme, host, path_and_query;
    lamina_headers headers;
    lamina_bytes body;
} lamina_request;

typedef struct {
    lamina_text route;
    uint32_t deadline_ms; /* until the call is ended */
    uint64_t max_body;    /* bytes that the body of the response may have */
} lamina_context;

typedef struct {
    uint16_t status; /* 200 to 599 */
    lamina_headers headers;
    lamina_bytes body;
    struct { bool is_some; uint64_t value; } ttl_ms; /* counts more than Cache-Control */
    lamina_texts tags;
} lamina_response;

enum { LAMINA_RESPONSE, LAMINA_PASS, LAMINA_ABSENT, LAMINA_STALE, LAMINA_ERROR };

/* `why`: of LAMINA_STALE and LAMINA_ERROR, for the log. */
typedef struct {
    uint8_t tag;
    union { lamina_response response; lamina_request pass; lamina_text why; };
} lamina_load_decision;

/* A request to an upstream that the YAML names in `plugins.NAME.fetch`. */
typedef struct {
    lamina_text upstream, method, path_and_query;
    lamina_headers headers;
    lamina_bytes body;
    struct { bool is_some; uint32_t value; } timeout_ms;
} lamina_fetch_request;

enum {
    LAMINA_FETCH_DENIED,
    LAMINA_FETCH_INVALID, /* `why` says what is wrong with the request */
    LAMINA_FETCH_TOO_MANY,
    LAMINA_FETCH_TIMEOUT,
    LAMINA_FETCH_TOO_LARGE,
    LAMINA_FETCH_UNAVAILABLE, /* `why` says what happened */
};

/* What an upstream answered, or why there is no answer. */
typedef struct {
    uint8_t is_error;
    union {
        struct { uint16_t status; lamina_headers headers; lamina_bytes body; } answer;
        struct { uint8_t tag; lamina_text why; } error;
    };
} lamina_fetched;

typedef struct { const lamina_fetched *ptr; size_t len; } lamina_fetched_list;

/* To be written by the plugin; `out` is all zeroes before. */
static void lamina_load(const lamina_request *request, const lamina_context *context,
                        lamina_load_decision *out);

__attribute__((import_module("lamina:plugin/fetch@1.0.0"), import_name("fetch")))
void lamina_import_fetch(const char *upstream, size_t upstream_len, const char *method, size_t method_len,
                         const char *path, size_t path_len, const lamina_header *headers, size_t headers_len,
                         const uint8_t *body, size_t body_len, int32_t has_timeout, uint32_t timeout_ms,
                         lamina_fetched *out);
__attribute__((import_module("lamina:plugin/fetch@1.0.0"), import_name("fetch-all")))
void lamina_import_fetch_all(const lamina_fetch_request *requests, size_t count, lamina_fetched_list *out);

/* One request, and the wait for its answer, which lasts until the end of the call. */
static inline void lamina_fetch(const lamina_fetch_request *request, lamina_fetched *out) {
    lamina_import_fetch(request->upstream.ptr, request->upstream.len, request->method.ptr,
                        request->method.len, request->path_and_query.ptr, request->path_and_query.len,
                        request->headers.ptr, request->headers.len, request->body.ptr, request->body.len,
                        request->timeout_ms.is_some, request->timeout_ms.value, out);
}

/* Several at once; the answers come in the order of the requests. */
static inline void lamina_fetch_all(const lamina_fetch_request *requests, size_t count,
                                    lamina_fetched_list *out) {
    lamina_import_fetch_all(requests, count, out);
}

/* What an error is called in the contract. */
static inline lamina_text lamina_fetch_error(const lamina_fetched *fetched) {
    static const lamina_text NAMES[] = {
        {"denied", 6}, {"invalid", 7}, {"too many", 8}, {"timeout", 7}, {"too large", 9}, {"unavailable", 11},
    };
    return NAMES[fetched->error.tag];
}

/* Request and context come flat: each of their fields in turn. */
__attribute__((export_name("lamina:plugin/load@1.0.0#load")))
void *lamina_export_load(const char *method, size_t method_len, const char *scheme, size_t scheme_len,
                         const char *host, size_t host_len, const char *path, size_t path_len,
                         const lamina_header *headers, size_t headers_len, const uint8_t *body,
                         size_t body_len, const char *route, size_t route_len, uint32_t deadline_ms,
                         uint64_t max_body) {
    static lamina_load_decision out;
    __builtin_memset(&out, 0, sizeof out);
    lamina_request request = {
        .method = {method, method_len},
        .scheme = {scheme, scheme_len},
        .host = {host, host_len},
        .path_and_query = {path, path_len},
        .headers = {headers, headers_len},
        .body = {body, body_len},
    };
    lamina_context context = {{route, route_len}, deadline_ms, max_body};
    lamina_load(&request, &context, &out);
    return &out;
}

__attribute__((export_name("cabi_post_lamina:plugin/load@1.0.0#load")))
void lamina_post_load(void *out) {
    (void)out;
    lamina_used = lamina_kept;
}

#endif
