#!/bin/sh
# Builds {{name}}.wasm with clang and wasm-ld. `lamina plugin build` runs this. With Zig:
#   CC="zig cc --target=wasm32-freestanding" ./build.sh
set -eu
cd "$(dirname "$0")"
${CC:-clang --target=wasm32} -std=c11 -O2 -nostdlib -mbulk-memory -Wall -Wextra -Wl,--no-entry \
    -I "{{sdk}}/c" -o {{name}}.wasm plugin.c "{{sdk}}/c/key_plugin_component_type.s"
