#!/usr/bin/env bash
# Runs the public conformance suite for HTTP caches (npm: http-cache-tests) against the
# gateway with config/conformance.yaml. Everything listens on 127.0.0.1 alone.
#
#   tests/conformance/run.sh              all tests, the scores, the ratchet
#   tests/conformance/run.sh --id=ID      one test with its requests and answers
#   tests/conformance/run.sh --bless      writes the scores into ratchet.json
#   tests/conformance/run.sh --front=F    over tls-h1, tls-h2 or h3; needs the program `front` of
#                                         the package e2e beside the gateway
#
# LAMINA_BIN names the gateway; without it target/debug/lamina, else target/release/lamina.
set -euo pipefail
cd "$(dirname "$0")"
here=$PWD
target=$(realpath -m "${CARGO_TARGET_DIR:-../../target}")
work=$target/conformance

if [ -z "${LAMINA_BIN:-}" ]; then
    for LAMINA_BIN in "$target"/{debug,release}/lamina; do [ -x "$LAMINA_BIN" ] && break; done
fi
[ -x "$LAMINA_BIN" ] || { echo "conformance: build the gateway first: cargo build -p lamina --features shared-with-tests" >&2; exit 1; }
command -v npm >/dev/null || { echo "conformance: needs Node.js 18 or newer with npm" >&2; exit 1; }

# The suite stays out of the repository; the lock file says which bytes it must be.
mkdir -p "$work"
if ! cmp -s package-lock.json "$work/.installed"; then
    cp package.json package-lock.json "$work/"
    npm ci --prefix "$work" --ignore-scripts --no-audit --no-fund --silent
    cp package-lock.json "$work/.installed"
fi

exec node --no-warnings "$here/run.mjs" --suite="$work/node_modules/http-cache-tests" --gateway="$(realpath "$LAMINA_BIN")" --front-program="${LAMINA_BIN%/*}/front" "$@"
