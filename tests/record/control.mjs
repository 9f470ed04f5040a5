// Records as Node.js sees them: the format written down a second time, from its
// description in gateway/cache/src/record.rs and record/pack.rs.
//
//   control.mjs read FILE [SECRET]          prints the record as JSON
//   control.mjs write FILE TAG [SECRET]     writes the record that stands as JSON on stdin
//   control.mjs listing FILE PLAYERS        writes the listing's JSON
//   control.mjs bench PLAYERS ROUNDS        times what the seed does with the listing; prints ms
//
// In that JSON numbers are decimal text, since some need 64 bits, and bytes are base64.

import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { gunzipSync, gzipSync } from "node:zlib";
import { listing } from "./listing.mjs";

const require = createRequire(`${process.env.NODE_CONTROL_MODULES}/`);
const { pack, unpack } = require("msgpackr");

const VERSION = 2;
const PUBLIC = "lamina record";
const PURPOSE = "lamina record 2";
const NUMBERS = ["status", "born", "gen", "at", "age", "life", "fresh", "swr", "sie"];

const base64 = (bytes) => Buffer.from(bytes).toString("base64");
const bytes = (text) => Buffer.from(text, "base64");
// A plain number where JavaScript has one.
const number = (text) => (Number.isSafeInteger(Number(text)) ? Number(text) : BigInt(text));

function seal(key, record, secret) {
  const length = Buffer.alloc(8);
  length.writeBigUInt64BE(BigInt(key.length));
  const derived = createHmac("sha256", secret).update(PURPOSE).digest();
  return createHmac("sha256", derived).update(length).update(key).update(record).digest().subarray(0, 16);
}

function open(file, secret) {
  const stored = readFileSync(file);
  const tag = stored.toString("latin1", 0, 4);
  const body = stored.subarray(4);
  const [version, sealed, record] = unpack({ HC1M: (b) => b, HC1G: gunzipSync }[tag](body));
  const map = unpack(record);
  if (version !== VERSION || map.v !== VERSION) throw new Error(`version ${version}`);
  if (!timingSafeEqual(sealed, seal(map.key, record, secret))) throw new Error("seal");
  return { tag, map };
}

function read(file, secret) {
  const { tag, map } = open(file, secret);
  const out = { tag, kind: map.kind, key: base64(map.key) };
  if (map.kind === "varies") return { ...out, varies: map.varies };
  for (const name of NUMBERS) out[name] = String(map[name]);
  const { id, identity, route, tags, groups, url } = map.marks;
  out.marks = { id: String(id), identity: String(identity), route: String(route), tags: base64(tags), groups: base64(groups), url };
  out.headers = map.headers.map(([name, value]) => [name, base64(value)]);
  return { ...out, must: map.must, body: base64(map.body) };
}

function toMap(told) {
  const map = { v: VERSION, kind: told.kind, key: bytes(told.key) };
  if (told.kind === "varies") return { ...map, varies: told.varies };
  for (const name of NUMBERS) map[name] = number(told[name]);
  const { id, identity, route, tags, groups, url } = told.marks;
  map.marks = { id: number(id), identity: number(identity), route: number(route), tags: bytes(tags), groups: bytes(groups), url };
  map.headers = told.headers.map(([name, value]) => [name, bytes(value)]);
  return { ...map, must: told.must, body: bytes(told.body) };
}

function write(file, tag, secret) {
  const map = toMap(JSON.parse(readFileSync(0, "utf8")));
  const record = pack(map);
  const packed = pack([VERSION, seal(map.key, record, secret), record]);
  const body = { HC1M: (b) => b, HC1G: gzipSync }[tag](packed);
  writeFileSync(file, Buffer.concat([Buffer.from(tag), body]));
}

// What the seed's serializer does: msgpack of the object, gzip at the default level, the
// smaller one behind its tag.
function encode(value) {
  const packed = pack(value);
  if (packed.length < 65_536) return Buffer.concat([Buffer.from("HC1M"), packed]);
  const zipped = gzipSync(packed);
  const saved = 1 - zipped.length / packed.length >= 0.15;
  return Buffer.concat(saved ? [Buffer.from("HC1G"), zipped] : [Buffer.from("HC1M"), packed]);
}

function bench(players, rounds) {
  const value = listing(players);
  const json = Buffer.from(JSON.stringify(value));
  const time = (act) => {
    const begun = performance.now();
    const length = act().length;
    return [performance.now() - begun, length];
  };
  const times = (act) => {
    for (let i = 0; i < 10; i++) act(); // until it is compiled
    const all = Array.from({ length: rounds }, () => time(act));
    return { ms: all.map(([ms]) => ms), bytes: all[0][1] };
  };
  return { object: times(() => encode(value)), json: times(() => gzipSync(json)) };
}

const [command, first, second, third] = process.argv.slice(2);
switch (command) {
  case "read":
    console.log(JSON.stringify(read(first, second ?? PUBLIC)));
    break;
  case "write":
    write(first, second, third ?? PUBLIC);
    break;
  case "listing":
    writeFileSync(first, JSON.stringify(listing(Number(second))));
    break;
  case "bench":
    console.log(JSON.stringify(bench(Number(first), Number(second))));
    break;
  default:
    console.error("control.mjs read|write|listing|bench …");
    process.exit(2);
}
