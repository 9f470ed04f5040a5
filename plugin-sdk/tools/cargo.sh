#!/bin/sh
# Builds the crate in the current folder for WebAssembly, in release. Where rustup has no target
# wasm32-unknown-unknown, Debian's sources of the standard library are built beside it
# (apt-get install rustc-web cargo-web rust-web-src lld-19).
set -eu
target=wasm32-unknown-unknown
# Flags of another build are none of ours.
unset RUSTFLAGS CARGO_TARGET_DIR CARGO_BUILD_TARGET 2>/dev/null || true
if [ -d "$(rustc --print target-libdir --target $target 2>/dev/null)" ]; then
    exec cargo build --quiet --release --target $target --target-dir target
fi
if command -v wasm-ld-19 >/dev/null && [ -d /usr/src/rustc-web ]; then
    export RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=wasm-ld-19
    exec /usr/bin/cargo -Zbuild-std=std,panic_abort build --quiet --release --target $target --target-dir target
fi
echo "cargo.sh: Rust's target $target is not there: rustup target add $target" >&2
exit 1
