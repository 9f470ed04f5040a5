// What the test of the cache handler for Next.js says, in the place of Next: next.mjs ADMIN WHAT.
import assert from "node:assert/strict";
import LaminaCacheHandler, { laminaCacheHandler } from "lamina-next-cache";

const [admin, what] = process.argv.slice(2);
const site = "http://shop.test";
const Handler = laminaCacheHandler({ admin, site, wait: "20s" });
const tags = "_N_T_/layout,_N_T_/tea/page,_N_T_/tea,products";
const page = () => ({ kind: "APP_PAGE", html: "<p>tea</p>", rscData: Buffer.from("x"), status: 200, headers: { "x-next-cache-tags": tags } });

const acts = {
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
