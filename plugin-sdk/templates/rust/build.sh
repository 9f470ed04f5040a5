#!/bin/sh
# Builds {{name}}.wasm. `lamina plugin build` runs this.
set -eu
cd "$(dirname "$0")"
name=$(sed -n 's/^name = "\(.*\)"/\1/p' Cargo.toml | head -1)
cargo build --quiet --release --target wasm32-unknown-unknown --target-dir target
cp "target/wasm32-unknown-unknown/release/$(echo "$name" | tr - _).wasm" "$name.wasm"
