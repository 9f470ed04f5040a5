#!/usr/bin/env bash
# Runs all tests of the workspace. Where LAMINA_SECOND_TRY is set (in .ci/run, on shared machines
# that pause for seconds), up to three tests of the end-to-end suite that failed among all the
# others are run once more, each alone. What fails again, fails; what passes then is named at the
# end, with the output of its failure above, as a fault of the test to be mended.
set -euo pipefail
cd "$(dirname "$0")/.."
CARGO="${CARGO:-cargo}"
MOST=3

# Runs one part and says how long it took.
timed() {
    local part=$1 began=$SECONDS
    shift
    "$@"
    echo "TIME: $part: $((SECONDS - began)) s"
}

# Always the whole workspace and this feature, so that no dependency is built again with others.
WORKSPACE=(--locked --workspace --features lamina/shared-with-tests)
timed "building and running unit tests" "$CARGO" test "${WORKSPACE[@]}" --lib --bins
timed "examples of the documentation" "$CARGO" test "${WORKSPACE[@]}" --doc
timed "building the end-to-end tests" "$CARGO" test "${WORKSPACE[@]}" --test e2e --no-run
log=$(mktemp)
began=$SECONDS
trap 'rm -f "$log"' EXIT
if "$CARGO" test "${WORKSPACE[@]}" --test e2e 2>&1 | tee "$log"; then
    echo "TIME: end-to-end tests: $((SECONDS - began)) s"
    exit 0
fi
mapfile -t failed < <(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$log" | sort -u)
if [ -z "${LAMINA_SECOND_TRY:-}" ] || [ ${#failed[@]} -eq 0 ] || [ ${#failed[@]} -gt $MOST ]; then
    exit 1
fi
for test in "${failed[@]}"; do
    "$CARGO" test "${WORKSPACE[@]}" --test e2e -- --exact "$test"
done
printf 'UNSTABLE: %s failed among the others and passed alone.\n' "${failed[@]}" >&2
