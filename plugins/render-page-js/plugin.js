// A page of HTML, rendered at the edge from JSON that is fetched at once. See README.md.
import { fetchAll } from 'lamina:plugin/fetch@1.0.0';
import { manifest as describe } from '../../plugin-sdk/js/lamina.js';
import { page, read, requests } from './page.js';

let config;

export const manifest = {
  describe(json) {
    try {
      config = read(json);
    } catch (error) {
      throw String(error);
    }
    return describe('render-page-js', '1.0.0');
  },
};

export const load = {
  load(request) {
    const list = requests(config, request.pathAndQuery);
    return list ? page(config, fetchAll(list)) : { tag: 'absent' };
  },
};
