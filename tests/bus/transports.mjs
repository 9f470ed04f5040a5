// The four ways to a broker, with the clients that Node.js services use: each connects to a
// URL and channel and gives publish(bytes), subscribe(handler) and close().

import { require } from "./wire.mjs";

async function redis(url, channel) {
  const Redis = require("ioredis");
  const client = new Redis(url);
  return {
    publish: (bytes) => client.publish(channel, bytes),
    subscribe: (handler) => {
      client.on("messageBuffer", (_, bytes) => handler(bytes));
      return client.subscribe(channel);
    },
    close: () => client.quit(),
  };
}

async function nats(url, subject) {
  const client = await require("nats").connect({ servers: url });
  return {
    publish: (bytes) => client.publish(subject, bytes),
    subscribe: (handler) => {
      client.subscribe(subject, { callback: (_, message) => handler(message.data) });
      return client.flush();
    },
    close: () => client.drain(),
  };
}

async function jetstream(url, subject) {
  const client = await require("nats").connect({ servers: url });
  const stream = client.jetstream();
  return {
    publish: (bytes) => stream.publish(subject, bytes),
    subscribe: async (handler) => {
      const name = await (await client.jetstreamManager()).streams.find(subject);
      const consumer = await stream.consumers.get(name, { filterSubjects: subject, deliver_policy: "new" });
      await consumer.consume({ callback: (message) => handler(message.data) });
      // The consumer is made behind this call; after it the server has it.
      await consumer.info();
    },
    close: () => client.drain(),
  };
}

async function rabbitmq(url, exchange, options) {
  const connection = await require("amqplib").connect(url);
  const channel = await connection.createConfirmChannel();
  if (options.exchange) {
    const { type, ...rest } = JSON.parse(options.exchange);
    await channel.assertExchange(exchange, type, rest);
  }
  const key = options["routing-key"];
  return {
    publish: (bytes) =>
      new Promise((done, failed) => {
        const properties = { contentType: "application/msgpack" };
        channel.publish(exchange, key, bytes, properties, (fault) => (fault ? failed(fault) : done()));
      }),
    subscribe: async (handler) => {
      const { queue } = await channel.assertQueue("", { exclusive: true });
      await channel.bindQueue(queue, exchange, key);
      await channel.consume(queue, (message) => handler(message.content), { noAck: true });
    },
    close: () => connection.close(),
  };
}

const TRANSPORTS = { redis, nats, jetstream, rabbitmq };

export function connect(transport, url, channel, options) {
  return TRANSPORTS[transport](url, channel, options);
}
