#!/usr/bin/env bash
# The control of the record format: reads and writes it with what Node.js has (msgpackr
# from npm, node:zlib, node:crypto), and none of our code. See control.mjs for commands.
#
#   tests/record/control.sh --install     first installs what is missing (as `make test` does)
#   tests/record/control.sh COMMAND …
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
work=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")/record-control

if [ "${1:-}" = --install ] && ! command -v npm >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm; } >/dev/null
fi
command -v npm >/dev/null || { echo "record control: needs Node.js 18 or newer with npm" >&2; exit 1; }

# The package stays out of the repository; the lock file says which bytes it must be.
mkdir -p "$work"
exec 8>"$work/.installing"
if command -v flock >/dev/null; then flock 8; fi # tests in several processes may ask at once
if ! cmp -s package-lock.json "$work/.installed"; then
    cp package.json package-lock.json "$work/"
    npm ci --prefix "$work" --omit=optional --ignore-scripts --no-audit --no-fund --silent >&2
    cp package-lock.json "$work/.installed"
fi
exec 8>&-
[ "${1:-}" != --install ] || exit 0

# Imports are found beside the program that asks.
NODE_CONTROL_MODULES=$work/node_modules exec node --no-warnings "$here/control.mjs" "$@"
