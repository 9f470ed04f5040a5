// The pure part: from a request to what is fetched, from what came to a page.
import { decode, get, response } from '../../plugin-sdk/js/lamina.js';
import { parse, render } from './template.js';

/** Checks the configuration; throws what is wrong with it. */
export function read(json) {
  const { parts, template, ...unknown } = JSON.parse(json);
  const [surplus] = Object.keys(unknown);
  if (surplus) throw `unknown key \`${surplus}\``;
  if (typeof template !== 'string') throw '`template` is a text';
  const entries = Object.entries(parts ?? {});
  for (const [name, part] of entries) {
    const { upstream, path } = part ?? {};
    if (typeof upstream !== 'string' || typeof path !== 'string' || !path.startsWith('/')) {
      throw `\`parts.${name}\` has an \`upstream\` and a \`path\` that begins with /`;
    }
  }
  if (!entries.length) throw '`parts` is empty';
  return { entries, nodes: parse(template) };
}

/** One request a part; null when the path lacks a segment that a part names. */
export function requests({ entries }, pathAndQuery) {
  const segments = pathAndQuery.split('?')[0].split('/').slice(1);
  // A segment that climbs, or hides a slash, would reach what the configuration does not name.
  const isPlain = (segment) => segment && !/^(\.|%2e){1,2}$|%2f|%5c|\\/i.test(segment);
  let missing = false;
  const fill = (path) =>
    path.replace(/\{(\d+)\}/g, (_, number) => {
      const segment = segments[Number(number)];
      missing ||= !isPlain(segment);
      return segment;
    });
  const list = entries.map(([, part]) => get(part.upstream, fill(part.path), { accept: 'application/json' }));
  return missing ? null : list;
}

/** The decision: the page; `absent` when a part is; an error when one did not come. */
export function page({ entries, nodes }, answers) {
  const data = {};
  for (const [at, [name]] of entries.entries()) {
    const { tag, val } = answers[at];
    if (tag === 'err') return { tag: 'error', val: `${name}: ${val.tag}` };
    if (val.status === 404 || val.status === 410) return { tag: 'absent' };
    if (val.status !== 200) return { tag: 'error', val: `${name}: status ${val.status}` };
    try {
      data[name] = JSON.parse(decode(val.body));
    } catch {
      return { tag: 'error', val: `${name}: not JSON` };
    }
  }
  return response(200, { 'content-type': 'text/html; charset=utf-8' }, render(nodes, data));
}
