// The suite's own origin server, on 127.0.0.1 alone: it would listen on every address.
//
//   node origin.mjs SUITE PORT

import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [suite, port] = process.argv.slice(2)
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (port) {
  return listen.call(this, Number(port), '127.0.0.1')
}
Object.assign(process.env, {
  npm_config_protocol: 'http',
  npm_config_port: port,
  npm_config_pidfile: path.join(os.tmpdir(), `conformance-origin-${process.pid}.pid`)
})
await import(pathToFileURL(path.join(suite, 'server/server.mjs')))
