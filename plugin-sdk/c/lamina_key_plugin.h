/* Write Lamina key plugins in C: the world `key-plugin` of ../wit.
 *
 * Define two functions, `lamina_describe` and `lamina_derive`, include this header in
 * one file, and link it with key_plugin_component_type.s. README.md has the command.
 *
 * The structs have the layout that the component model's canonical ABI prescribes for
 * 32-bit memories; the exported functions at the end do the rest. Memory comes from
 * one arena that is emptied after each call: nothing is ever freed by hand.
 */
#ifndef LAMINA_KEY_PLUGIN_H
#define LAMINA_KEY_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Text, UTF-8, without a 0 at its end. */
typedef struct { const char *ptr; size_t len; } lamina_text;
typedef struct { const lamina_text *ptr; size_t len; } lamina_texts;
typedef struct { lamina_text name, value; } lamina_field;
typedef struct { const lamina_field *ptr; size_t len; } lamina_fields;
typedef struct { bool is_some; lamina_text value; } lamina_optional_text;
typedef struct { bool is_some; lamina_texts value; } lamina_optional_texts;

/* What `lamina_derive` gets: what the manifest declared, and nothing else. */
typedef struct {
    lamina_optional_text method, host, path, query;
    lamina_fields headers, cookies;
} lamina_key_inputs;

enum { LAMINA_QUERY_NONE, LAMINA_QUERY_WHOLE, LAMINA_QUERY_PARAMETERS };

typedef struct {
    bool method, host, path;
    struct { uint8_t tag; lamina_texts parameters; } query;
    lamina_texts headers, cookies;
} lamina_key_needs;

typedef struct {
    lamina_optional_texts keep;
    lamina_texts drop;
    bool sort;
    lamina_texts headers, cookies;
} lamina_key_rules;

typedef struct {
    lamina_text name, version;
    lamina_key_needs inputs;
    struct { bool is_some; lamina_key_rules value; } declarative;
    struct { lamina_texts headers, cookies; } reads; /* of hooks that this kit does not have */
} lamina_manifest;

/* A manifest, or (`is_error`) what is wrong with the configuration. */
typedef struct {
    uint8_t is_error;
    union { lamina_manifest manifest; lamina_text error; };
} lamina_description;

enum { LAMINA_DEFAULT, LAMINA_KEY, LAMINA_BYPASS, LAMINA_REFUSE };

typedef struct {
    uint8_t tag;
    union {
        struct { lamina_text text; lamina_texts parts, tags; } key;
        lamina_text bypass;
        uint16_t refuse;
    };
} lamina_decision;

/* A string literal as text. */
#define LAMINA_TEXT(literal) ((lamina_text){(literal), sizeof(literal) - 1})

/* To be written by the plugin. Both fill in what is all zeroes before. `config` is JSON
 * text and stays valid for the life of the instance. */
static void lamina_describe(lamina_text config, lamina_description *out);
static void lamina_derive(const lamina_key_inputs *inputs, lamina_decision *out);

/* The arena: far more than a request's header block, so when it is full something is
 * wrong, and a trap, which costs this one call, is the right answer. */
static _Alignas(8) char lamina_arena[256 << 10];
static size_t lamina_used, lamina_kept;

/* Memory until the end of the call. */
static void *lamina_alloc(size_t size) {
    size_t start = (lamina_used + 7) & ~(size_t)7;
    if (size > sizeof lamina_arena || start > sizeof lamina_arena - size) __builtin_trap();
    lamina_used = start + size;
    return lamina_arena + start;
}

/* Appends `more` to text for which enough memory was taken. */
static inline void lamina_append(lamina_text *text, char *memory, lamina_text more) {
    __builtin_memcpy(memory + text->len, more.ptr, more.len);
    text->ptr = memory;
    text->len += more.len;
}

__attribute__((export_name("cabi_realloc")))
void *lamina_cabi_realloc(void *old, size_t old_size, size_t align, size_t size) {
    (void)align; /* every piece of the arena is aligned for anything */
    void *fresh = lamina_alloc(size);
    if (old_size) __builtin_memcpy(fresh, old, old_size < size ? old_size : size);
    return fresh;
}

__attribute__((export_name("lamina:plugin/manifest@1.0.0#describe")))
void *lamina_export_describe(const char *config, size_t length) {
    static lamina_description out;
    lamina_describe((lamina_text){config, length}, &out);
    lamina_kept = lamina_used; /* the configuration stays */
    return &out;
}

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
