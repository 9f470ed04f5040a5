/* A loader: `/account/7` is a user's JSON, fetched from the upstream `shop`, in an answer of
 * our own. */
#include "lamina_loader_plugin.h"

/* `config` of the YAML, as JSON text. To refuse it, set is_error and error. lamina_load gets
 * the headers and cookies that `out->manifest.reads` names. */
static void lamina_describe(lamina_text config, lamina_description *out) {
    (void)config;
    out->manifest.name = LAMINA_TEXT("{{name}}");
    out->manifest.version = LAMINA_TEXT("0.1.0");
}

/* The texts one after the other, in memory of the call. */
static lamina_text join(const lamina_text *texts, size_t count) {
    size_t length = 0;
    for (size_t i = 0; i < count; i++) length += texts[i].len;
    lamina_text joined = {0};
    char *memory = lamina_alloc(length);
    for (size_t i = 0; i < count; i++) lamina_append(&joined, memory, texts[i]);
    return joined;
}

/* The number at the end of `/account/7`, or nothing: what goes into another path must be known. */
static lamina_text id_of(lamina_text path) {
    size_t start = 1, end;
    while (start < path.len && path.ptr[start] != '/' && path.ptr[start] != '?') start++;
    if (start >= path.len || path.ptr[start++] != '/') return (lamina_text){0};
    for (end = start; end < path.len && path.ptr[end] >= '0' && path.ptr[end] <= '9';) end++;
    bool is_last = end == path.len || path.ptr[end] == '?';
    return is_last ? (lamina_text){path.ptr + start, end - start} : (lamina_text){0};
}

static void fail(lamina_load_decision *out, lamina_text why) {
    out->tag = LAMINA_ERROR;
    out->why = why;
}

static void fail_with_status(lamina_load_decision *out, uint16_t status) {
    char digits[3] = {'0' + status / 100, '0' + status / 10 % 10, '0' + status % 10};
    lamina_text words[] = {LAMINA_TEXT("the user's API answered with status "), {digits, 3}};
    fail(out, join(words, 2));
}

/* The answer, made of what the user's API said, which is JSON. */
static void answer(lamina_load_decision *out, lamina_text id, lamina_bytes user) {
    static const lamina_header HEADER = {{"content-type", 12}, {(const uint8_t *)"application/json", 16}};
    lamina_text body[] = {LAMINA_TEXT("{\"user\": "), {(const char *)user.ptr, user.len}, LAMINA_TEXT("}")};
    lamina_text tag[] = {LAMINA_TEXT("user-"), id};
    lamina_text made = join(body, 3), *tags = lamina_alloc(sizeof *tags);
    *tags = join(tag, 2);
    out->tag = LAMINA_RESPONSE;
    out->response.status = 200;
    out->response.headers = (lamina_headers){&HEADER, 1};
    out->response.body = (lamina_bytes){(const uint8_t *)made.ptr, made.len};
    out->response.ttl_ms.is_some = true;
    out->response.ttl_ms.value = 10000;
    out->response.tags = (lamina_texts){tags, 1};
}

/* What is returned is cached like an origin's response; `context` has the deadline. */
static void lamina_load(const lamina_request *request, const lamina_context *context,
                        lamina_load_decision *out) {
    (void)context;
    lamina_text id = id_of(request->path_and_query), path[] = {LAMINA_TEXT("/api/user/"), id};
    out->tag = LAMINA_ABSENT;
    if (!id.len) return;
    lamina_fetch_request asked = {
        .upstream = LAMINA_TEXT("shop"), .method = LAMINA_TEXT("GET"), .path_and_query = join(path, 2)};
    lamina_fetched user = {0};
    lamina_fetch(&asked, &user);
    if (user.is_error) {
        lamina_text words[] = {LAMINA_TEXT("the user's API: "), lamina_fetch_error(&user)};
        fail(out, join(words, 2));
    } else if (user.answer.status == 200) {
        answer(out, id, user.answer.body);
    } else if (user.answer.status != 404) {
        fail_with_status(out, user.answer.status);
    }
}
