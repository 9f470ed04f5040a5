#!/usr/bin/env bash
# Builds the guests into target/wasm32-*/release/NAME.wasm; quick when nothing changed.
# Where rustup can't fetch targets, Debian's rust-web-src (see plugins/build.sh) builds the
# standard library beside them; `printer`, which needs WASI's, is left out then, and `web` can't print.
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p target
# Tests in several processes may build at once.
if command -v flock >/dev/null; then exec 8>target/.building && flock 8; fi

core=wasm32-unknown-unknown wasi=wasm32-wasip2
core_guests=(-p answerer -p asker -p counter -p keyer -p web)

has() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ] || rustup target add "$1" >/dev/null 2>&1; }

# CARGO_TARGET_DIR and flags of the gateway's own build are none of ours.
build() { env -u RUSTFLAGS -u CARGO_TARGET_DIR "$@" --locked --quiet --release --target-dir target; }

if has $core; then
    build cargo build --target $core "${core_guests[@]}"
else
    RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19 \
        build /usr/bin/cargo -Zbuild-std=std,panic_abort build --target $core "${core_guests[@]}"
fi
if has $wasi; then build cargo build --target $wasi -p printer -p web; fi
