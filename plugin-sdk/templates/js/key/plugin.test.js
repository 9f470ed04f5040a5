import assert from 'node:assert/strict';
import { test } from 'node:test';
import { key } from './plugin.js';

const tea = (cookies) => key.derive({ host: 'shop.example', path: '/tea', headers: [], cookies }).val;

test('the currency is a part of the key', () => {
  const { text, parts } = tea([{ name: 'currency', value: 'USD' }]);
  assert.deepEqual({ text, parts }, { text: 'shop.example/tea', parts: ['USD'] });
});

test('without a cookie it is euros', () => {
  assert.deepEqual(tea([]).parts, ['EUR']);
});
