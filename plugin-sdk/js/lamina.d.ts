// Types of the contract (plugin-sdk/wit) as JavaScript sees it, and of lamina.js.
//
// `option<T>` is `T | null`, a variant is `{ tag, val }`, `list<u8>` is a Uint8Array, names
// are in camelCase. A function that may fail throws its error; inside a list the same is
// `{ tag: 'ok' | 'err', val }`. What a field means stands in wit/types.wit.

export interface Field { name: string; value: string }
export interface Header { name: string; value: Uint8Array | number[] }
export type Result<T, E> = { tag: 'ok'; val: T } | { tag: 'err'; val: E };

export type QueryNeed = { tag: 'none' } | { tag: 'whole' } | { tag: 'parameters'; val: string[] };
export interface KeyNeeds {
  method: boolean; host: boolean; path: boolean; query: QueryNeed; headers: string[]; cookies: string[];
}
export interface KeyRules {
  keep: string[] | null; drop: string[]; sort: boolean; headers: string[]; cookies: string[];
}
export interface Reads { headers: string[]; cookies: string[] }
export interface Manifest {
  name: string; version: string; inputs: KeyNeeds; declarative: KeyRules | null; reads: Reads;
}

export interface KeyInputs {
  method: string | null; host: string | null; path: string | null; query: string | null;
  headers: Field[]; cookies: Field[];
}
export interface CacheKey { text: string; parts: string[]; tags: string[] }
export type KeyDecision =
  | { tag: 'default' } | { tag: 'key'; val: CacheKey } | { tag: 'bypass'; val: string } | { tag: 'refuse'; val: number };

export interface Request {
  method: string; scheme: string; host: string; pathAndQuery: string; headers: Header[]; body: Uint8Array | number[];
}
export interface Context { route: string; deadlineMs: number; maxBody: number }
export interface Response {
  status: number; headers: Header[]; body: Uint8Array | number[]; ttlMs: number | null; tags: string[];
}
export type LoadDecision =
  | { tag: 'response'; val: Response } | { tag: 'pass'; val: Request } | { tag: 'absent' }
  | { tag: 'stale'; val: string } | { tag: 'error'; val: string };

export interface FetchRequest {
  upstream: string; method: string; pathAndQuery: string; headers: Header[];
  body: Uint8Array | number[]; timeoutMs: number | null;
}
export interface FetchResponse { status: number; headers: Header[]; body: Uint8Array }
export type FetchError =
  | { tag: 'denied' } | { tag: 'invalid'; val: string } | { tag: 'too-many' } | { tag: 'timeout' }
  | { tag: 'too-large' } | { tag: 'unavailable'; val: string };

export function encode(text: string): Uint8Array;
export function decode(bytes: Uint8Array): string;
export function manifest(
  name: string,
  version: string,
  more?: { needs?: Partial<KeyNeeds>; reads?: Partial<Reads>; declarative?: KeyRules | null },
): Manifest;
export function urlOf(inputs: KeyInputs): string;
export function valueOf(fields: Field[], name: string): string | null;
export function key(text: string, parts?: string[], tags?: string[]): KeyDecision;
export function get(upstream: string, pathAndQuery: string, headers?: Record<string, string>): FetchRequest;
export function response(
  status: number,
  headers: Record<string, string>,
  body: string | Uint8Array,
  more?: { ttlMs?: number | null; tags?: string[] },
): LoadDecision;
