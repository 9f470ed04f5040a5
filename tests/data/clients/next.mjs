// What the test of the cache handler for Next.js says, in the place of Next: next.mjs ADMIN WHAT.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import LaminaCacheHandler, { laminaCacheHandler } from "lamina-next-cache";

const [admin, what] = process.argv.slice(2);
const site = "http://shop.test";
const Handler = laminaCacheHandler({ admin, site, wait: "20s" });
const tags = "_N_T_/layout,_N_T_/tea/page,_N_T_/tea,products";
const page = () => ({ kind: "APP_PAGE", html: "<p>tea</p>", rscData: Buffer.from("x"), status: 200, headers: { "x-next-cache-tags": tags } });

const data = () => ({ kind: "FETCH", data: { body: "1", headers: {} }, revalidate: 60 });

/** In the place of lamina-purge: keeps what was asked, and answers as `fails` says. */
function recorded() {
  const sent = [];
  const state = { sent, fails: false };
  const order = (asked) => ({
    asked,
    and: (other) => order({ ...asked, ...other.asked }),
    soft: () => order({ ...asked, soft: true }),
    then: (done, failed) => {
      sent.push(asked);
      return state.fails ? failed(new Error("no answer")) : done({ applied: true });
    },
  });
  state.purge = { tags: (tag) => order({ tag }), urls: (url) => order({ url }), prefix: (prefix) => order({ prefix: [prefix] }) };
  return state;
}

const acts = {
  /** Next asks for data with the tags of the page that needs it. */
  async softTags() {
    const handler = new (laminaCacheHandler({ purge: recorded().purge }))({});
    const own = { kind: "FETCH", softTags: ["_N_T_/layout", "_N_T_/tea"], tags: ["late"] };
    const other = { kind: "FETCH", softTags: ["_N_T_/layout", "_N_T_/coffee"] };
    await handler.set("data", data(), { tags: ["prices"] });
    assert.ok(await handler.get("data", own));
    await handler.revalidateTag("_N_T_/tea");
    assert.equal(await handler.get("data", own), null, "by revalidatePath");
    assert.ok(await handler.get("data", other), "another page");
    assert.ok(await handler.get("data"), "no page");
    await handler.revalidateTag("late");
    assert.equal(await handler.get("data", { kind: "FETCH", tags: ["late"] }), null, "by a tag that is asked for");
    await sleep(5);
    await handler.set("data", data(), { tags: ["prices"] });
    assert.ok(await handler.get("data", own), "made anew");
  },
  /** What there is no room for counts as revalidated. */
  async forgottenTags() {
    const handler = new (laminaCacheHandler({ purge: recorded().purge, maxTags: 3 }))({});
    await handler.set("old", data(), { tags: ["t0"] });
    await handler.set("bystander", data(), { tags: ["none"] });
    await handler.revalidateTag("t0");
    assert.ok(await handler.get("bystander"));
    await sleep(5);
    await handler.set("new", data(), { tags: ["none"] });
    await sleep(5);
    for (const tag of ["t1", "t2", "t3"]) await handler.revalidateTag(tag);
    assert.equal(await handler.get("old"), null, "its revalidation was forgotten");
    assert.equal(await handler.get("bystander"), null, "nobody knows");
    assert.ok(await handler.get("new"), "younger than all that was forgotten");
    await handler.revalidateTag(["t4", "t5", "t6", "t7"]);
    assert.equal(await handler.get("new"), null, "more than there is room for");
  },
  /** Pages that were forgotten are purged with their whole site. */
  async forgottenPages() {
    const edge = recorded();
    const handler = new (laminaCacheHandler({ purge: edge.purge, site: "https://shop.test/base/", maxPaths: 8 }))({});
    const made = (n) => ({ ...page(), headers: { "x-next-cache-tags": `products,only-${n}` } });
    for (let n = 0; n < 4; n++) await handler.set(`/p/${n}`, made(n), {});
    await handler.revalidateTag("only-0");
    assert.deepEqual(edge.sent.pop(), { tag: ["only-0"], url: ["https://shop.test/base/p/0"] });
    await handler.set("/p/1", made(1), {});
    await handler.set("/p/4", made(4), {});
    assert.equal(await handler.get("/p/0"), null, "it is made anew, and known again");
    assert.ok(await handler.get("/p/1"), "the one that was made last is the last to go");
    edge.fails = true;
    await assert.rejects(handler.revalidateTag("only-0", { expire: 60 }));
    edge.fails = false;
    const whole = { tag: ["only-0"], prefix: ["shop.test/base"] };
    assert.deepEqual(edge.sent.splice(0), [whole], "not softly: nothing of it may be left");
    await handler.revalidateTag("only-0");
    assert.deepEqual(edge.sent.splice(0), [whole], "the first one failed");
    await handler.revalidateTag("only-0", { expire: 60 });
    assert.deepEqual(edge.sent.splice(0), [{ tag: ["only-0"], soft: true }]);
    await handler.revalidateTag("only-4");
    assert.deepEqual(edge.sent.splice(0), [{ tag: ["only-4"], url: ["https://shop.test/base/p/4"] }]);
  },
  /** Keys of pages as Next 15.5.29 gives them, and as versions before it do. */
  async keys() {
    const edge = recorded();
    const handler = new (laminaCacheHandler({ purge: edge.purge, site: "https://shop.test" }))({});
    const owner = `/route-cache/APP_PAGE/${"0f".repeat(32)}/$`;
    // Each has a tag of its own: what is made in the millisecond of a revalidation counts as old.
    for (const [number, [key, path]] of [
      ["/tea", "/tea"],
      [`${owner}/tea`, "/tea"],
      [`${owner}/index`, "/"],
      [`${owner}/index/index`, "/index"],
      [`${owner}/p/caf\u00e9 a%3Fb`, "/p/caf%C3%A9%20a%3Fb"],
      ["/route-cache/tea", "/route-cache/tea"],
    ].entries()) {
      const tag = `of-${number}`;
      await handler.set(key, { ...page(), headers: { "x-next-cache-tags": tag } }, {});
      assert.ok(await handler.get(key));
      await handler.revalidateTag(tag);
      assert.deepEqual(edge.sent.splice(0), [{ tag: [tag], url: [`https://shop.test${path}`] }]);
      assert.equal(await handler.get(key), null);
    }
  },
  /** Tags with letters that a field can't hold, and a page with a field of its own. */
  async letters() {
    const edge = recorded();
    const handler = new (laminaCacheHandler({ purge: edge.purge }))({});
    for (const [tag, text] of [
      ["news list", "news%20list"],
      ["gr\u00fc\u00dfe", "gr%C3%BC%C3%9Fe"],
      ["100%", "100%"],
    ]) {
      const made = { ...page(), headers: { "x-next-cache-tags": tag, "Cache-Tag": "mine, b c" } };
      await handler.set("/tea", made, {});
      assert.deepEqual(made.headers["Cache-Tag"], `${text},mine,b c`);
      assert.equal(made.headers["cache-tag"], undefined);
      await handler.revalidateTag(tag);
      const asked = edge.sent.splice(0)[0].tag;
      assert.ok(asked.includes(text) && asked.includes(tag), `${asked}`);
      assert.equal(await handler.get("/tea"), null);
    }
    const listed = { ...page(), headers: { "x-next-cache-tags": "x,y" } };
    await handler.set("/list", listed, {});
    await handler.revalidateTag("x,y");
    for (const text of listed.headers["cache-tag"].split(",")) assert.ok(edge.sent[0].tag.includes(text), text);
    assert.equal(await handler.get("/list"), null);
  },
  /** A tag for which there was no room reaches no page, so it is not revalidated as if it did. */
  async full() {
    const edge = recorded();
    const many = Array.from({ length: 2000 }, (_, n) => `tag-${n}`).join(",");
    const made = () => ({ ...page(), headers: { "x-next-cache-tags": many } });
    const handler = new (laminaCacheHandler({ purge: edge.purge }))({});
    await handler.set("/full", made(), {});
    await assert.rejects(handler.revalidateTag("tag-0"), /`site`/);
    assert.deepEqual(edge.sent, []);
    await handler.revalidateTag("tag-1999");
    const sited = new (laminaCacheHandler({ purge: edge.purge, site: "https://shop.test" }))({});
    await sited.set("/full", made(), {});
    await sited.revalidateTag("tag-0");
    assert.deepEqual(edge.sent.pop().url, ["https://shop.test/full"]);
  },
  /** The page at the root of a site that is below a path has no slash behind it. */
  async root() {
    const edge = recorded();
    const handler = new (laminaCacheHandler({ purge: edge.purge, site: "https://shop.test/base/", maxPaths: 1 }))({});
    await handler.set("/index", { ...page(), headers: { "x-next-cache-tags": "home" } }, {});
    await handler.revalidateTag("home");
    const both = ["https://shop.test/base", "https://shop.test/base/"];
    assert.deepEqual(edge.sent.splice(0), [{ tag: ["home"], url: both }]);
    await handler.set("/tea", { ...page(), headers: { "x-next-cache-tags": "tea" } }, {});
    await handler.revalidateTag("home");
    assert.deepEqual(edge.sent.splice(0), [{ tag: ["home"], prefix: ["shop.test/base"] }]);
    const top = new (laminaCacheHandler({ purge: edge.purge, site: "https://shop.test" }))({});
    await top.revalidateTag("_N_T_/");
    assert.deepEqual(edge.sent.splice(0), [{ tag: ["_N_T_/"], url: ["https://shop.test/"] }]);
  },
  /** Pages without tags are not remembered: a revalidation by tag is never about them. */
  async untagged() {
    setFlagsFromString("--expose-gc");
    const used = () => (runInNewContext("gc")(), process.memoryUsage().heapUsed);
    const handler = new (laminaCacheHandler({ purge: recorded().purge, maxBytes: 3000 }))({});
    const before = used();
    for (let n = 0; n < 200_000; n++) await handler.set(`/search/${n}`, { ...page(), headers: {} }, {});
    assert.ok(used() - before < 10_000_000, `${used() - before} bytes are still used`);
  },
  async store() {
    const handler = new Handler({ dev: false });
    assert.ok(handler instanceof LaminaCacheHandler);
    assert.equal(await handler.get("/tea"), null);
    await handler.set("/tea", page(), {});
    // Next makes an instance for each request.
    const found = await new Handler({}).get("/tea");
    assert.equal(found.value.html, "<p>tea</p>");
    assert.equal(found.value.headers["cache-tag"].split(",")[0], "products");
    await handler.set("/data", { kind: "FETCH", data: { body: "1", headers: {} }, tags: ["products"] }, { tags: ["prices"] });
    assert.deepEqual((await handler.get("/data")).tags, ["prices", "products"]);
    await handler.set("/tea", null, {});
    assert.equal(await handler.get("/tea"), null, "null removes");
    const small = new (laminaCacheHandler({ admin, maxBytes: 3000 }))({});
    for (let n = 0; n < 20; n++) await small.set(`/many/${n}`, page(), {});
    assert.equal(await small.get("/many/0"), null, "the oldest is gone");
    assert.ok(await small.get("/many/19"));
  },
  async tag() {
    const handler = new Handler({});
    await handler.set("/tea", page(), {});
    await handler.revalidateTag("page");
    assert.ok(await handler.get("/tea"), "another tag");
    await handler.revalidateTag(["products"]);
    assert.equal(await handler.get("/tea"), null);
  },
  async known() {
    const handler = new Handler({});
    await handler.set("/tea", page(), {});
    await handler.revalidateTag("products");
  },
  async path() {
    const handler = new Handler({});
    await handler.revalidateTag("_N_T_/tea");
  },
  async failed() {
    const nobody = { admin: "127.0.0.1:1" };
    await assert.rejects(new (laminaCacheHandler(nobody))({}).revalidateTag("products"), /nothing was purged/);
    const told = [];
    const quiet = laminaCacheHandler({ ...nobody, onError: (error, tags) => told.push([error.name, tags]) });
    await new quiet({}).revalidateTag("products");
    assert.deepEqual(told, [["PurgeRefused", ["products"]]]);
  },
};
await acts[what]();
process.exit(0);
