// npm's `fastly`, as it is: fastly.mjs CALL. The pages have the tags `page` and their own path.
import { createRequire } from "node:module";

const Fastly = createRequire(process.env.CMS_MODULES)("fastly");
Fastly.ApiClient.instance.authenticate("kkkkkkkk");
const api = new Fastly.PurgeApi();
const service_id = "shop";
const calls = {
  url: () => api.purgeSingleUrl({ cached_url: "shop.test/a" }),
  "whole-url": () => api.purgeSingleUrl({ cached_url: "https://shop.test/a", fastly_soft_purge: 1 }),
  tag: () => api.purgeTag({ service_id, surrogate_key: "/a" }),
  field: () => api.bulkPurgeTag({ service_id, surrogate_key: "/a no-such-tag" }),
  // As its README has it: with an empty body beside the field.
  both: () => api.bulkPurgeTag({ service_id, surrogate_key: "/a", purge_response: new Fastly.PurgeResponse() }),
  body: () => api.bulkPurgeTag({ service_id, purge_response: { surrogate_keys: ["/a"] } }),
  all: () => api.purgeAll({ service_id }),
};
try {
  const told = await calls[process.argv[2]]();
  if (told.status !== "ok" && !("/a" in told)) throw new Error(`told ${JSON.stringify(told)}`);
} catch (error) {
  throw new Error(`${error?.status} ${error?.response?.text ?? error?.message ?? error?.error}`);
}
