// Purges over the admin API of Lamina (`POST /v1/purge`), with a receipt.
//
// An order is sent when it is awaited, and only once:
//
//   const purge = new LaminaPurge({ admin: "http://127.0.0.1:9180", token });
//   await purge.tags(["user-7"]).wait("2s");

import http from "node:http";
import https from "node:https";

/** How long an answer may take beyond the time for which the gateway itself waits. */
const PATIENCE_MS = 10_000;

/** What the gateway says with 503 before it looks at an order. Any other 5xx may come from a proxy that did pass it on. */
const TURNED_AWAY = ["another process has taken over: connect again", "too many admin requests are under way; try again"];

/** What a purge that did not reach everything throws. */
export class PurgeError extends Error {
  constructor(message, details = {}) {
    super(message);
    this.name = new.target.name;
    Object.assign(this, details);
  }
}

/** The gateway did not take the order: it is wrong, or the token is. Nothing was purged. */
export class PurgeRefused extends PurgeError {}

/** It holds on the node that was asked, and `unconfirmed` did not confirm it. */
export class PurgeIncomplete extends PurgeError {}

/** Nobody can tell where it holds, or whether it was carried out at all. */
export class PurgeUnknown extends PurgeError {}

/** No answer came; the gateway may have taken the order all the same. */
export class PurgeUnanswered extends PurgeUnknown {}

/** Makes orders for one gateway. */
export class LaminaPurge {
  #gateway;

  constructor({ admin = "http://127.0.0.1:9180", token, timeoutMs = PATIENCE_MS } = {}) {
    this.#gateway = { ...place(admin), token: checked(token), timeoutMs };
  }

  tags(tags) {
    return this.#order("tag", tags);
  }

  /** Absolute URLs, with all variants. */
  urls(urls) {
    return this.#order("url", urls);
  }

  /** `host/path` or, on every host, `/path`. */
  prefixes(prefixes) {
    return this.#order("prefix", prefixes);
  }

  prefix(prefix) {
    return this.prefixes(prefix);
  }

  /** `*` is any run of characters, `?` one. */
  patterns(patterns) {
    return this.#order("pattern", patterns);
  }

  routes(routes) {
    return this.#order("route", routes);
  }

  route(route) {
    return this.routes(route);
  }

  keys(keys) {
    return this.#order("key", keys);
  }

  all() {
    return new PurgeOrder(this.#gateway, { all: true });
  }

  #order(kind, texts) {
    return new PurgeOrder(this.#gateway, { [kind]: list(kind, texts) });
  }
}

/** One purge. It is a promise of its receipt: it is sent when somebody awaits it. */
class PurgeOrder {
  #gateway;
  #asked;
  #sent;

  constructor(gateway, asked) {
    this.#gateway = gateway;
    this.#asked = asked;
  }

  /** What it reaches is served while it is refreshed, instead of being gone. */
  soft() {
    return this.#with({ soft: true });
  }

  /** Waits for the other nodes for so long ("2s", or milliseconds), and fails if one does not confirm. */
  wait(time) {
    return this.#with({ wait: typeof time === "number" ? `${time}ms` : time });
  }

  /** One order for the selectors of both: it is soft if one of them is, and waits if one of them does. */
  and(other) {
    const joined = { ...other.asked, ...this.#asked };
    for (const [kind, texts] of Object.entries(other.asked)) {
      const own = this.#asked[kind];
      if (Array.isArray(own)) joined[kind] = [...own, ...texts];
    }
    return this.#with(joined);
  }

  /** What will be sent. */
  get asked() {
    return { ...this.#asked };
  }

  /** Sends it, once. */
  send() {
    this.#sent ??= send(this.#gateway, this.#asked);
    return this.#sent;
  }

  then(done, failed) {
    return this.send().then(done, failed);
  }

  catch(failed) {
    return this.send().catch(failed);
  }

  finally(ended) {
    return this.send().finally(ended);
  }

  #with(more) {
    return new PurgeOrder(this.#gateway, { ...this.#asked, ...more });
  }
}

function list(kind, texts) {
  const all = Array.isArray(texts) ? texts : [texts];
  if (all.length === 0 || all.some((text) => typeof text !== "string" || text === "")) {
    throw new TypeError(`${kind}: expected a text, or a list of texts of which none is empty`);
  }
  return all;
}

/** A token without the end of the line that a file has behind it. What is thrown does not show it. */
function checked(token) {
  if (token === undefined || token === null) return undefined;
  const text = typeof token === "string" ? token.trim() : "\n";
  if (/[^\x20-\x7e]/.test(text)) throw new TypeError("token: expected a text of one line in printable ASCII characters");
  return text;
}

/** Where the admin listener is. */
function place(admin) {
  if (admin.startsWith("unix:")) {
    return { transport: http, options: { socketPath: admin.slice("unix:".length), host: "localhost" } };
  }
  const url = new URL(admin.includes("://") ? admin : `http://${admin}`);
  const transport = url.protocol === "https:" ? https : http;
  const host = url.hostname.replace(/^\[|\]$/g, "");
  return { transport, options: { host, port: url.port || undefined } };
}

function milliseconds(text) {
  const found = /^([\d.]+)(ms|s|m|h|d)$/.exec(text ?? "");
  const units = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };
  return found ? Number(found[1]) * units[found[2]] : 0;
}

async function send({ transport, options, token, timeoutMs }, asked) {
  const body = JSON.stringify(asked);
  const headers = { "content-type": "application/json", "content-length": Buffer.byteLength(body) };
  if (token) headers.authorization = `Bearer ${token}`;
  const limit = timeoutMs + milliseconds(asked.wait);
  const { status, text } = await new Promise((done, failed) => {
    // It bounds the whole: a socket that gets a byte now and then is never idle.
    const patience = setTimeout(() => request.destroy(new Error(`none within ${limit} ms`)), limit);
    const lost = (why) => {
      clearTimeout(patience);
      failed(new PurgeUnanswered(`no answer of the gateway: ${why}; the purge may hold`));
    };
    const request = transport.request({ ...options, method: "POST", path: "/v1/purge", headers }, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (piece) => (text += piece));
      answer.on("end", () => {
        clearTimeout(patience);
        done({ status: answer.statusCode, text });
      });
      answer.on("error", (error) => lost(error.message));
    });
    request.on("error", (error) => {
      const connected = !["ECONNREFUSED", "ENOENT", "ENOTFOUND", "EACCES"].includes(error.code);
      if (connected) return lost(error.message);
      clearTimeout(patience);
      failed(new PurgeRefused(`the gateway can't be reached: ${error.message}; nothing was purged`));
    });
    request.end(body);
  });
  return judged(status, text, asked);
}

/** The receipt, if it says that the purge holds everywhere that the order asks about. */
function judged(status, text, asked) {
  const receipt = object(parsed(text));
  if (status !== 200) {
    const { error } = receipt;
    const refused = (status >= 400 && status < 500) || (status === 503 && TURNED_AWAY.includes(error));
    if (refused && typeof error === "string") throw new PurgeRefused(`refused with status ${status}: ${error}`, { status });
  }
  if (status !== 200 || receipt.applied !== true) {
    const message = `the answer with status ${status} is no receipt, and the purge may hold: ${text.slice(0, 200)}`;
    throw new PurgeUnknown(message, { status });
  }
  const { outcome, nodes, reason, never_heard: never } = object(receipt.peers);
  if (outcome === "unknown" || ("wait" in asked && outcome !== "all" && outcome !== "some")) {
    throw new PurgeUnknown(`nobody can tell where the purge holds: ${reason ?? "no reason given"}`, { status, receipt });
  }
  const silent = (Array.isArray(nodes) ? nodes : []).filter((node) => node?.applied !== true);
  const unconfirmed = silent.map((node) => String(node?.node));
  const neverHeard = Number.isInteger(never) ? never : 0;
  const unlogged = "l2" in receipt && object(receipt.l2).logged !== true;
  if (outcome === "some" || unconfirmed.length > 0 || neverHeard > 0 || unlogged) {
    const who = [
      unconfirmed.length > 0 && `not confirmed by ${unconfirmed.join(", ")}`,
      neverHeard > 0 && `${neverHeard} more nodes were never heard`,
      unlogged && "the second tier's log has not taken it yet",
    ];
    const message = `the purge holds on this node alone for certain: ${who.filter(Boolean).join("; ")}`;
    throw new PurgeIncomplete(message, { receipt, unconfirmed, neverHeard });
  }
  return receipt;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The value if it is an object, and an empty one otherwise. */
function object(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) ? value : {};
}
