import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decode, encode } from '../../plugin-sdk/js/lamina.js';
import { page, read, requests } from './page.js';
import { parse, render } from './template.js';

const CONFIG = {
  parts: {
    user: { upstream: 'demo', path: '/api/user/{1}' },
    orders: { upstream: 'demo', path: '/api/orders/{1}' },
  },
  template: '<h1>{{user.name}}</h1>{{#orders.orders}}<p>{{number}}</p>{{/orders.orders}}',
};
const config = read(JSON.stringify(CONFIG));
const ok = (body, status = 200) => ({ tag: 'ok', val: { status, headers: [], body: encode(body) } });
const show = (template, data) => render(parse(template), data);

test('values are escaped for HTML', () => {
  assert.equal(show('<b>{{a.b}}</b>', { a: { b: '<i>"&\'' } }), '<b>&lt;i&gt;&quot;&amp;&#39;</b>');
});

test('a section is repeated for each element, and sees what is around it', () => {
  const data = { site: 'S', list: [{ n: 1 }, { n: 2 }], words: ['x', 'y'] };
  assert.equal(show('{{#list}}{{n}}{{site}} {{/list}}', data), '1S 2S ');
  assert.equal(show('{{#words}}{{.}};{{/words}}', data), 'x;y;');
});

test('what is not there is empty, and has a section of its own', () => {
  assert.equal(show('[{{a.b}}]{{^a}}none{{/a}}{{#a}}some{{/a}}', {}), '[]none');
  assert.equal(show('[{{a.constructor}}{{__proto__}}]', { a: {} }), '[]');
});

test('a template with unmatched sections is refused', () => {
  assert.throws(() => parse('{{#a}}'), (error) => /not closed/.test(error));
  assert.throws(() => parse('{{#a}}{{/b}}'), (error) => /closes nothing/.test(error));
});

test('each part is asked for with the segments of the path', () => {
  const paths = requests(config, '/profile/7?x=1').map((request) => request.pathAndQuery);
  assert.deepEqual(paths, ['/api/user/7', '/api/orders/7']);
});

test('a path without the segment, or one that climbs, asks for nothing', () => {
  for (const path of ['/profile', '/profile/', '/profile/..', '/profile/%2E%2e', '/profile/..%2F']) {
    assert.equal(requests(config, path), null, path);
  }
});

test('the page is made of all parts', () => {
  const decision = page(config, [ok('{"name":"Zoë"}'), ok('{"orders":[{"number":1}]}')]);
  assert.equal(decision.tag, 'response');
  assert.equal(decode(decision.val.body), '<h1>Zoë</h1><p>1</p>');
});

test('a part that is not found makes the page absent, one that fails makes it fail', () => {
  const user = ok('{"name":"Ann"}');
  assert.deepEqual(page(config, [user, ok('', 404)]), { tag: 'absent' });
  assert.deepEqual(page(config, [user, ok('', 503)]), { tag: 'error', val: 'orders: status 503' });
  assert.deepEqual(page(config, [user, ok('<html>')]), { tag: 'error', val: 'orders: not JSON' });
  const late = { tag: 'err', val: { tag: 'timeout' } };
  assert.deepEqual(page(config, [user, late]), { tag: 'error', val: 'orders: timeout' });
});

test('a wrong configuration is explained', () => {
  const wrong = (change) => () => read(JSON.stringify({ ...CONFIG, ...change }));
  assert.throws(wrong({ parts: {} }), (error) => /empty/.test(error));
  assert.throws(wrong({ parts: { a: { upstream: 'demo' } } }), (error) => /parts\.a/.test(error));
  assert.throws(wrong({ template: 1 }), (error) => /text/.test(error));
});
