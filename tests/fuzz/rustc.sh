#!/usr/bin/env bash
# RUSTC_WRAPPER: coverage instrumentation for libFuzzer, on stable, and only where it tells
# something: our code and the parsers it rests on. Counting the branches of the wasm
# compiler beside them would make each run slower and each build longer.
set -euo pipefail
rustc=$1
shift
case "${CARGO_PKG_NAME:-}/${CARGO_CRATE_NAME:-}" in
*/build_script_*) exec "$rustc" "$@" ;;
lamina/* | lamina-*/* | fuzz-*/* | http/* | httparse/* | sfv/* | saphyr-parser/*) ;;
*) exec "$rustc" "$@" ;;
esac
exec "$rustc" "$@" -Cpasses=sancov-module \
  -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
  -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares
