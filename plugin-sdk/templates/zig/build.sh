#!/bin/sh
# Builds {{name}}.wasm with Zig 0.17. `lamina plugin build` runs this. With PyPI's ziglang:
#   ZIG="python3 -m ziglang" ./build.sh
set -eu
cd "$(dirname "$0")"
${ZIG:-zig} build-exe -target wasm32-freestanding -fno-entry -rdynamic -O ReleaseSmall \
    --dep lamina -Mroot=plugin.zig "{{sdk}}/c/key_plugin_component_type.s" \
    "-Mlamina={{sdk}}/zig/lamina.zig" -femit-bin={{name}}.wasm
