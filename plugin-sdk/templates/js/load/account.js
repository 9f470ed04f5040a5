// The pure part: plain JavaScript, which any Node.js can test.
import { decode } from '{{sdk}}/js/lamina.js';

/** The number at the end of the path, or null: what goes into another path must be known. */
export function idOf(pathAndQuery) {
  return /^\/[^/?]+\/([0-9]+)(\?|$)/.exec(pathAndQuery)?.[1] ?? null;
}

/** The answer, made of what the user's API said. */
export function account(body) {
  const user = JSON.parse(decode(body));
  return JSON.stringify({ user });
}
