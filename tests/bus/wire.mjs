// Events as the seed's Node.js library writes and reads them: the format written down a
// second time, from its description (gateway/src/bus/event.rs), and none of our code.

import { createRequire } from "node:module";
import { gunzipSync, gzipSync } from "node:zlib";

export const require = createRequire(`${process.env.NODE_CONTROL_MODULES}/`);
const { pack, unpack } = require("msgpackr");

// The seed compresses from 64 KiB on where that saves 15 %; `form` forces one.
export function encode(event, form) {
  if (form === "json") return Buffer.from(`HC1J${JSON.stringify(event)}`);
  const packed = pack(event);
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

// One line of JSON; bytes are base64, and numbers that need 64 bits are decimal text.
export function line(value) {
  const plain = (_, value) => {
    if (typeof value === "bigint") return String(value);
    if (value?.type === "Buffer") return Buffer.from(value.data).toString("base64");
    return value;
  };
  return JSON.stringify(value, plain);
}
