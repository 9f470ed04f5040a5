#!/usr/bin/env node
// Makes a component of a plugin in JavaScript.
//
//   node build.mjs SOURCE.js OUTPUT.wasm INTERFACE...
//
// The interfaces are those of ../wit that the plugin exports or imports: `key`, `load`,
// `on-request`, `on-response`; `fetch`, `kv`, `clock`, `random`. Exactly these are asked for,
// because each import but `log` has to be granted in the YAML of the gateway.
//
// The engine is QuickJS (npm: componentize-qjs, found from the current folder or NODE_PATH).
// All of WASI is cut off: a plugin that asks for the date or for Math.random traps.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const EXPORTS = ['manifest', 'key', 'load', 'on-request', 'on-response'];
const IMPORTS = ['log', 'fetch', 'kv', 'clock', 'random'];
const sdk = fileURLToPath(new URL('..', import.meta.url));

function fail(message) {
  console.error(`build.mjs: ${message}`);
  process.exit(2);
}

/** A world of exactly these interfaces. */
function world(interfaces) {
  const line = (name) => {
    if (!EXPORTS.includes(name) && !IMPORTS.includes(name)) fail(`no interface is called ${name}`);
    return `  ${EXPORTS.includes(name) ? 'export' : 'import'} lamina:plugin/${name}@1.0.0;\n`;
  };
  const lines = [...new Set(['manifest', 'log', ...interfaces])].map(line);
  return `package local:plugin;\nworld plugin {\n${lines.join('')}}\n`;
}

/** The deepest folder that holds both: what `import` reaches. */
function common(a, b) {
  const [left, right] = [a.split(sep), b.split(sep)];
  const end = left.findIndex((name, at) => name !== right[at]);
  return left.slice(0, end < 0 ? left.length : end).join(sep) || sep;
}

const [source, output, ...interfaces] = process.argv.slice(2);
if (!interfaces.length) fail('usage: build.mjs SOURCE.js OUTPUT.wasm INTERFACE...');
const wit = mkdtempSync(join(tmpdir(), 'lamina-wit-'));
try {
  cpSync(join(sdk, 'wit'), join(wit, 'deps', 'lamina-plugin'), { recursive: true });
  writeFileSync(join(wit, 'world.wit'), world(interfaces));
  const { componentize } = createRequire(resolve('package.json'))('componentize-qjs');
  const { component } = await componentize({
    witPath: wit,
    jsSource: readFileSync(source, 'utf8'),
    jsPath: resolve(source),
    moduleRoot: common(resolve(source, '..'), resolve(sdk)),
    stubWasi: true,
    optSize: true,
    sync: true,
  });
  writeFileSync(output, component);
} finally {
  rmSync(wit, { recursive: true });
}
