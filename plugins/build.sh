#!/usr/bin/env bash
# Builds every plugin into plugins/dist/NAME.wasm; quick when nothing changed.
#
#   plugins/build.sh             builds what this machine can, says what it skips
#   plugins/build.sh --install   first installs what is missing (as `make test` does)
#   plugins/build.sh --strict    fails when anything is skipped (as CI does)
#
# Rust: the target wasm32-unknown-unknown through rustup; where rustup can't fetch it,
# Debian's rust-web-src builds the standard library beside the plugins.
# C: clang and wasm-ld (Debian: clang lld), or Zig's (PyPI: ziglang).
set -euo pipefail
cd "$(dirname "$0")"

install='' strict='' skipped=''
for argument in "$@"; do
    case $argument in
        --install) install=yes ;;
        --strict) strict=yes ;;
        *) echo "usage: plugins/build.sh [--install] [--strict]" >&2; exit 2 ;;
    esac
done

target=wasm32-unknown-unknown
rust_plugins=(normalize-query device-class api-compose signed-origin)
c_plugins=(strip-trailing-slash)
mkdir -p dist target
# Tests in several processes may build at once.
if command -v flock >/dev/null; then exec 8>target/.building && flock 8; fi

skip() {
    echo "plugins/build.sh: skipped $1: $2" >&2
    skipped=yes
}

# Copies only what changed, so that whoever watches dist/ sees no needless change.
ship() {
    cmp -s "$1" "dist/$2.wasm" || { cp "$1" "dist/$2.wasm.part" && mv "dist/$2.wasm.part" "dist/$2.wasm"; }
    printf '%-32s %8d bytes\n' "plugins/dist/$2.wasm" "$(wc -c <"dist/$2.wasm")"
}

debian() {
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 1
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } >/dev/null 2>&1
}

has_target() {
    [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]
}

# CARGO_TARGET_DIR and flags of the gateway's own build are none of ours.
cargo_wasm() {
    env -u RUSTFLAGS -u CARGO_TARGET_DIR "$@" build --locked --quiet --release --target $target --target-dir target
}

build_rust() {
    has_target || rustup target add $target >/dev/null 2>&1 || true
    if has_target; then
        cargo_wasm cargo
        return
    fi
    # Debian's own compiler: RUSTC_BOOTSTRAP lets a stable cargo build the standard library.
    [ -z "$install" ] || debian rustc-web cargo-web rust-web-src lld-19 || true
    command -v wasm-ld-19 >/dev/null && [ -d /usr/src/rustc-web ] || return 1
    RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19 \
        cargo_wasm /usr/bin/cargo -Zbuild-std=std,panic_abort
}

# Prints the command that compiles C for wasm, or fails.
c_compiler() {
    local version
    for version in '' -19 -18 -17 -16 -15 -14; do
        if command -v "clang$version" >/dev/null && command -v "wasm-ld$version" >/dev/null; then
            echo "clang$version --target=wasm32 -nostdlib"
            return
        fi
    done
    local python
    for python in python3 target/ziglang/bin/python; do
        if "$python" -m ziglang version >/dev/null 2>&1; then
            echo "$python -m ziglang cc --target=wasm32-freestanding -nostdlib"
            return
        fi
    done
    return 1
}

install_c_compiler() {
    debian clang lld && return
    python3 -m venv target/ziglang >/dev/null 2>&1 && target/ziglang/bin/pip install --quiet ziglang >/dev/null 2>&1
}

if build_rust; then
    for name in "${rust_plugins[@]}"; do
        ship "target/$target/release/${name//-/_}.wasm" "$name"
    done
elif has_target; then
    echo "plugins/build.sh: the Rust plugins do not compile" >&2
    exit 1
else
    skip "${rust_plugins[*]}" "no Rust target $target (rustup target add $target)"
fi

[ -z "$install" ] || c_compiler >/dev/null || install_c_compiler || true
if compiler=$(c_compiler); then
    for name in "${c_plugins[@]}"; do
        # The second file holds the component type; see plugin-sdk/c/README.md.
        $compiler -std=c11 -O2 -mbulk-memory -Wall -Wextra -Werror -I ../plugin-sdk/c -Wl,--no-entry \
            -o "target/$name.wasm" "$name/plugin.c" ../plugin-sdk/c/key_plugin_component_type.s
        ship "target/$name.wasm" "$name"
    done
else
    skip "${c_plugins[*]}" "no clang with wasm-ld, and no ziglang (plugins/build.sh --install)"
fi

if [ -n "$strict" ] && [ -n "$skipped" ]; then exit 1; fi
