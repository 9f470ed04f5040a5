// Publishes events as a service with the seed does.
//
//   publish.mjs [OPTION…] redis|nats|jetstream|rabbitmq URL CHANNEL EVENT…
//
// CHANNEL is Redis's channel, NATS's subject or RabbitMQ's exchange; each EVENT is JSON.
//
//   --gzip             as HC1G, whatever its size; --json: as HC1J
//   --text, --base64   EVENT is what is sent: as it stands, or out of base64
//   --repeat N         all of them N times; each %d in an EVENT is the round, from 0
//   --exchange JSON    declares the exchange: {"type": "fanout", "durable": false}
//   --routing-key KEY  of RabbitMQ, by default empty
//
// It ends when the broker has them: RabbitMQ and JetStream have confirmed each, Redis has
// answered, NATS has answered a ping behind them.

import { parseArgs } from "node:util";
import { connect } from "./transports.mjs";
import { encode } from "./wire.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    gzip: { type: "boolean" },
    json: { type: "boolean" },
    text: { type: "boolean" },
    base64: { type: "boolean" },
    repeat: { type: "string", default: "1" },
    exchange: { type: "string" },
    "routing-key": { type: "string", default: "" },
  },
});
const [transport, url, channel, ...events] = positionals;

function bytes(event) {
  if (options.text) return Buffer.from(event);
  if (options.base64) return Buffer.from(event, "base64");
  return encode(JSON.parse(event), options.gzip ? "gzip" : options.json ? "json" : undefined);
}

const bus = await connect(transport, url, channel, options);
// So many under way at once.
const WINDOW = 1_000;
const waiting = [];
for (let round = 0; round < Number(options.repeat); round++) {
  for (const event of events) waiting.push(bus.publish(bytes(event.replaceAll("%d", round))));
  if (waiting.length >= WINDOW) await Promise.all(waiting.splice(0));
}
await Promise.all(waiting);
await bus.close();
