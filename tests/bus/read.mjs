// Prints what is published, as a service with the seed reads it: each event as one line of
// JSON, what it would call malformed as {"malformed": "<base64>"}.
//
//   read.mjs [OPTION…] redis|nats|jetstream|rabbitmq URL CHANNEL COUNT TIMEOUT_MS
//
// The line "ready" on stderr says that it is subscribed. It ends after COUNT messages, or
// with exit code 1 when TIMEOUT_MS are over. JetStream: what comes from now on.
//
//   --exchange JSON    declares the exchange: {"type": "fanout", "durable": false}
//   --routing-key KEY  of RabbitMQ, by default empty

import { parseArgs } from "node:util";
import { connect } from "./transports.mjs";
import { decode, line } from "./wire.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { exchange: { type: "string" }, "routing-key": { type: "string", default: "" } },
});
const [transport, url, channel, count, timeout] = positionals;

function told(bytes) {
  try {
    return decode(bytes) ?? { malformed: bytes };
  } catch {
    return { malformed: bytes };
  }
}

setTimeout(() => {
  console.error("timeout");
  process.exit(1);
}, Number(timeout));

let left = Number(count);
const bus = await connect(transport, url, channel, options);
await bus.subscribe((bytes) => {
  if (left-- <= 0) return;
  // Ends when the line is out.
  process.stdout.write(`${line(told(Buffer.from(bytes)))}\n`, () => left > 0 || process.exit(0));
});
console.error("ready");
