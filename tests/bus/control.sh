#!/usr/bin/env bash
# The bus as services in Node.js see it: events in the form of lazy-layers-cache, over
# msgpackr, node:zlib and the clients ioredis, nats and amqplib from npm, and none of our code.
#
#   tests/bus/control.sh --install          first installs what is missing (as `make test` does)
#   tests/bus/control.sh publish …          see publish.mjs
#   tests/bus/control.sh read …             see read.mjs
#   tests/bus/control.sh codec …            see codec.mjs
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
work=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")/bus-control

if [ "${1:-}" = --install ] && ! command -v npm >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends nodejs npm; } >/dev/null
fi
command -v npm >/dev/null || { echo "bus control: needs Node.js 18 or newer with npm" >&2; exit 1; }

# The packages stay out of the repository; the lock file says which bytes they must be.
mkdir -p "$work"
exec 8>"$work/.installing"
if command -v flock >/dev/null; then flock 8; fi # tests in several processes may ask at once
if ! cmp -s package-lock.json "$work/.installed"; then
    cp package.json package-lock.json "$work/"
    npm ci --prefix "$work" --omit=optional --ignore-scripts --no-audit --no-fund --silent >&2
    cp package-lock.json "$work/.installed"
fi
exec 8>&-

case "${1:-}" in
--install) exit 0 ;;
publish | read | codec) program=$1 ;;
*)
    echo "bus control: --install, publish, read or codec" >&2
    exit 2
    ;;
esac
shift
# Imports are found beside the program that asks.
NODE_CONTROL_MODULES=$work/node_modules exec node --no-warnings "$here/$program.mjs" "$@"
