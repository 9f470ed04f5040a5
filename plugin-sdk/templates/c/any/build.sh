#!/bin/sh
# Builds {{name}}.wasm. `lamina plugin build` runs this. The compiler is $CC, or clang with
# wasm-ld (Debian: clang lld), or else Zig's, which tools/zig.sh of the SDK finds or installs.
set -eu
cd "$(dirname "$0")"
sdk="{{sdk}}"
[ -d "$sdk/wit" ] || { echo "build.sh: plugin-sdk is not at $sdk; put it there, or change build.sh" >&2; exit 1; }
if [ -z "${CC-}" ]; then
    if command -v clang >/dev/null && command -v wasm-ld >/dev/null; then
        CC="clang --target=wasm32"
    else
        zig=$(sh "$sdk/tools/zig.sh")
        CC="$zig cc --target=wasm32-freestanding"
    fi
fi
$CC -std=c11 -O2 -nostdlib -mbulk-memory -Wall -Wextra -Wl,--no-entry -I "$sdk/c" \
    -o {{name}}.wasm plugin.c "$sdk/c/{{world}}_component_type.s"
