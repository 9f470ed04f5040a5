// A cache handler for Next.js (`cacheHandler` in next.config): pages and data in the memory of the
// process, and every revalidation at the edge as well.
//
// The edge knows a page by the tags that Next gives it. Next keeps them from clients, so the handler
// puts them into the page's `Cache-Tag`, which Lamina reads and takes off. A page that was answered
// before it had that field is known by its path: `site` says on which host.

import { LaminaPurge } from "lamina-purge";

const TAGS = "x-next-cache-tags";
const FIELD = "cache-tag";
/** The longest list of tags of one page that is sent in a field. */
const LONGEST_FIELD = 8_000;

/** All instances of a process share it: Next makes one for each request. */
const memory = {
  entries: new Map(),
  bytes: 0,
  /** When tags were revalidated, the latest last. */
  revalidated: new Map(),
  /** What is not younger than this counts as revalidated, since there was no room for all tags. */
  floor: 0,
  /** Keys and tags of pages by their paths, the one that was made last at the end. */
  pages: new Map(),
  /** Tags for which a page's field had no room, so that no purge by them reaches it. */
  untold: new Set(),
  /** How many tags all of these have. */
  paths: 0,
  /** How many pages were forgotten, and how many of them a purge of the whole site has reached. */
  forgotten: 0,
  reached: 0,
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
      maxTags: settings.maxTags ?? 10_000,
      maxPaths: settings.maxPaths ?? 200_000,
      onError: settings.onError,
    };
    this.#purge = settings.purge ?? new LaminaPurge(this.#settings);
  }

  async get(key, context) {
    const entry = memory.entries.get(key);
    if (!entry) return null;
    const since = (tag) => memory.revalidated.get(tag) ?? 0;
    const isOld = (tags) => tags.some((tag) => since(tag) >= entry.lastModified);
    if (entry.lastModified <= memory.floor || isOld(entry.tags)) {
      forget(key);
      return null;
    }
    // The tags of who asks, as those of the page for which data is read: others may have the data still.
    if (isOld([...(context?.tags ?? []), ...(context?.softTags ?? [])])) return null;
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
      this.#tell(value.headers, tags);
    }
    const isPage = ["PAGE", "PAGES", "APP_PAGE", "ROUTE", "APP_ROUTE"].includes(value.kind);
    if (isPage && tags.length > 0) remember(key, tags);
    const bytes = size(value);
    memory.entries.set(key, { value, tags, bytes, lastModified: Date.now() });
    memory.bytes += bytes;
    for (const oldest of memory.entries.keys()) {
      if (memory.bytes <= this.#settings.maxBytes) break;
      forget(oldest);
    }
    for (const oldest of memory.pages.keys()) {
      if (memory.paths <= this.#settings.maxPaths) break;
      forgetPage(oldest);
    }
  }

  /**
   * Next's `revalidateTag` and `revalidatePath`. With `durations` (Next 16), what is stored may be
   * served while it is refreshed.
   */
  async revalidateTag(tags, durations) {
    const named = [tags].flat().filter((tag) => typeof tag === "string" && tag !== "");
    if (named.length === 0) return;
    // Next itself gives the tags of a page with commas in between.
    const all = [...new Set(named.flatMap((tag) => [tag, ...words(tag)]))];
    const now = Date.now();
    for (const tag of all) {
      memory.revalidated.delete(tag);
      memory.revalidated.set(tag, now);
    }
    for (const [oldest, time] of memory.revalidated) {
      if (memory.revalidated.size <= this.#settings.maxTags) break;
      memory.revalidated.delete(oldest);
      memory.floor = Math.max(memory.floor, time);
    }
    const { site, wait } = this.#settings;
    const { forgotten } = memory;
    const isWhole = Boolean(site) && forgotten > memory.reached;
    try {
      if (!site && all.some((tag) => memory.untold.has(tag))) {
        throw new Error("some page has more tags than fit into its field, and the edge can't be told which; expected `site`");
      }
      // The page's own field may have a tag as it is.
      let order = this.#purge.tags([...new Set(all.flatMap((tag) => [escaped(tag), tag]))]);
      const urls = this.#urls(all);
      if (urls.length > 0) order = order.and(this.#purge.urls(urls));
      if (isWhole) order = order.and(this.#purge.prefix(beginning(site)));
      // What is left of the whole site, though stale, would be unknown again the next time.
      else if (durations?.expire !== undefined && durations.expire > 0) order = order.soft();
      if (wait) order = order.wait(wait);
      await order;
      if (isWhole) memory.reached = Math.max(memory.reached, forgotten);
    } catch (error) {
      // The page is new here; whoever asked for it must know that the edge may show the old one.
      if (!this.#settings.onError) throw error;
      this.#settings.onError(error, named);
    }
  }

  resetRequestCache() {}

  /** Puts the tags of a page into its field, beside those that it has there by itself. */
  #tell(headers, tags) {
    const name = Object.keys(headers).find((name) => name.toLowerCase() === FIELD) ?? FIELD;
    const own = words([headers[name] ?? ""].flat().join(","));
    const { kept, left } = field(tags, own.join(",").length);
    headers[name] = [...new Set([...kept, ...own])].join(",");
    for (const tag of left) memory.untold.add(tag);
    for (const oldest of memory.untold) {
      if (memory.untold.size <= this.#settings.maxPaths) break;
      memory.untold.delete(oldest);
    }
  }

  /** Where pages with these tags are, as far as this process has made them. */
  #urls(tags) {
    const site = this.#settings.site?.replace(/\/$/, "");
    if (!site) return [];
    const paths = new Set();
    for (const [one, page] of memory.pages) {
      if (tags.some((tag) => page.tags.has(tag))) paths.add(one);
    }
    for (const tag of tags) {
      // `revalidatePath("/x")` is the tag `_N_T_/x`.
      const named = /^_N_T_(\/.*)$/.exec(tag)?.[1];
      if (named && !/\/(layout|page|route)$|\[/.test(named)) paths.add(path(named));
    }
    return [...paths].flatMap((one) => (one === "/" ? root(site) : [`${site}${one}`]));
  }
}

function forget(key) {
  memory.bytes -= memory.entries.get(key)?.bytes ?? 0;
  memory.entries.delete(key);
}

/** Keeps the path of a page by its tags, those that it had before as well: the edge may have it with these. */
function remember(key, tags) {
  const known = memory.pages.get(path(key))?.tags ?? new Set();
  memory.paths -= known.size;
  for (const tag of tags) known.add(tag);
  memory.paths += known.size;
  memory.pages.delete(path(key));
  memory.pages.set(path(key), { key, tags: known });
}

/** The page goes, too. When the edge asks for it again, it is made anew and known again. */
function forgetPage(one) {
  const { key, tags } = memory.pages.get(one);
  memory.paths -= tags.size;
  memory.pages.delete(one);
  forget(key);
  memory.forgotten += 1;
}

/** What all URLs of the site begin with, without their scheme. */
function beginning(site) {
  const { host, pathname } = new URL(site);
  // The page at the root of a site below a path has no slash behind it.
  return pathname === "/" ? `${host}/` : `${host}${pathname.replace(/\/$/, "")}`;
}

/** Where the page at the root of the site is, as Next asks for it with and without `trailingSlash`. */
function root(site) {
  return new URL(site).pathname === "/" ? [`${site}/`] : [site, `${site}/`];
}

function tagsOf(value, context) {
  const own = String(value.headers?.[TAGS] ?? "").split(",");
  const given = [...(context.tags ?? []), ...(value.tags ?? []), ...own];
  return [...new Set(given.map((tag) => tag.trim()).filter((tag) => tag !== ""))];
}

/** The texts of a list with commas. */
function words(text) {
  return text.split(",").map((word) => word.trim()).filter((word) => word !== "");
}

/** A tag as a field can hold it: what is not printable ASCII, and commas, are escaped. */
function escaped(tag) {
  const hex = (octet) => `%${octet.toString(16).toUpperCase().padStart(2, "0")}`;
  return tag.replace(/[^\x21-\x7e]|,/gu, (letter) => [...Buffer.from(letter)].map(hex).join(""));
}

/**
 * Tags as texts of a field, as many as there is room for, and those that are left; those of the page
 * itself stand last in Next's list.
 */
function field(tags, taken) {
  const [kept, left] = [[], []];
  let length = taken;
  for (const tag of [...tags].reverse()) {
    const text = escaped(tag);
    const fits = length + text.length + 1 <= LONGEST_FIELD;
    if (fits) {
      kept.push(text);
      length += text.length + 1;
    } else left.push(tag);
  }
  return { kept, left };
}

/**
 * The path of a page in a URL. Its key is the path, decoded but for what would end it, and in later
 * versions of Next (15.5.29 is one) behind the kind of the page and a hash of its file.
 */
function path(key) {
  const own = key.replace(/^\/route-cache\/[A-Z_]+\/[0-9a-f]+\/\$(?=\/)/, "");
  const page = own === "/index" ? "/" : own.replace(/^\/index(?=\/index(\/|$))/, "");
  return encodeURI(page).replace(/%25(?=[0-9A-Fa-f]{2})/g, "%");
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
