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
// All of WASI is cut off: a plugin that asks for the date or for Math.random traps. Around the
// plugin's functions stand our own, which see at the build that all are there, and write an
// error that is thrown to the log before it becomes a trap.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';

const EXPORTS = ['manifest', 'key', 'load', 'on-request', 'on-response'];
const IMPORTS = ['log', 'fetch', 'kv', 'clock', 'random'];
/** The function of each exported interface. */
const FUNCTIONS = { manifest: 'describe', key: 'derive', load: 'load', 'on-request': 'handle', 'on-response': 'handle' };
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

/** What is built: the plugin's functions, each inside one of ours. */
function entry(name, path, interfaces) {
  const hooks = ['manifest', ...interfaces].filter((hook) => EXPORTS.includes(hook));
  const camel = (hook) => hook.replace(/-(.)/, (_, letter) => letter.toUpperCase());
  const lines = hooks.map((hook) => {
    const [called, inside] = [camel(hook), FUNCTIONS[hook]];
    return `export const ${called} = { ${inside}: told('${called}', '${inside}') };\n`;
  });
  return `import * as plugin from './${path}';
import { write } from 'lamina:plugin/log@1.0.0';
function told(called, inside) {
  if (typeof plugin[called]?.[inside] !== 'function') {
    throw new Error('${name}: expected \`export const ' + called + ' = { ' + inside + '(…) { … } }\`; it exports: ' + Object.keys(plugin).join(', '));
  }
  return (...given) => {
    try {
      const answer = plugin[called][inside](...given);
      if (called !== 'manifest' && typeof answer?.tag !== 'string') {
        throw new TypeError(called + '.' + inside + ' returned ' + JSON.stringify(answer) + '; expected { tag, val }, as the functions of lamina.js make it');
      }
      return answer;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      write('error', called + '.' + inside + ': ' + error + '\\n' + error.stack);
      // The text of an error is an answer there: the configuration is refused.
      throw called === 'manifest' ? String(error) : error;
    }
  };
}
${lines.join('')}`;
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
// Not among the temporary files, whose names are other ones each time: it stands in the output.
const main = resolve(`${output}.main.js`);
try {
  cpSync(join(sdk, 'wit'), join(wit, 'deps', 'lamina-plugin'), { recursive: true });
  writeFileSync(join(wit, 'world.wit'), world(interfaces));
  writeFileSync(main, entry(source, relative(dirname(main), resolve(source)), interfaces));
  const { componentize } = createRequire(resolve('package.json'))('componentize-qjs');
  const { component } = await componentize({
    witPath: wit,
    jsSource: readFileSync(main, 'utf8'),
    jsPath: main,
    moduleRoot: [dirname(resolve(source)), resolve(sdk)].reduce(common, dirname(main)),
    stubWasi: true,
    optSize: true,
    sync: true,
  });
  writeFileSync(output, component);
} catch (error) {
  console.error(`build.mjs: ${String(error.message ?? error).replace(/^: /, '')}`);
  process.exitCode = 1;
} finally {
  rmSync(wit, { recursive: true });
  rmSync(main, { force: true });
}
