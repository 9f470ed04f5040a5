// A loader: `/account/7` is a user's JSON, fetched from the upstream `shop`, in an answer of
// our own. What can be tested without a gateway stands in account.js.
import { fetch } from 'lamina:plugin/fetch@1.0.0';
import { get, manifest as describe, response } from '{{sdk}}/js/lamina.js';
import { account, idOf } from './account.js';

export const manifest = {
  // `config` of the YAML, as JSON text. Throw a text that says what is wrong with it. `load`
  // gets the headers and cookies that are named here, as in { reads: { headers: ['accept'] } }.
  describe(config) {
    return describe('{{name}}', '0.1.0');
  },
};

export const load = {
  // What is returned is cached like an origin's response; `context` has the deadline.
  load(request, context) {
    const id = idOf(request.pathAndQuery);
    if (id === null) return { tag: 'absent' };
    let user;
    try {
      user = fetch(get('shop', `/api/user/${id}`, { accept: 'application/json' }));
    } catch (error) {
      return { tag: 'error', val: `the user's API: ${(error.payload ?? error).tag}` };
    }
    if (user.status === 404) return { tag: 'absent' };
    if (user.status !== 200) {
      return { tag: 'error', val: `the user's API answered with status ${user.status}` };
    }
    const options = { ttlMs: 10_000, tags: [`user-${id}`] };
    return response(200, { 'content-type': 'application/json' }, account(user.body), options);
  },
};
