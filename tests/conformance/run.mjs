// Drives the suite: starts its origin and the gateway, runs its client, prints the
// scores, compares them with ratchet.json. Exit code 1: below the ratchet, or a list
// that is no longer true. See run.sh for the ways to call it.

import fs from 'node:fs'
import path from 'node:path'
import { createRequire } from 'node:module'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { start } from './processes.mjs'
import { score } from './score.mjs'

const { values: options } = parseArgs({
  options: { suite: { type: 'string' }, gateway: { type: 'string' }, id: { type: 'string' }, bless: { type: 'boolean' }, front: { type: 'string' }, 'front-program': { type: 'string' }, checks: { type: 'boolean' } }
})
const ours = name => new URL(name, import.meta.url)
const json = name => JSON.parse(fs.readFileSync(ours(name), 'utf8'))
const theirs = name => import(pathToFileURL(path.join(options.suite, name)))

const suites = (await theirs('tests/index.mjs')).default
const { runTests, getResults } = await theirs('client/runner.mjs')
const fetch = createRequire(path.join(options.suite, 'package.json'))('node-fetch')
const front = options.front && options.front !== 'clear' ? { program: options['front-program'], name: options.front } : undefined
const base = await start(options.suite, options.gateway, front)

const chosen = options.id ? only(options.id) : suites
await runTests(chosen, fetch, false, base)
const results = getResults()
process.exit(options.id ? one(options.id) : all())

function only (id) {
  const found = suites.map(suite => ({ ...suite, tests: suite.tests.filter(test => test.id === id) })).filter(suite => suite.tests.length > 0)
  if (found.length === 0) { console.error(`conformance: no test ${id}`); process.exit(2) }
  found[0].tests[0].dump = true
  return found
}

function one (id) {
  console.log(results[id] === true ? `pass  ${id}` : `FAIL  ${id}: ${results[id].join(': ')}`)
  return results[id] === true ? 0 : 1
}

function all () {
  const { kinds, passing } = score(suites, results, json('contradictions.json'))
  for (const [kind, { passed, total, failing }] of Object.entries(kinds)) {
    console.log(`${kind.padEnd(9)} ${passed} of ${total}${kind === 'check' ? ' answered yes (neither right nor wrong)' : ''}`)
    if (kind === 'check' && !options.checks) continue
    for (const test of failing) console.log(line(test))
  }
  if (options.bless) {
    fs.writeFileSync(ours('ratchet.json'), JSON.stringify(Object.fromEntries(['required', 'optimal'].map(kind => [kind, kinds[kind].passed])), null, 2) + '\n')
    return 0
  }
  return Math.max(...[below(kinds), unexplained(kinds), untrue(passing)])
}

function line ({ id, outcome, why, contradiction }) {
  const said = contradiction ? `contradicts ${contradiction.section}: ${contradiction.why}` : why
  return `  ${outcome.padEnd(10)} ${id}: ${said}`
}

function below (kinds) {
  const ratchet = json('ratchet.json')
  const worse = Object.keys(ratchet).filter(kind => kinds[kind].passed < ratchet[kind])
  for (const kind of worse) console.error(`conformance: ${kinds[kind].passed} ${kind} tests pass, the ratchet stands at ${ratchet[kind]}`)
  return worse.length > 0 ? 1 : 0
}

// Only what contradicts the RFCs, or depends on it, may fail.
function unexplained (kinds) {
  const failing = [...kinds.required.failing, ...kinds.optimal.failing].filter(test => !test.contradiction)
  for (const { id } of failing) console.error(`conformance: ${id} fails and is no listed contradiction`)
  return failing.length > 0 ? 1 : 0
}

function untrue (passing) {
  for (const id of passing) console.error(`conformance: ${id} is listed as a contradiction and passes`)
  return passing.length > 0 ? 1 : 0
}
