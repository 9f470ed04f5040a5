#!/bin/sh
# Builds {{name}}.wasm. `lamina plugin build` runs this.
set -eu
cd "$(dirname "$0")"
sdk="{{sdk}}"
[ -d "$sdk/wit" ] || { echo "build.sh: plugin-sdk is not at $sdk; put it there, or change build.sh, package.json and the imports" >&2; exit 1; }
if ! [ node_modules/.package-lock.json -nt package.json ]; then
    npm install --no-audit --no-fund --loglevel=error >&2
fi
npm run --silent build
