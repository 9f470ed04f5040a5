// What plugins in JavaScript need over and over, and QuickJS does not have. Optional: the
// contract is plugin-sdk/wit alone. Types: lamina.d.ts.

/** UTF-8 of a text, for bodies and header values. */
export function encode(text) {
  return Uint8Array.from(unescape(encodeURIComponent(text)), (c) => c.charCodeAt(0));
}

/** The text of UTF-8. Throws a URIError where it is none. */
export function decode(bytes) {
  let text = '';
  // In pieces: a call takes a bounded number of arguments.
  for (let at = 0; at < bytes.length; at += 4096) {
    text += String.fromCharCode(...bytes.slice(at, at + 4096));
  }
  return decodeURIComponent(escape(text));
}

/** A manifest; what is not said is not needed. */
export function manifest(name, version, { needs = {}, reads = {}, declarative = null } = {}) {
  return {
    name,
    version,
    inputs: {
      method: false,
      host: false,
      path: false,
      query: { tag: 'none' },
      headers: [],
      cookies: [],
      ...needs,
    },
    declarative,
    reads: { headers: [], cookies: [], ...reads },
  };
}

/** `host/path?query` of a key's inputs, as far as they were declared. */
export function urlOf(inputs) {
  const query = inputs.query ? `?${inputs.query}` : '';
  return `${inputs.host ?? ''}${inputs.path ?? ''}${query}`;
}

/** The value of the first header or cookie of this name, or null. */
export function valueOf(fields, name) {
  return fields.find((field) => field.name === name)?.value ?? null;
}

/** A decision of `derive`. */
export function key(text, parts = [], tags = []) {
  return { tag: 'key', val: { text, parts, tags } };
}

/** A GET for `fetch` or `fetchAll`. */
export function get(upstream, pathAndQuery, headers = {}) {
  const lines = Object.entries(headers).map(([name, value]) => ({ name, value: encode(value) }));
  return { upstream, method: 'GET', pathAndQuery, headers: lines, body: [], timeoutMs: null };
}

/** A decision of `load`: this response. `ttlMs` counts more than `cache-control`. */
export function response(status, headers, body, { ttlMs = null, tags = [] } = {}) {
  const lines = Object.entries(headers).map(([name, value]) => ({ name, value: encode(value) }));
  const bytes = typeof body === 'string' ? encode(body) : body;
  return { tag: 'response', val: { status, headers: lines, body: bytes, ttlMs, tags } };
}
