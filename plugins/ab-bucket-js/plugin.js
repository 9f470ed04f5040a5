// One cache entry a bucket of an experiment, whoever the visitor is. See README.md.
import { key as cacheKey, manifest as describe, urlOf, valueOf } from '../../plugin-sdk/js/lamina.js';
import { bucketOf, read } from './bucket.js';

let config;

export const manifest = {
  describe(json) {
    try {
      config = read(json);
    } catch (error) {
      throw String(error); // `result<_, string>`: what is thrown is the error
    }
    const needs = { host: true, path: true, query: { tag: 'whole' }, cookies: [config.cookie] };
    return describe('ab-bucket-js', '1.0.0', { needs });
  },
};

export const key = {
  derive(inputs) {
    const bucket = bucketOf(config, valueOf(inputs.cookies, config.cookie));
    return cacheKey(urlOf(inputs), [`${config.experiment}=${bucket}`]);
  },
};
