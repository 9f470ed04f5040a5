// What the test of the npm client says: purge.mjs ADMIN WHAT [ARGUMENT]. It runs in the client's folder.
import assert from "node:assert/strict";
import http from "node:http";
import { createServer } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";

const { LaminaPurge, PurgeIncomplete, PurgeRefused, PurgeUnanswered, PurgeUnknown } = await import(
  pathToFileURL(`${process.cwd()}/index.js`)
);
const [admin, what, argument] = process.argv.slice(2);
const purge = new LaminaPurge({ admin });

const waits = (purge) => purge.tags("a").wait("2s").send();
const plain = (purge) => purge.tags("a").send();

/** Asks a server that answers everything with this status and this text, and gives what was thrown. */
async function answered(status, text, order = waits, token = undefined) {
  let asked;
  const server = http.createServer((request, answer) => {
    asked = request;
    request.resume();
    answer.writeHead(status).end(text);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  try {
    const admin = `http://127.0.0.1:${server.address().port}`;
    return { receipt: await order(new LaminaPurge({ admin, token })), asked };
  } catch (error) {
    return { error, asked };
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const acts = {
  async tags() {
    const receipt = await purge.tags([argument, "no-such-tag"]).wait("20s");
    assert.equal(receipt.peers.outcome, "all");
    assert.equal(receipt.selectors, 2);
  },
  async selectors() {
    const order = purge.tags("a").and(purge.prefix("/x/")).and(purge.patterns(["*/y"])).soft();
    assert.deepEqual(order.asked, { tag: ["a"], prefix: ["/x/"], pattern: ["*/y"], soft: true });
    const receipt = await order;
    assert.equal(receipt.selectors, 3);
    assert.equal(await order, receipt, "an order is sent once");
    for (const one of [purge.route("site"), purge.all(), purge.keys("f0e91127255610ee"), purge.urls(argument)]) {
      assert.equal((await one).applied, true);
    }
    assert.throws(() => purge.tags([]), TypeError);
    assert.throws(() => purge.tags(""), TypeError);
  },
  /** A token as a file has it, and one that no field can hold. */
  async token() {
    const { asked } = await answered(200, "{}", plain, " sekret\n");
    assert.equal(asked.headers.authorization, "Bearer sekret");
    for (const token of ["sek\nret", "sekr\u00e9t", 7]) {
      assert.throws(() => new LaminaPurge({ admin, token }), (error) => {
        assert.ok(error instanceof TypeError);
        assert.match(error.message, /^token: expected/);
        assert.doesNotMatch(error.message, /sek/);
        return true;
      });
    }
  },
  /** Only a receipt that says so is a purge that holds. */
  async receipts() {
    const done = { applied: true, order: 1, selectors: 1 };
    const all = { complete: true, outcome: "all", nodes: [] };
    const good = await answered(200, JSON.stringify({ ...done, peers: all }));
    assert.equal(good.error, undefined);
    assert.equal(good.receipt.peers.outcome, "all");
    assert.deepEqual((await answered(200, JSON.stringify(done), plain)).receipt, done);
    for (const text of ["{}", '{"purged":1}', "[]", "null", "1", "{", "", '{"applied":false}', '{"applied":"true"}']) {
      for (const order of [waits, plain]) {
        const { error } = await answered(200, text, order);
        assert.ok(error instanceof PurgeUnknown, `${text}: ${error}`);
      }
    }
    const peers = [undefined, null, [], "all", { ...all, outcome: "weird" }, { ...all, outcome: undefined }];
    for (const one of peers) {
      const { error } = await answered(200, JSON.stringify({ ...done, peers: one }));
      assert.ok(error instanceof PurgeUnknown, `${JSON.stringify(one)}: ${error}`);
    }
    const { error: denied } = await answered(200, JSON.stringify({ ...done, applied: false, peers: all }));
    assert.ok(denied instanceof PurgeUnknown, `${denied}`);
    const nodes = [{ node: "b", applied: false }];
    for (const more of [{ peers: { ...all, nodes } }, { peers: { outcome: "some" } }, { peers: all, l2: {} }]) {
      const { error } = await answered(200, JSON.stringify({ ...done, ...more }));
      assert.ok(error instanceof PurgeIncomplete, `${JSON.stringify(more)}: ${error}`);
    }
  },
  /** What somebody between here and the gateway answers tells nothing about the purge. */
  async statuses() {
    const told = (error) => JSON.stringify({ error });
    const known = ["another process has taken over: connect again", "too many admin requests are under way; try again"];
    for (const [status, text, kind] of [
      [400, told("no"), PurgeRefused],
      [401, told("a token is needed"), PurgeRefused],
      ...known.map((text) => [503, told(text), PurgeRefused]),
      [503, told("upstream is away"), PurgeUnknown],
      [504, told("too late"), PurgeUnknown],
      [504, "<html>504</html>", PurgeUnknown],
      [500, "{}", PurgeUnknown],
      [502, "null", PurgeUnknown],
      [502, "[]", PurgeUnknown],
      [403, "null", PurgeUnknown],
      [202, JSON.stringify({ applied: true }), PurgeUnknown],
    ]) {
      const { error } = await answered(status, text, plain);
      assert.equal(error?.constructor, kind, `${status} ${text}: ${error}`);
      assert.equal(error.status, status);
    }
  },
  async combined() {
    const [a, b] = [purge.tags("a"), purge.tags("b")];
    for (const order of [a.soft().and(b), a.and(b.soft())]) {
      assert.deepEqual(order.asked, { tag: ["a", "b"], soft: true });
    }
    assert.deepEqual(a.and(b.wait("1s")).asked, { tag: ["a", "b"], wait: "1s" });
    assert.deepEqual(a.wait("2s").and(purge.all().wait("1s")).asked, { tag: ["a"], all: true, wait: "2s" });
    assert.deepEqual(a.asked, { tag: ["a"] });
  },
  async refused() {
    await assert.rejects(purge.urls("/relative").send(), (error) => {
      assert.ok(error instanceof PurgeRefused);
      assert.equal(error.status, 400);
      assert.match(error.message, /absolute/);
      return true;
    });
    const nobody = new LaminaPurge({ admin: "127.0.0.1:1" });
    await assert.rejects(nobody.all().send(), (error) => error instanceof PurgeRefused && /nothing was purged/.test(error.message));
    const mute = createServer(() => {}).listen(0, "127.0.0.1");
    await new Promise((done) => mute.on("listening", done));
    const silent = new LaminaPurge({ admin: `http://127.0.0.1:${mute.address().port}`, timeoutMs: 200 });
    await assert.rejects(silent.all().send(), PurgeUnanswered);
    mute.close();
  },
  /** An answer that comes byte by byte is waited for as long as for none. */
  async slow() {
    const drip = async (socket) => {
      for (const byte of "HTTP/1.1 200 OK\r\n\r\n".padEnd(10_000)) {
        if (socket.destroyed) return;
        socket.write(byte);
        await sleep(20);
      }
    };
    const server = createServer((socket) => {
      socket.on("error", () => {});
      socket.once("data", () => drip(socket));
    }).listen(0, "127.0.0.1");
    await new Promise((done) => server.on("listening", done));
    const slow = new LaminaPurge({ admin: `http://127.0.0.1:${server.address().port}`, timeoutMs: 300 });
    await assert.rejects(slow.all().send(), (error) => error instanceof PurgeUnanswered && /within 300 ms/.test(error.message));
    server.close();
  },
  async incomplete() {
    await assert.rejects(purge.tags("a").wait(300).send(), (error) => {
      assert.ok(error instanceof PurgeIncomplete);
      assert.deepEqual(error.unconfirmed, [argument]);
      assert.match(error.message, new RegExp(`not confirmed by ${argument}`));
      return true;
    });
  },
  async unknown() {
    await assert.rejects(purge.tags("a").wait("300ms").send(), PurgeUnknown);
  },
};
await acts[what]();
process.exit(0);
