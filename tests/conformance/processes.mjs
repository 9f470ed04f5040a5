// The origin and the gateway of one run: started on free ports, ended with it.

import { spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import readline from 'node:readline'
import { fileURLToPath } from 'node:url'

const here = name => fileURLToPath(new URL(name, import.meta.url))
const CONFIG = here('../../config/conformance.yaml')
const SECURED = `
    protocols: [http1, http2, http3]
    tls: { certificates: [{ cert: server.crt, key: server.key }] }`
const children = []

process.on('exit', () => children.forEach(child => child.kill('SIGKILL')))
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))

/**
 * Starts both. Resolves to the gateway's base URL once it answers for the origin. Over a front
 * that is the URL of a program that passes requests on by TLS, HTTP/2 or HTTP/3.
 */
export async function start (suite, gateway, front) {
  const [port, originPort, adminPort] = await freePorts(3)
  run('origin', process.execPath, [here('origin.mjs'), suite, String(originPort)])
  const { config, address } = front ? await behind(front, `127.0.0.1:${port}`) : { config: CONFIG, address: `127.0.0.1:${port}` }
  run('gateway', gateway, ['run', '-c', config], {
    PORT: String(port), ORIGIN_PORT: String(originPort), ADMIN_PORT: String(adminPort)
  })
  const base = `http://${address}`
  await answers(`${base}/package.json`)
  return base
}

/** The address that leads to the gateway over a front, and the configuration for that. */
async function behind ({ program, name }, gateway) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'lamina-conformance-'))
  process.on('exit', () => fs.rmSync(folder, { recursive: true }))
  const child = spawn(program, [name, folder, gateway], { stdio: ['pipe', 'pipe', 'inherit'] })
  children.push(child)
  const address = await new Promise((resolve, reject) => {
    readline.createInterface({ input: child.stdout }).once('line', resolve)
    child.on('error', reject)
  })
  const config = path.join(folder, 'lamina.yaml')
  const text = fs.readFileSync(CONFIG, 'utf8')
  fs.writeFileSync(config, text.replace(/(listeners:\n  - address: .*)/, `$1${SECURED}`))
  return { config, address }
}

function run (name, program, args, env = {}) {
  // Their standard output is chatter; errors are for people.
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'], env: { RUST_LOG: 'error', ...process.env, ...env } })
  children.push(child)
  child.on('exit', code => {
    console.error(`conformance: the ${name} ended by itself (${code})`)
    process.exit(1)
  })
}

async function freePorts (count) {
  const servers = await Promise.all(Array.from({ length: count }, () => new Promise(resolve => {
    const server = net.createServer().listen(0, '127.0.0.1', () => resolve(server))
  })))
  const ports = servers.map(server => server.address().port)
  await Promise.all(servers.map(server => new Promise(resolve => server.close(resolve))))
  return ports
}

async function answers (url) {
  const end = Date.now() + 20_000
  while (Date.now() < end) {
    // A connection that is reset before the request is sent, as by a front whose gateway is not there
    // yet, makes fetch wait for ever.
    const asked = fetch(url, { signal: AbortSignal.timeout(2_000) })
    const response = await asked.then(async answer => { await answer.arrayBuffer(); return answer }).catch(() => undefined)
    if (response?.ok) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  console.error(`conformance: no answer from ${url}`)
  process.exit(1)
}
