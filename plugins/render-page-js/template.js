// The pure part: a small template language, after Mustache.
//
//   {{a.b}}            a value, escaped for HTML
//   {{#a.b}}…{{/a.b}}  once for each element of a list, or once if there is something;
//                      inside, names are first looked up in the element; {{.}} is it itself
//   {{^a.b}}…{{/a.b}}  once if there is nothing, or the list is empty

const ESCAPES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#39;' };

function escapeHtml(value) {
  return String(value).replace(/[&<>"']/g, (c) => ESCAPES[c]);
}

/** Reads a template; throws what is wrong with it. */
export function parse(text) {
  const root = { nodes: [] };
  const open = [root];
  let end = 0;
  for (const match of text.matchAll(/\{\{([#^/]?)\s*([\w.-]+)\s*\}\}/g)) {
    const [whole, kind, name] = match;
    open.at(-1).nodes.push(text.slice(end, match.index));
    end = match.index + whole.length;
    if (kind === '/') {
      if (open.length === 1 || open.at(-1).name !== name) throw `\`${whole}\` closes nothing`;
      open.pop();
      continue;
    }
    const node = { kind: kind || 'value', name, nodes: [] };
    open.at(-1).nodes.push(node);
    if (kind) open.push(node);
  }
  if (open.length > 1) throw `\`${open.at(-1).name}\` is not closed`;
  root.nodes.push(text.slice(end));
  return root.nodes;
}

/** The value of `a.b` in the innermost element that has `a`. */
function find(name, scopes) {
  if (name === '.') return scopes.at(-1);
  const [first, ...rest] = name.split('.');
  const has = (value) => value !== null && typeof value === 'object' && Object.hasOwn(value, first);
  let value = scopes.findLast(has)?.[first];
  for (const step of rest) {
    value = value !== null && typeof value === 'object' && Object.hasOwn(value, step) ? value[step] : undefined;
  }
  return value;
}

function elements(value) {
  if (Array.isArray(value)) return value;
  return value === undefined || value === null || value === false ? [] : [value];
}

/** The text that a template makes of data. */
export function render(nodes, ...scopes) {
  const one = (node) => {
    if (typeof node === 'string') return node;
    const value = find(node.name, scopes);
    if (node.kind === 'value') return escapeHtml(value ?? '');
    const inside = elements(value);
    if (node.kind === '^') return inside.length ? '' : render(node.nodes, ...scopes);
    return inside.map((element) => render(node.nodes, ...scopes, element)).join('');
  };
  return nodes.map(one).join('');
}
