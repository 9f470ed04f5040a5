// What the test of the npm client says: purge.mjs ADMIN WHAT [ARGUMENT]. It runs in the client's folder.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { pathToFileURL } from "node:url";

const { LaminaPurge, PurgeIncomplete, PurgeRefused, PurgeUnanswered, PurgeUnknown } = await import(
  pathToFileURL(`${process.cwd()}/index.js`)
);
const [admin, what, argument] = process.argv.slice(2);
const purge = new LaminaPurge({ admin });

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
