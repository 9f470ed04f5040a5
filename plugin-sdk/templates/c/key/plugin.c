/* A key plugin: one cache entry a path and currency, whatever the query says. */
#include "lamina_key_plugin.h"

static const lamina_text CURRENCY = {"currency", 8};

static bool is_equal(lamina_text a, lamina_text b) {
    if (a.len != b.len) return false;
    for (size_t i = 0; i < a.len; i++)
        if (a.ptr[i] != b.ptr[i]) return false;
    return true;
}

/* `config` of the YAML, as JSON text. To refuse it, set is_error and error. What
 * lamina_derive depends on is named here: exactly this is passed to it. */
static void lamina_describe(lamina_text config, lamina_description *out) {
    (void)config;
    out->manifest.name = LAMINA_TEXT("{{name}}");
    out->manifest.version = LAMINA_TEXT("0.1.0");
    out->manifest.inputs.host = true;
    out->manifest.inputs.path = true;
    out->manifest.inputs.cookies = (lamina_texts){&CURRENCY, 1};
}

/* Must be pure: equal inputs are answered from memory, without a call. */
static void lamina_derive(const lamina_key_inputs *inputs, lamina_decision *out) {
    lamina_text *currency = lamina_alloc(sizeof *currency);
    *currency = LAMINA_TEXT("EUR");
    for (size_t i = 0; i < inputs->cookies.len; i++)
        if (is_equal(inputs->cookies.ptr[i].name, CURRENCY)) *currency = inputs->cookies.ptr[i].value;

    lamina_text host = inputs->host.value, path = inputs->path.value;
    char *memory = lamina_alloc(host.len + path.len);
    out->tag = LAMINA_KEY;
    lamina_append(&out->key.text, memory, host);
    lamina_append(&out->key.text, memory, path);
    out->key.parts = (lamina_texts){currency, 1};
}
