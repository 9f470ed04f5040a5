#!/bin/sh
# Builds {{name}}.wasm. `lamina plugin build` runs this.
set -eu
cd "$(dirname "$0")"
sdk="{{sdk}}"
[ -d "$sdk/wit" ] || { echo "build.sh: plugin-sdk is not at $sdk; put it there, or change build.sh and Cargo.toml" >&2; exit 1; }
sh "$sdk/tools/cargo.sh"
cp "target/wasm32-unknown-unknown/release/$(echo "{{name}}" | tr - _).wasm" "{{name}}.wasm"
