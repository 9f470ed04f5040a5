/** The answer of `POST /v1/purge`. */
export interface PurgeReceipt {
  applied: boolean;
  order: number;
  selectors: number;
  /** What the purge may not reach. */
  notes?: string[];
  /** With a second tier. */
  l2?: { logged: boolean; number?: number; note?: string; reason?: string; for_ms?: number };
  /** With `wait`. */
  peers?: {
    complete: boolean;
    outcome: "all" | "some" | "unknown";
    nodes: { node: string; applied: boolean; order?: number; after_ms?: number; silent_ms?: number }[];
    reason?: string;
    never_heard?: number;
  };
}

export declare class PurgeError extends Error {
  status?: number;
  receipt?: PurgeReceipt;
}
/** The gateway did not take the order. Nothing was purged. */
export declare class PurgeRefused extends PurgeError {}
/** It holds on the node that was asked, and not for certain elsewhere. */
export declare class PurgeIncomplete extends PurgeError {
  receipt: PurgeReceipt;
  /** The nodes that did not confirm it. */
  unconfirmed: string[];
  /** How many nodes are expected and were never heard. */
  neverHeard: number;
}
/** Nobody can tell where it holds, or whether it was carried out at all. */
export declare class PurgeUnknown extends PurgeError {}
/** No answer came; the gateway may have taken the order all the same. */
export declare class PurgeUnanswered extends PurgeUnknown {}

/** A purge that is sent when it is awaited, and only once. */
export interface PurgeOrder extends PromiseLike<PurgeReceipt> {
  soft(): PurgeOrder;
  /** "2s", or milliseconds. */
  wait(time: string | number): PurgeOrder;
  /** One order for the selectors of both: it is soft if one of them is, and waits if one of them does. */
  and(other: PurgeOrder): PurgeOrder;
  readonly asked: Record<string, unknown>;
  send(): Promise<PurgeReceipt>;
  catch<T>(failed: (error: unknown) => T | PromiseLike<T>): Promise<PurgeReceipt | T>;
  finally(ended: () => void): Promise<PurgeReceipt>;
}

export declare class LaminaPurge {
  constructor(options?: {
    /** An address, a URL, or `unix:/path`. */
    admin?: string;
    /** A token with the right `purge`; white space around it is taken off. */
    token?: string;
    /** How long an answer may take beyond the time of `wait`. */
    timeoutMs?: number;
  });
  tags(tags: string | string[]): PurgeOrder;
  urls(urls: string | string[]): PurgeOrder;
  prefixes(prefixes: string | string[]): PurgeOrder;
  prefix(prefix: string): PurgeOrder;
  patterns(patterns: string | string[]): PurgeOrder;
  routes(routes: string | string[]): PurgeOrder;
  route(route: string): PurgeOrder;
  keys(keys: string | string[]): PurgeOrder;
  all(): PurgeOrder;
}
