/* One cache entry for /a and /a/, and for /a// too. See README.md. */
#include "lamina_key_plugin.h"

static void lamina_describe(lamina_text config, lamina_description *out) {
    (void)config; /* there is nothing to configure */
    out->manifest.name = LAMINA_TEXT("strip-trailing-slash");
    out->manifest.version = LAMINA_TEXT("1.0.0");
    out->manifest.inputs.host = true;
    out->manifest.inputs.path = true;
    out->manifest.inputs.query.tag = LAMINA_QUERY_WHOLE;
}

static void lamina_derive(const lamina_key_inputs *inputs, lamina_decision *out) {
    lamina_text host = inputs->host.value, path = inputs->path.value, query = inputs->query.value;
    while (path.len > 1 && path.ptr[path.len - 1] == '/') path.len--;

    char *memory = lamina_alloc(host.len + path.len + 1 + query.len);
    out->tag = LAMINA_KEY;
    lamina_append(&out->key.text, memory, host);
    lamina_append(&out->key.text, memory, path);
    if (inputs->query.is_some && query.len > 0) {
        lamina_append(&out->key.text, memory, LAMINA_TEXT("?"));
        lamina_append(&out->key.text, memory, query);
    }
}
