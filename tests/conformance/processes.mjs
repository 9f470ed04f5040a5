// The origin and the gateway of one run: started on free ports, ended with it.

import { spawn } from 'node:child_process'
import net from 'node:net'
import { fileURLToPath } from 'node:url'

const here = name => fileURLToPath(new URL(name, import.meta.url))
const children = []

process.on('exit', () => children.forEach(child => child.kill('SIGKILL')))
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))

/** Starts both. Resolves to the gateway's base URL once it answers for the origin. */
export async function start (suite, gateway) {
  const [port, originPort, adminPort] = await freePorts(3)
  run('origin', process.execPath, [here('origin.mjs'), suite, String(originPort)])
  run('gateway', gateway, ['run', '-c', here('../../config/conformance.yaml')], {
    PORT: String(port), ORIGIN_PORT: String(originPort), ADMIN_PORT: String(adminPort)
  })
  const base = `http://127.0.0.1:${port}`
  await answers(`${base}/package.json`)
  return base
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
    const response = await fetch(url).catch(() => undefined)
    await response?.arrayBuffer()
    if (response?.ok) return
    await new Promise(resolve => setTimeout(resolve, 50))
  }
  console.error(`conformance: no answer from ${url}`)
  process.exit(1)
}
