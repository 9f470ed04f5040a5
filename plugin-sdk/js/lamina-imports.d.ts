// The modules that a plugin imports from the gateway. Needs `grant` in the YAML, but for log
// and fetch: kv, clock, random.

declare module 'lamina:plugin/log@1.0.0' {
  export function write(level: 'debug' | 'info' | 'warn' | 'error', message: string): void;
}
declare module 'lamina:plugin/fetch@1.0.0' {
  import type { FetchError, FetchRequest, FetchResponse, Result } from 'lamina-plugin';
  /** Throws a FetchError. */
  export function fetch(request: FetchRequest): FetchResponse;
  /** All at once; the answers come in the order of the requests. */
  export function fetchAll(requests: FetchRequest[]): Result<FetchResponse, FetchError>[];
}
declare module 'lamina:plugin/kv@1.0.0' {
  export function get(key: string): Uint8Array | null;
  export function set(key: string, value: Uint8Array, ttlMs: number | null): void;
  export { remove as delete };
  function remove(key: string): void;
}
declare module 'lamina:plugin/clock@1.0.0' {
  export function nowMs(): number;
  export function monotonicNs(): number;
}
declare module 'lamina:plugin/random@1.0.0' {
  export function bytes(length: number): Uint8Array;
}
