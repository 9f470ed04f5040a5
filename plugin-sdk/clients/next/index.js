// A cache handler for Next.js (`cacheHandler` in next.config): pages and data in the memory of the
// process, and every revalidation at the edge as well.
//
// The edge knows a page by the tags that Next gives it. Next keeps them from clients, so the handler
// puts them into the page's `Cache-Tag`, which Lamina reads and takes off. A page that was answered
// before it had that field is known by its path: `site` says on which host.

import { LaminaPurge } from "lamina-purge";

const TAGS = "x-next-cache-tags";
/** The longest list of tags of one page that is sent in a field. */
const LONGEST_FIELD = 8_000;

/** All instances of a process share it: Next makes one for each request. */
const memory = {
  entries: new Map(),
  bytes: 0,
  /** When tags were revalidated. */
  revalidated: new Map(),
  /** The paths of pages by their tags. */
  paths: new Map(),
};

/** Makes a class with these settings; without any, they come from the environment. */
export function laminaCacheHandler(settings = {}) {
  return class extends LaminaCacheHandler {
    constructor(options) {
      super(options, settings);
    }
  };
}

export default class LaminaCacheHandler {
  #purge;
  #settings;

  constructor(_options, settings = {}) {
    const env = process.env;
    this.#settings = {
      admin: settings.admin ?? env.LAMINA_ADMIN ?? "http://127.0.0.1:9180",
      token: settings.token ?? env.LAMINA_TOKEN,
      site: settings.site ?? env.LAMINA_SITE,
      wait: settings.wait ?? env.LAMINA_WAIT,
      maxBytes: settings.maxBytes ?? 64 * 1024 * 1024,
      onError: settings.onError,
    };
    this.#purge = settings.purge ?? new LaminaPurge(this.#settings);
  }

  async get(key) {
    const entry = memory.entries.get(key);
    if (!entry) return null;
    const since = (tag) => memory.revalidated.get(tag) ?? 0;
    if (entry.tags.some((tag) => since(tag) >= entry.lastModified)) {
      forget(key);
      return null;
    }
    // The one that was used last is the last to go.
    memory.entries.delete(key);
    memory.entries.set(key, entry);
    return { lastModified: entry.lastModified, value: entry.value, tags: entry.tags };
  }

  async set(key, value, context = {}) {
    forget(key);
    if (value === null || value === undefined) return;
    const tags = tagsOf(value, context);
    if (value.headers && tags.length > 0) {
      value.headers["cache-tag"] ??= field(tags);
    }
    const isPage = ["PAGE", "PAGES", "APP_PAGE", "ROUTE", "APP_ROUTE"].includes(value.kind);
    if (isPage) {
      for (const tag of tags) {
        if (!memory.paths.has(tag)) memory.paths.set(tag, new Set());
        memory.paths.get(tag).add(path(key));
      }
    }
    const bytes = size(value);
    memory.entries.set(key, { value, tags, bytes, lastModified: Date.now() });
    memory.bytes += bytes;
    for (const oldest of memory.entries.keys()) {
      if (memory.bytes <= this.#settings.maxBytes) break;
      forget(oldest);
    }
  }

  /**
   * Next's `revalidateTag` and `revalidatePath`. With `durations` (Next 16), what is stored may be
   * served while it is refreshed.
   */
  async revalidateTag(tags, durations) {
    const all = [tags].flat().filter((tag) => typeof tag === "string" && tag !== "");
    if (all.length === 0) return;
    const now = Date.now();
    for (const tag of all) memory.revalidated.set(tag, now);
    let order = this.#purge.tags(all);
    const urls = this.#urls(all);
    if (urls.length > 0) order = order.and(this.#purge.urls(urls));
    if (durations?.expire !== undefined && durations.expire > 0) order = order.soft();
    if (this.#settings.wait) order = order.wait(this.#settings.wait);
    try {
      await order;
    } catch (error) {
      // The page is new here; whoever asked for it must know that the edge may show the old one.
      if (!this.#settings.onError) throw error;
      this.#settings.onError(error, all);
    }
  }

  resetRequestCache() {}

  /** Where pages with these tags are, as far as this process has made them. */
  #urls(tags) {
    const site = this.#settings.site?.replace(/\/$/, "");
    if (!site) return [];
    const paths = new Set(tags.flatMap((tag) => [...(memory.paths.get(tag) ?? [])]));
    for (const tag of tags) {
      // `revalidatePath("/x")` is the tag `_N_T_/x`.
      const named = /^_N_T_(\/.*)$/.exec(tag)?.[1];
      if (named && !/\/(layout|page|route)$|\[/.test(named)) paths.add(path(named));
    }
    return [...paths].map((one) => `${site}${one}`);
  }
}

function forget(key) {
  memory.bytes -= memory.entries.get(key)?.bytes ?? 0;
  memory.entries.delete(key);
}

function tagsOf(value, context) {
  const own = String(value.headers?.[TAGS] ?? "").split(",");
  const given = [...(context.tags ?? []), ...(value.tags ?? []), ...own];
  return [...new Set(given.map((tag) => tag.trim()).filter((tag) => tag !== ""))];
}

/** Tags as a field, as many as there is room for; those of the page itself stand last in Next's list. */
function field(tags) {
  const kept = [];
  let length = 0;
  for (const tag of [...tags].reverse()) {
    if (/[^\x21-\x7e]/.test(tag) || length + tag.length + 1 > LONGEST_FIELD) continue;
    kept.push(tag);
    length += tag.length + 1;
  }
  return kept.join(",");
}

function path(key) {
  return key === "/index" ? "/" : key;
}

function size(value) {
  let bytes = 512;
  for (const part of Object.values(value)) {
    if (typeof part === "string") bytes += part.length;
    else if (ArrayBuffer.isView(part)) bytes += part.byteLength;
    else if (part instanceof Map) for (const one of part.values()) bytes += one?.byteLength ?? 0;
    else if (part && typeof part === "object") bytes += JSON.stringify(part).length;
  }
  return bytes;
}
