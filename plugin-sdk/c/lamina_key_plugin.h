/* Write Lamina key plugins in C: the world `key-plugin` of ../wit.
 *
 * Define two functions, `lamina_describe` and `lamina_derive`, include this header in
 * one file, and link it with key_plugin_component_type.s. README.md has the command.
 */
#ifndef LAMINA_KEY_PLUGIN_H
#define LAMINA_KEY_PLUGIN_H

#include "lamina_plugin.h"

/* What `lamina_derive` gets: what the manifest declared, and nothing else. */
typedef struct {
    lamina_optional_text method, host, path, query;
    lamina_fields headers, cookies;
} lamina_key_inputs;

enum { LAMINA_DEFAULT, LAMINA_KEY, LAMINA_BYPASS, LAMINA_REFUSE };

typedef struct {
    uint8_t tag;
    union {
        struct { lamina_text text; lamina_texts parts, tags; } key;
        lamina_text bypass;
        uint16_t refuse;
    };
} lamina_decision;

/* To be written by the plugin; `out` is all zeroes before. */
static void lamina_derive(const lamina_key_inputs *inputs, lamina_decision *out);

/* The inputs come flat: each field of `lamina_key_inputs` in turn. */
__attribute__((export_name("lamina:plugin/key@1.0.0#derive")))
void *lamina_export_derive(
    int32_t has_method, const char *method, size_t method_len,
    int32_t has_host, const char *host, size_t host_len,
    int32_t has_path, const char *path, size_t path_len,
    int32_t has_query, const char *query, size_t query_len,
    const lamina_field *headers, size_t headers_len,
    const lamina_field *cookies, size_t cookies_len) {
    static lamina_decision out;
    out = (lamina_decision){0};
    lamina_key_inputs inputs = {
        .method = {has_method, {method, method_len}},
        .host = {has_host, {host, host_len}},
        .path = {has_path, {path, path_len}},
        .query = {has_query, {query, query_len}},
        .headers = {headers, headers_len},
        .cookies = {cookies, cookies_len},
    };
    lamina_derive(&inputs, &out);
    return &out;
}

__attribute__((export_name("cabi_post_lamina:plugin/key@1.0.0#derive")))
void lamina_post_derive(void *out) {
    (void)out;
    lamina_used = lamina_kept;
}

#endif
