// Events in files, for tests without a broker.
//
//   codec.mjs encode FILE [gzip|json]   writes the event that stands as JSON on stdin; its
//                                       fields that are "<undefined>" become undefined, and
//                                       its value may be "<odd NAME>" (wire.mjs)
//   codec.mjs decode FILE               prints the event as one line of JSON; fails where the
//                                       seed would call it malformed

import { readFileSync, writeFileSync } from "node:fs";
import { decode, encode, line } from "./wire.mjs";

const [command, file, form] = process.argv.slice(2);
if (command === "encode") {
  const event = JSON.parse(readFileSync(0, "utf8"));
  for (const name of Object.keys(event)) if (event[name] === "<undefined>") event[name] = undefined;
  writeFileSync(file, encode(event, form));
} else if (command === "decode") {
  const event = decode(readFileSync(file));
  if (!event) throw new Error("malformed");
  console.log(line(event));
} else {
  throw new Error(`no command ${command}`);
}
