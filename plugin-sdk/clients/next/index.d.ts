import type { LaminaPurge } from "lamina-purge";

export interface LaminaCacheSettings {
  /** Where Lamina's admin listener is (`LAMINA_ADMIN`). */
  admin?: string;
  /** A token with the right `purge` (`LAMINA_TOKEN`). */
  token?: string;
  /** The origin of the site as clients see it, as `https://shop.example` (`LAMINA_SITE`). */
  site?: string;
  /** How long a revalidation waits for all nodes, as "2s" (`LAMINA_WAIT`); it fails if one does not confirm. */
  wait?: string;
  /** What is kept in memory. */
  maxBytes?: number;
  /**
   * How many revalidated tags are remembered (10,000). When there are more, all that is older than the
   * revalidation that is forgotten counts as revalidated.
   */
  maxTags?: number;
  /**
   * How many tags of pages are remembered with the pages' paths (200,000, eight for each of 25,000 pages).
   * When pages were forgotten, the next revalidation purges the whole site at the edge.
   */
  maxPaths?: number;
  /** Takes the error of a purge, in place of whoever revalidates. */
  onError?: (error: unknown, tags: string[]) => void;
  purge?: LaminaPurge;
}

export default class LaminaCacheHandler {
  constructor(options?: unknown, settings?: LaminaCacheSettings);
  get(
    key: string,
    context?: { tags?: string[]; softTags?: string[] },
  ): Promise<{ lastModified: number; value: unknown; tags: string[] } | null>;
  set(key: string, value: unknown, context?: { tags?: string[] }): Promise<void>;
  revalidateTag(tags: string | string[], durations?: { expire?: number }): Promise<void>;
  resetRequestCache(): void;
}

export declare function laminaCacheHandler(settings?: LaminaCacheSettings): typeof LaminaCacheHandler;
