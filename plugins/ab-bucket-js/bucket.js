// The pure part, without a word about the gateway: which bucket a visitor is in.

/** 32 bits of FNV-1a over the UTF-8 of a text, stirred so that all bits count (murmur3's end). */
export function hash(text) {
  let h = 0x811c9dc5;
  for (const c of unescape(encodeURIComponent(text))) {
    h = Math.imul(h ^ c.charCodeAt(0), 0x01000193);
  }
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Checks the configuration; throws what is wrong with it. */
export function read(json) {
  const { experiment, cookie, buckets, ...unknown } = JSON.parse(json);
  const [surplus] = Object.keys(unknown);
  if (surplus) throw `unknown key \`${surplus}\``;
  if (typeof experiment !== 'string' || !experiment) throw '`experiment` is a text';
  if (typeof cookie !== 'string' || !cookie) throw '`cookie` is the name of a cookie';
  const entries = Object.entries(buckets ?? {});
  const isWeight = ([, weight]) => Number.isInteger(weight) && weight >= 0;
  const total = entries.reduce((sum, [, weight]) => sum + weight, 0);
  if (!entries.every(isWeight) || !(total > 0 && total <= 1_000_000)) {
    throw '`buckets` are names with whole weights, together 1 to 1000000';
  }
  return { experiment, cookie, entries, total };
}

/** The bucket of a visitor; whoever is not known yet is in the first. */
export function bucketOf({ experiment, entries, total }, visitor) {
  if (!visitor) return entries[0][0];
  let at = hash(`${experiment}:${visitor}`) % total;
  for (const [name, weight] of entries) {
    if (at < weight) return name;
    at -= weight;
  }
}
