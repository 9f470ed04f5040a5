import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encode } from '{{sdk}}/js/lamina.js';
import { account, idOf } from './account.js';

test('the number at the end of the path names the user', () => {
  assert.equal(idOf('/account/7?x=1'), '7');
  for (const path of ['/account', '/account/', '/account/..', '/account/7/8', '/account/7a']) {
    assert.equal(idOf(path), null, path);
  }
});

test('the user is a part of the answer', () => {
  assert.deepEqual(JSON.parse(account(encode('{"name": "Zoë"}'))), { user: { name: 'Zoë' } });
});
