// A key plugin: one cache entry a path and currency, whatever the query says.
import { key as cacheKey, manifest as describe, urlOf, valueOf } from '{{sdk}}/js/lamina.js';

export const manifest = {
  // `config` of the YAML, as JSON text. Throw a text that says what is wrong with it. What
  // `derive` depends on is named here: exactly this is passed to it.
  describe(config) {
    const needs = { host: true, path: true, cookies: ['currency'] };
    return describe('{{name}}', '0.1.0', { needs });
  },
};

export const key = {
  // Must be pure: equal inputs are answered from memory, without a call.
  derive(inputs) {
    return cacheKey(urlOf(inputs), [valueOf(inputs.cookies, 'currency') ?? 'EUR']);
  },
};
