import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bucketOf, hash, read } from './bucket.js';
import { key, manifest } from './plugin.js';

const CONFIG = { experiment: 'checkout', cookie: 'visitor', buckets: { old: 90, new: 10 } };
const config = read(JSON.stringify(CONFIG));
const inputs = (cookies, query = null) => ({ host: 'shop', path: '/tea', query, headers: [], cookies });

test('the hash is the one that README gives to origins', () => {
  assert.equal(hash('checkout:u1'), 4028978041);
  assert.equal(hash('checkout:ä'), 3054070349);
});

test('a visitor stays in one bucket', () => {
  assert.equal(bucketOf(config, 'u1'), bucketOf(config, 'u1'));
});

test('buckets fill by their weights', () => {
  const visitors = Array.from({ length: 10_000 }, (_, n) => bucketOf(config, `visitor-${n}`));
  const share = visitors.filter((bucket) => bucket === 'new').length / visitors.length;
  assert.ok(share > 0.08 && share < 0.12, `${share}`);
});

test('a bucket without weight stays empty', () => {
  const off = read(JSON.stringify({ ...CONFIG, buckets: { off: 0, on: 1 } }));
  assert.equal(bucketOf(off, 'u1'), 'on');
});

test('whoever has no cookie is in the first bucket', () => {
  assert.equal(bucketOf(config, null), 'old');
});

test('an experiment deals its visitors anew', () => {
  const other = { ...config, experiment: 'search' };
  const moved = Array.from({ length: 1000 }, (_, n) => `v${n}`).filter(
    (visitor) => bucketOf(config, visitor) !== bucketOf(other, visitor),
  );
  assert.ok(moved.length > 100, `${moved.length}`);
});

test('the bucket is a part of the key, the visitor is not', () => {
  assert.deepEqual(manifest.describe(JSON.stringify(CONFIG)).inputs.cookies, ['visitor']);
  const { tag, val } = key.derive(inputs([{ name: 'visitor', value: 'u1' }], 'size=2'));
  assert.equal(tag, 'key');
  assert.deepEqual(val, { text: 'shop/tea?size=2', parts: [`checkout=${bucketOf(config, 'u1')}`], tags: [] });
});

test('a wrong configuration is explained', () => {
  const wrong = (change) => () => manifest.describe(JSON.stringify({ ...CONFIG, ...change }));
  assert.throws(wrong({ buckets: {} }), (error) => /weights/.test(error));
  assert.throws(wrong({ buckets: { a: 0.5 } }), (error) => /whole/.test(error));
  assert.throws(wrong({ cookies: 'x' }), (error) => /unknown key `cookies`/.test(error));
  assert.throws(() => manifest.describe('{}'), (error) => /experiment/.test(error));
});
