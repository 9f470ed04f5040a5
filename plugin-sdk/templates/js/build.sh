#!/bin/sh
# Builds {{name}}.wasm. `lamina plugin build` runs this.
set -eu
cd "$(dirname "$0")"
[ -d node_modules/componentize-qjs ] || npm install --no-audit --no-fund --silent
npm run --silent build
