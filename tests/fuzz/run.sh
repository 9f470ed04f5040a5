#!/usr/bin/env bash
# Builds the fuzzer and runs each target for FUZZ_SECONDS (default 60) from its committed
# seeds, on the stable toolchain: libFuzzer comes from the crate libfuzzer-sys, coverage
# from rustc.sh.
#
#   tests/fuzz/run.sh [TARGET…]             fuzz these, or all
#   tests/fuzz/run.sh --replay [TARGET…]    run the seeds once, find nothing new
#   tests/fuzz/run.sh --shrink TARGET…      put what the runs found beside the seeds, least first
#
# What is new goes to target/fuzz/corpus/TARGET. An input that breaks a law is left in
# target/fuzz/findings/TARGET; run it alone with
#   LAMINA_FUZZ=TARGET target/fuzz/debug/fuzz FILE
set -euo pipefail
cd "$(dirname "$0")"

seconds=${FUZZ_SECONDS:-60}
out=$(cd ../.. && pwd)/target/fuzz
program=$out/debug/fuzz
mode=fuzz
case "${1:-}" in
--replay | --shrink)
  mode=${1#--}
  shift
  ;;
esac

CARGO_TARGET_DIR=$out RUSTC_WRAPPER=$PWD/rustc.sh "${CARGO:-cargo}" build --locked

# A minute of CPU, or half a gigabyte, for one small input is a finding as well.
limits=(-max_len=4096 -timeout=5 -rss_limit_mb=512 -dict=words.dict -print_final_stats=0 -verbosity=0)

if [ $# -gt 0 ]; then targets=("$@"); else
  mapfile -t targets < <(ls corpus)
fi
failed=()
for target in "${targets[@]}"; do
  seeds=corpus/$target new=$out/corpus/$target findings=$out/findings/$target/
  mkdir -p "$new" "$findings"
  export LAMINA_FUZZ=$target
  run=("$program" "${limits[@]}" "-artifact_prefix=$findings")
  case $mode in
  fuzz) run+=("-max_total_time=$seconds" "$new" "$seeds") ;;
  replay) run+=(-runs=0 "$seeds") ;;
  shrink) run+=(-merge=1 "$seeds" "$new") ;;
  esac
  echo "== $target"
  "${run[@]}" || failed+=("$target")
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "laws broken: ${failed[*]} (inputs in $out/findings)" >&2
  exit 1
fi
