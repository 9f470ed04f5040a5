// npm's `cloudflare`, as it is: cloudflare.mjs CALL. The pages have the tags `page` and their own path.
import { createRequire } from "node:module";

const { default: Cloudflare } = createRequire(process.env.CMS_MODULES)("cloudflare");
const client = new Cloudflare({ apiToken: "kkkkkkkk", maxRetries: 0 });
const purges = {
  files: { files: ["http://shop.test/a"] },
  headers: { files: [{ url: "https://shop.test/a", headers: { "CF-Device-Type": "mobile" } }] },
  tags: { tags: ["/a"] },
  prefixes: { prefixes: ["shop.test/a"] },
  hosts: { hosts: ["shop.test"] },
  all: { purge_everything: true },
};
const told = await client.cache.purge({ zone_id: "zone", ...purges[process.argv[2]] });
if (!told.id) throw new Error(`told ${JSON.stringify(told)}`);
