/* What key plugins and loaders in C have in common: texts, the manifest, memory.
 * Included by lamina_key_plugin.h and lamina_loader_plugin.h.
 *
 * The structs have the layout that the component model's canonical ABI prescribes for
 * 32-bit memories. Memory comes from one arena that is emptied after each call: nothing is
 * ever freed by hand.
 */
#ifndef LAMINA_PLUGIN_H
#define LAMINA_PLUGIN_H

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
    struct { lamina_texts headers, cookies; } reads; /* what hooks beside the key get */
} lamina_manifest;

/* A manifest, or (`is_error`) what is wrong with the configuration. */
typedef struct {
    uint8_t is_error;
    union { lamina_manifest manifest; lamina_text error; };
} lamina_description;

/* A string literal as text. */
#define LAMINA_TEXT(literal) ((lamina_text){(literal), sizeof(literal) - 1})

/* To be written by the plugin; `out` is all zeroes before. `config` is JSON text and stays
 * valid for the life of the instance. */
static void lamina_describe(lamina_text config, lamina_description *out);

/* The arena begins where the linker's data ends, and grows up to `limits.max_memory`; the
 * trap beyond that costs this one call. */
extern char __heap_base;
static size_t lamina_used, lamina_kept;

/* Memory until the end of the call. */
static void *lamina_alloc(size_t size) {
    size_t start = ((size_t)&__heap_base + lamina_used + 7) & ~(size_t)7;
    size_t have = __builtin_wasm_memory_size(0) << 16;
    if (size > SIZE_MAX - start - 65535) __builtin_trap();
    if (start + size > have) {
        size_t pages = (start + size - have + 65535) >> 16;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) __builtin_trap();
    }
    lamina_used = start + size - (size_t)&__heap_base;
    return (void *)start;
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

#endif
