#!/usr/bin/env bash
# deb.sh BINARY FOLDER [ARGUMENT OF cargo-deb]...: makes the Debian package of a program that is
# built already, into FOLDER, which gets completions and the manual beside it. What the package
# holds stands in gateway/cli/Cargo.toml.
set -euo pipefail
binary=$(realpath "$1")
mkdir -p "$2"
out=$(realpath "$2")
shift 2
cd "$(dirname "$0")/.."
scripts/tools.sh cargo-deb

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
umask 022
made=$stage/release
mkdir -p "$made/man" "$made/completions" "$made/plugins"
cp "$binary" "$made/lamina"
cp plugins/dist/*.wasm "$made/plugins/"
"$binary" man --all-to "$made/man" >/dev/null
"$binary" completions bash >"$made/completions/lamina.bash"
"$binary" completions zsh >"$made/completions/_lamina"
"$binary" completions fish >"$made/completions/lamina.fish"
# Where editors find the schema on the machine of the package.
sed 's|\$schema=.*|$schema=/usr/share/doc/lamina/lamina.schema.json|' \
    config/packaging/lamina.yaml >"$made/lamina.yaml"

rm -rf "$out/man" "$out/completions"
cp -r "$made/man" "$made/completions" "$out/"
# Without time and name, so that the same source makes the same package.
gzip -9n "$made"/man/*
gzip -9nc CHANGELOG.md >"$made/changelog.gz"
CARGO_TARGET_DIR=$stage CARGO_NET_OFFLINE=true \
    cargo deb --no-build --manifest-path gateway/cli/Cargo.toml --output "$out/" "$@"
