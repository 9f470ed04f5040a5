// Events as the seed's Node.js library writes and reads them: the format written down a
// second time, from its description (gateway/cluster/src/bus/event.rs), and none of our code.

import { createRequire } from "node:module";
import { gunzipSync, gzipSync } from "node:zlib";

export const require = createRequire(`${process.env.NODE_CONTROL_MODULES}/`);
const { Packr, pack, unpack } = require("msgpackr");

// Values that JSON can't say, by name: an event's value "<odd NAME>" becomes one.
const ODD = {
  undefined: () => undefined,
  date: () => [new Date(1_700_000_000_000), new Date(1_700_000_000_123), new Date(-1), new Date(NaN)],
  bigint: () => [2n ** 64n - 1n, -(2n ** 63n)],
  map: () => new Map([[1, "a"], [{ a: 1 }, "b"]]),
  bytes: () => [Buffer.from([0xc1, 0xd4]), new Float64Array([1.5, NaN])],
  types: () => [new Set([1, { a: 2 }]), new RangeError("x"), /a/g, new Uint16Array([1, 2])],
  records: () => [{ a: 1, b: [65, 66] }, { a: { a: 64, b: 2 }, b: 3 }, { c: 1 }],
  cycle: () => {
    const value = { list: [1], set: new Set() };
    value.self = value.list[1] = value;
    value.set.add(value);
    return value;
  },
  deep: () => Array.from({ length: 300 }).reduce((value) => [{ value }], 1),
  // 1.2 MB of msgpack, and some 70 KB as gzip.
  large: () =>
    Array.from({ length: 12_000 }, (_, n) => ({
      id: `product:${(n * 2_654_435_761) % 4_294_967_296}`,
      description: "a product like all of the others, in each of its colours".slice(n % 7),
      price: n * 10,
    })),
};
// Those that need a packer with more than the plain format.
const PACKERS = {
  types: new Packr({ moreTypes: true, useRecords: false }),
  records: new Packr(),
  cycle: new Packr({ structuredClone: true }),
};

function packed_event(event) {
  const odd = /^<odd (\w+)>$/.exec(event.value)?.[1];
  if (!odd) return pack(event);
  const full = { ...event, value: ODD[odd]() };
  return PACKERS[odd]?.pack(full) ?? pack(full);
}

// The seed compresses from 64 KiB on where that saves 15 %; `form` forces one.
export function encode(event, form) {
  if (form === "json") return Buffer.from(`HC1J${JSON.stringify(event)}`);
  const packed = packed_event(event);
  const zipped = form === "gzip" || packed.length >= 65_536 ? gzipSync(packed) : undefined;
  const kept = form === "gzip" || (zipped && 1 - zipped.length / packed.length >= 0.15);
  return kept ? Buffer.concat([Buffer.from("HC1G"), zipped]) : Buffer.concat([Buffer.from("HC1M"), packed]);
}

// The event, or undefined where the seed would call it malformed.
export function decode(bytes) {
  const event = open(bytes);
  return isEvent(event) ? event : undefined;
}

export function open(bytes) {
  const body = bytes.subarray(4);
  switch (bytes.toString("latin1", 0, 4)) {
    case "HC1M":
      return unpack(body);
    case "HC1G":
      return unpack(gunzipSync(body));
    case "HC1J":
      return JSON.parse(body.toString());
    default:
      return JSON.parse(bytes.toString());
  }
}

// What the seed asks of an event before it believes it.
function isEvent(event) {
  if (typeof event !== "object" || event === null) return false;
  if (typeof event.source !== "string" || !Number.isFinite(event.ts)) return false;
  if ("generation" in event && !(Number.isSafeInteger(event.generation) && event.generation >= 0)) return false;
  if (event.type === "pattern") return typeof event.pattern === "string";
  const named = Array.isArray(event.keys) && event.keys.every((key) => typeof key === "string");
  return named && (event.type === "del" || (event.type === "set" && "value" in event));
}

// One line of JSON; bytes are base64, and an integer that is read as one of 64 bits is no number.
export function line(value) {
  const plain = (_, value) => {
    if (typeof value === "bigint") return `${value}n`;
    if (value?.type === "Buffer") return Buffer.from(value.data).toString("base64");
    return value;
  };
  return JSON.stringify(value, plain);
}
