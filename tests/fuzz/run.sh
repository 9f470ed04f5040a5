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
#   LAMINA_FUZZ=TARGET target/fuzz/debug/fuzz-PACKAGE FILE
# A target stands in PACKAGE/src/main.rs, in the package of the crate that it tests.
set -euo pipefail
cd "$(dirname "$0")"

seconds=${FUZZ_SECONDS:-60}
out=$(cd ../.. && pwd)/target/fuzz
mode=fuzz
case "${1:-}" in
--replay | --shrink)
  mode=${1#--}
  shift
  ;;
esac

# A minute of CPU, or half a gigabyte, for one small input is a finding as well.
limits=(-max_len=4096 -timeout=5 -rss_limit_mb=512 -dict=words.dict -print_final_stats=0 -verbosity=0)

if [ $# -gt 0 ]; then targets=("$@"); else
  mapfile -t targets < <(ls corpus)
fi

# The package whose program has a target.
package_of() {
  grep -lF "(\"$1\", &[" ./*/src/main.rs | cut -d/ -f2 | grep . ||
    { echo "tests/fuzz/run.sh: no package has the target $1" >&2; exit 2; }
}

packages=()
for target in "${targets[@]}"; do
  package=$(package_of "$target")
  packages+=(-p "fuzz-$package")
done
CARGO_TARGET_DIR=$out RUSTC_WRAPPER=$PWD/rustc.sh "${CARGO:-cargo}" build --locked "${packages[@]}"

failed=()
for target in "${targets[@]}"; do
  seeds=corpus/$target new=$out/corpus/$target findings=$out/findings/$target/
  mkdir -p "$new" "$findings"
  export LAMINA_FUZZ=$target
  run=("$out/debug/fuzz-$(package_of "$target")" "${limits[@]}" "-artifact_prefix=$findings")
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
