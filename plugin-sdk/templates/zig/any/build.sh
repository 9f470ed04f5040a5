#!/bin/sh
# Builds {{name}}.wasm with Zig 0.17, which tools/zig.sh of the SDK finds or installs.
# `lamina plugin build` runs this.
set -eu
cd "$(dirname "$0")"
sdk="{{sdk}}"
[ -d "$sdk/wit" ] || { echo "build.sh: plugin-sdk is not at $sdk; put it there, or change build.sh" >&2; exit 1; }
zig=$(sh "$sdk/tools/zig.sh")
$zig build-exe -target wasm32-freestanding -fno-entry -rdynamic -O ReleaseSmall \
    --dep lamina -Mroot=plugin.zig "$sdk/c/{{world}}_component_type.s" \
    "-Mlamina=$sdk/zig/lamina.zig" -femit-bin={{name}}.wasm
