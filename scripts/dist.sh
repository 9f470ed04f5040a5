#!/usr/bin/env bash
# dist.sh BINARY [FOLDER [ARGUMENT OF cargo-deb]...]: makes all that a release consists of from a
# program that is built already, into FOLDER (target/release-artefacts): the program, the Debian
# package, completions, the manual, a list of all dependencies (CycloneDX), and checksums. What was in
# the folder is removed.
set -euo pipefail
binary=$(realpath "$1")
root=$(realpath "$(dirname "$0")/..")
out=$(realpath -m "${2:-$root/target/release-artefacts}")
shift $(($# < 2 ? $# : 2))
cd "$root"
scripts/tools.sh cargo-deb cargo-cyclonedx

rm -rf "$out"
mkdir -p "$out"
install -m 0755 "$binary" "$out/lamina"
scripts/deb.sh "$binary" "$out" --strip "$@" >/dev/null

# It writes a list beside each manifest of the workspace; that of the program is wanted. The name is
# this run's own, so that two runs do not remove each other's.
name=lamina-sbom-$$
trap 'find . -path ./target -prune -o -name "$name.json" -exec rm -f {} +' EXIT
cargo cyclonedx --quiet --manifest-path gateway/cli/Cargo.toml --format json --override-filename "$name"
mv "gateway/cli/$name.json" "$out/lamina.cdx.json"

(cd "$out" && find . -type f ! -name SHA256SUMS -printf '%P\n' | sort | xargs sha256sum >SHA256SUMS)
echo "dist: $out"
(cd "$out" && find . -maxdepth 1 -mindepth 1 -printf '  %f\n' | sort)
